"""Columns from the norm's and the spectrum's effect on sharpness and noise: inverse_norm, variance_size."""

from __future__ import annotations

from functools import cache

import sympy as sp

from theory.result import HEURISTIC, Proof, Result
from theory.symbols import n

R, ALPHA, NV = sp.symbols("R alpha n_v", positive=True)


def curvature(proof: Proof | None = None) -> sp.Expr:
    """Return the exponent of R in the curvature of a scale-invariant loss across the weights: -2."""
    p = proof or Proof()
    x, y = sp.symbols("x y", real=True)
    f = sp.Function("f")
    value = f(sp.atan2(y, x))  # two weights: a function of the angle
    across = sp.diff(value, y, 2).subs(x, R)
    at = sp.simplify(across.doit().subs(y, 0).doit())
    unit = sp.simplify(sp.diff(value, y, 2).subs(x, 1).doit().subs(y, 0).doit())
    p.equal(
        "Two weights at distance $R$, loss a function of their angle: curvature across them",
        at,
        unit / R**2,
        shown=r"\partial_y^2 f(\angle(R, y))\big|_{y=0}",
    )
    slope = sp.simplify(sp.diff(value, y).subs(x, R).doit().subs(y, 0).doit())
    base = sp.simplify(sp.diff(value, y).subs(x, 1).doit().subs(y, 0).doit())
    p.equal("and gradient", slope, base / R, shown=r"\partial_y f(\angle(R, y))\big|_{y=0}")
    return sp.Integer(-2)


def noisy_modes(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return the number of modes within a band of curvature for lam_k = lam (k / n)^-alpha, and for lam k^-alpha."""
    p = proof or Proof()
    lam, low, high = sp.symbols("lambda l_0 l_1", positive=True)
    stretched = n * ((lam / low) ** (1 / ALPHA) - (lam / high) ** (1 / ALPHA))
    fixed = stretched / n
    first = p.equal(
        "Modes in a band, spectrum that stretches with the model, $\\lambda_k = \\lambda(k/n)^{-\\alpha}$: exponent"
        " in $n$",
        sp.simplify(n * sp.diff(stretched, n) / stretched),
        sp.Integer(1),
        shown=r"n\,\partial_n\log N_{band}",
    )
    second = p.equal(
        "spectrum that only gets longer, $\\lambda_k = \\lambda k^{-\\alpha}$: exponent in $n$",
        sp.diff(fixed, n),
        sp.Integer(0),
        shown=r"n\,\partial_n\log N_{band}",
    )
    return first, second


@cache
def result() -> Result:
    """Return the checked result."""
    p = Proof()
    power = curvature(p)
    stretched, fixed = noisy_modes(p)
    return Result(
        "sharpness",
        "Sharpness at a norm, and the number of noisy modes",
        "A scale-invariant loss at norm $R$ has gradients of order $1/R$ and curvatures of order $1/R^2$;"
        " `inverse_norm` is"
        " $1/R$, a first-order cost of a norm that is still small. The number of modes in a band of curvature is of"
        " order"
        " $n^0$ to $n^1$, according to whether the spectrum only lengthens or stretches with the model: `variance_size`"
        " $v_l\\tau^{-g_v}n^{n_v}$ stands in between.",
        (
            "That the loss has a term in $1/R$, additively, is assumed.",
            "That noisy modes have equal weight, and the exponent $n_v$ between the two cases, are assumed.",
        ),
        {"curvature_power": power, "stretched": stretched, "fixed": fixed, "inverse_norm": 1 / R},
        tuple(p.steps),
        ("inverse_norm", "variance_size"),
        "derivations/sharpness.py",
        HEURISTIC,
    )
