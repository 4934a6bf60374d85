"""Several optimizers in one law.

A law is fitted to the runs of one optimizer, its own. A run of another optimizer o at the rate r counts as a run of the
law's own at the rate f r, with the same decay per step, and its loss differs by a factor:

    ln L_o(r, wd) = ln L(f r, wd / f) + d + noise

The law's own joint errors are known, so that ln f and d have a posterior: normal priors, d integrated out exactly, ln f
and the scatter of that optimizer's runs about the law on a grid (Rasmussen and Williams, Gaussian Processes, sec. 2.7,
with d as the coefficient). Only their means and joint covariance are kept. Of an optimizer that no run had, the priors
are all that is known.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from optlaws._entries import mapping, number, numbers, whole
from optlaws._entries import ranges as entry_ranges
from optlaws.baselines.base import usable
from optlaws.dynamics.model import FloatArray, family
from optlaws.dynamics.solve import effective_decay
from optlaws.errors import LawError, OptlawsWarning, told_otherwise
from optlaws.law.domain import domain_values, ranges
from optlaws.runs import CurveTable, RunTable
from optlaws.runs._optimizers import USUAL_OPTIMIZER

if TYPE_CHECKING:
    from optlaws.law.model import Law

RATE_SD = math.log(10.0)  # prior sd of ln f: best rates of optimizers differ by a factor of ten or so
LOSS_SD = 0.05  # prior sd of d: losses of optimizers, each at its best rate, differ by a few percent
FEWEST = 3  # runs of an optimizer from which its two numbers are taken
MOST = 300  # of its runs that are looked at, evenly spread
GRID, FINE, REACH = 41, 25, 3.0  # places of ln f: first over REACH prior sds on either side, then about the highest
ROUNDS, CUT = 8, 1e-3  # most grids, and the share of the posterior at the end of one that asks for a wider one
SCATTERS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)  # relative scatter about the law, beside its own noise
MOST_RATE, MOST_LOSS = 50.0, 5.0  # |ln f|, |d| or scatter above these are damaged entries
STEP = 0.05  # of ln f, for the slope of ln L
SIZES = ("params", "steps", "batch_tokens", "tokens")  # where alone the two numbers were seen to hold


@dataclass(frozen=True)
class Equivalent:
    """How runs of another optimizer count as runs of a law's own.

    Attributes
    ----------
    log_rate : ln of the factor f by which rates are multiplied.
    log_loss : d, ln of loss over the loss of the law's own optimizer at that rate.
    covariance : of the two, ((var ln f, cov), (cov, var d)).
    scatter : relative sd of single runs about the law, beside the law's own noise.
    runs : number of runs that it is from; 0 = the priors.
    ranges : lowest and highest of the quantities of a law's domain among them, counted as runs of its own.

    Raises
    ------
    LawError
        A number is not finite, a scatter or variance is below 0, or a range is not two ascending numbers.
    """

    log_rate: float = 0.0
    log_loss: float = 0.0
    covariance: tuple[tuple[float, float], tuple[float, float]] = ((RATE_SD**2, 0.0), (0.0, LOSS_SD**2))
    scatter: float = 0.0
    runs: int = 0
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no prediction can be made from."""
        c = np.asarray(self.covariance, dtype=np.float64)
        good = [
            c.shape == (2, 2) and bool(np.isfinite([self.log_rate, self.log_loss, self.scatter, *c.ravel()]).all()),
            abs(self.log_rate) <= MOST_RATE and abs(self.log_loss) <= MOST_LOSS and 0 <= self.scatter <= MOST_LOSS,
            all(0 <= low <= high < np.inf for low, high in self.ranges.values()),
        ]
        if not all(good) or c[0, 1] != c[1, 0] or c.max() > 100 or np.linalg.eigvalsh(c).min() < -1e-12:
            raise LawError(
                "an equivalent of an optimizer must have finite numbers, variances and ranges in order, got"
                f" {self.to_dict()!r:.120}; fit the law again"
            )

    @property
    def rate(self) -> float:
        """Factor f of the rates."""
        return math.exp(self.log_rate)

    @property
    def root(self) -> FloatArray:
        """Factor of the covariance, (2, 2): covariance = root root'."""
        values, vectors = np.linalg.eigh(np.asarray(self.covariance, dtype=np.float64))
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain numbers."""
        return {
            "log_rate": self.log_rate,
            "log_loss": self.log_loss,
            "covariance": [list(row) for row in self.covariance],
            "scatter": self.scatter,
            "runs": self.runs,
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
        }

    @classmethod
    def from_dict(cls, data: Any, name: str = "equivalent") -> Equivalent:
        """Return what `to_dict` wrote, called `name` in errors: of the class, KeyError, TypeError or ValueError."""
        data = mapping(data, name)
        (a, b), (c, d) = numbers(data["covariance"], 2, 2, name=f"{name}.covariance").tolist()
        return cls(
            number(data["log_rate"], f"{name}.log_rate", -MOST_RATE, MOST_RATE),
            number(data["log_loss"], f"{name}.log_loss", -MOST_LOSS, MOST_LOSS),
            ((a, b), (c, d)),
            number(data["scatter"], f"{name}.scatter", 0.0, MOST_LOSS),
            whole(data["runs"], f"{name}.runs"),
            entry_ranges(data["ranges"], f"{name}.ranges"),
        )


UNSEEN = Equivalent()


@dataclass(frozen=True)
class Optimizers:
    """The optimizers that a law has seen.

    Attributes
    ----------
    own : family of the runs that the law was fitted to.
    others : equivalents of other families, by name.
    """

    own: str = USUAL_OPTIMIZER
    others: Mapping[str, Equivalent] = field(default_factory=dict)

    def families(self, runs: RunTable) -> list[str]:
        """Return the family of each run's optimizer; a run that does not say has the law's own."""
        table = {name: self.own if name is None else family(name) for name in set(runs.optimizer)}
        return [table[name] for name in runs.optimizer]

    def of(self, name: str) -> Equivalent:
        """Return the equivalent of a family that is not the law's own."""
        return self.others.get(name, UNSEEN)

    def as_own(self, runs: RunTable) -> RunTable:
        """Return the runs as runs of the law's own optimizer: rates times f, weight decays over f.

        Runs of an optimizer that was not seen stay as they are.
        """
        names = self.families(runs)
        if all(name == self.own for name in names):
            unsaid = self.own != USUAL_OPTIMIZER and None in runs.optimizer
            return replace(runs, optimizer=tuple(o or self.own for o in runs.optimizer)) if unsaid else runs
        factor = np.array([self.others[name].rate if name in self.others else 1.0 for name in names])
        own = tuple(
            self.own if name in self.others else o or self.own for o, name in zip(runs.optimizer, names, strict=True)
        )
        return replace(at_rates(runs, factor), optimizer=own)

    def as_usual(self, runs: RunTable, factor: float = 1.0) -> RunTable:
        """Return the runs as a risk model takes them: as the law's own, which then are called the usual optimizer's.

        Runs of an optimizer that was not seen keep a name of which no risk model knows a risk. `factor` makes rates of
        the own optimizer rates of the usual one.
        """
        out = self.as_own(runs)
        if self.own == USUAL_OPTIMIZER:
            return out
        if factor != 1.0:
            out = at_rates(out, np.full(len(out), factor))
        names = {self.own: USUAL_OPTIMIZER, USUAL_OPTIMIZER: f"unseen {USUAL_OPTIMIZER}"}
        named = (names.get(family(name), name) for name in out.optimizer)
        return replace(out, weight_decay=effective_decay(out), optimizer=tuple(named))

    def rate_unit(self, optimizer: str | None) -> float:
        """Return the rate of an optimizer that counts as the rate 1 of the law's own; 1 where that is not known."""
        name = self.own if optimizer is None else family(optimizer)
        return 1.0 / self.others[name].rate if name in self.others else 1.0

    def unseen(self, runs: RunTable) -> npt.NDArray[np.bool_]:
        """Return which runs have an optimizer of which the law knows nothing, (n,)."""
        return np.array([name != self.own and name not in self.others for name in self.families(runs)], dtype=bool)

    def bounds(
        self, names: list[str], quantity: str, ends: tuple[float, float]
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return lowest and highest value of a quantity of the domain for runs of these families, and its unit, (n,).

        `ends` are the law's own. Sizes, batches and lengths of another optimizer's runs are bounded by its own runs,
        all else by both. The unit makes the value of a run that counts as the law's own (`as_own`) its own again.
        """
        table = {self.own: (*ends, 1.0)}
        for name in set(names) - {self.own}:
            seen = self.of(name)
            low, high = seen.ranges.get(quantity, ends)
            if quantity not in SIZES:
                low, high = min(low, ends[0]), max(high, ends[1])
            unit = {"peak_lr": 1.0 / seen.rate, "weight_decay": seen.rate}.get(quantity, 1.0)
            table[name] = (low, high, unit)
        if len(table) == 1:
            return np.full(len(names), ends[0]), np.full(len(names), ends[1]), np.ones(len(names))
        rows = np.array([table[name] for name in names], dtype=np.float64)
        return rows[:, 0], rows[:, 1], rows[:, 2]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain texts and numbers."""
        return {"own": self.own, "others": {name: one.to_dict() for name, one in self.others.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Optimizers:
        """Return what `to_dict` wrote; errors as of `Equivalent.from_dict`."""
        if not isinstance(data["own"], str) or not data["own"].strip():
            raise TypeError(f"optimizers.own must be text, got {data['own']!r:.40}")
        others = mapping(data["others"], "optimizers.others")
        return cls(
            data["own"], {name: Equivalent.from_dict(one, f"optimizers.others.{name}") for name, one in others.items()}
        )


def at_rates(runs: RunTable, factor: FloatArray) -> RunTable:
    """Return n runs with rates times `factor` (n,) and weight decays over it: the decay of every step stays."""
    moved = factor != 1.0
    schedules: Any = runs.schedules
    if isinstance(schedules, tuple):
        pairs = zip(schedules, factor.tolist(), strict=True)
        schedules = tuple(schedule if f == 1.0 else schedule.scaled(f) for schedule, f in pairs)
    else:
        schedules = schedules.scaled(factor)
    return replace(
        runs, schedules=schedules, weight_decay=np.where(moved, effective_decay(runs) / factor, runs.weight_decay)
    )


def beside(law: Law, runs: RunTable, own: RunTable) -> tuple[FloatArray | None, FloatArray]:
    """Return what n runs of other optimizers, which count as the runs `own`, have beside the law's own uncertainty.

    That is rows of covariance of ln loss (n, q) and scatter (n,). A loss moves with d, and with ln f as the law does
    there; the slope at a run's end serves its curve, too. None where every run has the law's own optimizer.
    """
    scatter = np.zeros(len(runs))
    names = law.optimizers.families(runs) if law.optimizers else []
    others = sorted(set(names) - {law.own_optimizer})
    if law.optimizers is None or not others:
        return None, scatter
    place = np.array([others.index(name) if name in others else -1 for name in names])
    rows = np.flatnonzero(place >= 0)
    plain, moved = replace(law, optimizers=None), own.select(rows)
    up, down = (
        np.log(plain.expected_loss(at_rates(moved, np.full(len(rows), np.exp(step))))) for step in (STEP, -STEP)
    )
    slopes = np.stack([(up - down) / (2.0 * STEP), np.ones(len(rows))], axis=1)
    shared = np.zeros((len(runs), 2 * len(others)))
    for k, name in enumerate(others):
        mine = place[rows] == k
        shared[rows[mine], 2 * k : 2 * k + 2] = slopes[mine] @ law.optimizers.of(name).root
        scatter[rows[mine]] = law.optimizers.of(name).scatter
    return shared, scatter


def own_runs(runs: RunTable, curves: CurveTable | None) -> tuple[RunTable, CurveTable | None, str, dict[str, RunTable]]:
    """Return the runs (and curves) of the optimizer that most runs have, its name, and the finished runs of others."""
    names = np.array([family(name) for name in runs.optimizer])
    masks = {name: names == name for name in np.unique(names).tolist()}
    done, logged = usable(runs), set(curves.run_id) if curves is not None else set()
    whole = done | np.array([name in logged for name in runs.run_id], dtype=bool)
    own = max(masks, key=lambda name: (int((whole & masks[name]).sum()), name == USUAL_OPTIMIZER))
    if len(masks) == 1:
        return runs, curves, own, {}
    others, few = {}, []
    for name, mask in masks.items():
        if name != own and (mask & done).sum() >= FEWEST:
            others[name] = runs.select(mask & done)
        elif name != own:
            few.append(f"{int((mask & done).sum())} of {name}")
    if few:
        warnings.warn(
            OptlawsWarning(
                f"runs of other optimizers than {own} are left out where fewer than {FEWEST} of one are completed with"
                f" a final_loss, {', '.join(few)} here; add runs of it, or fit a law of its own"
            ),
            stacklevel=4,
        )
    runs = runs.select(masks[own])
    kept = set(runs.run_id)
    if curves is not None and logged - kept:
        curves = curves.select(np.array([name in kept for name in curves.run_id], dtype=bool))
    return runs, curves, own, others


def fit_equivalent(law: Law, runs: RunTable) -> Equivalent:
    """Return the equivalent of an optimizer from m >= 1 completed runs of it.

    Parameters
    ----------
    law : Law
        Fitted to runs of its own optimizer.
    runs : RunTable
        Completed runs of one other optimizer, with losses; at most `MOST` of them, evenly spread, are looked at.
    """
    if len(runs) > MOST:
        runs = runs.select(np.unique(np.linspace(0, len(runs) - 1, MOST).round().astype(int)))
    log_loss = np.log(runs.final_loss)
    reach = REACH * RATE_SD

    def at(places: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return ln of the posterior (up to a constant), and mean and variance of d, by place and scatter."""
        score, mean, variance = _given(law, runs, log_loss, places)
        return score - 0.5 * (places[:, None] / RATE_SD) ** 2, mean, variance

    places, half = np.linspace(-reach, reach, GRID), 0.0
    for turn in range(ROUNDS):  # closer and closer about the middle, until the posterior is wider than a step or two
        score, mean, variance = at(places)
        weight = np.exp(score - score.max())
        weight /= weight.sum()
        share = weight.sum(axis=1)
        middle, step = float(share @ places), float(places[1] - places[0])
        sd = float(np.sqrt(share @ (places - middle) ** 2))
        cut = turn > 0 and max(share[0], share[-1]) > CUT
        if turn == ROUNDS - 1 or (turn > 0 and sd > step and not cut):
            break
        half = 1.5 * half if cut else max(4.0 * sd, 2.0 * step)
        places = middle + np.linspace(-half, half, FINE)
    loss = float((weight * mean).sum())
    both = float((weight * (places[:, None] - middle) * (mean - loss)).sum())
    spread = float((weight * (variance + (mean - loss) ** 2)).sum())
    found = Equivalent(
        middle, loss, ((sd**2, both), (both, spread)),
        float((weight.sum(axis=0) @ np.square(SCATTERS)) ** 0.5), len(runs),
    )  # fmt: skip
    alike = Optimizers(law.own_optimizer, {family(runs.optimizer[0]): found}).as_own(runs)
    values = domain_values(alike, law.use_params, law.use_batch)
    return replace(found, ranges={name: ends for name, ends in ranges(values).items() if name in law.domain})


def _given(
    law: Law, runs: RunTable, log_loss: FloatArray, places: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return ln of the likelihood, and mean and variance of d, for p values of ln f and `SCATTERS`, (p, s) each."""
    m = len(runs)
    counted = at_rates(runs.select(np.tile(np.arange(m), len(places))), np.repeat(np.exp(places), m))
    with told_otherwise():
        p = replace(law, optimizers=None).predict(replace(counted, optimizer=(law.own_optimizer,) * len(counted)))
    out = np.empty((3, len(places), len(SCATTERS)))
    for k in range(len(places)):
        rows = slice(k * m, (k + 1) * m)
        shared = p.covariance(rows) / p.loss[rows, None] / p.loss[rows]
        gap = log_loss - np.log(p.loss[rows])
        for i, scatter in enumerate(SCATTERS):
            total = shared + np.diag((p.noise[rows] / p.loss[rows]) ** 2 + scatter**2 + 1e-12)
            low = np.linalg.cholesky(total)
            a, b = (np.linalg.solve(low, v) for v in (gap, np.ones(m)))
            precision = b @ b + 1.0 / LOSS_SD**2
            mean = (a @ b) / precision
            fit = a @ a - precision * mean**2
            score = -0.5 * (fit + math.log(precision)) - np.log(low.diagonal()).sum()
            out[:, k, i] = score, mean, 1.0 / precision
    return out[0], out[1], out[2]
