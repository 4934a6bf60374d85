"""What the code solves in one cell of a schedule, exactly, and the order at which the cells approach the equations."""

from __future__ import annotations

from functools import cache

import sympy as sp

from theory.result import Proof, Result
from theory.symbols import h, lam, rho, tau

LEFT, RIGHT, STEP = sp.symbols(
    "Theta_0 Theta_1 delta", positive=True
)  # temperatures at the ends, intrinsic time across
V0, C0 = sp.symbols("v_0 C_0", nonnegative=True)
RATE, WD, GROW, WIDTH, Q0 = sp.symbols("eta omega g w Q_0", positive=True)


def norm(proof: Proof | None = None) -> sp.Expr:
    """Return R^2 after a cell of width w and constant rate, growth g = kappa x^2 a step."""
    p = proof or Proof()
    fade = 2 * WD * RATE
    square = Q0 * sp.exp(-fade * WIDTH) + GROW / fade * (1 - sp.exp(-fade * WIDTH))
    p.equal("Weight norm at the cell's mean rate", sp.diff(square, WIDTH), -fade * square + GROW, shown="(R^2)'")
    p.limit("Without weight decay", square, WD, sp.Integer(0), Q0 + GROW * WIDTH)
    return square


def variance(proof: Proof | None = None) -> sp.Expr:
    """Return v after a cell in which Theta is linear in intrinsic time."""
    p = proof or Proof()
    drop, pace = LEFT - RIGHT, 2 * lam
    line = LEFT - drop * tau / STEP  # temperature at intrinsic time tau of the cell
    v = line + (V0 - LEFT) * sp.exp(-pace * tau) + drop / (pace * STEP) * (1 - sp.exp(-pace * tau))
    p.equal(
        "Variance with $\\Theta$ linear in intrinsic time from $\\Theta_0$ to $\\Theta_1$ over $\\delta$",
        sp.diff(v, tau),
        pace * (line - v),
        shown="dv/d\\tau",
    )
    p.equal("from", v.subs(tau, 0), V0, shown="v(0)")
    z = sp.Symbol("z", positive=True)
    end = p.equal(
        "At the end, with $y = v - \\Theta$ and $z = 2\\lambda\\delta$: the line of the code",
        (v.subs(tau, STEP) - RIGHT).subs(STEP, z / pace),
        (V0 - LEFT) * sp.exp(-z) + drop * (1 - sp.exp(-z)) / z,
        shown="y_1",
    )
    return RIGHT + end.subs(z, pace * STEP)


def escape(proof: Proof | None = None) -> sp.Expr:
    """Return C after a cell of constant temperature Theta_0."""
    p = proof or Proof()
    c = C0 * sp.exp(2 * rho * tau) + LEFT * (sp.exp(2 * rho * tau) - 1) / (2 * rho)
    p.equal("Escape covariance at constant temperature", sp.diff(c, tau), 2 * rho * c + LEFT, shown="dC/d\\tau")
    return c.subs(tau, STEP)


def order(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return the local errors of third order: of intrinsic time, and of a temperature taken as linear."""
    p = proof or Proof()
    bend, z, x = sp.symbols(r"\Theta'' z x", positive=True)
    gap = bend / 2 * z * (h - z)  # linear interpolation less a parabola, over a cell of intrinsic time h
    p.equal(
        "A temperature taken as linear is off by $\\tfrac12\\Theta''z(h - z)$, at most, in the middle,",
        gap.subs(z, h / 2),
        bend * h**2 / 8,
        shown=r"\tfrac12\Theta''z(h-z)\;\text{at}\;z = \tfrac h2",
    )
    p.at_least(
        "whatever $\\lambda$: the weights $2\\lambda e^{-2\\lambda S}d\\tau$ of the past add up to at most 1, so the"
        " error of"
        " $v_\\lambda$ is at most $\\tfrac18\\max|\\Theta''|h^2$ on cells of intrinsic time $h$, however stiff the"
        " mode",
        sp.Integer(1),
        1 - sp.exp(-2 * lam * h),
        sp.exp(-2 * lam * h),
    )
    left, a, q, grade, j, n = sp.symbols("m a q p j n", positive=True)
    heat, clock = left ** (a * q), left ** (a + 1) / (a + 1)  # of a rate m^a: temperature and intrinsic time left
    slope = sp.diff(heat, left) / sp.diff(clock, left)
    curve = sp.diff(slope, left) / sp.diff(clock, left)
    edge = (j / n) ** grade
    wide = sp.diff(clock.subs(left, edge), j)
    p.equal(
        "Where the rate ends at 0 as $m^a$, $m$ the time left, and the cells at $m = (j/n)^p$, this is"
        " $\\tfrac18|\\Theta''|h^2$, at most a constant times $n^{-\\min(2, paq)}$ for all $j \\le n$, with"
        " $\\Theta''h^2 =$",
        curve.subs(left, edge) * wide**2,
        a * q * (a * q - a - 1) * grade**2 * j ** (grade * a * q - 2) * n ** (-grade * a * q),
        shown=r"\Theta''h^2",
    )
    local = sp.Integral(gap, (z, 0, h))
    third = p.equal("For a slow mode or the escape state a cell's error is of third order", local, bend * h**3 / 12)
    slope, curve = sp.symbols("Q_1 Q_2", real=True)
    square = Q0 + slope * x + curve * x**2 / 2  # R^2 in the cell
    exact = sp.integrate(sp.series(1 / sp.sqrt(square), x, 0, 3).removeO(), (x, 0, h))
    taken = h * sp.sqrt(2 / (Q0 + square.subs(x, h)))
    found = sp.expand(sp.series(taken, h, 0, 4).removeO() - exact)
    clock = sp.simplify(found.coeff(h, 3)) * h**3
    p.equal(
        "Intrinsic time with $R^2$ taken as the mean of its values at the ends is off by a term of third order in"
        " the width",
        found,
        clock,
        shown=r"h\sqrt{\tfrac{2}{R^2(0) + R^2(h)}} - \int_0^h\tfrac{dx}{R(x)} + O(h^4)",
    )
    return third, clock


@cache
def result() -> Result:
    """Return the checked result."""
    p = Proof()
    square, v, c = norm(p), variance(p), escape(p)
    third, clock = order(p)
    return Result(
        "cell_solutions",
        "What the code solves in one cell, and its order",
        "In a cell the norm is solved exactly at the mean rate, the variance exactly for $\\Theta$ linear in intrinsic"
        " time, $y_1 = (v_0 - \\Theta_0)e^{-z} + (\\Theta_0 - \\Theta_1)\\tfrac{1 - e^{-z}}z$ with $z ="
        " 2\\lambda\\delta$, and the"
        " escape state exactly at the mean temperature. The local errors are $O(h^3)$, so the pass is of second"
        " order in"
        " the cell width; for the variance uniformly in the stiffness $\\lambda$ where the rate stays away from 0."
        " Where it ends at 0 like the $a$-th power of the time left, $n$ cells that are graded with the $p$-th power"
        " towards the end leave an error of order $n^{-\\min(2, paq)}$, uniformly in $\\lambda$.",
        (
            "Rate, norm and critical batch are smooth inside a cell; cells end at the schedule's kinks.",
            "The critical batch, a power of the tokens seen, is not smooth at the start: there the order is lower,"
            " and the"
            " error is bounded by measurement only.",
            "A decay to 0: norm and critical batch count as constant near the end, so that $\\Theta \\propto m^{aq}$"
            " with $m$ the time left. The code has $p = 2$ for decays that may reach 0 linearly.",
            "Variance: where $s \\ne 1$, $\\delta$ has the factor $(u/u_{max})^{s-1}$ of the code at the cell's mean"
            " rate, and $\\Theta$ is linear in the clock that it slows.",
        ),
        {"norm": square, "variance": v, "escape": c, "variance_error": third, "clock_error": clock},
        tuple(p.steps),
        ("radius", "tau", "variance", "escape"),
        "derivations/cell_solutions.py",
    )
