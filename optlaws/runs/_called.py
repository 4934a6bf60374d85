"""What the runs of a table are called where nobody gave them a name."""

from __future__ import annotations

from collections.abc import Container

from optlaws.runs._table import RunTable
from optlaws.schedules import ScheduleBatch


def unused(base: str, taken: Container[str], tried: dict[str, int], written: Container[str] = ()) -> str:
    """Return the name, or the name with #2, #3, ... where it is among those `taken` or `written`.

    `tried` holds the last number that was tried behind a name, and grows.

    >>> unused("a", {"a", "a #2"}, {})
    'a #3'
    """
    chosen = base
    while chosen in taken or chosen in written:
        tried[base] = tried.get(base, 1) + 1
        chosen = f"{base} #{tried[base]}"
    return chosen


def candidate_names(runs: RunTable) -> tuple[str, ...]:
    """Return what to call candidates, n names: their run ids, or their schedules where these are only numbers of them.

    Numbers that `RunTable.build` gave by itself say nothing of a run, and look like its rank. Equal schedules are told
    apart by #2, #3, ... as `optlaws rank` does; those of a `ScheduleBatch` are called by their number.
    """
    if runs.numbered is None:
        return runs.run_id
    if isinstance(runs.schedules, ScheduleBatch):
        return tuple(f"schedule {number}" for number in runs.run_id)
    taken: dict[str, None] = {}
    tried: dict[str, int] = {}
    for schedule in runs.schedules:
        taken[unused(str(schedule), taken, tried)] = None
    return tuple(taken)
