"""Does a law hold where it was not fitted? Splits by group, scores of held-out runs, and cross-validation.

A split yields (name, train mask, test mask) for a run table: whole schedule families, longer horizons, larger models,
or the groups of any column are left out, never single rows. The fit is an argument, so that any law can be put to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from optlaws.baselines.base import usable
from optlaws.errors import FitError, InputError, told_otherwise
from optlaws.runs import RunTable
from optlaws.runs._repeats import configurations as configurations
from optlaws.runs._repeats import levels

FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
SMALLEST_POOL = 4  # pools of fewer runs say nothing about ranking
DIGITS = 12  # of losses: what differs beyond them does so by rounding
TOP = 2


class Split(NamedTuple):
    """One way to divide a run table: masks of shape (n,), disjoint, neither empty."""

    name: str
    train: Mask
    test: Mask


class Predicted(Protocol):
    """What a law answers: arrays of shape (n,), losses in nats per token, a 90 % interval for one new run."""

    @property
    def loss(self) -> FloatArray:
        """Return the expected losses."""
        ...

    @property
    def lower(self) -> FloatArray:
        """Return the lower ends of the intervals."""
        ...

    @property
    def upper(self) -> FloatArray:
        """Return the upper ends of the intervals."""
        ...


class Predictor(Protocol):
    """A fitted law, of this package or of another."""

    def predict(self, runs: RunTable, /) -> Predicted:
        """Predict every run."""
        ...


def sizes(runs: RunTable) -> FloatArray:
    """Return parameters per token, shape (n,): `active_params` where given, else `params`; NaN = missing."""
    return runs.size


def finished(runs: RunTable) -> Mask:
    """Return which runs were completed (or do not say) with a finite loss, shape (n,)."""
    return usable(runs)


def same_horizon(runs: RunTable) -> npt.NDArray[Any]:
    """Return labels of pools of equal model size and number of steps, shape (n,)."""
    return np.array([f"{n:.0f}x{t:.0f}" for n, t in zip(sizes(runs), runs.steps, strict=True)])


def same_budget(runs: RunTable) -> npt.NDArray[Any]:
    """Return labels of pools of equal model size and number of tokens, shape (n,)."""
    return np.array([f"{n:.0f}x{d:.0f}" for n, d in zip(sizes(runs), runs.tokens, strict=True)])


def competing(runs: RunTable) -> npt.NDArray[Any]:
    """Return labels of runs that compete for one budget, shape (n,): of equal size and tokens, whatever their batches.

    Tokens within 1 % are equal, as those that are steps times batch are rounded by the step; a label names the fewest.
    Where a run does not say its tokens, runs of equal size and number of steps compete.
    """
    if not np.isfinite(runs.tokens).all():
        return same_horizon(runs)
    level = levels(runs.tokens)
    fewest = np.array([runs.tokens[level == k].min() for k in range(level.max(initial=-1) + 1)])
    return np.array([f"{n:.0f}x{d:.4g}" for n, d in zip(sizes(runs), fewest[level], strict=True)])


def leave_one_out_by(runs: RunTable, column: str) -> Iterator[Split]:
    """Yield a split for each value of a column, all runs of that value held out.

    Parameters
    ----------
    runs : RunTable
        n runs.
    column : str
        Any column, unknown ones included; also "family" (kind of schedule), "peak_lr" and "size" (parameters per
        token). No cell may be empty.

    Raises
    ------
    TableError
        There is no such column.
    InputError
        A cell is empty, or all runs have one value.
    """
    from sklearn.model_selection import LeaveOneGroupOut

    labels = _labels(runs, column)
    empty = np.flatnonzero(np.isnan(labels) if labels.dtype.kind == "f" else labels == "")
    if len(empty):
        raise InputError(
            f"column {column!r} must be given for every run to leave its groups out, but {len(empty)} of {len(runs)}"
            f" lack it (first: {runs.run_id[empty[0]]!r}); fill or drop those runs"
        )
    levels, group = np.unique(labels, return_inverse=True)
    if len(levels) < 2:
        raise InputError(
            f"column {column!r} must have at least 2 different values to leave one out, got {len(levels)};"
            " choose another column or add runs"
        )
    texts = [f"{level:g}" if labels.dtype.kind == "f" else str(level) for level in levels]
    if len(set(texts)) < len(texts):  # numbers that are alike in their first six digits
        texts = [repr(float(level)) for level in levels]
    for train, test in LeaveOneGroupOut().split(np.empty((len(runs), 0)), groups=group):
        text = texts[group[test[0]]]
        yield Split(f"{column} {text} left out", _mask(train, len(runs)), _mask(test, len(runs)))


def leave_one_family_out(runs: RunTable) -> Iterator[Split]:
    """Yield a split for each kind of schedule (cosine, wsd, ...), all runs of that kind held out."""
    return leave_one_out_by(runs, "family")


def longer_horizon_out(runs: RunTable, threshold: float) -> Iterator[Split]:
    """Yield one split: train on runs of at most `threshold` steps, test on longer ones.

    Raises
    ------
    InputError
        One side is empty.
    """
    yield _beyond(runs.steps, threshold, "steps")


def larger_size_out(runs: RunTable, threshold: float) -> Iterator[Split]:
    """Yield one split: train on models of at most `threshold` parameters per token, test on larger ones.

    Runs without a size are on neither side.

    Raises
    ------
    InputError
        One side is empty.
    """
    yield _beyond(sizes(runs), threshold, "params")


def middle(values: npt.ArrayLike) -> float:
    """Return the middle one of the different values, the lower one of two: half of them, or one more, are at most it.

    >>> middle([1.0, 1.0, 2.0, 4.0, 8.0])
    2.0
    """
    levels = np.unique(np.asarray(values, dtype=np.float64))
    return float(levels[(len(levels) + 1) // 2 - 1]) if len(levels) else float("nan")


def scores(
    loss: npt.ArrayLike,
    predicted: npt.ArrayLike,
    lower: npt.ArrayLike,
    upper: npt.ArrayLike,
    pool: npt.ArrayLike | None = None,
    *,
    candidate: npt.ArrayLike | None = None,
    by_pool: bool = False,
    smallest: int = SMALLEST_POOL,
) -> dict[str, Any]:
    """Return how good predictions of n runs were.

    Parameters
    ----------
    loss, predicted, lower, upper : array-like of shape (n,)
        True losses, predictions and ends of 90 % intervals, above 0, nats per token.
    pool : array-like of shape (n,), optional
        Labels of the pools within which runs compete (equal size and horizon, say); default: one pool.
    candidate : array-like of shape (n,), optional
        Labels of what was tried: runs of a pool with equal labels are repeats and count as one candidate, of their mean
        loss, in `hits` and the regrets; default: every run is a candidate of its own.
    by_pool : bool
        True: `error` is the mean over pools of each pool's mean.
    smallest : int
        Pools of fewer runs do not count for `pool_spearman`, `hits`, `pools` and the regrets. Of a pool of `TOP`
        candidates or fewer (many repeats of few) the best is always among the first `TOP`; and of candidates predicted
        alike those that stand first in the arrays count as lower, so that a law that cannot rank may score a hit.

    Returns
    -------
    dict
        runs : n.
        error, worst : mean and largest of 100 |predicted / loss - 1|, %.
        bias : mean of 100 (predicted / loss - 1), %.
        rmsle : 100 sqrt(mean ln(predicted / loss)^2), %.
        spearman, pool_spearman : rank correlation over all runs, and its mean within pools (NaN where constant).
        candidate_spearman : mean rank correlation of the candidates within pools, repeats averaged.
        hits, pools : pools whose best candidate is among the two predicted lowest; pools counted.
        regret, worst_regret : mean and largest of 100 (loss of the candidate predicted lowest / lowest loss - 1), %.
        cover : share of runs inside their interval. width : mean of 100 (upper - lower) / predicted, %.

    Raises
    ------
    InputError
        No runs, lengths that differ, numbers that are not finite and above 0, a lower end above its upper one, or a
        label that is missing.

    Examples
    --------
    >>> row = scores([2.0, 2.1, 2.2, 2.4], [2.0, 2.1, 2.3, 2.2], [1.9] * 4, [2.3] * 4)
    >>> row["hits"], row["pools"], row["cover"], round(row["spearman"], 3)
    (1, 1, 0.75, 0.8)
    """
    y, p = _losses("loss", loss), _losses("predicted", predicted)
    low, high = _losses("lower", lower), _losses("upper", upper)
    label = np.zeros(len(y)) if pool is None else np.asarray(pool)
    tried = np.arange(len(y)) if candidate is None else np.asarray(candidate)
    for name, values in (("predicted", p), ("lower", low), ("upper", high), ("pool", label), ("candidate", tried)):
        if values.shape != y.shape:
            raise InputError(f"{name} must have shape {y.shape}, one entry a run, got {values.shape}; give one a run")
        if name in ("pool", "candidate") and _unsaid(values).any():
            raise InputError(
                f"{name} must be a label for every run, got none in place {int(_unsaid(values).argmax())}; name it"
            )
    crossed = np.flatnonzero(low > high)
    if len(crossed):
        raise InputError(
            f"lower must be at most upper, got {low[crossed[0]]:g} and {high[crossed[0]]:g} in place {crossed[0]};"
            " swap the ends"
        )
    error = 100 * np.abs(p / y - 1)
    groups = [np.flatnonzero(label == value) for value in np.unique(label)]
    ranks, of_candidates, hits, regrets = [], [], 0, []
    for i in groups:
        if len(i) < smallest:
            continue
        ranks.append(rank_correlation(y[i], p[i]))
        of_candidates.append(rank_correlation(_per_candidate(y[i], tried[i]), _per_candidate(p[i], tried[i])))
        hit, regret = choice(y[i], p[i], tried[i])
        hits += hit
        regrets.append(regret)
    return {
        "runs": len(y),
        "error": float(np.mean([error[i].mean() for i in groups]) if by_pool else error.mean()),
        "worst": float(error.max()),
        "bias": float(100 * (p / y - 1).mean()),
        "rmsle": float(100 * np.sqrt((np.log(p / y) ** 2).mean())),
        "spearman": rank_correlation(y, p),
        "pool_spearman": float(np.mean(ranks)) if ranks else float("nan"),
        "candidate_spearman": float(np.mean(of_candidates)) if of_candidates else float("nan"),
        "hits": hits,
        "pools": len(ranks),
        "regret": float(np.mean(regrets)) if regrets else float("nan"),
        "worst_regret": float(np.max(regrets)) if regrets else float("nan"),
        "cover": float(((y >= low) & (y <= high)).mean()),
        "width": float((100 * (high - low) / p).mean()),
    }


@dataclass
class HeldOut:
    """Predictions beside truth, gathered over splits: for each split an array of one entry a held-out run."""

    loss: list[FloatArray] = field(default_factory=list)
    predicted: list[FloatArray] = field(default_factory=list)
    lower: list[FloatArray] = field(default_factory=list)
    upper: list[FloatArray] = field(default_factory=list)
    pool: list[npt.NDArray[Any]] = field(default_factory=list)
    candidate: list[npt.NDArray[Any]] = field(default_factory=list)

    def add(self, law: Predictor, runs: RunTable, pool: npt.ArrayLike | None = None) -> None:
        """Predict held-out runs and keep them; `pool` (m,) labels their pools, default `competing`."""
        with told_otherwise():
            p = law.predict(runs)
        self.loss.append(runs.final_loss)
        self.predicted.append(p.loss)
        self.lower.append(p.lower)
        self.upper.append(p.upper)
        self.pool.append(competing(runs) if pool is None else np.asarray(pool))
        self.candidate.append(configurations(runs))

    def row(self, *, by_pool: bool = False, smallest: int = SMALLEST_POOL) -> dict[str, Any]:
        """Return the scores of all that was kept; see `scores`."""
        if not self.loss:
            raise InputError("at least one held-out run must be added before scores are asked for, got none; call add")
        kept = (np.concatenate(part) for part in (self.loss, self.predicted, self.lower, self.upper, self.pool))
        return scores(*kept, candidate=np.concatenate(self.candidate), by_pool=by_pool, smallest=smallest)


def cross_validate(
    runs: RunTable,
    splits: Iterable[tuple[str, npt.ArrayLike, npt.ArrayLike]],
    fit: Callable[[RunTable], Predictor],
    *,
    pool: Callable[[RunTable], npt.NDArray[Any]] = competing,
    by_pool: bool = False,
) -> dict[str, dict[str, Any]]:
    """Fit on each split's training runs, predict its held-out ones, and score them.

    Parameters
    ----------
    runs : RunTable
        n runs. Held-out runs that did not complete, or have no loss, are not scored; `fit` sees all training runs.
    splits : iterable of (name, train mask (n,), test mask (n,))
        From the functions of this module, or any other.
    fit : callable
        (training runs) -> law; `optlaws.fit_law` is one.
    pool : callable
        (runs) -> labels of the pools within which runs compete; default: `competing`.
    by_pool : bool
        See `scores`.

    Returns
    -------
    dict
        By the name of the split, and under "all" the held-out runs of all splits together: the rows of `scores`.

    Raises
    ------
    InputError
        There is no split, two have one name, masks overlap or have another length.
    FitError
        A split leaves no completed run to test on, or `fit` raises it.
    """
    done, everything, labels = finished(runs), HeldOut(), pool(runs)
    rows: dict[str, dict[str, Any]] = {}
    for name, train, test in splits:
        fitted, held = np.asarray(train, dtype=bool), np.asarray(test, dtype=bool)
        if fitted.shape != (len(runs),) or held.shape != (len(runs),):
            raise InputError(
                f"masks of split {name!r} must have shape ({len(runs)},), got {fitted.shape} and {held.shape};"
                " split the run table that is validated"
            )
        if (fitted & held).any():
            raise InputError(
                f"masks of split {name!r} must not overlap, but run {runs.run_id[int(np.argmax(fitted & held))]!r}"
                " is on both sides; leave it out of one"
            )
        if name in rows or name == "all":
            raise InputError(f"names of splits must differ, and 'all' is taken, got {name!r} again; rename one")
        held = held & done  # the mask is the caller's: it stays as it is
        if not held.any():
            raise FitError(f"split {name!r} must hold out at least 1 completed run with a loss, got none; drop it")
        law, tested, here = fit(runs.select(fitted)), runs.select(held), HeldOut()
        here.add(law, tested, labels[held])
        for kept, new in zip(vars(everything).values(), vars(here).values(), strict=True):
            kept.extend(new)
        rows[name] = here.row(by_pool=by_pool)
    if not rows:
        raise InputError("splits must hold at least one split, got none; see leave_one_family_out and its neighbours")
    rows["all"] = everything.row(by_pool=by_pool)
    return rows


def _labels(runs: RunTable, column: str) -> npt.NDArray[Any]:
    """Return a column of the table, or one of the names that follow from it, shape (n,)."""
    if column == "family":
        return np.array([schedule.kind for schedule in runs.schedule_tuple()])
    if column == "peak_lr":
        return np.asarray(runs.batch().peak, dtype=np.float64).round(12)
    if column == "size":
        return sizes(runs)
    return runs.column(column)


def choice(loss: FloatArray, predicted: FloatArray, candidate: npt.NDArray[Any]) -> tuple[bool, float]:
    """Return what choosing by predictions among the candidates of one pool is worth; `scores` has the words for it.

    Parameters
    ----------
    loss, predicted : (n,)
        True losses and predictions, nats per token.
    candidate : (n,)
        Labels of what was tried.

    Returns
    -------
    tuple
        Whether the best candidate is among the two predicted lowest, and the regret, %.
    """
    true, guess = _per_candidate(loss, candidate), _per_candidate(predicted, candidate)
    order = np.argsort(guess, kind="stable")
    return bool(true.argmin() in order[:TOP]), float(100 * (true[order[0]] / true.min() - 1))


def _per_candidate(values: FloatArray, label: npt.NDArray[Any]) -> FloatArray:
    """Return the mean of the values of each label, in the labels' order."""
    index = np.unique(label, return_inverse=True)[1]
    return np.bincount(index, weights=values) / np.bincount(index)


def _unsaid(labels: npt.NDArray[Any]) -> Mask:
    """Return which labels are NaN or None, shape (n,)."""
    if labels.dtype.kind == "O":
        return np.array([label is None or label != label for label in labels], dtype=bool)
    return np.asarray(np.isnan(labels)) if labels.dtype.kind == "f" else np.zeros(len(labels), dtype=bool)


def _mask(rows: npt.NDArray[np.intp], count: int) -> Mask:
    """Return indices as a mask of shape (count,)."""
    mask = np.zeros(count, dtype=bool)
    mask[rows] = True
    return mask


def _beyond(values: FloatArray, threshold: float, name: str) -> Split:
    """Return the split at a threshold of a column."""
    train, test = values <= threshold, values > threshold
    if not train.any() or not test.any():
        known = values[np.isfinite(values)]
        got = f"{known.min():g} .. {known.max():g}" if len(known) else "no values"
        raise InputError(
            f"threshold must leave runs on both sides of it, got {threshold:g} where {name} are {got};"
            " choose one between them"
        )
    return Split(f"{name} > {threshold:g}", train, test)


def _losses(name: str, values: npt.ArrayLike) -> FloatArray:
    """Return values as a float64 array (n,), all finite and above 0."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise InputError(f"{name} must be one row of at least 1 number, got shape {array.shape}; give one a run")
    bad = np.flatnonzero(~(np.isfinite(array) & (array > 0)))
    if len(bad):
        raise InputError(f"{name} must be finite and above 0, got {array[bad[0]]} in place {bad[0]}; drop that run")
    return array


def rank_correlation(a: FloatArray, b: FloatArray) -> float:
    """Return Spearman's rank correlation of two arrays (n,), NaN where one side is constant.

    Values that differ by rounding alone are ties: repeats of one configuration have one predicted loss.
    """
    even = (np.round(values / np.abs(values).max(), DIGITS) for values in (a, b))
    x, y = (rankdata(values) - (len(values) + 1) / 2 for values in even)
    power = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / power if power > 0 else float("nan")
