"""Which of a file's headers may be meant by the columns of a run table: the way out where these are missing."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Sequence

from optlaws.runs._names import EVAL_NAMES, LOSS_NAMES, RUN_NAMES, TOKEN_NAMES, name_key

_LIKE: dict[str, tuple[str, ...]] = {
    "run_id": RUN_NAMES,
    "params": (
        "params", "non_emb_params", "nonemb_params", "non_embedding_params", "n_params", "num_params", "parameters",
        "non_embedding_parameters", "model_params", "model_size", "size",
    ),
    "tokens": (*TOKEN_NAMES, "training_tokens", "token_budget"),
    "steps": ("steps", "train_steps", "training_steps", "total_steps", "max_steps", "num_steps", "updates"),
    "batch_tokens": ("batch_tokens", "tokens_per_batch", "tokens_per_step", "batch_size_tokens", "global_batch_tokens"),
    "seq_len": ("seq_len", "seq_length", "sequence_length", "context_length", "context", "ctx", "block_size"),
    "optimizer": ("optimizer", "optimiser", "optim"),
    "weight_decay": ("weight_decay", "wd"),
    "family": (
        "schedule", "scheduler", "lr_schedule", "lr_scheduler", "schedule_type", "scheduler_type", "lr_scheduler_type",
    ),
    "peak_lr": ("lr", "learning_rate", "peak_learning_rate", "max_lr", "max_learning_rate", "lr_max", "base_lr"),
    "warmup_steps": ("warmup_steps", "num_warmup_steps", "lr_warmup_steps", "warmup_iters", "warmup"),
    "min_lr": ("min_lr", "final_lr", "end_lr", "lr_min", "lr_end", "min_learning_rate"),
    "decay": ("decay", "decay_fraction", "decay_frac", "decay_ratio"),
    "status": ("status", "state", "outcome", "result"),
    "final_loss": ("final_loss", "final_eval_loss", "final_val_loss", *EVAL_NAMES, *LOSS_NAMES),
}  # fmt: skip
"""What columns are called elsewhere, likeliest first, as `name_key` gives it."""
_SEQUENCES = ("batch", "batch_size", "global_batch", "global_batch_size", "batch_seqs", "batch_sequences")
_UNIT = re.compile(r"\s*[(\[]\s*([a-z]*)\s*[)\]]\s*$", re.IGNORECASE)
_SCALES = {
    **dict.fromkeys(("k", "thousand", "thousands"), "1e3"),
    **dict.fromkeys(("m", "million", "millions"), "1e6"),
    **dict.fromkeys(("b", "bn", "g", "billion", "billions"), "1e9"),
    **dict.fromkeys(("t", "trillion", "trillions"), "1e12"),
}
_AS_GIVEN = re.compile(r"[\w.*/-]+")
_NEAR = 0.4  # how alike a header must be to a missing column to be called the nearest


def columns_advice(lost: Sequence[str], header: Sequence[str]) -> str:
    """Return the way out where columns of a run table are missing: `--columns` with the headers that may be meant.

    >>> columns_advice(["final_loss"], ["run_id", "schedule", "eval loss"])
    '; say which is which: --columns final_loss="eval loss"'
    """
    found = {}
    for name in (*_LIKE, *lost):
        if name in found or name in header or (name == "family" and "schedule" not in lost):
            continue
        if name in ("peak_lr", "warmup_steps", "min_lr", "decay") and "schedule" not in lost:
            continue
        meant = _meant(name, header)
        if meant:
            found[name] = meant
    for name in lost:
        if name not in found and not (name == "schedule" and "family" in found):
            close = difflib.get_close_matches(name, header, n=1, cutoff=_NEAR)
            found[name] = close[0] if close else "HEADER"
    said = " ".join(f"--columns {name}={_quoted(text)}" for name, text in found.items())
    return f"; say which is which: {said}"


def _meant(name: str, header: Sequence[str]) -> str:
    """Return the header that a column may be, or the product of headers, "" where none is known."""
    keys = {key: column for column in reversed(header) for key in {name_key(_UNIT.sub("", column)), name_key(column)}}
    column = next((keys[key] for key in _LIKE.get(name, ()) if key in keys), "")
    if name == "batch_tokens" and not column:
        rows = next((keys[key] for key in _SEQUENCES if key in keys), "")
        length = "seq_len" if "seq_len" in header else _meant("seq_len", header)
        return f"{rows}*{length}" if rows and length else ""
    unit = _UNIT.search(column)
    scale = _SCALES.get(unit[1].lower()) if unit else None
    return f"{column}*{scale}" if scale else column


def _quoted(text: str) -> str:
    """Return a word as a shell reads it."""
    if _AS_GIVEN.fullmatch(text):
        return text
    return shlex.quote(text) if set('"$`\\!') & set(text) else f'"{text}"'
