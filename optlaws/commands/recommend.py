"""The command that recommends a setting for a run of N parameters on D tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from optlaws import report
from optlaws._advice import number_text, percent
from optlaws.baselines.advice import BAND, RivalAdvice, advice_of
from optlaws.baselines.advice import rival_advice as of_rival
from optlaws.commands.candidates import warn_of_small
from optlaws.commands.recommend_figure import draw
from optlaws.commands.shared import (
    check_figure,
    check_outputs,
    elsewhere,
    keep_inputs,
    quiet,
    tell_kinds_of,
    ticking,
    write_text,
)
from optlaws.errors import InputError, LawError
from optlaws.law.domain import larger_note
from optlaws.recommend import FLAT, TOO_FAR, FlatRange, Recommendation, choose_law, recommend_settings, too_far
from optlaws.runs import RunTable, format_quantity, read_runs

SHOWN = 5  # families in the table


def recommend(
    law_name: str | None,
    runs: str | None,
    style: str,
    plot: str | None,
    output: str,
    params: float | None,
    tokens: float | None,
    warmup: Sequence[float],
    other_corpus: bool,
    caution: float | None,
    headers: Mapping[str, str] | None = None,
    **settings: Any,
) -> None:
    """Write the recommendation, and the figure that was asked for."""
    for name, value in (("--params", params), ("--tokens", tokens)):
        if value is None:
            raise InputError(f"{name} must be given, got nothing; write it like 85M or 2.56B")
    if plot:
        check_figure(plot)
    check_outputs(plot, output)
    if runs == "":
        raise InputError("--from must be a run table, got ''; name a file, or leave it out")
    if headers and runs is None:
        raise InputError("--columns names headers of the table of --from, got no --from; add it or leave it out")
    keep_inputs(output, runs, law_name)
    table = None if runs is None else read_runs(runs, True, headers)
    if table is not None:
        tell_kinds_of(table)
    warn_of_small(float(params or 0), float(tokens or 0), settings["batch_tokens"] or math.nan)
    with quiet(), ticking("settings") as tick:
        law = _law(law_name, table, float(params or 0), float(tokens or 0), tick)
        if isinstance(law, RivalAdvice):
            given = {"plot": plot, "warmup": warmup or None, "other_corpus": other_corpus or None, "caution": caution}
            given |= settings
            for name in (key for key, value in given.items() if value is not None):
                raise InputError(
                    f"--{name.replace('_', '-')} needs a law of the loss, got {law_name!r}, which has none; leave one"
                    " of them out"
                )
            write_text(output, _rival_text(law, style, float(params or 0), float(tokens or 0)))
            return
        if caution is not None:
            settings["caution"] = caution
        if other_corpus:
            sizes = float(params or 0), float(tokens or 0), settings["batch_tokens"]
            law = elsewhere(choose_law(*sizes) if law is None else law, True)
        found = recommend_settings(
            law, params=float(params or 0), tokens=float(tokens or 0), warmup=warmup or None, fitted_on=table,
            progress=tick, **settings,
        )  # fmt: skip
    if plot:
        draw(found, plot)
    if style == "json":
        text = report.to_json(record(found))
    elif style == "csv":
        text = _csv(found)
    else:
        text = _text(found)
    write_text(output, text)


def _law(
    name: str | None, table: RunTable | None, params: float, tokens: float, progress: Callable[[str], None]
) -> Any:
    """Return the law to ask: None for the nearest built-in one, the advice itself of a law that knows no losses."""
    from optlaws.baselines import baseline_names, get_baseline
    from optlaws.law import fit_law, load_any_law, with_risk
    from optlaws.law.baseline import BaselineFit, fit_baseline

    if name in baseline_names():
        kind = get_baseline(name)
        if table is not None and hasattr(kind, "predict"):
            return fit_baseline(name, table, progress=progress)
        return of_rival(name, params, tokens, table)
    if table is not None:
        if name is not None:
            raise LawError(
                f"--law must be left out, or name a published law such as step_law, beside --from, got {name!r};"
                " the law is fitted on the runs"
            )
        with quiet():
            return with_risk(fit_law(table, name="own", progress=progress), table)
    if name is None:
        return None
    law = load_any_law(name)
    if isinstance(law, BaselineFit) and hasattr(law.law, "recommend") and not hasattr(law.law, "predict"):
        return advice_of(law.law, params, tokens, f"fitted, from {name}", law.draws)
    return law


def _range_texts(flat: FlatRange, counts: bool) -> list[str]:
    """Return the two ranges for people; an open end is the end of what was looked at."""

    def text(value: float) -> str:
        return format_quantity(value, 3) if counts else f"{value:.3g}"

    low, high = text(flat.low), text(flat.high)
    ends = [word for word, is_open in (("low", flat.low_open), ("high", flat.high_open)) if is_open]
    open_text = f" (the {' and the '.join(ends)} end is as far as domain and accepted risk allow)" if ends else ""
    where = "-" if math.isnan(flat.least) else " .. ".join(_ends(flat, text))
    return [where, f"{low} .. {high}{open_text}"]


def _ends(flat: FlatRange, text: Callable[[float], str]) -> list[str]:
    """Return the ends of the range that holds the best, in words where it may lie beyond."""
    below, above = ("below " if flat.least_open else ""), ("above " if flat.most_open else "")
    return [f"{below}{text(flat.least)}", f"{above}{text(flat.most)}"]


def advice(found: Recommendation) -> str:
    """Say in one sentence what to run."""
    batch = found.task.columns["batch_tokens"]
    peak = found.schedule.peak
    text = f"Run {found.family} with peak rate {peak:.3g} and {format_quantity(float(batch), 3)} tokens a step"
    settled = []
    if not found.peak.unsettled:
        settled.append(f"any peak rate from {found.peak.low:.3g} to {found.peak.high:.3g}")
    if found.batch is not None and not found.batch.unsettled:
        low, high = (format_quantity(x, 3) for x in (found.batch.low, found.batch.high))
        settled.append(f"any batch from {low} to {high} with the rate tuned again")
    if settled:
        verb = "is" if len(settled) == 1 else "are each"
        text += (
            f": {' and '.join(settled)} {verb} predicted to cost less than {100 * FLAT:g} % more, uncertainty ignored"
        )
    text += "".join(f". {sentence}" for sentence in _doubts(found))
    if not found.in_domain:
        text += f" (careful: outside the law's domain: {found.reasons})"
    return text + "."


def _doubts(found: Recommendation) -> list[str]:
    """Say what the law's runs leave open, and what published laws say of it, without a full stop."""
    from optlaws.law import builtin_names

    whose = "The law's" if found.law in builtin_names() else "Your"
    out = []
    for flat, what, name, counts in (
        (found.peak, "peak rate", "peak_lr", False), (found.batch, "batch", "batch_tokens", True)
    ):  # fmt: skip
        if flat is None or not flat.unsettled:
            continue

        def text(value: float, counts: bool = counts) -> str:
            return format_quantity(value, 3) if counts else f"{value:.3g}"

        sentence = (
            f"{whose} runs do not settle the {what}: the best may lie anywhere from {' to '.join(_ends(flat, text))}"
        )
        told = sorted((getattr(law, name), law.name) for law in found.published if math.isfinite(getattr(law, name)))
        told = [(value, law) for value, law in told if not too_far(value, flat.best)]
        if told:
            ends = [f"{text(value)} ({law})" for value, law in dict.fromkeys((told[0], told[-1]))]
            sentence += f"; published laws say {' to '.join(ends)}"
        out.append(sentence)
    return out


def _settings(found: Recommendation) -> list[list[str]]:
    """Return the rows of the first table: setting, value, near-optimal range."""
    schedule = found.schedule
    rows = [["peak rate", f"{schedule.peak:.4g}", *_range_texts(found.peak, counts=False)]]
    batch = format_quantity(float(found.task.columns["batch_tokens"]))
    wide = _range_texts(found.batch, counts=True) if found.batch else ["-", "-"]
    rows.append(["batch, tokens", batch, *wide])
    rows.append(["steps", f"{schedule.total_steps:,}", "-", "-"])
    rows.append(["warm-up, steps", f"{schedule.warmup_steps:,}", "-", "-"])
    return rows


def _text(found: Recommendation) -> str:
    from optlaws.law import builtin_names

    digits = found.families.decimals
    ends = " .. ".join(number_text(x, digits) for x in (found.lower, found.upper))
    risk = "" if math.isnan(found.risk) else f", divergence risk {percent(found.risk)}"
    lines = [report.rank_header(found.families, found.task.assumed), ""]
    costs = f"predicted to cost < {100 * FLAT:g} % more, uncertainty ignored"
    header = ["setting", "value", "90 % sure of the lowest", costs]
    lines += report.text_table(header, _settings(found), [False, True, False, False]).splitlines()
    if found.batch is not None:
        lines.append("(of batches with the peak rate tuned again at each)")
    if any(flat is not None and (flat.least_open or flat.most_open) for flat in (found.peak, found.batch)):
        lines.append("(below, above: the best may lie beyond all that the law's domain and the accepted risk allow)")
    lines += ["", f"schedule  {found.schedule}"]
    lines += [f"loss      {number_text(found.loss, digits)}, 90 % interval {ends}{risk}", ""]
    lines += [*_families(found), ""]
    if found.shapes is not None:
        lines += [_shapes_text(found), ""]
    lines += _published_table(found)
    lines += [f"Note: {note}." for note in found.notes]
    if found.law in builtin_names():
        asked = "" if found.families.other_corpus else "--other-corpus says how sure that leaves this, "
        lines.append(
            f"Note: another corpus or kind of network may have another best rate; {asked}own runs tell (--from)."
        )
    larger = larger_note(found.task.law.domain, np.array([found.task.columns["params"]]))
    return "\n".join([*lines, "", advice(found), *([larger] if larger else [])]) + "\n"


def _families(found: Recommendation) -> list[str]:
    ranking, digits = found.families, found.families.decimals
    rows = []
    for row in ranking.order[:SHOWN].tolist():
        low, high = ranking.difference_lower[row], ranking.difference_upper[row]
        more = ["-", "-"]
        if row != ranking.best:
            ends = " .. ".join(number_text(float(x), digits, sign=True) for x in (low, high))
            more = [number_text(float(ranking.difference[row]), digits, sign=True), ends]
        rows.append([ranking.names[row], number_text(float(ranking.loss[row]), digits), *more])
    return report.text_table(
        ["family, its best", "loss", "vs best", "90 % interval"], rows, [False, True, True, True]
    ).splitlines()


def _shapes_text(found: Recommendation) -> str:
    if found.shapes is None:
        return ""
    name, schedule, gain = found.shapes
    low, high = (number_text(x, 4) for x in (gain.lower, gain.upper))
    return (
        f"Shape: the law has seen one shape of schedule. Law {name}, at the nearest sizes that it has seen, puts\n"
        f"{schedule}\n"
        f"{number_text(gain.gain, 4)} below the best cosine (90 % interval {low} .. {high}, one run of each;"
        f" lower with probability {gain.odds})."
    )


def _tokens(value: float) -> str:
    return format_quantity(value, 3) if math.isfinite(value) else "-"


def _published_table(found: Recommendation) -> list[str]:
    """Return the table of other laws' advice, and a sentence that names what is too far off to stand in it."""
    batch = float(found.task.columns["batch_tokens"])
    rows, gone = [], []
    for law in found.published:
        note = f" ({law.note})" if law.note else ""
        cells, told = [], False
        for value, own, what, text in (
            (law.peak_lr, found.schedule.peak, "peak rate", f"{law.peak_lr:.3g}"),
            (law.batch_tokens, batch, "batch", _tokens(law.batch_tokens)),
        ):
            off = too_far(value, own)
            cells.append("far off" if off else text if math.isfinite(value) else "-")
            told |= math.isfinite(value) and not off
            gone += [f"the {what} of {law.name}, {text}{note}"] if off else []
        if not told:
            continue
        cost = f"{100 * law.cost:+.2f} %" if math.isfinite(law.cost) else "-"
        risk = percent(law.risk) if math.isfinite(law.risk) else "-"
        rows.append([law.name, *cells, cost, risk, law.source + note])
    header = ["published law", "peak rate", "batch", "loss there", "risk there", "source"]
    lines = report.text_table(header, rows, [False, True, True, True, True, False]).splitlines()
    left_out = f"Left out, being more than {TOO_FAR:g} times off the recommendation: {'; '.join(gone)}."
    return lines + ([left_out] if gone else [])


def _range_record(flat: FlatRange | None) -> dict[str, Any] | None:
    if flat is None:
        return None
    ends = {"low_open": flat.low_open, "high_open": flat.high_open}
    scan = {name: getattr(flat, name).tolist() for name in ("values", "loss", "lower", "upper")}
    where = {"lowest_from": flat.least, "lowest_to": flat.most}
    where |= {"lowest_from_open": flat.least_open, "lowest_to_open": flat.most_open}
    where |= {"lowest_unsettled": flat.unsettled}
    return {"best": flat.best, "low": flat.low, "high": flat.high, **ends, **where, "scan": scan}


def record(found: Recommendation) -> dict[str, Any]:
    """Return the recommendation as plain numbers, lists and texts."""
    shapes = None
    if found.shapes is not None:
        name, schedule, gain = found.shapes
        shapes = {"law": name, "schedule": schedule.to_dict(), "over": "cosine", "gain": gain.gain}
        shapes |= {"lower": gain.lower, "upper": gain.upper, "p_real": gain.p_real, "of_single_runs": True}
    ranking = found.families
    return {
        "law": found.law,
        "other_corpus": found.families.other_corpus,
        "params": found.task.columns["params"],
        "tokens": found.task.columns["tokens"],
        "batch_tokens": found.task.columns["batch_tokens"],
        "peak_lr": found.schedule.peak,
        "steps": found.schedule.total_steps,
        "warmup_steps": found.schedule.warmup_steps,
        "family": found.family,
        "schedule": found.schedule.to_dict(),
        "short": str(found.schedule),
        "predicted_loss": found.loss,
        "lower": found.lower,
        "upper": found.upper,
        "divergence_risk": found.risk,
        "in_domain": found.in_domain,
        "reasons": found.reasons,
        "costs_less_than": FLAT,
        "peak_range": _range_record(found.peak),
        "batch_range": _range_record(found.batch),
        "families": [
            {
                "family": ranking.names[row],
                "schedule": ranking.runs.schedule_tuple()[row].to_dict(),
                "predicted_loss": float(ranking.loss[row]),
                "difference": float(ranking.difference[row]),
                "difference_lower": float(ranking.difference_lower[row]),
                "difference_upper": float(ranking.difference_upper[row]),
            }
            for row in ranking.order.tolist()
        ],
        "shapes": shapes,
        "published": [vars(law) for law in found.published],
        "caution": found.task.caution,
        "assumed": dict(found.task.assumed),
        "notes": list(found.notes),
        "advice": advice(found),
    }


def _csv(found: Recommendation) -> str:
    """Return one row for the recommendation and one for each published law."""
    import io

    batch = float(found.task.columns["batch_tokens"])
    own = (found.law, found.schedule.peak, batch, 0.0, found.risk, "this recommendation")
    rows = [
        own,
        *((law.name, law.peak_lr, law.batch_tokens, law.cost, law.risk, law.source) for law in found.published),
    ]
    stream = io.StringIO()
    names = ("law", "peak_lr", "batch_tokens", "relative_cost", "divergence_risk", "source")
    report.write_csv(stream, {name: [row[i] for row in rows] for i, name in enumerate(names)})
    return stream.getvalue()


def _rival_text(found: RivalAdvice, style: str, params: float, tokens: float) -> str:
    """Return the advice of a law that knows no losses."""
    if style == "json":
        return report.to_json({"params": params, "tokens": tokens, **vars(found)})
    if style == "csv":
        import io

        stream = io.StringIO()
        report.write_csv(stream, {name: [value] for name, value in vars(found).items()})
        return stream.getvalue()
    peak = f"{found.peak_lr:.4g}" if math.isfinite(found.peak_lr) else "not said"
    batch = f"{format_quantity(found.batch_tokens)} tokens" if math.isfinite(found.batch_tokens) else "not said"
    note = f" ({found.note})" if found.note else ""
    sure = "It predicts no loss, so nothing is said of how sure that is."
    if found.band_draws:
        low, high = (f"{100 * end:g}" for end in BAND)
        peak += f", {found.peak_lr_low:.4g} .. {found.peak_lr_high:.4g}"
        ends = (format_quantity(x, 4) for x in (found.batch_tokens_low, found.batch_tokens_high))
        batch += f", {' .. '.join(ends)}"
        sure = (
            f"Ranges: {low} and {high} % points over fits to {found.band_draws} bootstrap samples of the near-best"
            " runs, which tell how sure the constants are and not whether the law holds; it predicts no loss."
        )
    return (
        f"Law {found.name}, {format_quantity(params)} parameters, {format_quantity(tokens)} tokens\n\n"
        f"peak rate  {peak}\nbatch      {batch}\n\n{found.formula}; {found.source}{note}. {sure}\n"
    )
