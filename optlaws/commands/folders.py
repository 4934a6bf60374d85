"""Folders with runs.csv and curves.csv, and built-in sweeps, as one run table and one curve table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from optlaws.errors import InputError, TableError
from optlaws.runs import CurveTable, RunTable, read_curves, read_runs
from optlaws.sweeps import load_sweep, sweep_names


def check_folders(folders: Sequence[str]) -> None:
    """Raise an `InputError` unless each is a folder or the name of a built-in sweep."""
    for folder in folders:
        if not Path(folder).is_dir() and folder not in sweep_names():
            raise InputError(
                f"DIR must be a folder with runs.csv in it or one of {', '.join(sweep_names())}, got {folder!r};"
                " name the folder of a sweep"
            )


def read_folders(folders: Sequence[str]) -> tuple[RunTable, CurveTable | None]:
    """Return the runs of all folders and built-in sweeps together, and their curves as `measured`.

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
            table = read_runs(place / "runs.csv", need_loss=True), read_curves(place / "curves.csv") if known else None
        else:
            table = load_sweep(folder)
        for other, (runs, _) in tables.items():
            known_names = set(runs.run_id)
            both = [name for name in table[0].run_id if name in known_names]
            if both:
                raise InputError(
                    f"run_id must be another one for every run, got {both[0]!r}"
                    f"{f' and {len(both) - 1} more' * (len(both) > 1)} in {other} and in {folder}; rename the runs, or"
                    " leave one of the two out"
                )
        tables[folder] = table
    curves = [measured(readings) for _, readings in tables.values() if readings is not None]
    return RunTable.concat([runs for runs, _ in tables.values()]), CurveTable.concat(curves) if curves else None


def measured(curves: CurveTable) -> CurveTable:
    """Return the curves with the validation loss as the loss, where the table has one: its noise is lower."""
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
    return CurveTable(some.run_id, some.step, loss)
