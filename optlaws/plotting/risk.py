"""Figures of the risk of divergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from optlaws.plotting.axes import new_axes
from optlaws.plotting.room import log_labels
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
    (peak rate, other quantity); one without a warm-up, a quantity of 0, is marked at the foot of the axis. `apart` says
    how many further runs were asked for that differ in more, and so have no place on this map.
    """
    from matplotlib.lines import Line2D
    from matplotlib.markers import CARETDOWN

    if risk.over == "warmup_steps":  # no run has a part of a step
        whole = risk.other >= 1.0
        risk = replace(risk, other=risk.other[whole], probability=risk.probability[whole])
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
    floor = ax.get_ylim()[0]
    beside = [point for point in others if point != here]
    inside = [
        (x, y) for x, y in beside if risk.peak[0] <= x <= risk.peak[-1] and (y <= 0.0 or floor <= y <= risk.other[-1])
    ]
    first: dict[str, Any] = {"color": "black", "markersize": 8, "markeredgecolor": "white"}
    more: dict[str, Any] = {"color": "#4d4d4d", "markersize": 5, "markerfacecolor": "white"}
    handles = []
    for points, look, label in (
        ([here], first, "the first run"),
        (inside, more, "others, alike but for these axes"),
    ):
        warmed, cold = [one for one in points if one[1] > 0.0], [one for one in points if one[1] <= 0.0]
        for mark, some in (("o", warmed), (CARETDOWN, cold)):
            if some:
                x, y = zip(*((x, y if y > 0.0 else floor) for x, y in some), strict=True)
                artists += ax.plot(x, y, marker=mark, linestyle="", clip_on=False, zorder=6, label=label, **look)
                handles.append(artists[-1])
    without = any(y <= 0.0 for _, y in (here, *inside))
    handles = list({handle.get_label(): handle for handle in handles[::-1]}.values())[::-1]
    if apart or len(beside) > len(inside):
        words = [f"{apart} unlike in other settings", f"{len(beside) - len(inside)} beyond the axes"]
        label = "not drawn: " + ", ".join(word for word in words if not word.startswith("0 "))
        handles.append(Line2D([], [], linestyle="", label=label))
    if handles:
        legend = ax.legend(handles=handles, loc="lower right", fontsize=8.5, framealpha=0.8, edgecolor="none")
        legend.set_zorder(5)
    ax.set_xlabel("peak learning rate")
    ax.set_ylabel(RISK_AXES[risk.over])
    log_labels(ax.xaxis, lambda value: f"{value:g}")
    log_labels(ax.yaxis, format_quantity)
    ax.figure.colorbar(mesh, ax=ax, label="probability of divergence")
    safely = len(values) and values.min() <= accepted
    words = [f"hatched: at most {100 * accepted:g} %" if safely else f"nowhere at most {100 * accepted:g} %"]
    words += ["white: impossible"] if len(values) < risk.probability.size else []
    words += ["triangle: no warm-up"] * without
    artists.append(
        ax.text(
            0.02, 0.98, ", ".join(words), transform=ax.transAxes, va="top", fontsize=8.5,
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0.0},
        )
    )  # fmt: skip
    return artists
