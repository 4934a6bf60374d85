"""Types of options, and options that several commands share. Only click and the errors are imported here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from optlaws.errors import InputError, nearest

PARAMS, TOKENS = "Non-embedding parameters, like 85M", "Training tokens, like 2.56B"
BATCH = "Tokens a step: 512K is 512,000, 512Ki is 524,288"
DECAY, OPTIMIZER = "Weight decay, like 0.1", "Optimizer, like adamw"


class Commands(click.Group):
    """A group that suggests the nearest command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command named by the first argument."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = self.list_commands(ctx)
            raise click.UsageError(
                f"no command {args[0]!r}{nearest(args[0], known)} (commands: {', '.join(known)})", ctx
            )
        return super().resolve_command(ctx, args)


class Quantity(click.ParamType[float]):
    """A number that may be written like 85M, 2.56B, 512Ki or 1e9."""

    name = "number"

    def __init__(self, zero: bool = False) -> None:
        """Allow 0 with `zero`."""
        self.zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail with the sentence that says what is allowed."""
        from optlaws.runs import parse_quantity

        name = param.opts[0] if param else "value"
        return parse_quantity(value, name, zero=self.zero)


class Share(click.ParamType[float]):
    """A probability, or a share called so, from 0 to 1, which may be written like 5%."""

    def __init__(self, name: str = "probability") -> None:
        """Take what messages call it."""
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail with the sentence that says what is allowed."""
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
        except ValueError:
            share = -1.0
        if not 0.0 <= share <= 1.0:
            name = param.opts[0] if param else "value"
            raise InputError(f"{name} must be a {self.name} from 0 to 1, got {text!r}; write it like 0.05 or 5%")
        return share + 0.0  # -0 is 0


class Ratio(click.ParamType[float]):
    """A number above 0, which may be written like 1/4."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail with the sentence that says what is allowed."""
        text = str(value).strip()
        try:
            over, _, under = text.partition("/")
            ratio = float(over) / float(under or 1)
        except (ValueError, ZeroDivisionError):
            ratio = 0.0
        if not 0.0 < ratio < float("inf"):
            name = param.opts[0] if param else "value"
            raise InputError(f"{name} must be a number above 0, got {text!r}; write it like 10, 0.25 or 1/4")
        return ratio


def _headers(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    from optlaws.runs import parse_columns

    return parse_columns(texts)


def columns_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that names the headers of run tables that are called otherwise than ours."""
    text = 'Header of a run table for a column, like run_id="Run name", params="Size (M)*1e6"; may be repeated.'
    option = click.option("--columns", "headers", multiple=True, callback=_headers, metavar="NAME=HEADER", help=text)
    return option(command)


def log_columns(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how a log's steps and losses are to be read."""
    found = "[default: found by its name]"
    updates = "Updates a logged step counts: 10, or 1/4 for micro-batches of which 4 make one. [default: 1]"
    options = (
        click.option("--step-column", metavar="C", help=f"Column of the step. {found}"),
        click.option("--loss-column", metavar="C", help=f"Column of the loss, the final one, too. {found}"),
        click.option("--updates-per-step", type=Ratio(), metavar="X", help=updates),
    )
    for option in reversed(options):
        command = option(command)
    return command


class Each(click.ParamType[tuple[str | None, Any]]):
    """A value for all runs, or NAME=VALUE for one run or log: the name, None where there is none, and the value."""

    name = "value"

    def __init__(self, kind: click.ParamType[Any]) -> None:
        """Take the type of the value."""
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str | None, Any]:
        """Return name and value, or fail as the value's type does."""
        name, mark, text = str(value).rpartition("=")
        return name if mark else None, self.kind.convert(text, param, ctx)


def logged_sizes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say of logs what kind of runs they are of, each once or as NAME=VALUE for single ones."""
    of = "; NAME=VALUE for one log or run, may be repeated."
    options = (
        click.option("--schedule", multiple=True, metavar="SPEC", help=f"Schedule, where rates are not logged{of}"),
        click.option("--params", type=Each(Quantity()), multiple=True, metavar="N", help=f"{PARAMS}{of}"),
        click.option("--tokens", type=Each(Quantity()), multiple=True, metavar="D", help=f"{TOKENS}{of}"),
        click.option("--batch-tokens", type=Each(Quantity()), multiple=True, metavar="B", help=f"{BATCH}{of}"),
        click.option("--weight-decay", type=Each(Quantity(zero=True)), multiple=True, metavar="W", help=f"{DECAY}{of}"),
        click.option("--optimizer", type=Each(click.STRING), multiple=True, metavar="NAME", help=f"{OPTIMIZER}{of}"),
    )
    for option in reversed(options):
        command = option(command)
    return command


def sizes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what kind of run is meant."""
    return _with_sizes(command, "")


def open_sizes(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds the same options where they only fill what a candidate (`what`) leaves open."""
    return lambda command: _with_sizes(command, f", where {what} states none")


def _with_sizes(command: Callable[..., Any], where: str) -> Callable[..., Any]:
    options = (
        click.option("--params", type=Quantity(), metavar="N", help=f"{PARAMS}{where}."),
        click.option("--tokens", type=Quantity(), metavar="D", help=f"{TOKENS}{where}."),
        click.option("--batch-tokens", type=Quantity(), metavar="B", help=f"{BATCH}{where}."),
        click.option("--weight-decay", type=Quantity(zero=True), metavar="W", help=f"{DECAY}{where}."),
        click.option("--optimizer", metavar="NAME", help=f"{OPTIMIZER}{where}."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def max_risk_option(text: str, name: str = "max_risk") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the --max-risk option, None where it is not given."""
    return click.option("--max-risk", name, type=Share(), metavar="P", help=text)


DEFAULT_LAW = "llama-slimpajama"
ACCEPTED_RISK = "Accepted divergence risk; exit code 3 if all are above. [default: 0.05]"
warmup_option = click.option(
    "--warmup", type=Quantity(zero=True), multiple=True, metavar="W", help="Warm-up to try, in steps; may be repeated."
)
caution_option = click.option(
    "--caution",
    type=float,
    metavar="Z",
    help="Standard deviations that count against a schedule, 0 for none. [default: the half-width of a 90 % interval]",
)
seq_len_option = click.option(
    "--seq-len",
    type=Quantity(),
    metavar="L",
    help="Tokens of a sequence; proposed batches are whole ones. [default: the candidates', or 1024]",
)
other_corpus_option = click.option(
    "--other-corpus",
    is_flag=True,
    help="Count in intervals and odds that my corpus, tokenizer or kind of network is not the law's.",
)


def format_option(*choices: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the --format option; the first choice is the default."""
    return click.option("--format", "style", type=click.Choice(choices), default=choices[0], show_default=True)


def output_option(**settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the -o option."""
    chosen = settings if settings.get("required") else {"default": "-", **settings}
    return click.option("-o", "--output", metavar="FILE", **chosen)
