"""Logs of past runs as trackers and trainers write them: found by their content, read into series by run.

What is read, and where its names come from:

- `trainer_state.json` of Hugging Face Trainer: `log_history` with `step`, `loss`, `eval_loss`, `learning_rate`; the
  run's length from `global_step` and `max_steps`. `train_loss` there is the mean over the whole run and is not read.
- Weights & Biases: the history of a run as CSV, JSON lines or Parquet, and the CSV of a chart: one column a run and
  metric, named "RUN - METRIC", beside `__MIN` and `__MAX` columns, which are left out.
- TensorBoard: the CSV of one scalar, "Wall time,Step,Value". Its name, run-RUN-tag-TAG.csv, says what the scalar is.
- Lightning: `metrics.csv` of CSVLogger, whose rows are sparse; `lr-ADAM...` of LearningRateMonitor.
- Any other table whose columns have usual names, or whose columns are named by the caller.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optlaws.errors import TableError
from optlaws.runs._cells import RawTable, clip, raw_from_csv, raw_from_json, read_raw
from optlaws.runs._files import read_text
from optlaws.schedules.schedule import no_repeats

ROLES = ("loss", "eval", "rate", "grad")
"""What a series is: training loss, evaluation loss, learning rate, gradient norm."""

STATE_FILE, METRICS_FILE = "trainer_state.json", "metrics.csv"
OWN_STEP = "_step"  # of W&B: counts its own log calls, so any other step goes before it

# Names in lower case, what is no letter or digit as one underline, so that "train/loss" is train_loss. First come,
# first served.
STEP_NAMES = (
    "global_step", "train_global_step", "trainer_global_step", "train_step", "trainer_step", "step", "steps",
    "num_updates", "train_num_updates", "update", "iteration", "iterations", "iter",
)  # fmt: skip
LOSS_NAMES = (
    "loss", "train_loss", "train_loss_step", "training_loss", "loss_train", "loss_step", "lm_loss", "train_lm_loss",
    "lm_loss_training", "loss_train_total", "train_crossentropyloss", "train_cross_entropy", "train_ce_loss",
    "train_loss_epoch", "loss_epoch",
)  # fmt: skip
EVAL_NAMES = (
    "eval_loss", "val_loss", "validation_loss", "valid_loss", "dev_loss", "loss_val", "loss_eval", "loss_validation",
    "lm_loss_validation", "val_loss_epoch", "validation_loss_epoch",
)  # fmt: skip
_NAMED_EVAL = re.compile(r"(eval|val|validation)_.+_loss")  # Trainer with several evaluation sets: eval_SET_loss
_RATE = re.compile(
    r"(train_|trainer_|optim_|optimizer_)?(lr|learning_?rate)(_group_?0|_0|_pg1)?|lr_(?!scale|mult|ratio)[a-z]+(_pg1)?"
)
_GRAD = re.compile(r"(train_)?((global_|total_)?grad_norm|gradient_norm)")
_TAGGED = re.compile(r"run-(?P<run>.+)-tag-(?P<tag>.+)")
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_SCALAR = ("Wall time", "Step", "Value")

Series = tuple[list[float], list[float]]
"""Steps and values, in the order of the log."""


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
    reached, planned
        Steps done and planned as far as the log says so itself, NaN where it does not.
    """

    run_id: str
    format: str
    path: str
    series: dict[str, Series]
    columns: dict[str, str]
    reached: float = math.nan
    planned: float = math.nan


@dataclass(frozen=True)
class Columns:
    """Names of columns that the caller gave; None = find it."""

    step: str | None = None
    loss: str | None = None
    rate: str | None = None

    def named(self) -> dict[str, str]:
        """Return the names given, by role."""
        found = {"step": self.step, "loss": self.loss, "rate": self.rate}
        return {role: name for role, name in found.items() if name is not None}


@dataclass(frozen=True)
class _Log:
    """A log as a table: its cells, its kind, and what it says of the run as a whole."""

    raw: RawTable
    format: str
    reached: float = math.nan
    planned: float = math.nan
    unread: tuple[str, ...] = field(default=())


def log_file(path: str | os.PathLike[str]) -> str:
    """Return the file that a log is in: the file itself, or the one that a folder of a known kind holds.

    A folder may be the output of Hugging Face Trainer, one of its checkpoints, or a version of Lightning's CSVLogger.

    Raises
    ------
    TableError
        If a folder holds neither `trainer_state.json` (itself or in a checkpoint) nor `metrics.csv`.
    """
    if str(path) == "-" or not os.path.isdir(path):
        return os.fspath(path)
    folder = Path(path)
    if (folder / STATE_FILE).is_file():
        return str(folder / STATE_FILE)
    states = {int(found[1]): p for p in folder.iterdir() if (found := _CHECKPOINT.fullmatch(p.name))}
    for step in sorted(states, reverse=True):
        if (states[step] / STATE_FILE).is_file():
            return str(states[step] / STATE_FILE)
    if (folder / METRICS_FILE).is_file():
        return str(folder / METRICS_FILE)
    raise TableError(
        f"{path}: a folder must hold {STATE_FILE} (itself or in a checkpoint) or {METRICS_FILE}, got one without; "
        "name the log file"
    )


def read_parts(path: str | os.PathLike[str], names: Columns) -> list[Part]:
    """Read one log file into the series of each of its runs.

    Raises
    ------
    TableError
        In one sentence, with the file and what was seen in it, if it is no log or cannot be read.
    """
    file = log_file(path)
    log = _load(file)
    given = names.named()
    log.raw.require(list(given.values()))
    if log.format == "wandb-chart":
        parts = _chart_parts(log, names, file)
    elif log.format == "tensorboard" and not given:
        parts = [_scalar_part(log.raw, file)]
    else:
        parts = _table_parts(log, given, file)
    for part in parts:
        part.path, part.reached, part.planned = os.fspath(path), log.reached, log.planned
    return parts


def _load(file: str) -> _Log:
    """Read a file and tell by its content what it is."""
    if "tfevents" in Path(file).name:
        raise TableError(f"{file}: a TensorBoard event file cannot be read; export its scalars as CSV, one file a tag")
    if Path(file).suffix.lower() in (".parquet", ".pq"):
        raw = read_raw(file)
        return _Log(raw, _table_format(list(raw.columns), file))
    text, name = read_text(file)
    start = text.lstrip()[:1]
    if start == "{":
        try:
            document = json.loads(text, object_pairs_hook=no_repeats)
        except (ValueError, RecursionError):
            document = None  # JSON lines
        if isinstance(document, dict) and "log_history" in document:
            return _trainer_log(document, name)
        if isinstance(document, dict) and "\n" in text.strip():
            raise TableError(
                f"{name}: no log of a known kind, got one JSON object with the keys {clip(', '.join(document))}; "
                f"a trainer's state has the key log_history, and JSON lines have one object a line"
            )
    if start and start in "{[":
        raw = raw_from_json(text, name)
    else:
        head = text.lstrip().split("\n", 1)[0]
        if head.startswith((",", '"",')):  # the unnamed index that pandas writes first
            text = "index" + text.lstrip().removeprefix('""')
        raw = raw_from_csv(text, name, "\t" if "\t" in head and "," not in head else ",")
    return _Log(raw, _table_format(list(raw.columns), file))


def _table_format(header: list[str], file: str) -> str:
    if set(header) == set(_SCALAR):
        return "tensorboard"
    if any(name.endswith("__MIN") and f"{name[:-3]}MAX" in header and " - " in name for name in header):
        return "wandb-chart"
    if OWN_STEP in header:
        return "wandb"
    return "lightning" if Path(file).name == METRICS_FILE else "table"


def _trainer_log(state: Mapping[str, Any], name: str) -> _Log:
    history = state["log_history"]
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise TableError(f"{name}: log_history must be a list of JSON objects, got {clip(history)}; is it cut off?")
    if not history:
        raise TableError(f"{name}: log_history is empty; let the trainer log (logging_steps) or name another file")
    header = list(dict.fromkeys(key for entry in history for key in entry))
    raw = RawTable(
        {key: [entry.get(key) for entry in history] for key in header},
        range(1, len(history) + 1),
        "log_history entry",
        name,
    )
    counts = [state.get(key) for key in ("global_step", "max_steps")]
    reached, planned = (
        float(c) if isinstance(c, int | float) and not isinstance(c, bool) and c > 0 else math.nan for c in counts
    )
    return _Log(raw, "hf-trainer", reached, planned, unread=("train_loss",))


def _table_parts(log: _Log, given: Mapping[str, str], file: str) -> list[Part]:
    """Read a table with named columns; a column run_id parts it into runs."""
    raw = log.raw
    columns = {**_find(list(raw.columns), log.unread), **given}
    if "loss" in given:  # then the final loss is of this column, too
        columns.pop("eval", None)
    if "step" not in columns or not {"loss", "eval"} & columns.keys():
        seen = ", ".join(list(raw.columns)[:12]) + (", ..." if len(raw.columns) > 12 else "")
        lost = [role for role in ("step", "loss") if role not in columns]
        raise TableError(
            f"{raw.name}: no log of a known kind, since no {' and no '.join(lost)} was found among its columns {seen};"
            f" name them ({', '.join(f'--{role}-column' for role in lost)})"
        )
    names = raw.texts("run_id") if "run_id" in raw.columns else [""] * len(raw.places)
    fallback = _run_name(file)
    parts: dict[str, Part] = {}
    step = raw.columns[columns["step"]]
    for role in ROLES:
        if role not in columns:
            continue
        for row, value in _values(raw, columns[role]):
            part = parts.setdefault(names[row], Part(names[row] or fallback, log.format, file, {}, columns))
            steps, values = part.series.setdefault(role, ([], []))
            steps.append(_step(raw, columns["step"], row, step[row], columns[role]))
            values.append(value)
    if not parts:
        raise TableError(f"{raw.name}: column {columns.get('loss', columns.get('eval'))!r} is empty; name another one")
    return list(parts.values())


def _chart_parts(log: _Log, names: Columns, file: str) -> list[Part]:
    """Read the CSV of a W&B chart: a step column, then "RUN - METRIC" for every run and metric."""
    raw = log.raw
    plain = [name for name in raw.columns if not name.endswith(("__MIN", "__MAX"))]
    by_run: dict[str, dict[str, str]] = {}
    for name in plain:
        run, mark, metric = name.rpartition(" - ")
        if mark:
            by_run.setdefault(run, {})[metric] = name
    shared = names.step or next((name for name in plain if " - " not in name and _key(name) in STEP_NAMES), None)
    parts = []
    for run, metrics in by_run.items():
        found = _find(list(metrics))
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
        series = {}
        for role, name in columns.items():
            rows = list(_values(raw, name))
            steps = [_step(raw, own, row, raw.columns[own][row], name) for row, _ in rows]
            if rows:
                series[role] = (steps, [value for _, value in rows])
        if series:
            parts.append(Part(run, log.format, file, series, {"step": own, **columns}))
    if not parts:
        raise TableError(f"{raw.name}: a W&B chart with no loss in it; export the chart of the training loss")
    return parts


def _scalar_part(raw: RawTable, file: str) -> Part:
    """Read TensorBoard's CSV of one scalar; the file's name says of what, training loss if it does not."""
    stem = Path(file).stem
    tagged = _TAGGED.fullmatch(stem)
    run, tag = (tagged["run"], tagged["tag"]) if tagged else (_run_name(file), stem)
    if run == ".":
        run = Path(os.path.abspath(file)).parent.name
    role = next(iter(_find([tag]).keys() - {"step"}), None)
    role = (
        role
        or next(  # a tag may have a run's or a group's name before it
            (role for mark in ROLES for role in _find([tag[k:] for k in _word_starts(tag)]) if role == mark), "loss"
        )
    )
    rows = list(_values(raw, "Value"))
    steps = [_step(raw, "Step", row, raw.columns["Step"][row], "Value") for row, _ in rows]
    return Part(
        run, "tensorboard", file, {role: (steps, [value for _, value in rows])}, {"step": "Step", role: "Value"}
    )


def _word_starts(text: str) -> Iterator[int]:
    return (found.start() for found in re.finditer(r"(?<=[^A-Za-z0-9])[A-Za-z0-9]", text))


def _key(name: str) -> str:
    return name if name == OWN_STEP else re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _find(header: list[str], unread: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the columns of the known roles, by role."""
    by_key: dict[str, str] = {}
    for name in header:
        if name not in unread:
            by_key.setdefault(_key(name), name)
    found: dict[str, str] = {}
    for role, known in (("step", (*STEP_NAMES, OWN_STEP)), ("loss", LOSS_NAMES), ("eval", EVAL_NAMES)):
        chosen = next((by_key[key] for key in known if key in by_key), None)
        if chosen is not None:
            found[role] = chosen
    if "eval" not in found:
        named = [name for key, name in by_key.items() if _NAMED_EVAL.fullmatch(key)]
        if len(named) == 1:  # of several sets none is the one
            found["eval"] = named[0]
    for role, pattern in (("rate", _RATE), ("grad", _GRAD)):
        names = [name for key, name in by_key.items() if pattern.fullmatch(key)]
        if names:
            found[role] = names[0]
    return found


def _values(raw: RawTable, column: str) -> Iterator[tuple[int, float]]:
    """Yield the rows in which a column holds a number, NaN and infinity as they are written."""
    for row, cell in enumerate(raw.columns[column]):
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            continue
        try:
            if isinstance(cell, bool):
                raise TypeError
            yield row, float(cell)
        except (TypeError, ValueError, OverflowError):
            raise TableError(f"{raw.where(row)}: {column} must be a number, got {clip(cell)}; correct it") from None


def _step(raw: RawTable, column: str, row: int, cell: Any, of: str) -> float:
    try:
        step = math.nan if cell is None or isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError, OverflowError):
        step = math.nan
    if not (step >= 0 and step == math.floor(step) and math.isfinite(step)):
        raise TableError(
            f"{raw.where(row)}: {column} of a reading of {of} must be a whole number of at least 0, got {clip(cell)}; "
            "correct it, or name another column (--step-column)"
        )
    return step


def _run_name(file: str) -> str:
    """Return a run's name where the log does not say it: its folder's for files that are all called alike."""
    if file == "-":
        return "run"
    path = Path(os.path.abspath(file))
    if path.name not in (STATE_FILE, METRICS_FILE):
        return path.stem
    folder = path.parent
    return folder.parent.name if _CHECKPOINT.fullmatch(folder.name) else folder.name
