"""The names that columns of logs have: one list for logs of past runs and for logs that are still being written."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from optlaws.errors import InputError, TableError

ROLES = ("loss", "eval", "rate", "grad")
"""What a series is: training loss, evaluation loss, learning rate, gradient norm."""

KINDS = {"loss": "training", "eval": "evaluation"}
"""Kinds of losses, by role."""

KIND_COLUMN = "loss_kind"
"""The column of a table that says of what its column `loss` is."""

OWN_STEP = "_step"
"""Of W&B: counts its own log calls, so any other step goes before it."""

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
RUN_NAMES = (
    "run_id", "run_name", "run", "name", "display_name", "run_display_name", "experiment", "experiment_name",
    "run_path", "id",
)  # fmt: skip
"""What a column is called that says of which run a row is; several runs may stand under one another."""

TOKEN_NAMES = (
    "num_input_tokens_seen", "train_num_input_tokens_seen", "num_tokens_seen", "tokens_seen", "train_tokens_seen",
    "total_tokens_seen", "consumed_tokens", "consumed_train_tokens", "total_tokens", "train_total_tokens",
    "cumulative_tokens", "n_tokens", "num_tokens", "train_tokens", "tokens",
)  # fmt: skip
"""What a column is called that counts the tokens seen since the run began."""

_NAMED_EVAL = re.compile(r"(eval|val|validation)_.+_loss")  # Trainer with several evaluation sets: eval_SET_loss
_PLAIN_RATE = re.compile(r"(train_|trainer_|optim_|optimizer_)?(lr|learning_?rate)")
_RATE = re.compile(
    r"(train_|trainer_|optim_|optimizer_)?(lr|learning_?rate)(_group_?\d+|_\d+|_pg\d+)?"
    r"|lr_(?!scale|mult|ratio|max|min|peak|init|base|final|end|start|factor|decay|warm|sched)[a-z]+(_pg\d+)?"
)
_OTHER_UNIT = re.compile(r"%|percent|1e-?\d")  # a rate in another unit than 1
_GRAD = re.compile(r"(train_)?((global_|total_)?grad_norm|gradient_norm)")
_THOUSANDS, _DECIMAL = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d*)?"), re.compile(r"-?\d+,\d+([eE][-+]?\d+)?")
_COUNTS_DATA = re.compile(r"(^|_)(tokens?|samples?|examples?|sequences?)(_|$)")


def name_key(name: str) -> str:
    """Return the form by which a column's name is looked up.

    >>> name_key("train/Loss")
    'train_loss'
    """
    return name if name == OWN_STEP else re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def counts_data(name: str) -> bool:
    """Return whether a column says by its name that it counts tokens or samples, which are no updates."""
    return _COUNTS_DATA.search(name_key(name)) is not None


def refuse_data_steps(column: str) -> None:
    """Refuse a column of steps that counts tokens or samples by its name.

    Raises
    ------
    TableError
        It does.
    """
    if counts_data(column):
        raise TableError(
            f"--step-column must count updates, got {column!r}, which counts tokens or samples by its name; name "
            "another column, or say how many updates one of them is (--updates-per-step 1/B, B of them in an update)"
        )


def step_columns(header: Iterable[str]) -> list[str]:
    """Return the columns that count steps, likeliest first; W&B's own count of log calls only where there is no other.

    >>> step_columns(["_step", "step", "trainer/global_step"]), step_columns(["_step", "loss"])
    (['trainer/global_step', 'step'], ['_step'])
    """
    by_key: dict[str, str] = {}
    for name in header:
        by_key.setdefault(name_key(name), name)
    found = [by_key[key] for key in STEP_NAMES if key in by_key]
    return found or [by_key[key] for key in (OWN_STEP,) if key in by_key]


def find_columns(header: Iterable[str], unread: Sequence[str] = ()) -> dict[str, str]:
    """Return the columns of a step, a loss, an evaluation loss and a gradient norm, by "step" and role."""
    by_key: dict[str, str] = {}
    for name in header:
        if name not in unread:
            by_key.setdefault(name_key(name), name)
    found: dict[str, str] = {}
    steps = step_columns(by_key.values())
    if steps:
        found["step"] = steps[0]
    for role, known in (("loss", LOSS_NAMES), ("eval", EVAL_NAMES)):
        chosen = next((by_key[key] for key in known if key in by_key), None)
        if chosen is not None:
            found[role] = chosen
    if "eval" not in found:
        named = [name for key, name in by_key.items() if _NAMED_EVAL.fullmatch(key)]
        if len(named) == 1:  # of several sets none is the one
            found["eval"] = named[0]
    grads = [name for key, name in by_key.items() if _GRAD.fullmatch(key)]
    if grads:
        found["grad"] = grads[0]
    return found


def rate_columns(header: Iterable[str]) -> list[str]:
    """Return the columns that may be the learning rate: those called so in full or in their last part, else the rest.

    >>> rate_columns(["lr_max", "optim/lr", "lr/embed"]), rate_columns(["lr-Adam/pg1", "lr (%)"])
    (['optim/lr'], ['lr-Adam/pg1'])
    """
    named = [name for name in header if not _OTHER_UNIT.search(name.lower())]
    plain = [name for name in named if any(map(_PLAIN_RATE.fullmatch, (name_key(name), name_key(name.split("/")[-1]))))]
    return plain or [name for name in named if _RATE.fullmatch(name_key(name))]


def other_units(header: Iterable[str]) -> list[str]:
    """Return the columns that are a learning rate in another unit than 1 by their names, such as in per cent.

    >>> other_units(["lr (%)", "train/lr", "loss (%)", "lr_max"])
    ['lr (%)']
    """
    marked = [(name, _OTHER_UNIT.sub("", name.lower())) for name in header if _OTHER_UNIT.search(name.lower())]
    return [name for name, plain in marked if rate_columns([plain])]


def loss_kind(name: str) -> str:
    """Return of what a column called so is the loss, "evaluation" or "training"; "" where its name does not tell.

    >>> loss_kind("eval/loss"), loss_kind("train_loss"), loss_kind("y")
    ('evaluation', 'training', '')
    """
    return next((KINDS[role] for role in find_columns([name]) if role in KINDS), "")


def run_columns(header: Iterable[str]) -> list[str]:
    """Return the columns that may name the run of a row, likeliest first."""
    found = [name for name in header if name_key(name) in RUN_NAMES]
    return sorted(found, key=lambda name: (name != "run_id", RUN_NAMES.index(name_key(name))))


def unlogged(role: str, numbers: Mapping[str, float], blank: Collection[str]) -> bool:
    """Return whether a NaN stands for "not logged" in its row and not for a loss that is none.

    Tables that write NaN for empty cells have it in rows of another kind: where the rate is NaN, too, or (no rate being
    there) the other loss is a number. An evaluation is not logged where the row is one of training.

    Parameters
    ----------
    role
        Of the value, which must be in `numbers`.
    numbers
        What the row holds, by role; an empty cell has no entry.
    blank
        Roles whose columns have empty cells: what is not logged there is not written as NaN.
    """
    if not math.isnan(numbers[role]):
        return False
    rate = numbers.get("rate")
    if role == "rate":
        return True
    if role == "eval":
        trained = any(math.isfinite(numbers.get(other, math.nan)) for other in ("loss", "rate"))
        return trained and "eval" not in blank
    if rate is not None:
        return math.isnan(rate)
    return math.isfinite(numbers.get("eval", math.nan)) and not {"loss", "eval"} & set(blank)


def as_number(cell: Any) -> float | None:
    """Return the number that a cell holds, None for an empty one; text that is none raises a ValueError.

    Raises
    ------
    ValueError
        It holds text, true or false, or a number beyond floats.
    """
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    if isinstance(cell, bool):
        raise ValueError(f"{cell} is no number")
    try:
        return float(cell)
    except (TypeError, OverflowError):
        raise ValueError(f"{cell!r} is no number") from None


def number_hint(cell: Any) -> str:
    """Return the way out for a cell that is no number.

    >>> number_hint("1,000"), number_hint("2,71"), number_hint("x")
    ('write it without commas', 'write it with a decimal point', 'correct it')
    """
    if isinstance(cell, str) and _THOUSANDS.fullmatch(cell.strip()):
        return "write it without commas"
    return (
        "write it with a decimal point" if isinstance(cell, str) and _DECIMAL.fullmatch(cell.strip()) else "correct it"
    )


def delimiter_of(head: str) -> str:
    """Return what parts the cells of a table, by its first line.

    >>> delimiter_of("step,loss"), delimiter_of("step;loss")
    (',', ';')
    """
    return next((mark for mark in "\t;" if mark in head and "," not in head), ",")


def check_updates(updates: float) -> float:
    """Return the updates that one logged step counts, or refuse what is no finite number above 0.

    Raises
    ------
    InputError
        It is none.
    """
    if not (math.isfinite(updates) and updates > 0):
        raise InputError(
            f"updates_per_step must be a finite number above 0, got {updates!r}; 10 is that of log calls made every 10 "
            "updates, 1/4 that of micro-batches of which 4 make an update"
        )
    return updates


def updates_done(step: float, updates: float) -> float:
    """Return the updates done at a logged step that counts as `updates` of them, rounded down to whole ones.

    Raises
    ------
    TableError
        They are more than a float holds.

    >>> updates_done(30, 1 / 4), updates_done(30, 1 / 3), updates_done(7, 10)
    (7.0, 10.0, 70.0)
    """
    if updates == 1.0:
        return step
    done = step * updates * (1 + 1e-12) + 1e-9
    if not math.isfinite(done):
        raise TableError(f"steps must be finite, got {step:g} times {updates:g} updates; correct --updates-per-step")
    return float(math.floor(done))
