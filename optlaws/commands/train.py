"""The command that trains: a configuration in, a run folder out."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from optlaws.errors import InputError
from optlaws.runs import CurveTable, RunTable, format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optlaws.harness import Progress, RunRecord

INTERRUPTED = 130
RECENT = 0.2  # the last part of a curve, by which a law's level is set to the run's
LEAST_READINGS = 5


def train(config: str, out: str | None, restart: bool, law_name: str | None) -> int:
    """Train one run; return the exit code, which is 0 however the training itself went unless it was interrupted."""
    if importlib.util.find_spec("torch") is None:
        raise InputError(
            "optlaws train needs torch, which is not installed; install the extra train (pip install 'optlaws[train]')"
        )
    # Threads that wait for one another would spin: on a machine that others use, tens of times slower than to sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from optlaws.harness import read_config
    from optlaws.harness import train as train_run

    settings = read_config(config)
    folder = out or str(Path("runs") / settings.run_id)
    predict = _predictor(law_name) if law_name else None
    with _bar(settings.steps, settings.batch_tokens) as show:
        record = train_run(settings, folder, restart=restart, progress=show, predict=predict)
    if os.environ.get("RANK", "0") == "0":  # under torchrun the first of the processes speaks
        click.echo(_summary(record, folder))
    return INTERRUPTED if record.status == "interrupted" else 0


def keys() -> str:
    """Return every setting of a configuration, with what it must be, its default and what it is, as text."""
    from optlaws.harness.keys import settings_of_a_run
    from optlaws.report import text_table

    blocks = []
    for heading, settings in settings_of_a_run():
        header = ["key", "default", "value", "what it is"]
        rows = [[one.key, one.default, one.rule, one.about] for one in settings]
        blocks.append(f"{heading}\n\n{text_table(header, rows, [False] * len(header))}\n")
    intro = (
        "Settings of a configuration (YAML or JSON). A key a.b is the key b of the mapping a; counts may be written\n"
        "like 85M or 512Ki; whatever is left out takes its default.\n"
    )
    return "\n".join([intro, *blocks])


def _predictor(law_name: str) -> Callable[[RunTable, CurveTable], float | None]:
    """Return a function that predicts the end of a run from its curve so far.

    The law gives the shape and the run the level: the law's final loss times the mean ratio of measured to predicted
    losses over the last part of the curve, once the warm-up is over.
    """
    from optlaws.commands.shared import quiet
    from optlaws.law import load_law

    law = load_law(law_name)

    def predict(runs: RunTable, curve: CurveTable) -> float | None:
        schedule = runs.schedule_tuple()[0]
        least = max(schedule.warmup_steps, (1 - RECENT) * (curve.step[-1] if len(curve) else 0), 1)
        recent = (curve.step > least) & np.isfinite(curve.loss)
        if recent.sum() < LEAST_READINGS:
            return None
        with quiet():
            steps = np.unique(np.append(curve.step[recent], float(schedule.total_steps)))
            along = law.predict_curve(runs, steps).loss
        return float(along[-1] * np.mean(curve.loss[recent] / along[: recent.sum()]))

    return predict


@contextmanager
def _bar(steps: int, batch_tokens: int) -> Iterator[Callable[[Progress], None]]:
    """Show a progress bar on standard error where it is a terminal."""
    from tqdm import tqdm

    bar: Any = tqdm(total=steps, desc="train", unit="step", leave=False, disable=None)

    def show(now: Progress) -> None:
        bar.n = now.step
        bar.set_postfix_str(_words(now), refresh=True)

    try:
        yield show
    finally:
        bar.close()


def _words(now: Progress) -> str:
    parts = [f"loss {now.loss:.4f}"]
    if math.isfinite(now.val_loss):
        parts.append(f"validation {now.val_loss:.4f}")
    if now.tokens_per_second:
        parts.append(f"{format_quantity(now.tokens_per_second, 3)} tokens/s")
    if now.mfu is not None:
        parts.append(f"MFU {100 * now.mfu:.1f} %")
    if now.predicted is not None:
        parts.append(f"predicted {now.predicted:.4f}")
    return ", ".join(parts)


def _summary(record: RunRecord, folder: str) -> str:
    """Return how a run ended, in two lines."""
    runs = record.runs
    tokens = format_quantity(record.steps_done * float(runs.batch_tokens[0]))
    words = f"{record.status} after {record.steps_done} of {int(runs.steps[0])} steps ({tokens} tokens)"
    if math.isfinite(record.final_loss):
        words += f", validation loss {record.final_loss:.4f}"
    floor, rate = runs.extra.get("entropy", ("",))[0], runs.extra.get("tokens_per_second", ("",))[0]
    if floor:
        words += f", entropy of the data {float(floor):.4f}"
    if rate:
        words += f", {format_quantity(float(rate), 3)} tokens/s"
    again = " The same command goes on from there." if record.status == "interrupted" else ""
    return f"{record.run_id}: {words}\nWrote {Path(folder) / 'run.csv'} and curve.csv beside it.{again}"
