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

from optlaws.errors import InputError
from optlaws.runs import CurveTable, RunTable, format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optlaws.harness import Progress, RunRecord

INTERRUPTED = 130
LEAST_READINGS = 5  # of a monitor, before its forecast is shown


def train(config: str, out: str | None, branch: str | None, restart: bool, law_name: str | None) -> int:
    """Train one run; return the exit code, which is 0 however the training itself went unless it was interrupted."""
    if importlib.util.find_spec("torch") is None:
        raise InputError(
            "optlaws train needs torch, which is not installed; install the extra"
            " train (pip install -e '.[train]' in the checkout)"
        )
    from optlaws.harness import read_config, read_record
    from optlaws.harness import train as train_run

    settings = read_config(config)
    folder = out or str(Path("runs") / settings.run_id)
    predict = _predictor(law_name) if law_name else None
    before = None if restart else read_record(folder)
    with _bar(settings.steps, settings.batch_tokens) as show:
        record = train_run(settings, folder, branch=branch, restart=restart, progress=show, predict=predict)
    if os.environ.get("RANK", "0") == "0":  # under torchrun the first of the processes speaks
        finished = before is not None and before.status != "interrupted"
        click.echo(_summary(record, folder, finished))
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

    The law gives the shape and the run the level: a monitor's forecast, as on another corpus than the law's.
    """
    from optlaws.commands.shared import quiet
    from optlaws.law import load_law
    from optlaws.monitor import Monitor

    law = load_law(law_name).on_other_corpus()
    watch: Monitor | None = None

    def predict(runs: RunTable, curve: CurveTable) -> float | None:
        nonlocal watch
        with quiet():
            if watch is None or not len(curve) or curve.step[-1] < watch.status.step:
                watch = Monitor(law, runs)
            fresh = (curve.step > watch.status.step) & (curve.loss > 0)
            for step, loss in zip(curve.step[fresh], curve.loss[fresh], strict=True):
                watch.update(step, loss)
            forecast = None if watch.status.diverged else watch.status.forecast
        return forecast.loss if forecast is not None and forecast.readings >= LEAST_READINGS else None

    return predict


@contextmanager
def _bar(steps: int, batch_tokens: int) -> Iterator[Callable[[Progress], None]]:
    """Show a progress bar on standard error where it is a terminal, else a line now and then."""
    from tqdm import tqdm

    from optlaws.commands.lines import Lines

    bar: Any = tqdm(total=steps, desc="train", unit="step", leave=False, disable=None)
    lines = Lines()

    def show(now: Progress) -> None:
        lines.say(lambda: f"step {now.step} of {now.steps}, {_words(now)}")
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


def _summary(record: RunRecord, folder: str, before: bool) -> str:
    """Return how a run ended, in two lines; `before`: it had ended already, and nothing was trained."""
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
    origin = runs.extra.get("branched_from", ("",))[0]
    if origin:
        words += f", branched from {origin}"
    if before:
        return f"{record.run_id}: {words}\nIt was finished before, in {folder}; --restart trains it anew."
    again = " The same command goes on from there." if record.status == "interrupted" else ""
    return f"{record.run_id}: {words}\nWrote {Path(folder) / 'run.csv'} and curve.csv beside it.{again}"
