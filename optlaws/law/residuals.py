"""What fits tell of themselves: residuals of runs whose group was left out, in intervals and law files; versions.

A residual is of ln loss, or relative to the loss, and above 0 where the loss was higher than predicted.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from optlaws._normal import NORMAL_90
from optlaws._version import __version__
from optlaws.baselines.base import DERIVED, FloatArray, column
from optlaws.errors import TableError
from optlaws.runs import RunTable
from optlaws.runs._repeats import SAME, levels

TAIL = 0.05
FEWEST_FOR_TAILS = 19  # residuals: fewer have no 5 % point
MOST_IN_PAIRS = 500  # residuals of a group whose pairs are looked at
MOST_GROUPS = 40  # of a partition in a law file
FEWEST_IN_GROUP = 3  # runs: the mean over fewer would come near to telling a single run's loss
FIGURES = 4  # of a number in a law file
CALLED = {"horizon": "steps", "peak rate": "peak_lr", "size": "params", "batch": "batch_tokens"}


def tails(residuals: FloatArray) -> tuple[float, float]:
    """Return what a new residual lies below, and above, with a chance of 5 % each.

    Of n residuals, shape (n,), those with the ranks k and n + 1 - k, k = 0.05 (n + 1) rounded down: one more of the
    same kind lies outside of them with a chance of at most 2 k / (n + 1), whatever their distribution (order
    statistics; Vovk et al., Algorithmic Learning in a Random World, 2005). Fewer than 19 have no such rank: then
    Student's t interval about 0 with n degrees of freedom, which is exact for normal ones. Without any: (0, 0).
    """
    count = len(residuals)
    if not count:
        return 0.0, 0.0
    rank = int(TAIL * (count + 1) + 1e-9)
    if rank:
        ordered = np.sort(residuals)
        return float(ordered[rank - 1]), float(ordered[count - rank])
    half = half_width(count) * float(np.sqrt((residuals**2).mean()))
    return -half, half


class Parts(NamedTuple):
    """Standard deviations of what runs of one group share and of each run's own; see `difference_factor`."""

    shared_sd: float
    own_sd: float
    own_factor: float


def half_width(degrees: float) -> float:
    """Return the half-width of a 90 % interval per standard deviation, told from so many degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1.0 - TAIL))


def shared_and_own(residuals: FloatArray, label: npt.NDArray[Any]) -> Parts:
    """Return the standard deviations of what the runs of one group share, and of what each run has of its own.

    Residual i of group g is u_g + w_i, u ~ (0, s^2), w ~ (0, t^2), all independent. By the moments of the one-way
    layout with unequal groups (Searle, Casella and McCulloch, Variance Components, 1992, ch. 3), but about 0 and not
    about the mean of all, so that a law that is wrong on average is wrong for all runs of a group alike:

        t^2 = sum_g sum_i (r_gi - mean_g)^2 / (n - G),    s^2 = (sum_g n_g mean_g^2 - G t^2) / n,

    with n residuals in G groups. s^2 + t^2 is the mean square of the residuals, so that the split leaves the error of a
    single loss as it is. Where s^2 comes out below 0, or there are fewer than two groups or none with two runs, which
    cannot tell the two apart, nothing is shared.

    Parameters
    ----------
    residuals : (n,), at least one.
    label : (n,) of the groups.
    """
    mean_square = float((residuals**2).mean())
    _, label = np.unique(label, return_inverse=True)
    size = np.bincount(label)
    if len(size) < 2 or len(size) == len(residuals):
        return Parts(0.0, float(np.sqrt(mean_square)), NORMAL_90)
    mean = np.bincount(label, weights=residuals) / size
    within = float(((residuals - mean[label]) ** 2).sum()) / (len(residuals) - len(size))
    between = float(np.clip(mean_square - within, 0.0, mean_square))
    own = float(np.sqrt(mean_square - between))
    if not between or not own:
        return Parts(0.0, float(np.sqrt(mean_square)), NORMAL_90)
    return Parts(float(np.sqrt(between)), own, difference_factor(residuals, label, own))


def difference_factor(residuals: FloatArray, label: npt.NDArray[np.intp], own_sd: float) -> float:
    """Return what 90 % of the differences of two runs of one group stay below, in their standard deviations.

    That is the 90 % point of |r_gi - r_gj| over pairs of residuals, each run counting alike, over sqrt(2) `own_sd`:
    1.645 for normal errors, less for heavy tails. Where fewer than 19 degrees of freedom are left within the groups,
    it is Student's t with so many.

    Parameters
    ----------
    residuals : (n,)
    label : (n,) of the groups, 0, 1, ...
    own_sd : of a run about its group.
    """
    size = np.bincount(label)
    degrees = len(residuals) - len(size)
    if degrees < FEWEST_FOR_TAILS:
        return half_width(degrees)
    apart, weight = [], []
    for g in np.flatnonzero(size > 1):
        own = residuals[label == g]
        own = own[np.unique(np.linspace(0, len(own) - 1, min(len(own), MOST_IN_PAIRS)).round().astype(int))]
        i, j = np.triu_indices(len(own), 1)
        apart.append(np.abs(own[i] - own[j]))
        weight.append(np.full(len(i), size[g] / len(i)))
    distance, mass = np.concatenate(apart), np.concatenate(weight)
    order = np.argsort(distance, kind="stable")
    place = int(np.searchsorted(np.cumsum(mass[order]), (1.0 - 2.0 * TAIL) * mass.sum()))
    return float(distance[order[min(place, len(order) - 1)]] / (np.sqrt(2.0) * own_sd))


def same_level(runs: RunTable, by: str, within: float = SAME) -> npt.NDArray[np.intp]:
    """Return labels (n,), equal for runs whose values of the column `by` are: numbers above 0 to the factor `within`.

    All runs have one label where the table has no such column, or a number in it is missing.
    """
    try:
        values = group_values(runs, by)
    except TableError:
        return np.zeros(len(runs), dtype=np.intp)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return np.zeros(len(runs), dtype=np.intp)
    if values.dtype.kind == "f" and len(values) and (values > 0).all():
        return levels(values, within)
    return np.asarray(np.unique(values, return_inverse=True)[1], dtype=np.intp)


def group_values(runs: RunTable, by: str) -> npt.NDArray[Any]:
    """Return the values of the column `by`, derived ones too; families of schedules where no column is called family.

    Raises
    ------
    TableError
        There is no such column.
    """
    if by == "family" and by not in runs.extra:
        return partition_values(runs, by)
    return column(runs, by) if by in DERIVED else runs.column(by)


def partition_values(runs: RunTable, name: str) -> npt.NDArray[Any]:
    """Return the values that a partition of `optlaws.law.groups`, which no one named a column for, goes by, (n,)."""
    if name == "family":
        return np.array([schedule.kind for schedule in runs.schedule_tuple()])
    return column(runs, CALLED[name])


def group_texts(values: npt.NDArray[Any], label: npt.NDArray[Any]) -> list[str]:
    """Return groups in words, in order of their labels: the one value that its runs have, or the first and the last.

    >>> group_texts(np.array([1e6, 2e6, 5e7]), np.array([0, 0, 1]))
    ['1e+06 .. 2e+06', '5e+07']
    """
    out = []
    for value in np.unique(label):
        own = np.unique(values[label == value])
        ends = [f"{end:.6g}" if own.dtype.kind == "f" else str(end) for end in (own[0], own[-1])]
        out.append(ends[0] if len(own) == 1 else " .. ".join(ends))
    return out


def summary(residuals: FloatArray, label: npt.NDArray[Any], texts: Sequence[str]) -> dict[str, Any]:
    """Return the mean residual of a partition, and by group the mean and the mean absolute one, in %.

    Groups of fewer than `FEWEST_IN_GROUP` runs are left out, and where all of those together are as few, the smallest
    other one too: else what they are would follow from the rest. Of more than `MOST_GROUPS` the largest are kept.

    Parameters
    ----------
    residuals : (n,) relative, one a run, at least one.
    label : (n,) of the groups.
    texts : what to call the groups, in the order of their labels.
    """
    _, label = np.unique(label, return_inverse=True)
    size = np.bincount(label, minlength=len(texts))
    kept = [int(g) for g in np.argsort(-size, kind="stable") if size[g] >= FEWEST_IN_GROUP]
    if 0 < len(residuals) - size[kept].sum() < FEWEST_IN_GROUP:
        kept = kept[:-1]

    def rounded(values: FloatArray) -> float:
        return float(f"{100.0 * values.mean():.{FIGURES}g}")

    groups = []
    for g in sorted(kept[:MOST_GROUPS]):
        own = residuals[label == g]
        about = {"group": texts[g], "n_runs": len(own), "bias_pct": rounded(own), "error_pct": rounded(np.abs(own))}
        groups.append(about)
    return {"bias_pct": rounded(residuals), "groups": groups}


def versions() -> dict[str, str]:
    """Return the versions that a law was fitted with, by name."""
    import scipy

    return {
        "optlaws": __version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
    }
