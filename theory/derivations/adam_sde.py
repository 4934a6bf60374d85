"""Adam in the noise-dominated regime: drift, noise, intrinsic time, temperature, critical batch, square-root rule."""

from __future__ import annotations

from functools import cache

import sympy as sp

from theory.result import Proof, Result
from theory.symbols import B, T, b, bc, eta0, lam, sigma

GRAD = sp.Symbol("G", positive=True)  # a coordinate's mean gradient
NOISE = sigma / sp.sqrt(B)  # standard deviation of a coordinate's gradient
FACTOR = sp.Symbol("kappa", positive=True)


def drift(proof: Proof | None = None) -> sp.Expr:
    """Return the mean update of a coordinate, G / sqrt(G^2 + sigma^2 / B) -> sqrt(B) G / sigma."""
    p = proof or Proof()
    exact = GRAD / sp.sqrt(GRAD**2 + NOISE**2)
    p.series(
        "Mean of a step $g/\\sqrt{\\mathbb{E}g^2}$ where noise dominates, $G \\ll \\sigma/\\sqrt B$",
        exact,
        GRAD,
        3,
        sp.sqrt(B) * GRAD / sigma,
    )
    p.series(
        "Sign descent has the same form: $\\mathbb{E}\\operatorname{sign}(G + \\tfrac\\sigma{\\sqrt B}z) ="
        " \\operatorname{erf}\\left(\\tfrac{\\sqrt B\\,G}{\\sqrt2\\,\\sigma}\\right)$",
        sp.erf(GRAD * sp.sqrt(B) / (sp.sqrt(2) * sigma)),
        GRAD,
        3,
        sp.sqrt(2 / sp.pi) * sp.sqrt(B) * GRAD / sigma,
    )
    return exact


def gain(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return (g, h): factors of intrinsic time sqrt(b / (1 + b / bc)) and temperature 1 / sqrt(b (1 + b / bc))."""
    p = proof or Proof()
    crowd = sp.sqrt(1 + b / bc)
    pace = p.equal(
        "Drift per gradient with $b_c = \\sigma^2/G^2$, the critical batch (gradient noise scale)",
        (1 / sp.sqrt(GRAD**2 + sigma**2 / b)).subs(GRAD, sigma / sp.sqrt(bc)),
        sp.sqrt(b) / (sigma * crowd),
        shown=r"1/\sqrt{G^2 + \sigma^2/b}",
    )
    variance = p.equal(
        "Variance of a step",
        (sigma**2 / b / (GRAD**2 + sigma**2 / b)).subs(GRAD, sigma / sp.sqrt(bc)),
        1 / crowd**2,
        shown=r"\frac{\sigma^2/b}{G^2 + \sigma^2/b}",
    )
    y = sp.Symbol("y", positive=True)
    clock, excess = eta0 * pace, lam / 2 * y
    temperature = eta0 * sigma / (4 * sp.sqrt(b) * crowd)
    p.equal(
        "On a mode, $y' = -2\\lambda\\eta g y + \\eta^2/(1 + b/b_c)$ gives the excess loss $e = \\tfrac\\lambda2y$ the"
        " equation $e' = 2\\lambda\\tau'(\\Theta - e)$ with $\\Theta \\propto \\eta\\,/\\sqrt{b(1 + b/b_c)}$",
        lam / 2 * (-2 * lam * clock * y + eta0**2 * variance),
        2 * lam * clock * (temperature - excess),
        shown="e'",
    )
    return sp.sqrt(b) / crowd, 1 / (sp.sqrt(b) * crowd)


def square_root_rule(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return (tau, Theta) of a run below the critical batch, unchanged by (eta, B, T) -> (eta sqrt k, k B, T / k)."""
    p = proof or Proof()
    clock, temperature = eta0 * sp.sqrt(B) * T, eta0 / sp.sqrt(B)
    rule = {eta0: sp.sqrt(FACTOR) * eta0, B: FACTOR * B, T: T / FACTOR}
    p.equal(
        "Square-root rule, Adam: intrinsic time",
        clock.subs(rule, simultaneous=True),
        clock,
        shown=r"\tau(\sqrt\kappa\,\eta_0, \kappa B, T/\kappa)",
    )
    p.equal(
        "and temperature are unchanged at equal tokens",
        temperature.subs(rule, simultaneous=True),
        temperature,
        shown=r"\Theta(\sqrt\kappa\,\eta_0, \kappa B, T/\kappa)",
    )
    linear = {eta0: FACTOR * eta0, B: FACTOR * B, T: T / FACTOR}
    p.equal(
        "Linear rule, SGD: intrinsic time",
        (eta0 * T).subs(linear, simultaneous=True),
        eta0 * T,
        shown=r"\tau(\kappa\eta_0, \kappa B, T/\kappa)",
    )
    p.equal(
        "and temperature",
        (eta0 / B).subs(linear, simultaneous=True),
        eta0 / B,
        shown=r"\Theta(\kappa\eta_0, \kappa B, T/\kappa)",
    )
    return clock, temperature


def far_above(proof: Proof | None = None) -> sp.Expr:
    """Return the limit of g for a batch far above the critical one, sqrt(bc): larger batches bring nothing."""
    p = proof or Proof()
    return p.limit(
        "A batch far above the critical one brings no more progress a step",
        sp.sqrt(b) / sp.sqrt(1 + b / bc),
        b,
        sp.oo,
        sp.sqrt(bc),
    )


def momentum(proof: Proof | None = None) -> sp.Expr:
    """Return the weight that a gradient's noise has in all later steps under momentum beta: 1, as without."""
    p = proof or Proof()
    beta, k = sp.Symbol("beta", positive=True), sp.Symbol("j", integer=True, nonnegative=True)
    cut = sp.Symbol("J", integer=True, nonnegative=True)
    total = sp.Sum((1 - beta) * beta**k, (k, 0, cut))
    closed = 1 - beta ** (cut + 1)
    p.equal(
        "Momentum spreads one gradient over later steps with weights $(1-\\beta)\\beta^j$; induction on the number of"
        " steps: a further weight",
        closed.subs(cut, cut + 1) - closed,
        (1 - beta) * beta ** (cut + 1),
    )
    p.equal("and the first one", closed.subs(cut, 0), 1 - beta, shown=r"(1 - \beta^{J+1})\;\text{at}\;J = 0")
    rest = sp.Symbol("w", positive=True)  # beta = 1 / (1 + w)
    p.limit(
        "so that all of it arrives: drift and long-run noise are those without momentum",
        1 - (1 / (1 + rest)) ** cut.subs(cut, T),
        T,
        sp.oo,
        sp.Integer(1),
    )
    return total


@cache
def result() -> Result:
    """Return the checked result."""
    p = Proof()
    exact = drift(p)
    pace, heat = gain(p)
    clock, temperature = square_root_rule(p)
    most, weights = far_above(p), momentum(p)
    return Result(
        "adam_sde",
        "Adam where noise dominates",
        "A coordinate moves by $-\\eta\\,g/\\sqrt{\\mathbb{E}g^2}$ with $g = G + \\sigma B^{-1/2}z$, so"
        " $$dX = -\\eta\\,\\frac{\\sqrt B}\\sigma\\nabla F\\,dt + \\eta\\,dW,\\qquad \\tau' \\propto"
        " \\eta\\sqrt{\\frac b{1 + b/b_c}},\\qquad \\Theta \\propto \\frac\\eta{\\sqrt{b\\,(1 + b/b_c)}},$$ with"
        " $b_c = \\sigma^2/G^2$: the factors $g$ and $h$ of the code. $(\\eta, B, T) \\to"
        " (\\sqrt\\kappa\\,\\eta, \\kappa B, T/\\kappa)$ leaves $\\tau$ and $\\Theta$ unchanged.",
        (
            "The second-moment estimate equals its mean (long memory, slowly varying statistics); epsilon is"
            " negligible.",
            "Coordinates have independent noise of equal $\\sigma$; $G$ in $b_c$ is a typical coordinate's.",
            "Momentum's memory is short beside the time in which the loss changes.",
            "That $b_c$ grows as a power of the tokens seen is not derived here (see `finite_runs`).",
        ),
        {
            "drift": exact,
            "pace": pace,
            "heat": heat,
            "tau": clock,
            "Theta": temperature,
            "most": most,
            "weights": weights,
        },
        tuple(p.steps),
        ("tau", "variance", "escape"),
        "derivations/adam_sde.py",
        remark="The derivation gives $\\Theta \\propto u^1$; the code's $u^q$ with $q < 1$ is fitted.",
        sources=(
            "Malladi et al.: On the SDEs and scaling rules for adaptive gradient algorithms (arXiv 2205.10287)",
            "McCandlish et al.: An empirical model of large-batch training (arXiv 1812.06162)",
        ),
    )
