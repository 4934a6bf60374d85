"""What a validation says: its table, its report and its figures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from optlaws.commands.shared import units_text
from optlaws.runs import format_quantity
from optlaws.validation import SMALLEST_POOL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from optlaws.commands.validate import Verdict

TARGETS = {"error": 0.5, "pool_spearman": 0.9, "top2": 94.0}
NO_POOLS = f"no pool: at least {SMALLEST_POOL} held-out runs must have one size and token budget"
DRAWN = 9  # held-out curves in the figure
SIZES_SHOWN = 8  # rows of the legend for sizes held out; of more, neighbours share one
TITLE = 44  # letters of the name of a run above its curve
FAR_APART = 2 * TARGETS["error"]  # %: a law between two levels so far apart misses each by the target for its error


def columns(verdict: Verdict) -> dict[str, Any]:
    """Return the table of all runs: what they did and what was predicted."""
    runs = verdict.runs
    return {
        "run_id": runs.run_id,
        "params": runs.size,
        "steps": runs.steps,
        "schedule": [schedule.kind for schedule in runs.schedule_tuple()],
        "peak_lr": np.asarray(runs.batch().peak, dtype=np.float64),
        "side": ["fitted" if one else "held out" for one in verdict.fitted.tolist()],
        "status": [status or "completed" for status in runs.status],
        "final_loss": runs.final_loss,
        "predicted_loss": verdict.predicted,
        "lower": verdict.lower,
        "upper": verdict.upper,
        "divergence_risk": np.asarray(verdict.risk.probability, dtype=np.float64),
        "flagged": verdict.flagged,
        "tokens": runs.tokens,
        "batch_tokens": runs.batch_tokens,
        "folder": verdict.folder,
        "pool": verdict.pool,
    }


def levels_text(verdict: Verdict) -> list[str]:
    """Return a sentence for each two folders whose runs are alike and whose losses are not; none: []."""
    return [
        f"losses of {count} configuration{'s' * (count > 1)} that {a} and {b} both trained are"
        f" {abs(higher):.2g} % {'higher' if higher > 0 else 'lower'} in {b}: one law for both cannot tell them apart,"
        " and its errors hold that difference; validate each by itself"
        for a, b, count, higher in verdict.levels
        if abs(higher) > FAR_APART
    ]


def _folders_lines(verdict: Verdict) -> list[str]:
    """Return what the report says of several folders: their one law, what it does in each, and their levels."""
    if not verdict.folders:
        return []
    lines = [
        "One law was fitted to the runs of all folders, and knows of no difference between them. Pools, and repeats of"
        " one configuration, are of one folder.",
        "",
        "| folder | held-out runs | error % | bias % | Spearman within pools | cover % |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, s in verdict.folders:
        ranked = f"{s['pool_spearman']:.3f}" if s["pools"] else "-"
        cover = f"{100 * s['cover']:.0f}"
        lines.append(f"| {name} | {s['runs']} | {s['error']:.2f} | {s['bias']:+.2f} | {ranked} | {cover} |")
    far = levels_text(verdict)
    near = [
        f"Losses of {count} configuration{'s' * (count > 1)} that {a} and {b} both trained differ by {higher:+.2f} %."
        for a, b, count, higher in verdict.levels
        if abs(higher) <= FAR_APART
    ]
    if not verdict.levels:
        near = ["No configuration was trained in two folders, so that only the biases say whether their levels differ."]
    said = [f"**{text[:1].upper()}{text[1:]}.**" for text in far] + near
    return [*lines, "", " ".join(said), ""]


def report(verdict: Verdict, targets: bool = True) -> str:
    """Return the report as Markdown, with `targets` held against what this project aims at on its own sweeps."""
    s, runs, confusion = verdict.scores, verdict.runs, verdict.confusion()
    repeated = s["pools"] and s["candidate_spearman"] != s["pool_spearman"]
    train = runs.select(verdict.fitted)
    usable = len(train) - int(verdict.diverged[verdict.fitted].sum())
    missed = confusion["not flagged, diverged"]
    lost = confusion["flagged, diverged"] + missed
    rows = [
        ("mean error", f"{s['error']:.2f} %", _judge(s["error"] <= TARGETS["error"], "at most 0.5 %")),
        ("largest error", f"{s['worst']:.2f} %", ""),
        ("bias", f"{s['bias']:+.2f} %", ""),
        (
            f"Spearman within pools (mean of {s['pools']})",
            f"{s['pool_spearman']:.3f}" if s["pools"] else NO_POOLS,
            _judge(s["pool_spearman"] >= TARGETS["pool_spearman"], "at least 0.9") if s["pools"] else "",
        ),
        *([("the same of candidates, repeats averaged", f"{s['candidate_spearman']:.3f}", "")] if repeated else []),
        ("Spearman over all", f"{s['spearman']:.3f}", ""),
        (
            "Top-2: best run among the two predicted lowest",
            f"{s['hits']} of {s['pools']} pools" if s["pools"] else NO_POOLS,
            _judge(verdict.top2 >= TARGETS["top2"], "at least 94 %") if s["pools"] else "",
        ),
        (
            "regret of the run predicted lowest",
            f"{s['regret']:.2f} % (largest {s['worst_regret']:.2f} %)" if s["pools"] else NO_POOLS,
            "",
        ),
        ("90 % intervals cover", f"{100 * s['cover']:.0f} % (mean width {s['width']:.2f} %)", ""),
        ("diverged runs flagged", f"{lost - missed} of {lost}", _judge(missed == 0, "all") if lost else ""),
    ]
    calm = verdict.scored & ~verdict.flagged
    if calm.any():
        error = 100 * np.abs(verdict.predicted[calm] / runs.final_loss[calm] - 1)
        rows.insert(1, (f"mean error of the {len(error)} runs that were not flagged", f"{error.mean():.2f} %", ""))
    if verdict.curves:
        rows.append(("mean error along the curves", f"{verdict.curve_error():.2f} %", ""))
    lines = [
        "# Validation",
        "",
        f"Fitted on {usable} completed runs of at most {format_quantity(float(train.size.max()))} parameters and "
        f"{int(train.steps.max()):,} steps ({len(train) - usable} more diverged); scored on {s['runs']} completed runs "
        f"that are larger or longer. Losses are {runs.final_loss[verdict.scored].min():.3f} to "
        f"{runs.final_loss[verdict.scored].max():.3f} nats per token. {units_text(verdict.law)}".rstrip(),
        "",
        "| held-out runs | |" + " target |" * targets,
        "| --- | --- |" + " --- |" * targets,
        *(f"| {what} | {value} |" + f" {judged} |" * targets for what, value, judged in rows),
        "",
        f"Divergence of held-out runs, flagged above a risk of {100 * verdict.accepted:g} %:",
        "",
        "| | diverged | completed |",
        "| --- | --- | --- |",
        *(
            f"| {which} | {confusion[f'{which}, diverged']} | {confusion[f'{which}, completed']} |"
            for which in ("flagged", "not flagged")
        ),
        "",
    ]
    if verdict.repeats:
        best = verdict.ceiling()
        words = f"Runs{' of one folder' * bool(verdict.folders)} that differ in the seed alone scatter by"
        words += f" {verdict.repeat_sd:.2f} % (standard deviation, "
        words += f"{verdict.repeats} runs). Predictions that are wrong by no more than that would have a mean error of "
        words += f"{best['error']:.2f} %"
        if s["pools"]:
            words += f", a Spearman of {best['pool_spearman']:.3f} within pools and {best['top2']:.0f} % in Top-2"
        lines += [words + " (simulated).", ""]
    lines += _folders_lines(verdict)
    several = bool(verdict.folders)
    lines += [
        "## Pools",
        "",
        "| folder " * several
        + "| parameters | budget | runs | error % | bias % | Spearman | Top-2 | regret % | cover % |",
        "| --- " * several + "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for folder, size, tokens, steps, cell in verdict.cells:
        ranked = cell["pools"] > 0
        top = ("yes" if cell["hits"] else "no") if ranked else "-"
        lines.append(
            f"| {folder} " * several + f"| {format_quantity(size)} | {_budget(tokens, steps)} | {cell['runs']} | "
            f"{cell['error']:.2f} | {cell['bias']:+.2f} | "
            + (f"{cell['pool_spearman']:.3f} | {top} | {cell['regret']:.2f} | " if ranked else "- | - | - | ")
            + f"{100 * cell['cover']:.0f} |"
        )
    lines += ["", "![predicted against real losses](validation.png)"]
    if verdict.curves:
        lines += ["", "![predicted and real curves of held-out runs](validation_curves.png)"]
    return "\n".join(lines) + "\n"


def _budget(tokens: float, steps: float) -> str:
    return f"{int(steps):,} steps" if math.isnan(tokens) else f"{format_quantity(tokens)} tokens"


def _judge(reached: bool, target: str) -> str:
    return f"{target}: {'reached' if reached else '**missed**'}"


def _figure_title(verdict: Verdict) -> str:
    """Return which law the figure is of, and where the border between fitted and predicted runs lies."""
    from optlaws import plotting

    size, steps = (float(values[verdict.fitted].max()) for values in (verdict.runs.size, verdict.runs.steps))
    border = f"{format_quantity(size)} parameters and {steps:,.0f} steps"
    return plotting.wrapped(f"Law {verdict.law.name}: fitted up to {border}, larger and longer runs predicted", 80, 3)


def losses_figure(verdict: Verdict) -> Figure:
    """Return the figure of predicted against real final losses, its axes as wide as the held-out runs need them."""
    import matplotlib

    from optlaws import plotting

    axes = plotting.new_axes(6.4, 6.0)
    real, predicted = verdict.runs.final_loss, verdict.predicted
    low, high = _ends(verdict)
    axes.plot([low, high], [low, high], color="#4d4d4d", linewidth=0.8, zorder=1)
    some = np.isfinite(real) & ~verdict.diverged & verdict.fitted
    inside = some & (np.minimum(real, predicted) >= low) & (np.maximum(real, predicted) <= high)
    beyond = int(some.sum() - inside.sum())
    axes.plot(
        real[inside], predicted[inside], "o", color="#8c8c8c", markerfacecolor="none", markersize=3.5,
        markeredgewidth=0.7, label="fitted" + f" ({beyond} more beyond the axes)" * (beyond > 0),
    )  # fmt: skip
    sizes = np.unique(verdict.runs.size[verdict.scored])
    bins = np.array_split(sizes, min(SIZES_SHOWN, len(sizes)))
    shades = matplotlib.colormaps["viridis_r"](np.linspace(0.15, 1.0, len(bins)))  # the larger, the darker
    for held, shade in zip(bins, shades, strict=True):
        rows = verdict.scored & np.isin(verdict.runs.size, held)
        y = predicted[rows]
        words = " to ".join(format_quantity(size) for size in dict.fromkeys([float(held[0]), float(held[-1])]))
        axes.errorbar(
            real[rows], y, yerr=[y - verdict.lower[rows], verdict.upper[rows] - y], fmt="o", markersize=4.5,
            color=shade, elinewidth=0.8, label=f"held out, {words} parameters",
        )  # fmt: skip
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_xlabel("real final loss (nats per token)")
    axes.set_ylabel("predicted final loss (nats per token), 90 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(_figure_title(verdict), fontsize=9)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return axes.figure  # type: ignore[return-value]


def _ends(verdict: Verdict) -> tuple[float, float]:
    """Return the ends of both axes: about the losses of held-out runs, with room for the usual interval."""
    held = verdict.scored
    losses = np.concatenate([verdict.runs.final_loss[held], verdict.predicted[held]])
    low, high = float(losses.min()), float(losses.max())
    half = 0.5 * float(np.median((verdict.upper - verdict.lower)[held]))
    pad = max(0.04 * (high - low), half if math.isfinite(half) else 0.0, 1e-3 * abs(high))
    return low - pad, high + pad


def curves_figure(verdict: Verdict) -> Figure:
    """Return the figure of some held-out curves, evenly picked from the lowest to the highest final loss."""
    from matplotlib.figure import Figure

    from optlaws import plotting

    ordered = sorted(verdict.curves, key=lambda entry: float(verdict.runs.final_loss[entry[0]]))
    pick = np.unique(np.linspace(0, len(ordered) - 1, min(DRAWN, len(ordered))).round().astype(int))
    figure = Figure(figsize=(10.5, 3.1 * math.ceil(len(pick) / 3)), layout="constrained")
    grid = figure.subplots(math.ceil(len(pick) / 3), min(3, len(pick)), squeeze=False)
    for axes in grid.ravel()[len(pick) :]:
        axes.set_visible(False)
    names = plotting.told_apart([verdict.runs.run_id[ordered[place][0]] for place in pick.tolist()], TITLE, 1)
    for axes, place, name in zip(grid.ravel(), pick.tolist(), names, strict=False):
        i, step, loss, guess, lower, upper = ordered[place]
        axes.fill_between(step, lower, upper, color=plotting.COLOURS[0], alpha=0.15, linewidth=0)
        axes.plot(step, guess, color=plotting.COLOURS[0], linewidth=1.6, label="predicted, 90 %")
        axes.plot(step, loss, "o-", color="#222222", linewidth=0.7, markersize=2.2, label="real")
        schedule = verdict.runs.schedule_tuple()[i]
        peak = float(verdict.runs.batch().peak[i])
        size = format_quantity(float(verdict.runs.size[i]))
        axes.set_title(f"{name}\n{size} parameters, {schedule.kind}, peak {peak:g}", fontsize=9)
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0][0].set_ylabel("loss (nats per token)", fontsize=9)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(_figure_title(verdict), fontsize=10)
    return figure
