"""Figures of the model world: its learning, what is recovered of it, and how errors grow with the distance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from optlaws.plotting import COLOURS, save_figure
from theory.montecarlo.figures import panels
from theory.world.growth import VARIANTS, Growth
from theory.world.model import World
from theory.world.recover import EXPONENTS, Recovery, make_schedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def world_figure(world: World | None = None) -> Figure:
    """Draw the losses of the world against steps by size, and the columns' power laws that they approach."""
    w = World() if world is None else world
    figure, (ax,) = panels(1, 5.8, 3.9)
    steps = np.unique(np.geomspace(250, 64000, 9).round().astype(int))
    for colour, params in zip(COLOURS, (5e6, 2e7, 1e8, 1e9), strict=False):
        for family, style in (("WSD", "-"), ("constant", ":")):
            loss = [w.final_loss(make_schedule(family, 8e-3, int(t)), params, 524288.0) for t in steps]
            label = f"{params / 1e6:,.0f}M parameters" if family == "WSD" else None
            ax.plot(steps, np.array(loss) - w.irreducible, style, color=colour, linewidth=1.4, label=label)
    ax.plot([], [], ":", color="#4d4d4d", label="constant rate (solid: WSD)")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_yticks((0.8, 1.0, 1.5, 2.0, 3.0), ("0.8", "1", "1.5", "2", "3"))
    ax.minorticks_off()
    ax.set_xlabel("steps")
    ax.set_ylabel("final loss above the irreducible (nats)")
    ax.legend(frameon=False, fontsize=8)
    return figure


def recovery_figure(found: Sequence[Recovery]) -> Figure:
    """Draw the errors of the exponents, and of the loss at 1,000 times the compute, by world."""
    figure, axes = panels(2, 10.0, 3.4)
    places = np.arange(len(found))
    for j, name in enumerate(EXPONENTS):
        off = [r.exponent_errors()[name] for r in found]
        axes[0].plot(off, places + 0.16 * (j - 1), "o", color=COLOURS[j], markersize=5, label=name)
    shown = {"found, no field": "exponents found, no field", "found": "exponents found", "known": "exponents known"}
    for j, (fit, label) in enumerate(shown.items()):
        off = [r.errors[fit] for r in found]
        axes[1].plot(off, places + 0.16 * (j - 1), "s", color=COLOURS[3 + j], markersize=4.5, label=label)
    for ax, limit in zip(axes, (2.0, 1.0), strict=True):
        ax.axvspan(-limit, limit, color="#009e73", alpha=0.1, linewidth=0)
        ax.axvline(0.0, color="#4d4d4d", linewidth=0.8)
        ax.set_yticks(places, [r.world for r in found])
        ax.set_ylim(len(found) - 0.5, -0.5)
        ax.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), handletextpad=0.2)
    axes[1].tick_params(labelleft=False)
    for ax, least in zip(axes, (4.0, 1.5), strict=True):
        low, high = ax.get_xlim()
        ax.set_xlim(min(low, -least), max(high, least))
    axes[0].set_xlabel("error of the exponent (%), band: target")
    axes[1].set_xlabel("error of the loss at 1,000 x compute (%), band: target")
    return figure


def growth_figure(rows: Sequence[Growth]) -> Figure:
    """Draw root mean square errors and intervals against the distance, one panel a run noise."""
    noises = sorted({g.noise for g in rows})
    figure, axes = panels(len(noises), 5.2 * len(noises), 4.3)
    for ax, noise in zip(axes, noises, strict=True):
        for colour, variant in zip(COLOURS, VARIANTS, strict=False):
            picked = [g for g in rows if g.noise == noise and g.variant == variant]
            if not picked:
                continue
            size = [g.size for g in picked]
            ax.plot(size, [g.rms for g in picked], "o-", color=colour, markersize=4, label=f"{variant}: rms error")
            if variant.startswith("exponents"):
                half = [g.interval for g in picked]
                ax.plot(size, half, "--", color=colour, linewidth=1.0, label=f"{variant}: the law's 90 % half width")
                ax.plot(size, [g.paper for g in picked], ":", color=colour, label=f"{variant}: 90 % on paper")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ticks = (1, 10, 100, 700)
        ax.set_xticks(ticks, [f"{t}\n({t**2:,})" for t in ticks])
        ax.minorticks_off()
        ax.set_xlabel("size over the largest run, 100M (compute over its)")
        ax.set_ylabel("error of the predicted loss (%)")
        ax.set_title(f"run noise {100 * noise:g} %", fontsize=10)
    low = min(ax.get_ylim()[0] for ax in axes)
    high = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, high)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, ncols=3, loc="outside lower center")
    return figure


def draw_all(folder: Path, found: Sequence[Recovery], growth: Sequence[Growth]) -> Iterator[Path]:
    """Write every figure and yield its path."""
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Callable[[], Figure]] = {
        "world-loss": world_figure,
        "world-recovery": lambda: recovery_figure(found),
        "world-growth": lambda: growth_figure(growth),
    }
    for name, draw in figures.items():
        path = folder / f"{name}.png"
        save_figure(draw(), path)
        yield path
