"""Figures of laws on a split: errors, ranks within pools, regrets, paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from optlaws.baselines.base import FloatArray
from optlaws.compare.contenders import OURS, Contender
from optlaws.compare.splits import Labels, blocks_of
from optlaws.runs import RunTable
from optlaws.validation import SMALLEST_POOL, Split, choice, scores

DRAWS = 32  # of an order among candidates that a law predicts alike
ALIKE = 1e-9  # of ln loss: predictions that are no nearer to each other are told apart
CONFIDENCE = 0.90


class _Ends(NamedTuple):
    mean: float
    lower: float
    upper: float


class Difference(_Ends):
    """A mean difference and the ends of its 90 % interval, NaN where no spread can be seen; see the module.

    `spreads` are the standard errors that it comes from, each with its degrees of freedom.
    """

    spreads: tuple[tuple[float, float], ...] = ()

    @property
    def sign(self) -> int:
        """1 or -1 if the interval leaves out zero, else 0."""
        return int(self.lower > 0) - int(self.upper < 0)

    def behind(self, rivals: int) -> bool:
        """Return whether it is below zero even as the lowest of so many, at least 1, any of which could have been."""
        spreads = self.spreads or ((-(self.upper - self.mean) / _quantile(TAIL, np.inf), np.inf),)
        return bool(self.mean + _widest(spreads, TAIL / rivals) < 0)


TAIL = (1 - CONFIDENCE) / 2


def _quantile(tail: float, freedom: float) -> float:
    from scipy.special import ndtri, stdtrit

    return float(stdtrit(freedom, tail) if np.isfinite(freedom) else ndtri(tail))


def _widest(spreads: Sequence[tuple[float, float]], tail: float) -> float:
    """Return half the width of the widest interval with so much beyond each end, NaN of none."""
    return max((-error * _quantile(tail, freedom) for error, freedom in spreads), default=float("nan"))


def paired_difference(values: npt.ArrayLike, *groupings: npt.ArrayLike) -> Difference:
    """Return the mean of differences (n,) with an interval by the spread over groups.

    With G groups, s_g the sum of (value - mean) in group g: SE = sqrt(G / (G - 1) sum s_g^2) / n, and the interval is
    mean -+ t SE, Student's t with G - 1 degrees of freedom. Of several groupings, each labels of shape (n,), the widest
    interval is taken; those of a single group say nothing.
    """
    d = np.asarray(values, dtype=np.float64)
    mean, spreads = float(d.mean()), []
    for labels in groupings:
        group = np.unique(np.asarray(labels), return_inverse=True)[1]
        count = int(group.max()) + 1
        if count < 2:
            continue
        sums = np.bincount(group, weights=d - mean)
        spreads.append((float(np.sqrt(count / (count - 1) * (sums @ sums))) / len(d), count - 1.0))
    half = _widest(spreads, TAIL)
    found = Difference(mean, mean - half, mean + half)
    found.spreads = tuple(spreads)
    return found


@dataclass(frozen=True)
class Row:
    """How one law did on one split. Numbers are NaN where there are none; errors, regrets in %.

    Attributes
    ----------
    law, kind : name, and "ours", "rival" or "reference" (a line to compare with).
    runs, folds : held-out runs that it predicted; folds that it was fitted in.
    error, worst : mean and largest |predicted / loss - 1|.
    spearman : rank correlation within pools, their mean.
    hits, pools : pools whose best candidate is among the two predicted lowest; pools in which the law ranks. Where it
        predicts candidates alike their order is drawn, and hits are a mean over draws.
    regret : how far the candidate predicted lowest lies above the lowest, mean over pools; for a law that only advises
        a rate or a batch, the candidate nearest to the advice.
    cover : share of runs inside their 90 % intervals.
    seconds : of the fits of one fold, mean.
    error_difference, regret_difference : this law minus ours, None for ours and where one has none.
    best : names of the figures in which no law that predicted all held-out runs is better.
    reason : why runs or folds are missing, "" if none are.
    """

    law: str
    kind: str
    runs: int
    folds: int
    error: float
    worst: float
    spearman: float
    hits: float
    pools: int
    regret: float
    cover: float
    seconds: float
    error_difference: Difference | None
    regret_difference: Difference | None
    reason: str
    best: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitResult:
    """All laws on one split: name, folds in words, held-out runs, pools of them, and rows: those of all runs first."""

    name: str
    folds: tuple[str, ...]
    held_out: int
    pools: int
    rows: tuple[Row, ...]

    def row(self, law: str) -> Row | None:
        """Return the row of a law, None if it has none here."""
        return next((row for row in self.rows if row.law == law), None)


@dataclass(frozen=True)
class Comparison:
    """What `compare_laws` found.

    Attributes
    ----------
    runs, unfinished : completed runs that were used; others, which were not.
    curves : number of runs with a curve.
    splits : sequence of SplitResult
    no_split : by split why the runs do not allow it.
    not_compared : by law why it has no figure at all.
    warned : by law the first warning that its fits gave, and how many other texts there were.
    interrupted : whether Ctrl-C came before all laws were fitted; "interrupted" is then the reason of those left.
    """

    runs: int
    unfinished: int
    curves: int
    splits: tuple[SplitResult, ...]
    no_split: Mapping[str, str]
    not_compared: Mapping[str, str]
    warned: Mapping[str, str]
    interrupted: bool = False


@dataclass(eq=False)
class Answers:
    """What one law answered on one split: (n,) arrays of all runs, NaN where not held out or not predicted."""

    loss: FloatArray
    lower: FloatArray
    upper: FloatArray
    advised: dict[int, float] = field(default_factory=dict)  # regret by block
    seconds: list[float] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def _ranked(loss: FloatArray, predicted: FloatArray, tried: Labels) -> tuple[float, float, float] | None:
    """Return Spearman, hits and regret in % of one block; None where the law predicts all its candidates alike."""
    if np.ptp(np.log(predicted)) <= ALIKE:
        return None
    label = np.unique(tried, return_inverse=True)[1]
    alike = len(np.unique(np.log(predicted).round(9))) < label.max() + 1
    random = np.random.default_rng(0)
    noise = ALIKE * random.standard_normal((DRAWS, int(label.max()) + 1)) if alike else np.zeros((1, label.max() + 1))
    hits, regret = np.mean([choice(loss, predicted * (1 + row[label]), label) for row in noise], axis=0).tolist()
    return scores(loss, predicted, predicted, predicted)["spearman"], hits, regret


def result_of(
    name: str,
    folds: Sequence[Split],
    laws: Sequence[Contender],
    answers: Mapping[str, Answers],
    runs: RunTable,
    pool: Labels,
    tried: Labels,
) -> SplitResult:
    """Return the rows of one split."""
    block = blocks_of(folds, pool)
    fold = block // (int(pool.max()) + 1)
    held = block >= 0
    y = runs.final_loss
    errors = {law.name: 100 * np.abs(answers[law.name].loss / y - 1) for law in laws}
    large = [int(b) for b in np.unique(block[held]) if (block == b).sum() >= SMALLEST_POOL]
    ranked: dict[str, dict[int, tuple[float, float, float]]] = {law.name: {} for law in laws}
    for law in laws:
        for b in large if law.ranks and law.predicts else ():
            here = block == b
            p = answers[law.name].loss[here]
            if np.isfinite(p).all() and (one := _ranked(y[here], p, tried[here])) is not None:
                ranked[law.name][b] = one
    regrets = {k: {b: r[2] for b, r in v.items()} or answers[k].advised for k, v in ranked.items()}
    rows = []
    for law in laws:
        mine, error = answers[law.name], errors[law.name]
        good, spans = np.isfinite(error), np.isfinite(mine.lower)
        missing = int(held.sum() - good.sum()) if law.predicts else len(large) - len(mine.advised)
        if not (good.any() or mine.advised) and not mine.reasons:
            continue
        order, regret = [r[0] for r in ranked[law.name].values()], regrets[law.name]
        rows.append(
            Row(
                law.name, law.group, int(good.sum()), len(mine.seconds),
                _mean(error[good]), float(error[good].max()) if good.any() else np.nan,
                _mean([r for r in order if np.isfinite(r)]),
                float(sum(r[1] for r in ranked[law.name].values())) if order else np.nan, len(regret),
                _mean(list(regret.values())),
                _mean((mine.lower[spans] <= y[spans]) & (y[spans] <= mine.upper[spans])), _mean(mine.seconds),
                _beside(errors, law.name, block, fold), _beside_regret(regrets, law.name, pool.max() + 1),
                first_of(mine.reasons) if missing or len(mine.seconds) < len(folds) else "",
            )
        )  # fmt: skip
    return SplitResult(
        name, tuple(s.name for s in folds), int(held.sum()), len(large), _marked(rows, int(held.sum()), len(large))
    )


def first_of(texts: Sequence[str]) -> str:
    """Return the first of some texts and how many different ones there are beside it, "" of none."""
    different = list(dict.fromkeys(texts))
    return different[0] + (f" (and {len(different) - 1} more)" if different[1:] else "") if different else ""


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _beside(errors: Mapping[str, FloatArray], name: str, block: Labels, fold: Labels) -> Difference | None:
    """Return a law's errors minus ours, on the runs that both predicted."""
    if name == OURS or OURS not in errors:
        return None
    d = errors[name] - errors[OURS]
    both = np.isfinite(d)
    return paired_difference(d[both], block[both], fold[both]) if both.any() else None


def _beside_regret(regrets: Mapping[str, Mapping[int, float]], name: str, pools: int) -> Difference | None:
    """Return a law's regrets minus ours, on the pools of the folds in which both rank."""
    both = [b for b in regrets[name] if b in regrets.get(OURS, {})]
    if name == OURS or not both:
        return None
    return paired_difference([regrets[name][b] - regrets[OURS][b] for b in both], both, np.array(both) // pools)


def _marked(rows: Sequence[Row], held: int, pools: int) -> tuple[Row, ...]:
    """Return rows in order of error, then regret, those of a part of the runs later; the best are marked."""
    best: dict[int, list[str]] = {i: [] for i in range(len(rows))}
    for key in ("error", "worst", "spearman", "hits", "regret"):
        whole = {
            i: getattr(row, key) * (-1 if key in ("spearman", "hits") else 1)
            for i, row in enumerate(rows)
            if np.isfinite(getattr(row, key))
            and (row.runs == held if key in ("error", "worst") else row.pools == pools)
        }
        for i, value in whole.items():
            if value <= min(whole.values()) + 1e-12:
                best[i].append(key)
    marked = [replace(row, best=tuple(best[i])) for i, row in enumerate(rows)]

    def place(row: Row) -> tuple[float, ...]:
        error, regret = np.nan_to_num([row.error, row.regret], nan=np.inf)
        return 0 if row.runs == held else 1 if row.runs else 2, error, regret

    return tuple(sorted(marked, key=place))
