"""An endless language with known entropy and power-law structure, made on the device, the same on every device.

A token is drawn in one of three ways, by chance w_0, w_1, w_2: without context, from the successors of the last token,
or from those of the last two tokens. Without context, token x has probability z(x) ~ (x + 1)^-zipf. A context c has
`branching` successors S_c(r), r = 0, 1, ..., each a token drawn once for all from z by a hash of c and r, and r is
drawn from q(r) ~ (r + 1)^-successor_zipf. So

    p(x | c1, c2) = w_0 z(x) + w_1 sum_r q(r) [S_c1(r) = x] + w_2 sum_r q(r) [S_c2(r) = x].

Tokens, and with them contexts, come with power-law frequencies: a model has ever rarer contexts to learn, and its loss
falls slowly towards the entropy. There is no rule behind the successors that could be learnt instead.

Sequence number s of a seed starts with token 0 after a 0; its token t depends on (language, seed, s, t) and the two
tokens before it only. All random numbers are hashes (splitmix64) and all comparisons are of whole numbers, so that a
batch can be made again anywhere, in any order. Probabilities are multiples of 2^-18 and 2^-16, hence the entropy is
that of the language as it is, and not of the formula above before rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from optlaws.harness._fields import wrong
from optlaws.harness.sections import SyntheticData

RANK_BITS = 18
WAY_BITS = 16
VALIDATION = -1
"""The seed of the fixed validation slice, which no training seed equals."""


def _signed(value: int) -> int:
    """Return an unsigned 64-bit number as the signed one with the same bits."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX = (_signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB))
_SHIFTS = ((30, (1 << 34) - 1), (27, (1 << 37) - 1), (31, (1 << 33) - 1))


def mix(value: Tensor) -> Tensor:
    """Return the splitmix64 hash of whole numbers (int64, taken as 64 bits), element by element."""
    value = value + _GOLDEN
    for factor, (shift, mask) in zip(_MIX, _SHIFTS, strict=False):
        value = (value ^ ((value >> shift) & mask)) * factor
    shift, mask = _SHIFTS[2]
    return value ^ ((value >> shift) & mask)


def counts_of(weights: npt.NDArray[np.float64], bits: int) -> npt.NDArray[np.int64]:
    """Return whole numbers in proportion to weights (n,), each at least 1, adding up to 2^bits (largest remainders)."""
    room = (1 << bits) - len(weights)
    exact = weights / weights.sum() * room
    counts: npt.NDArray[np.int64] = np.floor(exact).astype(np.int64)
    rest = np.argsort(counts - exact, kind="stable")[: room - int(counts.sum())]
    counts[rest] += 1
    return counts + 1


@dataclass(frozen=True, eq=False)
class Language:
    """The tables of one language.

    Attributes
    ----------
    data
        Its settings.
    token_counts, rank_counts, way_counts
        Probabilities z (vocab,), q (branching,) and w (3,) as counts of 2^18, 2^18 and 2^16.
    """

    data: SyntheticData
    token_counts: npt.NDArray[np.int64]
    rank_counts: npt.NDArray[np.int64]
    way_counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, data: SyntheticData) -> Language:
        """Return the language of these settings."""
        ranks = np.arange(1, data.branching + 1, dtype=np.float64)
        tokens = np.arange(1, data.vocab + 1, dtype=np.float64)
        shares = np.array([*data.weights, 0.0][:3])
        used = shares > 0
        ways = np.zeros(3, dtype=np.int64)
        ways[used] = counts_of(shares[used], WAY_BITS)
        return cls(
            data,
            counts_of(tokens**-data.zipf, RANK_BITS),
            counts_of(ranks**-data.successor_zipf, RANK_BITS),
            ways,
        )

    def successors(self, before: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return what the contexts add to the probabilities: tokens (n, m) and their probabilities (m,).

        Contexts are (n, 2), the last token and the one before it; a token may occur more than once.
        """
        w = self.way_counts / 2.0**WAY_BITS
        rank = torch.arange(self.data.branching)
        last = torch.as_tensor(before)
        lookup = _lookup(self.token_counts, torch.device("cpu"))
        tokens, chances = [], []
        for way in (1, 2):
            if w[way]:
                context = self.context(torch.full((len(before),), way), last[:, 0], last[:, 1])
                tokens.append(self.successor(context[:, None], rank, lookup).numpy())
                chances.append(w[way] * self.rank_counts / 2.0**RANK_BITS)
        if not tokens:
            return np.zeros((len(before), 1), dtype=np.int64), np.zeros(1)
        return np.concatenate(tokens, axis=1), np.concatenate(chances)

    def probabilities(self, before: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return p(x | context) exactly, (n, vocab), of contexts (n, 2): the last token and the one before it."""
        out = np.tile(self.way_counts[0] * self.token_counts / 2.0 ** (WAY_BITS + RANK_BITS), (len(before), 1))
        tokens, chances = self.successors(before)
        np.add.at(out, (np.arange(len(before))[:, None], tokens), chances)
        return out

    def entropies(self, before: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the entropy of the next token in each context, (n,), nats, at a cost without the vocabulary in it."""
        base = self.way_counts[0] * self.token_counts / 2.0 ** (WAY_BITS + RANK_BITS)
        tokens, chances = self.successors(before)
        order = np.argsort(tokens, axis=1, kind="stable")
        tokens, added = np.take_along_axis(tokens, order, axis=1), chances[order]
        fresh = np.ones(tokens.shape, dtype=bool)
        fresh[:, 1:] = tokens[:, 1:] != tokens[:, :-1]
        starts = np.flatnonzero(fresh)
        share = base[tokens.ravel()[starts]]
        whole = share + np.add.reduceat(added.ravel(), starts)
        change = _surprise(whole) - _surprise(share)
        rows = np.concatenate([[0], np.cumsum(fresh.sum(axis=1))[:-1]])
        out: npt.NDArray[np.float64] = _surprise(base).sum() + np.add.reduceat(change, rows)
        return out

    def context(self, way: Tensor, last: Tensor, before: Tensor) -> Tensor:
        """Return the number of each context, all (n,): way 1 looks at the last token, way 2 also at the one before."""
        one = (last + 1) * self.data.vocab
        own = _signed(self.data.language * 0x9E3779B97F4A7C15 % (1 << 64))
        return own + way + 4 * (one + torch.where(way == 2, before, -1) + 1)

    def successor(self, context: Tensor, rank: Tensor, lookup: Tensor) -> Tensor:
        """Return the tokens S_c(r), of the common shape of contexts and ranks; `lookup` has 2^18 entries."""
        return lookup[mix(mix(context) + rank) & ((1 << RANK_BITS) - 1)]


class Sampler:
    """Makes sequences of a language on a device."""

    def __init__(self, language: Language, device: torch.device) -> None:
        """Put the tables on the device."""
        self.language = language
        self.device = device
        self.tokens = _lookup(language.token_counts, device)
        self.ranks = _lookup(language.rank_counts, device)
        self.ways = _lookup(language.way_counts, device)

    def sequences(self, seeds: Tensor, numbers: Tensor, length: int) -> Tensor:
        """Return tokens (n, length + 1), int64, of the sequences numbered `numbers` (n,) of `seeds` (n,)."""
        language = self.language
        own = mix(seeds.to(self.device) + 0x5EED) ^ language.data.language
        start = mix(mix(own) + numbers.to(self.device))
        noise = mix(start[:, None] + torch.arange(1, length + 1, device=self.device) * 0x632BE5AB)
        rank_mask = (1 << RANK_BITS) - 1
        way = self.ways[(noise >> 40) & ((1 << WAY_BITS) - 1)]
        fresh = self.tokens[noise & rank_mask]
        rank = self.ranks[(noise >> 20) & rank_mask]
        out = torch.zeros(len(numbers), length + 1, dtype=torch.int64, device=self.device)
        before = last = out[:, 0]
        for t, (w, f, r) in enumerate(zip(way.unbind(1), fresh.unbind(1), rank.unbind(1), strict=True), start=1):
            after = language.successor(language.context(w, last, before), r, self.tokens)
            before, last = last, torch.where(w == 0, f, after)
            out[:, t] = last
        return out


def _lookup(counts: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    """Return the table that turns uniform whole numbers into draws with probabilities in proportion to the counts."""
    return torch.as_tensor(np.repeat(np.arange(len(counts)), counts), device=device)


def _surprise(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return -p ln p, 0 for p = 0."""
    out: npt.NDArray[np.float64] = -p * np.log(np.where(p > 0, p, 1.0))
    return out


@dataclass(frozen=True)
class Entropy:
    """Entropy a token, nats, and its standard error."""

    nats: float
    error: float


@lru_cache(maxsize=16)
def entropy(data: SyntheticData, length: int, draws: int = 200_000) -> Entropy:
    """Return the lowest mean loss that any model can reach on sequences of `length` tokens, in nats per token.

    The entropy of the next token given its context is exact; the mean over contexts is taken over the contexts of
    about `draws` tokens of the validation stream.

    Parameters
    ----------
    data
        The language.
    length
        Tokens a sequence (the first ones have no history, which makes them a little easier).
    draws
        Contexts to average over, at least 1; the standard error falls with its square root.

    Raises
    ------
    InputError
        `length` or `draws` is below 1.
    """
    for name, value in (("length", length), ("draws", draws)):
        if value < 1:
            raise wrong(name, "a whole number of at least 1", value)
    language = Language.of(data)
    count = max(2, math.ceil(draws / length))
    sampler = Sampler(language, torch.device("cpu"))
    offset = 1 << 40  # sequences that no evaluation uses
    made = sampler.sequences(torch.full((count,), VALIDATION), torch.arange(count) + offset, length).numpy()
    last = made[:, :-1]
    before = np.concatenate([np.zeros((count, 1), dtype=np.int64), made[:, :-2]], axis=1)
    pairs, where = np.unique(np.stack([last.ravel(), before.ravel()], axis=1), axis=0, return_inverse=True)
    each = language.entropies(pairs)
    by_sequence = each[where.ravel()].reshape(count, length).mean(axis=1)
    return Entropy(float(by_sequence.mean()), float(by_sequence.std(ddof=1) / math.sqrt(count)))
