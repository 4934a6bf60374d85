"""What several commands need: checks of outputs, progress, words for numbers."""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from optlaws._normal import NORMAL_90
from optlaws.commands.lines import Lines
from optlaws.errors import InputError, OptlawsWarning, told_otherwise
from optlaws.runs import (
    atomic_write,
    check_target,
    format_quantity,
)
from optlaws.runs._names import KIND_COLUMN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optlaws.law import Law
    from optlaws.law.baseline import BaselineFit
    from optlaws.runs import CurveTable, RunTable

_Item = TypeVar("_Item")
DELAY, SHOWN_EVERY = 2.0, 0.5  # seconds to the first sign of progress, and from sign to sign on a terminal
NAMED = 4  # runs of one kind in a warning
FINAL, CURVES = "the final losses", "the curves"
ERROR_NAMES = {
    "mean_error_pct": "mean error %",
    "max_error_pct": "max error %",
    "spearman": "Spearman over all",
    "pool_spearman": "within pools",
    "coverage": "90 % covers",
    "width_pct": "width %",
    "n_runs": "runs",
}


def check_figure(path: str) -> None:
    """Raise an `InputError` unless figures can be written under that name."""
    from optlaws.plotting import check_suffix

    check_suffix(path)


def check_outputs(*paths: str | None) -> None:
    """Raise an `InputError` before any work unless every output can be written, each to its own place."""
    seen: set[str] = set()
    for path in paths:
        if path is None:
            continue
        check_target(path)
        place = "-" if path == "-" else os.path.realpath(path)
        if place in seen and place != os.devnull:
            what = "standard output ('-')" if path == "-" else path
            raise InputError(f"every output must have its own place, got {what} twice; name another file")
        seen.add(place)


def keep_inputs(output: str, *inputs: str | None) -> None:
    """Raise an `InputError` if a table that is read would be replaced by what is written."""
    for path in inputs:
        if path and "-" not in (path, output) and os.path.realpath(path) == os.path.realpath(output):
            raise InputError(f"the output must not be a file that is read, got {output!r} for both; name another file")


def read_once(*inputs: str | None) -> None:
    """Refuse inputs of which more than one is standard input."""
    if inputs.count("-") > 1:
        raise InputError("standard input ('-') can be read only once, got it twice; give all but one input as files")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file whole, or standard output for "-"."""
    with atomic_write(path) as stream:
        stream.write(text)


@contextmanager
def quiet() -> Iterator[None]:
    """Drop the warnings on extrapolation and on what runs do not tell: the output says both."""
    with told_otherwise():
        yield


def progress(items: Iterable[_Item], what: str) -> Iterator[_Item]:
    """Show a progress bar on standard error after two seconds, where it is a terminal, else a line now and then."""
    from tqdm import tqdm

    rows, lines = list(items), Lines()
    for row, item in enumerate(tqdm(rows, desc=what, delay=DELAY, leave=False, disable=None)):
        lines.say(lambda row=row: f"{what}, {row} of {len(rows)}")  # type: ignore[misc]
        yield item


@contextmanager
def ticking(what: str) -> Iterator[Callable[[str], None]]:
    """Yield a function to call on every step: a line of progress from the second second on, which shows the time.

    It moves on a terminal, where it does so without steps as well; elsewhere there are `Lines`.
    """
    lines, over = Lines(), threading.Event()
    count, last = 0, ""

    def tick(word: str) -> None:
        nonlocal count, last
        count, last = count + 1, word

    def words() -> str:
        return f"{what}: {count} step{'s' * (count > 1)}, {last}" if count else what

    def show() -> None:
        if over.wait(DELAY):
            return
        from tqdm import tqdm

        with tqdm(bar_format="{desc} [{elapsed}]", delay=DELAY, leave=False, disable=None) as bar:
            bar.start_t = getattr(bar, "start_t", 0.0) - DELAY
            while True:
                bar.set_description_str(words())
                lines.say(words)
                if over.wait(SHOWN_EVERY):
                    return

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield tick
    finally:
        over.set()
        thread.join()


def amount(name: str, value: float) -> str:
    """Return a size for people: a weight decay as it is, counts like 85M."""
    return f"{value:g}" if name == "weight_decay" else format_quantity(value)


def tell_assumed(assumed: Mapping[str, float]) -> None:
    """Say on standard error which values the law assumed where the table leaves them empty."""
    if assumed:
        values = ", ".join(f"{name} {amount(name, value)}" for name, value in assumed.items())
        click.echo(f"optlaws: note: assumed where the table says nothing: {values}", err=True)


def tell_kinds(losses: Mapping[str, Mapping[str, str]]) -> None:
    """Warn which runs have training and which evaluation losses, where one table has both.

    Parameters
    ----------
    losses
        By what has them, in words and the plural: of every run by name "training", "evaluation" or "" (not known).
    """
    said: dict[str, list[str]] = {}
    for what, kinds in losses.items():
        groups: dict[str, list[str]] = {}
        for name, kind in kinds.items():
            groups.setdefault(kind, []).append(name)
        groups.pop("", None)
        if len(groups) > 1:
            parts = [
                f"{kind} losses of {', '.join(map(repr, names[:NAMED]))}"
                + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
                for kind, names in sorted(groups.items())
            ]
            said.setdefault(" with ".join(parts), []).append(what)
    for text, mixed in said.items():
        warnings.warn(
            OptlawsWarning(
                f"{' and '.join(mixed)} mix {text}: a law takes their difference for one of the runs; import all of one"
                " kind (--loss-column), or fit each kind on its own"
            ),
            stacklevel=2,
        )


def tell_kinds_of(runs: RunTable, curves: CurveTable | None = None) -> None:
    """Do so for tables that were read, by the column `loss_kind` that `optlaws import` writes."""
    losses = {}
    if KIND_COLUMN in runs.extra:
        losses[FINAL] = dict(zip(runs.run_id, runs.extra[KIND_COLUMN], strict=True))
    if curves is not None and KIND_COLUMN in curves.extra:
        losses[CURVES] = dict(zip(curves.run_id, curves.extra[KIND_COLUMN], strict=True))
    tell_kinds(losses)


def tell_doubts(law: Any) -> None:
    """Say on standard error what made a rival law doubtful when it was fitted, and what a law does not look at."""
    flags = (("params", "use_params"), ("batch_tokens", "use_batch"))
    unknown = [name for name, flag in flags if not getattr(law, flag, True)]
    if unknown:
        click.echo(
            f"optlaws: note: law {law.name!r} was fitted without {' and '.join(unknown)}: it holds for runs that are"
            " like its own in that, and says the same of all others",
            err=True,
        )
    from optlaws.law.misfit import COLUMNS

    info = getattr(law, "info", {})
    few = info.get("n_configurations", COLUMNS)
    if few < COLUMNS and not info.get("n_curves"):
        click.echo(
            f"optlaws: note: law {law.name!r} was fitted to {few} different runs, fewer than it has columns: its priors"
            " decide much of what it says, intervals and P(best) too",
            err=True,
        )
    found = info.get("doubts")
    if found:
        click.echo(f"optlaws: note: law {law.name!r} is doubtful: {'; '.join(found)}", err=True)


def stem(output: str) -> str:
    """Return the name that a law gets from its file."""
    return "law" if output == "-" else Path(output).stem


def figure_of(axes: Any) -> Any:
    """Return the figure that axes are on."""
    return axes.figure


def errors_text(errors: dict[str, Any]) -> str:
    """Return the errors of a left-out split in words."""
    parts = [f"{ERROR_NAMES.get(key, key)} {error_text(key, value)}" for key, value in errors.items()]
    return ", ".join(parts)


def error_text(key: str, value: Any) -> str:
    """Return one error of a left-out split as a number with its unit."""
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    if key == "coverage":
        return f"{100 * value:.0f} %"
    return f"{value:.0f}" if key == "n_runs" else f"{value:.3g}"


def units_text(law: Law) -> str:
    """Return a sentence on the units that a law has from its own runs; empty if it is in the usual ones."""
    if not law.info.get("units"):
        return ""
    values = ", ".join(f"{key} {value:.4g}" for key, value in law.info["units"].items())
    why = "are not AdamW's" if set(law.info["units"]) == {"lr_ref"} else "are far smaller than language models"
    return f"These runs {why}; the law is in units of their own: {values}."


def optimizers_text(law: Law) -> list[str]:
    """Return a sentence for every other optimizer that a law knows, with 90 % intervals; none: []."""
    known = getattr(law, "optimizers", None)
    if known is None:
        return []
    lines, sides = [], (-NORMAL_90, 0.0, NORMAL_90)
    for name, one in known.others.items():
        (rate_var, _), (_, loss_var) = one.covariance
        rate = [f"{one.rate * math.exp(side * math.sqrt(rate_var)):.3g}" for side in sides]
        loss = [f"{100 * math.expm1(one.log_loss + side * math.sqrt(loss_var)):+.2f}" for side in sides]
        lines.append(
            f"{name} ({one.runs} runs): a rate of it counts as {rate[1]} times that rate ({rate[0]} .. {rate[2]}) of"
            f" {known.own}, where its loss differs by {loss[1]} % ({loss[0]} .. {loss[2]}; 90 % intervals)."
        )
    return lines


def elsewhere(law: Law | BaselineFit, asked: bool) -> Law | BaselineFit:
    """Return the law, with the uncertainty that it has on another corpus where that is asked for."""
    if not asked:
        return law
    if not hasattr(law, "on_other_corpus"):
        raise InputError(
            f"--other-corpus needs a law of this package's basis, got {law.name!r}, a rival law; leave the option out"
        )
    return law.on_other_corpus()
