"""The four theorems: convergence and escape, of SGD and of Adam, under any schedule. The proofs are our own."""

from __future__ import annotations

from functools import cache

import sympy as sp

from theory.derivations import adam_sde, anti_concentration, fokker_planck, sgd_convergence
from theory.result import Proof, Result
from theory.symbols import B, T, clock, eta0, mu, rho, s, sigma, smooth, t

MODES = sp.Symbol("m", positive=True)  # number of coordinates
GRAD, SPREAD, TOP = sp.symbols("g s G", positive=True)  # a coordinate's |mean gradient|, its noise, bound on the former
START, GAP = sp.symbols("y_0 Delta", positive=True)


@cache
def theorem_1() -> Result:
    """Return Theorem 1: convergence of SGD."""
    p = Proof()
    mean = sgd_convergence.averaged_gradient(p)
    excess = sgd_convergence.excess_loss(p)
    return Result(
        "theorem_1",
        "Theorem 1: convergence of SGD",
        "For every schedule with $\\eta_k \\le 1/L$, $$\\min_{k<T}\\mathbb{E}|\\nabla F(x_k)|^2 \\le"
        " \\frac{2\\Delta + L\\sigma^2\\sum_k\\eta_k^2}{\\sum_k\\eta_k},$$ and for the SDE under a"
        " Polyak-Lojasiewicz constant"
        " $\\mu$, $$\\mathbb{E}F(X_T) - F^* \\le \\Delta\\,e^{-2\\mu S(0,T)} +"
        " \\frac{L\\sigma^2}2\\int_0^T\\eta(s)^2e^{-2\\mu S(s,T)}ds.$$",
        (
            "$F$ is $L$-smooth, $\\Delta = F(x_0) - \\inf F < \\infty$; the gradient estimate is unbiased with"
            " variance at most"
            " $\\sigma^2$.",
            "Second part: $|\\nabla F|^2 \\ge 2\\mu(F - F^*)$; $F$ has two derivatives, and the noise's integral in"
            " Ito's formula has mean zero.",
        ),
        {"mean": mean, "excess": excess},
        tuple(p.steps),
        ("bias", "transient", "variance"),
        "theorems.py",
    )


def growing_covariance(proof: Proof, pace: sp.Expr, noise: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """Return (C, its lower bound noise^2 S^2 / T) along a direction of curvature -rho; drift and noise per rate."""
    rate = sp.diff(clock(t), t)
    cov = (
        noise**2
        * sp.exp(2 * rho * pace * clock(t))
        * sp.Integral(sp.diff(clock(s), s) ** 2 * sp.exp(-2 * rho * pace * clock(s)), (s, 0, t))
    )
    proof.equal(
        "Covariance along the escaping direction, $\\tau' = \\eta$, from $C(0) = 0$",
        sp.diff(cov, t),
        2 * rho * pace * rate * cov + noise**2 * rate**2,
        shown="C'",
    )
    average, end, x = sp.symbols("S T eta", positive=True)
    proof.equal(
        "Cauchy-Schwarz: the integrand of $\\int(\\eta - S/T)^2 \\ge 0$, in which $\\int\\eta = S$",
        (x - average / end) ** 2,
        x**2 - 2 * x * average / end + average**2 / end**2,
    )
    square = sp.Symbol("Q", positive=True)
    proof.equal(
        "so $Q = \\int\\eta^2$ exceeds $S^2/T$ by that integral; with $e^{2\\rho S} \\ge 1$, $C \\ge \\sigma^2S^2/T$",
        square - 2 * average * average / end + end * average**2 / end**2,
        square - average**2 / end,
        shown=r"\int(\eta - S/T)^2",
    )
    return cov, noise**2 * average**2 / end


@cache
def theorem_2() -> Result:
    """Return Theorem 2: escape of SGD."""
    p = Proof()
    fokker_planck.one_dimension(p)
    cov, least = growing_covariance(p, sp.Integer(1), sigma)
    simple, sharp = anti_concentration.bound(p)
    robust = anti_concentration.beyond_quadratic(p)
    return Result(
        "theorem_2",
        "Theorem 2: escape of SGD",
        "At a stationary point $x^*$ with curvature $-\\rho < 0$ along a unit eigenvector $v$ and noise variance"
        " $\\sigma^2$"
        " along it, under every schedule $$\\mathbb{P}(|X_T - x^*| \\le r) \\le \\sqrt e\\,\\left(1 +"
        " \\frac{\\sigma^2}{r^2}\\int_0^T\\eta(s)^2e^{2\\rho S(s,T)}ds\\right)^{-1/2} \\le \\sqrt e\\,\\left(1 +"
        " \\frac{\\sigma^2S^2}{r^2T}\\right)^{-1/2}.$$ For a remainder of third order, $|\\langle v, \\nabla"
        " F\\rangle + \\rho\\langle v,"
        " x - x^*\\rangle| \\le Mr^2/2$ within $r$, the probability of staying within $r$ until $T$ is at most"
        " $\\sqrt{2/\\pi}\\,(r + \\tfrac{Mr^2}{2\\rho}e^{\\rho S})\\,C^{-1/2}$, $C = \\sigma^2\\int\\eta^2e^{2\\rho"
        " S}$.",
        (
            "First bound: $F$ is quadratic everywhere and the noise Gaussian, additive and constant, so that the law at"
            " $T$ is Gaussian. Quadratic near $x^*$ is not enough: what left can come back (`montecarlo/escape.py`, hot"
            " and long, refutes it).",
            "Second bound: within $r$ the noise along $v$ has the constant variance $\\sigma^2$, and the remainder is"
            " bounded as said; nothing is assumed outside.",
            "The SDE stands for SGD (weak error of first order, `sgd_sde`).",
        ),
        {"covariance": cov, "least": least, "stay": simple, "stay_sharp": sharp, "stay_nonquadratic": robust},
        tuple(p.steps),
        ("escape", "escape_probability"),
        "theorems.py",
    )


def preconditioned_descent(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return Adam's bounds: the mean of sum_i phi(g_i), and the excess loss under a Polyak-Lojasiewicz constant."""
    p = proof or Proof()
    gap = sp.Symbol("z", nonnegative=True)
    p.at_least(
        "Let $\\varphi(g) = g^2/\\sqrt{g^2 + s^2}$, $s = \\sigma/\\sqrt B$. For $g \\le s$, $s^2 = g^2 + z$: $2s^2"
        " \\ge g^2 + s^2$,"
        " so $\\varphi \\ge g^2/(\\sqrt2\\,s)$",
        2 * (GRAD**2 + gap),
        2 * GRAD**2 + gap,
        gap,
    )
    p.at_least(
        "For $g \\ge s$, $g^2 = s^2 + z$: $2g^2 \\ge g^2 + s^2$, so $\\varphi \\ge g/\\sqrt2$",
        2 * (SPREAD**2 + gap),
        2 * SPREAD**2 + gap,
        gap,
    )
    p.at_least(
        "A step's variance $s^2/(g^2 + s^2)$ is at most 1",
        sp.Integer(1),
        SPREAD**2 / (GRAD**2 + SPREAD**2),
        GRAD**2 / (GRAD**2 + SPREAD**2),
    )
    share, phi = SPREAD**2 / (GRAD**2 + SPREAD**2), GRAD**2 / sp.sqrt(GRAD**2 + SPREAD**2)
    p.at_least(
        "Ito's formula for $F(X)$: what a coordinate of second derivative $L - z$, $z \\ge 0$, adds to the drift,"
        " $-\\eta\\varphi + \\tfrac12\\eta^2\\tfrac{s^2}{g^2 + s^2}(L - z)$, is at most $-\\eta\\varphi + \\tfrac"
        " L2\\eta^2$",
        -eta0 * phi + smooth / 2 * eta0**2,
        -eta0 * phi + eta0**2 / 2 * share * (smooth - gap),
        eta0**2 / 2 * (smooth * (GRAD**2 / (GRAD**2 + SPREAD**2)) + gap * share),
    )
    rate, y, descent = sp.diff(clock(t), t), sp.Function("y", positive=True), sp.Function("Phi", positive=True)
    spare = sp.Symbol("r", nonnegative=True)
    spent = sp.Integral(sp.diff(clock(s), s) * descent(s), (s, 0, t))
    heat = smooth * MODES / 2 * sp.Integral(sp.diff(clock(s), s) ** 2, (s, 0, t))
    p.equal(
        "Over $m$ coordinates, with $y = \\mathbb{E}F$, $\\Phi = \\mathbb{E}\\sum_i\\varphi(g_i)$ and $r \\ge 0$: $y'"
        " = -\\eta\\Phi + \\tfrac{Lm}2\\eta^2 - r$, so that this falls, and with $\\Delta \\ge y(0) - y(T)$ the mean"
        " of $\\Phi$ weighted by $\\eta$ is at most $(\\Delta + \\tfrac{Lm}2\\int\\eta^2)/S$",
        sp.diff(y(t) + spent - heat, t).subs(
            sp.diff(y(t), t), -rate * descent(t) + smooth * MODES / 2 * rate**2 - spare
        ),
        -spare,
        shown=r"\tfrac{d}{dt}\left(y + \int_0^t\eta\Phi - \tfrac{Lm}{2}\int_0^t\eta^2\right)",
    )
    whole, squares = sp.symbols("S Q", positive=True)
    bound = (GAP + smooth * MODES / 2 * squares) / whole
    p.at_least(
        "Where $|g| \\le G$, $G^2 = g^2 + z$: $\\varphi^2(G^2 + s^2)$ is at least $g^4$",
        phi**2 * (GRAD**2 + gap + SPREAD**2),
        GRAD**4,
        gap * phi**2,
    )
    pace = 1 / sp.sqrt(TOP**2 + SPREAD**2)
    p.equal(
        "that is $\\varphi(g) \\ge c\\,g^2$ with $c = 1/\\sqrt{G^2 + \\sigma^2/B}$, which is the code's factor $g$ of"
        " intrinsic time over $\\sigma$, with $b_c = \\sigma^2/G^2$",
        pace.subs(SPREAD, sigma / sp.sqrt(B)),
        sp.sqrt(B) / (sigma * sp.sqrt(1 + B / (sigma**2 / TOP**2))),
    )
    c = sp.Symbol("c", positive=True)
    source = sp.Integral(sp.diff(clock(s), s) ** 2 * sp.exp(2 * mu * c * clock(s)), (s, 0, t))
    excess = sp.exp(-2 * mu * c * clock(t)) * (START + smooth * MODES / 2 * source)
    p.equal(
        "so $y' \\le -2\\mu c\\,\\eta y + \\tfrac{Lm}2\\eta^2$ is solved by",
        sp.diff(excess, t) + 2 * mu * c * rate * excess,
        smooth * MODES / 2 * rate**2,
        shown=r"\bar y' + 2\mu c\,\tau'\bar y",
    )
    return bound, excess


@cache
def theorem_3() -> Result:
    """Return Theorem 3: convergence of Adam."""
    p = Proof()
    adam_sde.drift(p)
    bound, excess = preconditioned_descent(p)
    return Result(
        "theorem_3",
        "Theorem 3: convergence of Adam",
        "Under every schedule, with $g_i = \\partial_iF(X_t)$ and $m$ coordinates, $$\\min_{t\\le"
        " T}\\mathbb{E}\\sum_i\\min\\left(|g_i|,"
        "\\,\\frac{\\sqrt B}\\sigma g_i^2\\right) \\le \\sqrt2\\;\\frac{\\Delta +"
        " \\tfrac{Lm}2\\int_0^T\\eta^2}{\\int_0^T\\eta},$$ and"
        " under a Polyak-Lojasiewicz constant $\\mu$, if $|g_i| \\le G$ on every path, with $c = 1/\\sqrt{G^2 +"
        " \\sigma^2/B}$,"
        " $$\\mathbb{E}F(X_T) - F^* \\le \\Delta\\,e^{-2\\mu cS(0,T)} + \\frac{Lm}2\\int_0^T\\eta(s)^2e^{-2\\mu"
        " cS(s,T)}ds.$$"
        " Where noise dominates $c = \\sqrt B/\\sigma$.",
        (
            "Idealised Adam: $dX_i = -\\eta g_i(g_i^2 + \\sigma^2/B)^{-1/2}dt + \\eta\\,\\sigma B^{-1/2}(g_i^2 +"
            " \\sigma^2/B)^{-1/2}dW_i$, the second moment exact, no momentum.",
            "$F$ is bounded below with $\\partial_i^2F \\le L$.",
            "Second part: $|\\nabla F|^2 \\ge 2\\mu(F - F^*)$, $\\Delta = F(x_0) - F^*$; $|g_i| \\le G$ for every"
            " coordinate, on every path and until $T$ (its mean square would not do).",
            "Both: the coordinates' noises are independent, and the noise's integral in Ito's formula has mean zero.",
        ),
        {"mean": bound, "excess": excess},
        tuple(p.steps),
        ("bias", "tau", "variance"),
        "theorems.py",
    )


@cache
def theorem_4() -> Result:
    """Return Theorem 4: escape of Adam."""
    p = Proof()
    away = sp.Symbol("x", real=True)
    noise = SPREAD**2 / ((rho * away) ** 2 + SPREAD**2)
    p.series(
        "Near the stationary point the gradient is $-\\rho x$ and a step's variance 1 up to second order",
        noise,
        away,
        2,
        sp.Integer(1),
    )
    p.series("and the drift linear", rho * away / sp.sqrt((rho * away) ** 2 + SPREAD**2), away, 3, rho * away / SPREAD)
    pace = sp.sqrt(B) / sigma
    cov, least = growing_covariance(p, pace, sp.Integer(1))
    simple, sharp = anti_concentration.bound(p)
    k = sp.Symbol("kappa", positive=True)
    grown = eta0 * sigma / (2 * rho * sp.sqrt(B)) * (sp.exp(2 * rho * pace * eta0 * T) - 1)
    p.equal(
        "At a constant rate the growth depends on $\\sqrt B\\,\\eta T$, the size on $\\eta/\\sqrt B$: unchanged by the"
        " square-root rule",
        grown.subs({eta0: sp.sqrt(k) * eta0, B: k * B, T: T / k}, simultaneous=True),
        grown,
        shown=r"C(\sqrt\kappa\,\eta_0, \kappa B, T/\kappa)",
    )
    return Result(
        "theorem_4",
        "Theorem 4: escape of Adam",
        "At a stationary point with curvature $-\\rho < 0$ along one coordinate, where noise dominates, under every"
        " schedule"
        " $$\\mathbb{P}(|X_T - x^*| \\le r) \\le \\sqrt e\\,\\left(1 + \\frac1{r^2}\\int_0^T\\eta(s)^2e^{2\\rho\\sqrt B"
        "S(s,T)/\\sigma}ds\\right)^{-1/2} \\le \\sqrt e\\,\\left(1 + \\frac{S^2}{r^2T}\\right)^{-1/2}.$$ The noise of"
        " a step does not"
        " shrink with the gradient's: only the growth depends on $B$ and $\\sigma$.",
        (
            "Idealised Adam as in Theorem 3, replaced everywhere by its linearisation about $x^*$ (which is right to"
            " third order of the distance in the drift, to second in the variance), so that the law is Gaussian.",
            "The Hessian is diagonal in Adam's coordinates, or Adam's coordinates share one $\\sigma$.",
        ),
        {"covariance": cov, "least": least, "stay": simple, "stay_sharp": sharp, "constant_rate": grown},
        tuple(p.steps),
        ("escape", "escape_probability"),
        "theorems.py",
    )


THEOREMS = (theorem_1, theorem_2, theorem_3, theorem_4)
