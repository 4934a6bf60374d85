"""Folders with runs.csv and curves.csv, and built-in sweeps, as one run table and one curve table."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from optlaws.errors import InputError, OptlawsWarning, TableError
from optlaws.runs import CurveTable, RunTable, read_curves, read_runs
from optlaws.runs._names import KIND_COLUMN, KINDS
from optlaws.sweeps import load_sweep, sweep_names


def check_folders(folders: Sequence[str]) -> None:
    """Raise an `InputError` unless each is a folder or the name of a built-in sweep."""
    for folder in folders:
        if not Path(folder).is_dir() and folder not in sweep_names():
            raise InputError(
                f"DIR must be a folder with runs.csv in it or one of {', '.join(sweep_names())}, got {folder!r};"
                " name the folder of a sweep"
            )


def read_folders(
    folders: Sequence[str], headers: Mapping[str, str] | None = None
) -> tuple[RunTable, CurveTable | None, tuple[str, ...]]:
    """Return the n runs of all folders and built-in sweeps together, their curves as `measured`, and n folders' names.

    `headers` are those of the folders' run tables, as `columns` of `read_runs`; built-in sweeps need none.
    Where curves of one folder say of what their losses are and those of another do not, a warning names both.

    Raises
    ------
    InputError
        Two of them have a run of one name.
    """
    tables: dict[str, tuple[RunTable, CurveTable | None]] = {}
    for folder in folders:
        place = Path(folder)
        if place.is_dir():
            known = (place / "curves.csv").exists()
            runs = read_runs(place / "runs.csv", True, headers)
            table = runs, read_curves(place / "curves.csv") if known else None
        else:
            runs, readings = load_sweep(folder)
            table = runs, replace(readings, extra={KIND_COLUMN: (KINDS["eval"],) * len(readings)})
        for other, (before, _) in tables.items():
            known_names = set(before.run_id)
            both = [name for name in table[0].run_id if name in known_names]
            if both:
                raise InputError(
                    f"run_id must be another one for every run, got {both[0]!r}"
                    f"{f' and {len(both) - 1} more' * (len(both) > 1)} in {other} and in {folder}; rename the runs, or"
                    " leave one of the two out"
                )
        tables[folder] = table
    curves = {name: measured(readings) for name, (_, readings) in tables.items() if readings is not None}
    _tell_unsaid(curves)
    return (
        RunTable.concat([runs for runs, _ in tables.values()]),
        CurveTable.concat(list(curves.values())) if curves else None,
        tuple(name for name, (runs, _) in tables.items() for _ in range(len(runs))),
    )


def _tell_unsaid(curves: Mapping[str, CurveTable]) -> None:
    """Warn if curves of one folder say of what their losses are and those of another do not."""
    kinds = {name: set(table.extra.get(KIND_COLUMN, ())) - {""} for name, table in curves.items()}
    unsaid, said = ([name for name, known in kinds.items() if bool(known) == which] for which in (False, True))
    if unsaid and said:
        these = " and ".join(sorted(set().union(*(kinds[name] for name in said))))
        warnings.warn(
            OptlawsWarning(
                f"curves of {', '.join(said)} are {these} losses, those of {', '.join(unsaid)} do not say what they"
                " are: a law takes a difference between kinds for one of the runs; add a column loss_kind (training or"
                f" evaluation) to the curves of {unsaid[0]}"
            ),
            stacklevel=2,
        )


def measured(curves: CurveTable) -> CurveTable:
    """Return the curves with the validation loss as the loss, where the table has one: its noise is lower.

    Their column `loss_kind` then says so.
    """
    if "val_loss" not in curves.extra:
        return curves
    keep = np.array([bool(cell) for cell in curves.extra["val_loss"]], dtype=bool)
    if not keep.any():
        return curves
    some = curves.select(keep)
    try:
        loss = np.array([float(cell) for cell in some.extra["val_loss"]])
    except ValueError as bad:
        raise TableError(f"val_loss of the curves must be numbers or empty ({bad}); correct the table") from None
    return CurveTable(some.run_id, some.step, loss, {KIND_COLUMN: (KINDS["eval"],) * len(some)})
