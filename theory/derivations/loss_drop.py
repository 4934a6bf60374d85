"""Integration by parts: the variance convolution is a sum of loss drops, and contains the Multi-Power Law's shape."""

from __future__ import annotations

from functools import cache

import sympy as sp

from theory.result import Proof, Result
from theory.symbols import T, clock, lam, s, t


def by_parts(proof: Proof | None = None) -> sp.Expr:
    """Return v(T) = Theta(0) (1 - e^(-2 lam S)) + int Theta'(s) (1 - e^(-2 lam S(s, T))) ds."""
    p = proof or Proof()
    heat = sp.Function("Theta", positive=True)
    left = sp.exp(-2 * lam * (clock(T) - clock(s)))
    p.equal(
        "Product rule for $\\Theta(s)e^{-2\\lambda S(s,T)}$, $S(s,T) = \\tau(T) - \\tau(s)$: the variance's"
        " integrand is a"
        " derivative less $\\Theta'e^{-2\\lambda S}$",
        2 * lam * sp.diff(clock(s), s) * heat(s) * left,
        sp.diff(heat(s) * left, s) - sp.diff(heat(s), s) * left,
        shown=r"\partial_s\left(\Theta e^{-2\lambda S}\right) - \Theta'e^{-2\lambda S}",
    )
    change = sp.Integral(sp.diff(heat(s), s), (s, 0, t))
    drops = sp.Integral(sp.diff(heat(s), s) * (1 - sp.exp(-2 * lam * (clock(t) - clock(s)))), (s, 0, t))
    v = heat(0) * (1 - sp.exp(-2 * lam * (clock(t) - clock(0)))) + drops
    p.equal(
        "The form with drops solves $v' = 2\\lambda\\tau'(\\Theta - v)$, in which $\\Theta(t) = \\Theta(0) +"
        " \\int_0^t\\Theta'$",
        sp.diff(v, t),
        2 * lam * sp.diff(clock(t), t) * (heat(0) + change - v),
        shown="v'",
    )
    return v


def steps_by_parts(proof: Proof | None = None) -> sp.Expr:
    """Return Abel's summation: one more step of the staircase schedule, exactly."""
    p = proof or Proof()
    v, heat, after, z = sp.symbols(r"v Theta_k \Theta_{k+1} z", positive=True)  # z = 2 lam tau' of the next step
    y = v - heat  # deviation from the temperature at the end of step k
    p.equal(
        "Staircase schedule: with $y = v - \\Theta$, a drop $\\Theta_k - \\Theta_{k+1}$ enters $y$ and fades with"
        " intrinsic"
        " time",
        after + (v - after) * sp.exp(-z) - after,
        (y + heat - after) * sp.exp(-z),
        shown="y_{k+1}",
    )
    return (y + heat - after) * sp.exp(-z)


def mixture(proof: Proof | None = None) -> sp.Expr:
    """Return G(x) = 1 - (1 + c x)^-beta as a mixture of 1 - exp(-x y) over a Gamma density of curvatures y = 2 lam."""
    p = proof or Proof()
    x, y, c, beta = sp.symbols("x y c beta", positive=True)
    density = y ** (beta - 1) * sp.exp(-y / c) / (sp.gamma(beta) * c**beta)
    p.equal(
        "A Gamma density of curvatures $y = 2\\lambda$ has mass 1", sp.Integral(density, (y, 0, sp.oo)), sp.Integer(1)
    )
    mixed = sp.powsimp(density * sp.exp(-x * y))
    p.equal("and Laplace transform", sp.Integral(mixed, (y, 0, sp.oo)), (1 + c * x) ** (-beta))
    return 1 - (1 + c * x) ** (-beta)


def monotone(proof: Proof | None = None) -> sp.Expr:
    """Return d^2/dx^2 of 1 - exp(-x y): every non-negative mixture rises and is concave (Bernstein functions)."""
    p = proof or Proof()
    x, y = sp.symbols("x y", positive=True)
    one = 1 - sp.exp(-x * y)
    p.at_least("Every mixture rises with the time since the drop", sp.diff(one, x), sp.Integer(0), y * sp.exp(-x * y))
    p.at_least("and is concave in it", -sp.diff(one, x, 2), sp.Integer(0), y**2 * sp.exp(-x * y))
    return one


@cache
def result() -> Result:
    """Return the checked result."""
    p = Proof()
    v, step = by_parts(p), steps_by_parts(p)
    law = mixture(p)
    one = monotone(p)
    return Result(
        "loss_drop",
        "The variance is a sum of loss drops",
        "$$v_\\lambda(T) = \\Theta(0)\\left(1 - e^{-2\\lambda S(0,T)}\\right) -"
        " \\int_0^T\\left(-\\Theta'(s)\\right)\\left(1 -"
        " e^{-2\\lambda S(s,T)}\\right)ds.$$ A non-negative mixture over $\\lambda$ replaces $1 - e^{-2\\lambda S}$"
        " by any Bernstein function $f$ of $S$ with $f(0) = 0$ and no linear part; a Gamma mixture"
        " gives $G(S) = 1 - (1 + cS)^{-\\beta}$, the free function of the"
        " Multi-Power Law's loss drop $\\sum_k(\\eta_{k-1} - \\eta_k)\\,G(S_k)$.",
        (
            "$\\Theta$ is differentiable, or a staircase (sum in place of integral).",
            "The Multi-Power Law's argument is $\\eta_k^{-\\gamma}S_k$; it is contained for $\\gamma = 0$ and"
            " $\\Theta = \\eta$.",
            "A finite grid of curvatures (six in the code) approximates the mixture.",
            "Nothing is asked of the clock but that it runs forward: with the code's factor $(u/u_{max})^{s-1}$ in the"
            " pace of the variances it holds as it stands, $S$ in the clock that the factor slows.",
        ),
        {"variance": v, "staircase": step, "multi_power": law, "single": one},
        tuple(p.steps),
        ("variance", "variance_size"),
        "derivations/loss_drop.py",
        remark="A $\\gamma \\ne 0$ has no place in this derivation.",
        sources=("Luo et al.: A multi-power law for loss curve prediction (arXiv 2503.12811)",),
    )
