"""What would make a risky run safe, what drives its risk, and how risk varies about it.

All changes act on the cells of the schedule: rates times a factor; time stretched so that the warm-up gets another
length and the run keeps its own; a batch changed at equal tokens, which makes the run longer or shorter after a warm-up
of equal length. A schedule without a warm-up gets a linear one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optlaws._accepted import ACCEPTED, accepted_risk
from optlaws.dynamics import Drive, drive
from optlaws.dynamics.model import FloatArray
from optlaws.errors import InputError
from optlaws.risk.criterion import PARAMETERS, WIDTH_POWER, log_critical
from optlaws.risk.model import RiskModel
from optlaws.risk.quantities import PIECE, Quantities, of_cells, relative_width, strange
from optlaws.runs import RunTable
from optlaws.schedules import Cells, cells

LEVERS = ("peak_lr", "warmup_steps", "batch_tokens", "beta1")
"""What is changed, one at a time; `beta1` by its 1 - beta1, and only towards 0.9."""

MAPPED = ("warmup_steps", "batch_tokens")
"""What may be on the other axis of a `RiskMap`."""

FARTHEST = 64.0  # largest factor of a change that is looked at
LOWEST = 1e4  # the same for a lower peak rate: one that is off by powers of ten is likely a slip of the pen
TRIED = 25  # factors looked at in each direction, evenly spread in ln
HALVINGS = 12  # of the interval in which the smallest safe factor lies
LONGEST_WARMUP = 0.5  # share of the run
ADDED = 6  # cells of a warm-up that is put before a schedule without one
NUDGE = 1.05  # factor by which a quantity is changed to see how the felt rate follows


@dataclass(frozen=True)
class SafeChange:
    """The smallest change of one lever that reaches the accepted risk.

    Attributes
    ----------
    lever : one of `LEVERS`.
    before, after : its value; steps and tokens are rounded to whole ones, away from the risk.
    size : |ln| of the change (of 1 - beta1 for beta1; a missing warm-up counts as one step).
    """

    lever: str
    before: float
    after: float
    size: float


@dataclass(frozen=True, eq=False)
class Piece:
    """m runs whose schedules have the same number of cells, with what the criterion needs to know of them.

    Attributes
    ----------
    index : (m,) places in the run table.
    grid, run : cells of their schedules, and what drives them.
    warm, total : (m,) steps of the warm-up and of the run.
    slack, width : (m,) as in `Quantities`.
    """

    index: npt.NDArray[np.int64]
    grid: Cells
    run: Drive
    warm: FloatArray
    total: FloatArray
    slack: FloatArray
    width: FloatArray

    def risk(self, model: RiskModel, factors: dict[str, FloatArray]) -> FloatArray:
        """Return the probabilities with levers multiplied by factors (m,), NaN where a warm-up outlasts its run."""
        warm = factors.get("warmup_steps", 1.0) * np.maximum(self.warm, 1.0 * ("warmup_steps" in factors))
        fits = warm <= np.maximum(self.total / factors.get("batch_tokens", 1.0), 1.0) * (1.0 + 1e-9)
        return np.where(fits, model.of_quantities(self.varied(model, factors))[1], np.nan)

    def varied(self, model: RiskModel, factors: dict[str, FloatArray]) -> Quantities:
        """Return the quantities with levers multiplied by factors (m,)."""
        one = np.ones(len(self.index))
        peak, warm, batch, beta = (factors.get(lever, one) for lever in LEVERS)
        total = np.maximum(self.total / batch, 1.0)
        grid = _stretched(self.grid, self.warm, np.minimum(np.maximum(self.warm, warm > 1.0) * warm, total), total)
        grid = Cells(grid.edges, *(rate * peak[:, None] for rate in (grid.left, grid.mean, grid.right)))
        felt, at, high = of_cells(grid, self.run, model.dynamics)
        return Quantities(felt, at, high, self.run.n, self.run.b * batch, self.slack * beta, self.width)


def pieces(runs: RunTable, model: RiskModel) -> Iterator[Piece]:
    """Yield the runs, whose cells must be complete (`RiskModel.complete`), piece by piece.

    Raises
    ------
    InputError
        A size or batch is missing, or a width is no number above 0.
    """
    batch, every = runs.batch(), drive(runs, model.dynamics)
    warm, total = (np.asarray(v, dtype=float) for v in (batch.warmup_steps, batch.total_steps))
    slack, width = (1.0 - runs.beta1) / 0.1, relative_width(runs, every.n)
    for index, grid in cells(batch, chunk=PIECE):
        yield Piece(index, grid, every.take(index), warm[index], total[index], slack[index], width[index])


def _stretched(grid: Cells, warm: FloatArray, new_warm: FloatArray, new_total: FloatArray) -> Cells:
    """Return the cells with a warm-up of another length in a run of another length."""
    grid = _warmed_up(grid, warm, new_warm)
    total = grid.edges[:, -1:]
    rest = np.maximum(total - warm[:, None], 1e-9)
    edges = np.where(
        (grid.edges <= warm[:, None]) & (warm[:, None] > 0),
        grid.edges * (new_warm / np.maximum(warm, 1e-9))[:, None],
        new_warm[:, None] + (grid.edges - warm[:, None]) * (new_total - new_warm)[:, None] / rest,
    )
    add = (warm == 0) & (new_warm > 0)
    if not add.any():
        return Cells(edges, grid.left, grid.mean, grid.right)
    share = np.linspace(0.0, 1.0, ADDED + 1)
    first = np.where(add, grid.left[:, 0], 0.0)[:, None]  # the other runs get cells without width
    before = np.where(add, new_warm, 0.0)[:, None] * share[:-1]
    low, top = first * share[:-1], first * share[1:]
    return Cells(
        np.concatenate([before, edges], axis=1),
        *(
            np.concatenate([new, old], axis=1)
            for new, old in ((low, grid.left), (0.5 * (low + top), grid.mean), (top, grid.right))
        ),
    )


def _warmed_up(grid: Cells, warm: FloatArray, new_warm: FloatArray) -> Cells:
    """Return the cells with the rates that a warm-up of another length has at the same shares of it.

    Update k of a linear warm-up of W steps to R has the rate R k / W and is done in the middle at t = k + 1/2, so that
    the rate at t is R (t - 1/2) / W: half a step counts where a warm-up is short.
    """
    begins = grid.edges[:, :-1]
    after = (begins >= warm[:, None]) & (grid.width > 0)
    first = np.where(after.any(axis=1), after.argmax(axis=1), after.shape[1] - 1)
    reached = grid.left[np.arange(len(warm)), first]
    gain = reached * (0.5 / np.maximum(warm, 1.0) - 0.5 / np.maximum(new_warm, 1.0)) * (warm > 0)
    rising = grid.edges[:, 1:] <= warm[:, None]
    left = np.where(rising & (begins > 0), np.maximum(grid.left + gain[:, None], 0.0), grid.left)
    mean, right = (np.where(rising, np.maximum(v + gain[:, None], 0.0), v) for v in (grid.mean, grid.right))
    return Cells(grid.edges, left, mean, right)


def safe_changes(
    runs: RunTable, model: RiskModel, accepted: float = ACCEPTED, defaults: Mapping[str, float] | None = None
) -> list[list[SafeChange]]:
    """Return for every run the changes, one a lever, that bring its risk down to `accepted`, the smallest first.

    Parameters
    ----------
    runs : RunTable
        n runs; a run that is safe already gets an empty list, as does one that no change of a single lever by up to
        `FARTHEST` (of the rate, `LOWEST`) makes safe, and one of another optimizer than Adam and AdamW, whose risk is
        not known. `model.probability` tells them apart.
    model : RiskModel
        `law.risk`.
    accepted : float
        Probability, 0 .. 1.
    defaults : mapping, optional
        What stands in for empty cells, by column name, as in `RiskModel.complete`: `law.defaults`.

    Raises
    ------
    InputError
        `accepted` is no probability, a width is no number above 0, or as for `RiskModel.complete`.
    """
    accepted = accepted_risk(accepted, "accepted")
    runs, _ = model.complete(runs, defaults)
    found: list[list[SafeChange]] = [[] for _ in range(len(runs))]
    rows = np.flatnonzero(model.probability(runs) > accepted)
    if not len(rows):
        return found
    runs = runs.select(rows)
    peak = np.asarray(runs.batch().peak, dtype=float)
    for piece in pieces(runs, model):
        limits: dict[str, tuple[float | FloatArray, float | FloatArray]] = {
            "peak_lr": (LOWEST, 1.0),
            "warmup_steps": (1.0, np.maximum(LONGEST_WARMUP * piece.total / np.maximum(piece.warm, 1.0), 1.0)),
            "batch_tokens": (FARTHEST, FARTHEST),
            "beta1": (1.0, np.clip(1.0 / piece.slack, 1.0, None)),
        }
        for lever, (down, up) in limits.items():
            factor = _smallest(piece, model, lever, accepted, down, up)
            for k in np.flatnonzero(np.isfinite(factor)).tolist():
                i = int(piece.index[k])
                before, after = _values(lever, float(factor[k]), float(peak[i]), float(piece.warm[k]), runs, i)
                found[rows[i]].append(SafeChange(lever, before, after, abs(float(np.log(factor[k])))))
    return [sorted(changes, key=lambda change: change.size) for changes in found]


def _values(lever: str, factor: float, peak: float, warm: float, runs: RunTable, i: int) -> tuple[float, float]:
    if lever == "peak_lr":
        return peak, peak * factor
    if lever == "warmup_steps":
        return warm, float(np.ceil(max(warm, 1.0) * factor))
    if lever == "batch_tokens":
        value = float(runs.batch_tokens[i])
        return value, float(np.ceil(value * factor) if factor > 1 else np.floor(value * factor))
    beta1 = float(runs.beta1[i])
    return beta1, 1.0 - (1.0 - beta1) * factor


def _smallest(
    piece: Piece, model: RiskModel, lever: str, accepted: float, down: float | FloatArray, up: float | FloatArray
) -> FloatArray:
    """Return the factor nearest to 1 that makes each run of a piece safe, NaN where none does, (m,)."""
    m = len(piece.index)
    best = np.full(m, np.nan)
    for sign, limit in ((-1.0, down), (1.0, up)):
        reach = np.log(np.broadcast_to(limit, (m,)))
        if not (reach > 0).any():
            continue

        def safe(share: FloatArray, far: FloatArray = sign * reach) -> npt.NDArray[np.bool_]:
            return np.asarray(piece.risk(model, {lever: np.exp(share * far)}) <= accepted)

        low, high = np.zeros(m), np.full(m, np.nan)
        for share in np.linspace(0.0, 1.0, TRIED + 1)[1:]:
            hit = safe(np.full(m, share)) & np.isnan(high)
            high = np.where(hit, share, high)
            low = np.where(np.isnan(high), share, low)
            if not np.isnan(high).any():
                break
        within = np.isfinite(high) & (reach > 0)
        for _ in range(HALVINGS if within.any() else 0):
            middle = 0.5 * (low + np.where(within, high, 0.0))
            hit = safe(middle)
            high, low = np.where(hit, middle, high), np.where(hit, low, middle)
        size = np.where(within, high * reach, np.inf)
        better = within & ~(size >= np.abs(np.log(best)))
        best = np.where(better, np.exp(sign * size), best)
    return best


DRIVERS = {
    "peak_lr": "high peak rate",
    "warmup_steps": "short warm-up",
    "batch_tokens": "small batch",
    "params": "model size",
    "length": "few steps to recover in",
    "beta1": "long momentum",
}
"""What may drive the risk, in words."""


def drivers(
    runs: RunTable, model: RiskModel, defaults: Mapping[str, float] | None = None
) -> tuple[list[str], FloatArray]:
    """Return what drives the risk of each run (a key of `DRIVERS`), and each one's share of ln criterion, (n, 6).

    A share is how much ln criterion is above that of a typical run that went well (`RiskModel.typical`) on account of
    one quantity; for peak rate and size (with the width, where it is known) by the slope of ln u at the run itself. The
    typical warm-up is taken as half of the run at most. Runs of other optimizers than Adam and AdamW, whose risk is
    not known, have neither driver ("") nor shares (NaN). `defaults` stand in for empty cells, as in
    `RiskModel.complete`: give `law.defaults`.

    Raises
    ------
    InputError
        A width is no number above 0, or as for `RiskModel.complete`.
    """
    runs, _ = model.complete(runs, defaults)
    shares = np.zeros((len(runs), len(DRIVERS)))
    typical, batch = model.typical, runs.batch()
    theta = dict(zip(PARAMETERS, model.mean, strict=False))
    for piece in pieces(runs, model):
        i, one = piece.index, np.ones(len(piece.index))
        q = piece.varied(model, {})
        slope = np.log(piece.varied(model, {"peak_lr": one * NUDGE}).felt / q.felt) / np.log(NUDGE)
        # not by the slope, which is 0 where the rate is felt at the end of a short warm-up
        usual = np.clip(typical["warmup_steps"], 1.0, np.maximum(LONGEST_WARMUP * piece.total, piece.warm))
        warmed = piece.varied(model, {"warmup_steps": usual / np.maximum(piece.warm, 1.0)})
        above = {
            "peak_lr": np.log(np.asarray(batch.peak)[i] / typical["peak_lr"]),
            "params": np.log(runs.size[i] / typical["params"]),
        }
        size = slope * model.dynamics.size_exponent - theta["size"]
        usual_b = one * typical["batch_tokens"] / model.dynamics.batch_ref
        usual_h = one * 0.5 * typical["steps"] / model.dynamics.steps_ref
        columns = (
            slope * above["peak_lr"],
            np.log(q.felt / warmed.felt),
            _fall(model, q, b=usual_b),
            size * above["params"] - WIDTH_POWER * np.log(q.width / typical["relative_width"]),
            _fall(model, q, high=usual_h),
            -theta["momentum"] * np.log(q.slack),
        )
        shares[i] = np.stack(columns, axis=1)
    names, known = list(DRIVERS), ~strange(runs)
    shares[~known] = np.nan
    most = np.where(np.isnan(shares), -np.inf, shares).argmax(axis=1)
    return [names[k] if sure else "" for k, sure in zip(most.tolist(), known.tolist(), strict=True)], shares


def _fall(model: RiskModel, q: Quantities, **usual: FloatArray) -> FloatArray:
    """Return by how much ln criterion falls with one quantity at its usual value."""
    values = {name: getattr(q, name) for name in Quantities.__dataclass_fields__}
    other = Quantities(**{**values, **usual})
    return np.asarray(log_critical(other, model.mean[:-1])[0] - log_critical(q, model.mean[:-1])[0])


@dataclass(frozen=True, eq=False)
class RiskMap:
    """Risk about one run over its peak rate and one other lever.

    Attributes
    ----------
    over : "warmup_steps" or "batch_tokens".
    peak, other : (points,) the values on the axes, ascending: rates, and steps or tokens.
    probability : (points, points), a row for each of `other`; NaN where the combination is impossible (a warm-up longer
        than the run, which a larger batch shortens), and everywhere for other optimizers than Adam and AdamW.
    """

    over: str
    peak: FloatArray
    other: FloatArray
    probability: FloatArray


def risk_map(
    run: RunTable,
    model: RiskModel,
    over: str,
    points: int = 97,
    reach: float = 8.0,
    defaults: Mapping[str, float] | None = None,
) -> RiskMap:
    """Return the risk over peak rate and one other lever about one run.

    Parameters
    ----------
    run : RunTable
        One run.
    model : RiskModel
    over : str
        One of `MAPPED`.
    points : int
        Values on each axis, at least 2.
    reach : float
        Above 1: both axes reach from the run's value / `reach` to its value * `reach`; a run without a warm-up gets
        1 .. half its steps.
    defaults : mapping, optional
        What stands in for empty cells, by column name, as in `RiskModel.complete`: `law.defaults`.

    Raises
    ------
    InputError
        An argument is out of range, or as for `RiskModel.complete`.
    """
    run, _ = model.complete(run, defaults)
    if len(run) != 1:
        raise InputError(f"run must be one run, got a table of {len(run)}; select one row")
    if over not in MAPPED:
        raise InputError(f"over must be one of {', '.join(MAPPED)}, got {over!r}; choose one of them")
    if points < 2:
        raise InputError(f"points must be at least 2, got {points!r}; 97 is the default")
    if not 1.0 < reach < np.inf:
        raise InputError(f"reach must be a finite factor above 1, got {reach!r}; 8 is the default")
    piece = next(pieces(run, model))
    peak = float(np.asarray(run.batch().peak)[0])
    factor = np.geomspace(1.0 / reach, reach, points)
    warm, total = float(piece.warm[0]), float(piece.total[0])
    if over == "warmup_steps":
        start = max(warm, 1.0)
        other = start * factor if warm > 0 else np.geomspace(1.0, max(LONGEST_WARMUP * total, 2.0), points)
    else:
        start = float(run.batch_tokens[0])
        other = start * factor
    out = np.empty((points, points))
    whole: Callable[[FloatArray], FloatArray] = lambda column: np.repeat(column, points, axis=0)  # noqa: E731
    grid = Cells(*(whole(getattr(piece.grid, name)) for name in ("edges", "left", "mean", "right")))
    many = Piece(
        np.zeros(points, dtype=np.int64), grid, piece.run.take(np.zeros(points, dtype=np.intp)),
        whole(piece.warm), whole(piece.total), whole(piece.slack), whole(piece.width),
    )  # fmt: skip
    for k, value in enumerate(other):
        # a warm-up is changed from at least one step on: where there is none, factors just above 1 stand for one step
        ratio = max(value / start, 1.0 + 1e-9) if over == "warmup_steps" and warm == 0 else value / start
        out[k] = many.risk(model, {"peak_lr": factor, over: np.full(points, ratio)})
    if strange(run).any():
        out[:] = np.nan
    return RiskMap(over, peak * factor, other, out)
