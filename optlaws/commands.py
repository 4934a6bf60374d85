"""What the commands do, once the command line is parsed; imported only when a command runs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt

from optlaws.errors import ExtrapolationWarning, InputError, OptlawsWarning, TableError, nearest
from optlaws.runs import (
    CurveTable,
    RunTable,
    atomic_write,
    check_table_name,
    check_target,
    format_quantity,
    gather_candidates,
    read_curves,
    read_runs,
    write_columns,
    write_runs,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optlaws.law import Law
    from optlaws.schedules import Schedule

CURVE_STEPS = 200
_CHUNK = 1 << 16
_SIZE_OPTIONS = ("params", "tokens", "batch_tokens", "weight_decay")


def rank(
    candidates: Sequence[str],
    law_name: str,
    style: str,
    plot: str | None,
    html: str | None,
    curves: bool,
    output: str,
    **sizes: float | None,
) -> None:
    """Rank candidates and write the ranking, the figure and the page that were asked for."""
    from optlaws import report
    from optlaws.law import load_law
    from optlaws.ranking import rank as rank_runs

    if curves and not (plot or html or style == "json"):
        raise InputError("--curves adds loss curves to --plot, --html or --format json; give one of them too")
    if plot:
        _check_figure(plot)
    _check_outputs(plot, html, output)
    law = load_law(law_name)
    found = gather_candidates(candidates, sizes, law.defaults)
    with _quiet():
        ranking = rank_runs(found.runs, law)
        shown = ranking.order if style == "json" else ranking.order[: report.TABLE_ROWS]
        drawn = _predicted_curves(law, found.runs, shown.tolist()) if curves else None
    if plot or html:
        from optlaws import plotting

        figure = plotting.rank_figure(ranking, drawn)
        if plot:
            plotting.save_figure(figure, plot)
        if html:
            _write(html, report.rank_html(ranking, plotting.png_bytes(figure), found.assumed))
    if style == "csv":
        text = report.rank_csv(ranking)
    elif style == "json":
        text = report.rank_json(ranking, found.assumed, drawn)
    else:
        text = report.rank_table(ranking, found.assumed)
    _write(output, text)


def _predicted_curves(law: Law, runs: RunTable, rows: Sequence[int]) -> dict[int, dict[str, list[float]]]:
    curves = {}
    for row in _progress(rows, "curves"):
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


def fit(
    runs: Sequence[str], curves: Sequence[str], group: str | None, basis: str | None, name: str | None, output: str
) -> None:
    """Fit a law to run tables (and curve tables) and write it."""
    from optlaws.law import fit_law

    _check_outputs(output)
    if [*runs, *curves].count("-") > 1:
        raise InputError("standard input ('-') can be read only once; give the other tables as files")
    table = RunTable.concat([read_runs(path, need_loss=not curves) for path in runs])
    readings = CurveTable.concat([read_curves(path) for path in curves]) if curves else None
    if readings is not None:
        readings = _known_readings(readings, table)
    if group is not None:
        table.column(group)
    law = fit_law(table, readings, group=group, basis=basis, name=name or _stem(output))
    law.save(output)
    click.echo(_fit_summary(law, output), err=output == "-")


def _stem(output: str) -> str:
    return "law" if output == "-" else Path(output).stem


def _fit_summary(law: Law, output: str) -> str:
    left_out = law.info.get("n_left_out", 0)
    without = f" ({left_out} more left out: diverged, interrupted or without a loss)" if left_out else ""
    count = law.info.get("n_runs", "unknown")
    lines = [f"Wrote {output}: law {law.name}, basis {law.basis_id}, {count} runs{without}."]
    for split, errors in (law.info.get("leave_group_out") or {}).items():
        lines.append(f"{split} left out: {_errors_text(errors)}")
    if law.info.get("undetermined"):
        names = ", ".join(law.info["undetermined"])
        lines.append(f"Not told apart by these runs from the other columns: {names} (the priors share them out).")
    return "\n".join(lines)


def predict(law_name: str, runs: str, curves: str | None, output: str) -> None:
    """Predict final losses, or losses along the curve, and write them beside the columns of the input."""
    from optlaws.law import load_law

    check_table_name(output)
    _check_outputs(output)
    law = load_law(law_name)
    if runs == "-" and curves == "-":
        raise InputError("standard input ('-') can be read only once; give RUNS or CURVES as a file")
    table = read_runs(runs)
    if curves is None:
        prediction = law.predict(table)
        _tell_assumed(prediction.assumed)
        write_runs(output, table, _prediction_columns(prediction, len(table)))
        return
    asked = read_curves(curves, need_loss=False) if curves else _all_steps(table)
    asked = _known_readings(asked, table)
    row_of = {name: row for row, name in enumerate(table.run_id)}
    columns: dict[str, npt.NDArray[Any]] = {
        "predicted_loss": np.full(len(asked), np.nan),
        "lower": np.full(len(asked), np.nan),
        "upper": np.full(len(asked), np.nan),
        "in_domain": np.zeros(len(asked), dtype=bool),
    }
    assumed: dict[str, float] = {}
    for name, index in _progress(asked.runs().items(), "curves"):
        run = table.select([row_of[name]])
        steps = asked.step[index]
        wrong = steps[(steps < 1) | (steps > run.steps[0])]
        if len(wrong):
            allowed = f"1 to {int(run.steps[0])}, the updates done"
            raise TableError(f"run {name!r}: step must be {allowed}, got {int(wrong[0])}; drop the row")
        prediction = law.predict_curve(run, steps)
        assumed.update(prediction.assumed)
        columns["predicted_loss"][index] = prediction.loss
        columns["lower"][index] = prediction.lower
        columns["upper"][index] = prediction.upper
        columns["in_domain"][index] = prediction.in_domain
    base: dict[str, Any] = {"run_id": asked.run_id, "step": asked.step}
    if not np.isnan(asked.loss).all():
        base["loss"] = asked.loss
    _tell_assumed(assumed)
    in_domain = columns.pop("in_domain")
    risk = [None] * len(asked)
    write_columns(
        output, {**base, **asked.extra, **columns, "divergence_risk": risk, "in_domain": in_domain}, len(asked)
    )


def _tell_assumed(assumed: Mapping[str, float]) -> None:
    """Say on standard error which values the law assumed where the table leaves them empty."""
    if assumed:
        values = ", ".join(f"{name} {amount(name, value)}" for name, value in assumed.items())
        click.echo(f"optlaws: note: assumed where the table says nothing: {values}", err=True)


def _prediction_columns(prediction: Any, n: int) -> dict[str, Any]:
    return {
        "predicted_loss": np.asarray(prediction.loss, dtype=np.float64),
        "lower": np.asarray(prediction.lower, dtype=np.float64),
        "upper": np.asarray(prediction.upper, dtype=np.float64),
        "divergence_risk": [None] * n,
        "in_domain": np.asarray(prediction.in_domain, dtype=bool),
    }


def _all_steps(table: RunTable) -> CurveTable:
    """Ask for evenly spread steps of every run."""
    steps = [_curve_steps(schedule) for schedule in table.schedule_tuple()]
    names = tuple(name for name, some in zip(table.run_id, steps, strict=True) for _ in some)
    return CurveTable(names, np.concatenate(steps), np.full(len(names), np.nan))


def _known_readings(readings: CurveTable, table: RunTable) -> CurveTable:
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


def features(specs: Sequence[str], basis: str | None, style: str, output: str, **sizes: float | None) -> None:
    """Print the columns of a basis for schedules."""
    from optlaws import report
    from optlaws.features import feature_table, get_basis

    _check_outputs(output)
    chosen = get_basis(basis)
    found = gather_candidates(specs, sizes)
    values = np.asarray(feature_table(found.runs, chosen), dtype=np.float64)
    names = found.runs.run_id
    fields = ("name", "group", "formula", "unit", "rescaling", "derivation")
    about = [{key: getattr(column, key) for key in fields} for column in chosen.columns]
    if style == "json":
        schedules = [
            {
                "name": name,
                "schedule": schedule.to_dict(),
                "values": dict(zip((entry["name"] for entry in about), row.tolist(), strict=True)),
            }
            for name, schedule, row in zip(names, found.runs.schedule_tuple(), values, strict=True)
        ]
        _write(output, report.to_json({"basis": chosen.id, "columns": about, "schedules": schedules}))
    elif style == "csv":
        columns: dict[str, Any] = {"candidate": [name for name in names for _ in about]}
        columns["column"] = [entry["name"] for entry in about] * len(names)
        columns["group"] = [entry["group"] for entry in about] * len(names)
        columns["value"] = values.ravel()
        for key in fields[2:]:
            columns[key] = [str(entry[key]) for entry in about] * len(names)
        with atomic_write(output) as stream:
            report.write_csv(stream, columns)
    else:
        _write(output, _features_text(chosen.id, names, found.runs, about, values))


def _features_text(
    basis: str, names: Sequence[str], runs: RunTable, about: list[dict[str, Any]], values: npt.NDArray[np.float64]
) -> str:
    from optlaws.report import text_table

    several = len(names) > 1
    heads = [str(i + 1) for i in range(len(names))] if several else ["value"]
    header = ["column", "group", *heads, "formula", "unit", "rescaling"]
    rows = [
        [e["name"], e["group"], *(f"{v:.6g}" for v in values[:, j]), e["formula"], str(e["unit"]), str(e["rescaling"])]
        for j, e in enumerate(about)
    ]
    right = [False, False, *(True for _ in heads), False, False, False]
    lines = [f"Basis {basis}"]
    for place, name in enumerate(names):
        sizes = [
            f"{key} {format_quantity(float(getattr(runs, key)[place]))}"
            for key in ("params", "tokens", "batch_tokens")
            if not np.isnan(getattr(runs, key)[place])
        ]
        lines.append(f"{place + 1}  {name}" + (f" ({', '.join(sizes)})" if sizes else ""))
    missing = [key for key in ("params", "batch_tokens", "weight_decay") if np.isnan(getattr(runs, key)).any()]
    if missing:
        lines.append(f"not given, so the reference size and batch and AdamW's decay stand in: {', '.join(missing)}")
    sources = text_table(
        ["column", "where it comes from"], [[e["name"], e["derivation"]] for e in about], [False, False]
    )
    return "\n".join([*lines, "", text_table(header, rows, right), "", sources]) + "\n"


def schedule(spec: str, style: str, plot: str | None, output: str) -> None:
    """Print a schedule, one row a step."""
    if plot:
        _check_figure(plot)
    _check_outputs(plot, output)
    found = gather_candidates([spec]).runs.schedule_tuple()
    if len(found) != 1:
        raise InputError(f"SPEC must be one schedule, got {len(found)}; name one of them")
    chosen = found[0]
    if plot:
        from optlaws import plotting

        axes = plotting.new_axes(7.0, 3.2)
        plotting.plot_schedule(chosen, axes)
        axes.set_title(str(chosen), fontsize=9, wrap=True)
        plotting.save_figure(_figure_of(axes), plot)
    total = chosen.total_steps
    with atomic_write(output) as stream:
        stream.write("[\n" if style == "json" else "step,lr\n")
        for start in range(0, total, _CHUNK):
            steps = np.arange(start, min(start + _CHUNK, total))
            pairs = zip(steps.tolist(), np.asarray(chosen.lr(steps)).tolist(), strict=True)
            if style == "json":
                text = ",\n".join(f'{{"step": {step}, "lr": {rate:.17g}}}' for step, rate in pairs)
                stream.write(text + ("\n" if start + _CHUNK >= total else ",\n"))
            else:
                stream.write("".join(f"{step},{rate:.17g}\n" for step, rate in pairs))
        if style == "json":
            stream.write("]\n")


def _figure_of(axes: Any) -> Any:
    return axes.figure


def laws(name: str | None, style: str, output: str) -> None:
    """List the built-in laws, or show one law."""
    from optlaws import report
    from optlaws.law import builtin_names, load_law

    _check_outputs(output)
    if name is not None:
        law = load_law(name)
        _write(output, report.to_json(_law_record(law)) if style == "json" else _law_text(law))
        return
    found = [load_law(each) for each in builtin_names()]
    if style == "json":
        _write(output, report.to_json([_law_record(law) for law in found]))
        return
    rows = []
    for law in found:
        errors = law.info.get("leave_group_out") or {}
        means = [f"{split} {e['mean_error_pct']:.2f} %" for split, e in errors.items() if "mean_error_pct" in e]
        domain = [f"{key} {_range(key, ends)}" for key, ends in law.domain.items()]
        for place in range(max(len(means), len(domain), 1)):
            first = [law.name, str(law.info.get("n_runs", ""))] if place == 0 else ["", ""]
            rows.append([*first, *(some[place] if place < len(some) else "" for some in (domain, means))])
    header = ["law", "runs", "domain", "mean error, group left out"]
    table = report.text_table(header, rows, [False, True, False, False])
    _write(output, f"{table}\n\noptlaws laws NAME shows one of them.\n")


def _law_record(law: Law) -> dict[str, Any]:
    domain = {key: list(ends) for key, ends in law.domain.items()}
    return {"name": law.name, "basis": law.basis_id, "domain": domain, "defaults": dict(law.defaults), **law.info}


def _law_text(law: Law) -> str:
    from optlaws.report import text_table

    info = law.info
    lines = [f"Law {law.name}, basis {law.basis_id}, {info.get('n_runs', 'unknown')} runs"]
    lines += [f"Notes: {info['notes']}"] if info.get("notes") else []
    lines += [f"Sources: {', '.join(info['sources'])}"] if info.get("sources") else []
    lines += [f"Rebuild: {info['rebuild']}"] if info.get("rebuild") else []
    lines += [f"Digest of the runs: {info['digest']}"] if info.get("digest") else []
    rows = [[key, _range(key, ends)] for key, ends in law.domain.items()]
    lines += ["", text_table(["domain", "range of training"], rows, [False, False])]
    defaults = [f"{key} {amount(key, value)}" for key, value in law.defaults.items()]
    lines += ["", f"Assumed where a candidate says nothing: {', '.join(defaults) or 'nothing'}"]
    errors = info.get("leave_group_out") or {}
    if errors:
        keys = list(dict.fromkeys(key for entry in errors.values() for key in entry))
        heads = ["left out", *(_ERROR_NAMES.get(key, key) for key in keys)]
        table = [[split, *(_error_text(key, entry.get(key)) for key in keys)] for split, entry in errors.items()]
        lines += ["", text_table(heads, table, [False, *(True for _ in keys)])]
    return "\n".join(lines) + "\n"


_ERROR_NAMES = {
    "mean_error_pct": "mean error %",
    "max_error_pct": "max error %",
    "spearman": "Spearman",
    "coverage": "90 % covers",
    "width_pct": "width %",
    "n_runs": "runs",
}


def amount(name: str, value: float) -> str:
    """Return a size for people: a weight decay as it is, counts like 85M."""
    return f"{value:g}" if name == "weight_decay" else format_quantity(value)


def _errors_text(errors: dict[str, Any]) -> str:
    parts = [f"{_ERROR_NAMES.get(key, key)} {_error_text(key, value)}" for key, value in errors.items()]
    return ", ".join(parts)


def _error_text(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    if key == "coverage":
        return f"{100 * value:.0f} %"
    return f"{value:.0f}" if key == "n_runs" else f"{value:.3g}"


def _range(key: str, ends: Sequence[Any]) -> str:
    def text(value: Any) -> str:
        if not isinstance(value, int | float):
            return str(value)
        return format_quantity(value) if abs(value) >= 1000 else f"{value:.4g}"

    return " .. ".join(text(end) for end in ends)


def _check_figure(path: str) -> None:
    from optlaws.plotting import check_suffix

    check_suffix(path)


def _check_outputs(*paths: str | None) -> None:
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


def _write(path: str | os.PathLike[str], text: str) -> None:
    with atomic_write(path) as stream:
        stream.write(text)


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop the warnings on extrapolation: the table says it in its own column."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        yield


def _progress(items: Iterable[Any], what: str) -> Iterable[Any]:
    """Show a progress bar on standard error after two seconds, where it is a terminal."""
    from tqdm import tqdm

    bar: Iterable[Any] = tqdm(list(items), desc=what, delay=2.0, leave=False, disable=None)
    return bar
