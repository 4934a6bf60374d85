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

from optlaws.errors import TableError, nearest
from optlaws.schedules import Schedule, ScheduleBatch, parse

FloatArray = npt.NDArray[np.float64]
Text = str | None
Scalars = float | Sequence[float | None] | npt.NDArray[Any] | None
Texts = str | None | Sequence[str | None]

STATUSES = ("completed", "diverged", "nonfinite", "interrupted")
"""How a run ended; None where nobody said."""

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

COUNTS = ("params", "active_params", "tokens", "steps", "batch_tokens", "seq_len")
TOLERANCE = 0.05  # tokens against steps * batch_tokens: published numbers are rounded, the public tables by up to 0.2 %


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

    Notes
    -----
    NaN = missing in every number. The arrays are read-only. Use `RunTable.build` to make one by hand.
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

    def __post_init__(self) -> None:
        """Check that all columns have one entry a run and make the arrays read-only."""
        n = len(self.run_id)
        for name in NUMBER_COLUMNS:
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != (n,):
                raise TableError(f"column {name!r} must have shape ({n},), one entry a run, got {array.shape}")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        texts = {"source": self.source, "optimizer": self.optimizer, "schedule": self.schedules, "status": self.status}
        for name, values in (texts | self.extra).items():
            if len(values) != n:
                raise TableError(f"column {name!r} must have {n} entries, one a run, got {len(values)}")

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.run_id)

    def __repr__(self) -> str:
        """Return a short description, not the columns."""
        names = ", ".join(self.run_id[:3]) + (", ..." if len(self) > 3 else "")
        return f"<RunTable of {len(self)} run{'s' if len(self) != 1 else ''}: {names}>"

    @classmethod
    def build(
        cls,
        schedules: Sequence[Schedule | str] | ScheduleBatch | Schedule | str,
        *,
        run_id: Sequence[str] | None = None,
        source: str | Sequence[str] = "",
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
        extra: Mapping[str, Sequence[str]] | None = None,
    ) -> RunTable:
        """Make a table from schedules and columns; a single value holds for every run, None and NaN are missing.

        Parameters
        ----------
        schedules
            The n schedules, or their short forms. The column `steps` is taken from them.
        run_id
            Unique names; "1", "2", ... if left out.
        source, params, active_params, tokens, batch_tokens, seq_len, optimizer, beta1, beta2, weight_decay, status, \
final_loss, extra
            As in the class; a missing one of `tokens` and `batch_tokens` is filled from the other.

        Raises
        ------
        TableError
            If a value is out of range, a length does not fit, or a run_id is used twice.
        ScheduleError
            If a short form is no schedule.

        Examples
        --------
        >>> RunTable.build("cosine:peak=1e-3,steps=25000,warmup=300", params=8.5e7).steps.tolist()
        [25000.0]
        """
        if isinstance(schedules, (Schedule, str)):
            schedules = (schedules,)
        held = schedules if isinstance(schedules, ScheduleBatch) else tuple(map(parse, schedules))
        n = len(held)
        given_names = (run_id,) if isinstance(run_id, str) else run_id
        names = tuple(map(str, range(1, n + 1) if given_names is None else given_names))
        if len(names) != n:
            raise TableError(f"run_id must have {n} entries, one a schedule, got {len(names)}; name every run once")
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
        numbers = {name: _spread(name, value, n) for name, value in given.items()}
        numbers["steps"] = total_steps(held)
        return assemble(
            names,
            held,
            numbers,
            source=(source,) * n if isinstance(source, str) else tuple(value or "" for value in source),
            optimizer=_repeat(optimizer, n),
            status=_repeat(status, n),
            extra={name: tuple(values) for name, values in (extra or {}).items()},
            columns=RUN_COLUMNS + tuple(extra or {}),
            where=lambda i: f"run {names[i]!r}",
            numbered=run_id is None,
        )

    @classmethod
    def concat(cls, tables: Sequence[RunTable]) -> RunTable:
        """Join tables one below the other; a column that one of them lacks is empty there.

        Raises
        ------
        TableError
            If there is no table, or two of them share a run_id.
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
        return cls(
            run_id=tuple(x for t in tables for x in t.run_id),
            source=tuple(x for t in tables for x in t.source),
            optimizer=tuple(x for t in tables for x in t.optimizer),
            schedules=tuple(x for t in tables for x in t.schedule_tuple()),
            status=tuple(x for t in tables for x in t.status),
            extra=extra,
            columns=columns,
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
        """Return the runs picked by a boolean mask (n,), by indices, or by a slice, in that order."""
        picked = picked_rows(len(self), rows)
        schedules: tuple[Schedule, ...] | ScheduleBatch
        if isinstance(self.schedules, ScheduleBatch):
            schedules = self.schedules[np.asarray(picked, dtype=np.intp)]
        else:
            schedules = tuple(self.schedules[i] for i in picked)
        return RunTable(
            run_id=tuple(self.run_id[i] for i in picked),
            source=tuple(self.source[i] for i in picked),
            optimizer=tuple(self.optimizer[i] for i in picked),
            schedules=schedules,
            status=tuple(self.status[i] for i in picked),
            extra={name: tuple(values[i] for i in picked) for name, values in self.extra.items()},
            columns=self.columns,
            **{name: getattr(self, name)[picked] for name in NUMBER_COLUMNS},
        )

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return any column, unknown ones included: float64 for numbers (NaN = missing), else text ("" = missing).

        Raises
        ------
        TableError
            If there is no such column.
        """
        if name in NUMBER_COLUMNS:
            array: npt.NDArray[Any] = getattr(self, name)
            return array
        if name == "schedule":
            return _texts([schedule.to_json() for schedule in self.schedule_tuple()])
        if name in ("run_id", "source", "optimizer", "status"):
            return _texts([value or "" for value in getattr(self, name)])
        if name in self.extra:
            return _texts(list(self.extra[name]))
        known = [*RUN_COLUMNS, *self.extra]
        raise TableError(f"no column {name!r} in this table (it has {', '.join(known)}){nearest(name, known)}")

    def digest(self) -> str:
        """Return the sha256 of the content, whatever the order of rows and columns (64 hexadecimal digits)."""
        numbers = [getattr(self, name).tolist() for name in NUMBER_COLUMNS]
        extra = sorted(self.extra)
        rows = []
        for i, schedule in enumerate(self.schedule_tuple()):
            row = [self.run_id[i], self.source[i], self.optimizer[i], self.status[i], schedule.to_json()]
            row += [None if math.isnan(values[i]) else repr(values[i]) for values in numbers]
            row += [f"{name}={self.extra[name][i]}" for name in extra if self.extra[name][i]]
            rows.append(json.dumps(row))
        return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


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
) -> RunTable:
    """Check every value, fill what follows from the rest, and make the table.

    `where` names a row in messages; `numbered`: the names are numbers just given, none twice.
    """
    if not numbered:
        _check_names(names, where)
    wrong = set(status) - {None, *STATUSES}
    if wrong:
        row, value = next((row, value) for row, value in enumerate(status) if value in wrong)
        allowed = ", ".join(STATUSES)
        raise TableError(
            f"{where(row)}: status must be one of {allowed} or empty, got {value!r}{nearest(str(value), STATUSES)}"
        )
    check_numbers(numbers, status, where)
    numbers = fill_counts(numbers, total_steps(schedules), where)
    return RunTable(
        run_id=names,
        source=source,
        optimizer=optimizer,
        schedules=schedules,
        status=status,
        extra=extra,
        columns=columns,
        **numbers,
    )


def check_numbers(numbers: dict[str, FloatArray], status: Sequence[Text], where: Callable[[int], str]) -> None:
    """Raise a `TableError` for the first number out of its range; a NaN is missing and passes, except as a loss."""
    for name, values in numbers.items():
        if name == "final_loss":
            continue
        if name in COUNTS:
            bad, rule = ~(values > 0) | np.isinf(values), "a finite number above 0"
        elif name == "weight_decay":
            bad, rule = ~(values >= 0) | np.isinf(values), "a finite number of at least 0"
        else:
            bad, rule = ~((values >= 0) & (values < 1)), "at least 0 and below 1"
        bad &= ~np.isnan(values)
        if bad.any():
            row = int(np.argmax(bad))
            got = _plain(values[row])
            raise TableError(f"{where(row)}: {name} must be {rule}, got {got}; correct it or leave it empty")
    losses = numbers["final_loss"]
    done = {value: value is None or value == "completed" for value in set(status)}  # of a million all may be alike
    finished = np.full(len(status), all(done.values()))
    if not finished.all():
        finished[:] = [done[value] for value in status]
    bad = finished & ~np.isnan(losses) & ~((losses > 0) & np.isfinite(losses))
    if bad.any():
        row = int(np.argmax(bad))
        raise TableError(
            f"{where(row)}: final_loss of a completed run must be a finite number of nats per token above 0, "
            f"got {_plain(losses[row])}; correct it, leave it empty, or set status to diverged"
        )
    numbers["final_loss"] = np.where(np.isfinite(losses), losses, np.nan)


def fill_counts(
    numbers: dict[str, FloatArray], lengths: FloatArray, where: Callable[[int], str]
) -> dict[str, FloatArray]:
    """Set steps from the schedules and fill tokens or batch_tokens by tokens = steps * batch_tokens.

    Raises
    ------
    TableError
        If `steps` is given and differs from the schedule's length, or if the three disagree by more than 5 %.
    """
    steps = numbers["steps"]
    wrong = ~np.isnan(steps) & (steps != lengths)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise TableError(
            f"{where(row)}: steps is {_plain(steps[row])} but the schedule has {_plain(lengths[row])} steps; "
            "make them equal or leave steps empty"
        )
    tokens, batch = numbers["tokens"], numbers["batch_tokens"]
    with np.errstate(invalid="ignore"):
        off = np.abs(lengths * batch / tokens - 1) > TOLERANCE
    if off.any():
        row = int(np.argmax(off))
        raise TableError(
            f"{where(row)}: tokens is {_plain(tokens[row])} but steps * batch_tokens is "
            f"{_plain(lengths[row])} * {_plain(batch[row])} = {_plain(lengths[row] * batch[row])}; "
            "correct one of them or leave tokens or batch_tokens empty (batch_tokens counts tokens, not sequences)"
        )
    return numbers | {
        "steps": lengths,
        "tokens": np.where(np.isnan(tokens), lengths * batch, tokens),
        "batch_tokens": np.where(np.isnan(batch), tokens / lengths, batch),
    }


def picked_rows(n: int, rows: npt.ArrayLike | slice) -> list[int]:
    """Return the indices that a mask (n,), indices or a slice pick out of n rows."""
    if isinstance(rows, slice):
        return list(range(n))[rows]
    array = np.asarray(rows)
    picked: list[int] = np.atleast_1d(np.arange(n)[array if array.size else array.astype(np.intp)]).tolist()
    return picked


def total_steps(schedules: tuple[Schedule, ...] | ScheduleBatch) -> FloatArray:
    """Return the lengths T of the schedules, shape (n,), in steps."""
    if isinstance(schedules, ScheduleBatch):
        return np.array(schedules.total_steps, dtype=np.float64)
    return np.array([schedule.total_steps for schedule in schedules], dtype=np.float64)


def _check_names(names: tuple[str, ...], where: Callable[[int], str]) -> None:
    if len(set(names)) == len(names) and "" not in names:
        return
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if not name:
            raise TableError(f"{where(row)}: run_id is empty; give every run a unique name")
        if first.setdefault(name, row) != row:
            raise TableError(f"{where(row)}: run_id {name!r} was used before ({where(first[name])}); it must be unique")


def _spread(name: str, value: Scalars, n: int) -> FloatArray:
    try:
        array = np.asarray(np.nan if value is None else value, dtype=np.float64)
        return np.array(np.broadcast_to(array, (n,)))
    except (TypeError, ValueError):
        raise TableError(f"column {name!r} must be one number or {n} numbers, got {value!r:.80}") from None


def _repeat(value: Texts, n: int) -> tuple[Text, ...]:
    if value is None or isinstance(value, str):
        return (value,) * n
    return tuple(value)


def _texts(values: list[str]) -> npt.NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _plain(value: float) -> str:
    return f"{value:.12g}"
