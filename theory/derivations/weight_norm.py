"""AdamW's weight norm: equation, solution, equilibrium, and the rate that a scale-invariant network feels."""

from __future__ import annotations

from functools import cache

import sympy as sp

from theory.result import Proof, Result
from theory.symbols import eta0, s, t

WD, KAPPA, REF, SIZE = sp.symbols("omega kappa eta_ref s_N", positive=True)  # s_N = n^cN, x = eta s_N / eta_ref
SQUARE = sp.Function("Q", positive=True)  # R^2
RATE, SUM = sp.Function("eta", positive=True), sp.Function("S", real=True)


def orthogonality(proof: Proof | None = None) -> sp.Expr:
    """Return w . grad f = 0 and grad f(c w) = grad f(w) / c for f that depends on the direction of w only."""
    p = proof or Proof()
    w, c = sp.symbols("w_1:4", positive=True), sp.Symbol("c", positive=True)
    f = sp.Function("f")
    value = f(w[0] / w[2], w[1] / w[2])  # a function of the direction, in coordinates w_1/w_3, w_2/w_3
    gradient = [sp.diff(value, x) for x in w]
    p.equal(
        "A scale-invariant loss has no gradient along the weights (Euler)",
        sum(x * g for x, g in zip(w, gradient, strict=True)),
        sp.Integer(0),
        shown=r"w\cdot\nabla f",
    )
    larger = [g.subs({x: c * x for x in w}, simultaneous=True) for g in gradient]
    p.equal(
        "and its gradient falls as one over the norm",
        sp.Matrix([c * a - g for a, g in zip(larger, gradient, strict=True)]),
        sp.zeros(3, 1),
        shown=r"c\,\nabla f(cw) - \nabla f(w)",
    )
    return sp.Integer(0)


def norm_equation(proof: Proof | None = None) -> sp.Expr:
    """Return the rate of change of R^2 under AdamW: -2 wd eta R^2 + eta^2 D, D the growth by the steps over eta^2."""
    p = proof or Proof()
    square, update, small = sp.symbols("Q D epsilon", positive=True)
    length, along = sp.Symbol("A", positive=True), sp.Symbol("P", real=True)
    eta = small * eta0
    stepped = (1 - WD * eta) ** 2 * square - 2 * (1 - WD * eta) * eta * (eta * along) + eta**2 * length
    p.series(
        "One step $w \\leftarrow (1 - \\omega\\eta)w - \\eta\\Delta$ with $\\mathbb{E}\\,w\\cdot\\Delta = \\eta P$,"
        " $\\mathbb{E}|\\Delta|^2 = A$, changes $R^2 = Q$ by; $\\omega\\eta \\ll 1$ counts as second order like"
        " $\\eta^2$ ($\\omega \\to \\epsilon\\,\\omega$)",
        (stepped - square).subs(WD, small * WD),
        small,
        3,
        small**2 * (-2 * WD * eta0 * square + eta0**2 * (length - 2 * along)),
    )
    with_momentum(p)
    return -2 * WD * eta0 * square + eta0**2 * update


def with_momentum(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return (A, P) of a coordinate: E Delta^2 and E w Delta / eta under momentum; A - 2 P = 1, whatever beta.

    Delta = beta Delta_before + (1 - beta) z, z of mean square 1 and, given the past, of no mean along the weights.
    """
    p = proof or Proof()
    beta = sp.Symbol("beta", positive=True)
    length, along = (1 - beta) / (1 + beta), -beta / (1 + beta)
    p.equal(
        "Momentum, $\\Delta_k = \\beta\\Delta_{k-1} + (1-\\beta)z_k$, $\\mathbb{E}z_k^2 = 1$ a coordinate: the mean"
        " square of a step settles at less than 1",
        beta**2 * length + (1 - beta) ** 2,
        length,
        shown=r"\beta^2A + (1-\beta)^2 = A",
    )
    p.equal(
        "and its product with the weights, which the steps before have moved, $w_k = w_{k-1} - \\eta\\Delta_{k-1}$,"
        " below 0 ($z_k$ is orthogonal to $w_k$)",
        beta * (along - length),
        along,
        shown=r"\beta(P - A) = P",
    )
    p.equal("only their sum is one a coordinate", length - 2 * along, sp.Integer(1), shown="D = A - 2P")
    return length, along


def solution(proof: Proof | None = None) -> sp.Expr:
    """Return R^2 under any schedule: exp(-2 wd S) (1 + kappa int x^2 exp(2 wd S))."""
    p = proof or Proof()
    x = SIZE * sp.diff(SUM(t), t) / REF
    source = sp.Integral((SIZE * sp.diff(SUM(s), s) / REF) ** 2 * sp.exp(2 * WD * SUM(s)), (s, 0, t))
    square = sp.exp(-2 * WD * SUM(t)) * (1 + KAPPA * source)
    p.equal(
        "Any schedule, with $S' = \\eta$ and $x = s_N\\eta/\\eta_{ref}$: $R^2 = e^{-2\\omega S}\\left(1 + \\kappa\\int"
        " x^2e^{2\\omega S}\\right)$ solves the norm equation",
        sp.diff(square, t) + 2 * WD * sp.diff(SUM(t), t) * square,
        KAPPA * x**2,
        shown="(R^2)' + 2\\omega\\eta R^2",
    )
    return square


def at_constant_rate(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return R^2(t) at a constant rate from R^2(0) = Q0, and its equilibrium kappa x^2 / (2 wd eta) ~ eta."""
    p = proof or Proof()
    start, x = sp.Symbol("Q_0", positive=True), eta0 * SIZE / REF
    balance = KAPPA * x**2 / (2 * WD * eta0)
    square = balance + (start - balance) * sp.exp(-2 * WD * eta0 * t)
    p.equal("Constant rate", sp.diff(square, t), -2 * WD * eta0 * square + KAPPA * x**2, shown="(R^2)'")
    p.equal("from the start", square.subs(t, 0), start, shown="R^2(0)")
    p.limit("to the equilibrium", square, t, sp.oo, balance)
    p.equal(
        "so that the norm grows as the root of the rate",
        eta0 * sp.diff(sp.log(sp.sqrt(balance)), eta0),
        sp.Rational(1, 2),
        shown=r"\eta\,\partial_\eta\log R_\infty",
    )
    p.limit("Without weight decay", square, WD, sp.Integer(0), start + KAPPA * x**2 * t)
    return square, balance


def felt_rate(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """Return u = x / R at equilibrium ~ sqrt(eta), u without decay ~ t^-1/2, tau without decay."""
    p = proof or Proof()
    x = sp.Symbol("x", positive=True)
    scale = SIZE / REF
    balance = at_constant_rate()[1]
    felt = p.equal(
        "Felt rate at equilibrium", eta0 * scale / sp.sqrt(balance), sp.sqrt(2 * WD * eta0 / KAPPA), shown="u = x/R"
    )
    free = x / sp.sqrt(1 + KAPPA * x**2 * t)
    p.limit(
        "Without decay the felt rate forgets the rate and falls as $t^{-1/2}$",
        free * sp.sqrt(t),
        t,
        sp.oo,
        1 / sp.sqrt(KAPPA),
    )
    elapsed = 2 * (sp.sqrt(1 + KAPPA * x**2 * t) - 1) / (KAPPA * x)
    p.equal("and intrinsic time grows as its integral", sp.diff(elapsed, t), free, shown=r"\tau'")
    turning(p)
    return felt, free, elapsed


def turning(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return the angles by which a step turns two weights at distance R: -x D / R for Adam, -x f' / R^2 for SGD."""
    p = proof or Proof()
    x, radius, small = sp.symbols("x R epsilon", positive=True)
    move, y = sp.symbols("D y", real=True)
    adam = p.series(
        "Two weights at $(R, 0)$: a step $x D$ across them, which for Adam does not depend on the gradient's scale,"
        " turns them by ($x \\to \\epsilon x$)",
        sp.atan2(-small * x * move, radius),
        small,
        2,
        -small * x * move / radius,
    )
    pull = sp.Symbol("f'", real=True)  # slope of the loss in the angle
    slope = pull * sp.diff(sp.atan2(y, radius), y).subs(y, 0)
    sgd = p.series(
        "and SGD's, $x$ times the gradient of a loss $f$ of their angle, $f'$ times that of the angle, by",
        sp.atan2(-small * x * slope, radius),
        small,
        2,
        -small * x * pull / radius**2,
    )
    return adam, sgd


@cache
def result() -> Result:
    """Return the checked result."""
    p = Proof()
    orthogonality(p)
    equation, general = norm_equation(p), solution(p)
    constant, balance = at_constant_rate(p)
    felt, free, elapsed = felt_rate(p)
    return Result(
        "weight_norm",
        "AdamW's weight norm and the rate that the network feels",
        "For normalised layers $(R^2)' = -2\\omega\\eta R^2 + \\kappa x^2$, hence"
        " $R^2 = e^{-2\\omega S}\\left(1 + \\kappa\\int_0^t x^2e^{2\\omega S}\\right)$. At a constant rate"
        " $R_\\infty^2 = \\kappa x^2/(2\\omega\\eta) \\propto \\eta$ within $1/(2\\omega\\eta)$ steps, and the felt"
        " rate"
        " $u = x/R$ comes to $\\sqrt{2\\omega\\eta/\\kappa}$: both grow as $\\sqrt\\eta$.",
        (
            "The loss depends on the direction of the weights only, so that every gradient is orthogonal to the weights"
            " at which it is taken; Adam divides it by one number a layer. Its own normaliser, one a weight, leaves the"
            " mean update not orthogonal: $R^2$ then grows faster (`montecarlo/weight_norm.py`).",
            "What the steps add to $R^2$ is constant, $-2\\eta\\,\\mathbb{E}\\,w\\cdot\\Delta + \\eta^2\\mathbb{E}"
            "|\\Delta|^2 = \\eta^2D$; where noise dominates Adam's gradients $D$ is one a coordinate whatever"
            " $\\beta_1$. With momentum neither is the first term 0 nor the second one a coordinate. $\\kappa x^2 ="
            " \\eta^2 D$ in units of the starting norm.",
            "$\\omega\\eta \\ll 1$: terms of order $(\\omega\\eta)^2$ are dropped.",
            "One norm stands for all layers.",
        ),
        {
            "equation": equation,
            "general": general,
            "constant": constant,
            "equilibrium": balance,
            "felt": felt,
            "free": free,
            "elapsed": elapsed,
        },
        tuple(p.steps),
        ("radius", "tau", "variance", "escape", "inverse_norm"),
        "derivations/weight_norm.py",
        remark="The code uses $u = x/R$ for SGD as well, where a scale-invariant loss would give $x/R^2$.",
        sources=(
            "van Laarhoven: L2 regularization versus batch and weight normalization (arXiv 1706.05350)",
            "Kosson et al.: Rotational equilibrium (arXiv 2305.17212)",
        ),
    )
