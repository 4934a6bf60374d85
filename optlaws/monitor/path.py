"""What a law expects along a run: the loss after each update, and the directions in which a real run may differ.

The law is exact about a run's end as far as its interval says; along the way its curve may be wrong in a few known
manners. Each is an *effect*, a function of the law's own states at step s minus its value at the end T, so that no
effect moves the final loss:

    slow_bias   B(s)                      share of the loss that is not yet learnt, B ~ tau^-aT
    fast_bias   B(s) (B(s) / B(T))^1.5/3  the same, faster: what the law lacks early on
    slow_noise, noise, fast_noise         variance of the weights at three curvatures (states v of `optlaws.dynamics`)

B(s) - B(T) is what remains to be learnt; the variances minus their end values are what annealing will remove.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from optlaws.dynamics import States, curve_grid, curve_states, integrate
from optlaws.dynamics.model import FloatArray
from optlaws.errors import InputError, LawError, told_otherwise
from optlaws.law import Law
from optlaws.law.domain import curve_from
from optlaws.law.model import View
from optlaws.regression.trend_field import expected_loss
from optlaws.runs import RunTable
from optlaws.schedules.cells import Cells

EFFECTS = ("slow_bias", "fast_bias", "slow_noise", "noise", "fast_noise")
FALLBACK_POWER = 0.4  # of intrinsic time, for a basis without a bias column
FAST_POWER, FAST_SCALE = 1.5, 3.0
LEAST_BIAS = 0.01  # share of the final loss that is not yet learnt, at the least
MOST_BIAS_RATIO = 30.0  # B(s) / B(T) beyond which a run has hardly begun
FARTHEST = 1e30  # nats per token: what is larger, or smaller than 1 over it, is no loss
GRID = 160  # points of a path, half of them evenly spread in steps, half in their logarithm
PEAKS = 9  # rates among which the best within reach is looked for


@dataclass(frozen=True, eq=False)
class Path:
    """What a law expects along one run.

    Attributes
    ----------
    steps : (g,) updates done, ascending; the last is T.
    log_loss : (g,) ln expected loss, on the curve's evaluation set if the law knows it.
    effects : (g, 5) the effects named in `EFFECTS`, 0 at T.
    log_final : ln expected final loss; on another corpus that of the curve itself.
    sd : relative sd of the final loss of one new run about it, run noise included.
    noise : relative sd of the run noise alone.
    start : first step whose loss is compared with the path.
    has_curves : whether the law was fitted to curves.
    in_domain, reason : whether the run lies in the law's domain, and why not.
    reach : (g,) the lower of `log_loss` and what the law expects of the same schedule at the best peak rate that it
        knows below the run's own: at far too high a rate a law says nothing, but a run that learns nothing stays far
        above what it could have reached. None = not looked at.
    """

    steps: FloatArray
    log_loss: FloatArray
    effects: FloatArray
    log_final: float
    sd: float
    noise: float
    start: float
    has_curves: bool = False
    in_domain: bool = True
    reason: str = ""
    reach: FloatArray | None = None

    @property
    def total(self) -> float:
        """Length T of the run in steps."""
        return float(self.steps[-1])

    def at(self, steps: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return ln expected loss (m,) and effects (m, 5) at steps (m,), linear between the grid's, constant beyond."""
        right = np.clip(np.searchsorted(self.steps, steps), 1, len(self.steps) - 1)
        left = right - 1
        u = np.clip((steps - self.steps[left]) / (self.steps[right] - self.steps[left]), 0.0, 1.0)
        loss = self.log_loss[left] + u * (self.log_loss[right] - self.log_loss[left])
        return loss, self.effects[left] + u[:, None] * (self.effects[right] - self.effects[left])

    def reach_at(self, steps: FloatArray) -> FloatArray:
        """Return ln loss within reach (m,) at steps (m,); the expected one where nothing better was looked at."""
        return np.asarray(np.interp(steps, self.steps, self.log_loss if self.reach is None else self.reach))

    def log_loss_at(self, step: float) -> float:
        """Return ln expected loss at one step."""
        return float(self.at(np.array([step]))[0][0])

    def to_dict(self) -> dict[str, Any]:
        """Return the path as plain numbers."""
        return {
            "steps": self.steps.tolist(),
            "log_loss": self.log_loss.tolist(),
            "effects": self.effects.tolist(),
            "log_final": self.log_final,
            "sd": self.sd,
            "noise": self.noise,
            "start": self.start,
            "has_curves": self.has_curves,
            "in_domain": self.in_domain,
            "reason": self.reason,
            "reach": None if self.reach is None else self.reach.tolist(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Path:
        """Return the path of `to_dict`.

        Raises
        ------
        KeyError, TypeError, ValueError
            An entry is missing, unknown or no number; `Monitor.from_dict` makes a `LawError` of it.
        """
        names = ["steps", "log_loss", "effects"] + ["reach"] * (values.get("reach") is not None)
        arrays = {name: np.array(values[name], dtype=float) for name in names}
        return cls(**{**values, **arrays})


def paths(law: Law, runs: RunTable, steps: Sequence[FloatArray] | None = None) -> list[Path]:
    """Return what a law expects along each run.

    Parameters
    ----------
    law : Law
    runs : RunTable
        n runs; losses and status are not looked at.
    steps : sequence of n ndarrays, optional
        Steps of the grids, each (g_i,), 1 .. T, ascending; T is added. Default: `GRID` steps and the schedule's
        breakpoints.

    Raises
    ------
    InputError
        A size that the law needs is missing, a run has fewer than 2 steps, a step lies outside its run, or there are
        not as many grids as runs.
    LawError
        It is no law of dynamics, a rival law say, or it expects no loss that could be one along a run.
    TableError
        The table holds a `ScheduleBatch`, whose schedules have no objects.
    """
    if not hasattr(law, "view"):  # a rival law, or none
        raise LawError(
            f"law must be one with dynamics to follow a run, as fit_law makes them, got {type(law).__name__};"
            " take a built-in law or fit one of your own"
        )
    given, _ = law.complete(runs)
    full, shift = law.as_own(given), law.loss_shift(given)
    schedules = full.schedule_tuple()
    for name, schedule in zip(full.run_id, schedules, strict=True):
        if schedule.total_steps < 2:
            raise InputError(f"run {name!r} must have at least 2 steps, got {schedule.total_steps}; nothing to watch")
    if steps is None:
        steps = [_grid(schedule.total_steps, schedule.breakpoints) for schedule in schedules]
    if len(steps) != len(full):
        raise InputError(
            f"steps must be one array a run, {len(full)}, got {len(steps)}; leave them out for the default"
        )
    grids = [np.union1d(at, [float(s.total_steps)]) for at, s in zip(steps, schedules, strict=True)]
    states = curve_states(schedules, grids, law.drive(full), law.basis.dynamics)
    lengths = [len(g) for g in grids]
    peak = np.asarray(full.batch().peak, dtype=float)
    view = law.view(states, np.repeat(peak, lengths), curve=law.has_curves)
    loss = expected_loss(law.posterior, view.columns, view.coordinates, view.size, curve=law.has_curves)
    with told_otherwise():
        ends = law.predict(given)
    begin = curve_from(full)
    out, first = [], 0
    for i, length in enumerate(lengths):
        rows = np.arange(first, first + length)
        first += length
        out.append(
            Path(
                steps=grids[i],
                log_loss=np.log(loss[rows]) + shift[i],
                effects=_effects(law, states.take(rows), view.take(rows), loss[rows]),
                log_final=float(np.log(loss[rows[-1]]) + shift[i] if law.discrepancy else np.log(ends.loss[i])),
                sd=float(ends.sd[i] / ends.loss[i]),
                noise=float(ends.noise[i] / ends.loss[i]),
                start=float(begin[i]),
                has_curves=law.has_curves,
                in_domain=bool(ends.in_domain[i]),
                reason=ends.reasons[i],
            )
        )
        last = out[-1]
        _check(law, full.run_id[i], [*last.log_loss, last.log_final], [*last.effects.flat, last.sd, last.noise])
    return out


def _check(law: Law, name: str, log_loss: Sequence[float] | FloatArray, others: Sequence[float] = ()) -> None:
    """Refuse a run along which the law says nothing: no alarm could be trusted, and powers run out of range."""
    if not ((np.abs(log_loss) <= np.log(FARTHEST)).all() and np.isfinite(others).all()):
        raise LawError(
            f"law {law.name!r} must expect losses of {1 / FARTHEST:g} to {FARTHEST:g} nats per token along run"
            f" {name!r}, got others; check its sizes and rates"
        )


def with_reach(path: Path, law: Law, run: RunTable) -> Path:
    """Return the path of one run with what the law holds to be within its reach; see `Path.reach`.

    Peak rates are tried from the lowest of the law's domain to the run's own or the highest of the domain, whichever is
    lower; the best is that of lowest expected final loss. `run` is a table of one row, `path` its path.

    Raises
    ------
    InputError, LawError, TableError
        As for `paths`.
    """
    given, _ = law.complete(run)
    full, shift = law.as_own(given), law.loss_shift(given)[0]
    own = float(np.asarray(full.batch().peak)[0])
    low, high = law.domain.get("peak_lr", (own, own))
    top = min(high, own)
    if not 0 < low < top:
        return replace(path, reach=path.log_loss)
    peaks = np.geomspace(low, top, PEAKS)
    schedule, grid = full.schedule_tuple()[0], path.steps
    cells, where = curve_grid([schedule] * PEAKS, [grid] * PEAKS)
    scale = (peaks / own)[:, None]
    cells = Cells(cells.edges, cells.left * scale, cells.mean * scale, cells.right * scale)
    states = integrate(cells, law.drive(full.select(np.zeros(PEAKS, dtype=int))), law.basis.dynamics, along=True)
    view = law.view(states.take(where), np.repeat(peaks, len(grid)), curve=law.has_curves)
    loss = expected_loss(law.posterior, view.columns, view.coordinates, view.size, curve=law.has_curves)
    along = loss.reshape(PEAKS, len(grid))
    reach = np.minimum(path.log_loss, np.log(along[int(along[:, -1].argmin())]) + shift)
    _check(law, run.run_id[0], reach)
    return replace(path, reach=reach)


def _grid(total: int, breakpoints: Sequence[int]) -> FloatArray:
    """Return steps for a path of `total` steps: breakpoints, even steps, and even steps of the logarithm."""
    half = GRID // 2
    even = np.linspace(1.0, total, half)
    log = np.geomspace(1.0, total, half)
    edges = np.array([k for k in breakpoints if 1 <= k <= total], dtype=float)
    return np.unique(np.concatenate([even, log, edges]).round())


def _effects(law: Law, states: States, view: View, loss: FloatArray) -> FloatArray:
    """Return the effects at m points of one run, the last of which is its end, shape (m, 5)."""
    names = law.basis.names
    if "bias" in names:
        place = names.index("bias")
        bias = view.columns[:, place]
        share = float(law.posterior.coefficients[place] * bias[-1] / loss[-1])
    else:
        bias = np.maximum(states.tau, 1e-12) ** -FALLBACK_POWER
        share = 0.0
    ratio = np.minimum(bias / max(float(bias[-1]), 1e-300), MOST_BIAS_RATIO)
    slow = max(share, LEAST_BIAS) * ratio
    modes = states.variance.shape[1]
    noise = [states.variance[:, min(k, modes - 1)] for k in (1, modes // 2, modes - 1)]
    columns = np.column_stack([slow, slow * ratio**FAST_POWER / FAST_SCALE, *noise])
    return np.asarray(columns - columns[-1])


__all__ = ["EFFECTS", "Path", "paths", "with_reach"]
