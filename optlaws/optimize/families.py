"""The first stage: the best member of each family of schedules, by a grid that closes in on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws._accepted import too_risky
from optlaws._ranges import outside
from optlaws.errors import InputError, RiskError
from optlaws.law.domain import SLACKS
from optlaws.optimize.task import FloatArray, Task
from optlaws.schedules import Schedule, ScheduleBatch

PEAKS = 14  # peak rates of the first grid
ROUNDS = 3  # in which the grid closes in
CLOSER = (-1.0, -0.5, 0.0, 0.5, 1.0)  # of the distance between neighbours, in each round
LONGEST_WARMUP = 0.5  # share of the run
LOWEST = 1e-3  # of the peak: where decays end that cannot end at 0
DIGITS = 4  # of the rates that are tried
HOPELESS = 0.002  # a shape whose first grid is so much worse (in ln loss) than another of its family is given up

SHARES = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8)
FLOORS = (0.0, 0.03, 0.1)
ABOVE_ZERO = (LOWEST, 0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True)
class Shape:
    """A family, or one shape of it, and what is searched beside peak and warm-up.

    Attributes
    ----------
    family : what it counts as in comparisons.
    kind : of the schedule.
    axes : name -> first values. Shares of the run for lengths, of the peak for rates.
    fixed : further parameters of the schedule.
    """

    family: str
    kind: str
    axes: Mapping[str, tuple[float, ...]]
    fixed: Mapping[str, Any]


RATES = ("final", "second")
LENGTHS = ("decay", "switch", "timescale")
LIMITS = {
    "final": (0.0, 0.9), "second": (0.0, 0.9), "decay": (0.02, 0.95), "switch": (0.1, 0.98), "timescale": (0.003, 1.0),
    "power": (0.3, 6.0),
}  # fmt: skip


def standard_shapes() -> list[Shape]:
    """Return all that is searched; families whose rate rises again are not among them."""
    wsd = [Shape("wsd", "wsd", {"decay": SHARES, "final": FLOORS}, {"shape": s}) for s in ("linear", "sqrt", "cosine")]
    stones = [((a, b), f) for a, b in ((0.6, 0.8), (0.7, 0.85), (0.8, 0.9), (0.9, 0.95))
              for f in ((0.316, 0.1), (0.3, 0.03))]  # fmt: skip
    return [
        Shape("cosine", "cosine", {"final": FLOORS}, {}),
        Shape("linear", "linear", {"final": FLOORS}, {}),
        *wsd,
        Shape("wsd", "wsd", {"decay": SHARES, "final": ABOVE_ZERO}, {"shape": "exponential"}),
        Shape("polynomial", "polynomial", {"power": (0.5, 1.0, 1.5, 2.0, 3.0), "final": FLOORS}, {}),
        Shape("exponential", "exponential", {"final": ABOVE_ZERO}, {}),
        Shape("inverse sqrt", "inverse_sqrt", {"timescale": (0.02, 0.1, 0.4), "decay": SHARES[:5]}, {}),
        *(Shape("multi-step", "multistep", {}, {"milestones": m, "factors": f}) for m, f in stones),
        Shape("two-stage", "two_stage", {"switch": (0.5, 0.7, 0.8, 0.9), "second": ABOVE_ZERO}, {}),
        Shape("constant", "constant", {}, {}),
    ]


@dataclass(frozen=True)
class Best:
    """The best member found of a family: its shape, its place on the axes (shares, peak, warm-up), its ln loss."""

    family: str
    schedule: Schedule
    score: float
    shape: Shape | None = None
    point: Mapping[str, float] = field(default_factory=dict)


def tidy(rates: FloatArray, digits: int = DIGITS) -> FloatArray:
    """Return numbers of any shape rounded to so many figures.

    >>> tidy(np.array([0.00123456, 0.0])).tolist()
    [0.001235, 0.0]
    """
    values = np.asarray(rates, dtype=np.float64)
    return np.array([float(f"{x:.{digits}g}") for x in values.ravel()]).reshape(values.shape)


def warmups(task: Task, given: Sequence[float] | None = None) -> tuple[int, ...]:
    """Return the warm-ups to try, in steps: those given, or shortest, middle, usual and longest that the law has seen.

    Raises
    ------
    InputError
        A given one is no length inside the run.
    """
    longest = max(int(LONGEST_WARMUP * task.steps), 1)
    if given:
        for value in given:
            if not (np.isfinite(value) and 0 <= value <= longest) or value != int(value):
                raise InputError(
                    f"warmup must be a whole number of steps from 0 to half of the run, {longest}, got {value!r};"
                    " shorten it"
                )
        return tuple(sorted({int(value) for value in given}))
    known = task.law.domain.get("warmup_steps")
    if known is None:
        return (max(task.steps // 100, 1),)
    low, high = known
    usual = usual_warmup(task)
    middle = np.sqrt(low * high) if usual is None else usual
    tried = {round(x) for x in (low, middle, high) if x <= longest}
    return tuple(sorted(tried)) or (max(min(longest, round(low)), 1),)


def usual_warmup(task: Task) -> int | None:
    """Return the median warm-up of the law's runs, in steps, at most half of the run; None where it is not stated."""
    value = getattr(task.law, "info", {}).get("schedules", {}).get("warmup_steps")
    return None if value is None else min(round(value), max(int(LONGEST_WARMUP * task.steps), 1))


def unseen_warmups(task: Task, given: Sequence[float] | None = None) -> tuple[str, ...]:
    """Return a sentence on the given warm-ups that were not tried since the law has seen none so long or short."""
    known = task.law.domain.get("warmup_steps")
    if known is None or not given or task.outside:
        return ()
    low, high = known
    asked = sorted(set(given))
    left = [asked[i] for i in outside(asked, low, high, SLACKS["warmup_steps"]).tolist()]
    if not left:
        return ()
    seen = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return (
        f"warm-ups of {', '.join(f'{w:g}' for w in left)} steps were left out: the law has seen {seen}"
        " (--outside-domain of optimize tries them)",
    )


def parameters(task: Task, shape: Shape, points: Mapping[str, FloatArray]) -> dict[str, Any]:
    """Return a shape's parameters at points (m,) of its axes, as whole steps and rates of few figures.

    Runs are as long as the task says, unless the points have an axis `steps`.
    """
    peak, warm = tidy(np.clip(points["peak"], task.low, task.high)), points["warmup"]
    steps = np.rint(points.get("steps", np.full(len(peak), float(task.steps))))
    warm = np.minimum(warm, np.maximum(np.floor(LONGEST_WARMUP * steps), 1.0))
    out: dict[str, Any] = {"peak": peak, "steps": steps, "warmup": warm}
    for name in shape.axes:
        share = np.clip(points[name], *LIMITS[name])
        if name == "final" and "exponential" in (shape.kind, shape.fixed.get("shape")):
            share = np.maximum(share, LOWEST)
        if name in RATES:
            out[name] = np.minimum(np.maximum(tidy(share * peak), task.floor), peak)
        elif name in LENGTHS:
            length = np.maximum(np.rint(share * steps), 2.0)  # 1 would be read as the whole run
            if name == "decay":
                length = np.minimum(length, steps - warm)
            elif name == "switch":
                length = np.clip(length, warm, steps - 1.0)
            out[name] = length
        else:
            out[name] = tidy(share, 3)
    return out


def member(shape: Shape, values_of: Mapping[str, Any], row: int) -> Schedule:
    """Return the schedule at one row of a grid; `values_of` is from `parameters`, arrays (m,)."""
    values = {name: float(array[row]) for name, array in values_of.items()}
    whole = {n: int(v) if n in (*LENGTHS, "steps", "warmup") else v for n, v in values.items()}
    return Schedule(shape.kind, **whole, **shape.fixed)


def _fits(task: Task, shape: Shape, warm: int) -> bool:
    """Return whether a schedule of that shape can have that warm-up, and keeps the lowest rate."""
    if shape.kind == "inverse_sqrt" and task.floor > 0:
        return False  # its decay would have to end where the body may be lower already
    stones, factors = shape.fixed.get("milestones", ()), shape.fixed.get("factors", ())
    if not stones:
        return True
    first, last = round(stones[0] * task.steps), round(stones[-1] * task.steps)
    return bool(warm <= first < last < task.steps and min(factors) * task.low >= task.floor)


def search(
    task: Task, warm: Sequence[int], shapes: Sequence[Shape], progress: Callable[[str], None] | None = None
) -> list[Best]:
    """Return the best member of each family, the best family first.

    The score is `Judged.score` under `task.caution`, and the noise of one run on top for a warm-up that is not the
    usual one of the law's runs: differences between warm-ups rest on the equations alone, so that another one must
    promise more than that, as where it makes higher rates safe. Of the schedules inside the law's domain and with an
    accepted divergence risk, a grid over all axes finds the best of a shape; finer grids about it follow.

    Raises
    ------
    InputError
        Nothing is inside the domain.
    RiskError
        Nothing inside has an accepted risk.
    """
    found: dict[str, Best] = {}
    refused: list[str] = []
    risky: tuple[float, str] | None = None
    usual = usual_warmup(task)
    for shape in shapes:
        fitting = [w for w in warm if _fits(task, shape, w)]
        if not fitting:
            continue
        peaks = np.geomspace(task.low, task.high, PEAKS) if task.high > task.low else np.array([task.high])
        axes: dict[str, FloatArray] = {"peak": peaks, "warmup": np.array(fitting, dtype=float)}
        axes |= {name: np.array(values) for name, values in shape.axes.items()}
        best: Best | None = None
        for _ in range(ROUNDS + 1):
            points = _product(axes)
            values = parameters(task, shape, points)
            judged = task.judge(ScheduleBatch.grid(shape.kind, **values, **shape.fixed))
            allowed, safe = task.allowed(judged), task.safe(judged)
            if not allowed.any():
                refused.append(judged.why[0])
                break
            if not (allowed & safe).any():
                known = np.nan_to_num(judged.risk, nan=np.inf)
                row = int(np.argmin(np.where(allowed, known, np.inf)))
                if risky is None or known[row] < np.nan_to_num(risky[0], nan=np.inf):
                    risky = float(judged.risk[row]), str(member(shape, values, row))
                break
            score = judged.score(task.caution)
            if usual in warm:
                score = score + np.where(values["warmup"] == usual, 0.0, judged.noise)
            score = np.where(allowed & safe, score, np.inf)
            row = int(np.argmin(score))
            if best is None or score[row] < best.score:
                point = {name: float(array[row]) for name, array in points.items()}
                best = Best(shape.family, member(shape, values, row), float(score[row]), shape, point)
            axes = _closer(axes, best.point)
            if progress:
                progress(shape.family)
            if shape.family in found and best.score > found[shape.family].score + HOPELESS:
                break
        if best is not None and (shape.family not in found or best.score < found[shape.family].score):
            found[shape.family] = best
    if not found:
        if risky is not None:
            raise RiskError(too_risky(np.array([risky[0]]), task.max_risk, [risky[1]]))
        why = max(set(refused), key=refused.count) if refused else "the warm-up is too long"
        raise InputError(
            f"bounds must leave a schedule inside the domain of law {task.law.name!r}, got none ({why}); widen them,"
            " take another law, or allow schedules outside the domain (`optlaws optimize --outside-domain`)"
        )
    return sorted(found.values(), key=lambda best: best.score)


def _product(axes: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Return all combinations, one array (m,) an axis."""
    grids = np.meshgrid(*axes.values(), indexing="ij")
    return {name: grid.ravel() for name, grid in zip(axes, grids, strict=True)}


def _closer(axes: Mapping[str, FloatArray], at: Mapping[str, float]) -> dict[str, FloatArray]:
    """Return finer values about a point: half-way to its neighbours and a quarter; the peak in logarithms."""
    out: dict[str, FloatArray] = {}
    for name, values in axes.items():
        distinct = np.unique(values)
        if name == "warmup" or len(distinct) < 2:
            out[name] = np.array([at[name]])
            continue
        scale: npt.NDArray[np.float64] = np.log(distinct) if name == "peak" else distinct
        here = np.log(at[name]) if name == "peak" else at[name]
        gaps = np.diff(scale)
        place = int(np.argmin(np.abs(scale - here)))
        gap = 0.5 * float(np.max(gaps[max(place - 1, 0) : place + 1]))
        new = here + gap * np.array([step for step in CLOSER if step])
        new = np.exp(new) if name == "peak" else np.clip(new, *LIMITS[name])
        out[name] = np.unique(np.append(new, at[name]))  # the point itself as it is: exp(ln) would be another
    return out
