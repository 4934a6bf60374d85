"""The models: a decoder-only transformer, a small MLP language model, a noisy quadratic.

`parameter_table` is the one list of a model's parameters: their shapes, first values, roles, and so their counts and,
under muP, their rates. Every model takes a batch and returns the loss and the weighted extra loss to be added for the
gradient, () each for one model and (R,) each for a stack of R models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from optlaws.harness._fields import wrong
from optlaws.harness.layers import (
    attention,
    embed,
    linear,
    mixture,
    rms_norm,
    rotary_table,
    rotate,
    swiglu,
    token_loss,
)
from optlaws.harness.sections import MLPConfig, QuadraticConfig, TransformerConfig
from optlaws.runs._compute import FLOPS

ModelConfig = TransformerConfig | MLPConfig | QuadraticConfig
EMBEDDING_STD = 0.02


@dataclass(frozen=True)
class Parameter:
    """What is known of one parameter before it exists.

    Attributes
    ----------
    shape
        Of one model.
    std
        Standard deviation of the first values (normal); 0: every value starts at `constant`.
    role
        "embedding", "head", "matrix" (hidden, of at least two axes), "gain" or "point".
    fan_in
        Inputs of each unit.
    share
        Share of the parameter that one token uses (experts).
    """

    shape: tuple[int, ...]
    std: float
    role: str
    fan_in: int = 1
    share: float = 1.0
    constant: float = 1.0

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def parameter_table(config: ModelConfig, vocab: int) -> dict[str, Parameter]:
    """Return every parameter of a model by name, in the order in which first values are drawn."""
    if isinstance(config, QuadraticConfig):
        return {"point": Parameter((config.dimension,), 0.0, "point")}
    table = {"embedding": Parameter((vocab, config.width), EMBEDDING_STD, "embedding")}
    if isinstance(config, MLPConfig):
        fan_in = config.context * config.width
        for layer in range(config.depth):
            table[f"layers.{layer}"] = _matrix(config.width, fan_in)
            fan_in = config.width
        return {**table, "final_gain": _gain(config.width)}
    width, hidden, channels = config.width, config.hidden or 0, config.head_width
    heads, kv_heads = config.heads or 0, config.kv_heads or 0
    residual = 1 / math.sqrt(2 * config.depth)  # 2 depth branches are added to the residual stream
    for layer in range(config.depth):
        block = {
            "attention_gain": _gain(width),
            "qkv": _matrix((heads + 2 * kv_heads) * channels, width),
            "out": _matrix(width, heads * channels, residual),
            "mlp_gain": _gain(width),
        }
        if config.qk_norm:
            block |= {"q_gain": _gain(channels), "k_gain": _gain(channels)}
        if config.experts:
            used = config.experts_per_token / config.experts
            block["router"] = _matrix(config.experts, width)
            block["up"] = _matrix(2 * hidden, width, experts=config.experts, share=used)
            block["down"] = _matrix(width, hidden, residual, experts=config.experts, share=used)
        else:
            block["up"] = _matrix(2 * hidden, width)
            block["down"] = _matrix(width, hidden, residual)
        table |= {f"blocks.{layer}.{name}": parameter for name, parameter in block.items()}
    table["final_gain"] = _gain(width)
    if not config.tied:
        table["head"] = Parameter((vocab, width), EMBEDDING_STD, "head", width)
    return table


def _gain(size: int) -> Parameter:
    return Parameter((size,), 0.0, "gain")


def _matrix(rows: int, fan_in: int, factor: float = 1.0, experts: int = 0, share: float = 1.0) -> Parameter:
    shape = (experts, rows, fan_in) if experts else (rows, fan_in)
    return Parameter(shape, factor / math.sqrt(fan_in), "matrix", fan_in, share)


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters and the work of one token.

    Attributes
    ----------
    params
        Non-embedding parameters: all but the token embedding and the output matrix; norm gains and routers count.
    active_params
        Those of them that one token uses.
    total
        All parameters, embedding and output included (a tied one once).
    flops
        Floating-point operations a trained token: 6 (active_params + output matrix) + 12 depth heads channels seq_len
        for attention, causal or not, as is usual (arXiv 2204.02311, appendix B).
    """

    params: int
    active_params: int
    total: int
    flops: float


def count_parameters(config: ModelConfig, vocab: int = 0, seq_len: int = 1) -> Counts:
    """Return the exact counts of a model; `params` and `active_params` do not depend on `vocab`.

    Parameters
    ----------
    config
        The model.
    vocab
        Tokens in the vocabulary, at least 0.
    seq_len
        Tokens a sequence, at least 1, for the work of attention.

    Raises
    ------
    InputError
        `vocab` or `seq_len` is out of range.
    """
    for name, value, least in (("vocab", vocab, 0), ("seq_len", seq_len, 1)):
        if value < least:
            raise wrong(name, f"a whole number of at least {least}", value)
    table = parameter_table(config, vocab)
    inner = [p for p in table.values() if p.role not in ("embedding", "head")]
    params = sum(p.count for p in inner)
    active = sum(round(p.count * p.share) for p in inner)
    work = FLOPS * active
    if not isinstance(config, QuadraticConfig):
        work += FLOPS * vocab * config.width
    if isinstance(config, TransformerConfig):
        work += 12.0 * config.depth * (config.heads or 0) * config.head_width * seq_len
    return Counts(params, active, sum(p.count for p in table.values()), work)


def first_values(config: ModelConfig, vocab: int, seed: int) -> dict[str, Tensor]:
    """Return first values, of the shapes in `parameter_table`: float32 on the CPU, the same on every machine."""
    source = torch.Generator().manual_seed(seed)
    values = {}
    for name, p in parameter_table(config, vocab).items():
        if p.std:
            values[name] = torch.empty(p.shape).normal_(0.0, p.std, generator=source)
        else:
            values[name] = torch.full(p.shape, p.constant)
    return values


def rate_factor(config: ModelConfig, parameter: Parameter, plain_sgd: bool) -> float:
    """Return the factor on the schedule's rate for one parameter: 1 except under muP.

    muP (arXiv 2203.03466, table 8), relative to `base_width`: with m = width / base_width, Adam-like updates of hidden
    matrices take the rate / m (sign descent too, as its updates do not know the gradient's size either); plain SGD
    takes rate * m for the embedding, the output and gains, and the rate itself for hidden matrices. A matrix whose
    inputs have another size, such as the hidden size, scales by the same m.
    """
    if not isinstance(config, TransformerConfig) or config.parametrisation == "standard":
        return 1.0
    growth = config.width / config.base_width
    if plain_sgd:
        return 1.0 if parameter.role == "matrix" else growth
    return 1.0 / growth if parameter.role == "matrix" else 1.0


class Block(nn.Module):
    """One layer of a transformer: attention, then SwiGLU or a mixture of them, each added to the stream."""

    def __init__(self, config: TransformerConfig, values: Mapping[str, nn.Parameter]) -> None:
        """Take the parameters of this layer by their names."""
        super().__init__()
        self.config = config
        for name, value in values.items():
            self.register_parameter(name, value)
        channels = config.head_width
        self.scale = config.attention_scale
        self.mix = mixture
        self.split = ((config.heads or 0) * channels, *(2 * [(config.kv_heads or 0) * channels]))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the stream ([R,] B, T, n) after this layer, and the balancing loss ([R]) of its experts if any."""
        config = self.config
        mixed = linear(rms_norm(x, self.attention_gain), self.qkv)
        q, k, v = (y.unflatten(-1, (-1, config.head_width)) for y in mixed.split(self.split, dim=-1))
        if config.qk_norm:
            q, k = rms_norm(q, self.q_gain), rms_norm(k, self.k_gain)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        x = x + linear(attention(q, k, v, self.scale), self.out)
        y = rms_norm(x, self.mlp_gain)
        if not config.experts:
            return x + swiglu(y, self.up, self.down), None
        y, balance = self.mix(y, self.router, self.up, self.down, config.experts_per_token)
        return x + y, balance


class Transformer(nn.Module):
    """A decoder-only transformer, or a stack of them."""

    def __init__(
        self,
        config: TransformerConfig,
        values: Mapping[str, nn.Parameter],
        seq_len: int,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Take parameters by their names in `parameter_table`, all with R in front for a stack.

        The residual stream has numbers of that type, unless the configuration says another; None: as the embedding.
        """
        super().__init__()
        self.config = config
        parts: dict[int, dict[str, nn.Parameter]] = {layer: {} for layer in range(config.depth)}
        for name, value in values.items():
            if name.startswith("blocks."):
                _, layer, rest = name.split(".")
                parts[int(layer)][rest] = value
            else:
                self.register_parameter(name, value)
        self.blocks = nn.ModuleList(Block(config, parts[layer]) for layer in range(config.depth))
        device = values["embedding"].device
        cos, sin = rotary_table(seq_len, config.head_width, config.rope_base, device)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.stream = torch.float32 if config.residual_dtype == "float32" else dtype
        self.out_scale = config.base_width / config.width if config.parametrisation == "mup" else 1.0

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, nats per token, and the weighted balancing loss, ([R]) each; arguments ([R,] B, T)."""
        x = embed(tokens, self.embedding)
        extra = x.new_zeros(())
        if self.stream is not None:  # autocast leaves what an embedding returns in float32, and so all that is added
            x = x.to(self.stream)
        for block in self.blocks:
            x, balance = block(x, self.cos, self.sin)
            if balance is not None:
                extra = extra + self.config.balance / self.config.depth * balance
        x = rms_norm(x, self.final_gain)
        if self.out_scale != 1.0:
            x = x * self.out_scale
        logits = linear(x, self.embedding if self.config.tied else self.head)
        stacked = self.embedding.ndim == 3
        return token_loss(logits, targets, stacked), extra


class TokenMLP(nn.Module):
    """The embeddings of the last few tokens through hidden layers (GELU); the output matrix is the embedding."""

    def __init__(self, config: MLPConfig, values: Mapping[str, nn.Parameter]) -> None:
        """Take parameters by their names, all with R in front for a stack."""
        super().__init__()
        self.config = config
        self.embedding, self.final_gain = values["embedding"], values["final_gain"]
        self.layers = nn.ParameterList([values[f"layers.{i}"] for i in range(config.depth)])

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, nats per token, ([R]), and 0, of tokens and targets ([R,] B, T)."""
        x = embed(tokens, self.embedding)
        length = x.shape[-2]
        shifted = [nn.functional.pad(x, (0, 0, j, 0))[..., :length, :] for j in range(self.config.context)]
        x = torch.cat(shifted, dim=-1) / EMBEDDING_STD  # units of order 1, as embeddings start small
        for weight in self.layers:
            x = nn.functional.gelu(linear(x, weight))
        logits = linear(rms_norm(x, self.final_gain), self.embedding)
        return token_loss(logits, targets, self.embedding.ndim == 3), x.new_zeros(())


class Quadratic(nn.Module):
    """The noisy quadratic of `QuadraticConfig`: its loss is exact, only its gradient is noisy."""

    def __init__(self, config: QuadraticConfig, values: Mapping[str, nn.Parameter]) -> None:
        """Take the parameter `point` ([R,] dimension)."""
        super().__init__()
        self.config = config
        self.point = values["point"]
        mode = torch.arange(1, config.dimension + 1, dtype=torch.float64)
        self.register_buffer("curvature", (mode**-config.decay).float().to(self.point.device), persistent=False)

    def forward(self, xi: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss ([R]), and 0; xi ([R,] dimension) is the batch's mean noise, of variance 1 / batch."""
        exact = self.config.floor + 0.5 * (self.curvature * self.point**2).sum(dim=-1)
        pull = self.config.noise * (self.curvature.sqrt() * xi * self.point).sum(dim=-1)
        return exact + (pull - pull.detach()), exact.new_zeros(())


def build_model(
    config: ModelConfig, values: Mapping[str, nn.Parameter], seq_len: int, dtype: torch.dtype | None = None
) -> nn.Module:
    """Return the model over the given parameters (plain ones, or all with R in front for a stack of R models).

    `dtype` are the numbers of its products where autocast is on, which a transformer's residual stream then has, too.
    """
    if isinstance(config, QuadraticConfig):
        return Quadratic(config, values)
    if isinstance(config, MLPConfig):
        return TokenMLP(config, values)
    return Transformer(config, values, seq_len, dtype)


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters by their names in `parameter_table` (names of wrappers and compilers taken off)."""
    return {name.replace("_orig_mod.", "").removeprefix("module."): value for name, value in model.named_parameters()}
