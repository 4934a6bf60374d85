"""The quantities whose ranges among a law's runs are its domain."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.dynamics.model import FloatArray
from optlaws.dynamics.solve import effective_decay, plain_sgd
from optlaws.errors import ExtrapolationWarning, InputError
from optlaws.runs import RunTable, format_quantity
from optlaws.schedules import ScheduleBatch
from optlaws.schedules.cells import cells

SLACKS = {  # of the domain where it is not `SLACK`
    "warmup_steps": 3.0,  # a warm-up matters by its order of magnitude
    "beta1": 1.5,  # of the momentum's memory, 1 / (1 - beta1) steps
    "beta2": 3.0,  # likewise; betas of .9 to .98 changed Marin's losses by 0.3 % at most
}
MEMORIES = ("beta1", "beta2")
UNCHECKED = ("end_rate",)  # what only makes intervals wider: `mean_rate` says which schedules are unlike those seen
FARTHEST = 20.0  # factors of e that count
EARLY = 0.02  # share of a run before which, as before the end of its warm-up, a law says nothing of its curve
UNITS = {
    "params": "parameters",
    "density": "of the parameters, active for a token",
    "tokens": "tokens",
    "batch_tokens": "tokens per step",
    "peak_lr": "",
    "mean_rate": "of the peak rate",
    "end_rate": "of the peak rate, at the end",
    "steps": "steps",
    "warmup_steps": "steps",
    "restarts": "times that the rate rises after a fall",
    "weight_decay": "",
    "beta1": "",
    "beta2": "",
    "plain_sgd": "1 for plain SGD, 0 for adaptive optimizers",
}


LARGE = 2.0  # times the largest size from which a law's losses are weak (docs/limits.md)
FAR = {
    "warmup_steps": (1.0, (3.0, 0.002), (3.0, 0.002)),
    "weight_decay": (0.01, (1.05, 0.005), (1.05, 0.005)),
    "steps": (0.0, (1.05, 0.01), (16.0, 0.003)),
    "params": (0.0, (16.0, 0.003), (16.0, 0.003)),
    "batch_tokens": (0.0, (16.0, 0.003), (16.0, 0.003)),
    "peak_lr": (0.0, (16.0, 0.003), (16.0, 0.003)),
    "beta1": (0.0, (2.0, 0.06), (2.0, 0.06)),
    "beta2": (0.0, (3.0, 0.003), (3.0, 0.003)),
    "density": (0.0, (1.05, 0.04), (1.05, 0.04)),
    "end_rate": (0.1, (1.05, 0.0), (1.05, 0.006)),
}
"""Quantity: a number that is added to values first; and for values below and above the domain, the factor up to which
the law's own uncertainty is trusted, and the relative sd for every factor of e further out (betas: of their memory).

Judgement: with whole groups left out the public runs do not reach beyond the factors of 16; only laws of a few of
Marin's runs, and laws of another source, do. The four last, and runs shorter than those seen, were set after laws of
runs without them had been too sure (benchmarks/extrapolation.py): of shorter runs in most sources, of the others in one
or two of them, like beta1 of .98 by laws of .9, another share of active parameters, and constant rates by laws of
annealed runs (runs that are annealed further than any seen came out right).
"""


FAR_APART = {
    "batch_tokens": (0.0, 1.05, 0.006),
    "steps": (0.0, 4.0, 0.003),
    "params": (0.0, 8.0, 0.004),
    "restarts": (1.0, 1.05, 0.005),
}
"""As `FAR`, both sides alike, of what runs equally far out do not share: a relative sd for every factor of e, of a
field over the coordinates of the dynamics. How schedules and rates compare there rests on the equations alone.

That of the batch was set with the last table of docs/extrapolation.md in view (differences of Step Law's runs by laws
of others of its batches). The others are judgement: up to four times the steps and eight times the size of a law's runs
the public ones ask for no more, hardly any are further out, and none has restarts.
"""


def curve_from(runs: RunTable) -> FloatArray:
    """Return the step from which a law speaks of the curves of n runs, (n,): their warm-up and 2 % of them are over.

    Its columns grow without bound towards step 0, where a real loss is that of an untrained network.
    """
    total = np.asarray(runs.steps, dtype=float)
    warm = np.asarray(runs.batch().warmup_steps, dtype=float)
    return np.asarray(np.minimum(np.maximum(np.maximum(warm, EARLY * total), 1.0), total))


def rows_of_steps(steps: Any, count: int) -> list[FloatArray]:
    """Return the steps asked for as one row a run: `steps` is one row of numbers for all, or one row for each.

    A row is a list, a range, an array or a column of a data frame; rows for each run may be an array of two dimensions.

    Raises
    ------
    InputError
        It is neither, or a row is empty.
    """
    wrong = None
    try:
        alone = isinstance(steps, np.ndarray | range) and np.ndim(steps) == 1
        rows = [np.asarray(row, dtype=np.float64) for row in ([steps] * count if alone else steps)]
        if rows and all(row.ndim == 0 for row in rows):  # numbers: one row for all
            rows = [np.array(rows)] * count
    except (TypeError, ValueError):
        wrong, rows = f"{steps!r:.60}", []
    if wrong is None and any(row.ndim != 1 for row in rows):
        wrong = f"a row of shape {next(row.shape for row in rows if row.ndim != 1)}"
    if wrong is None and rows and len(rows) != count:
        wrong = f"{len(rows)} of them"
    if wrong is not None:
        raise InputError(
            f"steps must be one list of numbers, or one for each of the {count} runs, got {wrong};"
            " write them like [1000, 2000]"
        )
    if not rows or any(not len(row) for row in rows):
        raise InputError("steps must hold at least one step for every run, got none; name a step or drop the run")
    return rows


def far_out(values: Mapping[str, FloatArray], domain: Mapping[str, tuple[float, float]]) -> FloatArray | None:
    """Return rows (n, q) whose products are the covariances of ln loss that n runs have for being far out of a domain.

    What the law does not know of a quantity beyond its runs is a slope, the same for all candidates on that side: those
    equally far out share it. None where no run is far out. `values` are those of `domain_values`.
    """
    columns = []
    for name, (shift, below, above) in FAR.items():
        if name not in values or name not in domain:
            continue
        low, high = (float(scaled(name, np.array(end))) for end in domain[name])
        with np.errstate(divide="ignore"):
            v = np.log(scaled(name, values[name]) + shift)
        sides = [(v - np.log(max(high + shift, 1e-300)), above)]
        if low + shift > 0:
            sides.insert(0, (np.log(low + shift) - v, below))
        for beyond, (free, sd) in sides:
            if (beyond > np.log(free)).any():
                columns.append(sd * np.nan_to_num(np.clip(beyond - np.log(free), 0.0, FARTHEST)))
    return np.stack(columns, axis=1) if columns else None


def far_apart(values: Mapping[str, FloatArray], domain: Mapping[str, tuple[float, float]]) -> FloatArray | None:
    """Return the relative sd (n,) that each of n runs has beside what it shares with others as far out; None = none.

    `values` are those of `domain_values`.
    """
    variance = np.zeros(1)
    for name, (shift, free, sd) in FAR_APART.items():
        if name not in values or name not in domain:
            continue
        with np.errstate(divide="ignore"):
            v, (low, high) = np.log(values[name] + shift), np.log(np.array(domain[name]) + shift)
        beyond = np.nan_to_num(np.maximum(v - high, low - v)) - np.log(free)
        if (beyond > 0).any():
            variance = variance + (sd * np.clip(beyond, 0.0, FARTHEST)) ** 2
    return np.sqrt(variance) if variance.any() else None


def scaled(name: str, values: FloatArray) -> FloatArray:
    """Return values of a quantity on the scale on which factors count: of betas the memory 1 / (1 - beta) in steps."""
    return 1.0 / (1.0 - values) if name in MEMORIES else values


def ranges(values: Mapping[str, FloatArray]) -> dict[str, tuple[float, float]]:
    """Return lowest and highest known value of every quantity of which any is known."""
    known = {name: v[np.isfinite(v)] for name, v in values.items() if name in UNITS}
    return {name: (float(v.min()), float(v.max())) for name, v in known.items() if len(v)}


def in_domain_text(name: str, value: float) -> str:
    """Return a value of the domain for people: counts like 85M, others as they are."""
    counted = UNITS.get(name) in ("parameters", "tokens", "tokens per step", "steps")
    return format_quantity(value) if counted and value >= 1000 else f"{value:.4g}"


def mean_and_end_rate(batch: ScheduleBatch) -> tuple[FloatArray, FloatArray]:
    """Return mean and last rate of each schedule over its peak, (n,) each: 1, 1 if constant, 1/2, 0 for a cosine."""
    area, last = np.empty(len(batch)), np.empty(len(batch))
    for index, grid in cells(batch):
        area[index] = (grid.mean * grid.width).sum(axis=1)
        last[index] = grid.right[:, -1]
    peak = np.asarray(batch.peak)
    mean, end = (
        np.asarray(np.divide(x, y, out=np.zeros(len(batch)), where=peak > 0))
        for x, y in ((area, peak * batch.total_steps), (last, peak))
    )
    return mean, end


def domain_values(runs: RunTable, use_params: bool, use_batch: bool) -> dict[str, FloatArray]:
    """Return the quantities whose range is a law's domain, by name, shape (n,); NaN where one is not known."""
    batch = runs.batch()
    mean, end = mean_and_end_rate(batch)
    out = {
        "peak_lr": np.asarray(batch.peak, dtype=float),
        "steps": np.asarray(batch.total_steps, dtype=float),
        "warmup_steps": np.asarray(batch.warmup_steps, dtype=float),
        "restarts": np.asarray(batch.restarts, dtype=float),
        "mean_rate": mean,
        "end_rate": end,
    }
    if use_params:
        out["params"] = runs.size
        out["density"] = density(runs)
    if use_batch:
        out["batch_tokens"] = runs.batch_tokens
        out["tokens"] = np.where(np.isfinite(runs.tokens), runs.tokens, runs.batch_tokens * out["steps"])
    out["weight_decay"] = effective_decay(runs)
    out["beta1"], out["beta2"] = runs.beta1, runs.beta2
    out["plain_sgd"] = plain_sgd(runs)
    return out


def larger_note(domain: Mapping[str, tuple[float, float]], params: FloatArray) -> str:
    """Return a sentence where the largest of some sizes (n,) is above `LARGE` times the law's largest, "" elsewhere.

    >>> larger_note({"params": (1.5e8, 7e8)}, np.array([3e9]))[:54]
    "3B is 4.3 times the largest size of the law's runs: lo"
    """
    known = params[np.isfinite(params)]
    if "params" not in domain or not len(known) or not known.max() > LARGE * domain["params"][1]:
        return ""
    factor = float(known.max() / domain["params"][1])
    return (
        f"{format_quantity(float(known.max()))} is {factor:,.{int(factor < 10)}f} times the largest size of the law's"
        " runs: losses are weak there, and intervals may be too narrow."
    )


def beyond(domain: Mapping[str, tuple[float, float]], values: Mapping[str, float]) -> dict[str, float]:
    """Return for every value outside a domain how far, as ln of the factor; for those above 0 that the domain knows.

    >>> beyond({"params": (1.0, 2.0), "tokens": (1.0, 2.0)}, {"params": 2.0, "tokens": 4.0})
    {'tokens': 0.6931471805599453}
    """
    out: dict[str, float] = {}
    for name, value in values.items():
        low, high = domain.get(name, (0.0, np.inf))
        if low > 0 and value > 0:
            far = max(float(np.log(low / value)), float(np.log(value / high)))
            out |= {name: far} if far > 0 else {}
    return out


def schedules_seen(runs: RunTable) -> dict[str, Any]:
    """Return what plans need to know of the schedules of n runs: how many are of which kind, the median warm-up."""
    schedules = runs.schedules
    kinds = Counter(schedule.kind for schedule in schedules) if isinstance(schedules, tuple) else {}
    warm = np.asarray(runs.batch().warmup_steps, dtype=float)
    return {"kinds": dict(sorted(kinds.items())), "warmup_steps": float(np.quantile(warm, 0.5, method="lower"))}


def density(runs: RunTable) -> FloatArray:
    """Return the share of each run's parameters that a token meets, (n,): 1 for dense networks and where not said."""
    share = runs.active_params / runs.params
    return np.where(np.isfinite(share), share, 1.0)


def warn_outside(name: str, inside: npt.NDArray[np.bool_], reasons: Sequence[str], stacklevel: int) -> None:
    """Warn of runs outside the domain of the law `name`; `inside` and `reasons` as in a prediction, (n,)."""
    out = np.flatnonzero(~inside)
    if len(out):
        lies = "lies" if len(out) == 1 else "lie"
        warnings.warn(
            ExtrapolationWarning(
                f"{len(out):,} of {len(inside):,} runs {lies} outside the domain of law {name!r}, the first with"
                f" {reasons[out[0]]}; in_domain and reasons name all"
            ),
            stacklevel=stacklevel + 1,
        )
