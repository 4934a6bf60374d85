"""The command about divergence: how likely, why, and what makes a run safe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import click
import numpy as np

from optlaws import report
from optlaws._accepted import too_risky
from optlaws._advice import percent
from optlaws.commands.candidates import tell_candidates
from optlaws.commands.shared import (
    amount,
    check_figure,
    check_outputs,
    figure_of,
    keep_inputs,
    read_once,
    ticking,
    write_text,
)
from optlaws.dynamics.model import family
from optlaws.dynamics.solve import effective_decay
from optlaws.errors import InputError, LawError
from optlaws.risk import ACCEPTED, RiskModel, RiskPrediction
from optlaws.risk.changes import DRIVERS, SafeChange, drivers, risk_map, safe_changes
from optlaws.risk.quantities import WIDTH, relative_width
from optlaws.runs import RunTable, atomic_write, format_quantity, gather_candidates

RISK_DOMAIN = "in risk domain"
AXES = {"warmup": "warmup_steps", "batch": "batch_tokens"}
WORDS = {
    "peak_lr": ("lower the peak rate", "raise the peak rate"),
    "warmup_steps": ("shorten the warm-up", "lengthen the warm-up"),
    "batch_tokens": ("make the batch smaller", "make the batch larger"),
    "beta1": ("lower beta1", "raise beta1"),
}


def risk(
    law_name: str,
    candidates: Sequence[str],
    style: str,
    max_risk: float | None,
    plot: str | None,
    over: str,
    output: str,
    width: float | None = None,
    headers: Mapping[str, str] | None = None,
    **sizes: Any,
) -> int:
    """Write the risk of every candidate; return 3 if `max_risk` is given and all are above it."""
    from optlaws.law import load_law

    if plot:
        check_figure(plot)
    elif over != "warmup":
        raise InputError(f"--over is an axis of the map that --plot writes, got {over} without --plot; add --plot FILE")
    check_outputs(plot, output)
    keep_inputs(output, law_name, *candidates)
    read_once(law_name, *candidates)
    law = load_law(law_name)
    model = law.risk
    if model is None:
        raise LawError(
            f"law {law.name!r} must have a risk model, got a law without one;"
            " fit it again with `optlaws fit`, or name a built-in law"
        )
    with ticking("reading candidates"):
        found = gather_candidates(candidates, sizes, law.defaults, headers)
    other = sum(bool(text) and float(text) != width for text in found.runs.extra.get(WIDTH, ()) if width is not None)
    stated = found.overruled | ({"width": other} if other else {})
    tell_candidates(replace(found, overruled=stated), {**sizes, "width": width})
    accepted = ACCEPTED if max_risk is None else max_risk
    asked = found.runs if width is None else _with_width(found.runs, width)
    runs, filled = model.complete(asked, law.defaults)
    assumed = {**found.assumed, **filled}
    counted, _ = model.complete(law.as_usual(asked), law.defaults)  # runs of other optimizers at rates of the law's own
    rates = [law.optimizers.rate_unit(name) if law.optimizers else 1.0 for name in runs.optimizer]
    units = [rate / law.usual_factor for rate in rates]
    if plot and not runs.schedule_tuple()[0].peak > 0:
        raise InputError(
            f"--plot must have a first candidate whose rate is above 0 at some step, got {runs.run_id[0]!r};"
            " name another one first, or leave --plot out"
        )
    prediction = model.predict(counted)
    cause, shares = drivers(counted, model)
    changes = [
        [_in_units(change, unit) for change in options]
        for options, unit in zip(safe_changes(counted, model, accepted), units, strict=True)
    ]
    if plot:
        if np.isnan(prediction.probability[0]):
            raise InputError(
                f"--plot must have a first candidate whose risk is known, got {runs.run_id[0]!r}:"
                f" {prediction.reasons[0]}; name another one first, or leave --plot out"
            )
        _draw(plot, law.name, runs, counted, units[0], model, AXES[over], accepted, changes[0])
    if style == "json":
        records = _records(runs, prediction, accepted, cause, changes, units)
        for record, row, run_shares, options in zip(records, range(len(runs)), shares.tolist(), changes, strict=True):
            record["shares"] = dict(zip(DRIVERS, run_shares, strict=True))
            record["changes"] = [_change_record(change) for change in options]
            record["schedule"] = runs.schedule_tuple()[row].to_dict()
        document = {"law": law.name, "accepted": accepted, "assumed": assumed, "candidates": records}
        write_text(output, report.to_json(document))
    elif style == "csv":
        records = _records(runs, prediction, accepted, cause, changes, units)
        columns: dict[str, Any] = {key: [record[key] for record in records] for key in records[0]}
        columns = {"name": columns.pop("name"), "schedule": _schedules(runs, full=True), **columns}
        with atomic_write(output) as stream:
            report.write_csv(stream, columns)
    else:
        write_text(output, _text(law.name, runs, prediction, accepted, cause, changes, assumed, units))
    if max_risk is not None and not (prediction.probability <= max_risk).any():
        click.echo(f"optlaws: {too_risky(prediction.probability, max_risk, runs.run_id)}", err=True)
        return 3
    return 0


def _in_units(change: SafeChange, unit: float) -> SafeChange:
    """Return a change of the peak rate with rates times `unit`, any other as it is."""
    if change.lever != "peak_lr":
        return change
    return replace(change, before=change.before * unit, after=change.after * unit)


def _with_width(runs: RunTable, width: float) -> RunTable:
    """Return the runs with a width where they say none."""
    said = runs.extra.get(WIDTH, ("",) * len(runs))
    return replace(runs, extra={**runs.extra, WIDTH: tuple(text.strip() or repr(width) for text in said)})


def _schedules(runs: RunTable, full: bool = False) -> list[str]:
    return [report.schedule_text(runs, row, full=full) for row in range(len(runs))]


def _change_record(change: SafeChange) -> dict[str, Any]:
    return {"lever": change.lever, "from": change.before, "to": change.after, "log_size": change.size}


def _records(
    runs: RunTable,
    prediction: RiskPrediction,
    accepted: float,
    cause: Sequence[str],
    changes: Sequence[Sequence[SafeChange]],
    units: Sequence[float],
) -> list[dict[str, Any]]:
    """Return one flat record a run; `units` are its optimizer's rates that count as 1 in felt and critical ones."""
    out, widths = [], runs.extra.get(WIDTH, ("",) * len(runs))
    for i, name in enumerate(runs.run_id):
        first = changes[i][0] if changes[i] else None
        out.append(
            {
                "name": name,
                "params": float(runs.size[i]),
                "tokens": float(runs.tokens[i]),
                "steps": float(runs.steps[i]),
                "batch_tokens": float(runs.batch_tokens[i]),
                "width": float(widths[i].strip() or "nan"),
                "beta1": float(runs.beta1[i]),
                "weight_decay": float(runs.weight_decay[i]),
                "divergence_risk": float(prediction.probability[i]),
                "safe": bool(prediction.probability[i] <= accepted),
                "criterion": float(prediction.criterion[i]),
                "threshold": 1.0,
                "felt_rate": float(prediction.felt[i]),
                "felt_at_step": float(prediction.at[i]),
                "critical_rate": float(prediction.critical[i]),
                "rate_unit": units[i],
                "driven_by": cause[i],
                "change": first.lever if first else "",
                "change_from": first.before if first else float("nan"),
                "change_to": first.after if first else float("nan"),
                "in_domain": bool(prediction.in_domain[i]),
                "reasons": prediction.reasons[i],
            }
        )
    return out


def change_text(change: SafeChange) -> str:
    """Return a change for people.

    >>> change_text(SafeChange("peak_lr", 0.032, 0.014272, 0.81))
    'lower the peak rate to 0.0142'
    """
    verb = WORDS[change.lever][int(change.after > change.before)]
    if change.lever == "warmup_steps" and change.before == 0:
        return f"add a warm-up of {change.after:,.0f} steps"
    if change.lever == "peak_lr":  # rounded down, so that what is printed is safe
        digits = 10.0 ** (np.floor(np.log10(change.after)) - 2)
        return f"{verb} to {np.floor(change.after / digits * (1 + 1e-12)) * digits:.3g}"
    if change.lever == "beta1":
        return f"{verb} to {np.floor(change.after * 1000 + 1e-9) / 1000:g}"
    return f"{verb} to {change.after:,.0f} {'steps' if change.lever == 'warmup_steps' else 'tokens a step'}"


def _text(
    law: str,
    runs: RunTable,
    prediction: RiskPrediction,
    accepted: float,
    cause: Sequence[str],
    changes: Sequence[Sequence[SafeChange]],
    assumed: Mapping[str, float],
    units: Sequence[float],
) -> str:
    sizes = (("params", runs.size, "params"), ("batch_tokens", runs.batch_tokens, "batch"))
    varying = [(name, values, short) for name, values, short in sizes if len(set(values.tolist())) > 1]
    shared = [
        f"{format_quantity(float(values[0]))} {'parameters' if name == 'params' else 'tokens a step'}"
        for name, values, _ in sizes
        if len(set(values.tolist())) == 1
    ]
    lines = [", ".join([f"Law {law}", *shared, f"accepted risk {percent_text(accepted)}"])]
    if assumed:
        lines.append("assumed: " + ", ".join(f"{name} {amount(name, value)}" for name, value in assumed.items()))
    texts = _schedules(runs)
    named = any(
        name != text and not name.startswith(f"{text} #") for name, text in zip(runs.run_id, texts, strict=True)
    )
    header = [*(["name"] if named else []), "schedule", *(short for _, _, short in varying)]
    header += ["risk", "criterion", "felt rate", "driven by", "smallest safe change", RISK_DOMAIN]
    marks: dict[str, str] = {}
    rows = []
    for i in range(min(len(runs), report.TABLE_ROWS)):
        p = float(prediction.probability[i])
        cells = [report.clipped(text) for text in (*([runs.run_id[i]] if named else []), texts[i])]
        cells += [format_quantity(float(values[i])) for _, values, _ in varying]
        if np.isnan(p):
            cells += ["unknown", "-", "-", "-", "-"]
        else:
            felt = f"{prediction.felt[i]:.3g} at step {prediction.at[i]:,.0f}"
            careful = "" if prediction.in_domain[i] else " (careful)"  # of the word that `optlaws rank` says it with
            cells += [
                f"{percent(p)}{careful}",
                f"{prediction.criterion[i]:.2f}",
                felt,
                DRIVERS[cause[i]] if p > accepted else "-",
            ]
            cells.append("-" if p <= accepted else change_text(changes[i][0]) if changes[i] else "no single change")
        if prediction.in_domain[i]:
            cells.append("yes")
        else:
            mark = marks.setdefault(prediction.reasons[i], str(len(marks) + 1))
            cells.append(f"no [{mark}]")
        rows.append(cells)
    right = [name in ("params", "batch", "risk", "criterion") for name in header]
    lines += ["", *report.text_table(header, rows, right).split("\n")]
    if len(runs) > len(rows):
        lines.append(f"... and {len(runs) - len(rows):,} more; --format csv or json lists them all")
    lines += [f"[{mark}] {reason}" for reason, mark in marks.items()]
    safe = int((prediction.probability <= accepted).sum())
    lines += ["", f"{safe} of {len(runs)} at or below {percent_text(accepted)}."]
    if not any(text.strip() for text in runs.extra.get(WIDTH, ())):
        lines.append("Width not said: that of usual networks of the size is taken (--width, or a column width).")
    lines.append(
        f"{RISK_DOMAIN.capitalize()}: whether the risk model has seen such runs; the law of losses has a domain of its"
        " own (optlaws rank)."
    )
    lines.append("Criterion: highest felt rate over the critical one, where half of such runs diverge.")
    other = {name: unit for name, unit in zip(runs.optimizer, units, strict=True) if unit != 1}
    if other:
        said = ", ".join(f"{unit:.3g} of {name or 'its optimizer'}" for name, unit in other.items())
        verb = "counts" if len(other) == 1 else "count"
        lines.append(f"Felt rates, and rates in reasons, are the law's own: {said} {verb} as 1.")
    return "\n".join(lines) + "\n"


def percent_text(p: float) -> str:
    """Return an accepted risk for people.

    >>> percent_text(0.05), percent_text(0.001)
    ('5 %', '0.1 %')
    """
    return f"{100 * p:g} %"


def _draw(
    path: str, law: str, runs: RunTable, counted: RunTable, unit: float, model: RiskModel, over: str, accepted: float,
    changes: Sequence[SafeChange],
) -> None:  # fmt: skip
    """Draw the map about the first of the runs, which the model takes as the first of `counted`; rates in its own."""
    from optlaws import plotting

    # wide enough to show the nearest safe change of its axes
    sizes = [change.size for change in changes if change.lever in ("peak_lr", over)]
    reach = max(8.0, 1.5 * float(np.exp(min(sizes)))) if sizes else 8.0
    chart = risk_map(counted.select([0]), model, over, reach=reach)
    chart = replace(chart, peak=chart.peak * unit)
    batch = runs.batch()
    other = np.asarray(batch.warmup_steps if over == "warmup_steps" else runs.batch_tokens, dtype=float)
    points = list(zip(np.asarray(batch.peak).tolist(), other.tolist(), strict=True))
    kept = (runs.steps, runs.batch_tokens) if over == "warmup_steps" else (runs.tokens, batch.warmup_steps)
    kinds = np.array([schedule.kind for schedule in runs.schedule_tuple()])
    kin = np.array([family(name) for name in runs.optimizer])
    alike = (runs.size, runs.beta1, effective_decay(runs), relative_width(runs, runs.size), kin, kinds)
    same = np.all([values == values[0] for values in (*alike, *kept)], axis=0)
    axes = plotting.new_axes(7.4, 5.0)
    beside = [point for point, like in zip(points, same.tolist(), strict=True) if like][: plotting.SHOWN]
    plotting.plot_risk_map(chart, accepted, points[0], beside, axes, apart=int((~same).sum()))
    size, tokens = (format_quantity(float(values[0])) for values in (runs.size, runs.batch_tokens))
    title = f"{report.clipped(runs.run_id[0])}, {size} parameters, {tokens} tokens a step (law {law})"
    axes.set_title(plotting.wrapped(title, 80, 4), fontsize=9)
    plotting.save_figure(figure_of(axes), path)
