"""SGD and its stochastic differential equation: one step agrees to second order, a run to first."""

from __future__ import annotations

from functools import cache

import sympy as sp

from theory.result import Proof, Result
from theory.symbols import T, h, lam, sigma

X = sp.symbols("x_1 x_2", real=True)
F, G = sp.Function("F")(*X), sp.Function("g")(*X)
NOISE = sp.Matrix(2, 2, lambda i, j: sp.Function(f"C_{min(i, j) + 1}{max(i, j) + 1}")(*X))
GRADIENT = [sp.diff(F, x) for x in X]
PAIRS = [(i, j) for i in range(2) for j in range(2)]


def one_step(proof: Proof | None = None) -> sp.Expr:
    """Return E g(x - h (grad F + xi)) to second order in h.

    Assumes E xi = 0, Cov xi = C(x), g four times differentiable with bounded derivatives.
    """
    p = proof or Proof()
    move, a = sp.symbols("p_1 p_2", real=True), sp.symbols("a_1 a_2", real=True)  # the step is x - h p, p = grad F + xi
    wave = sp.exp(a[0] * X[0] + a[1] * X[1])  # the coefficients of an operator are known from its action on these
    along = wave.subs({x: x - h * m for x, m in zip(X, move, strict=True)}, simultaneous=True)
    slope = -sum(m * sp.diff(wave, x) for x, m in zip(X, move, strict=True))
    curve = sum(move[i] * move[j] * sp.diff(wave, X[i], X[j]) for i, j in PAIRS)
    for k, shown in ((1, slope), (2, curve)):
        p.equal(
            f"Taylor coefficient {k} of $g(x - h p)$, $p = \\nabla F + \\xi$, on $g = e^{{a\\cdot x}}$:"
            " $-p\\cdot\\nabla g$ and $p^\\top\\nabla^2g\\,p$",
            sp.diff(along, h, k).subs(h, 0),
            shown,
        )
    # E p_i = F_i and E p_i p_j = F_i F_j + C_ij
    mean = -sum(f * sp.diff(G, x) for f, x in zip(GRADIENT, X, strict=True))
    square = sum((GRADIENT[i] * GRADIENT[j] + NOISE[i, j]) * sp.diff(G, X[i], X[j]) for i, j in PAIRS)
    return G + h * mean + h**2 / 2 * square


def generator(g: sp.Expr, modified: bool = False) -> sp.Expr:
    """Return L g of dX = -grad F dt + sqrt(h C) dW; `modified` adds h |grad F|^2 / 4 to F."""
    drift = list(GRADIENT)
    if modified:
        extra = h / 4 * sum(f**2 for f in GRADIENT)
        drift = [f + sp.diff(extra, x) for f, x in zip(GRADIENT, X, strict=True)]
    transport = -sum(f * sp.diff(g, x) for f, x in zip(drift, X, strict=True))
    return transport + h / 2 * sum(NOISE[i, j] * sp.diff(g, X[i], X[j]) for i, j in PAIRS)


def local_error(proof: Proof | None = None) -> sp.Expr:
    """Return the leading difference of one SGD step and the SDE over time h: -(h^2 / 2) grad g . F'' grad F."""
    p = proof or Proof()
    sgd = one_step(p)

    def truncated(modified: bool) -> sp.Expr:
        once = generator(G, modified)
        full = sp.expand(G + h * once + h**2 / 2 * generator(once, modified))
        return sum(full.coeff(h, k) * h**k for k in range(3))

    bend = -(h**2) / 2 * sum(sp.diff(F, X[i], X[j]) * GRADIENT[j] * sp.diff(G, X[i]) for i, j in PAIRS)
    p.equal(
        "Local error: $\\mathbb{E}\\,g(x_1) - e^{hL} g$ to second order in $h$, with"
        " $e^{hL} = 1 + hL + \\tfrac12 h^2L^2$; the noise agrees, only the drift differs",
        sp.expand(sgd - truncated(False)),
        sp.expand(bend),
        shown=r"\mathbb{E}\,g(x_1) - e^{hL}g + O(h^3)",
    )
    p.equal(
        "With the modified potential $F + \\tfrac h4 |\\nabla F|^2$ the local error of second order vanishes",
        sp.expand(sgd - truncated(True)),
        sp.Integer(0),
        shown=r"\mathbb{E}\,g(x_1) - e^{h\tilde L}g + O(h^3)",
    )
    return bend


def stationary_ratio(proof: Proof | None = None) -> sp.Expr:
    """Return stationary variance of SGD over that of the SDE on a quadratic mode: 1 / (1 - h lam / 2)."""
    p = proof or Proof()
    v = sp.Symbol("y", positive=True)
    sgd = sp.solve(sp.Eq(v, (1 - h * lam) ** 2 * v + h**2 * sigma**2), v)[0]
    sde = h * sigma**2 / (2 * lam)
    p.equal(
        "SDE on a mode: $0 = -2\\lambda y + h\\sigma^2$",
        -2 * lam * sde + h * sigma**2,
        sp.Integer(0),
        shown=r"-2\lambda y_\infty + h\sigma^2\;\text{at}\;y_\infty = \tfrac{h\sigma^2}{2\lambda}",
    )
    ratio = 1 / (1 - h * lam / 2)
    p.equal(
        "Stationary variances on a mode, SGD over SDE, from $y = (1 - h\\lambda)^2 y + h^2\\sigma^2$", sgd / sde, ratio
    )
    p.series("so the relative error is of first order in $h\\lambda$", ratio, h, 2, 1 + h * lam / 2)
    p.series(
        "The mean over time $T$: logarithm of $(1 - h\\lambda)^{T/h}$ over $e^{-\\lambda T}$",
        T / h * sp.log(1 - h * lam) + lam * T,
        h,
        2,
        -h * lam**2 * T / 2,
    )
    return ratio


@cache
def result() -> Result:
    """Return the checked result."""
    p = Proof()
    error, ratio = local_error(p), stationary_ratio(p)
    return Result(
        "sgd_sde",
        "SGD follows an Ito SDE, weakly of first order",
        "SGD $x_{k+1} = x_k - h(\\nabla F(x_k) + \\xi_k)$ and $dX = -\\nabla F\\,dt + \\sqrt{h\\,C(X)}\\,dW$ over time"
        " $h$ a step differ by $-\\tfrac{h^2}{2}\\nabla g\\cdot\\nabla^2F\\,\\nabla F + O(h^3)$ in the mean of a test"
        " function $g$; over a time $T$ of order 1, that is $T/h$ steps, by $O(h)$. A schedule replaces $h$ by"
        " $\\eta_k$: in steps, $dX = -\\eta\\nabla F\\,dt + \\eta\\, C^{1/2} dW$ with error"
        " $\\sum_k O(\\eta_k^2) \\le O(\\max\\eta)\\,S(0,T)$.",
        (
            "$F$ and $g$ have bounded derivatives up to fourth order; $C$ is bounded and smooth.",
            "$\\mathbb{E}\\,\\xi = 0$, $\\operatorname{Cov}\\xi = C(x)$, bounded third moments, independent steps; no"
            " Gaussian noise is needed.",
            "The step from local to global error is the usual telescoping over steps with a stable semigroup (stated,"
            " not checked by program). The local expansion is checked in two dimensions, which contains every mixed"
            " term.",
        ),
        {"local_error": error, "stationary_ratio": ratio},
        tuple(p.steps),
        ("tau", "variance", "escape"),
        "derivations/sgd_sde.py",
        sources=("Li, Tai, E: Stochastic modified equations (arXiv 1511.06251)",),
    )
