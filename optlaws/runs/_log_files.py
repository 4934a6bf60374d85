"""Files of logs as tables: told by their content, whatever wrote them."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optlaws.errors import TableError
from optlaws.runs._cells import RawTable, clip, raw_from_csv, raw_from_json, read_raw
from optlaws.runs._files import read_text
from optlaws.runs._names import OWN_STEP, delimiter_of
from optlaws.schedules.keys import MAX_STEPS
from optlaws.schedules.schedule import no_repeats

STATE_FILE, METRICS_FILE = "trainer_state.json", "metrics.csv"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_SCALAR = ("Wall time", "Step", "Value")

_PREFIXED = re.compile(r"\[[^][{}\"]*\]\s*\S")  # a line of text: [2024-05-01 10:00:00] iteration 10
_PYTHON = re.compile(r"\{\s*'")


@dataclass(frozen=True)
class Log:
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


def load_log(file: str) -> Log:
    """Read a file and tell by its content what it is."""
    if "tfevents" in Path(file).name:
        raise TableError(f"{file}: a TensorBoard event file cannot be read; export its scalars as CSV, one file a tag")
    if Path(file).suffix.lower() in (".parquet", ".pq"):
        raw = read_raw(file)
        return Log(raw, _table_format(list(raw.columns), file))
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
    if _PREFIXED.match(text.lstrip()) or _PYTHON.match(text.lstrip()):
        raise TableError(
            f"{name}: no log of a known kind, got lines of text like {clip(text.strip().splitlines()[0])}; write step "
            "and loss as CSV or JSON lines, or export them from the tracker"
        )
    if start and start in "{[":
        raw = raw_from_json(text, name)
    else:
        head = text.lstrip().split("\n", 1)[0]
        if head.startswith((",", '"",')):  # the unnamed index that pandas writes first
            text = "index" + text.lstrip().removeprefix('""')
        raw = raw_from_csv(text, name, delimiter_of(head))
    return Log(raw, _table_format(list(raw.columns), file))


def _table_format(header: list[str], file: str) -> str:
    if set(header) == set(_SCALAR):
        return "tensorboard"
    if any(name.endswith("__MIN") and f"{name[:-3]}MAX" in header and " - " in name for name in header):
        return "wandb-chart"
    if OWN_STEP in header:
        return "wandb"
    return "lightning" if Path(file).name == METRICS_FILE else "table"


def _trainer_log(state: Mapping[str, Any], name: str) -> Log:
    history = state["log_history"]
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise TableError(f"{name}: log_history must be a list of JSON objects, got {clip(history)}; is it cut off?")
    if not history:
        raise TableError(f"{name}: log_history is empty; let the trainer log (logging_steps) or name another file")
    tokens, last = state.get("num_input_tokens_seen"), history[-1]
    if tokens and last.get("step") == state.get("global_step"):
        history = [*history[:-1], {"num_input_tokens_seen": tokens, **last}]
    header = list(dict.fromkeys(key for entry in history for key in entry))
    raw = RawTable(
        {key: [entry.get(key) for entry in history] for key in header},
        range(1, len(history) + 1),
        "log_history entry",
        name,
    )
    reached, planned = (_count(state.get(key), f"{name}: {key}") for key in ("global_step", "max_steps"))
    return Log(raw, "hf-trainer", reached, planned, unread=("train_loss",))


def _count(value: Any, what: str) -> float:
    """Return a count of updates of a trainer's state; NaN where it says none, as -1 does."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        return math.nan
    if value > MAX_STEPS:
        raise TableError(f"{what} must be at most {MAX_STEPS:,}, got {clip(value)}; correct it")
    return float(value)


def run_name(file: str) -> str:
    """Return a run's name where the log does not say it: its folder's for files that are all called alike."""
    if file == "-":
        return "run"
    path = Path(os.path.abspath(file))
    if path.name not in (STATE_FILE, METRICS_FILE):
        return path.stem
    folder = path.parent
    return folder.parent.name if _CHECKPOINT.fullmatch(folder.name) else folder.name
