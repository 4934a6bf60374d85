"""Read a log that a trainer is still writing: JSON lines or CSV, a line at a time."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, NamedTuple

from optlaws.errors import TableError, nearest
from optlaws.runs._log_files import STATE_FILE
from optlaws.runs._names import (
    OWN_STEP,
    as_number,
    check_updates,
    delimiter_of,
    find_columns,
    number_hint,
    rate_columns,
    refuse_data_steps,
    run_columns,
    step_columns,
    unlogged,
    updates_done,
)

STDIN = "-"
COMPARED = 1 << 12  # bytes by which a replaced log is told from one that was written on
_HISTORY = "log_history"  # of a trainer's state: its readings
_PACKED = (b"\x1f\x8b", b"PK\x03\x04")  # how compressed files begin


class Reading(NamedTuple):
    """One line of a log: updates done, nats per token (NaN and infinity as written), gradient norm or None."""

    step: float
    loss: float
    grad_norm: float | None


class LiveLog:
    """Readings of a log file, those written since the last look; a half-written last line waits for its end.

    Parameters
    ----------
    path : path
        JSON lines (or Hugging Face Trainer's `trainer_state.json`) if it ends in .jsonl, .ndjson or .json, else CSV
        with a header, whose cells commas, semicolons or tabs part. Steps, losses, gradient norms and learning rates
        have the names that `optlaws.runs.read_logs` knows; others are not looked at, lines without a loss are
        passed over, and a loss of NaN in a line of another kind is none. "-" is standard input: JSON lines if it begins
        with a brace. One log has one kind of loss: that of training where the header, or what there is of the log when
        a loss is first seen, has one.
    run_id : str, optional
        Only lines of this run, by their column `run_id` or one like `Name`; without it the log must be that of one run.
    step, loss : str, optional
        Columns to read, where their names are not usual ones.
    updates_per_step : float
        Updates that one logged step counts, above 0.
    unnamed : bool
        A log without such a column is that of the run `run_id`.

    Attributes
    ----------
    ended : whether standard input has come to its end; a file never does.

    Raises
    ------
    InputError
        `updates_per_step` is not a finite number above 0, or `step` counts tokens by its name.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        run_id: str | None = None,
        *,
        step: str | None = None,
        loss: str | None = None,
        updates_per_step: float = 1.0,
        unnamed: bool = False,
    ) -> None:
        """Open nothing yet: the file may appear later."""
        self._strict = not unnamed
        self.path, self.run_id, self.ended = os.fspath(path), run_id, False
        self._updates = check_updates(updates_per_step)
        if step is not None and updates_per_step == 1.0:
            refuse_data_steps(step)
        self._json: bool | None = self.path.lower().endswith((".jsonl", ".ndjson", ".json"))
        self._name = self.path
        if self.path == STDIN:
            self._json, self._name = None, "standard input"  # its first line tells
        self._offset, self._line = 0, 0
        self._node: tuple[int, int] | None = None  # which file it was, and the digest of what stood before the offset
        self._seen = hashlib.sha256().digest()
        self._cut = False  # the file has become shorter in place, as one that is copied and emptied
        self._header: list[str] | None = None
        self._delimiter = ","
        self._given = (step, loss)
        self._known: dict[str, None] = {}  # columns seen
        self._steps: list[str] = [] if step is None else [step]
        self._loss: str | None = loss  # the loss that is followed
        self._beside: dict[str, list[str]] = {}  # further columns by what they are
        self._runs: list[str] = []
        self._first: dict[str, tuple[str, int]] = {}  # by column: the run of the first reading, and how many it had
        self._counts: set[str] = set()  # columns that differ from row to row and name no run
        self._blank: set[str] = set()  # which of loss and eval had empty cells
        self._last: tuple[float, float] | None = None
        self._rest = b""

    @property
    def pending(self) -> bool:
        """Whether there is a last line without an end, which may be half written."""
        return bool(self._rest.strip())

    @property
    def own_step(self) -> bool:
        """Whether the steps are W&B's own count of log calls, which need not be updates."""
        return self._steps == [OWN_STEP]

    def new(self, whole: bool = False) -> Iterator[Reading]:
        """Yield the readings written since the last call; `whole`: the file is complete, its last line too.

        On standard input a call waits for what comes next, with `whole` for its end. A file that is replaced or emptied
        goes on with what it then holds.

        Raises
        ------
        TableError
            With file and line: no JSON object, a column that is missing, a step or loss that is no number, another run;
            or the file was cut off in place.
        OSError
            The file cannot be read.
        """
        fresh = self._piped(whole) if self.path == STDIN else self._written()
        data = self._rest + fresh
        if self._line == 0 and data.startswith(_PACKED):
            raise TableError(f"{self._name}: a log must be text, got a compressed file; unpack it first")
        rows = self._state(data)
        if rows is None:
            *lines, self._rest = data.split(b"\n")
            if (whole or self.ended) and self._rest:
                lines, self._rest = [*lines, self._rest], b""
            rows = self._rows(lines)
        else:
            self._rest = b"" if rows else data
        if self._json is not False:
            rows = list(rows)
        if self._json:  # what there is says together which columns there are
            self._learn(key for _, row in rows for key, cell in row.items() if not _empty(cell))
        for where, row in rows:
            reading = self._reading(where, row)
            if reading is not None:
                self._last = reading.step, reading.loss
                yield reading

    def _written(self) -> bytes:
        """Return what was written to the file since the last look.

        A trainer may replace its log by a longer one, or, where a run was resumed, by one that differs: all of that
        is new then.
        """
        with open(self.path, "rb") as stream:
            found = os.fstat(stream.fileno())
            node, self._node = self._node, (found.st_dev, found.st_ino)
            shorter = found.st_size < self._offset
            if shorter or self._digest(stream) != self._seen:
                self._offset, self._line, self._rest, self._cut = 0, 0, b"", shorter and node == self._node
            stream.seek(self._offset)
            data = stream.read()
            self._offset = stream.tell()
            self._seen = self._digest(stream)
        return data

    def _digest(self, stream: IO[bytes]) -> bytes:
        """Return a digest of the last bytes read before, which no other state of a log has at this place."""
        begin = max(0, self._offset - COMPARED)
        stream.seek(begin)
        return hashlib.sha256(stream.read(self._offset - begin)).digest()

    def _piped(self, whole: bool) -> bytes:
        """Return what comes next on standard input, or all of it."""
        if sys.stdin is None:
            raise TableError("standard input is closed; name a file instead of '-'")
        stream = sys.stdin.buffer
        data = stream.read() if whole else stream.readline()
        self.ended = whole or not data
        return data

    def _state(self, data: bytes) -> Iterable[tuple[str, dict[str, Any]]] | None:
        """Return the entries of a trainer's state, none while half of it is written; None where the log is no state."""
        named = os.path.basename(self.path) == STATE_FILE
        if self._line or not self._json or not (named or f'"{_HISTORY}"'.encode() in data):
            return None
        try:
            history = json.loads(data)[_HISTORY]
        except (ValueError, RecursionError, TypeError, KeyError):
            return [] if named else None
        if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
            raise TableError(
                f"{self._name}: {_HISTORY} must be a list of JSON objects, got another thing; is it cut off?"
            )
        return [(f"{self._name}, {_HISTORY} entry {i}", entry) for i, entry in enumerate(history, start=1)]

    def _rows(self, lines: list[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield where a line stands and what it holds by column; the header is kept."""
        for line in lines:
            self._line += 1
            text = line.decode("utf-8-sig" if self._line == 1 else "utf-8", errors="replace").strip("\r\n\0 ")
            if not text:
                continue
            where = f"{self._name}, line {self._line}"
            if self._json is None:
                self._json = text.startswith("{")
            row = self._object(where, text) if self._json else self._cells(where, text)
            if row is not None:
                yield where, row

    def _object(self, where: str, text: str) -> dict[str, Any]:
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise TableError(
                f"{where}: a line must be one JSON object, got {text[:60]!r}; write it so, or name a CSV file .csv"
            )
        return row

    def _cells(self, where: str, text: str) -> dict[str, Any] | None:
        if self._header is None:
            self._delimiter = delimiter_of(text)
        try:
            cells = next(csv.reader([text], delimiter=self._delimiter))
        except csv.Error as error:
            raise TableError(f"{where}: a line must be CSV, got one that is not ({error}); correct it") from None
        if self._header is None or (self._line == 1 and not self._goes_on(cells)):
            self._take_header(where, [cell.strip() for cell in cells])
            return None
        return dict(zip(self._header, cells, strict=False))

    def _goes_on(self, cells: list[str]) -> bool:
        """Return whether the first line of a file that took the log's place is a row of it, and no header."""
        row = dict(zip(self._header or (), cells, strict=False))
        try:
            return len(cells) == len(self._header or ()) and any(
                as_number(row.get(name)) is not None for name in self._steps
            )
        except ValueError:
            return False

    def _take_header(self, where: str, header: list[str]) -> None:
        before, self._header = self._header, header
        if before is not None and header != before:
            if self._cut:
                raise TableError(f"{self._name}: the log has become shorter; start the monitor again")
            self._known = {}
        self._learn(header)
        lost = [name for name in self._given if name is not None and name not in header]
        if lost:
            raise TableError(
                f"{where}: a log must have the columns that are named, got {', '.join(header)} without {lost[0]!r}"
                f"{nearest(lost[0], header)}; correct it"
            )
        absent = [role for role, name in (("step", self._steps), ("loss", self._loss)) if not name]
        if absent or self._loss not in header or not set(self._steps) & set(header):
            hint = nearest("loss", header) if "loss" in absent else ""
            columns = " and of the ".join(absent) or "loss"
            options = ", ".join(f"--{role}-column" for role in absent or ["loss"])
            raise TableError(
                f"{where}: a log must have columns step and loss, got {', '.join(header)}{hint}; name the column of the"
                f" {columns} ({options})"
            )

    def _learn(self, names: Iterable[str]) -> None:
        """Take in which columns there are."""
        fresh = [name for name in dict.fromkeys(names) if name not in self._known]
        if not fresh:
            return
        self._known.update(dict.fromkeys(fresh))
        step, loss = self._given
        found = find_columns(self._known)
        self._steps = step_columns(self._known) if step is None else [step]
        if loss is None and self._loss not in self._known:
            self._loss = found.get("loss", found.get("eval"))
        if self._loss is not None and self._loss == found.get("eval"):
            found.pop("eval")
        beside = {"eval": [found[role] for role in ("eval",) if role in found and loss is None]}
        self._beside = {
            **beside,
            "rate": rate_columns(self._known),
            "grad": [found[role] for role in ("grad",) if role in found],
        }
        self._runs = [name for name in run_columns(self._known) if name not in (self._loss, *self._steps)]

    def _reading(self, where: str, row: Mapping[str, Any]) -> Reading | None:
        if (self._runs or self._strict) and self.run_id not in [None, *self._names(row)]:
            return None
        cells = {"loss": row.get(self._loss) if self._loss is not None else None}
        for role, names in self._beside.items():
            cells[role] = next((row[name] for name in names if not _empty(row.get(name))), None)
        self._blank |= {role for role in ("loss", "eval") if _empty(cells.get(role))}
        if _empty(cells["loss"]):
            return None
        if self.run_id is None:
            self._one_run(where, row)
        logged = next((row[name] for name in self._steps if not _empty(row.get(name))), None)
        if logged is None:
            raise TableError(
                f"{where}: a line with a loss must have a step, got none; write it, or name its column (--step-column)"
            )
        step = updates_done(_number(where, "step", logged), self._updates)
        loss = _number(where, "loss", cells["loss"])
        if math.isnan(loss) and self._is_padding(step, cells):
            return None
        grad = cells.get("grad")
        return Reading(step, loss, None if _empty(grad) else _number(where, "grad_norm", grad))

    def _names(self, row: Mapping[str, Any]) -> list[str]:
        return [str(row.get(name, "")).strip() for name in self._runs]

    def _is_padding(self, step: float, cells: Mapping[str, Any]) -> bool:
        """Return whether a loss of NaN says that none was logged in its line."""
        numbers = {"loss": math.nan}
        for role in ("eval", "rate"):
            try:
                number = as_number(cells.get(role))
            except ValueError:
                continue
            if number is not None:
                numbers[role] = number
        if unlogged("loss", numbers, self._blank):
            return True
        return "loss" not in self._blank and self._last is not None and self._last[0] == step

    def _one_run(self, where: str, row: Mapping[str, Any]) -> None:
        """Refuse a reading of another run than the first one's."""
        for name in self._runs:
            if _empty(row.get(name)) or name in self._counts:
                continue
            run = str(row[name]).strip()
            first, count = self._first.get(name, (run, 0))
            if run == first:
                self._first[name] = first, count + 1
            elif name != "run_id" and count < 2:
                self._counts.add(name)
            else:
                raise TableError(
                    f"{where}: a log must be that of one run, got {first!r} and {run!r}; name one of them (--run-id)"
                )


def _empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _number(where: str, name: str, value: Any) -> float:
    try:
        number = as_number(value)
    except ValueError:
        number = None
    if number is None or (name == "step" and not math.isfinite(number)):
        shown = str(value)[:60]
        raise TableError(f"{where}: {name} must be a number, got {shown!r}; {number_hint(value)}")
    return number


__all__ = ["STDIN", "LiveLog", "Reading"]
