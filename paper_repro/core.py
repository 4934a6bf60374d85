"""What a reproduction returns, and what a folder of one holds."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from optlaws.errors import InputError
from optlaws.schedules import Schedule, parse

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Row:
    """One published value beside ours.

    Attributes
    ----------
    table, cell : where the value stands: the paper's table or figure, and the cell.
    published : the printed value; None where the paper prints none (the row is then for information).
    ours : what was computed here; None where it could not be.
    tolerance : largest allowed |ours - published|; None = for information, never a mismatch.
    note : unit, differences of protocol, reasons.
    reason : why ours lies outside the tolerance, where that is known and was checked on this data; else empty.
    """

    table: str
    cell: str
    published: float | None
    ours: float | None
    tolerance: float | None
    note: str = ""
    reason: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus published, None where one is missing."""
        return None if self.published is None or self.ours is None else self.ours - self.published

    @property
    def ok(self) -> bool | None:
        """Whether the value is within its tolerance; None for information."""
        if self.tolerance is None or self.difference is None:
            return None
        return abs(self.difference) <= self.tolerance

    @property
    def explained(self) -> bool:
        """Whether the value is outside its tolerance for a reason that was checked."""
        return self.ok is False and bool(self.reason)


class Missing(Exception):  # noqa: N818  (a named gap, not a failure)
    """Data that a reproduction needs and did not find.

    Attributes
    ----------
    name : the file.
    what : what is missing in it, and what cannot be computed without it.
    """

    def __init__(self, name: str, what: str) -> None:
        """Keep both for the report."""
        super().__init__(f"{name}: {what}")
        self.name, self.what = name, what


def need(data: Path, name: str, what: str) -> Path:
    """Return the path of a data file, or raise `Missing` that says what cannot be done without it."""
    path = data / name
    if not path.is_file():
        raise Missing(name, what)
    return path


def placeholder(steps: int = 1) -> Schedule:
    """Return a schedule for points of which only size, data and loss are published; no law here reads it."""
    return parse(f"constant:peak=1e-3,steps={steps},warmup=0")


def benchmark(name: str) -> Any:
    """Return a module of `benchmarks/`, whose splits and scores are used here too."""
    folder = str(HERE.parent / "benchmarks")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return import_module(name)


def new_axes(columns: int = 1) -> tuple[Any, Any]:
    """Return a figure and its axes (an array of them for more than one column), without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * columns, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


@dataclass(frozen=True)
class Expected:
    """The published values of one folder, by (table, cell)."""

    folder: str
    cells: dict[tuple[str, str], dict[str, Any]]

    def row(self, table: str, cell: str, ours: float | None, note: str = "", *, holds: bool = False) -> Row:
        """Return the row of a published cell with our value; `note` is added to the cell's own.

        `holds`: the check of the cell's "reason" came out as the reason says. A mismatch then is an explained one; one
        whose reason does not hold stays a mismatch.
        """
        if (table, cell) not in self.cells:
            raise InputError(
                f"expected.json of {self.folder} must list ({table!r}, {cell!r}), got no such cell; add it"
            )
        entry = self.cells[table, cell]
        unit = f"[{entry['unit']}]" if entry.get("unit") else ""
        text = "; ".join(part for part in (entry.get("note", ""), note) if part)
        reason = entry.get("reason", "") if holds else ""
        return Row(table, cell, entry["published"], ours, entry["tolerance"], f"{unit} {text}".strip(), reason)


def expected(folder: str) -> Expected:
    """Return the published values of a folder of this package."""
    entries = json.loads((HERE / folder / "expected.json").read_text(encoding="utf-8"))
    return Expected(folder, {(entry["table"], entry["cell"]): entry for entry in entries})
