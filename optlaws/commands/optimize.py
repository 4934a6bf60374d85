"""The command that plans a schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click

from optlaws import report
from optlaws._advice import number_text, percent
from optlaws.commands.candidates import warn_of_small
from optlaws.commands.core import tell_nearer
from optlaws.commands.shared import (
    check_figure,
    check_outputs,
    elsewhere,
    keep_inputs,
    quiet,
    ticking,
    write_text,
)
from optlaws.errors import RiskError
from optlaws.law.domain import larger_note
from optlaws.optimize import FREE, Gain, Optimum, optimize_schedule, record

DRAWN = 6  # schedules in the figure, more where the cosine that the text compares with comes later


def optimize(
    law_name: str,
    style: str,
    plot: str | None,
    output: str | None,
    warmup: Sequence[float],
    outside_domain: bool,
    rising: bool,
    caution: float | None,
    other_corpus: bool,
    **settings: Any,
) -> None:
    """Find a schedule, write it, and print what it is compared with."""
    from optlaws.law import builtin_names, load_any_law
    from optlaws.ranking import with_elsewhere

    if plot:
        check_figure(plot)
    check_outputs(plot, output)
    if output:
        keep_inputs(output, law_name)
    law = elsewhere(load_any_law(law_name), other_corpus)
    if caution is not None:
        settings["caution"] = caution
    asked = [math.nan if settings[key] is None else settings[key] for key in ("params", "tokens", "batch_tokens")]
    with quiet(), ticking("schedules") as tick:
        try:
            found = optimize_schedule(
                law, warmup=warmup or None, outside=outside_domain, monotone=not rising, progress=tick, **settings
            )
        except RiskError:  # which such sizes may be the cause of
            warn_of_small(*asked)
            raise
        if law_name in builtin_names():
            found = replace(found, ranking=with_elsewhere(found.ranking, law))
    warn_of_small(*asked)
    if plot:
        from optlaws import plotting

        kinds = [schedule.kind for schedule in found.ranking.runs.schedule_tuple()]
        places = [place for place, row in enumerate(found.ranking.order.tolist(), 1) if kinds[row] == "cosine"]
        plotting.save_figure(plotting.rank_figure(found.ranking, limit=max([DRAWN, *places[:1]])), plot)
    if output:
        write_text(output, found.schedule.to_json() + "\n")
    if style == "json":
        text = report.to_json(record(found) | {"assumed": found.task.assumed, "families": _families(found)})
    elif style == "csv":
        text = _csv(found)
    else:
        text = _text(found, output)
    click.echo(text, nl=False, err=output == "-")
    if not found.ranking.in_domain.any():
        tell_nearer(law_name, found.ranking.runs)


def _families(found: Optimum) -> list[dict[str, Any]]:
    """Return the optimum and the best of every family as records, lowest predicted loss first."""
    ranking = found.ranking
    schedules = ranking.runs.schedule_tuple()
    return [
        one | {"chosen": one["name"] == found.family, "schedule": schedules[row].to_dict()}
        for one, row in zip(report.rank_records(ranking), ranking.order.tolist(), strict=True)
    ]


def _csv(found: Optimum) -> str:
    """Return the same as CSV, as `optlaws rank` writes it, with a column that says which one is the optimum."""
    lines = report.rank_csv(found.ranking).splitlines()
    marks = ["chosen", *("true" if one["chosen"] else "false" for one in _families(found))]
    return "\n".join(f"{line},{mark}" for line, mark in zip(lines, marks, strict=True)) + "\n"


def _text(found: Optimum, output: str | None) -> str:
    """Return header, table, gains, notes and advice for people."""
    lines = [report.rank_header(found.ranking, found.task.assumed), "", *_table(found), ""]
    lines += [_gain_text(gain, found) for gain in found.gains]
    there = report.elsewhere_note(found.ranking, found.ranking.names[found.ranking.best])
    lines += [*(f"Note: {note}." for note in found.notes), *([there] if there else [])]
    lines += ["", found.advice]
    larger = larger_note(getattr(found.task.law, "domain", {}), found.ranking.runs.size)
    lines += [larger] if larger else []
    if output in (None, "-"):
        lines += ["", str(found.schedule)] if output is None else []
    else:
        lines.append(
            f"Wrote {output}; `optlaws schedule {output}` prints its rates, `optlaws rank {output}` with the same"
            " --params, --tokens and --batch-tokens its loss."
        )
    return "\n".join(lines) + "\n"


def _table(found: Optimum) -> list[str]:
    """Return the optimum and the best of every family, lowest predicted loss first."""
    ranking = found.ranking
    digits = ranking.decimals
    header = ["", "family", "schedule", "loss", "90 % interval", "vs lowest", "P(best)"]
    header += [] if ranking.risk is None else ["risk"]
    rows = []
    for row in ranking.order.tolist():
        schedule = ranking.runs.schedule_tuple()[row]
        name = ranking.names[row]
        text = f"{len(schedule.rows)} straight pieces, peak {schedule.peak:g}" if name == FREE else str(schedule)
        ends = [number_text(float(end[row]), digits) for end in (ranking.lower, ranking.upper)]
        more = float(ranking.difference[row])
        cells = ["*" if name == found.family else "", name, text, number_text(float(ranking.loss[row]), digits)]
        cells += [" .. ".join(ends), number_text(more, digits, sign=True) if row != ranking.best else "-"]
        cells.append(percent(float(ranking.p_best[row])))
        if ranking.risk is not None:
            cells.append(report.risk_text(float(ranking.risk[row])))
        rows.append(cells)
    right = [name in ("loss", "vs lowest", "P(best)", "risk") for name in header]
    return report.text_table(header, rows, right).splitlines()


def _gain_text(gain: Gain, found: Optimum) -> str:
    """Return one comparison in words."""
    digits = max(found.ranking.decimals, 4)
    number, low, high = (number_text(x, digits, sign=True) for x in (-gain.gain, -gain.upper, -gain.lower))
    text = f"* against the best {gain.family}: {number}, 90 % interval {low} .. {high} (one run of each), lower with"
    return f"{text} probability {gain.odds}"
