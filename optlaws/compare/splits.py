"""Which runs are held out together, and which of them compete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from optlaws.baselines.base import column
from optlaws.errors import InputError
from optlaws.law.residuals import group_texts
from optlaws.runs import RunTable
from optlaws.validation import (
    Split,
    larger_size_out,
    leave_one_family_out,
    leave_one_out_by,
    longer_horizon_out,
    middle,
)

SPLITS = ("horizon", "size", "family", "peak")
BANDS = 6  # of peak rates

Labels = npt.NDArray[np.intp]


def made_folds(runs: RunTable, names: Sequence[str]) -> tuple[dict[str, list[Split]], dict[str, str]]:
    """Return the folds of each split of `SPLITS`, and why the runs do not allow the others."""
    makers: dict[str, tuple[Callable[[], Iterator[Split]], str]] = {
        "horizon": (lambda: longer_horizon_out(runs, middle(runs.steps)), "one length"),
        "size": (lambda: larger_size_out(runs, middle(runs.size)), "one size"),
        "family": (lambda: leave_one_family_out(runs), "one kind of schedule"),
        "peak": (lambda: _peaks(runs), "one peak rate"),
    }
    made, refused = {}, {}
    for name in names:
        make, one = makers[name]
        if name == "size" and not np.isfinite(runs.size).all():
            refused[name] = "params are not given for every run"
            continue
        try:
            made[name] = list(make())
        except InputError:
            refused[name] = f"all runs have {one}" if len(runs) else "there is no completed run with a loss"
    return made, refused


def _peaks(runs: RunTable) -> Iterator[Split]:
    """Yield splits with each peak rate left out; of many rates neighbours together."""
    peak = column(runs, "peak_lr").round(12)
    levels, index = np.unique(peak, return_inverse=True)
    if len(levels) <= BANDS:
        yield from leave_one_out_by(runs, "peak_lr")
        return
    band = index * BANDS // len(levels)
    for text, value in zip(group_texts(peak, band), np.unique(band), strict=True):
        yield Split(f"peak_lr {text} left out", band != value, band == value)


def blocks_of(folds: Sequence[Split], pool: Labels) -> Labels:
    """Return labels (n,) of runs of one pool that are held out together, -1 of runs that never are."""
    out = np.full(len(pool), -1)
    for k, split in enumerate(folds):
        out[split.test] = k * (int(pool.max()) + 1) + pool[split.test]
    return out
