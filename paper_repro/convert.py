"""Public files turned into the tables that the reproductions read."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

from optlaws.errors import TableError
from optlaws.runs import atomic_write

SEQUENCE = 128  # tokens of a sequence of the noisy-quadratic runs; the authors' B counts sequences
NQS_COLUMNS = ("N", "B", "K", "loss", "split", "type", "filtered")
NQS_HEAD = (
    "run_id", "source", "params", "active_params", "tokens", "steps", "batch_tokens", "seq_len", "optimizer", "beta1",
    "beta2", "weight_decay", "schedule", "status", "final_loss", "split", "kind", "filtered",
)  # fmt: skip


def nqs(public: Path, target: Path) -> None:
    """Write the run table of dataset.csv of chuningxdy/Noisy-Quadratic-System.

    Its README: Adam, cosine to 0 from 1e-3, warm-up 1 %, sequences of 128 tokens, batches in sequences.

    Raises
    ------
    TableError
        A column is missing or holds no number.
    """
    with public.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    missing = [name for name in NQS_COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise TableError(f"dataset.csv must have the columns {', '.join(NQS_COLUMNS)}, got none called {missing[0]!r}")
    out: list[list[object]] = []
    for i, row in enumerate(rows):
        try:
            size, batch, steps = int(row["N"]), int(row["B"]), int(row["K"])
            loss = float(row["loss"])
        except ValueError:
            raise TableError(f"dataset.csv must hold numbers N, B, K and loss, got others in row {i + 1}") from None
        schedule = {
            "kind": "cosine", "peak_lr": 1e-3, "total_steps": steps, "warmup_steps": max(1, round(0.01 * steps)),
            "final_lr": 0.0,
        }  # fmt: skip
        tokens = steps * batch * SEQUENCE
        out.append(
            [
                f"nqs-{i:03d}", "nqs2026", size, size, tokens, steps, batch * SEQUENCE, SEQUENCE, "adam", "", "", 0.0,
                json.dumps(schedule), "completed", loss, row["split"], row["type"], row["filtered"],
            ]
        )  # fmt: skip
    with atomic_write(target) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(NQS_HEAD)
        writer.writerows(out)


MAKERS: dict[str, Callable[[Path, Path], None]] = {"nqs": nqs}
"""Name of a converter -> (public file, table to write)."""
