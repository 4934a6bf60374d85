"""The command that trains a grid of runs: a grid file in, a run table and a curve table out."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from optlaws.errors import InputError

if TYPE_CHECKING:
    from optlaws.harness.sweep import SweepProgress, SweepResult

INTERRUPTED = 130


def sweep(grid: str, out: str | None, stacked: str, workers: int, ray: bool, dry_run: bool) -> int:
    """Train a grid; return the exit code, 130 if runs are left to do."""
    if not dry_run and importlib.util.find_spec("torch") is None:
        raise InputError(
            "optlaws sweep needs torch, which is not installed; install the extra"
            " train (pip install -e '.[train]' in the checkout)"
        )
    from optlaws.harness.grid import read_grid

    planned = read_grid(grid)
    if dry_run:
        for one in planned:
            click.echo(f"{one.config.run_id}\t{one.block}\t{one.config.steps}\t{one.config.schedule.to_json()}")
        click.echo(f"{len(planned)} runs, {sum(one.config.steps for one in planned):,} updates", err=True)
        return 0
    if out is None:
        raise InputError("--out must be given, got nothing; name the folder of the sweep")
    from optlaws.harness.sweep import sweep as train_all

    most = _stack_sizes(stacked)
    with _bar(len(planned)) as show:
        result = train_all(planned, out, stacked=most, workers=workers, ray=ray, progress=show)
    click.echo(_summary(result))
    return 0 if result.whole else INTERRUPTED


def _stack_sizes(text: str) -> int | dict[str, int]:
    """Return the number, or the numbers by size, in a text like 8 or S=32,M=8."""
    found: dict[str, int] = {}
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        if not number.strip().isdecimal() or int(number) < 1 or (("=" in text) != bool(name.strip())):
            raise InputError(f"--stacked must be a number of at least 1, or one a size as in S=32,M=8, got {text!r}")
        found[name.strip()] = int(number)
    return found if "=" in text else found[""]


@contextmanager
def _bar(total: int) -> Iterator[Callable[[SweepProgress], None]]:
    """Show a progress bar on standard error where it is a terminal, else a line now and then."""
    from tqdm import tqdm

    from optlaws.commands.lines import Lines

    bar: Any = tqdm(total=total, desc="sweep", unit="run", leave=False, disable=None)
    lines = Lines()

    def show(now: SweepProgress) -> None:
        if now.record is not None:
            last = f"{now.record.run_id} {now.record.status}"
            lines.say(lambda: f"{now.done} of {total} runs are finished, the last one {last}")
        bar.n = now.done
        if now.record is not None:
            bar.set_postfix_str(f"{now.record.run_id} {now.record.status}")
        bar.refresh()

    try:
        yield show
    finally:
        bar.close()


def _summary(result: SweepResult) -> str:
    """Return what there is now, in two lines."""
    ends: dict[str, int] = {}
    for status in result.runs.status if result.runs else ():
        ends[status or "completed"] = ends.get(status or "completed", 0) + 1
    words = ", ".join(f"{count} {status}" for status, count in sorted(ends.items())) or "none finished"
    left = "" if result.whole else f" {result.total - result.done} are left; the same command goes on with them."
    return (
        f"{result.done} of {result.total} runs of the grid are finished, {result.trained} of them trained now.{left}\n"
        f"Wrote {result.folder / 'runs.csv'} ({words}) and curves.csv beside it."
    )
