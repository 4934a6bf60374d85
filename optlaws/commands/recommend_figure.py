"""The figure of a recommendation: the loss over the peak rate and over the batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from optlaws import report
from optlaws.commands.shared import figure_of
from optlaws.recommend import FLAT, FlatRange, Recommendation, too_far
from optlaws.runs import format_quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN_COST = 0.03  # relative loss above the best up to which the figure reaches


def draw(found: Recommendation, path: str) -> None:
    """Draw the loss over the peak rate and, where it was looked at, over the batch."""
    from matplotlib.figure import Figure

    from optlaws import plotting

    panels = [(found.peak, "peak learning rate", "peak_lr")]
    if found.batch is not None:
        panels.append((found.batch, "batch (tokens a step), peak rate tuned again", "batch_tokens"))
    figure = Figure(figsize=(8.0, 3.6 * len(panels) + 0.4), layout="constrained")
    for ax, (flat, label, name) in zip(np.atleast_1d(np.asarray(figure.subplots(len(panels)))), panels, strict=True):
        panel(ax, found, flat, name)
        ax.set_xlabel(label)
    figure.suptitle(plotting.wrapped(report.rank_header(found.families), 110, 3), fontsize=9.5)
    plotting.save_figure(figure_of(figure.axes[0]), path)


def _bar(ax: Axes, flat: FlatRange, left: float, right: float, text: Callable[[float], str], low: list[int]) -> None:
    """Draw the range that holds the best, with an arrow over the axis's end where the best may lie beyond it.

    An end that lies beyond the axis is written there, above the texts that stand `low` at the left and the right.
    """
    from optlaws.plotting import COLOURS

    at: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "color": COLOURS[0], "alpha": 0.55}
    ends = (left if flat.least_open else flat.least, right if flat.most_open else flat.most)
    label = "the best lies here (90 %)"
    if flat.least_open or flat.most_open:
        label += ", or beyond the arrow" + "s" * (flat.least_open and flat.most_open)
    ax.plot(ends, [0.02, 0.02], linewidth=4.0, solid_capstyle="butt", label=label, **at)
    for end, mark, is_open in ((left, "<", flat.least_open), (right, ">", flat.most_open)):
        if is_open:
            ax.plot(end, 0.02, mark, markersize=11, clip_on=False, markeredgewidth=0, zorder=5, **at | {"alpha": 1.0})
    for beyond, below, end in ((ends[0] < left, True, ends[0]), (ends[1] > right, False, ends[1])):
        if beyond:
            _outside(ax, text(end), below, 13 + 11 * low[0 if below else 1], COLOURS[0])


def _outside(ax: Axes, text: str, below: bool, height: float, colour: str) -> None:
    """Write at an end of the axis what lies beyond it, `height` points above its foot, or below its top if negative."""
    ax.annotate(
        f"\N{LEFTWARDS ARROW} {text}" if below else f"{text} \N{RIGHTWARDS ARROW}",
        (0.0 if below else 1.0, 0.0 if height > 0 else 1.0), xycoords="axes fraction",
        xytext=(4 if below else -4, height),
        textcoords="offset points", fontsize=8, color=colour, ha="left" if below else "right",
        bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0.0, "pad": 0.5},
    )  # fmt: skip


def panel(ax: Axes, found: Recommendation, flat: FlatRange, name: str) -> None:
    """Draw the loss over one quantity: its interval, the range that costs little, the one that holds the best."""
    from optlaws.plotting import COLOURS, log_labels

    ok = np.isfinite(flat.loss)
    least = float(flat.loss[ok].min())
    own = float(flat.loss[np.argmin(np.where(ok, np.abs(np.log(flat.values / flat.best)), np.inf))])
    top = max(min(least * (1.0 + DRAWN_COST), float(flat.upper[ok].max())), own + 0.2 * (own - least))
    near = ok & (flat.loss <= top)
    x = flat.values[ok]
    ax.fill_between(x, flat.lower[ok], flat.upper[ok], color=COLOURS[0], alpha=0.15, linewidth=0, label="90 % interval")
    ax.plot(x, flat.loss[ok], color=COLOURS[0], linewidth=1.8, label="predicted loss")
    cost = f"predicted to cost < {100 * FLAT:g} % more"
    ax.axvspan(flat.low, flat.high, color=COLOURS[2], alpha=0.15, linewidth=0, label=cost)
    ax.plot(flat.best, own, "o", color=COLOURS[0], markersize=7, label="recommended")
    ax.set_xscale("log")
    left, right = flat.values[near].min() / 1.08, flat.values[near].max() * 1.08
    edges = [float(end) for end in (flat.values[0], flat.values[-1]) if left <= end <= right]
    for end, label in zip(edges, ("edge of the law's domain", None), strict=False):
        ax.axvline(end, color="0.45", linewidth=1.2, linestyle=":", zorder=1, label=label)
    ax.set_xlim(left, right)
    lowest = float(flat.lower[ok].min())
    low = max(lowest, 2.0 * least - top)  # else the curve is a line in an interval that it shares
    ax.set_ylim(low - 0.05 * (top - low), top + 0.05 * (top - low))
    advised = sorted(((law.name, getattr(law, name)) for law in found.published), key=lambda pair: pair[1])
    advised = [(text, at) for text, at in advised if math.isfinite(at) and not too_far(at, flat.best)]
    counts = name == "batch_tokens"

    def said(value: float) -> str:
        return format_quantity(value, 3) if counts else f"{value:.3g}"

    written = [0, 0]  # at the foot of the left end and of the right
    for side, outside in enumerate(
        ([one for one in advised if one[1] < left], [one for one in advised[::-1] if one[1] > right])
    ):
        high = flat.loss[near][-side] > 0.5 * (low + top)  # off the curve's end
        for place, (text, at) in enumerate(outside):
            _outside(ax, f"{text} {said(at)}", side == 0, 13 + 11 * place if high else -46 - 11 * place, COLOURS[1])
        written[side] = len(outside) * bool(high)
    if math.isfinite(flat.least):
        _bar(ax, flat, left, right, said, written)
    for place, (text, at) in enumerate(one for one in advised if left <= one[1] <= right):
        ax.axvline(at, color=COLOURS[1], linewidth=1.0, linestyle="--", zorder=1)
        last = math.log(at / left) > 0.85 * math.log(right / left)
        ax.annotate(
            text, (at, 1.0), xycoords=("data", "axes fraction"), xytext=(-3 if last else 3, -10 - 11 * (place % 3)),
            textcoords="offset points", fontsize=8, color=COLOURS[1], ha="right" if last else "left",
            bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0.0, "pad": 0.5},
        )  # fmt: skip
    beyond = "; its interval\nreaches beyond the axis" if low > lowest else ""
    ax.set_ylabel(f"predicted final loss\n(nats per token){beyond}")
    narrow = right < 5.0 * left  # else there might be one label, or none
    finest = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0) if narrow else (1.0, 2.0, 5.0)
    log_labels(ax.xaxis, lambda value: format_quantity(value) if counts else f"{value:g}", finest)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="#e6e6e6", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.legend(
        fontsize=8,
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=3,
        borderaxespad=0.2,
        columnspacing=1.2,
    )
