"""The command that says which small runs to make before a law can be trusted for the large ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import click
import numpy as np

from optlaws import report
from optlaws._advice import percent
from optlaws.baselines.base import usable
from optlaws.commands.candidates import tell_candidates, tell_overruled
from optlaws.commands.shared import (
    check_figure,
    check_outputs,
    keep_inputs,
    quiet,
    tell_kinds_of,
    ticking,
    write_text,
)
from optlaws.design import Design, as_finished, design_runs, standard_pool, training_flops, usual_settings
from optlaws.dynamics.model import FloatArray
from optlaws.errors import InputError
from optlaws.risk import ACCEPTED
from optlaws.runs import RunTable, format_quantity, gather_candidates, parse_quantity, read_runs, write_runs

WIDE = 5.0  # times the narrowest interval: from where on a logarithmic axis shows more of the figure's intervals
NUMBERED = 5  # runs at one place of the figure whose numbers stand there, else how many they are
ROUGH = 100.0  # % of the loss: wider intervals say nothing


def design(
    candidates: Sequence[str],
    pool: Sequence[str],
    sizes: str | None,
    seq_len: float | None,
    count: int,
    have: str | None,
    budget: float | None,
    max_risk: float | None,
    style: str,
    plot: str | None,
    output: str | None,
    headers: Mapping[str, str] | None = None,
    **columns: Any,
) -> None:
    """Choose runs, print them, and write the table and the figure that were asked for."""
    for name, value in (("--sizes", sizes), ("--seq-len", seq_len)):
        if pool and value is not None:
            said = repr(value) if isinstance(value, str) else f"{value:g}"
            raise InputError(
                f"{name} is for runs that are proposed here, got {said} beside --pool; leave one of them out"
            )
    if headers and have is None:
        raise InputError("--columns names headers of the table of --have, got no --have; add it or leave it out")
    if plot:
        check_figure(plot)
    check_outputs(plot, output)
    for target in (plot, output):
        if target:
            keep_inputs(target, *candidates, *pool, have)
    wanted = gather_candidates(candidates, columns)
    targets = wanted.runs
    with ticking("reading runs"):
        done = None if have is None else read_runs(have, True, headers)
    if done is not None:
        tell_kinds_of(done)
    if done is not None and not pool:
        usual = usual_settings(targets)
        targets, taken = as_finished(targets, done, [] if seq_len is None else ["seq_len"])
        other = {key: value for key, value in taken.items() if usual.get(key) != value}
        if other:
            said = ", ".join(f"{key} {value if key == 'optimizer' else f'{value:g}'}" for key, value in other.items())
            click.echo(f"optlaws: note: taken from {have}, whose runs agree in it: {said}", err=True)
    accepted = ACCEPTED if max_risk is None else max_risk
    made = None
    if pool:
        with ticking("reading the pool"):
            made = gather_candidates(pool, {key: columns.get(key) for key in ("weight_decay", "optimizer")})
        choice = made.runs
        assumed = usual_settings(choice)
        assumed.pop("beta2", None)  # nothing is filled in here, and nothing looks at it
    else:
        choice = standard_pool(targets, None if sizes is None else _sizes(sizes), seq_len=seq_len)
        assumed = usual_settings(targets)
        if seq_len is None and not np.isfinite(targets.seq_len).any():
            assumed["seq_len"] = float(choice.seq_len[0])
    with quiet(), ticking(f"choosing among {len(choice):,} runs"):
        found = design_runs(targets, choice, count, have=done, budget=budget, max_risk=accepted)
    tell_candidates(wanted, columns)
    if made is not None:
        tell_overruled(made, columns, "runs of --pool")
    table = found.runs
    if not pool:
        table = replace(table, run_id=tuple(f"design-{i + 1}" for i in range(len(table))))
    if plot:
        _draw(found, targets, None if done is None else done.select(usable(done)), plot)
    if output:
        write_runs(output, table)
    if style == "csv":
        write_runs("-", table)
    elif style == "json":
        write_text("-", report.to_json(record(found, table, assumed)))
    else:
        write_text("-", _text(found, table, targets, accepted, output, assumed))


def _sizes(text: str) -> list[float]:
    """Return the sizes of a list like 20M,50M."""
    return [parse_quantity(part, "--sizes") for part in text.split(",")]


def record(found: Design, table: RunTable, assumed: Mapping[str, Any]) -> dict[str, Any]:
    """Return what JSON says of a design."""
    rows = [
        {
            "order": i + 1,
            "run_id": table.run_id[i],
            "schedule": schedule.to_dict(),
            "params": float(table.size[i]),
            "tokens": float(table.tokens[i]),
            "batch_tokens": float(table.batch_tokens[i]),
            "seq_len": float(table.seq_len[i]),
            "optimizer": table.optimizer[i],
            "weight_decay": float(table.weight_decay[i]),
            "beta1": float(table.beta1[i]),
            "beta2": float(table.beta2[i]),
            "cost": float(found.cost[i]),
            "width_pct": float(found.width[i + 1]),
        }
        for i, schedule in enumerate(table.schedule_tuple())
    ]
    return {
        "runs": rows,
        "unit": found.unit,
        "cost": float(found.cost.sum()),
        "width_before_pct": float(found.width[0]),
        "width_after_pct": float(found.width[-1]),
        "pool": len(found.pool),
        "left_out_for_risk": found.risky,
        "finished_runs": found.known,
        "assumed": dict(assumed),
    }


def _width(value: float) -> str:
    """Return the width of an interval, %."""
    return f"> {ROUGH:.0f}" if value > ROUGH else f"{value:.3g}"


def _quantity(value: float) -> str:
    return format_quantity(value, 3) if math.isfinite(value) else "-"


def _sequences(value: float) -> str:
    """Return how many sequences a batch holds, where that is a whole number."""
    return f"{value:,.0f}" if value.is_integer() else "-"


def _cost(value: float, unit: str) -> str:
    return f"{value:.2e}" if unit == "FLOPs" else format_quantity(value, 3)


def _text(
    found: Design,
    table: RunTable,
    targets: RunTable,
    accepted: float,
    output: str | None,
    assumed: Mapping[str, Any],
) -> str:
    lines = [_targets(targets) + ".", f"Chosen from {len(found.pool):,} runs{_left_out(found, accepted)}.", ""]
    counted = np.isfinite(table.seq_len).any()
    header = [
        "run",
        "params",
        "tokens",
        "batch",
        *(["sequences"] if counted else []),
        "schedule",
        found.unit,
        "width %",
    ]
    rows = []
    for i, row in enumerate(range(len(table))):
        sizes = (_quantity(float(values[row])) for values in (table.size, table.tokens, table.batch_tokens))
        cost = _cost(float(found.cost[i]), found.unit)
        sequences = [_sequences(float(table.batch_tokens[row] / table.seq_len[row]))] if counted else []
        rows.append(
            [
                str(i + 1),
                *sizes,
                *sequences,
                report.schedule_text(table, row, full=True),
                cost,
                _width(found.width[i + 1]),
            ]
        )
    lines += report.text_table(header, rows, [name != "schedule" for name in header]).splitlines()
    lines += ["", *_settings(table, assumed), _sums(found, targets)]
    where = (
        f"put their final losses into {output}"
        if output and output != "-"
        else "put their final losses into a run table (-o writes one)"
    )
    lines += [f"Train them in this order, {where}, then: optlaws fit. What was measured may be given back with --have."]
    return "\n".join(lines) + "\n"


def _settings(table: RunTable, assumed: Mapping[str, Any]) -> list[str]:
    """Say what the runs are to be trained with, and what of it nobody said; [] where nothing is known."""
    parts = []
    for name in ("optimizer", "weight_decay", "beta1", "beta2", "seq_len"):
        held = {value for value in getattr(table, name) if value and value == value}
        held |= {assumed[name]} if name in assumed else set()
        if len(held) == 1:
            value = held.pop()
            text = value if isinstance(value, str) else f"{value:g}"
            said = f"sequences of {text} tokens" if name == "seq_len" else f"{name.replace('_', ' ')} {text}"
            parts.append(said + " (assumed)" * (name in assumed))
    way = "; assumed is what nothing says: train so, or state your own" if assumed else ""
    return [f"Runs with {', '.join(parts)}{way}."] if parts else []


def _targets(targets: RunTable) -> str:
    """Say in words what is to be predicted."""
    parts = []
    for name, values in (("parameters", targets.size), ("tokens", targets.tokens)):
        good = values[np.isfinite(values)]
        if len(good):
            low, high = (format_quantity(float(x), 3) for x in (good.min(), good.max()))
            parts.append(f"{low} {name}" if low == high else f"{low} to {high} {name}")
    noun = "run" if len(targets) == 1 else "runs"
    return f"To be predicted: {len(targets)} {noun}" + (f", {', '.join(parts)}" if parts else "")


def _left_out(found: Design, accepted: float) -> str:
    risky = f" ({found.risky:,} more are likelier than {percent(accepted)} to diverge)" if found.risky else ""
    known = f", beside {found.known:,} finished ones" if found.known else ""
    return risky + known


def _sums(found: Design, targets: RunTable) -> str:
    """Say what the runs cost together and what they are worth by the prior's account."""
    text = f"Together {_cost(float(found.cost.sum()), found.unit)} {found.unit}"
    if found.unit == "FLOPs":
        one = float(np.median(training_flops(targets)))
        text += f", {100 * float(found.cost.sum()) / one:.3g} % of one run that is to be predicted"
    return (
        f"{text}. Width: of the 90 % interval of an expected loss to be predicted, % of it, after that run;"
        f" {_width(found.width[0])} before the first. It is what the priors promise: no loss stands behind it yet."
    )


def _together(points: FloatArray, near: FloatArray) -> list[tuple[FloatArray, list[int]]]:
    """Return the places of points (2, m) and who is there, those closer than `near` (2,) to the first being one."""
    found: list[tuple[FloatArray, list[int]]] = []
    for i, point in enumerate(points.T):
        if not np.isfinite(point).all():  # a rate of 0 has no place on a logarithmic axis
            continue
        for place, rows in found:
            if (np.abs(point - place) <= near).all():
                rows.append(i)
                break
        else:
            found.append((point, [i]))
    return found


def _draw(found: Design, targets: RunTable, done: RunTable | None, path: str) -> None:
    """Draw how the interval narrows, and where the runs lie beside those that are finished and the targets."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from optlaws import plotting

    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(np.arange(len(found.width)), found.width, "o-", color=plotting.COLOURS[0], markersize=4, linewidth=1.4)
    left.set_xlabel("runs made (0: none yet)")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_ylabel("promised 90 % interval of the expected loss\nto be predicted, % of it")
    left.set_title("promised: before any of these losses is known", fontsize=8, loc="left")
    scales = [right.xaxis, right.yaxis]
    if found.width.min() > 0 and found.width.max() > WIDE * found.width.min():
        left.set_yscale("log")
        scales.append(left.yaxis)
    else:
        left.set_ylim(bottom=0.0)
    runs = found.runs
    flat = not (np.isfinite(runs.size).all() and np.isfinite(targets.size).all())
    shown = [(runs, "o", 6, plotting.COLOURS[0], "chosen"), (targets, "*", 11, plotting.COLOURS[1], "to be predicted")]
    if done is not None:
        shown.insert(0, (done, "s", 8, plotting.GREY, "finished"))
    places: dict[str, FloatArray] = {}
    for table, style, size, colour, name in shown:
        x = np.asarray(table.steps if flat else table.tokens, dtype=float)
        y = np.asarray(table.batch().peak, dtype=float) if flat else table.size
        right.plot(x, y, style, color=colour, markersize=size, alpha=0.75, label=name)
        with np.errstate(divide="ignore"):
            places[name] = np.log(np.stack([x, y]))
    span = np.ptp(np.ma.masked_invalid(np.concatenate(list(places.values()), axis=1)), axis=1)
    right.set_title("numbers: places in the order of choice", fontsize=8, loc="left")
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlabel("steps" if flat else "training tokens")
    right.set_ylabel("peak learning rate" if flat else "parameters")
    right.legend(fontsize=8, frameon=False)
    for axis in scales:
        plotting.log_labels(axis, lambda v: f"{v:g}" if v < 1000 else format_quantity(v))
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(True, color="#e6e6e6", linewidth=0.6)
        ax.set_axisbelow(True)
    figure.suptitle(_targets(targets), fontsize=9.5)
    spots = _together(places["chosen"], span / 40)
    counted = [[f"{len(rows)} runs"] * (len(rows) > 1) for _, rows in spots]
    numbers = [[", ".join(str(row + 1) for row in rows)] * (len(rows) <= NUMBERED) for _, rows in spots]
    plotting.beside_points(
        right,
        [(math.exp(x), math.exp(y)) for (x, y), _ in spots],
        [full + short for full, short in zip(numbers, counted, strict=True)],
        np.exp(np.concatenate(list(places.values()), axis=1).T),
    )
    plotting.save_figure(figure, path)
