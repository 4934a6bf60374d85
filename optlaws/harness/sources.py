"""Where batches come from. A source can make the batch of any update again: nothing is remembered from step to step.

A source serves one run, or a stack of them: runs with the same order of data share their batches (B, T), runs with
orders of their own get (R, B, T).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from optlaws.errors import InputError
from optlaws.harness._fields import plain, wrong
from optlaws.harness.config import TrainConfig
from optlaws.harness.sections import CorpusData, HubData, NoiseData, QuadraticConfig, SyntheticData, TokenData
from optlaws.harness.synthetic import VALIDATION, Language, Sampler, mix
from optlaws.harness.tokens import Tokens, open_hub, open_tokens

Batch = tuple[Tensor, ...]
CPU_BLOCK, GPU_BLOCK = 1 << 18, 1 << 22  # tokens made at once: enough to keep a device busy
CPU_STEPS, GPU_STEPS = 64, 512  # updates whose tokens are made at once, at most: on a GPU the launches count


class Source(Protocol):
    """What the training loop needs of the data.

    Attributes
    ----------
    vocab
        Tokens in the vocabulary.
    digest
        sha256 of what the data are.
    """

    vocab: int
    digest: str

    def train(self, step: int, first: int, count: int) -> Batch:
        """Return sequences first .. first + count - 1 of the batch of update `step`: inputs and targets, int64.

        Each ([R,] count, seq_len), on the device; the noise ([R,] dimension) for a quadratic model.

        Raises
        ------
        InputError
            The data hold a token beyond their vocabulary.
        """
        ...

    def validation(self, first: int, count: int) -> Batch:
        """Return sequences of the fixed validation slice, (count, seq_len); the same for all runs.

        Raises
        ------
        InputError
            The data hold fewer, or a token beyond their vocabulary.
        """
        ...

    def keep(self, members: Sequence[int]) -> None:
        """Serve only these runs of the stack from now on, in this order."""
        ...


def _orders(seeds: Sequence[int]) -> list[int]:
    """Return the distinct orders to make batches for: one if all runs share it."""
    return [seeds[0]] if len(set(seeds)) == 1 else list(seeds)


def _inputs_and_targets(tokens: Tensor) -> Batch:
    return tokens[..., :-1].contiguous(), tokens[..., 1:].contiguous()


class SyntheticSource:
    """Sequences of a synthetic language, made on the device some updates at a time."""

    def __init__(
        self, data: SyntheticData, seq_len: int, batch: int, seeds: Sequence[int], device: torch.device
    ) -> None:
        """Make the tables of the language."""
        self.vocab = data.vocab
        self.digest = hashlib.sha256(json.dumps(plain(data), sort_keys=True).encode()).hexdigest()
        self._sampler = Sampler(Language.of(data), device)
        self._seq_len, self._batch, self._orders, self._device = seq_len, batch, _orders(seeds), device
        self._distinct, self._rows = self._picked()
        most, updates = (CPU_BLOCK, CPU_STEPS) if device.type == "cpu" else (GPU_BLOCK, GPU_STEPS)
        self._size = max(1, min(updates, most // (len(self._distinct) * batch * (seq_len + 1))))
        self._block: tuple[int, Tensor] | None = None
        self._validation: dict[tuple[int, int], Batch] = {}

    def train(self, step: int, first: int, count: int) -> Batch:
        """Return part of a batch."""
        number, place = divmod(step, self._size)
        if self._block is None or self._block[0] != number:
            self._block = None  # its memory is wanted for the next one
            self._block = (number, self._make(number * self._size * self._batch, self._size * self._batch))
        begin = place * self._batch + first
        part = self._block[1][:, begin : begin + count]
        return _inputs_and_targets(part[0] if self._rows is None else part[self._rows])

    def _picked(self) -> tuple[list[int], Tensor | None]:
        """Return the distinct orders, and which of them each run has, (R,); None where all share one."""
        distinct = sorted(set(self._orders))
        if len(self._orders) == 1:
            return distinct, None
        return distinct, torch.as_tensor([distinct.index(order) for order in self._orders], device=self._device)

    def _make(self, start: int, count: int) -> Tensor:
        """Return sequences start .. start + count - 1 of every distinct order, (orders, count, seq_len + 1).

        All are made in one go: a token takes a dozen small programs, however many sequences there are.
        """
        seeds = torch.cat([torch.full((count,), order) for order in self._distinct])
        numbers = torch.arange(start, start + count).repeat(len(self._distinct))
        return self._sampler.sequences(seeds, numbers, self._seq_len).view(len(self._distinct), count, -1)

    def validation(self, first: int, count: int) -> Batch:
        """Return part of the fixed slice."""
        if (first, count) not in self._validation:  # kept, as a token takes a dozen small programs on a GPU
            numbers = torch.arange(first, first + count)
            seeds = torch.full_like(numbers, VALIDATION)
            made = _inputs_and_targets(self._sampler.sequences(seeds, numbers, self._seq_len))
            self._validation[first, count] = made
        return self._validation[first, count]

    def keep(self, members: Sequence[int]) -> None:
        """Serve only these runs."""
        if len(self._orders) > 1:
            self._orders = [self._orders[i] for i in members]
            before = self._distinct
            self._distinct, self._rows = self._picked()
            if self._block is not None and self._distinct != before:
                parts = [self._block[1][before.index(order)] for order in self._distinct]
                self._block = (self._block[0], torch.stack(parts))


@lru_cache(maxsize=64)
def _permutation(seed: int, epoch: int, windows: int) -> npt.NDArray[np.int64]:
    """Return the order of the windows in one pass over the data."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)))
    return generator.permutation(windows)


class TokenSource:
    """Windows of `seq_len` tokens of a token stream, in a new random order on every pass.

    Raises
    ------
    InputError
        A stream is shorter than a window and the token that follows it.
    """

    def __init__(
        self,
        train: Tokens,
        validation: Tokens,
        vocab: int,
        digest: str,
        seq_len: int,
        batch: int,
        seeds: Sequence[int],
        device: torch.device,
    ) -> None:
        """Take the two streams."""
        self.vocab, self.digest = vocab, digest
        self._train, self._validation = train, validation
        self._seq_len, self._batch, self._orders, self._device = seq_len, batch, _orders(seeds), device
        self._windows = (len(train) - 1) // seq_len
        self._slice = (len(validation) - 1) // seq_len
        for name, windows, tokens in (
            ("training", self._windows, train),
            ("validation", self._slice, validation),
        ):
            if windows < 1:
                rule = f"at most the {len(tokens)} tokens of the {name} data, less one"
                raise wrong("seq_len", rule, seq_len, "shorten it or give more data")

    def train(self, step: int, first: int, count: int) -> Batch:
        """Return part of a batch; errors as for `Source`."""
        numbers = range(step * self._batch + first, step * self._batch + first + count)
        rows = []
        for seed in self._orders:
            for number in numbers:
                epoch, place = divmod(number, self._windows)
                rows.append(self._window(self._train, int(_permutation(seed, epoch, self._windows)[place])))
        return self._tensors(np.stack(rows).reshape(*([-1] if len(self._orders) > 1 else []), count, self._seq_len + 1))

    def validation(self, first: int, count: int) -> Batch:
        """Return part of the fixed slice: the first windows of the validation stream; errors as for `Source`."""
        if first + count > self._slice:
            rule = f"at most {self._slice}, the sequences that the validation data hold"
            raise wrong("eval.sequences", rule, first + count, "lower it or give more data")
        return self._tensors(np.stack([self._window(self._validation, i) for i in range(first, first + count)]))

    def keep(self, members: Sequence[int]) -> None:
        """Serve only these runs."""
        if len(self._orders) > 1:
            self._orders = [self._orders[i] for i in members]

    def _window(self, tokens: Tokens, index: int) -> npt.NDArray[np.int64]:
        begin = index * self._seq_len
        return np.asarray(tokens[begin : begin + self._seq_len + 1], dtype=np.int64)

    def _tensors(self, rows: npt.NDArray[np.int64]) -> Batch:
        if rows.max() >= self.vocab or rows.min() < 0:
            rule = f"at least {int(rows.max()) + 1}, as the data hold token {int(rows.max())}"
            raise wrong("data.vocab", rule, self.vocab, "raise it, or check data.dtype")
        made = torch.as_tensor(rows)
        if self._device.type == "cuda":
            made = made.pin_memory().to(self._device, non_blocking=True)
        return _inputs_and_targets(made)


class NoiseSource:
    """The gradient noise of a quadratic problem: means of `count` normal vectors, by hashes and Box and Muller."""

    vocab = 0

    def __init__(self, dimension: int, seeds: Sequence[int], device: torch.device) -> None:
        """Serve vectors of `dimension` numbers."""
        self.digest = hashlib.sha256(b"normal").hexdigest()
        self._dimension, self._orders, self._device = dimension, _orders(seeds), device

    def train(self, step: int, first: int, count: int) -> Batch:
        """Return the mean noise ([R,] dimension) of part of a batch, of variance 1 / count."""
        place = torch.arange(self._dimension, device=self._device)
        seeds = torch.as_tensor(self._orders, device=self._device)[:, None]
        bits = mix(mix(mix(mix(seeds) + step) + first) + place)
        one = (((bits >> 11) & ((1 << 26) - 1)).double() + 0.5) * 2.0**-26
        two = ((bits >> 38) & ((1 << 26) - 1)).double() * 2.0**-26
        normal = (torch.sqrt(-2 * torch.log(one)) * torch.cos(2 * math.pi * two) / math.sqrt(count)).float()
        return (normal if len(self._orders) > 1 else normal[0],)

    def validation(self, first: int, count: int) -> Batch:
        """Return no noise: the exact loss is the validation loss."""
        return (torch.zeros(self._dimension, device=self._device),)

    def keep(self, members: Sequence[int]) -> None:
        """Serve only these runs."""
        if len(self._orders) > 1:
            self._orders = [self._orders[i] for i in members]


def open_source(config: TrainConfig, seeds: Sequence[int], device: torch.device) -> Source:
    """Return the source of a configuration's data for runs with these data seeds.

    Raises
    ------
    InputError
        If files are missing, too short or do not fit the configuration.
    """
    data, shape = config.data, (config.seq_len, config.batch)
    if isinstance(data, SyntheticData):
        return SyntheticSource(data, *shape, seeds, device)
    if isinstance(data, NoiseData):
        if not isinstance(config.model, QuadraticConfig):
            raise InputError("data.kind noise is for quadratic models; choose other data")
        return NoiseSource(config.model.dimension, seeds, device)
    if isinstance(data, CorpusData):
        from optlaws.harness.corpus import open_corpus

        opened = open_corpus(data)
    elif isinstance(data, TokenData):
        opened = open_tokens(data)
    elif isinstance(data, HubData):
        opened = open_hub(data)
    return TokenSource(opened.train, opened.validation, opened.vocab, opened.digest, *shape, seeds, device)
