"""The two ways to compute updates: one model on its own, or R models stacked into one program.

Both engines speak of R runs; for the first one R is 1. Losses, norms and rates are one number a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from optlaws.harness.config import TrainConfig
from optlaws.harness.distributed import World
from optlaws.harness.machine import Machine
from optlaws.harness.models import (
    Parameter,
    build_model,
    first_values,
    named_parameters,
    parameter_table,
    rate_factor,
)
from optlaws.harness.optim import ELEMENTWISE, RatedOptimizer, Slot, clip_gradients, piece_like, whole
from optlaws.harness.sources import Batch, Source


class Engine:
    """What both engines share: the loss of a batch, and the gradient of a batch in parts.

    Abstract: `backward`, `clip`, `keep`, `state` and `load` are each engine's own.
    """

    optimizer: RatedOptimizer

    def __init__(
        self, configs: Sequence[TrainConfig], machine: Machine, model: nn.Module, world: World | None = None
    ) -> None:
        """Take the runs, the model that computes them, and the processes that share the batches."""
        self.configs = list(configs)
        self.machine = machine
        self.model = model
        self.world = world or World()
        self.forward = self.world.wrap(model, configs[0].compile, machine.device)
        self._evaluated = self.forward if self.world.size == 1 else model  # every process evaluates by itself

    @property
    def at_once(self) -> int:
        """Sequences that this process holds in memory at once, in training and in evaluation."""
        mine = self.world.share(self.configs[0].batch)[1]
        return min(self.configs[0].micro_batch or mine, mine)

    @property
    def one_program(self) -> bool:
        """Whether evaluations run the program that trains, gradients on, as compiling another one takes long on CUDA.

        They hold as much as the first half of an update for it.
        """
        return self.configs[0].compile and self.machine.device.type == "cuda" and self.world.size == 1

    def gradients(self, source: Source, step: int) -> Tensor:
        """Compute each run's gradient on the batch of update `step`; return losses (R,), nats per token, unawaited."""
        config = self.configs[0]
        begin, mine = self.world.share(config.batch)
        count = self.at_once
        share = count / mine
        total: Tensor | None = None
        for first in range(0, mine, count):
            batch = self.marked(source.train(step, begin + first, count))
            with self.world.gradients(self.forward, last=first + count >= mine):
                with self.machine.autocast():
                    loss, extra = self.forward(*batch)
                # The runs of a stack share no number, so the gradient of the sum is the gradient of each.
                self.backward((loss + extra).sum() * share, fresh=first == 0)
            part = loss.detach() * share
            total = part if total is None else total + part
        return self.world.mean(self.by_run(total))

    def losses(self, source: Source, step: int | None) -> list[float]:
        """Return the loss of every run, nats per token, on the batch of update `step`, None: on the validation slice.

        Every process computes all of it, in pieces of at most what training holds at once.

        Raises
        ------
        InputError
            The data hold fewer validation sequences than asked for, or a token beyond their vocabulary.
        """
        config = self.configs[0]
        count = config.batch if step is not None else config.eval.sequences
        piece = min(count, self.at_once)
        total = torch.zeros(len(self.configs), dtype=torch.float64, device=self.machine.device)
        for first in range(0, count, piece):
            size = min(piece, count - first)
            batch = source.validation(first, size) if step is None else source.train(step, first, size)
            with torch.set_grad_enabled(self.one_program), self.machine.autocast():
                loss = self._evaluated(*self.marked(batch))[0].detach()  # nothing else holds what a gradient would need
            total += self.by_run(loss).double() * (size / count)
        return [float(value) for value in total.tolist()]

    def marked(self, batch: Batch) -> Batch:
        """Return a batch with what the compiler must know of its sizes."""
        return batch

    def by_run(self, loss: Tensor | None) -> Tensor:
        """Return losses () or (R,) with one entry a run, (R,); a `RuntimeError` for None, which no batch gives."""
        if loss is None:
            raise RuntimeError("a batch has at least one part")
        return loss.expand(len(self.configs)) if loss.ndim == 0 else loss

    def update(self, step: int) -> tuple[Tensor, list[float]]:
        """Clip, set the schedule's rates and update; return the norms (R,) before clipping and the rates used."""
        norms = self.clip()
        self.optimizer.set_rates([config.schedule.lr(step) for config in self.configs])
        rates = [self.optimizer.applied(member) for member in range(len(self.configs))]
        self.optimizer.step()
        return norms, rates

    def backward(self, loss: Tensor, fresh: bool) -> None:
        """Compute the gradients of a loss (), in place of the old ones if `fresh`, else added to them."""
        raise NotImplementedError

    def clip(self) -> Tensor:
        """Scale every run's gradient to the largest norm allowed; return the norms before, (R,)."""
        raise NotImplementedError

    def keep(self, members: Sequence[int]) -> None:
        """Go on with these runs alone."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        raise NotImplementedError

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up a state again."""
        raise NotImplementedError


class SingleEngine(Engine):
    """One model with ordinary parameters."""

    def __init__(self, config: TrainConfig, vocab: int, machine: Machine, world: World | None = None) -> None:
        """Draw the first values and make the optimizer."""
        world = world or World()
        place = torch.device("cpu") if world.sharded else machine.device  # pieces alone are put on the device
        values = {
            name: nn.Parameter(value.to(place))
            for name, value in first_values(config.model, vocab, config.seed).items()
        }
        model = build_model(config.model, values, config.seq_len, machine.dtype)
        super().__init__([config], machine, model, world)
        self.values = named_parameters(self.model)
        table = parameter_table(config.model, vocab)
        self.optimizer = RatedOptimizer(
            config.optimizer,
            [_slot(config, table[name], value) for name, value in self.values.items()],
            sharded=world.sharded,
        )

    def backward(self, loss: Tensor, fresh: bool) -> None:
        """Compute the gradients of a loss ()."""
        if fresh:
            for value in self.values.values():
                value.grad = None
        loss.backward()

    def clip(self) -> Tensor:
        """Clip the gradient; return its norm before, (1,)."""
        return clip_gradients(list(self.values.values()), self.configs[0].optimizer.clip)[None]

    def keep(self, members: Sequence[int]) -> None:
        """Keep the one run."""

    def state(self) -> dict[str, Any]:
        """Return parameters and optimizer; processes that share them out all ask, and the first gets them whole."""
        values = {name: value.detach() for name, value in self.values.items()}
        state = {"values": values, "optimizer": self.optimizer.state()}
        return whole(state, self.world.first) if self.world.sharded else state

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up parameters and optimizer."""
        with torch.no_grad():
            for name, value in self.values.items():
                value.copy_(piece_like(state["values"][name], value))
        self.optimizer.load(state["optimizer"])


class StackEngine(Engine):
    """R models as one: their parameters are the rows of one matrix (R, n), and so are their gradients.

    The model sees each parameter as a view (R, ...) of it and computes all models with batched products. The optimizer
    sees rows: stretches of them for optimizers that treat every number alike, else each parameter of each model. So
    each run is updated by the very code that updates a run on its own.
    """

    def __init__(self, configs: Sequence[TrainConfig], vocab: int, machine: Machine) -> None:
        """Draw the first values of every run and make the optimizer."""
        config = configs[0]
        table = parameter_table(config.model, vocab)
        factors = {name: _factor(config, parameter) for name, parameter in table.items()}
        # Parameters with equal factor and decay lie side by side, so that one stretch of a row holds them all.
        order = sorted(table, key=lambda name: (factors[name], _decays(table[name])))
        self._table = {name: table[name] for name in order}
        self._begin: dict[str, int] = {}
        size = 0
        for name in order:
            self._begin[name] = size
            size += table[name].count
        drawn: dict[int, Tensor] = {}
        for seed in {one.seed for one in configs}:
            first = first_values(config.model, vocab, seed)
            drawn[seed] = torch.cat([first[name].reshape(-1) for name in order])
        self._flat = torch.stack([drawn[one.seed] for one in configs]).to(machine.device)
        self._grad = torch.zeros_like(self._flat)
        self._values = {name: nn.Parameter(self._view(self._flat, name)) for name in order}
        model = build_model(config.model, self._values, config.seq_len, machine.dtype)
        super().__init__(configs, machine, model)
        self._slots: list[tuple[Slot, int, int, tuple[int, ...]]] = []
        for member in range(len(configs)):
            if config.optimizer.name in ELEMENTWISE:
                self._add_stretches(member, order, factors)
            else:
                for name in order:
                    begin, parameter = self._begin[name], table[name]
                    row = self._flat[member, begin : begin + parameter.count].view(parameter.shape)
                    slot = _slot(config, parameter, nn.Parameter(row), member)
                    self._slots.append((slot, begin, begin + parameter.count, parameter.shape))
        decays = [one.optimizer.weight_decay for one in configs]
        self.optimizer = RatedOptimizer(config.optimizer, [slot for slot, *_ in self._slots], decays)
        self._bind()

    def _add_stretches(self, member: int, order: Sequence[str], factors: Mapping[str, float]) -> None:
        kinds: dict[tuple[float, bool], tuple[int, int]] = {}
        for name in order:
            kind = factors[name], _decays(self._table[name])
            begin = self._begin[name]
            kinds[kind] = kinds.get(kind, (begin, 0))[0], begin + self._table[name].count
        for (factor, decays), (begin, end) in kinds.items():
            slot = Slot(nn.Parameter(self._flat[member, begin:end]), member, factor, decays)
            self._slots.append((slot, begin, end, (end - begin,)))

    def _view(self, matrix: Tensor, name: str) -> Tensor:
        begin, parameter = self._begin[name], self._table[name]
        return matrix[:, begin : begin + parameter.count].view(len(matrix), *parameter.shape)

    def marked(self, batch: Batch) -> Batch:
        """Return a batch; where each run has its own, their number is one that falls."""
        for part in batch:
            if part.ndim == 3:
                self._mark(part)
        return batch

    def _mark(self, value: Tensor) -> None:
        """Tell the compiler that runs leave the stack, so that it makes one program for any number of two or more."""
        if self.configs[0].compile and len(self.configs) > 1:
            torch._dynamo.maybe_mark_dynamic(value, 0)

    def _bind(self) -> None:
        """Let the model's and the optimizer's parameters and gradients be views of the two matrices."""
        for name, value in self._values.items():
            value.data = self._view(self._flat, name)
            self._mark(value)
        self._grad_views = [self._view(self._grad, name) for name in self._values]
        for slot, begin, end, shape in self._slots:
            slot.tensor.grad = None
            slot.tensor.data = self._flat[slot.member, begin:end].view(shape)
            slot.tensor.grad = self._grad[slot.member, begin:end].view(shape)

    def backward(self, loss: Tensor, fresh: bool) -> None:
        """Compute the gradients of a loss () and put them into their matrix (R, n)."""
        found = torch.autograd.grad(loss, list(self._values.values()))
        (torch._foreach_copy_ if fresh else torch._foreach_add_)(self._grad_views, found)

    def clip(self) -> Tensor:
        """Clip every row of the gradients by its own norm; return the norms before, (R,)."""
        norms = torch.linalg.vector_norm(self._grad, dim=1)
        largest = self.configs[0].optimizer.clip
        if largest is not None:  # the same expression as torch's clip_grads_with_norm_
            self._grad.mul_((largest / (norms + 1e-6)).clamp(max=1.0)[:, None])
        return norms

    def keep(self, members: Sequence[int]) -> None:
        """Drop the rows of all other runs."""
        self.configs = [self.configs[old] for old in members]
        rows = torch.as_tensor(list(members), device=self._flat.device)
        self._flat, self._grad = self._flat[rows], self._grad[rows]
        new = {old: place for place, old in enumerate(members)}
        self._slots = [
            (Slot(s.tensor, new[s.member], s.factor, s.decays, s.matrix), begin, end, shape)
            for s, begin, end, shape in self._slots
            if s.member in new
        ]
        self.optimizer.drop(members)
        self._bind()

    def state(self) -> dict[str, Any]:
        """Return the matrix of parameters and the optimizer."""
        return {"values": self._flat, "optimizer": self.optimizer.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up parameters and optimizer."""
        self._flat.copy_(state["values"])
        self.optimizer.load(state["optimizer"])
        self._bind()


def _factor(config: TrainConfig, parameter: Parameter) -> float:
    return rate_factor(config.model, parameter, config.optimizer.name == "sgd")


def _decays(parameter: Parameter) -> bool:
    """Tell whether weight decay acts on a parameter: on everything but norm gains."""
    return parameter.role != "gain"


def _slot(config: TrainConfig, parameter: Parameter, value: nn.Parameter, member: int = 0) -> Slot:
    return Slot(value, member, _factor(config, parameter), _decays(parameter), parameter.role == "matrix")
