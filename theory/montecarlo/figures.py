"""Figures of the Monte-Carlo checks: lines are predictions, points are simulations with one standard error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optlaws.plotting import COLOURS, save_figure
from optlaws.schedules import constant
from theory.montecarlo import adam, escape, heavy_tails, quadratic, weak_order, weight_norm
from theory.montecarlo.link import bare_dynamics, escape_state, four_schedules
from theory.montecarlo.network import WEIGHTS, of_norm, train
from theory.montecarlo.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = {"E x": "E $x$", "E x^2": "E $x^2$"}
POINTS: dict[str, Any] = {"fmt": "o", "markersize": 3.5, "capsize": 2, "linewidth": 1.0}


def panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of that size in inches and its axes, side by side with open frames."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(np.atleast_1d(np.asarray(figure.subplots(1, count), dtype=object)))
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(True, color="#e6e6e6", linewidth=0.6)
        ax.set_axisbelow(True)
    return figure, axes


def sgd_moments() -> Figure:
    """Draw mean and variance of one mode along the run under four schedules."""
    figure, axes = panels(3, 11.0, 3.4)
    rng, mode, count = np.random.default_rng(11), 2, 4000
    grid = np.linspace(1, quadratic.STEPS, 240).astype(int)
    at = np.linspace(60, quadratic.STEPS, 16).astype(int)
    for colour, (name, schedule) in zip(COLOURS, four_schedules(quadratic.PEAK, quadratic.STEPS).items(), strict=False):
        width = 3.2 if name == "constant" else 1.6  # the others lie on it in part
        axes[0].plot(schedule.array(), color=colour, linewidth=width, label=name)
        mean, variance = quadratic.moments(schedule, grid.tolist())
        axes[1].plot(grid, mean[:, mode], color=colour, linewidth=width)
        axes[2].plot(grid, variance[:, mode], color=colour, linewidth=width)
        x = quadratic.sgd(schedule, quadratic.CURVATURES, quadratic.START, quadratic.NOISE, count, rng, at.tolist())
        x = x[:, :, mode]
        axes[1].errorbar(at, x.mean(axis=1), x.std(axis=1) / np.sqrt(count), color=colour, **POINTS)
        spread = x.var(axis=1, ddof=1)
        axes[2].errorbar(at, spread, spread * np.sqrt(2.0 / count), color=colour, **POINTS)
    step = quadratic.CURVATURES[mode] * quadratic.PEAK
    for ax, label in zip(
        axes, ("learning rate", rf"mean of $x$ ($\eta h$ = {step:.3f})", "variance of $x$"), strict=True
    ):
        ax.set_xlabel("step")
        ax.set_ylabel(label)
    axes[1].set_xlim(0, 500)
    axes[0].set_ylim(0, 1.32 * quadratic.PEAK)
    axes[0].legend(frameon=False, fontsize=8, ncols=2, loc="upper center")
    return figure


def weak_order_figure() -> Figure:
    """Draw the weak error against the relative step."""
    figure, (ax,) = panels(1, 5.2, 3.8)
    rng = np.random.default_rng(12)
    quadratic_loss, _ = weak_order.quadratic_errors(50_000, rng)
    colours = iter(COLOURS)
    for loss, errors in (("quadratic", quadratic_loss), ("quartic", weak_order.quartic_errors(50_000, rng))):
        for name, error in errors.items():
            slope, se = error.slope()
            label = f"{loss}, {SHOWN[name]}: slope {slope:.3f} ± {se:.3f}"
            ax.errorbar(error.step, np.abs(error.error), error.se, color=next(colours), label=label, **POINTS)
    steps = np.array([0.006, 0.1])
    ax.plot(steps, 0.02 * steps, "--", color="#7d7d7d", linewidth=1.0, label="slope 1")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel(r"relative step $\eta h$")
    ax.set_ylabel("|weak error|")
    ax.legend(frameon=False, fontsize=8)
    return figure


def adam_modes() -> Figure:
    """Draw the variance of each of Adam's modes."""
    figure, (ax,) = panels(1, 6.2, 3.9)
    rng, count = np.random.default_rng(13), 600
    for colour, (name, setting) in zip(COLOURS, adam.settings().items(), strict=False):
        _, variance = adam.predicted(setting)
        spread = adam.adam(setting, count, rng).var(axis=0, ddof=1)
        ax.plot(adam.CURVATURES, variance, color=colour, linewidth=1.2)
        ax.errorbar(adam.CURVATURES, spread, spread * np.sqrt(2.0 / count), color=colour, label=name, **POINTS)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("curvature $h$ of the mode")
    ax.set_ylabel("variance of $x$ at the end")
    ax.legend(frameon=False, fontsize=8)
    return figure


def weight_norms() -> Figure:
    """Draw the squared weight norm of the trained network under four schedules, and of plain SGD."""
    figure, axes = panels(2, 9.6, 3.7)
    bench = weight_norm.Bench(16, 14)
    steps = np.linspace(150, weight_norm.STEPS, 16).astype(int).tolist()
    schedules = four_schedules(weight_norm.PEAK, weight_norm.STEPS)
    for colour, (name, schedule) in zip(COLOURS, schedules.items(), strict=False):
        start = of_norm(bench.rest, weight_norm.RADIUS)
        decay = {"weight_decay": weight_norm.DECAY, "at": steps}
        found = train(bench.task, schedule, start, bench.rng, shared=True, **decay).square
        line = weight_norm.equation(schedule, 1.0, weight_norm.RADIUS, weight_norm.DECAY, steps)
        axes[0].plot(steps, line, color=colour, linewidth=1.2)
        error = found.std(axis=1, ddof=1) / np.sqrt(found.shape[1])
        axes[0].errorbar(steps, found.mean(axis=1), error, color=colour, label=name, **POINTS)
    level = WEIGHTS * weight_norm.PEAK / (2.0 * weight_norm.DECAY)
    axes[0].axhline(
        level, color="#7d7d7d", linestyle="--", linewidth=1.0, label=r"$\kappa\eta\,/\,2\lambda$ at the peak rate"
    )
    axes[0].set_ylabel("squared weight norm $R^2$")
    axes[0].set_title(r"AdamW, one normaliser a layer; $\kappa$ = number of weights", fontsize=9)
    total = weight_norm.SGD_STEPS
    at = np.linspace(total // 12, total, 12).astype(int).tolist()
    sgd = constant(weight_norm.SGD_PEAK, total)
    found = train(bench.task, sgd, of_norm(bench.rest, 1.0), bench.rng, plain=True, at=at).square
    first, where = found[2].mean(), np.linspace(0, total, 100)
    share = where / at[2]
    axes[1].plot(where, 1.0 + (first - 1.0) * share, color=COLOURS[1], label=r"$R^2$ equation, constant $\kappa$")
    axes[1].plot(where, np.sqrt(1.0 + (first**2 - 1.0) * share), color=COLOURS[0], label="$R^4$ equation")
    error = found.std(axis=1, ddof=1) / np.sqrt(found.shape[1])
    axes[1].errorbar(at, found.mean(axis=1), error, color="#4d4d4d", label="plain SGD, simulated", **POINTS)
    axes[1].set_title("plain SGD without decay; both laws from the first quarter", fontsize=9)
    for ax in axes:
        ax.set_xlabel("step")
        ax.legend(frameon=False, fontsize=8)
    return figure


def escape_figure() -> Figure:
    """Draw the probability of staying near saddle and barrier against the covariance of optlaws, with the bounds."""
    figure, (ax,) = panels(1, 6.4, 4.2)
    rng, count, radius = np.random.default_rng(15), 8000, 0.1
    settings = {"saddle, one dimension": ("o", 0), "saddle, three dimensions": ("s", 1), "double well": ("^", 2)}
    for kind, (marker, place) in settings.items():
        x_axis, shares, errors = [], [], []
        for steps in (60, 100, 150, 200, 240):
            for schedule in four_schedules(escape.PEAK, steps).values():
                unit, rates = bare_dynamics(escape.PEAK, [1.0]), escape.RATES
                noise = escape.COLD
                scale = (escape.PEAK * noise) ** 2
                c = scale * escape_state(schedule, unit, escape.PEAK)
                if kind == "double well":
                    inside = np.abs(escape.walk(schedule, escape.double_well, np.zeros(count), noise, rng)) < radius
                else:
                    used = rates if "three" in kind else rates[-1:]
                    c = sum(scale * escape_state(schedule, unit, rho * escape.PEAK) for rho in used)
                    start = np.zeros((count, len(used)))
                    x = escape.walk(schedule, lambda x, r=used: -r * x, start, noise, rng)  # type: ignore[misc]
                    inside = (x**2).sum(axis=1) < radius**2
                p, se = escape.share(inside)
                x_axis.append(c / radius**2)
                shares.append(p)
                errors.append(se)
        style = {**POINTS, "fmt": marker}
        ax.errorbar(x_axis, shares, errors, color=COLOURS[place], label=kind, **style)
    r = np.geomspace(0.03, 4000, 200)
    ax.plot(
        r,
        np.minimum(1.0, escape.ONE / np.sqrt(r)),
        color="#4d4d4d",
        label=r"bound, one dimension: $(2 r^2 / \pi C)^{1/2}$",
    )
    general = np.minimum(1.0, escape.DIMENSIONLESS / np.sqrt(1.0 + r))
    ax.plot(
        r, general, "--", color="#4d4d4d", label=r"bound, any dimension: $e^{1/2} (1 + \mathrm{tr}\,C / r^2)^{-1/2}$"
    )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(0.0012, 1.4)
    ax.set_xlabel(r"$\mathrm{tr}\,C / r^2$: covariance of the schedule over squared radius")
    ax.set_ylabel("probability of staying within $r = 0.1$")
    ax.legend(frameon=False, fontsize=8, loc="lower left")
    return figure


def tails_figure(rows: list[Row] | None = None) -> Figure:
    """Draw what Student-t gradients change, over the Gaussian prediction."""
    figure, axes = panels(2, 8.6, 3.5)
    found = heavy_tails.heavy_tail_rows() if rows is None else rows
    freedoms = heavy_tails.FREEDOMS
    names = ["Gaussian" if np.isinf(f) else f"t, nu = {f:g}" for f in freedoms]
    shown = {
        "core variance": ("core variance", 0),
        "P(near a saddle)": ("at a saddle", 0),
        "intrinsic time of Adam": ("intrinsic time", 0),
        "P(beyond 4 sd)": ("beyond 4 sd", 1),
        "P(left a cold well)": ("cold well", 1),
    }
    colours = iter(COLOURS)
    for label, (part, panel) in shown.items():
        colour = next(colours)
        picked = [(x, r) for x, n in enumerate(names) for r in found if r.what.startswith(f"{n}:") and part in r.what]
        x = [place for place, _ in picked]
        y = np.array([r.simulated / r.predicted for _, r in picked])
        error = np.array([r.error / r.predicted for _, r in picked])
        axes[panel].errorbar(x, y, error, color=colour, label=label, **{**POINTS, "fmt": "o-"})
    for ax in axes:
        ax.axhline(1.0, color="#4d4d4d", linewidth=1.0)
        ax.set_xticks(range(len(names)), [f"{f:g}" if np.isfinite(f) else "Gaussian" for f in freedoms])
        ax.set_xlabel("degrees of freedom of the gradient noise")
        ax.set_ylabel("simulated / Gaussian prediction")
        ax.legend(frameon=False, fontsize=8)
    axes[1].set_yscale("log")
    return figure


def draw_all(folder: Path) -> Iterator[Path]:
    """Write every figure and yield its path."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "sgd-moments": sgd_moments,
        "weak-order": weak_order_figure,
        "adam-modes": adam_modes,
        "weight-norm": weight_norms,
        "escape": escape_figure,
        "heavy-tails": tails_figure,
    }
    for name, draw in figures.items():
        path = folder / f"{name}.png"
        save_figure(draw(), path)
        yield path
