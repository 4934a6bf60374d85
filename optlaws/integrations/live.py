"""Read a log that a trainer is still writing: JSON lines or CSV, a line at a time."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from optlaws.errors import TableError, nearest

STEP_NAMES = ("step", "global_step", "_step", "trainer/global_step")
LOSS_NAMES = ("loss", "val_loss", "train_loss", "eval_loss", "train/loss", "val/loss", "eval/loss")
GRAD_NAMES = ("grad_norm", "gradient_norm", "train/grad_norm")
STDIN = "-"
COMPARED = 1 << 12  # bytes by which a replaced log is told from one that was written on


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
        JSON lines if it ends in .jsonl, .ndjson or .json, else CSV with a header. Columns: step, loss (or another of
        `LOSS_NAMES`) and, if wanted, grad_norm; others are not looked at, lines without a loss are passed over.
        "-" is standard input: JSON lines if it begins with a brace. One log has one kind of loss: the first of these
        names that the header, or the first line with a loss, has.
    run_id : str, optional
        Only lines whose `run_id` is this one; without it the log must be that of one run.

    Attributes
    ----------
    ended : whether standard input has come to its end; a file never does.
    """

    def __init__(self, path: str | os.PathLike[str], run_id: str | None = None) -> None:
        """Open nothing yet: the file may appear later."""
        self.path, self.run_id, self.ended = os.fspath(path), run_id, False
        self._json: bool | None = self.path.lower().endswith((".jsonl", ".ndjson", ".json"))
        self._name = self.path
        if self.path == STDIN:
            self._json, self._name = None, "standard input"  # its first line tells
        self._offset, self._line = 0, 0
        self._node: tuple[int, int] | None = None  # which file it was, and the digest of what stood before the offset
        self._seen = hashlib.sha256().digest()
        self._header: list[str] | None = None
        self._loss: str | None = None  # the loss that is followed
        self._first: str | None = None  # run_id of the first reading, where none was asked for
        self._rest = b""

    @property
    def pending(self) -> bool:
        """Whether there is a last line without an end, which may be half written."""
        return bool(self._rest.strip())

    def new(self, whole: bool = False) -> Iterator[Reading]:
        """Yield the readings written since the last call; `whole`: the file is complete, its last line too.

        On standard input a call waits for what comes next, with `whole` for its end.

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
        *lines, self._rest = data.split(b"\n")
        if (whole or self.ended) and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._line += 1
            text = line.decode("utf-8-sig" if self._line == 1 else "utf-8", errors="replace").strip()
            reading = self._reading(text) if text else None
            if reading is not None:
                yield reading

    def _written(self) -> bytes:
        """Return what was written to the file since the last look.

        A trainer may replace its log by a longer one, or, where a run was resumed, by one that differs: all of that
        is new then.
        """
        with open(self.path, "rb") as stream:
            found = os.fstat(stream.fileno())
            node, self._node = self._node, (found.st_dev, found.st_ino)
            if found.st_size < self._offset and node == self._node:
                raise TableError(f"{self.path}: the log has become shorter; start the monitor again")
            if self._digest(stream) != self._seen:
                self._offset, self._line, self._rest, self._header = 0, 0, b"", None
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

    def _reading(self, text: str) -> Reading | None:
        where = f"{self._name}, line {self._line}"
        if self._json is None:
            self._json = text.startswith("{")
        if self._json:
            try:
                row = json.loads(text)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise TableError(
                    f"{where}: a line must be one JSON object, got {text[:60]!r}; write it so, or name a CSV file .csv"
                )
        else:
            try:
                cells = next(csv.reader([text]))
            except csv.Error as error:
                raise TableError(f"{where}: a line must be CSV, got one that is not ({error}); correct it") from None
            if self._header is None:
                self._header = [cell.strip() for cell in cells]
                if not set(STEP_NAMES) & set(self._header) or not set(LOSS_NAMES) & set(self._header):
                    raise TableError(
                        f"{where}: a log must have columns step and loss, got {', '.join(self._header)}"
                        f"{nearest('loss', self._header)}; name them so, or convert the log with `optlaws import`"
                    )
                return None
            row = dict(zip(self._header, cells, strict=False))
        if self.run_id is not None and str(row.get("run_id", "")) != self.run_id:
            return None
        if self._loss is None:
            names = [name for name in LOSS_NAMES if (name in row if self._header else row.get(name) not in (None, ""))]
            self._loss = names[0] if names else None
        loss = None if self._loss is None else _first(row, (self._loss,))
        if loss is None:
            return None
        if self.run_id is None and row.get("run_id") not in (None, ""):
            self._first = str(row["run_id"]) if self._first is None else self._first
            if str(row["run_id"]) != self._first:
                raise TableError(
                    f"{where}: a log must be that of one run, got {self._first!r} and {str(row['run_id'])!r};"
                    " name one of them (--run-id)"
                )
        step = _first(row, STEP_NAMES)
        if step is None:
            raise TableError(f"{where}: a line with a loss must have a step, got none; write it")
        grad = _first(row, GRAD_NAMES)
        return Reading(
            _number(where, "step", step), _number(where, "loss", loss),
            None if grad is None else _number(where, "grad_norm", grad),
        )  # fmt: skip


def _first(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    """Return the first value that is there."""
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _number(where: str, name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TableError(f"{where}: {name} must be a number, got {str(value)[:60]!r}; correct it") from None
    if isinstance(value, bool) or (name == "step" and not math.isfinite(number)):
        raise TableError(f"{where}: {name} must be a number, got {value!r}; correct it")
    return number


__all__ = ["STDIN", "LiveLog", "Reading"]
