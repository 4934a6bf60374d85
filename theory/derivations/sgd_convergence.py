"""Convergence of SGD under a schedule: mean squared gradient, and excess loss under a Polyak-Lojasiewicz constant."""

from __future__ import annotations

from functools import cache

import sympy as sp

from theory.result import Proof, Result
from theory.symbols import T, clock, eta0, mu, s, sigma, smooth, t

GAP, LOSS, SQUARE = sp.symbols("Delta F_k G_k", positive=True)
GAP_TEX = "$\\Delta = F(x_0) - \\inf F$"


def descent(proof: Proof | None = None) -> sp.Expr:
    """Return the bound on E F(x_{k+1}) for an L-smooth F: F - eta (1 - L eta / 2) G + L eta^2 sigma^2 / 2."""
    p = proof or Proof()
    g, xi = sp.symbols("g_1 g_2", real=True), sp.symbols("xi_1 xi_2", real=True)
    move = [-eta0 * (a + b) for a, b in zip(g, xi, strict=True)]
    upper = LOSS + sum(a * m for a, m in zip(g, move, strict=True)) + smooth / 2 * sum(m**2 for m in move)
    parts = sp.Poly(sp.expand(upper), *xi)
    moments = {(0, 0): sp.Integer(1), (1, 0): sp.Integer(0), (0, 1): sp.Integer(0)}
    share = sp.Symbol("r", positive=True)  # Var xi_1 = r sigma^2, Var xi_2 = (1 - r) sigma^2, whatever r
    moments |= {(2, 0): share * sigma**2, (0, 2): (1 - share) * sigma**2}
    mean = sum(c * moments[m] for m, c in parts.terms())
    size = sum(a**2 for a in g)
    bound = LOSS - eta0 * (1 - smooth * eta0 / 2) * size + smooth * eta0**2 * sigma**2 / 2
    p.equal(
        "Mean of the quadratic upper bound $F + \\nabla F\\cdot\\delta + \\tfrac L2|\\delta|^2$ at the step"
        " $\\delta = -\\eta(\\nabla F + \\xi)$",
        mean,
        bound,
        shown=r"\mathbb{E}\left[F_k + \nabla F\cdot\delta + \tfrac{L}{2}|\delta|^2\right]",
    )
    slack = sp.Symbol("z", nonnegative=True)  # L eta = 1 - z
    p.at_least(
        "For $\\eta \\le 1/L$, written $\\eta = (1 - z)/L$ with $z \\ge 0$, the factor of $-\\eta|\\nabla F|^2$ is at"
        " least one half",
        1 - smooth / 2 * ((1 - slack) / smooth),
        sp.Rational(1, 2),
        slack / 2,
    )
    return LOSS - eta0 / 2 * SQUARE + smooth * eta0**2 * sigma**2 / 2


def averaged_gradient(proof: Proof | None = None) -> sp.Expr:
    """Return the bound on the eta-weighted mean of E|grad F|^2: (2 Delta + L sigma^2 sum eta^2) / sum eta."""
    p = proof or Proof()
    k, last = sp.Symbol("k", integer=True, nonnegative=True), sp.Symbol("K", integer=True, positive=True)
    f, rate, g = sp.Function("F")(k), sp.Function("eta")(k), sp.Function("G")(k)
    step = descent(p).subs({LOSS: f, eta0: rate, SQUARE: g})

    def claim(end: sp.Expr) -> sp.Expr:
        """Return the left minus the right side of the summed inequality after `end` steps."""
        total = sp.Sum(rate * g / 2 - smooth * sigma**2 * rate**2 / 2, (k, 0, end - 1))
        return total - (f.subs(k, 0) - f.subs(k, end))

    added = (rate * g / 2 - smooth * sigma**2 * rate**2 / 2).subs(k, last)
    left = claim(last).doit() + added - (f.subs(k, last) - f.subs(k, last + 1))
    p.equal(
        "Induction over the steps: the sum of $\\tfrac12\\eta_k G_k - \\tfrac L2\\sigma^2\\eta_k^2$ up to $K$ less"
        " $F_0 - F_{K+1}$ is that up to $K - 1$ less $F_0 - F_K$, plus one step's inequality",
        left - claim(last),
        (f.subs(k, last + 1) - step.subs(k, last)),
        shown="c_{K+1} - c_K",
    )
    clock_end, squares = sp.symbols("S Q", positive=True)
    bound = (2 * GAP + smooth * sigma**2 * squares) / clock_end
    p.equal(
        "With $S = \\sum\\eta_k$, $Q = \\sum\\eta_k^2$ and $F_0 - F_K \\le \\Delta$, the weighted mean of $G_k$ is at"
        " most",
        2 / clock_end * (GAP + smooth * sigma**2 * squares / 2),
        bound,
    )
    return bound


def best_constant_rate(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """Return the best constant rate, its bound ~ T^-1/2, and the bound ~ 1/T without noise at eta = 1 / L."""
    p = proof or Proof()
    bound = 2 * GAP / (eta0 * T) + smooth * sigma**2 * eta0
    best = sp.sqrt(2 * GAP / (smooth * sigma**2 * T))
    p.equal(
        "The bound at a constant rate is least where its derivative vanishes",
        sp.diff(bound, eta0).subs(eta0, best),
        sp.Integer(0),
        shown=r"\partial_\eta\left(\tfrac{2\Delta}{\eta T} + L\sigma^2\eta\right)\;\text{at}\;"
        r"\eta = \sqrt{\tfrac{2\Delta}{L\sigma^2T}}",
    )
    noisy = p.equal(
        "and is there",
        bound.subs(eta0, best),
        2 * sp.sqrt(2 * GAP * smooth * sigma**2 / T),
        shown=r"\min_\eta\left(\tfrac{2\Delta}{\eta T} + L\sigma^2\eta\right)",
    )
    quiet = p.equal(
        "Without noise, at $\\eta = 1/L$",
        bound.subs({sigma: 0, eta0: 1 / smooth}),
        2 * GAP * smooth / T,
        shown=r"\tfrac{2\Delta}{\eta T}",
    )
    return best, noisy, quiet


def _at_rate(expr: sp.Expr, rate: sp.Expr) -> sp.Expr:
    """Return an expression with intrinsic time growing at a constant rate."""
    steady = expr.replace(clock, lambda x: rate * x)
    return steady.replace(lambda e: isinstance(e, sp.Derivative), lambda e: e.doit())


def ito_bound(proof: Proof | None = None) -> sp.Expr:
    """Return the bound on the drift of F(X), dX = -eta grad F dt + eta A dW: -2 mu eta (F - F*) + L sigma^2 eta^2 / 2.

    For any A with tr A A^T <= sigma^2 and any Hessian of at most L, that is L - M^T M, in two dimensions.
    """
    p = proof or Proof()
    slope = sp.Matrix(sp.symbols("g_1 g_2", real=True))
    spread = sp.Matrix(2, 2, sp.symbols("a_11 a_12 a_21 a_22", real=True))
    below = sp.Matrix(2, 2, sp.symbols("m_11 m_12 m_21 m_22", real=True))
    hess = smooth * sp.eye(2) - below.T * below
    drift = -eta0 * slope.dot(slope) + eta0**2 / 2 * (spread * spread.T * hess).trace()
    lost = sum(entry**2 for entry in below * spread)
    power = sum(entry**2 for entry in spread)
    p.equal(
        "Ito's formula for $F(X)$ has the drift $-\\eta|g|^2 + \\tfrac12\\eta^2\\operatorname{tr}(C\\nabla^2F)$; with"
        " $C = AA^T$ and $\\nabla^2F = L - M^TM$",
        drift,
        -eta0 * slope.dot(slope) + eta0**2 / 2 * (smooth * power - lost),
        shown=r"\mathcal{L}F",
    )
    noise, flat = sp.symbols("z_1 z_2", nonnegative=True)  # sigma^2 - tr C, and |g|^2 - 2 mu (F - F*)
    p.at_least(
        "which is at most $-2\\mu\\eta(F - F^*) + \\tfrac L2\\sigma^2\\eta^2$, where $\\sigma^2 ="
        " \\operatorname{tr}C + z_1$ and $2\\mu(F - F^*) = |g|^2 - z_2$",
        -eta0 * (slope.dot(slope) - flat) + smooth / 2 * eta0**2 * (power + noise),
        drift,
        eta0 * flat + eta0**2 / 2 * (smooth * noise + lost),
    )
    return -2 * mu * eta0 * LOSS + smooth * sigma**2 * eta0**2 / 2


def excess_loss(proof: Proof | None = None) -> sp.Expr:
    """Return the bound on E F - F* under |grad F|^2 >= 2 mu (F - F*), for the SDE.

    bias y0 exp(-2 mu S(0, T)) plus variance (L sigma^2 / 2) int eta^2 exp(-2 mu S(s, T)) ds.
    """
    p = proof or Proof()
    ito_bound(p)
    y0, y = sp.Symbol("y_0", positive=True), sp.Function("y", positive=True)
    rate = sp.diff(clock(t), t)
    growth = sp.exp(2 * mu * clock(t))
    p.equal(
        "Integrating factor: with $\\tau' = \\eta$ and $y = \\mathbb{E}F - F^*$, $y' = -2\\mu\\eta y + \\tfrac"
        " L2\\sigma^2\\eta^2 - r$, $r \\ge 0$ what that bound gives away",
        sp.diff(y(t) * growth, t).subs(
            sp.diff(y(t), t), -2 * mu * rate * y(t) + smooth * sigma**2 * rate**2 / 2 - sp.Symbol("r")
        ),
        growth * (smooth * sigma**2 * rate**2 / 2 - sp.Symbol("r")),
    )
    source = sp.Integral(sp.diff(clock(s), s) ** 2 * sp.exp(2 * mu * clock(s)), (s, 0, t))
    bound = sp.exp(-2 * mu * clock(t)) * (y0 + smooth * sigma**2 / 2 * source)
    p.equal(
        "so $y$ is at most the solution without $r$, which is the bias plus the variance, $\\tau(0) = 0$",
        sp.diff(bound, t) + 2 * mu * rate * bound,
        smooth * sigma**2 / 2 * rate**2,
        shown=r"\bar y' + 2\mu\tau'\bar y",
    )
    constant = smooth * sigma**2 * eta0 / (4 * mu)
    kept = y0 * sp.exp(-2 * mu * eta0 * T) + constant * (1 - sp.exp(-2 * mu * eta0 * T))
    p.equal("At a constant rate", _at_rate(bound, eta0).subs(t, T), kept)
    p.limit("which tends to a floor proportional to the rate", kept, T, sp.oo, constant)
    return bound


@cache
def result() -> Result:
    """Return the checked result."""
    p = Proof()
    mean, (best, noisy, quiet), excess = averaged_gradient(p), best_constant_rate(p), excess_loss(p)
    return Result(
        "sgd_convergence",
        "SGD converges under any schedule",
        "For $\\eta_k \\le 1/L$, $\\min_k\\mathbb{E}|\\nabla F(x_k)|^2 \\le"
        " \\left(2\\Delta + L\\sigma^2\\sum\\eta_k^2\\right)/\\sum\\eta_k$. Under $|\\nabla F|^2 \\ge 2\\mu(F - F^*)$"
        " the"
        " SDE has $$\\mathbb{E}F(X_T) - F^* \\le (F(x_0) - F^*)\\,e^{-2\\mu S(0,T)} +"
        " \\tfrac L2\\sigma^2\\int_0^T\\eta(s)^2e^{-2\\mu S(s,T)}ds.$$",
        (
            f"$F$ is $L$-smooth and bounded below; {GAP_TEX}.",
            "The gradient estimate is unbiased with $\\mathbb{E}|\\xi|^2 \\le \\sigma^2$.",
            "Second part: Polyak-Lojasiewicz constant $\\mu > 0$; $F$ has two derivatives, and the noise's integral in"
            " Ito's formula has mean zero. The inequality of the drift is checked in two dimensions.",
        ),
        {"weighted_mean": mean, "best_rate": best, "with_noise": noisy, "without_noise": quiet, "excess": excess},
        tuple(p.steps),
        ("bias", "transient", "variance"),
        "derivations/sgd_convergence.py",
        sources=("Ghadimi, Lan: Stochastic first- and zeroth-order methods (arXiv 1309.5549)",),
    )
