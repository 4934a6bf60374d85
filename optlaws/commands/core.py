"""The commands about a law: rank, fit, predict."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt

from optlaws.commands.candidates import tell_candidates
from optlaws.commands.misses import tell_larger, tell_misses
from optlaws.commands.options import DEFAULT_LAW
from optlaws.commands.shared import (
    check_figure,
    check_outputs,
    elsewhere,
    errors_text,
    keep_inputs,
    optimizers_text,
    progress,
    quiet,
    read_once,
    stem,
    tell_assumed,
    tell_doubts,
    tell_kinds_of,
    ticking,
    units_text,
    write_text,
)
from optlaws.commands.words import unknown_effects
from optlaws.errors import InputError, OptlawsWarning, RiskError, TableError, nearest
from optlaws.runs import (
    CurveTable,
    RunTable,
    check_table_name,
    gather_candidates,
    read_curves,
    read_runs,
    write_columns,
    write_runs,
)

if TYPE_CHECKING:
    from optlaws.law import Law
    from optlaws.law.baseline import BaselineFit
    from optlaws.schedules import Schedule

CURVE_STEPS = 200
ASKED = 40  # candidates that are shown to other laws
CURVES_TO_LEARN_FROM = 3  # what `optlaws.monitor.learn_prior` needs


def rank(
    candidates: Sequence[str],
    law_name: str | None,
    style: str,
    plot: str | None,
    html: str | None,
    curves: bool,
    max_risk: float | None,
    other_corpus: bool,
    output: str,
    headers: Mapping[str, str] | None = None,
    **sizes: Any,
) -> None:
    """Rank candidates and write the ranking, the figure and the page that were asked for."""
    from optlaws import report
    from optlaws.law import builtin_names, load_any_law
    from optlaws.law.domain import larger_note
    from optlaws.ranking import rank as rank_runs
    from optlaws.ranking import with_elsewhere

    if curves and not (plot or html or style == "json"):
        raise InputError("--curves adds loss curves to --plot, --html or --format json; give one of them too")
    if plot:
        check_figure(plot)
    read_once(law_name, *candidates)
    check_outputs(plot, html, output)
    for target in (html, output):
        if target:
            keep_inputs(target, law_name, *candidates)
    law = load_any_law(DEFAULT_LAW if law_name is None else law_name)
    tell_doubts(law)
    with ticking("reading candidates"):
        found = gather_candidates(candidates, sizes, law.defaults, headers)
    tell_candidates(found, sizes)
    if law_name is None and not set(found.assumed) & {"params", "tokens", "batch_tokens"}:
        law = _nearest(law, found.runs)
    law = elsewhere(law, other_corpus)
    with quiet():
        try:
            with ticking(f"ranking {len(found.runs):,} candidates"):
                ranking = rank_runs(found.runs, law, max_risk=max_risk)
        except RiskError as refusal:
            if style == "json":
                write_text(output, report.refused_json(law.name, other_corpus, found.assumed, refusal))
            elif output != "-":  # an earlier ranking there would be taken for this one
                header = report.rank_csv(rank_runs(found.runs.select([0]), law)).split("\n")[0]
                write_text(output, f"{header}\n" if style == "csv" else f"No ranking: {refusal}.\n")
            raise
        if law_name is None or law_name in builtin_names():
            ranking = with_elsewhere(ranking, law)
        shown = ranking.order if style == "json" else ranking.order[: report.TABLE_ROWS]
        drawn = _predicted_curves(law, ranking.runs, shown.tolist()) if curves else None
    larger = larger_note(getattr(law, "domain", {}), ranking.runs.size)
    if plot or html:
        from optlaws import plotting

        figure = plotting.rank_figure(ranking, drawn)
        if plot:
            plotting.save_figure(figure, plot)
        if html:
            write_text(html, report.rank_html(ranking, plotting.png_bytes(figure), found.assumed, larger))
    if style == "csv":
        text = report.rank_csv(ranking)
    elif style == "json":
        text = report.rank_json(ranking, found.assumed, drawn)
    else:
        text = report.rank_table(ranking, found.assumed, last=larger)
    write_text(output, text)
    if law_name is not None and not ranking.in_domain.any():
        tell_nearer(law_name, ranking.runs)


def _seen(runs: RunTable, laws: Iterable[Any]) -> dict[str, int]:
    """Return how many of the runs (of `ASKED`, evenly chosen, if they are more) lie in the domain of each law."""
    some = runs.select(np.unique(np.linspace(0, len(runs) - 1, min(len(runs), ASKED)).round().astype(int)))
    with quiet():
        return {law.name: int(law.predict(some).in_domain.sum()) for law in laws}


def _nearest(law: Any, runs: RunTable) -> Any:
    """Return the built-in law to take where none was asked for: `law`, unless only another has seen such runs."""
    from optlaws.law import builtin_names, load_law

    seen = _seen(runs, [law])
    if not seen[law.name]:
        others = [load_law(name) for name in builtin_names() if name != law.name]
        seen |= _seen(runs, others)
        if not any(seen.values()):
            _tell_nearest(law, others, runs)
    name = max(seen, key=lambda each: seen[each])
    if name == law.name:
        return law
    asked = min(len(runs), ASKED)
    some = "such runs" if seen[name] == asked else f"runs like {seen[name]} of these {asked}, but none like the others"
    click.echo(
        f"optlaws: note: law {name!r} is taken, which has seen {some}; {law.name!r} has seen none; --law LAW chooses",
        err=True,
    )
    return load_law(name)


def _tell_nearest(law: Any, others: Iterable[Any], runs: RunTable) -> None:
    """Say on standard error which of several laws that have not seen such runs is nearest, if it is not `law`.

    That is the one whose quantities out of its domain are the fewest factors of e out of it, of the runs' medians.
    """
    from optlaws._ranges import SLACK
    from optlaws.law.domain import SLACKS, UNCHECKED, beyond, domain_values

    known = {name: v[np.isfinite(v)] for name, v in domain_values(runs, True, True).items() if name not in UNCHECKED}
    values = {name: float(np.median(v)) for name, v in known.items() if len(v)}
    far = {
        each.name: {
            what: by for what, by in beyond(each.domain, values).items() if by > np.log(SLACKS.get(what, SLACK))
        }
        for each in (law, *others)
    }
    near = min(far, key=lambda name: sum(far[name].values()))
    if near == law.name:
        return

    def told(name: str) -> str:
        return ", ".join(f"{what} by {np.exp(by):.2g} times" for what, by in far[name].items()) or "combinations only"

    click.echo(
        f"optlaws: note: no built-in law has seen such runs; {near!r} is nearer (out of its domain: {told(near)}) than"
        f" {law.name!r} ({told(law.name)}): --law {near}",
        err=True,
    )


def tell_nearer(law_name: str, runs: RunTable) -> None:
    """Say on standard error which other built-in law has seen runs that the one asked for has not."""
    from optlaws.law import builtin_names, load_law

    others = [name for name in builtin_names() if name != law_name]
    if len(others) == len(builtin_names()):
        return
    seen = _seen(runs, map(load_law, others))
    name = max(seen, key=lambda each: seen[each])
    if seen[name]:
        click.echo(
            f"optlaws: note: no candidate lies inside the domain of law {law_name!r}, but {seen[name]} of"
            f" {min(len(runs), ASKED)} lie inside that of {name!r}: --law {name}",
            err=True,
        )


def _predicted_curves(law: Law | BaselineFit, runs: RunTable, rows: Sequence[int]) -> dict[int, dict[str, list[float]]]:
    curves = {}
    for row in progress(rows, "curves"):
        run = runs.select([row])
        steps = _curve_steps(run.schedule_tuple()[0])
        prediction = law.predict_curve(run, steps)
        curves[row] = {
            "step": steps.astype(np.int64).tolist(),
            "loss": prediction.loss.tolist(),
            "lower": prediction.lower.tolist(),
            "upper": prediction.upper.tolist(),
        }
    return curves


def _curve_steps(schedule: Schedule) -> npt.NDArray[np.float64]:
    """Return about `CURVE_STEPS` numbers of updates done: evenly spread, the kinks too, and T at the end."""
    total = schedule.total_steps
    even = np.linspace(0, total, min(CURVE_STEPS, total) + 1).round().astype(np.int64)[1:]
    kinks = np.asarray(schedule.breakpoints, dtype=np.int64)
    kinks = kinks[kinks > 0] if len(kinks) <= CURVE_STEPS else kinks[-1:]
    return np.unique(np.concatenate([even, kinks])).astype(np.float64)


def training_tables(
    runs: Sequence[str],
    curves: Sequence[str],
    group: str | None,
    output: str,
    headers: Mapping[str, str] | None = None,
) -> tuple[RunTable, CurveTable | None]:
    """Return the run tables together, and the readings of their curves, for a law that is written to `output`.

    Runs whose curve diverged count as diverged.
    """
    from optlaws.law.groups import derived
    from optlaws.risk.labels import warn_of_outcomes, with_outcomes

    check_outputs(output)
    keep_inputs(output, *runs, *curves)
    read_once(*runs, *curves)
    with ticking("reading tables"):
        table = RunTable.concat([read_runs(path, not curves, headers) for path in runs])
        readings = CurveTable.concat([read_curves(path) for path in curves]) if curves else None
    if readings is not None:
        readings = known_readings(readings, table)
        with ticking("looking for curves that diverged"):
            table, diverged = with_outcomes(table, readings)
        warn_of_outcomes(diverged)
    if group is not None and derived(table, group) is None:
        table.column(group)
    tell_kinds_of(table, readings)
    return table, readings


def fit(
    runs: Sequence[str],
    curves: Sequence[str],
    group: str | None,
    basis: str | None,
    calibrate: str | None,
    name: str | None,
    output: str,
    monitor: bool = False,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Fit a law to run tables (and curve tables) and write it, with what `monitor` asks for."""
    from optlaws.commands.shared import ticking
    from optlaws.law import fit_law, with_risk

    if monitor and not curves:
        raise InputError("--monitor learns from curves, got none; give their table with --curves, or leave it out")
    table, readings = training_tables(runs, curves, group, output, headers)
    count = _finished_curves(table, readings)
    if monitor and count < CURVES_TO_LEARN_FROM:
        raise InputError(
            f"--monitor needs curves of {CURVES_TO_LEARN_FROM} or more completed runs with a final_loss, got {count};"
            " add runs or leave it out"
        )
    free = [word.strip() for word in (calibrate or "").split(",") if word.strip()]
    if calibrate is not None and not free:
        raise InputError(f"--calibrate must name exponents, got {calibrate!r}; write it like aN,aT, or leave it out")
    with quiet(), ticking("fit") as tick:
        law = fit_law(
            table, readings, group=group, basis=basis, calibrate=free, name=name or stem(output), progress=tick
        )
    with ticking("risk of divergence"):
        law = with_risk(law, table)
    if monitor and readings is not None:
        if output != "-":
            law.save(output)  # what is done is not lost if what follows is interrupted
        law = _with_monitor(law, table, readings)
    law.save(output)
    lines = [*_fit_summary(law, output), *_assumed_decays(table)]
    if count >= CURVES_TO_LEARN_FROM and not monitor:
        lines.append("Add --monitor to learn from these curves how runs depart from the law, for optlaws monitor.")
    click.echo("\n".join(lines), err=output == "-")


def _assumed_decays(table: RunTable) -> list[str]:
    """Return a sentence on the weight decay that runs were taken to have that do not say, none if all do."""
    from optlaws.dynamics.solve import effective_decay

    unsaid = ~np.isfinite(table.weight_decay)
    if not unsaid.any():
        return []
    taken = " and ".join(f"{value:g}" for value in np.unique(effective_decay(table)[unsaid]))
    return [f"Assumed where the table says nothing: weight decay {taken} ({unsaid.sum()} runs); fill weight_decay in."]


def _with_monitor(law: Law, table: RunTable, readings: CurveTable) -> Law:
    """Return the law with what its curves say of how runs depart from it; the law is fitted again without groups."""
    from optlaws.commands.shared import ticking
    from optlaws.monitor import learn_prior, with_prior

    with ticking("monitor") as tick:
        prior = learn_prior(law, table, readings, progress=tick)
    return with_prior(law, prior)


def _finished_curves(table: RunTable, readings: CurveTable | None) -> int:
    """Return how many finished runs with a final loss have a curve."""
    from optlaws.baselines.base import usable

    logged = set() if readings is None else set(readings.run_id)
    return sum(done and name in logged for name, done in zip(table.run_id, usable(table).tolist(), strict=True))


def _fit_summary(law: Law, output: str) -> list[str]:
    from optlaws.law.refits import CALLED

    left_out = law.info.get("n_left_out", 0)
    without = f" ({left_out} more left out: diverged, interrupted or without a loss)" if left_out else ""
    count, curves = law.info.get("n_runs", "unknown"), law.info.get("n_curves", 0)
    of = f"{curves} curves, {count or 'no'} final losses" if curves else f"{count} runs"
    lines = [f"Wrote {output}: law {law.name}, basis {law.basis_id}, {of}{without}."]
    lines += optimizers_text(law)
    for split, errors in (law.info.get("leave_group_out") or {}).items():
        lines.append(f"{split} left out: {errors_text(errors)}")
    if law.info.get("leave_group_out"):
        text = "These are quick estimates, too good for longer or larger runs: optlaws compare fits anew without them."
        if CALLED in law.info["leave_group_out"]:
            text = text.replace("These", f"But for the last ({CALLED}: fitted anew) these", 1)
        lines.append(text)
    if law.info.get("units"):
        lines.append(units_text(law))
    if law.info.get("calibrated"):
        values = ", ".join(f"{key} {value:.4g}" for key, value in law.info["calibrated"].items())
        lines.append(f"Calibrated: {values}.")
    wider = law.info.get("fit", {}).get("field_factor", 1.0)
    if wider > 1.0:
        lines.append(
            f"What the columns leave of these losses is smooth and larger than usual: the field has {wider:g} times its"
            " usual width."
        )
    if law.info.get("undetermined"):
        lines.append(unknown_effects(law.info["undetermined"]))
    risk = getattr(getattr(law, "risk", None), "info", {})
    if "n_runs" in risk and "n_diverged" in risk:
        total, bad = risk["n_runs"], risk["n_diverged"]
        what = f"moved by {total} of these runs ({total - bad} completed, {bad} diverged)"
        alone = "as it is: no run states params, batch_tokens and how it ended, under an optimizer that it knows"
        lines.append(f"Risk of divergence: the public runs' model, {what if total else alone}.")
    learnt = law.info.get("monitor", {}).get("curves")
    if learnt is not None:
        lines.append(f"Monitor: how {learnt} curves depart from this law is stored.")
    return lines


def predict(
    law_name: str,
    runs: str,
    curves: str | None,
    other_corpus: bool,
    output: str,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Predict final losses, or losses along the curve, and write them beside the columns of the input."""
    from optlaws.law import load_any_law

    check_table_name(output)
    check_outputs(output)
    keep_inputs(output, runs, curves, law_name)
    read_once(law_name, runs, curves)
    law = elsewhere(load_any_law(law_name), other_corpus)
    tell_doubts(law)
    with ticking("reading runs"):
        table = read_runs(runs, columns=headers)
    if curves is None:
        with quiet(), ticking(f"predicting {len(table):,} runs"):
            prediction = law.predict(table)
        tell_assumed(prediction.assumed)
        write_runs(output, table, _prediction_columns(prediction, _risks(law, table)))
        tell_misses(law.name, table, prediction, output)
        tell_larger(law, table, output)
        return
    with ticking("reading curves"):
        asked = read_curves(curves, need_loss=False) if curves else _all_steps(table)
    asked = known_readings(asked, table)
    row_of = {name: row for row, name in enumerate(table.run_id)}
    columns: dict[str, npt.NDArray[Any]] = {
        "predicted_loss": np.full(len(asked), np.nan),
        "lower": np.full(len(asked), np.nan),
        "upper": np.full(len(asked), np.nan),
        "in_domain": np.zeros(len(asked), dtype=bool),
    }
    assumed: dict[str, float] = {}
    for name, index in progress(asked.runs().items(), "curves"):
        run = table.select([row_of[name]])
        steps = asked.step[index]
        wrong = steps[(steps < 0) | (steps > run.steps[0])]
        if len(wrong):
            allowed = f"0 to {int(run.steps[0])}, the updates done"
            raise TableError(f"run {name!r}: step must be {allowed}, got {int(wrong[0])}; drop the row")
        index = index[steps > 0]  # before the first update there is nothing that a law could say
        if not len(index):
            continue
        prediction = law.predict_curve(run, asked.step[index])
        assumed.update(prediction.assumed)
        columns["predicted_loss"][index] = prediction.loss
        columns["lower"][index] = prediction.lower
        columns["upper"][index] = prediction.upper
        columns["in_domain"][index] = prediction.in_domain
    base: dict[str, Any] = {"run_id": asked.run_id, "step": asked.step}
    if not np.isnan(asked.loss).all():
        base["loss"] = asked.loss
    tell_assumed(assumed)
    in_domain = columns.pop("in_domain")
    of_run = dict(zip(table.run_id, _risks(law, table).tolist(), strict=True))
    risk = np.array([of_run[name] for name in asked.run_id], dtype=np.float64)
    write_columns(
        output, {**base, **asked.extra, **columns, "divergence_risk": risk, "in_domain": in_domain}, len(asked)
    )
    tell_larger(law, table, output)


def _risks(law: Any, table: RunTable) -> npt.NDArray[np.float64]:
    """Return the divergence risk of every run, NaN where the law has no risk model."""
    from optlaws.ranking import risks
    from optlaws.report import risk_numbers

    risk = risks(table, law)
    return np.full(len(table), np.nan) if risk is None else risk_numbers(risk)


def _prediction_columns(prediction: Any, risk: npt.NDArray[np.float64]) -> dict[str, Any]:
    return {
        "predicted_loss": np.asarray(prediction.loss, dtype=np.float64),
        "lower": np.asarray(prediction.lower, dtype=np.float64),
        "upper": np.asarray(prediction.upper, dtype=np.float64),
        "divergence_risk": risk,
        "in_domain": np.asarray(prediction.in_domain, dtype=bool),
    }


def _all_steps(table: RunTable) -> CurveTable:
    """Ask for evenly spread steps of every run."""
    steps = [_curve_steps(schedule) for schedule in table.schedule_tuple()]
    names = tuple(name for name, some in zip(table.run_id, steps, strict=True) for _ in some)
    return CurveTable(names, np.concatenate(steps), np.full(len(names), np.nan))


def known_readings(readings: CurveTable, table: RunTable) -> CurveTable:
    """Return the readings of runs in the table; others are named in a warning, and none at all is an error."""
    known = set(table.run_id)
    strangers = [name for name in dict.fromkeys(readings.run_id) if name not in known]
    if not strangers:
        return readings
    hint = nearest(strangers[0], table.run_id[:2000])
    keep = np.array([name in known for name in readings.run_id], dtype=bool)
    if not keep.any():
        raise TableError(
            f"curves: run_id {strangers[0]!r} is not in the run table, nor is any other of the curves{hint};"
            " give the run table that belongs to them"
        )
    warnings.warn(
        OptlawsWarning(
            f"curves: readings of {len(strangers)} runs that are not in the run table are left out"
            f" (first: {strangers[0]!r})"
        ),
        stacklevel=2,
    )
    return readings.select(keep)
