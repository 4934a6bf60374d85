"""The run table: one training run a row, struct of arrays."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.errors import InputError, TableError, nearest
from optlaws.runs._checks import (
    STATUSES,
    FloatArray,
    Text,
    check_names,
    check_numbers,
    check_units,
    fill_counts,
    status_hint,
)
from optlaws.runs._given import given_numbers, given_schedules, given_texts, objects
from optlaws.schedules import Schedule, ScheduleBatch

Scalars = float | str | Sequence[float | str | None] | npt.NDArray[Any] | None
Texts = Any  # a text, a number, or n of them in a list, an array or a column of a data frame; None and NaN are missing
Schedules = Sequence[Schedule | str | Sequence[float] | FloatArray] | ScheduleBatch | Schedule | str | FloatArray

RUN_COLUMNS = (
    "run_id",
    "source",
    "params",
    "active_params",
    "tokens",
    "steps",
    "batch_tokens",
    "seq_len",
    "optimizer",
    "beta1",
    "beta2",
    "weight_decay",
    "schedule",
    "status",
    "final_loss",
)
"""The known columns, in the order in which they are written."""

NUMBER_COLUMNS = (
    "params",
    "active_params",
    "tokens",
    "steps",
    "batch_tokens",
    "seq_len",
    "beta1",
    "beta2",
    "weight_decay",
    "final_loss",
)
"""The columns that hold numbers; NaN = missing."""


@dataclass(frozen=True, eq=False)
class RunTable:
    """Training runs, done or planned; every array has one entry a run, shape (n,).

    Attributes
    ----------
    run_id, source
        Unique key; where the run came from ("" = not said).
    params, active_params
        Non-embedding parameters, in total and per token (they differ for mixture-of-experts).
    tokens, steps, batch_tokens, seq_len
        Training tokens D, optimizer steps T, tokens a step B, context length. `steps` always equals the schedule's
        length; of `tokens` and `batch_tokens` a missing one follows from tokens = steps * batch_tokens.
    beta1, beta2, weight_decay, optimizer
        Optimizer and its settings.
    schedules
        The learning-rate schedules: a tuple, or a `ScheduleBatch` where no Python object a schedule is wanted.
    status
        One of `STATUSES`, or None where not said.
    final_loss
        Nats per token at the end.
    extra
        Columns that this package does not know, as text, kept as they were.
    columns
        The columns of the file that the table came from, in its order; `write_runs` writes these.
    as_read
        The schedules and the texts that they were read from, which are written again; None where there are none. Other
        schedules in place of these drop it.
    numbered
        The run ids, where they are the numbers that `build` gives by itself; else None. Other ids in place of these
        drop it.

    Notes
    -----
    NaN = missing in every number. The arrays are read-only. Use `RunTable.build` to make one by hand: it checks every
    value, the class itself only raises a `TableError` where columns differ in length.
    """

    run_id: tuple[str, ...]
    source: tuple[str, ...]
    params: FloatArray
    active_params: FloatArray
    tokens: FloatArray
    steps: FloatArray
    batch_tokens: FloatArray
    seq_len: FloatArray
    beta1: FloatArray
    beta2: FloatArray
    weight_decay: FloatArray
    optimizer: tuple[Text, ...]
    schedules: tuple[Schedule, ...] | ScheduleBatch
    status: tuple[Text, ...]
    final_loss: FloatArray
    extra: dict[str, tuple[str, ...]] = field(default_factory=dict)
    columns: tuple[str, ...] = RUN_COLUMNS
    as_read: tuple[tuple[Schedule, ...], tuple[str, ...]] | None = None
    numbered: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check that all columns have one entry a run and make the arrays read-only."""
        n = len(self.run_id)
        for name in NUMBER_COLUMNS:
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != (n,):
                raise TableError(f"column {name!r} must have shape ({n},), one entry a run, got {array.shape}")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.as_read is not None and self.as_read[0] is not self.schedules:
            object.__setattr__(self, "as_read", None)
        if self.numbered is not self.run_id:
            object.__setattr__(self, "numbered", None)
        texts = {"source": self.source, "optimizer": self.optimizer, "schedule": self.schedules, "status": self.status}
        for name, values in (texts | self.extra).items():
            if len(values) != n:
                raise TableError(f"column {name!r} must have {n} entries, one a run, got {len(values)}")

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.run_id)

    def __repr__(self) -> str:
        """Return a short description: the number of runs, and the columns that hold something."""
        return f"<RunTable of {len(self):,} run{'s' if len(self) != 1 else ''}; columns {', '.join(self._filled())}>"

    def _filled(self) -> list[str]:
        """Return the names of the columns that hold something, in the order in which they are written."""
        numbers = [name for name in NUMBER_COLUMNS if not np.isnan(getattr(self, name)).all()]
        texts = [name for name in ("source", "optimizer", "status") if any(getattr(self, name))]
        known = ("run_id", "schedule", *numbers, *texts)
        return [*(name for name in RUN_COLUMNS if name in known), *self.extra]

    @classmethod
    def build(
        cls,
        schedules: Schedules,
        *,
        run_id: Texts = None,
        source: Texts = "",
        params: Scalars = None,
        active_params: Scalars = None,
        tokens: Scalars = None,
        batch_tokens: Scalars = None,
        seq_len: Scalars = None,
        optimizer: Texts = None,
        beta1: Scalars = None,
        beta2: Scalars = None,
        weight_decay: Scalars = None,
        status: Texts = None,
        final_loss: Scalars = None,
        extra: Mapping[str, Texts] | None = None,
    ) -> RunTable:
        """Make a table from schedules and columns; a single value holds for every run, None and NaN are missing.

        Parameters
        ----------
        schedules
            The n schedules, or their short forms, or their rates, one a step, in a list or an array (T,): these are
            read as in a file of candidates, as the family with exactly these rates or else as an array. The column
            `steps` is taken from them; a short form without a length has tokens / batch_tokens steps, rounded.
        run_id
            Unique names; "1", "2", ... if left out.
        source, params, active_params, tokens, batch_tokens, seq_len, optimizer, beta1, beta2, weight_decay, status, \
final_loss, extra
            As in the class; a missing one of `tokens` and `batch_tokens` is filled from the other. Columns of texts,
            `extra` ones among them, may hold numbers, which become texts that read back as the same number; missing
            ones become "" (in `optimizer` and `status` None). Counts may be written like "85M".

        Raises
        ------
        TableError
            If a value is out of range, a length does not fit, or a run_id is empty or used twice.
        ScheduleError
            If a short form is no schedule.

        Examples
        --------
        >>> RunTable.build("cosine:peak=1e-3,steps=25000,warmup=300", params=8.5e7).steps.tolist()
        [25000.0]
        """
        from optlaws.runs._read import parse_all

        listed = given_schedules(schedules)
        n = len(listed)
        names = tuple(map(str, range(1, n + 1))) if run_id is None else _names(run_id, n)
        given = {
            "params": params,
            "active_params": active_params,
            "tokens": tokens,
            "batch_tokens": batch_tokens,
            "seq_len": seq_len,
            "beta1": beta1,
            "beta2": beta2,
            "weight_decay": weight_decay,
            "final_loss": final_loss,
        }
        numbers = {name: given_numbers(name, value, n) for name, value in given.items()}
        held = parse_all(listed, numbers["tokens"], numbers["batch_tokens"])
        numbers["steps"] = total_steps(held)
        return assemble(
            names,
            held,
            numbers,
            source=given_texts("source", source, n),
            optimizer=tuple(value or None for value in given_texts("optimizer", optimizer, n)),
            status=tuple(value or None for value in given_texts("status", status, n)),
            extra={name: given_texts(name, values, n) for name, values in (extra or {}).items()},
            columns=RUN_COLUMNS + tuple(extra or {}),
            where=lambda i: f"run {names[i]!r}",
            numbered=run_id is None,
        )

    @classmethod
    def from_frame(cls, frame: Any, need_loss: bool = False) -> RunTable:
        """Make a table from a data frame or a mapping of columns, with the columns and checks of `read_runs`.

        Parameters
        ----------
        frame
            A pandas DataFrame, or anything with `columns` and a column by its name, or a mapping of column name to
            cells; n >= 1 rows. None, NaN and pandas' NA are missing. A schedule may also be a `Schedule`, or its
            rates as for `build`.
        need_loss
            As for `read_runs`.

        Raises
        ------
        TableError
            As for `read_runs`, with the row, counted from 1.

        Examples
        --------
        >>> RunTable.from_frame({"run_id": ["a"], "schedule": ["cosine:peak=1e-3,steps=100"], "params": ["85M"]})
        <RunTable of 1 run; columns run_id, params, steps, schedule>
        """
        from optlaws.runs._frames import raw_from_frame
        from optlaws.runs._read import checked_runs

        return checked_runs(raw_from_frame(frame), need_loss)

    def to_frame(self) -> Any:
        """Return the columns that `write_runs` writes as a pandas DataFrame; missing texts are None.

        Raises
        ------
        InputError
            If pandas is not installed.
        """
        from optlaws.runs._frames import frame_of

        return frame_of(self)

    @classmethod
    def concat(cls, tables: Sequence[RunTable]) -> RunTable:
        """Join tables one below the other; a column that one of them lacks is empty there.

        Raises
        ------
        TableError
            If there is no table, two of them share a run_id, or one of several holds a `ScheduleBatch`.
        """
        if not tables:
            raise TableError("at least one run table is needed, got none")
        if len(tables) == 1:
            return tables[0]
        seen: dict[str, int] = {}
        for position, table in enumerate(tables):
            for name in table.run_id:
                if seen.setdefault(name, position) != position:
                    raise TableError(
                        f"run_id {name!r} occurs in two of the run tables given; rename or drop one of them"
                    )
        columns = tuple(dict.fromkeys(name for table in tables for name in table.columns))
        extra = {
            name: tuple(cell for t in tables for cell in t.extra.get(name, ("",) * len(t)))
            for name in dict.fromkeys(name for table in tables for name in table.extra)
        }
        numbers = {name: np.concatenate([getattr(t, name) for t in tables]) for name in NUMBER_COLUMNS}
        schedules = tuple(x for t in tables for x in t.schedule_tuple())
        texts = tuple(x for t in tables for x in t.schedule_cells()) if any(t.as_read for t in tables) else None
        return cls(
            run_id=tuple(x for t in tables for x in t.run_id),
            source=tuple(x for t in tables for x in t.source),
            optimizer=tuple(x for t in tables for x in t.optimizer),
            schedules=schedules,
            status=tuple(x for t in tables for x in t.status),
            extra=extra,
            columns=columns,
            as_read=None if texts is None else (schedules, texts),
            numbered=None,
            **numbers,
        )

    @property
    def size(self) -> FloatArray:
        """Parameters per token: `active_params` where given, else `params`, shape (n,)."""
        return np.where(np.isfinite(self.active_params), self.active_params, self.params)

    def schedule_tuple(self) -> tuple[Schedule, ...]:
        """Return the schedules as objects.

        Raises
        ------
        TableError
            If the table holds a `ScheduleBatch`, whose schedules have no objects.
        """
        if isinstance(self.schedules, ScheduleBatch):
            raise TableError("this table holds a ScheduleBatch, which has no Schedule objects; build it from schedules")
        return self.schedules

    def batch(self) -> ScheduleBatch:
        """Return the schedules as one `ScheduleBatch` of n schedules."""
        if isinstance(self.schedules, ScheduleBatch):
            return self.schedules
        return ScheduleBatch.from_schedules(self.schedules)

    def select(self, rows: npt.ArrayLike | slice) -> RunTable:
        """Return the runs picked by a boolean mask (n,), by indices, or by a slice, in that order.

        Raises
        ------
        IndexError
            An index lies outside the table, or a mask has another length.
        """
        picked = picked_rows(len(self), rows)
        schedules: tuple[Schedule, ...] | ScheduleBatch
        as_read = None
        if isinstance(self.schedules, ScheduleBatch):
            schedules = self.schedules[np.asarray(picked, dtype=np.intp)]
        else:
            schedules = tuple(self.schedules[i] for i in picked)
            if self.as_read is not None:
                as_read = (schedules, tuple(self.as_read[1][i] for i in picked))
        ids = tuple(self.run_id[i] for i in picked)
        return RunTable(
            run_id=ids,
            source=tuple(self.source[i] for i in picked),
            optimizer=tuple(self.optimizer[i] for i in picked),
            schedules=schedules,
            status=tuple(self.status[i] for i in picked),
            extra={name: tuple(values[i] for i in picked) for name, values in self.extra.items()},
            columns=self.columns,
            as_read=as_read,
            numbered=None if self.numbered is None else ids,
            **{name: getattr(self, name)[picked] for name in NUMBER_COLUMNS},
        )

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return any column, shape (n,): float64 for numbers (NaN = missing), else text ("" = missing).

        Raises
        ------
        TableError
            If there is no such column, or the schedules of a `ScheduleBatch` are asked for.
        """
        if name in NUMBER_COLUMNS:
            array: npt.NDArray[Any] = getattr(self, name)
            return array
        if name == "schedule":
            return objects([schedule.to_json() for schedule in self.schedule_tuple()])
        if name in ("run_id", "source", "optimizer", "status"):
            return objects([value or "" for value in getattr(self, name)])
        if name in self.extra:
            return objects(list(self.extra[name]))
        known = [*RUN_COLUMNS, *self.extra]
        raise TableError(f"no column {name!r} in this table (it has {', '.join(known)}){nearest(str(name), known)}")

    def schedule_cells(self) -> tuple[str, ...]:
        """Return the schedules as texts: those they were read from, else JSON; errors as for `schedule_tuple`."""
        if self.as_read is not None:
            return self.as_read[1]
        return tuple(schedule.to_json() for schedule in self.schedule_tuple())

    def digest(self) -> str:
        """Return the sha256 of the content, in any order (64 hexadecimal digits); errors as for `schedule_tuple`."""
        numbers = [getattr(self, name).tolist() for name in NUMBER_COLUMNS]
        extra = sorted(self.extra)
        rows = []
        for i, schedule in enumerate(self.schedule_tuple()):
            row = [self.run_id[i], self.source[i], self.optimizer[i], self.status[i], schedule.to_json()]
            row += [None if math.isnan(values[i]) else repr(values[i]) for values in numbers]
            row += [f"{name}={self.extra[name][i]}" for name in extra if self.extra[name][i]]
            rows.append(json.dumps(row))
        return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


def check_runs(value: Any, name: str = "runs") -> RunTable:
    """Return a run table as it is; tell what to do with anything else.

    Raises
    ------
    InputError
        If it is no `RunTable`.
    """
    if isinstance(value, RunTable):
        return value
    raise InputError(
        f"{name} must be a RunTable, got {type(value).__name__}; make one with RunTable.build (from schedules), "
        "RunTable.from_frame (from a data frame) or read_runs (from a file)"
    )


def assemble(
    names: tuple[str, ...],
    schedules: tuple[Schedule, ...] | ScheduleBatch,
    numbers: dict[str, FloatArray],
    *,
    source: tuple[str, ...],
    optimizer: tuple[Text, ...],
    status: tuple[Text, ...],
    extra: dict[str, tuple[str, ...]],
    columns: tuple[str, ...],
    where: Callable[[int], str],
    numbered: bool = False,
    cells: tuple[str, ...] | None = None,
) -> RunTable:
    """Check every value, fill what follows from the rest, and make the table.

    `numbers` are arrays (n,); `where` names a row in messages; `numbered`: the names are numbers just given, none
    twice; `cells` are the texts that the schedules were read from.

    Raises
    ------
    TableError
        A value is out of range, a name occurs twice, or steps, tokens and batch_tokens disagree.
    """
    if not numbered:
        check_names(names, where)
    wrong = set(status) - {None, *STATUSES}
    if wrong:
        row, value = next((row, value) for row, value in enumerate(status) if value in wrong)
        allowed = ", ".join(STATUSES)
        raise TableError(
            f"{where(row)}: status must be one of {allowed} or empty, got {value!r}{status_hint(str(value), STATUSES)}"
        )
    check_numbers(numbers, status, where)
    check_units(numbers, names, where)
    numbers = fill_counts(numbers, total_steps(schedules), where)
    return RunTable(
        run_id=names,
        source=source,
        optimizer=optimizer,
        schedules=schedules,
        status=status,
        extra=extra,
        columns=columns,
        as_read=(schedules, cells) if cells is not None and isinstance(schedules, tuple) else None,
        numbered=names if numbered else None,
        **numbers,
    )


def picked_rows(n: int, rows: npt.ArrayLike | slice) -> list[int]:
    """Return the indices that a mask (n,), indices or a slice pick out of n rows."""
    if isinstance(rows, slice):
        return list(range(n))[rows]
    array = np.asarray(rows)
    picked: list[int] = np.atleast_1d(np.arange(n)[array if array.size else array.astype(np.intp)]).tolist()
    return picked


def _names(given: Any, n: int) -> tuple[str, ...]:
    """Return the n run ids given; a table of one run may be given its name alone."""
    names = [given] if isinstance(given, str) else list(given)
    if len(names) != n:
        raise TableError(f"run_id must have {n} entries, one a schedule, got {len(names)}; name every run once")
    return given_texts("run_id", names, n)


def total_steps(schedules: tuple[Schedule, ...] | ScheduleBatch) -> FloatArray:
    """Return the lengths T of the schedules, shape (n,), in steps."""
    if isinstance(schedules, ScheduleBatch):
        return np.array(schedules.total_steps, dtype=np.float64)
    return np.array([schedule.total_steps for schedule in schedules], dtype=np.float64)
