"""The command that puts our law and rival laws to the user's own runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import click

from optlaws import report
from optlaws.commands.core import training_tables
from optlaws.commands.shared import ticking, write_text
from optlaws.compare import OURS, Comparison, Difference, Row, SplitResult, compare_laws, verdict
from optlaws.compare.run import INTERRUPTED
from optlaws.runs import atomic_write
from optlaws.validation import SMALLEST_POOL

CODE = 130  # interrupted
TITLES = {
    "horizon": "Longer runs held out",
    "size": "Larger models held out",
    "family": "Each kind of schedule left out",
    "peak": "Each peak rate left out",
}
NO_SPLIT = {"horizon": "longer runs", "size": "larger models", "family": "kinds of schedules", "peak": "peak rates"}
HEAD = ("law", "runs", "error %", "beside ours", "worst %", "Spearman", "Top-2", "regret %", "90 % covers", "fit s")
LEGEND = (
    "* lowest error or regret, highest Spearman or Top-2, of those that predicted all held-out runs. Spearman: rank"
    " correlation within pools, their mean. Top-2: pools whose best candidate is among the two predicted lowest; where"
    " a law predicts candidates alike, their order is drawn many times, and the mean may be a fraction, like 1.2 of 2."
    " Regret: how far the candidate predicted lowest ends above the best. -: the law does not say, as one that predicts"
    " all candidates of a pool alike does not rank them; rivals have intervals with --intervals only. Beside ours: mean"
    " error minus that of optlaws on the same runs, and half the width of its 90 % interval. (...): no law, a line to"
    " compare with."
)


def compare(
    runs: Sequence[str],
    curves: Sequence[str],
    laws: str | None,
    splits: str | None,
    seconds: float,
    intervals: bool,
    style: str,
    output: str,
    headers: Mapping[str, str] | None = None,
    full: bool = False,
    basis: Sequence[str] = (),
) -> int:
    """Compare laws on run tables (and curve tables), write what came out, and return the exit code.

    It is 130 after Ctrl-C, when what was finished by then is written.
    """
    table, readings = training_tables(runs, curves, None, output, headers)
    with ticking("compare") as tick:
        found = compare_laws(
            table, readings, laws=_names(laws), splits=_names(splits), seconds=seconds, intervals=intervals,
            progress=tick, partial=True, bases=basis,
        )  # fmt: skip
    if style == "json":
        write_text(output, report.to_json(record(found)))
    elif style == "csv":
        rows = [
            {"split": split.name, "held_out": split.held_out, **_flat(row)}
            for split in found.splits
            for row in split.rows
        ]
        with atomic_write(output) as stream:
            report.write_csv(stream, {key: [row[key] for row in rows] for key in rows[0]})
    else:
        write_text(output, _text(found, full or found.interrupted))  # what is cut short, too
    if not found.interrupted:
        return 0
    left = [name for name, why in found.not_compared.items() if why.startswith(INTERRUPTED)]
    what = f"without {', '.join(left)}" if left else "not in full"
    click.echo(f"optlaws: interrupted; what was finished is written, {what}", err=True)
    return CODE


def _names(text: str | None) -> list[str] | None:
    """Return the names of a list like a,b."""
    return None if text is None else [part.strip() for part in text.split(",")]


def record(found: Comparison) -> dict[str, Any]:
    """Return what JSON says of a comparison."""
    return {
        "n_runs": found.runs,
        "n_left_out": found.unfinished,
        "n_curves": found.curves,
        "splits": [
            {
                "name": split.name,
                "folds": list(split.folds),
                "held_out": split.held_out,
                "pools": split.pools,
                "laws": [_figures(row) for row in split.rows],
            }
            for split in found.splits
        ],
        "not_split": dict(found.no_split),
        "not_compared": dict(found.not_compared),
        "warnings": dict(found.warned),
        "verdict": verdict(found),
    }


NAMES = {
    "error": "mean_error_pct",
    "worst": "max_error_pct",
    "spearman": "pool_spearman",
    "hits": "top2_hits",
    "regret": "regret_pct",
}


def _figures(row: Row) -> dict[str, Any]:
    return {
        "law": row.law,
        "kind": row.kind,
        "n_runs": row.runs,
        "folds": row.folds,
        "mean_error_pct": row.error,
        "max_error_pct": row.worst,
        "pool_spearman": row.spearman,
        "top2_hits": row.hits,
        "pools": row.pools,
        "regret_pct": row.regret,
        "coverage": row.cover,
        "fit_seconds": row.seconds,
        "error_beside_ours": _interval(row.error_difference),
        "regret_beside_ours": _interval(row.regret_difference),
        "best": [NAMES[key] for key in row.best],
        "reason": row.reason,
    }


def _interval(found: Difference | None) -> dict[str, float] | None:
    return None if found is None else found._asdict()


def _flat(row: Row) -> dict[str, Any]:
    """Return the figures as cells of a table."""
    out: dict[str, Any] = {}
    for key, value in _figures(row).items():
        if key.endswith("_beside_ours"):
            for end in Difference._fields:
                out[f"{key}_{end}"] = math.nan if value is None else value[end]
        else:
            out[key] = " ".join(value) if isinstance(value, list) else value
    return out


def _text(found: Comparison, full: bool = False) -> str:
    """Return the verdict, then the tables, then what is missing in them; which laws lack what only if it is `full`."""
    with_curves = f", {found.curves} of them with a curve" if found.curves else ""
    left_out = (
        f" ({found.unfinished} more left out: diverged, interrupted or without a loss)" if found.unfinished else ""
    )
    said = verdict(found)  # nothing without rivals
    lines = [said, ""] if said else []
    lines += [f"{found.runs} runs{with_curves}{left_out}. Every law is fitted anew in every fold."]
    for split in found.splits:
        lines += ["", *_table(split)]
    lines += ["", LEGEND]
    partly: dict[tuple[str, str], list[str]] = {}
    for split in found.splits:
        for row in split.rows:
            if row.reason:
                partly.setdefault((row.law, row.reason), []).append(split.name)
    for title, notes in (
        ("Not compared", _grouped(found.not_compared)),
        ("Not split by", [f"{NO_SPLIT[name]}: {why}" for name, why in found.no_split.items()]),
        ("Warnings", [f"{law}: {text}" for law, text in found.warned.items()]),
        ("Not in full", [f"{law} ({', '.join(names)}): {why}" for (law, why), names in partly.items()] if full else []),
    ):
        if notes:
            lines += ["", f"{title}:", *(f"- {note}" for note in notes)]
    if partly and not full:
        laws = len({law for law, _ in partly})
        lines += ["", f"Not in full: {laws} law{'s' * (laws > 1)} in one split or more; --full lists which and why."]
    return "\n".join(lines) + "\n"


def _grouped(reasons: Mapping[str, str]) -> list[str]:
    """Return reasons with the laws that each holds for, ours first."""
    laws: dict[str, list[str]] = {}
    for law in sorted(reasons, key=lambda name: name != OURS):
        laws.setdefault(reasons[law], []).append(law)
    return [f"{', '.join(names)}: {why}" for why, names in laws.items()]


def _table(split: SplitResult) -> list[str]:
    """Return the lines of one split."""
    which = split.folds[0] if len(split.folds) == 1 else f"{len(split.folds)} folds"
    pools = f"{split.pools or 'no'} pool{'s' * (split.pools > 1)} of {SMALLEST_POOL} or more to rank in"
    bands = " (neighbours together)" if split.name == "peak" and " .. " in split.folds[0] else ""
    lines = [f"{TITLES[split.name]}{bands}: {which}; {split.held_out} runs held out, {pools}"]
    rows = [_cells(row, split) for row in split.rows]
    rows = [row for row in rows if set(row[1:-1]) != {"-"}]  # why there are none stands below
    shown = [i for i, head in enumerate(HEAD) if i < 2 or any(row[i] != "-" for row in rows)]
    rows = [[row[i] for i in shown] for row in rows]
    right = [i > 0 for i in shown]
    return lines + report.text_table([HEAD[i] for i in shown], rows, right).splitlines()


def _cells(row: Row, split: SplitResult) -> list[str]:
    def cell(key: str, text: str) -> str:
        value = getattr(row, key)
        return "-" if not math.isfinite(value) else text + ("*" if key in row.best else " ")

    beside = row.error_difference
    part = "" if row.runs in (0, split.held_out) else f" of {split.held_out}"
    hits = f"{row.hits:.1f}".removesuffix(".0")
    return [
        f"({row.law})" if row.kind == "reference" else row.law,
        f"{row.runs}{part}" if row.runs else "-",
        cell("error", _percent(row.error, 3)),
        "-" if beside is None else _beside(beside),
        cell("worst", _percent(row.worst, 2)),
        cell("spearman", f"{row.spearman:.3f}"),
        cell("hits", f"{hits} of {row.pools}"),
        cell("regret", f"{row.regret:.3f}"),
        "-" if math.isnan(row.cover) else f"{100 * row.cover:.0f} %",
        "-" if math.isnan(row.seconds) else f"{row.seconds:.2f}",
    ]


def _beside(beside: Difference) -> str:
    half = beside.upper - beside.mean
    return _percent(beside.mean, 3, "+") + (f" ± {_percent(half, 3)}" if math.isfinite(half) else "")


def _percent(value: float, digits: int, sign: str = "") -> str:
    return f"{value:{sign}.{digits}f}" if abs(value) < 1000 else f"{value:{sign}.2e}"
