"""Random runs on which the code and the oracle are compared: seeded, over all optimizers and phase kinds."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from optlaws.dynamics.model import PLAIN, default_weight_decay, regime
from optlaws.features import Basis, get_basis
from optlaws.runs import RunTable
from optlaws.schedules import Cells, Schedule, ScheduleBatch, cells, constant, cosine, exponential, linear
from theory.oracle.phases import KINDS

OPTIMIZERS = ("adamw", "adam", "sgd")
WARMED = (*KINDS, *(f"warmup+{kind}" for kind in KINDS))
"""Kinds of schedule: one phase, or a linear warm-up before it."""

_BUILD: dict[str, Callable[[float, int, float, int], Schedule]] = {
    "constant": lambda peak, steps, final, warmup: constant(peak, steps, warmup=warmup),
    "linear": lambda peak, steps, final, warmup: linear(peak, steps, final, warmup=warmup),
    "cosine": lambda peak, steps, final, warmup: cosine(peak, steps, final, warmup=warmup),
    "exponential": lambda peak, steps, final, warmup: exponential(peak, steps, final, warmup=warmup),
}


def schedule(kind: str, peak: float, steps: int, final: float, warmup: int) -> Schedule:
    """Return a schedule of one of `WARMED`; `warmup` (steps) counts only where the kind has one."""
    name = kind.removeprefix("warmup+")
    return _BUILD[name](peak, steps, final, warmup if name != kind else 0)


@dataclass(frozen=True)
class Draw:
    """One run with the constants under which it is judged.

    Attributes
    ----------
    basis : with its constants drawn about the registered ones.
    schedule, optimizer : of the run.
    n, b : size and batch in reference units.
    weight_decay : 1 / rate.
    """

    basis: Basis
    schedule: Schedule
    n: float
    b: float
    weight_decay: float
    optimizer: str

    @property
    def plain(self) -> bool:
        """Whether the optimizer is plain SGD."""
        return regime(self.optimizer) == PLAIN

    @property
    def table(self) -> RunTable:
        """The run as the package reads it."""
        d = self.basis.dynamics
        return RunTable.build(
            [self.schedule],
            params=self.n * d.params_ref,
            batch_tokens=self.b * d.batch_ref,
            optimizer=self.optimizer,
            weight_decay=self.weight_decay,
        )

    def cells(self, resolution: float = 1.0) -> Cells:
        """Return the cells that the package cuts the schedule into."""
        return next(cells(ScheduleBatch.from_schedules([self.schedule]), resolution))[1]


def _near(values: Mapping[str, float], seed: int) -> dict[str, float]:
    """Return constants moved by up to a third, each by its name, so that another constant does not change the rest."""

    def factor(name: str) -> float:
        return float(np.exp(np.random.default_rng([seed, zlib.crc32(name.encode())]).uniform(-0.3, 0.3)))

    return {name: value * factor(name) for name, value in values.items()}


def draw(kind: str, basis: str, seed: int) -> Draw:
    """Return the random run of a kind and seed; constants within a third of the registered ones.

    2,000 to 30,000 steps, peak rates from 3e-4 to 3e-3, sizes and batches from 1/20 to 20 times the reference's; decays
    end at 2 to 30 % of the peak (`to_zero` for those that end at 0).
    """
    rng = np.random.default_rng([seed, WARMED.index(kind)])
    chosen = get_basis(basis)
    moved = ("kappa", "temperature_exponent", "size_exponent", "critical_batch", "critical_growth", "escape_rate")
    dynamics = {name: getattr(chosen.dynamics, name) for name in moved}
    chosen = chosen.with_constants(_near(dynamics, seed), _near(chosen.exponents, seed))
    steps, peak = int(rng.integers(2_000, 30_000)), float(np.exp(rng.uniform(np.log(3e-4), np.log(3e-3))))
    optimizer = OPTIMIZERS[seed % len(OPTIMIZERS)]
    return Draw(
        chosen,
        schedule(kind, peak, steps, peak * float(rng.uniform(0.02, 0.3)), int(rng.uniform(0.02, 0.2) * steps)),
        float(np.exp(rng.uniform(-3, 3))),
        float(np.exp(rng.uniform(-3, 3))),
        default_weight_decay(optimizer) * float(rng.uniform(0.5, 2)),
        optimizer,
    )


def to_zero(case: Draw) -> Draw:
    """Return the run with a decay to 0 in place of its own; linear and cosine decays only."""
    s = case.schedule
    kind = f"warmup+{s.kind}" if s.warmup_steps else s.kind
    return replace(case, schedule=schedule(kind, s.peak, s.total_steps, 0.0, s.warmup_steps))


def long_draw(kind: str, basis: str, seed: int) -> Draw:
    """Return the run of `draw` on a clock 200 times finer and far below the critical batch.

    Half a step is then negligible beside a cell, and nothing in the equations is singular inside a phase, so that the
    order of the cells shows.
    """
    fine = 200
    base = draw(kind, basis, seed)
    d = base.basis.dynamics
    finer = {"kappa": d.kappa * fine, "steps_ref": d.steps_ref * fine, "critical_batch": 1e15}
    s = base.schedule
    warmup = s.warmup_steps * fine
    final = float(s.array()[-1]) / fine
    longer = schedule(kind, s.peak / fine, s.total_steps * fine, final, warmup)
    return replace(base, basis=base.basis.with_constants(finer), schedule=longer)


def balanced_draw(basis: str, seed: int) -> Draw:
    """Return a run at constant rate whose norm stays 1: its growth and decay balance; far below the critical batch."""
    base = draw("constant", basis, seed)
    d = base.basis.dynamics
    x = base.schedule.peak / d.lr_ref * base.n**d.size_exponent
    decay = d.kappa * x**2 / (2 * base.schedule.peak)
    return replace(base, basis=base.basis.with_constants({"critical_batch": 1e15}), weight_decay=decay)
