"""Commands that show what is built in or asked for: features, schedule, laws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from optlaws._advice import one_line
from optlaws.commands.candidates import tell_candidates
from optlaws.commands.shared import (
    ERROR_NAMES,
    amount,
    check_figure,
    check_outputs,
    error_text,
    figure_of,
    keep_inputs,
    write_text,
)
from optlaws.commands.words import QUANTITIES, quantities_text
from optlaws.errors import InputError, TableError
from optlaws.runs import (
    RunTable,
    atomic_write,
    format_quantity,
    gather_candidates,
)
from optlaws.runs._read import NO_LENGTH

if TYPE_CHECKING:
    from optlaws.features import Basis
    from optlaws.law import Law
    from optlaws.law.baseline import BaselineFit

_CHUNK = 1 << 16
RANKS = (
    "Spearman over all: of all runs left out together, whose sizes and lengths differ. Within pools: mean over pools\n"
    "of equal size and length, which is what choosing among candidates needs (-: no pool is large enough to say)."
)


def features(
    specs: Sequence[str],
    basis: str | None,
    style: str,
    output: str,
    headers: Mapping[str, str] | None = None,
    **sizes: Any,
) -> None:
    """Print the columns of a basis for schedules."""
    from optlaws import report
    from optlaws.dynamics import drive
    from optlaws.features import feature_table, get_basis, stated

    check_outputs(output)
    keep_inputs(output, *specs)
    chosen = get_basis(basis)
    found = gather_candidates(specs, sizes, columns=headers)
    values = np.asarray(feature_table(found.runs, chosen), dtype=np.float64)
    tell_candidates(found, sizes)
    names = found.runs.run_id
    fields = ("name", "group", "formula", "unit", "rescaling", "derivation")
    about = [{key: getattr(column, key) for key in fields} for column in chosen.columns]
    if style == "json":
        inputs = drive(found.runs, chosen.dynamics, **stated(found.runs))
        schedules = [
            {
                "name": name,
                "schedule": schedule.to_dict(),
                "inputs": {
                    "n": float(inputs.n[place]),
                    "b": float(inputs.b[place]),
                    "wd": float(inputs.weight_decay[place]),
                    "plain_sgd": bool(inputs.plain[place] > 0),
                    "batch_stated": not inputs.noise_limited,
                },
                "values": dict(zip((entry["name"] for entry in about), row.tolist(), strict=True)),
            }
            for place, (name, schedule, row) in enumerate(zip(names, found.runs.schedule_tuple(), values, strict=True))
        ]
        explained = [{**entry, "assumed": column.assumed} for entry, column in zip(about, chosen.columns, strict=True)]
        document = {"basis": chosen.id, "columns": explained, "schedules": schedules, **_legend(chosen)}
        write_text(output, report.to_json(document))
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
        write_text(output, _features_text(chosen, names, found.runs, about, values))


def _legend(basis: Basis) -> dict[str, list[dict[str, Any]]]:
    """Return what the formulas of a basis need beside the schedule: symbols, and constants with their values."""
    from optlaws.dynamics import SYMBOLS, constants
    from optlaws.features.columns import CONSTANT_UNITS

    exponents = [
        {"symbol": key, "name": key, "value": value, "unit": CONSTANT_UNITS.get(key, "1")}
        for key, value in basis.exponents.items()
    ]
    return {
        "symbols": [asdict(entry) for entry in SYMBOLS],
        "constants": [*exponents, *(asdict(entry) for entry in constants(basis.dynamics))],
    }


def _features_text(
    basis: Basis, names: Sequence[str], runs: RunTable, about: list[dict[str, Any]], values: npt.NDArray[np.float64]
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
    lines = [f"Basis {basis.id}"]
    for place, name in enumerate(names):
        sizes = [
            f"{key} {amount(key, float(getattr(runs, key)[place]))}"
            for key in ("params", "tokens", "batch_tokens", "weight_decay")
            if not np.isnan(getattr(runs, key)[place])
        ]
        lines.append(f"{place + 1}  {one_line(name)}" + (f" ({', '.join(sizes)})" if sizes else ""))
    missing = [key for key in ("params", "batch_tokens", "weight_decay") if np.isnan(getattr(runs, key)).any()]
    if missing:
        lines.append(f"not given, so the reference size and batch and AdamW's decay stand in: {', '.join(missing)}")
    origins = [[column.name, column.derivation] for column in basis.columns]
    assumed: dict[str, list[str]] = {}
    for column in basis.columns:
        if column.assumed:
            assumed.setdefault(column.assumed, []).append(column.name)
    notes = [
        "Rescaling e: with the weight norm held, the column is multiplied by s^e when all rates are multiplied by s and"
    ]
    notes += ["all curvatures, the escape rate and the cut-off divided by s (the unit of intrinsic time changes).", ""]
    notes += ["Assumed in these formulas; the standing of the rest is in theory/README.md:"]
    notes += [f"  {', '.join(some)}: {text}" for text, some in assumed.items()]
    legend = _legend(basis)
    symbols = [[entry[key] for key in ("symbol", "equation", "meaning", "unit")] for entry in legend["symbols"]]
    constants = [
        [entry["symbol"], f"{entry['value']:.6g}", entry["unit"], entry["name"]] for entry in legend["constants"]
    ]
    tables = [
        text_table(header, rows, right),
        text_table(["column", "where it comes from"], origins, [False, False]),
        *(["\n".join(notes)] if assumed else []),
        text_table(["symbol", "equation", "what it is", "unit"], symbols, [False] * 4),
        text_table(["constant", "value", "unit", "name in the code"], constants, [False, True, False, False]),
    ]
    return "\n\n".join(["\n".join(lines), *tables]) + "\n"


def schedule(spec: str, style: str, plot: str | None, output: str) -> None:
    """Print a schedule, one row a step."""
    if plot:
        check_figure(plot)
    check_outputs(plot, output)
    keep_inputs(output, spec)
    try:
        found = gather_candidates([spec]).runs.schedule_tuple()
    except TableError as bad:  # there are no options for tokens here
        raise TableError(str(bad).removesuffix(NO_LENGTH)) from None
    if len(found) != 1:
        raise InputError(f"SPEC must be one schedule, got {len(found)}; name one of them")
    chosen = found[0]
    if plot:
        from optlaws import plotting

        axes = plotting.new_axes(7.0, 3.2)
        plotting.plot_schedule(chosen, axes)
        axes.set_title(plotting.wrapped(str(chosen), 90), fontsize=9)
        plotting.save_figure(figure_of(axes), plot)
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


def laws(name: str | None, style: str, output: str) -> None:
    """List the built-in laws, or show one law."""
    from optlaws import report
    from optlaws.law import builtin_names, load_any_law, load_law

    check_outputs(output)
    keep_inputs(output, name)
    if name is not None:
        law = load_any_law(name)
        write_text(output, report.to_json(_law_record(law)) if style == "json" else _law_text(law))
        return
    found = [load_law(each) for each in builtin_names()]
    if style == "json":
        write_text(output, report.to_json([_law_record(law) for law in found]))
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
    write_text(output, f"{table}\n\n{quantities_text()}\n\noptlaws laws NAME shows one of them.\n")


def _law_record(law: Law | BaselineFit) -> dict[str, Any]:
    domain = {key: list(ends) for key, ends in law.domain.items()}
    return {"name": law.name, "basis": law.basis_id, "domain": domain, "defaults": dict(law.defaults), **law.info}


def _law_text(law: Law | BaselineFit) -> str:
    from optlaws.report import text_table

    info = law.info
    lines = [f"Law {law.name}, basis {law.basis_id}, {info.get('n_runs', 'unknown')} runs"]
    lines += [f"Notes: {info['notes']}"] if info.get("notes") else []
    lines += [f"Sources: {', '.join(info['sources'])}"] if info.get("sources") else []
    lines += [f"Rebuild: {info['rebuild']}"] if info.get("rebuild") else []
    lines += [f"Digest of the runs: {info['digest']}"] if info.get("digest") else []
    lines += [f"Doubtful: {'; '.join(info['doubts'])}"] if info.get("doubts") else []
    if info.get("outliers"):
        from optlaws.law.outliers import outliers_text

        lines.append(f"Runs that stand apart: {outliers_text(info['outliers'])}")
    rows = [[key, _range(key, ends), QUANTITIES.get(key, "")] for key, ends in law.domain.items()]
    lines += ["", text_table(["domain", "range of training", "what it is"], rows, [False] * 3)]
    defaults = [f"{key} {amount(key, value)}" for key, value in law.defaults.items()]
    lines += ["", f"Assumed where a candidate says nothing: {', '.join(defaults) or 'nothing'}"]
    errors = info.get("leave_group_out") or {}
    if errors:
        keys = list(dict.fromkeys(key for entry in errors.values() for key in entry))
        heads = ["left out", *(ERROR_NAMES.get(key, key) for key in keys)]
        table = [[split, *(error_text(key, entry.get(key)) for key in keys)] for split, entry in errors.items()]
        lines += ["", text_table(heads, table, [False, *(True for _ in keys)])]
        if "pool_spearman" in keys:
            lines += ["", RANKS]
    return "\n".join(lines) + "\n"


def _range(key: str, ends: Sequence[Any]) -> str:
    def text(value: Any) -> str:
        if not isinstance(value, int | float):
            return str(value)
        return format_quantity(value) if abs(value) >= 1000 else f"{value:.4g}"

    return " .. ".join(text(end) for end in ends)
