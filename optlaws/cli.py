"""The command line: reads and writes files, and leaves all work to the layers below.

Exit codes: 0 done, 2 bad input (one sentence on standard error), 3 every candidate too likely to diverge or a monitored
run that has diverged, 130 and 143 stopped, 1 failure. Only click, the options and the errors are imported here; every
command imports what it needs when it runs.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from optlaws._version import __version__
from optlaws.commands.options import (
    ACCEPTED_RISK,
    DEFAULT_LAW,
    Commands,
    Quantity,
    Share,
    caution_option,
    columns_option,
    format_option,
    log_columns,
    logged_sizes,
    max_risk_option,
    open_sizes,
    other_corpus_option,
    output_option,
    seq_len_option,
    sizes,
    warmup_option,
)
from optlaws.commands.stopping import CODE, Terminated, terminable
from optlaws.errors import InputError, OptlawsError, OptlawsWarning, ReadingNote, RiskError

DEBUG = "OPTLAWS_DEBUG"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", prog_name="optlaws")
def cli() -> None:
    """Predict the final loss of a language-model training run, for any learning-rate schedule, before paying for it.

    A schedule is written like wsd:peak=1e-3,steps=25000,warmup=300,decay=0.2, as JSON, or in a YAML, JSON or CSV file;
    "-" reads standard input.
    """


@cli.command()
@click.argument("candidates", nargs=-1, required=True, metavar="CANDIDATES...")
@click.option(
    "--law",
    "law_name",
    metavar="LAW",
    help=f"Built-in law or law file. [default: {DEFAULT_LAW}, or the built-in law that has seen such runs]",
)
@open_sizes("a candidate")
@format_option("table", "csv", "json")
@click.option("--plot", metavar="FILE", help="Write a figure (.png, .pdf, .svg).")
@click.option("--html", metavar="FILE", help="Write one self-contained page.")
@click.option("--curves", is_flag=True, help="Add predicted loss curves to the figure, the page and the JSON.")
@max_risk_option("Leave out candidates likelier than this to diverge; exit code 3 if all are.")
@other_corpus_option
@output_option(help="Write the ranking there instead of to standard output.")
@columns_option
def rank(**options: Any) -> None:
    """Rank candidate schedules by predicted final loss.

    A schedule without steps=... gets tokens / batch-tokens steps.
    """
    from optlaws.commands import core

    core.rank(**options)


@cli.command()
@click.option("--law", "law_name", default=DEFAULT_LAW, show_default=True, help="Built-in law or law file.")
@sizes
@click.option("--steps", type=Quantity(), metavar="T", help="Updates, warm-up and decay included.")
@click.option(
    "--knots", type=int, default=12, show_default=True, metavar="K", help="Pieces of the free schedule, or 0."
)
@click.option("--min-peak", type=Quantity(), metavar="LR", help="Lowest peak rate. [default: the law's lowest]")
@click.option("--max-peak", type=Quantity(), metavar="LR", help="Highest peak rate. [default: the law's highest]")
@click.option("--min-lr", type=Quantity(zero=True), default=0.0, metavar="LR", help="Lowest rate a decay may reach.")
@warmup_option
@max_risk_option(ACCEPTED_RISK)
@click.option("--outside-domain", is_flag=True, help="Allow schedules unlike those that the law was trained on.")
@click.option("--rising", is_flag=True, help="Let the free schedule rise again after its warm-up.")
@other_corpus_option
@caution_option
@format_option("table", "csv", "json")
@click.option("--plot", metavar="FILE", help="Write a figure (.png, .pdf, .svg).")
@click.option("-o", "--output", metavar="SCHEDULE.json", help="Write the schedule there, as JSON.")
def optimize(**options: Any) -> None:
    """Find the schedule of lowest predicted final loss for one run.

    First the best member of every family, then a free schedule refined from it. The search stays inside the law's
    training domain, and a gain counts only where the law is sure of it.
    """
    from optlaws.commands import optimize as command

    command.optimize(**options)


@cli.command()
@click.argument("candidates", nargs=-1, required=True, metavar="CANDIDATES...")
@click.option("--runs", "count", type=int, default=12, show_default=True, metavar="K", help="How many runs to choose.")
@click.option("--pool", multiple=True, metavar="POOL", help="Runs that can be made, as candidates. May be repeated.")
@click.option("--sizes", metavar="N,N", help="Sizes of proposed runs. [default: 1/64 to 1/8 of the candidates']")
@seq_len_option
@click.option("--have", metavar="RUNS", help="Run table of finished runs to build on.")
@click.option("--budget", type=Quantity(), metavar="C", help="FLOPs that the chosen runs may cost together, like 1e19.")
@open_sizes("a candidate")
@max_risk_option(ACCEPTED_RISK)
@format_option("table", "csv", "json")
@click.option("--plot", metavar="FILE", help="Write a figure (.png, .pdf, .svg).")
@click.option("-o", "--output", metavar="RUNS", help="Write the chosen runs there, as a run table without losses.")
@columns_option
def design(**options: Any) -> None:
    """Choose the small runs that would teach most about the candidates.

    CANDIDATES are the runs to be predicted, as in `optlaws rank`. Without --pool small runs about them are proposed.
    """
    from optlaws.commands import design as command

    command.design(**options)


@cli.command()
@click.option("--law", "law_name", metavar="LAW", help="Built-in law, law file, or a published law like step_law.")
@click.option("--from", "runs", metavar="RUNS", help="Fit the law on this run table first.")
@sizes
@warmup_option
@max_risk_option(ACCEPTED_RISK)
@other_corpus_option
@caution_option
@format_option("table", "csv", "json")
@click.option("--plot", metavar="FILE", help="Write a figure (.png, .pdf, .svg).")
@output_option(help="Write there instead of to standard output.")
@columns_option
def recommend(**options: Any) -> None:
    """Recommend peak rate, batch, warm-up and schedule for N parameters and D tokens.

    Published laws of the best rate stand beside it. Without --law it is the built-in law that has seen most such runs.
    """
    from optlaws.commands import recommend as command

    command.recommend(**options)


@cli.command()
@click.argument("law_name", metavar="LAW")
@click.argument("candidates", nargs=-1, required=True, metavar="RUNS|CANDIDATES...")
@open_sizes("a candidate")
@click.option("--width", type=Quantity(), metavar="W", help="Width of the network (d_model), where it is not said.")
@format_option("table", "csv", "json")
@max_risk_option("Accepted divergence risk, 0.05 where it is not given; if it is given, exit code 3 if all are above.")
@click.option("--plot", metavar="FILE", help="Write a map of the risk about the first candidate (.png, .pdf, .svg).")
@click.option(
    "--over", type=click.Choice(["warmup", "batch"]), default="warmup", show_default=True, help="Map's other axis."
)
@output_option(help="Write there instead of to standard output.")
@columns_option
def risk(**options: Any) -> int:
    """Say how likely runs are to diverge, why, and what smallest change makes them safe.

    RUNS is a run table, CANDIDATES are schedules as in `optlaws rank`.
    """
    from optlaws.commands import risk as command

    return command.risk(**options)


@cli.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUNS...")
@click.option("--curves", multiple=True, metavar="CURVES", help="Curve table: run_id, step, loss. May be repeated.")
@click.option(
    "--group",
    metavar="COLUMN",
    help="Column whose groups are left out in turn for errors and widths; or family, horizon, peak, size, batch.",
)
@click.option("--basis", metavar="ID", help="Basis to fit; the default one if left out.")
@click.option(
    "--calibrate", metavar="NAMES", help="Exponents of the basis to fit too, like aN,aT; for many clean runs."
)
@click.option("--name", metavar="NAME", help="Name of the law; the output file's name if left out.")
@click.option(
    "--law", "kind", metavar="RIVAL", help="Fit a rival law instead, such as chinchilla; a wrong name lists all."
)
@click.option(
    "--monitor", is_flag=True, help="Learn from CURVES how runs depart from the law, for optlaws monitor; fits again."
)
@output_option(required=True, help="Law file to write.")
@columns_option
def fit(**options: Any) -> None:
    """Fit a law to training runs and write it as one JSON file."""
    from optlaws.commands import baselines, core

    if options["kind"] is None:
        del options["kind"]
        core.fit(**options)
    else:
        baselines.fit(**options)


@cli.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUNS...")
@click.option("--curves", multiple=True, metavar="CURVES", help="Curve table: run_id, step, loss. May be repeated.")
@click.option("--laws", metavar="NAMES", help="Rivals, like chinchilla,step_law. [default: all]")
@click.option("--basis", multiple=True, metavar="ID", help="Our law with another basis, too. May be repeated.")
@click.option("--splits", metavar="NAMES", help="Of horizon,size,family,peak. [default: all that RUNS allow]")
@click.option("--seconds", type=float, default=30, show_default=True, help="Most time for the fits of one law.")
@click.option("--intervals", is_flag=True, help="Give rivals intervals, too; several times slower.")
@click.option("--full", is_flag=True, help="List, too, which laws are not in full in a table, and why.")
@format_option("text", "json", "csv")
@output_option(help="Write there instead of to standard output.")
@columns_option
def compare(**options: Any) -> int:
    """Fit our law and rival laws to parts of your runs and say how well each predicts the rest.

    Ctrl-C writes what is finished by then; the exit code is 130.
    """
    from optlaws.commands import compare as command

    return command.compare(**options)


@cli.command()
@click.argument("law_name", metavar="LAW")
@click.argument("runs", metavar="RUNS")
@click.option(
    "--curves",
    is_flag=False,
    flag_value="",
    default=None,
    metavar="[FILE]",
    help="Predict along the curve: at the (run_id, step) pairs in FILE, or at 200 steps a run without one.",
)
@other_corpus_option
@output_option(required=True, help="Table to write: .csv, .jsonl, .parquet, or -.")
@columns_option
def predict(**options: Any) -> None:
    """Predict the loss of every run in a table.

    Adds predicted_loss, lower, upper, divergence_risk and in_domain to the columns of RUNS, and says how far the law
    was off where these have final losses.
    """
    from optlaws.commands import core

    core.predict(**options)


@cli.command()
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@open_sizes("a candidate")
@click.option("--basis", metavar="ID", help="Basis to use; the default one if left out.")
@format_option("table", "csv", "json")
@output_option(help="Write there instead of to standard output.")
@columns_option
def features(**options: Any) -> None:
    """Print the 16 columns of a basis for one or more schedules."""
    from optlaws.commands import show

    show.features(**options)


@cli.command()
@click.argument("spec", metavar="SPEC")
@format_option("csv", "json")
@click.option("--plot", metavar="FILE", help="Write a figure (.png, .pdf, .svg).")
@output_option(help="Write there instead of to standard output.")
def schedule(**options: Any) -> None:
    """Print a schedule, one row per step: step, lr (17 significant digits)."""
    from optlaws.commands import show

    show.schedule(**options)


@cli.command()
@click.argument("name", required=False)
@format_option("table", "json")
@output_option(help="Write there instead of to standard output.")
def laws(**options: Any) -> None:
    """List the built-in laws with their domains and errors, or show one (built-in or a law file)."""
    from optlaws.commands import show

    show.laws(**options)


def _keys(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from optlaws.commands import train as command

        click.echo(command.keys(), nl=False)
        ctx.exit()


@cli.command()
@click.argument("config", metavar="CONFIG")
@click.option("--out", metavar="DIR", help="Folder of the run; runs/NAME if left out.")
@click.option("--branch", metavar="RUN", help="Begin at a checkpoint of another run: its folder, or the file.")
@click.option("--restart", is_flag=True, help="Remove what an earlier run left in the folder.")
@click.option("--law", "law_name", metavar="LAW", help="Law to predict the final loss with; none is shown without.")
@click.option(
    "--keys",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_keys,
    help="List every setting of CONFIG and exit.",
)
def train(config: str, out: str | None, branch: str | None, restart: bool, law_name: str | None) -> int:
    """Train one model by a configuration (YAML or JSON) and write its row of a run table and its curve.

    Needs torch (extra train). The same command takes up an interrupted run, and leaves a finished one alone.
    """
    from optlaws.commands import train as command

    return command.train(config, out, branch, restart, law_name)


@cli.command()
@click.argument("grid", metavar="GRID")
@click.option("--out", metavar="DIR", help="Folder of the sweep, which may be taken up again.")
@click.option("--stacked", default="1", metavar="R", help="Runs at once as one program: 8, or by size: S=32,M=8.")
@click.option("--workers", type=click.IntRange(1), default=1, metavar="K", help="Processes at once on this machine.")
@click.option("--ray", is_flag=True, help="Run over a Ray cluster (extra cluster); DIR must be shared by its machines.")
@click.option("--dry-run", is_flag=True, help="Print the runs and train nothing.")
def sweep(grid: str, out: str | None, stacked: str, workers: int, ray: bool, dry_run: bool) -> int:
    """Train every run of a grid (YAML or JSON) and write DIR/runs.csv and DIR/curves.csv.

    Needs torch (extra train), --dry-run does not. Finished runs are not trained again, however the sweep was ended;
    exit code 130 says that runs are left.
    """
    from optlaws.commands import sweep as command

    return command.sweep(grid, out, stacked, workers, ray, dry_run)


@cli.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR|SWEEP...")
@click.option("--max-params", type=Quantity(), metavar="N", help="Fit up to this size. [default: lower half, or all]")
@click.option("--max-steps", type=Quantity(), metavar="T", help="Fit up to this horizon. [default: lower half, or all]")
@click.option("--fit-curves", is_flag=True, help="Fit the curves of the small and short runs as well.")
@max_risk_option("Flag runs above this risk. [default: 0.05]", "accepted")
@click.option("--law", metavar="FILE", help="Write the law that was fitted.")
@click.option("--out", "output", metavar="FOLDER", help="Write there. [default: the only DIR, else .]")
@columns_option
def validate(**options: Any) -> None:
    """Fit a law on the small and short runs of a folder, predict the rest, and say how well that went.

    Reads DIR/runs.csv, any run table, and DIR/curves.csv if it is there, or a built-in sweep such as cpu_sweep; of
    several all runs together. Writes validation.md, .csv and figures. With one limit alone nothing else is limited.
    """
    from optlaws.commands import validate as command

    command.validate(**options)


@cli.command("import")
@click.argument("logs", nargs=-1, required=True, metavar="LOG...")
@output_option(required=True, help="Curve table to write: .csv, .jsonl, .parquet, or -.")
@click.option("--runs", metavar="FILE", help="Run table to write, one row a run.")
@click.option("--run-id", metavar="ID", help="Name of the run; or the one to take, where a log has several.")
@log_columns
@click.option("--rate-column", metavar="C", help="Column of the learning rate. [default: found by its name]")
@logged_sizes
@click.option("--final-share", type=Share("share"), metavar="P", help="End of a curve that is averaged. [default: 1%]")
@click.option("--label", is_flag=True, help="Set status by the curve: completed, diverged or nonfinite.")
def import_logs(**options: Any) -> None:
    """Turn logs of past runs into the curve table and the run table that fit and monitor read.

    LOG is trainer_state.json of Hugging Face Trainer or its folder, a history or chart exported from W&B, TensorBoard's
    CSV of a scalar, Lightning's metrics.csv, or any CSV or JSON lines with a step and a loss.
    """
    from optlaws.commands import import_logs as command

    command.import_logs(**options)


@cli.command()
@click.argument("law_name", metavar="LAW")
@click.argument("candidate", metavar="RUN")
@click.option(
    "--log", required=True, metavar="FILE", help="CSV, JSON lines or trainer_state.json; - reads standard input."
)
@click.option("--run-id", metavar="NAME", help="The row of RUN, and the log's lines of this run.")
@log_columns
@click.option("--follow", is_flag=True, help="Go on reading until the run is over or has diverged.")
@click.option("--every", type=click.FloatRange(0.05), help="Seconds between looks while following. [default: 5]")
@click.option(
    "--stop-on",
    type=click.Choice(["divergence", "off-track"]),
    default="divergence",
    show_default=True,
    help="What the exit code 3 says: off-track = diverged or off its track.",
)
@other_corpus_option
@open_sizes("RUN")
@format_option("table", "json")
@output_option(help="Write there instead of to standard output.")
@columns_option
def monitor(**options: Any) -> int:
    """Re-forecast the final loss of a run from its log so far, and tell whether it has diverged or left its track.

    RUN is a schedule, a run table (of several rows --run-id chooses one), or the folder of a run of optlaws train,
    begun or over. The exit code is 3 if the run has diverged (see --stop-on).
    """
    from optlaws.commands import monitor as command

    return command.monitor(**options)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code: 0 done, 2 bad input, 3 too risky, 1 failure, 130 and 143 stopped."""
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is escaped, and stops nothing
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with terminable(), warnings.catch_warnings():
            warnings.simplefilter("always", OptlawsWarning)
            warnings.showwarning = _show_warning
            code = cli.main(args=None if args is None else list(args), prog_name="optlaws", standalone_mode=False)
            if sys.stdout is not None:
                sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as help_wanted:
        help_wanted.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except Terminated:
        return _fail("terminated", CODE)
    except click.ClickException as bad:
        context = getattr(bad, "ctx", None)
        hint = f" ({context.command_path} --help lists all options)" if context else ""
        return _fail(f"{_one_line(bad.format_message())}{hint}", 2)
    except BrokenPipeError:
        _drop_output()
        return 0
    except InputError as bad:
        return _debug() or _fail(_one_line(str(bad)), 2)
    except RiskError as bad:
        return _debug() or _fail(_one_line(str(bad)), 3)
    except OptlawsError as bad:
        return _debug() or _fail(_one_line(str(bad)), 1)
    except OSError as bad:
        _drop_output()
        where = f"{bad.filename}: " if bad.filename else ""
        return _debug() or _fail(f"{where}cannot read or write ({_one_line(bad.strerror or str(bad))})", 1)
    except MemoryError:
        return _debug() or _fail("not enough memory; rank fewer candidates at once", 1)
    except Exception as bad:
        text = _one_line(f"{type(bad).__name__}: {bad}")
        return _debug() or _fail(f"unexpected failure, {text}; set {DEBUG}=1 to see the traceback", 1)


def _fail(text: str, code: int) -> int:
    with contextlib.suppress(OSError):
        click.echo(f"optlaws: {text}", err=True)
    return code


def _debug() -> int:
    """Raise the current error again if the user asked for tracebacks."""
    if os.environ.get(DEBUG, "") not in ("", "0"):
        raise
    return 0


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _drop_output() -> None:
    """Point standard output to nowhere, so that Python's own flush at exit cannot fail again."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Print a warning of this package as one line on standard error; others only where tracebacks are wanted."""
    if issubclass(category, OptlawsWarning) or os.environ.get(DEBUG, "") not in ("", "0"):
        word = "note" if issubclass(category, ReadingNote) else "warning"
        click.echo(f"optlaws: {word}: {_one_line(str(message))}", err=True)
