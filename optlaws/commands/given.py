"""Options that are given once for all runs of some logs, or as NAME=VALUE for the run or the log of that name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

from optlaws.errors import InputError, nearest
from optlaws.runs import LoggedRun

Value = TypeVar("Value")
Given = Sequence[tuple[str | None, Value]]
"""What an option was given, in order: the name of a run or log, None = of all, and the value."""

ALL, OF_LOG, OF_RUN = range(3)
SHOWN = 6  # names in an error


def by_run(option: str, given: Given[Value], found: Sequence[LoggedRun]) -> list[Value | None]:
    """Return the value of every run, (n,): that given for it, else for its log, else for all, else None.

    Parameters
    ----------
    option
        As the user writes it.
    given
        In any order.
    found
        The n runs.

    Raises
    ------
    InputError
        If a name is that of no run and no log, or of several logs, or two values are given for the same.
    """
    values: list[dict[int, Value]] = [{} for _ in found]
    for name, value in given:
        rank, rows = (ALL, list(range(len(found)))) if name is None else _meant(option, name, found)
        for row in rows:
            if rank in values[row]:
                what = "all runs" if name is None else f"{name!r}"
                ways = ", NAME=VALUE is of one run or log" if name is None else ""
                raise InputError(f"{option} must be given once for {what}, got it twice; leave one out{ways}")
            values[row][rank] = value
    return [one[max(one)] if one else None for one in values]


def known_name(name: str, found: Sequence[LoggedRun]) -> bool:
    """Return whether a run or one of its logs is called so."""
    return any(name == run.run_id or _of(name, run) for run in found)


def _of(name: str, run: LoggedRun) -> list[str]:
    """Return the logs of a run that a name may mean: as the user wrote them, or their last part."""
    plain = os.path.normpath(name)
    return [path for path in run.paths if plain in (os.path.normpath(path), os.path.basename(os.path.normpath(path)))]


def _meant(option: str, name: str, found: Sequence[LoggedRun]) -> tuple[int, list[int]]:
    """Return what a name is of, and the rows of the runs that it means."""
    rows = [row for row, run in enumerate(found) if run.run_id == name]
    if rows:
        return OF_RUN, rows
    logs = {row: _of(name, run) for row, run in enumerate(found)}
    several = {path for paths in logs.values() for path in paths}
    exact = {path for path in several if os.path.normpath(path) == os.path.normpath(name)} or several
    if len(exact) > 1:
        raise InputError(f"{option} must name one run or log, got {name!r} for {len(exact)} logs; write its whole path")
    if not exact:
        names = list(dict.fromkeys(text for run in found for text in (run.run_id, *run.paths)))
        shown = ", ".join(names[:SHOWN]) + ", ..." * (len(names) > SHOWN)
        hint = f"; repeat {option} for each" if "=" in name else nearest(name, names)
        raise InputError(f"{option} must name a run or log ({shown}), got {name!r}{hint}")
    return OF_LOG, [row for row, paths in logs.items() if exact & set(paths)]
