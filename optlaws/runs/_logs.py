"""Logs of past runs as trackers and trainers write them: found by their content, read into series by run.

What is read, and where its names come from:

- `trainer_state.json` of Hugging Face Trainer: `log_history` with `step`, `loss`, `eval_loss`, `learning_rate`; the
  run's length from `global_step` and `max_steps`. `train_loss` there is the mean over the whole run and is not read.
- Weights & Biases: the history of a run as CSV, JSON lines or Parquet, and the CSV of a chart: one column a run and
  metric, named "RUN - METRIC", beside `__MIN` and `__MAX` columns, which are left out.
- TensorBoard: the CSV of one scalar, "Wall time,Step,Value". Its name, run-RUN-tag-TAG.csv, says what the scalar is.
- Lightning: `metrics.csv` of CSVLogger, whose rows are sparse; `lr-ADAM...` of LearningRateMonitor.
- Any other table whose columns have usual names (`_names.py`), or whose columns are named by the caller.

Runs that stand under one another are told by a column that names them.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from optlaws.errors import TableError
from optlaws.runs._cells import RawTable, clip
from optlaws.runs._log_files import Log, load_log, log_file, run_name
from optlaws.runs._names import (
    KIND_COLUMN,
    KINDS,
    OWN_STEP,
    ROLES,
    STEP_NAMES,
    TOKEN_NAMES,
    as_number,
    counts_data,
    find_columns,
    name_key,
    number_hint,
    other_units,
    rate_columns,
    refuse_data_steps,
    run_columns,
    unlogged,
    updates_done,
)

TOKENS = "tokens"  # a series beside those of `ROLES`: tokens seen
_TAGGED = re.compile(r"run-(?P<run>.+)-tag-(?P<tag>.+)")
_RUN_TABLE = {"State", "Notes", "User", "Tags", "Created", "Runtime", "Sweep"}  # columns of W&B's table of runs


@dataclass
class Series:
    """Steps and values in the order of the log, and the rows that they stand in."""

    step: list[float] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    row: list[int] = field(default_factory=list)

    def add(self, step: float, value: float, row: int) -> None:
        """Append one reading."""
        self.step.append(step)
        self.value.append(value)
        self.row.append(row)


@dataclass
class Part:
    """What one log says of one run: its series by role, before they are put in order.

    Attributes
    ----------
    run_id, format, path
        The run's name, the kind of log, the log as the caller named it.
    series
        Steps and values by role, in the log's order.
    columns
        The log's names of the columns that were read, by role and "step".
    rates
        Columns that may each be the learning rate and differ, so that none is read.
    other_units
        Columns of a learning rate in another unit by their names, where none in plain units is read.
    reached, planned
        Steps done and planned as far as the log says so itself, NaN where it does not.
    loss_kind
        What the log itself says that its loss is of, "" where it says that this is not known; None: it says nothing.
    """

    run_id: str
    format: str
    path: str
    series: dict[str, Series]
    columns: dict[str, str]
    rates: tuple[str, ...] = ()
    other_units: tuple[str, ...] = ()
    reached: float = math.nan
    planned: float = math.nan
    loss_kind: str | None = None


@dataclass(frozen=True)
class Columns:
    """Names of columns that the caller gave, None = find it; and how many updates one logged step counts."""

    step: str | None = None
    loss: str | None = None
    rate: str | None = None
    updates: float = 1.0

    def named(self) -> dict[str, str]:
        """Return the names given, by role."""
        found = {"step": self.step, "loss": self.loss, "rate": self.rate}
        return {role: name for role, name in found.items() if name is not None}


def read_parts(path: str | os.PathLike[str], names: Columns) -> list[Part]:
    """Read one log file into the series of each of its runs.

    Raises
    ------
    TableError
        In one sentence, with the file and what was seen in it, if it is no log or cannot be read.
    """
    file = log_file(path)
    if names.step is not None and names.updates == 1.0:
        refuse_data_steps(names.step)
    log = load_log(file)
    given = names.named()
    log.raw.require(list(given.values()))
    if len(_RUN_TABLE & set(log.raw.columns)) > 2:
        raise _one_row_a_run(log.raw, "the table of runs that W&B exports")
    if log.format == "wandb-chart":
        parts = _chart_parts(log, names, file)
    elif log.format == "tensorboard" and not given:
        parts = [_scalar_part(log.raw, names, file)]
    else:
        parts = _table_parts(log, names, file)
    for part in parts:
        part.path = os.fspath(path)
        part.reached, part.planned = (
            c if math.isnan(c) else updates_done(c, names.updates) for c in (log.reached, log.planned)
        )
    return parts


def _one_row_a_run(raw: RawTable, what: str) -> TableError:
    return TableError(
        f"{raw.name}: a log must hold the readings of a run along its steps, got {what}, one row a run; export the "
        "runs' histories or charts, or make a run table of it (run_id, schedule, params, batch_tokens, final_loss)"
    )


def _table_parts(log: Log, names: Columns, file: str) -> list[Part]:
    """Read a table with named columns; a column that names the runs parts it."""
    raw, given = log.raw, names.named()
    columns, rivals = _found(raw, list(raw.columns), log.unread)
    columns |= given
    if "loss" in given:  # then the final loss is of this column, too
        columns.pop("eval", None)
    if "step" not in columns or not {"loss", "eval"} & columns.keys():
        raise _unknown(raw, [role for role in ("step", "loss") if role not in columns])
    numbers = _numbers(raw, columns)
    runs = _runs(raw, columns, numbers)
    fallback = run_name(file)
    parts: dict[str, Part] = {}
    step = raw.columns[columns["step"]]
    for row, found in enumerate(numbers):
        if not found:
            continue
        part = parts.get(runs[row])
        if part is None:
            part = parts[runs[row]] = Part(runs[row] or fallback, log.format, file, {}, columns)
        for role, value in found.items():
            at = _step(raw, columns["step"], row, step[row], columns[role], names.updates)
            part.series.setdefault(role, Series()).add(at, value, row)
    if not any({"loss", "eval"} & part.series.keys() for part in parts.values()):
        raise TableError(f"{raw.name}: column {columns.get('loss', columns.get('eval'))!r} is empty; name another one")
    kinds = raw.texts(KIND_COLUMN) if KIND_COLUMN in raw.columns else None
    units = tuple(name for name in other_units(raw.columns) if columns.get("rate", name) == name)
    for part in parts.values():
        part.rates = () if "rate" in given else rivals
        part.loss_kind = None if kinds is None else _said_kind(raw, part, kinds)
        part.other_units = units
    _add_tokens(raw, parts, columns["step"], runs, names.updates)
    return [part for part in parts.values() if part.series]


def _found(raw: RawTable, header: list[str], unread: tuple[str, ...] = ()) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the columns that are found, by role, and those of several rates that differ, of which none is."""
    columns = find_columns(header, unread)
    rates = rate_columns(header)
    if rates and all(_same(raw, rates[0], other) for other in rates[1:]):
        columns["rate"] = rates[0]
    return columns, tuple(rates) if rates and "rate" not in columns else ()


def _same(raw: RawTable, first: str, other: str) -> bool:
    """Return whether two columns hold the same numbers wherever both hold one, or one of them holds none."""
    one, two = dict(_values(raw, first)), dict(_values(raw, other))
    both = [(one[row], two[row]) for row in one.keys() & two.keys()]
    alike = all(a == b or math.isclose(a, b, rel_tol=1e-6) or a != a or b != b for a, b in both)
    return alike and bool(both or not one or not two)


def _unknown(raw: RawTable, lost: list[str]) -> TableError:
    """Return the error for a table without a column of a step or a loss."""
    seen = ", ".join(list(raw.columns)[:12]) + (", ..." if len(raw.columns) > 12 else "")
    data = next((name for name in raw.columns if counts_data(name)), None) if "step" in lost else None
    hint = f"; {data!r} counts no updates: add --updates-per-step 1/B if one takes B of them" if data else ""
    return TableError(
        f"{raw.name}: no log of a known kind, since no {' and no '.join(lost)} was found among its columns {seen};"
        f" name them ({', '.join(f'--{role}-column' for role in lost)}){hint}"
    )


def _numbers(raw: RawTable, columns: Mapping[str, str]) -> list[dict[str, float]]:
    """Return what was logged in every row, by role; a NaN that says that nothing was has no entry."""
    numbers: list[dict[str, float]] = [{} for _ in raw.places]
    for role in ROLES:
        if role in columns:
            for row, value in _values(raw, columns[role]):
                numbers[row][role] = value
    steps = raw.columns[columns["step"]]
    blank = {role for role in ROLES if role in columns and any(role not in found for found in numbers)}
    for row, found in enumerate(numbers):  # in place, as a dict a row takes most of the memory
        numbers[row] = {k: v for k, v in found.items() if not unlogged(*_alone(k, found, columns), blank)}
    for row in range(len(numbers)):  # a NaN beside a number of the same step, as of a row that logs something else
        for role in [role for role, value in numbers[row].items() if math.isnan(value) and role not in blank]:
            beside = (other for other in (row - 1, row + 1) if 0 <= other < len(numbers) and steps[other] == steps[row])
            if any(math.isfinite(numbers[other].get(role, math.nan)) for other in beside):
                del numbers[row][role]
    return numbers


def _alone(role: str, found: dict[str, float], columns: Mapping[str, str]) -> tuple[str, dict[str, float]]:
    """Return a role and its row's numbers; evaluation losses that are the curve are judged as a training loss is."""
    if role == "eval" and "loss" not in columns:
        return "loss", {"loss": found["eval"], **{k: v for k, v in found.items() if k == "rate"}}
    return role, found


def _runs(raw: RawTable, columns: dict[str, str], numbers: list[dict[str, float]]) -> list[str]:
    """Return the name of every row's run, "" where there is one run without a name.

    A column `run_id` names it; else one like `Name` does that has several values, but not another one in every row.
    """
    rows = [row for row, found in enumerate(numbers) if found.keys() - {"rate", "grad"}]
    texts = {name: raw.texts(name) for name in run_columns(raw.columns) if name not in columns.values()}
    if "run_id" in texts and len(set(texts["run_id"])) > 1:
        columns["run"] = "run_id"
        return texts["run_id"]
    chosen: list[str] = []
    groups = 1
    for name, cells in texts.items():
        finer = len({tuple(texts[c][row] for c in (*chosen, name)) for row in rows})
        if finer > groups and 2 * finer <= len(rows):
            chosen, groups = [*chosen, name], finer
        elif finer == len(rows) > 1 and not chosen and not all(cells[row].isdigit() for row in rows):
            steps = [_step(raw, columns["step"], row, raw.columns[columns["step"]][row], name, 1.0) for row in rows]
            if 3 * sum(b <= a for a, b in pairwise(steps)) >= len(steps) - 1:
                raise _one_row_a_run(raw, f"another {name!r} in every row")
    if not chosen:
        return texts.get("run_id", [""] * len(raw.places))
    columns["run"] = " and ".join(chosen)
    return ["/".join(texts[name][row] for name in chosen).strip("/") for row in range(len(raw.places))]


def _said_kind(raw: RawTable, part: Part, cells: list[str]) -> str | None:
    """Return what the cells of the column `loss_kind` say of a run's `loss`; None where they speak of other losses."""
    if "loss" not in part.series or part.columns["loss"] != "loss":
        return None
    found = sorted({cells[row] for row in part.series["loss"].row})
    if len(found) > 1:
        raise TableError(
            f"{raw.name}: {KIND_COLUMN} must be one for all readings of a run, got"
            f" {' and '.join(repr(kind) for kind in found)} for {part.run_id!r}; keep the losses of one kind"
        )
    return found[0] if found[0] in ("", *KINDS.values()) else None


def _add_tokens(raw: RawTable, parts: Mapping[str, Part], step: str, runs: list[str], updates: float) -> None:
    """Add the tokens seen to the parts, by name of the run, where a column counts them and `step` is another one."""
    name = next((name for name in raw.columns if name_key(name) in TOKEN_NAMES and name != step), None)
    if name is None:
        return
    steps = raw.columns[step]
    for row, cell in enumerate(raw.columns[name]):
        part = parts.get(runs[row])
        if part is None:
            continue
        with suppress(ValueError, TableError):
            value = as_number(cell)
            if value is not None:
                at = _step(raw, step, row, steps[row], name, updates)
                part.series.setdefault(TOKENS, Series()).add(at, value, row)
    for part in parts.values():
        if TOKENS in part.series:
            part.columns = {**part.columns, TOKENS: name}


def _chart_parts(log: Log, names: Columns, file: str) -> list[Part]:
    """Read the CSV of a W&B chart: a step column, then "RUN - METRIC" for every run and metric."""
    raw = log.raw
    plain = [name for name in raw.columns if not name.endswith(("__MIN", "__MAX"))]
    by_run: dict[str, dict[str, str]] = {}
    for name in plain:
        run, mark, metric = name.rpartition(" - ")
        if mark:
            by_run.setdefault(run, {})[metric] = name
    shared = names.step or next((name for name in plain if " - " not in name and name_key(name) in STEP_NAMES), None)
    parts = []
    for run, metrics in by_run.items():
        found, rivals = _found(
            RawTable({m: raw.columns[c] for m, c in metrics.items()}, raw.places, raw.unit, raw.name), list(metrics)
        )
        columns = {role: metrics[metric] for role, metric in found.items() if role != "step"}
        if names.loss is not None or names.rate is not None:
            raise TableError(
                f"{raw.name}: a W&B chart has one column a run, so --loss-column and --rate-column cannot name one for "
                f"all, got {names.loss or names.rate!r}; leave them out or export the run's history"
            )
        own = shared or metrics.get(OWN_STEP)
        if own is None:
            raise TableError(
                f"{raw.name}: a W&B chart must be over steps, got {plain[0]!r} as its first column; "
                "choose Step as the x-axis and export it again"
            )
        if not columns and len(metrics.keys() - {OWN_STEP}) == 1:  # a chart of one metric: what else could it be
            raise TableError(
                f"{raw.name}: the chart's metric must be a loss or a learning rate, got "
                f"{next(iter(metrics.keys() - {OWN_STEP}))!r}; export the chart of the training loss"
            )
        columns["step"] = own
        series: dict[str, Series] = {}
        for row, values in enumerate(_numbers(raw, columns)):
            for role, value in values.items():
                at = _step(raw, own, row, raw.columns[own][row], columns[role], names.updates)
                series.setdefault(role, Series()).add(at, value, row)
        if series:
            units = () if "rate" in columns else tuple(other_units(metrics))
            parts.append(Part(run, log.format, file, series, columns, rivals, units))
    if not parts:
        raise TableError(f"{raw.name}: a W&B chart with no loss in it; export the chart of the training loss")
    return parts


def _scalar_part(raw: RawTable, names: Columns, file: str) -> Part:
    """Read TensorBoard's CSV of one scalar; the file's name says of what, training loss if it does not."""
    stem = Path(file).stem
    tagged = _TAGGED.fullmatch(stem)
    run, tag = (tagged["run"], tagged["tag"]) if tagged else (run_name(file), stem)
    if run == ".":
        run = Path(os.path.abspath(file)).parent.name
    if other_units([tag, tag.split("/")[-1]]):
        raise TableError(
            f"{raw.name}: a scalar must be a loss or a plain learning rate, got {tag!r}, a rate in another unit by its "
            "name; leave the file out, or give its rates (0.1 % is 0.001) as a scalar lr"
        )
    role = next(iter(_roles(tag)), None)
    role = (
        role
        or next(  # a tag may have a run's or a group's name before it
            (role for mark in ROLES for k in _word_starts(tag) for role in _roles(tag[k:]) if role == mark), "loss"
        )
    )
    series = Series()
    for row, value in _values(raw, "Value"):
        series.add(_step(raw, "Step", row, raw.columns["Step"][row], "Value", names.updates), value, row)
    return Part(run, "tensorboard", file, {role: series}, {"step": "Step", role: "Value"})


def _roles(tag: str) -> list[str]:
    """Return what a scalar with this name is."""
    return [*(role for role in find_columns([tag]) if role != "step"), *("rate" for _ in rate_columns([tag]))]


def _word_starts(text: str) -> Iterator[int]:
    return (found.start() for found in re.finditer(r"(?<=[^A-Za-z0-9])[A-Za-z0-9]", text))


def _values(raw: RawTable, column: str) -> Iterator[tuple[int, float]]:
    """Yield the rows in which a column holds a number, NaN and infinity as they are written."""
    for row, cell in enumerate(raw.columns[column]):
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            continue
        try:
            number = as_number(cell)
        except ValueError:
            raise TableError(
                f"{raw.where(row)}: {column} must be a number, got {clip(cell)}; {number_hint(cell)}"
            ) from None
        if number is not None:
            yield row, number


def _step(raw: RawTable, column: str, row: int, cell: Any, of: str, updates: float) -> float:
    """Return the updates done at a reading, rounded down where one logged step is no whole number of them."""
    try:
        logged = as_number(cell)
        step = math.nan if logged is None else logged
    except ValueError:
        step = math.nan
    if not (step >= 0 and math.isfinite(step) and (updates != 1.0 or step == math.floor(step))):
        hint = number_hint(cell)
        raise TableError(
            f"{raw.where(row)}: {column} of a reading of {of} must be a whole number of at least 0, got {clip(cell)}; "
            f"{hint}, or name another column (--step-column)"
        )
    return updates_done(step, updates)
