"""Anti-concentration: the probability of staying near a stationary point, through the trace of the covariance."""

from __future__ import annotations

from functools import cache

import sympy as sp

from theory.result import Proof, Result
from theory.symbols import clock, rho, s, sigma, t

R, TRACE, TILT = sp.symbols("r K z", positive=True)  # K = tr C, z the parameter of the exponential moment
REST, CUBIC = sp.symbols("e M", positive=True)


def one_coordinate(proof: Proof | None = None) -> sp.Expr:
    """Return E exp(-z X^2) for X ~ N(m, c): (1 + 2 z c)^(-1/2) exp(-z m^2 / (1 + 2 z c)) <= (1 + 2 z c)^(-1/2)."""
    p = proof or Proof()
    x, m, c = sp.Symbol("x", real=True), sp.Symbol("m", real=True), sp.Symbol("c", positive=True)
    width = c / (1 + 2 * TILT * c)  # variance and mean of the tilted Gaussian
    shift = m / (1 + 2 * TILT * c)
    p.equal(
        "Completing the square: the exponent of $e^{-zx^2}$ times that of $N(m, c)$",
        -TILT * x**2 - (x - m) ** 2 / (2 * c),
        -((x - shift) ** 2) / (2 * width) - TILT * m**2 / (1 + 2 * TILT * c),
    )
    central = p.equal(
        "so the mean is that of a narrower Gaussian: ratio of the widths",
        sp.sqrt(width / c),
        1 / sp.sqrt(1 + 2 * TILT * c),
        shown=r"\sqrt{\tfrac{c}{1+2zc}\big/c}",
    )
    p.at_least(
        "and a mean off the point only lowers it: the exponent",
        sp.Integer(0),
        -TILT * m**2 / (1 + 2 * TILT * c),
        TILT * m**2 / (1 + 2 * TILT * c),
    )
    return central


def product(proof: Proof | None = None) -> sp.Expr:
    """Return the bound of the product over eigenvalues: prod (1 + a_i) >= 1 + sum a_i."""
    p = proof or Proof()
    a, total = sp.symbols("a A", nonnegative=True)
    p.at_least(
        "Induction over the eigenvalues, $a_i = 2zc_i$: if $\\prod(1 + a_i) \\ge 1 + A$, one more factor has",
        (1 + total) * (1 + a),
        1 + total + a,
        total * a,
    )
    return 1 + 2 * TILT * TRACE


def bound(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return (sqrt(e) (1 + tr C / r^2)^(-1/2), the best of the same kind) above P(|X - x*| <= r), X ~ N(m, C)."""
    p = proof or Proof()
    one_coordinate(p)
    whole = sp.exp(TILT * R**2) / sp.sqrt(product(p))  # Markov: P(|X|^2 <= r^2) <= e^(z r^2) E e^(-z |X|^2)
    simple = p.equal(
        "Markov's inequality $P(|X|^2 \\le r^2) \\le e^{zr^2}\\mathbb{E}e^{-z|X|^2}$ with $z = 1/2r^2$, $K ="
        " \\operatorname{tr}C$",
        whole.subs(TILT, 1 / (2 * R**2)),
        sp.sqrt(sp.E) / sp.sqrt(1 + TRACE / R**2),
        shown=r"e^{zr^2}(1+2zK)^{-1/2}\big|_{z=1/2r^2}",
    )
    best = (TRACE / R**2 - 1) / (2 * TRACE)
    p.equal(
        "The best $z$, for $K > r^2$",
        sp.diff(sp.log(whole), TILT).subs(TILT, best),
        sp.Integer(0),
        shown=r"\partial_z\log\left(e^{zr^2}(1 + 2zK)^{-1/2}\right)",
    )
    sharp = p.equal("gives", whole.subs(TILT, best), sp.exp((1 - R**2 / TRACE) / 2) * R / sp.sqrt(TRACE))
    p.at_least(
        "Both are of order $(r^2/\\operatorname{tr}C)^{1/2}$: $1 + K/r^2$ exceeds $K/r^2$",
        1 + TRACE / R**2,
        TRACE / R**2,
        sp.Integer(1),
    )
    return simple, sharp


def beyond_quadratic(proof: Proof | None = None) -> sp.Expr:
    """Return the bound on staying within r when F' = -rho x + e(x), |e| <= M r^2 / 2, along the escaping direction.

    On the paths that stay, Y = <v, X> has Y(T) e^(-rho S) = G + D with G Gaussian and |D| <= M r^2 / (2 rho).
    """
    p = proof or Proof()
    y = sp.Function("y", real=True)(t)
    rate, push = sp.diff(clock(t), t), sp.Symbol("e", real=True)
    p.equal(
        "Along the escaping direction, $dY = \\eta(\\rho Y - e)dt + \\eta\\sigma dW$: the drift of $Ye^{-\\rho\\tau}$",
        sp.diff(y * sp.exp(-rho * clock(t)), t).subs(sp.diff(y, t), rate * (rho * y - push)),
        -rate * push * sp.exp(-rho * clock(t)),
    )
    end = sp.Symbol("S", positive=True)
    u = sp.Symbol("u", positive=True)
    most = CUBIC * R**2 / 2 * sp.Integral(sp.exp(-rho * u), (u, 0, end))
    value = CUBIC * R**2 * (1 - sp.exp(-rho * end)) / (2 * rho)
    p.equal("so, while $|e| \\le Mr^2/2$, that drift adds up to at most", most, value)
    p.at_least(
        "which is less than",
        CUBIC * R**2 / (2 * rho),
        CUBIC * R**2 / (2 * rho) - CUBIC * R**2 / (2 * rho) * sp.exp(-rho * end),
        CUBIC * R**2 / (2 * rho) * sp.exp(-rho * end),
    )
    scale, reach = sp.symbols("V a", positive=True)
    z = sp.Symbol("z", real=True)
    peak = 1 / sp.sqrt(2 * sp.pi * scale)
    p.at_least(
        "A Gaussian density of variance $V$ is highest at 0: minus the exponent there",
        z**2 / (2 * scale),
        sp.Integer(0),
        z**2 / (2 * scale),
    )
    p.equal(
        "so an interval of half width $a$ has at most",
        2 * reach * peak,
        sp.sqrt(2 / sp.pi) * reach / sp.sqrt(scale),
        shown=r"\tfrac{2a}{\sqrt{2\pi V}}",
    )
    martingale = sp.Integral(sigma**2 * sp.diff(clock(s), s) ** 2 * sp.exp(-2 * rho * clock(s)), (s, 0, t))
    cov = sp.exp(2 * rho * clock(t)) * martingale
    p.equal(
        "and $V e^{2\\rho S}$ is the covariance of `fokker_planck`",
        sp.diff(cov, t),
        2 * rho * rate * cov + sigma**2 * rate**2,
        shown="(Ve^{2\\rho\\tau})'",
    )
    c = sp.Symbol("C", positive=True)
    return sp.sqrt(2 / sp.pi) * (R + CUBIC * R**2 * sp.exp(rho * end) / (2 * rho)) / sp.sqrt(c)


@cache
def result() -> Result:
    """Return the checked result."""
    p = Proof()
    simple, sharp = bound(p)
    robust = beyond_quadratic(p)
    return Result(
        "anti_concentration",
        "The probability of staying near a stationary point",
        "For $X \\sim N(m, C)$ in any dimension, any $m$ and any point $x^*$,"
        " $$\\mathbb{P}(|X - x^*| \\le r) \\le \\sqrt e\\,\\left(1 + \\frac{\\operatorname{tr}C}{r^2}\\right)^{-1/2}"
        " \\le \\sqrt e\\,\\left(\\frac{r^2}{\\operatorname{tr}C}\\right)^{1/2}.$$ With a remainder of third order the"
        " probability of staying within $r$ until $T$ is at most $\\sqrt{2/\\pi}\\,(r + \\tfrac{Mr^2}{2\\rho}e^{\\rho"
        " S})/\\sqrt{C_v}$, $C_v$ the covariance along the escaping direction.",
        (
            "First bound: the law at time $T$ is Gaussian (the linearised equation); the constant $\\sqrt e$ does not"
            " depend on the dimension.",
            "Second bound: within $r$ the gradient along a unit eigenvector of curvature $-\\rho$ differs from"
            " linear by at"
            " most $Mr^2/2$, and the noise along it has constant variance; nothing is assumed outside. On the event of"
            " staying, the path equals a Gaussian martingale plus a bounded drift.",
        ),
        {"bound": simple, "sharp": sharp, "beyond_quadratic": robust},
        tuple(p.steps),
        ("escape", "escape_probability"),
        "derivations/anti_concentration.py",
        remark="The column is $1 - (1 + C)^{-1/2}$ with $C = \\operatorname{tr}C/r^2$: the bound's shape with its"
        " constant"
        " $\\sqrt e$ set to 1, and the unknown $r$ and $\\sigma$ absorbed in units.",
    )
