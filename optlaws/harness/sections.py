"""The sections of a configuration, each a frozen dataclass whose fields carry check, default and meaning.

What a setting is stands beside it, once: `optlaws train --keys` prints it. Loads no torch.
"""

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

    Raises
    ------
    InputError
        Heads do not divide the width, key-value heads the heads, or the experts are too few.
    """

    kind: str = setting(word("transformer"), "transformer", "the kind of model")
    depth: int = setting(whole(1), 4, "layers")
    width: int = setting(whole(2), 256, "width of the model")
    heads: int | None = setting(whole(1, optional=True), None, "query heads; null: one a 64 of width")
    kv_heads: int | None = setting(
        whole(1, optional=True), None, "key-value heads; null: as many as heads, 1 is multi-query"
    )
    hidden: int | None = setting(
        whole(1, optional=True),
        None,
        "width of the SwiGLU layer, an expert's if there are experts; null: 8/3 of width, up to a multiple of 8",
    )
    qk_norm: bool = setting(flag, False, "RMSNorm of queries and keys")
    tied: bool = setting(flag, True, "one matrix for embedding and output")
    experts: int = setting(whole(0), 0, "experts a layer; 0: a dense layer")
    experts_per_token: int = setting(whole(1), 2, "experts used by each token")
    balance: float = setting(real(0), 0.01, "weight of the load-balancing loss, which is that of each micro_batch")
    parametrisation: str = setting(
        word("standard", "mup"),
        "standard",
        "mup scales rates, logits and attention so that the best rate at base_width holds at others",
    )
    base_width: int = setting(whole(1), 256, "width of the model that muP carries the rate over from")
    base_heads: int | None = setting(
        whole(1, optional=True),
        None,
        "heads at base_width; null: one a 64 of it, or heads where that is given",
        quiet=True,
    )
    residual_dtype: str | None = setting(
        word("float32", optional=True),
        None,
        "numbers of the residual stream: float32 whatever the products have; null: those of the products, dtype",
        quiet=True,
    )
    rope_base: float = setting(real(1), 10_000.0, "longest wavelength of the rotary positions, tokens / (2 pi)")

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

    kind: str = setting(word("mlp"), "mlp", "the kind of model")
    depth: int = setting(whole(1), 2, "layers")
    width: int = setting(whole(1), 64, "units a layer")
    context: int = setting(whole(1), 4, "last tokens that the model sees")


@dataclass(frozen=True)
class QuadraticConfig:
    """A noisy quadratic: loss = floor + 1/2 sum_i l_i w_i^2, l_i = i^-decay, w_i(0) = 1, for checks against theory.

    The gradient of update k is l_i w_i + noise sqrt(l_i / batch) xi_i, xi_i normal: a batch of `batch` samples.
    """

    kind: str = setting(word("quadratic"), "quadratic", "the kind of model")
    dimension: int = setting(whole(1), 64, "directions i")
    decay: float = setting(real(0), 1.0, "exponent of the curvatures i^-decay")
    noise: float = setting(real(0), 1.0, "noise of the gradients")
    floor: float = setting(real(0, above=True), 1.0, "lowest loss")


@dataclass(frozen=True)
class SyntheticData:
    """An endless language with known entropy and power-law structure; see `optlaws.harness.synthetic`."""

    kind: str = setting(word("synthetic"), "synthetic", "the kind of data")
    vocab: int = setting(whole(2, 65_536), 512, "tokens in the vocabulary")
    language: int = setting(
        whole(0, MOST_SEED), 0, "seed of the language: another number is another language of the same kind"
    )
    zipf: float = setting(real(0), 1.0, "exponent of the token frequencies")
    branching: int = setting(whole(1, 4096), 16, "successors of a context")
    successor_zipf: float = setting(real(0), 1.5, "exponent of the successors' probabilities")
    weights: tuple[float, ...] = setting(
        weights, (0.1, 0.3, 0.6), "shares of tokens drawn without context, from the last token, and from the last two"
    )


@dataclass(frozen=True)
class CorpusData:
    """Source and documentation of the installed packages that this one needs; see `optlaws.harness.corpus`."""

    kind: str = setting(word("corpus"), "corpus", "the kind of data")
    vocab: int = setting(whole(257, 65_536), 4096, "tokens of the byte-pair vocabulary; 257 is one token a byte")
    megabytes: float = setting(real(0, above=True), 8.0, "text read at most, 1e6 bytes")
    folder: str | None = setting(
        text(optional=True), None, "where the token files are kept; null: a cache folder of the user"
    )


@dataclass(frozen=True)
class TokenData:
    """Token files of the user: one flat array of token ids each, .npy or raw.

    Raises
    ------
    InputError
        There is no file to train on.
    """

    kind: str = setting(word("tokens"), "tokens", "the kind of data")
    train: str = setting(text(), "", "file to train on, .npy or raw")
    val: str | None = setting(
        text(optional=True), None, "file to evaluate on; null: the last val_fraction of train is held out"
    )
    vocab: int = setting(whole(2), 65_536, "tokens in the vocabulary; every id is below it")
    dtype: str = setting(word("uint8", "uint16", "uint32", "int32", "int64"), "uint16", "type of the ids in a raw file")
    val_fraction: float = setting(real(0, 1, above=True), 0.01, "share of train that is held out where there is no val")

    def __post_init__(self) -> None:
        """Check that there is a file to train on."""
        if not self.train:
            raise InputError("data.train must be given, got nothing; name a file of token ids")


@dataclass(frozen=True)
class HubData:
    """A Hugging Face data set of token ids, on disk or by name; read with the `datasets` library, row by row.

    Raises
    ------
    InputError
        No data set is named.
    """

    kind: str = setting(word("huggingface"), "huggingface", "the kind of data")
    path: str = setting(text(), "", "data set as for datasets.load_dataset, or a folder for load_from_disk")
    name: str | None = setting(text(optional=True), None, "its configuration, as for load_dataset")
    split: str = setting(text(), "train", "split to train on")
    val_split: str | None = setting(
        text(optional=True), None, "split to evaluate on; null: the last val_fraction of the rows is held out"
    )
    column: str = setting(text(), "input_ids", "column with the list of token ids of each row")
    vocab: int = setting(whole(2), 65_536, "tokens in the vocabulary; every id is below it")
    val_fraction: float = setting(
        real(0, 1, above=True), 0.01, "share of the rows that is held out where there is no val_split"
    )

    def __post_init__(self) -> None:
        """Check that a data set is named."""
        if not self.path:
            raise InputError("data.path must be given, got nothing; name a data set or its folder")


@dataclass(frozen=True)
class NoiseData:
    """The noise of a quadratic problem; it has no settings."""

    kind: str = setting(word("noise"), "noise", "the kind of data")


@dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer; its learning rate is the schedule's."""

    name: str = setting(
        text(),
        "adamw",
        "sgd, adam, adamw, adafactor, muon (torch's own), or one of pytorch_optimizer, such as lion or soap",
    )
    beta1: float | None = setting(
        real(0, 1, optional=True),
        None,
        "averaging factor of the gradient (for sgd and muon the momentum); null: the usual one",
    )
    beta2: float | None = setting(
        real(0, 1, optional=True), None, "averaging factor of the squared gradient; null: the usual one"
    )
    eps: float | None = setting(real(0, optional=True), None, "term that keeps divisions finite; null: the usual one")
    weight_decay: float = setting(
        real(0),
        0.0,
        "decoupled: every update first multiplies the matrices by 1 - rate * weight_decay (norm gains are left alone)",
    )
    clip: float | None = setting(
        real(0, optional=True, above=True), 1.0, "largest norm of the gradient; null: no clipping"
    )
    settings: tuple[tuple[str, Any], ...] = setting(
        settings, (), "further arguments of the optimizer, passed as they are"
    )

    def __post_init__(self) -> None:
        """Write the name as the run table does."""
        object.__setattr__(self, "name", self.name.lower())


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation on the fixed slice: every so many updates (0: only at the end), on so many sequences."""

    every: int = setting(whole(0), 0, "updates from one evaluation to the next; 0: only at the end")
    sequences: int = setting(whole(1), 64, "sequences of the fixed slice that is evaluated")


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints: every so many updates and after the last, the newest `keep` are kept (null: all)."""

    every: int = setting(
        whole(0),
        0,
        "updates from one checkpoint to the next; 0: only when interrupted, or before the last evaluation if the "
        "one before took 5 seconds or more, or there was none",
    )
    keep: int | None = setting(whole(1, optional=True), 1, "newest checkpoints that are kept; null: all")


@dataclass(frozen=True)
class DivergenceConfig:
    """When a run counts as diverged; see `optlaws.harness.record.Verdict`."""

    factor: float | None = setting(
        real(1, optional=True, above=True),
        1.2,
        "the smoothed loss must stay below this many times its lowest value so far; null switches the rule off",
    )
    window: float = setting(
        real(0, 1), 0.01, "time scale of the smoothing, as a fraction of the run (10 steps at least)"
    )
    patience: float = setting(
        real(0, 1), 0.1, "how long the loss may stay above, as a fraction of the run (10 steps at least)"
    )


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
