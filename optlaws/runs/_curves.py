"""The curve table: one logged loss a row."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.errors import TableError
from optlaws.runs._cells import LEAVE_EMPTY, RawTable, read_raw
from optlaws.runs._checks import FloatArray
from optlaws.runs._given import given_texts
from optlaws.runs._names import KIND_COLUMN, KINDS
from optlaws.runs._table import picked_rows
from optlaws.runs._write import write_columns

LOSS_NAMES = ("loss", "val_loss")
"""Names under which a curve's loss is found, first come first served."""


@dataclass(frozen=True, eq=False)
class CurveTable:
    """Losses along training, one reading a row, m rows.

    Attributes
    ----------
    run_id
        The run of each reading.
    step
        Updates done at the reading, in steps, whole numbers of at least 0, shape (m,).
    loss
        Nats per token, shape (m,); NaN = not measured (a step that is only asked for).
    extra
        Other columns as text.

    Raises
    ------
    TableError
        The columns differ in length, an id is empty, a step is no whole number of at least 0, or a loss is not finite
        and above 0.

    Notes
    -----
    Lists, arrays and columns of a data frame are taken row by row, whatever their index; ids become texts.
    """

    run_id: tuple[str, ...]
    step: npt.NDArray[np.float64]
    loss: npt.NDArray[np.float64]
    extra: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the readings and make the arrays read-only."""
        m = len(self.run_id)
        if not isinstance(self.run_id, tuple) or not all(isinstance(name, str) for name in self.run_id[:1]):
            object.__setattr__(self, "run_id", given_texts("run_id", list(self.run_id), m))
        for name in ("step", "loss"):
            try:
                array = np.array(getattr(self, name), dtype=np.float64)
            except (TypeError, ValueError):
                got = getattr(self, name)
                raise TableError(f"column {name!r} must be {m} numbers, got {got!r:.80}; NaN is missing") from None
            if array.shape != (m,):
                raise TableError(f"column {name!r} must have shape ({m},), one entry a reading, got {array.shape}")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        for name, values in self.extra.items():
            if len(values) != m:
                raise TableError(f"column {name!r} must have {m} entries, one a reading, got {len(values)}")
        _check(self.run_id, self.step, self.loss, False, lambda row: f"reading {row + 1}")

    def __len__(self) -> int:
        """Return the number of readings."""
        return len(self.run_id)

    @classmethod
    def from_frame(cls, frame: Any, need_loss: bool = True) -> CurveTable:
        """Make a table from a data frame or a mapping of columns, with the columns and checks of `read_curves`.

        Parameters
        ----------
        frame
            A pandas DataFrame, or anything with `columns` and a column by its name, or a mapping of column name to
            cells; m >= 1 rows. None, NaN and pandas' NA are missing.
        need_loss
            As for `read_curves`.

        Raises
        ------
        TableError
            As for `read_curves`, with the row, counted from 1.

        Examples
        --------
        >>> CurveTable.from_frame({"run_id": [1, 1], "step": [100, 200], "loss": [4.1, 3.8]})
        <CurveTable of 2 readings of 1 run; columns run_id, step, loss>
        """
        from optlaws.runs._frames import raw_from_frame

        return _last_ones(_checked(raw_from_frame(frame, "run_id, step and loss"), need_loss))

    def to_frame(self) -> Any:
        """Return the readings as a pandas DataFrame with the columns that `write_curves` writes; "" is None.

        Raises
        ------
        InputError
            If pandas is not installed.
        """
        from optlaws.runs._frames import data_frame

        return data_frame({"run_id": self.run_id, "step": self.step, "loss": self.loss, **self.extra})

    def __repr__(self) -> str:
        """Return a short description: the number of readings and runs, and the columns."""
        counts = ((len(self), "reading"), (len(set(self.run_id)), "run"))
        readings, runs = (f"{count:,} {word}{'s' if count != 1 else ''}" for count, word in counts)
        return f"<CurveTable of {readings} of {runs}; columns {', '.join(('run_id', 'step', 'loss', *self.extra))}>"

    def runs(self) -> dict[str, npt.NDArray[np.intp]]:
        """Return, for every run in order of appearance, the indices (k,) of its k readings in order of their steps."""
        names, order, ends = self._sorted()
        return dict(zip(names, np.split(order, ends)[:-1], strict=True))

    def _sorted(self) -> tuple[list[str], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the runs in order of appearance, rows (m,) by run and step (equal ones in order), and ends of runs."""
        code: dict[str, int] = {}
        run = np.fromiter((code.setdefault(name, len(code)) for name in self.run_id), np.intp, len(self))
        return list(code), np.lexsort((self.step, run)), np.cumsum(np.bincount(run, minlength=len(code)))

    def select(self, rows: npt.ArrayLike | slice) -> CurveTable:
        """Return the readings picked by a boolean mask (m,), by indices, or by a slice, in that order.

        Raises
        ------
        IndexError
            An index lies outside the table, or a mask has another length.
        """
        picked = picked_rows(len(self), rows)
        return CurveTable(
            tuple(map(self.run_id.__getitem__, picked)),
            self.step[picked],
            self.loss[picked],
            {name: tuple(map(values.__getitem__, picked)) for name, values in self.extra.items()},
        )

    @classmethod
    def concat(cls, tables: Sequence[CurveTable]) -> CurveTable:
        """Join tables one below the other; extra columns that one of them lacks are empty there.

        Raises
        ------
        TableError
            If there is no table, or two of them hold readings of the same run.
        """
        if not tables:
            raise TableError("at least one curve table is needed, got none")
        if len(tables) == 1:
            return tables[0]
        seen: dict[str, int] = {}
        for position, table in enumerate(tables):
            for name in table.run_id:
                if seen.setdefault(name, position) != position:
                    raise TableError(f"run_id {name!r} occurs in two of the curve tables given; drop one of them")
        extra = {
            name: tuple(cell for t in tables for cell in t.extra.get(name, ("",) * len(t)))
            for name in dict.fromkeys(name for t in tables for name in t.extra)
        }
        return cls(
            tuple(name for t in tables for name in t.run_id),
            np.concatenate([t.step for t in tables]),
            np.concatenate([t.loss for t in tables]),
            extra,
        )


def read_curves(path: str | os.PathLike[str], need_loss: bool = True) -> CurveTable:
    """Read a curve table from CSV, JSON lines or Parquet (by suffix), or from standard input ("-").

    The columns are `run_id`, `step` and `loss`; others are kept as text. Without `loss` it is `val_loss` that is read,
    and a column `loss_kind` says so, unless the table has one. Where a run has more than one reading of a step, the
    last one counts: a run that was resumed logs those steps again.

    Parameters
    ----------
    path
        The file, or "-".
    need_loss
        Whether every reading must have a loss; if not, the column may be missing or empty.

    Returns
    -------
    CurveTable
        The m >= 1 readings, in the file's order.

    Raises
    ------
    TableError
        With file and line, for a missing column, text in numbers, a step that is negative or not whole, a loss that is
        empty (with `need_loss`), not finite or not above 0.
    """
    return _last_ones(_checked(read_raw(path), need_loss))


def _last_ones(table: CurveTable) -> CurveTable:
    """Return the readings without those of a step that was read again later."""
    _, order, ends = table._sorted()
    last = np.append(np.diff(table.step[order]) != 0, True)  # of the readings of a step
    last[ends - 1] = True
    return table if last.all() else table.select(np.sort(order[last]))


def _checked(raw: RawTable, need_loss: bool) -> CurveTable:
    """Return the cells of a table as readings, or raise what `read_curves` does."""
    raw.require(["run_id", "step"])
    loss_name = next((name for name in LOSS_NAMES if name in raw.columns), None)
    if loss_name is None and need_loss:
        raw.require(["loss"])
    names = raw.texts("run_id")
    step = raw.numbers("step", way="correct it")
    way = "drop the row or correct it" if need_loss else LEAVE_EMPTY
    loss = raw.numbers(loss_name, way=way) if loss_name else np.full(len(names), np.nan)
    _check(names, step, loss, need_loss, raw.where, loss_name or "loss", raw)
    extra = {name: tuple(raw.texts(name)) for name in raw.columns if name not in ("run_id", "step", loss_name)}
    if loss_name == "val_loss":
        extra.setdefault(KIND_COLUMN, (KINDS["eval"],) * len(names))
    return CurveTable(tuple(names), step, loss, extra)


def _check(
    names: Sequence[str], step: FloatArray, loss: FloatArray, need_loss: bool, where: Callable[[int], str],
    loss_name: str = "loss", raw: RawTable | None = None,
) -> None:  # fmt: skip
    """Raise a `TableError` for the first reading that is none; `where` names a row, `raw` holds the cells as written.

    Readings are ids, and steps and losses (m,).
    """

    def got(name: str, values: FloatArray, row: int) -> str:
        return f"{values[row]:.12g}" if raw is None else repr(raw.columns[name][row])

    if "" in names:
        raise TableError(f"{where(names.index(''))}: run_id is empty; name the run that the reading belongs to")
    wrong = ~((step >= 0) & (step == np.floor(step)) & np.isfinite(step))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise TableError(
            f"{where(row)}: step must be a whole number of at least 0, got {got('step', step, row)}; correct it"
        )
    wrong = ~((loss > 0) & np.isfinite(loss)) & (need_loss | ~np.isnan(loss))
    if wrong.any():
        row = int(np.argmax(wrong))
        message = f"{where(row)}: {loss_name} must be a finite number of nats per token above 0"
        raise TableError(f"{message}, got {got(loss_name, loss, row)}; drop the row or correct it")


def write_curves(
    path: str | os.PathLike[str], table: CurveTable, extra_columns: Mapping[str, Sequence[Any]] | None = None
) -> None:
    """Write a curve table as CSV, JSON lines or Parquet, by suffix; "-" writes CSV to standard output.

    Parameters
    ----------
    path
        The file, or "-".
    table
        The m readings.
    extra_columns
        More columns, m entries each; they replace extra columns of the same name.

    Raises
    ------
    TableError
        If the suffix is not known or a column has another length.
    InputError
        If the file cannot be written there.
    """
    columns: dict[str, Any] = {"run_id": table.run_id, "step": table.step, "loss": table.loss}
    write_columns(path, {**columns, **table.extra, **(extra_columns or {})}, len(table))
