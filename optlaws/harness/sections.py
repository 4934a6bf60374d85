"""The sections of a configuration, each a frozen dataclass whose fields carry their own checks. Loads no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from optlaws.errors import InputError
from optlaws.harness._fields import flag, real, setting, settings, text, weights, whole, word, wrong

MOST_SEED = 2**53 - 1
"""The largest number that JSON readers keep to the last digit."""


@dataclass(frozen=True)
class TransformerConfig:
    """A decoder-only transformer: RMSNorm, rotary positions, SwiGLU, causal attention.

    Attributes
    ----------
    depth, width
        Layers and model width: the dials.
    heads, kv_heads
        Query heads (default: one a 64 of width) and key-value heads (default: as many; 1 is multi-query).
    hidden
        Width of the SwiGLU layer, an expert's if there are experts (default: 8/3 of the width, up to a multiple of 8).
    qk_norm
        RMSNorm of queries and keys.
    tied
        One matrix for embedding and output.
    experts, experts_per_token, balance
        Experts a layer (0: a dense layer), experts used by each token, weight of the load-balancing loss.
    parametrisation, base_width, base_heads
        "standard", or "mup": rates, logits and attention scaled so that the best rate at `base_width` holds at others.
        `base_heads` are the heads at `base_width` (default: one a 64 of it if `heads` is not given, else `heads`).
    rope_base
        Longest wavelength of the rotary positions, tokens / (2 pi).
    """

    kind: str = setting(word("transformer"), "transformer")
    depth: int = setting(whole(1), 4)
    width: int = setting(whole(2), 256)
    heads: int | None = setting(whole(1, optional=True), None)
    kv_heads: int | None = setting(whole(1, optional=True), None)
    hidden: int | None = setting(whole(1, optional=True), None)
    qk_norm: bool = setting(flag, False)
    tied: bool = setting(flag, True)
    experts: int = setting(whole(0), 0)
    experts_per_token: int = setting(whole(1), 2)
    balance: float = setting(real(0), 0.01)
    parametrisation: str = setting(word("standard", "mup"), "standard")
    base_width: int = setting(whole(1), 256)
    base_heads: int | None = setting(whole(1, optional=True), None, quiet=True)
    rope_base: float = setting(real(1), 10_000.0)

    def __post_init__(self) -> None:
        """Fill the defaults that follow from the width, and check that the parts fit together."""
        heads = max(1, self.width // 64) if self.heads is None else self.heads
        if self.parametrisation == "mup" and self.heads is None and self.base_heads is None:
            self.__dict__.update(base_heads=max(1, self.base_width // 64))
        if self.width % heads or (self.width // heads) % 2:
            rule = f"a divisor of width {self.width} that leaves an even number of channels a head"
            raise wrong("model.heads", rule, heads, "change heads or width")
        kv_heads = heads if self.kv_heads is None else self.kv_heads
        if heads % kv_heads:
            raise wrong("model.kv_heads", f"a divisor of heads, {heads}", kv_heads, "change one of them")
        if self.experts == 1 or (self.experts and self.experts_per_token > self.experts):
            rule = f"0 for a dense layer, or at least 2 and at least experts_per_token, {self.experts_per_token}"
            raise wrong("model.experts", rule, self.experts, "change one of them")
        hidden = -(-8 * self.width // 24) * 8 if self.hidden is None else self.hidden
        self.__dict__.update(heads=heads, kv_heads=kv_heads, hidden=hidden)

    @property
    def head_width(self) -> int:
        """Channels a head."""
        return self.width // (self.heads or 1)

    @property
    def attention_scale(self) -> float:
        """Factor on the products of queries and keys: 1/sqrt(n) with n channels a head, under muP sqrt(n0)/n.

        n0 are the channels a head at the base width (arXiv 2203.03466, definition 4.1: 1/n attention, in n the head's
        width), so that heads which keep their width keep their factor.
        """
        if self.parametrisation == "standard":
            return 1 / math.sqrt(self.head_width)
        return math.sqrt(self.base_width / (self.base_heads or self.heads or 1)) / self.head_width


@dataclass(frozen=True)
class MLPConfig:
    """A small language model: the embeddings of the last `context` tokens through `depth` layers of `width` units."""

    kind: str = setting(word("mlp"), "mlp")
    depth: int = setting(whole(1), 2)
    width: int = setting(whole(1), 64)
    context: int = setting(whole(1), 4)


@dataclass(frozen=True)
class QuadraticConfig:
    """A noisy quadratic: loss = floor + 1/2 sum_i l_i w_i^2, l_i = i^-decay, w_i(0) = 1, for checks against theory.

    The gradient of update k is l_i w_i + noise sqrt(l_i / batch) xi_i, xi_i normal: a batch of `batch` samples.
    """

    kind: str = setting(word("quadratic"), "quadratic")
    dimension: int = setting(whole(1), 64)
    decay: float = setting(real(0), 1.0)
    noise: float = setting(real(0), 1.0)
    floor: float = setting(real(0, above=True), 1.0)


@dataclass(frozen=True)
class SyntheticData:
    """An endless language with known entropy and power-law structure; see `optlaws.harness.synthetic`.

    Attributes
    ----------
    vocab
        Tokens in the vocabulary.
    language
        Seed of the language: another number is another language of the same kind.
    zipf
        Exponent of the token frequencies.
    branching, successor_zipf
        Successors of a context, and the exponent of their probabilities.
    weights
        Shares of tokens drawn without context, from the last token, and from the last two.
    """

    kind: str = setting(word("synthetic"), "synthetic")
    vocab: int = setting(whole(2, 65_536), 512)
    language: int = setting(whole(0, MOST_SEED), 0)
    zipf: float = setting(real(0), 1.0)
    branching: int = setting(whole(1, 4096), 16)
    successor_zipf: float = setting(real(0), 1.5)
    weights: tuple[float, ...] = setting(weights, (0.1, 0.3, 0.6))


@dataclass(frozen=True)
class CorpusData:
    """Source and documentation of the installed packages that this one needs; see `optlaws.harness.corpus`.

    Attributes
    ----------
    vocab
        Tokens of the byte-pair vocabulary; 257 or less is one token a byte.
    megabytes
        Text read at most, 1e6 bytes.
    folder
        Where the token files are kept (default: a cache folder of the user).
    """

    kind: str = setting(word("corpus"), "corpus")
    vocab: int = setting(whole(257, 65_536), 4096)
    megabytes: float = setting(real(0, above=True), 8.0)
    folder: str | None = setting(text(optional=True), None)


@dataclass(frozen=True)
class TokenData:
    """Token files of the user: one flat array of token ids each, .npy or raw.

    Attributes
    ----------
    train, val
        The two files; without `val` the last `val_fraction` of `train` is held out.
    vocab
        Tokens in the vocabulary; every id is below it.
    dtype
        Of a raw file: uint8, uint16, uint32, int32 or int64.
    """

    kind: str = setting(word("tokens"), "tokens")
    train: str = setting(text(), "")
    val: str | None = setting(text(optional=True), None)
    vocab: int = setting(whole(2), 65_536)
    dtype: str = setting(word("uint8", "uint16", "uint32", "int32", "int64"), "uint16")
    val_fraction: float = setting(real(0, 1, above=True), 0.01)

    def __post_init__(self) -> None:
        """Check that there is a file to train on."""
        if not self.train:
            raise InputError("data.train must be given, got nothing; name a file of token ids")


@dataclass(frozen=True)
class HubData:
    """A Hugging Face data set of token ids, on disk or by name; read with the `datasets` library, row by row.

    Attributes
    ----------
    path, name, split, val_split
        As for `datasets.load_dataset` (or a folder for `load_from_disk`); without `val_split` the last rows are held
        out.
    column
        The column with the list of token ids of each row.
    vocab, val_fraction
        As for token files.
    """

    kind: str = setting(word("huggingface"), "huggingface")
    path: str = setting(text(), "")
    name: str | None = setting(text(optional=True), None)
    split: str = setting(text(), "train")
    val_split: str | None = setting(text(optional=True), None)
    column: str = setting(text(), "input_ids")
    vocab: int = setting(whole(2), 65_536)
    val_fraction: float = setting(real(0, 1, above=True), 0.01)

    def __post_init__(self) -> None:
        """Check that a data set is named."""
        if not self.path:
            raise InputError("data.path must be given, got nothing; name a data set or its folder")


@dataclass(frozen=True)
class NoiseData:
    """The noise of a quadratic problem; it has no settings."""

    kind: str = setting(word("noise"), "noise")


@dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer; its learning rate is the schedule's.

    Attributes
    ----------
    name
        sgd, adam, adamw, adafactor, muon (torch's own), or one of the library pytorch_optimizer, such as lion or soap.
    beta1, beta2, eps
        Averaging factors of gradient and squared gradient (for sgd and muon beta1 is the momentum), and the term that
        keeps divisions finite; the optimizer's usual values unless given.
    weight_decay
        Decoupled: every update first multiplies the matrices by 1 - rate * weight_decay (norm gains are left alone).
    clip
        Largest norm of the gradient; null for no clipping.
    settings
        Further arguments of the optimizer, passed as they are.
    """

    name: str = setting(text(), "adamw")
    beta1: float | None = setting(real(0, 1, optional=True), None)
    beta2: float | None = setting(real(0, 1, optional=True), None)
    eps: float | None = setting(real(0, optional=True), None)
    weight_decay: float = setting(real(0), 0.0)
    clip: float | None = setting(real(0, optional=True, above=True), 1.0)
    settings: tuple[tuple[str, Any], ...] = setting(settings, ())

    def __post_init__(self) -> None:
        """Write the name as the run table does."""
        object.__setattr__(self, "name", self.name.lower())


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation on the fixed slice: every so many updates (0: only at the end), on so many sequences."""

    every: int = setting(whole(0), 0)
    sequences: int = setting(whole(1), 64)


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints: every so many updates (0: only when interrupted), the newest `keep` are kept (null: all)."""

    every: int = setting(whole(0), 0)
    keep: int | None = setting(whole(1, optional=True), 1)


@dataclass(frozen=True)
class DivergenceConfig:
    """When a run counts as diverged; see `optlaws.harness.record.Verdict`.

    Attributes
    ----------
    factor
        The smoothed loss must stay below this many times its lowest value so far; null switches the rule off.
    window, patience
        Time scale of the smoothing, and how long the loss may stay above, in fractions of the run (at least 10 steps).
    """

    factor: float | None = setting(real(1, optional=True, above=True), 1.2)
    window: float = setting(real(0, 1), 0.01)
    patience: float = setting(real(0, 1), 0.1)


MODELS: dict[str, Any] = {"transformer": TransformerConfig, "mlp": MLPConfig, "quadratic": QuadraticConfig}
DATA: dict[str, Any] = {
    "synthetic": SyntheticData,
    "corpus": CorpusData,
    "tokens": TokenData,
    "huggingface": HubData,
    "noise": NoiseData,
}
SECTIONS: dict[str, Any] = {
    "optimizer": OptimizerConfig,
    "eval": EvalConfig,
    "checkpoint": CheckpointConfig,
    "divergence": DivergenceConfig,
}
