"""Figures of the page, drawn from the derivations and the oracle."""

from __future__ import annotations

import io
from collections.abc import Callable

import matplotlib
import numpy as np
import sympy as sp
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import gamma
from scipy.stats import chi2

from optlaws.dynamics import final_states
from optlaws.features import DEFAULT_BASIS, get_basis
from theory.derivations import anti_concentration, spectrum_average
from theory.oracle import quadrature
from theory.oracle.draws import WARMED, long_draw


def spectrum(ax: Axes) -> str:
    """Draw the bias of a spectrum of N modes, summed mode by mode, and the column."""
    expr = spectrum_average.column()
    alpha, a, time = 1.5, 0.36, np.geomspace(3, 3e6, 60)
    for modes, colour in ((100, "C0"), (1000, "C1"), (10000, "C2")):
        k = np.arange(1, modes + 1)
        exact = np.exp(-2 * time[:, None] * k**-alpha) @ k ** (-1 - a * alpha)
        given = {"a": a, "l_c": 2.0, "r": alpha, "n": float(modes)}
        names = sorted(expr.free_symbols, key=lambda s: str(s.name))
        shape = sp.lambdify(
            [s for s in names if s.name == "tau"],
            expr.subs({s: given[s.name] for s in names if s.name in given}),
            "scipy",
        )
        ax.loglog(time, exact, "o", ms=3, color=colour, label=f"sum over {modes:,} modes")
        ax.loglog(time, gamma(a) / alpha * 2**-a * shape(time), color=colour)
    ax.set(xlabel="intrinsic time", ylabel="bias", ylim=(1e-3, 3))
    ax.legend(frameon=False, fontsize=8)
    return "Bias of a power-law spectrum: sums over modes (dots) and the column `bias` (lines), no free constant."


def staying(ax: Axes) -> str:
    """Draw the probability of staying near a stationary point in several dimensions, and the bound."""
    ratio = np.geomspace(1e-2, 1e4, 200)
    simple = anti_concentration.bound()[0]
    bound = sp.lambdify(anti_concentration.TRACE, simple.subs(anti_concentration.R, 1), "numpy")
    for dim in (1, 3, 10):
        ax.loglog(ratio, chi2.cdf(dim / ratio, dim), label=f"Gaussian, {dim} equal directions")
    ax.loglog(ratio, np.minimum(bound(ratio), 1), "k--", label="bound")
    ax.set(xlabel="trace of C over r squared", ylabel="probability of staying", ylim=(1e-3, 1.5))
    ax.legend(frameon=False, fontsize=8)
    return "Anti-concentration: the exact probability of staying within r, and the bound that holds in any dimension."


def order(ax: Axes) -> str:
    """Draw the error of the code's cells against the continuous equations."""
    resolutions = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    names = ("tau", "radius", "escape", "v_0", "v_3", "v_5")
    errors = []
    for kind in WARMED:
        case = long_draw(kind, DEFAULT_BASIS, 0)
        d = case.basis.dynamics
        exact = quadrature.solution(case.schedule, case.n, case.b, case.weight_decay, case.plain, d)
        rows = []
        for resolution in resolutions:
            s = final_states(case.table, d, resolution=resolution)
            found = {"tau": s.tau[0], "radius": s.radius[0], "escape": s.escape[0]}
            found |= {f"v_{i}": v for i, v in enumerate(s.variance[0])}
            rows.append([abs(found[name] / exact[name] - 1) for name in names])
        errors.append(rows)
    worst = np.maximum(np.max(errors, axis=0), 1e-16)
    for j, name in enumerate(names):
        ax.loglog(resolutions, worst[:, j], "o-", ms=3, label=name)
    ax.loglog(resolutions, 0.1 * np.array(resolutions) ** -2.0, "k:", label="second order")
    ax.set(xlabel="resolution (1: the one laws are fitted with)", ylabel="largest relative error")
    ax.legend(frameon=False, fontsize=8, ncols=2)
    return "Error of the cells against the continuous equations, largest over eight kinds of schedule: second order."


def variance(ax: Axes) -> str:
    """Draw the variance at three curvatures under linear schedules of several lengths of intrinsic time."""
    d = get_basis().dynamics
    time = np.linspace(0, 1, 400)
    rate = np.where(time < 0.1, time / 0.1, (1 - time) / 0.9)
    total = 400.0
    tau = np.concatenate([[0], np.cumsum((rate[1:] + rate[:-1]) / 2 * np.diff(time))]) * total
    ax.plot(time, rate, "k--", lw=1, label="temperature")
    for curvature in d.curvatures[1:5]:
        v = np.zeros_like(rate)
        for k in range(1, len(rate)):
            z = 2 * curvature * (tau[k] - tau[k - 1])
            v[k] = rate[k] + (v[k - 1] - rate[k]) * np.exp(-z)
        ax.plot(time, v, label=f"curvature {curvature:.2g}")
    ax.set(xlabel="fraction of the run", ylabel="variance")
    ax.legend(frameon=False, fontsize=8)
    return "Variance states follow the temperature with a lag of 1 / (2 l) in intrinsic time; slow ones keep a memory."


FIGURES: tuple[Callable[[Axes], str], ...] = (spectrum, variance, staying, order)


def drawn() -> list[tuple[str, bytes]]:
    """Return (caption, PNG) of every figure."""
    out = []
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        for draw in FIGURES:
            figure = Figure(figsize=(5.2, 3.3), layout="constrained")
            caption = draw(figure.subplots())
            stream = io.BytesIO()
            figure.savefig(stream, format="png", dpi=150)
            out.append((caption, stream.getvalue()))
    return out
