"""What the laws share that advise peak rate and batch size: near-best runs, regression, the nearest run of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from optlaws.baselines.base import Advice, FloatArray, columns, completed
from optlaws.baselines.determined import directions, least_squares, standard, unscaled
from optlaws.errors import FitError, InputError
from optlaws.runs import RunTable
from optlaws.runs._repeats import levels

NEAR_BEST = 0.0025  # of the lowest loss of the same N and D: the runs that Step Law is fitted on


class RateLaw(Protocol):
    """What this module asks of an optimal-rate law."""

    def recommend(self, params: float, tokens: float, loss: float = float("nan")) -> Advice:
        """Return the advice for N parameters and D tokens (and the loss that will be reached, for laws in the loss).

        Raises
        ------
        InputError
            A number that the law looks at is not finite and above 0.
        """
        ...


class NearBest(NamedTuple):
    """The m near-best runs: ln of N, D, peak rate, batch (tokens) and of the (N, D)'s lowest loss, each (m,)."""

    n: FloatArray
    d: FloatArray
    rate: FloatArray
    batch: FloatArray
    loss: FloatArray


def cells(n: FloatArray, d: FloatArray) -> list[npt.NDArray[np.intp]]:
    """Return the indices of the runs (m,) of each (N, D), smallest N first; at least one run.

    N, and D, within 1 % of the next one count as one: tokens that are steps times batch are rounded by the step, and
    every batch would have a D of its own.
    """
    _, label = np.unique(np.stack([levels(n), levels(d)], axis=1), axis=0, return_inverse=True)
    return [np.flatnonzero(label.ravel() == k) for k in range(int(label.max()) + 1)]


def near_best(law: Any, runs: RunTable, within: float = NEAR_BEST, *, cells_needed: int = 3) -> NearBest:
    """Return the runs whose loss is within a fraction (above 0) of the lowest of their N and D.

    Raises
    ------
    FitError, LawError
        Too few (N, D), or a run without N, D, peak rate or batch.
    InputError
        `within` is not above 0.
    """
    if not within > 0:
        raise InputError(f"within must be a fraction above 0, got {within:g}; {NEAR_BEST} is Step Law's")
    kept = completed(law, runs, cells_needed)
    n, d, rate, batch = columns(law, kept, ("params", "tokens", "peak_lr", "batch_tokens"))
    loss, groups = kept.final_loss, cells(n, d)
    if len(groups) < cells_needed:
        raise FitError(
            f"law {law.name!r} needs runs at {cells_needed} or more pairs of N and D, got {len(groups)};"
            " add sizes or lengths"
        )
    best = np.empty(len(loss))
    for group in groups:
        best[group] = loss[group].min()
    keep = loss / best - 1 < within
    return NearBest(*(np.log(values[keep]) for values in (n, d, rate, batch, best)))


def regress(law: Any, target: FloatArray, columns_: Sequence[FloatArray]) -> FloatArray:
    """Return (intercept, slopes...) of least squares of the target on columns, each (m,).

    Raises
    ------
    FitError
        The columns do not determine them, by the rule of `optlaws.baselines.determined`.
    """
    middle, spread, z = standard(np.stack(columns_, axis=1))
    if directions(z, 1).shape[1] < len(columns_):
        raise FitError(
            f"law {law.name!r} cannot be told from these runs: N, D or the loss varies too little among the near-best,"
            " or N and D only together; add sizes or lengths"
        )
    return unscaled(least_squares(z, target, 1), middle, spread, 1)


def power(coefficient: float, *pairs: tuple[float, float]) -> float:
    """Return coefficient * product of base^exponent.

    Raises
    ------
    InputError
        A base is not a finite number above 0, or the product is none.
    """
    out = coefficient
    for base, exponent in pairs:
        if not 0 < base < np.inf:
            raise InputError(f"params, tokens and loss must be above 0 and finite, got {base:g}; correct it")
        try:
            out *= base**exponent
        except OverflowError:
            out = np.inf
    if not 0 < out < np.inf:
        at = ", ".join(f"{base:g}^{exponent:g}" for base, exponent in pairs)
        raise InputError(
            f"what a law advises must be above 0 and finite, got {coefficient:g} times {at} = {out:g}; correct params,"
            " tokens or loss, or take another law"
        )
    return float(out)


def nearest_run(rate: FloatArray, batch: FloatArray, advice: Advice, loss: FloatArray | None = None) -> int:
    """Return the index of the run (m,) nearest to the advice in ln rate and ln batch.

    Where the law says nothing of one of the two, the run of lowest loss among those nearest in the other is taken: the
    most favourable reading.

    Raises
    ------
    InputError
        The advice says nothing, or `loss` is missing where it is needed.
    """
    apart = np.zeros(len(rate))
    for values, wanted in ((rate, advice.peak_lr), (batch, advice.batch_tokens)):
        if np.isfinite(wanted):
            apart += np.log(values / wanted) ** 2
    if np.isfinite(advice.peak_lr) and np.isfinite(advice.batch_tokens):
        return int(np.argmin(apart))
    if not np.isfinite(advice).any() or loss is None:
        raise InputError(f"advice must name a peak rate or a batch, and losses be given, got {advice}; use another law")
    same = apart <= apart.min() + 1e-9
    return int(np.flatnonzero(same)[np.argmin(loss[same])])


def regret(law: RateLaw, runs: RunTable, kind: Any = None) -> FloatArray:
    """Return, for each (N, D) of completed runs, the loss of the run nearest to the advice over the lowest, minus 1.

    Laws in the loss are given the lowest loss of the (N, D). Smallest N first, then D; one number, at least 0, each.

    Raises
    ------
    FitError, LawError
        No completed run, or one without N, D, peak rate or batch.
    InputError
        The law advises nothing.
    """
    kept = completed(kind or law, runs, 1)
    n, d, rate, batch = columns(kind or law, kept, ("params", "tokens", "peak_lr", "batch_tokens"))
    loss, out = kept.final_loss, []
    for group in cells(n, d):
        y = loss[group]
        advice = law.recommend(float(n[group[0]]), float(d[group[0]]), float(y.min()))
        picked = nearest_run(rate[group], batch[group], advice, y)
        out.append(y[picked] / y.min() - 1)
    return np.array(out)
