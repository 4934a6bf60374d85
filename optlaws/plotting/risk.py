"""Figures of the risk of divergence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optlaws.plotting.axes import new_axes
from optlaws.runs import format_quantity

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from optlaws.risk.changes import RiskMap

RISK_AXES = {"warmup_steps": "warm-up (steps)", "batch_tokens": "batch (tokens a step), tokens of the run kept"}


def plot_risk_map(
    risk: RiskMap,
    accepted: float,
    here: tuple[float, float],
    others: Sequence[tuple[float, float]] = (),
    ax: Axes | None = None,
    apart: int = 0,
) -> list[Artist]:
    """Draw the divergence risk over peak rate and one other quantity, with the region of accepted risk outlined.

    `here` is the run that the map was made for, `others` are runs that differ from it on the axes only, both as
    (peak rate, other quantity); `apart` says how many further runs were asked for that differ in more, and so have no
    place on this map.
    """
    from matplotlib.lines import Line2D

    ax = new_axes(7.4, 5.0) if ax is None else ax
    mesh = ax.pcolormesh(
        risk.peak, risk.other, risk.probability, vmin=0.0, vmax=1.0, cmap="YlOrRd", shading="nearest", rasterized=True
    )
    artists: list[Artist] = [mesh]
    ax.set_xscale("log")
    ax.set_yscale("log")
    values = risk.probability[np.isfinite(risk.probability)]
    if len(values) and values.min() <= accepted:
        safe = ax.contourf(
            risk.peak, risk.other, risk.probability, levels=[-1.0, accepted], colors="none", hatches=["//"]
        )
        safe.set(edgecolor="#4d9a6a", linewidth=0.0)
        artists.append(safe)
    for level, style, colour, width in ((accepted, "-", "#1b6e3c", 2.0), (0.5, "--", "#4d4d4d", 1.2)):
        if len(values) and values.min() < level < values.max():
            lines = ax.contour(
                risk.peak,
                risk.other,
                risk.probability,
                levels=[level],
                colors=colour,
                linestyles=style,
                linewidths=width,
            )
            ax.clabel(lines, fmt={level: f"{100 * level:g} %"}, fontsize=8.5)
            artists.append(lines)
    beside = [point for point in others if point != here]
    inside = [(x, y) for x, y in beside if risk.peak[0] <= x <= risk.peak[-1] and risk.other[0] <= y <= risk.other[-1]]
    handles = []
    if here[1] > 0:
        artists += ax.plot(
            *here,
            "o",
            color="black",
            markersize=8,
            markeredgecolor="white",
            clip_on=False,
            zorder=6,
            label="the first run",
        )
        handles.append(artists[-1])
    if inside:
        label = "others, alike but for these axes"
        face: dict[str, Any] = {"markerfacecolor": "white", "zorder": 6, "label": label}
        artists += ax.plot(*zip(*inside, strict=True), "o", color="#4d4d4d", markersize=5, **face)
        handles.append(artists[-1])
    if apart or len(beside) > len(inside):
        words = [f"{apart} unlike in other settings", f"{len(beside) - len(inside)} beyond the axes"]
        label = "not drawn: " + ", ".join(word for word in words if not word.startswith("0 "))
        handles.append(Line2D([], [], linestyle="", label=label))
    if handles:
        legend = ax.legend(handles=handles, loc="lower right", fontsize=8.5, framealpha=0.8, edgecolor="none")
        legend.set_zorder(5)
    ax.set_xlabel("peak learning rate")
    ax.set_ylabel(RISK_AXES[risk.over])
    _few_ticks(ax)
    ax.figure.colorbar(mesh, ax=ax, label="probability of divergence")
    some = len(values) and values.min() <= accepted
    words = [f"hatched: at most {100 * accepted:g} %" if some else f"nowhere at most {100 * accepted:g} %"]
    words += ["white: impossible"] if len(values) < risk.probability.size else []
    artists.append(
        ax.text(
            0.02, 0.98, ", ".join(words), transform=ax.transAxes, va="top", fontsize=8.5,
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0.0},
        )
    )  # fmt: skip
    return artists


def _few_ticks(ax: Axes) -> None:
    """Label logarithmic axes at 1, 2 and 5 times powers of ten: rates as they are, counts like 2K."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis, text in ((ax.xaxis, lambda v, _: f"{v:g}"), (ax.yaxis, lambda v, _: format_quantity(v))):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(text))
        axis.set_minor_formatter(NullFormatter())
