"""Fokker-Planck-Kolmogorov equation linearised about the current mean: mean and covariance at either curvature."""

from __future__ import annotations

from functools import cache

import sympy as sp

from theory.result import Proof, Result
from theory.symbols import clock, eta0, rho, s, sigma, t

LAM = sp.Symbol("lambda", real=True)  # of either sign here
X = sp.symbols("x_1 x_2", real=True)
GRADIENT = sp.Symbol("F'", real=True)


def one_dimension(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return (m', C') for which a Gaussian solves the equation linearised about its own mean, in one dimension."""
    p = proof or Proof()
    x = X[0]
    mean, cov, rate = (
        sp.Function("m", real=True)(t),
        sp.Function("C", positive=True)(t),
        sp.Function("eta", positive=True)(t),
    )
    density = sp.exp(-((x - mean) ** 2) / (2 * cov)) / sp.sqrt(2 * sp.pi * cov)
    slope = GRADIENT + LAM * (x - mean)  # F'(x) about the mean
    moved = {sp.diff(mean, t): -rate * GRADIENT, sp.diff(cov, t): -2 * rate * LAM * cov + rate**2 * sigma**2}
    flow = sp.diff(rate * slope * density, x) + rate**2 * sigma**2 / 2 * sp.diff(density, x, 2)
    p.equal(
        "One dimension: the Gaussian of mean $m$ and variance $C$ with $m' = -\\eta F'(m)$, $C' = -2\\eta\\lambda C +"
        " \\eta^2\\sigma^2$ solves $\\partial_tp = \\partial_x(\\eta(F'(m) + \\lambda(x - m))p) +"
        " \\tfrac12\\eta^2\\sigma^2\\partial_x^2p$; the equation's residual over $p$",
        sp.simplify((sp.diff(density, t).subs(moved) - flow) / density),
        sp.Integer(0),
        shown=r"\left(\partial_tp - \mathcal{L}^*p\right)/p",
    )
    return moved[sp.diff(mean, t)], moved[sp.diff(cov, t)]


def two_dimensions(proof: Proof | None = None) -> sp.Matrix:
    """Return C' = -eta (H C + C H) + eta^2 Sigma for full matrices that do not commute."""
    p = proof or Proof()
    mean = sp.Matrix([sp.Function(f"m_{i + 1}", real=True)(t) for i in range(2)])
    cov = sp.Matrix(2, 2, lambda i, j: sp.Function(f"C_{min(i, j) + 1}{max(i, j) + 1}", real=True)(t))
    hess = sp.Matrix(2, 2, lambda i, j: sp.Symbol(f"H_{min(i, j) + 1}{max(i, j) + 1}", real=True))
    noise = sp.Matrix(2, 2, lambda i, j: sp.Symbol(f"Sigma_{min(i, j) + 1}{max(i, j) + 1}", real=True))
    slope = sp.Matrix(sp.symbols("g_1 g_2", real=True))
    z = sp.Matrix(X) - mean
    log_density = -(z.T * cov.inv() * z)[0] / 2 - sp.log(cov.det()) / 2  # up to a constant
    change = -eta0 * (hess * cov + cov * hess) + eta0**2 * noise
    moved = {sp.diff(mean[i], t): -eta0 * slope[i] for i in range(2)}
    moved |= {sp.diff(cov[i, j], t): change[i, j] for i in range(2) for j in range(i, 2)}
    drift = slope + hess * z
    first = [sp.diff(log_density, x) for x in X]
    flow = sum(eta0 * (sp.diff(drift[i], X[i]) + drift[i] * first[i]) for i in range(2))
    flow += (
        eta0**2
        / 2
        * sum(noise[i, j] * (sp.diff(first[i], X[j]) + first[i] * first[j]) for i in range(2) for j in range(2))
    )
    residual = sp.diff(log_density, t).subs(moved) - flow
    p.equal(
        "Two dimensions, $H$ and $\\Sigma$ not commuting: with $C' = -\\eta(HC + CH) + \\eta^2\\Sigma$ the residual"
        " over"
        " $p$ vanishes",
        sp.cancel(sp.together(residual)),
        sp.Integer(0),
        shown=r"\partial_t\log p - \mathcal{L}^*p/p",
    )
    return change


def covariances(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return C(T) for any schedule in a mode: sigma^2 int eta^2 exp(-2 lam S(s, T)) ds; and at negative curvature."""
    p = proof or Proof()
    rate = sp.diff(clock(t), t)
    source = sp.Integral(sp.diff(clock(s), s) ** 2 * sp.exp(2 * LAM * clock(s)), (s, 0, t))
    general = sigma**2 * sp.exp(-2 * LAM * clock(t)) * source
    p.equal(
        "Any schedule, $\\tau' = \\eta$, from $C(0) = 0$",
        sp.diff(general, t),
        -2 * rate * LAM * general + rate**2 * sigma**2,
        shown="C'",
    )
    top, sure, elapsed = sp.symbols("eta_max lambda S", positive=True)
    spent = sp.exp(-2 * sure * elapsed)
    p.at_least(
        "Positive curvature, $\\eta \\le \\eta_{max}$: $\\int\\eta^2e^{-2\\lambda S} \\le \\eta_{max}\\int"
        " e^{-2\\lambda"
        " S}dS$, so that $C$ is at most",
        top * sigma**2 / (2 * sure),
        top * sigma**2 / (2 * sure) * (1 - spent),
        top * sigma**2 / (2 * sure) * spent,
    )
    escape = general.subs(LAM, -rho)
    p.equal(
        "Negative curvature $-\\rho$: $C' = 2\\rho\\tau'C + \\sigma^2\\Theta\\tau'$ with $\\Theta = \\eta$, the"
        " state of the code",
        sp.diff(escape, t),
        2 * rho * rate * escape + sigma**2 * rate * rate,
        shown="C'",
    )
    return general, escape


def constant_rate(proof: Proof | None = None) -> sp.Expr:
    """Return C(t) at a constant rate and either curvature, eta sigma^2 (1 - exp(-2 lam eta t)) / (2 lam)."""
    p = proof or Proof()
    cov = eta0 * sigma**2 * (1 - sp.exp(-2 * LAM * eta0 * t)) / (2 * LAM)
    p.equal("Constant rate", sp.diff(cov, t), -2 * eta0 * LAM * cov + eta0**2 * sigma**2, shown="C'")
    p.limit("Positive curvature: the covariance saturates", cov.subs(LAM, rho), t, sp.oo, eta0 * sigma**2 / (2 * rho))
    p.limit("No curvature: it grows linearly", cov.subs(LAM, rho), rho, sp.Integer(0), eta0**2 * sigma**2 * t)
    p.limit(
        "Negative curvature: it grows exponentially, $C\\,e^{-2\\rho\\eta t}$",
        sp.expand(cov.subs(LAM, -rho) * sp.exp(-2 * rho * eta0 * t)),
        t,
        sp.oo,
        eta0 * sigma**2 / (2 * rho),
    )
    return cov


@cache
def result() -> Result:
    """Return the checked result."""
    p = Proof()
    mean, cov = one_dimension(p)
    matrix = two_dimensions(p)
    general, escape = covariances(p)
    constant = constant_rate(p)
    return Result(
        "fokker_planck",
        "Fokker-Planck equation linearised about the mean",
        "Linearised about the current mean the density stays Gaussian, with $m' = -\\eta\\nabla F(m)$ and"
        " $C' = -\\eta(HC + CH) + \\eta^2\\Sigma$. Along an eigenvector of curvature $\\lambda$,"
        " $$C(T) = \\sigma^2\\int_0^T\\eta(s)^2e^{-2\\lambda S(s,T)}ds:$$ bounded by"
        " $\\tfrac{\\sigma^2}{2\\lambda}\\max\\eta$ for"
        " $\\lambda > 0$, growing as $e^{2\\rho S}$ for $\\lambda = -\\rho < 0$. The latter is the code's escape"
        " state.",
        (
            "$F$ is quadratic, or is replaced by its second-order expansion about the current mean.",
            "The noise is additive with covariance $\\Sigma$, constant over the region.",
            "The start is a point or a Gaussian. The matrix equation is checked in two dimensions, which contains every"
            " entry type.",
        ),
        {"mean": mean, "variance": cov, "matrix": matrix, "general": general, "escape": escape, "constant": constant},
        tuple(p.steps),
        ("variance", "escape", "escape_probability"),
        "derivations/fokker_planck.py",
    )
