"""Groups of runs that are left out in turn to calibrate intervals."""

from __future__ import annotations

import numpy as np

from optlaws.errors import FitError, TableError
from optlaws.runs import RUN_COLUMNS, RunTable

MOST_LEVELS = 12  # of a number: with more of them neighbours are put together
NEIGHBOURHOODS = 8


DERIVED = {"family": "family", "horizon": "horizon", "peak": "peak rate", "peak rate": "peak rate", "size": "size",
           "batch": "batch"}  # fmt: skip
"""Groups that follow from schedules and sizes, by what a user may call them where no column has that name."""


def derived(runs: RunTable, group: str | None) -> str | None:
    """Return what a derived group that a user named is called here, None where it is none or a column has that name."""
    return None if group in runs.extra or group in RUN_COLUMNS else DERIVED.get(group or "")


def derived_values(runs: RunTable, name: str) -> np.ndarray:
    """Return the values that a derived group of that name goes by, (n,)."""
    if name == "family":
        return np.array([s.kind for s in runs.schedule_tuple()])
    if name == "size":
        return runs.size
    if name == "batch":
        return runs.batch_tokens
    batch = runs.batch()
    return np.asarray(batch.total_steps if name == "horizon" else np.asarray(batch.peak).round(12))


def group_labels(runs: RunTable, group: str) -> np.ndarray:
    """Return the labels of the groups that a user wants left out in turn, shape (n,).

    Raises
    ------
    TableError
        There is no such column.
    FitError
        Its groups are single runs by their nature, a cell is empty, or all have one value.
    """
    made = derived(runs, group)
    try:
        labels = runs.column(group) if made is None else derived_values(runs, made)
    except TableError as error:
        names = ", ".join(name for name in DERIVED if " " not in name)
        raise TableError(f"group must name a column; {error}; {names} need none") from None
    if group in ("run_id", "final_loss", "schedule"):
        raise FitError(f"group must be a column that several runs share, got {group!r}; choose another")
    empty = np.flatnonzero(np.isnan(labels) if labels.dtype.kind == "f" else labels == "")
    if len(empty):
        raise FitError(
            f"group column {group!r} must be filled in every run, got an empty cell in {len(empty)} of {len(runs)}"
            f" (first: {runs.run_id[empty[0]]!r}); fill it or drop those runs"
        )
    if len(np.unique(labels)) < 2:
        raise FitError(
            f"group column {group!r} must have at least 2 different values, got one;"
            " choose another column or leave --group out"
        )
    return labels


def partitions(runs: RunTable, group: str | None) -> dict[str, np.ndarray]:
    """Return the partitions whose leave-group-out errors calibrate the intervals, as whole numbers (n,).

    Without a column: family, horizon, peak rate, size and batch, those of them that are known and vary. One of these
    may be named, too, where no column is called so.
    """
    made = derived(runs, group)
    if group is not None:
        parts = {made or group: group_labels(runs, group)}
    else:
        parts = {name: derived_values(runs, name) for name in dict.fromkeys(DERIVED.values())}
    out = {}
    for name, labels in parts.items():
        if labels.dtype.kind == "f" and np.isnan(labels).any():
            continue
        levels, index = np.unique(labels, return_inverse=True)
        if len(levels) < 2:
            continue
        own = group is not None and made is None
        if not own and labels.dtype.kind == "f" and len(levels) > MOST_LEVELS:  # about equal numbers of runs
            edges = np.quantile(labels, np.linspace(0, 1, NEIGHBOURHOODS + 1)[1:-1])
            index = np.searchsorted(edges, labels, side="right")
        out[name] = index.astype(float)
    return out
