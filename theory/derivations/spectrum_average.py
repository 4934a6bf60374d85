"""Average of the modes' bias over a power-law spectrum that ends at the model's last mode: columns bias and size."""

from __future__ import annotations

from functools import cache

import sympy as sp

from theory.result import Proof, Result
from theory.symbols import lam, n, tau

ALPHA, BETA = sp.symbols("alpha beta", positive=True)  # lam_k = lam k^-alpha, initial loss of mode k c k^-beta
WEIGHT, K, N = sp.symbols("c k N", positive=True)
A = sp.Symbol("a", positive=True)  # the exponent a_T of the code: (beta - 1) / alpha
UNIT = sp.Symbol("N_0", positive=True)  # modes of the reference size; N = N_0 n


def summand(k: sp.Expr) -> sp.Expr:
    """Return the bias of mode k: c k^-beta exp(-2 lam k^-alpha tau), with beta = 1 + a alpha."""
    return WEIGHT * k ** (-1 - A * ALPHA) * sp.exp(-2 * lam * k ** (-ALPHA) * tau)


def bias(proof: Proof | None = None) -> sp.Expr:
    """Return int_1^N of the modes' bias: (c / alpha) (2 lam tau)^-a [Gamma(a, z_N) - Gamma(a, z_1)]."""
    p = proof or Proof()
    z = 2 * lam * tau * K ** (-ALPHA)
    whole = WEIGHT / ALPHA * (2 * lam * tau) ** (-A) * sp.uppergamma(A, z)
    p.equal(
        "Derivative by the last mode $k$ of $\\tfrac c\\alpha(2\\lambda\\tau)^{-a}\\,\\Gamma(a, 2\\lambda\\tau"
        " k^{-\\alpha})$"
        " is the bias of mode $k$",
        sp.diff(whole, K),
        summand(K),
        shown=r"\tfrac{d}{dk}\,\tfrac{c}{\alpha}(2\lambda\tau)^{-a}\,\Gamma(a, 2\lambda\tau k^{-\alpha})",
    )
    total = whole.subs(K, N) - whole.subs(K, 1)
    p.equal(
        "so the integral over the modes is this value at $k = N$ less that at $k = 1$, which begins at",
        total.subs(N, 1),
        sp.Integer(0),
        shown=r"\text{difference at } N = 1",
    )
    return total


def column(proof: Proof | None = None) -> sp.Expr:
    """Return the column tau^-a Q(a, lc n^-r tau) with r = alpha and lc = 2 lam N_0^-alpha."""
    p = proof or Proof()
    cut, r = sp.symbols("l_c r", positive=True)
    value = tau ** (-A) * sp.uppergamma(A, cut * n ** (-r) * tau) / sp.gamma(A)
    whole = WEIGHT / ALPHA * (2 * lam * tau) ** (-A) * sp.uppergamma(A, 2 * lam * tau * (UNIT * n) ** (-ALPHA))
    factor = WEIGHT * sp.gamma(A) / ALPHA * (2 * lam) ** (-A)
    matched = value.subs({r: ALPHA, cut: 2 * lam * UNIT ** (-ALPHA)})
    p.equal(
        "Up to a constant this is the column, with $r = \\alpha$ and $l_c = 2\\lambda N_0^{-\\alpha}$",
        sp.expand_power_base(whole, force=True),
        sp.expand_power_base(factor * matched, force=True),
        shown=r"\tfrac{c}{\alpha}(2\lambda\tau)^{-a}\,\Gamma(a, 2\lambda\tau N^{-\alpha})",
    )
    return value


def limits(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return the limits of Q: 1 for a model without end, exp(-x) x^(a-1) / Gamma(a) for one that ran out of modes."""
    p = proof or Proof()
    x = sp.Symbol("x", positive=True)
    k = sp.Symbol("j", integer=True, nonnegative=True)
    p.equal(
        "Integrating $x^{a-1}e^{-x}/\\Gamma(a)$ term by term, $Q(a, x) = 1 -"
        " \\tfrac{x^a}{\\Gamma(a)}\\sum_j\\tfrac{(-x)^j}{j!\\,(a+j)}$; derivative of a term",
        sp.diff(x ** (A + k) * (-1) ** k / (sp.factorial(k) * (A + k)), x),
        x ** (A - 1) * (-x) ** k / sp.factorial(k),
    )
    p.limit(
        "An unlimited model, $x = l_cn^{-r}\\tau \\to 0$, keeps the pure power: the first term",
        1 - x**A / (A * sp.gamma(A)),
        x,
        sp.Integer(0),
        sp.Integer(1),
    )
    tail = sp.exp(-x) * x ** (A - 1)
    ratio = sp.simplify(sp.diff(tail * (1 + (A - 1) / x), x) / sp.diff(sp.uppergamma(A, x), x))
    p.limit(
        "A model out of modes, or the modes beyond the first: ratio of the derivatives of $e^{-x}x^{a-1}(1 +"
        " \\tfrac{a-1}x)$ and $\\Gamma(a, x)$",
        ratio,
        x,
        sp.oo,
        sp.Integer(1),
    )
    return sp.Integer(1), tail


def missing_modes(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return the loss of the modes beyond N, c N^-(a alpha) / (a alpha), and its exponent in size a_N = r a_T."""
    p = proof or Proof()
    tail = sp.Integral(WEIGHT * K ** (-1 - A * ALPHA), (K, N, sp.oo))
    value = p.equal("Loss of the modes that the model does not have", tail, WEIGHT * N ** (-A * ALPHA) / (A * ALPHA))
    exponent = p.equal(
        "Its exponent in the size",
        -sp.simplify(N * sp.diff(value, N) / value),
        A * ALPHA,
        shown=r"-N\,\partial_N\log\sum_{k>N}c_k",
    )
    return value, exponent


def sum_against_integral(proof: Proof | None = None) -> sp.Expr:
    """Return the exponent of tau in the largest summand over the sum, -1 / alpha: the error of the integral.

    That is where the largest summand lies before the last mode. Where it does not, 2 lam tau N^-alpha large, the sum is
    that of its last terms, a geometric one, and off by half the last term: a share of half of what a mode adds to it.
    """
    p = proof or Proof()
    top = (2 * ALPHA * lam * tau / (1 + A * ALPHA)) ** (1 / ALPHA)
    p.equal(
        "The summand has one maximum, where its logarithmic derivative vanishes",
        sp.powdenest(sp.expand(K * sp.diff(sp.log(summand(K)), K)).subs(K, top), force=True),
        sp.Integer(0),
        shown=r"k\,\partial_k\log c_k\big|_{k=k_*}",
    )
    largest = sp.simplify(tau * sp.diff(sp.log(summand(top)), tau))
    p.equal("which falls with time as", largest, -A - 1 / ALPHA, shown=r"\tau\,\partial_\tau\log c_{k_*}")
    z, growth = 2 * lam * tau * N ** (-ALPHA), sp.Symbol("g", positive=True)
    p.equal(
        "The maximum lies beyond the last mode once $z = 2\\lambda\\tau N^{-\\alpha}$ exceeds $a + 1/\\alpha$; the last"
        " terms then grow by the factor $e^g$ a mode, $g$ being one over $N$ times",
        sp.expand(K * sp.diff(sp.log(summand(K)), K)).subs(K, N),
        ALPHA * z - 1 - A * ALPHA,
        shown=r"k\,\partial_k\log c_k\big|_{k=N}",
    )
    p.series(
        "and of such terms the sum, in units of the last, $1/(1 - e^{-g})$, exceeds the integral $1/g$ by the share",
        growth / (1 - sp.exp(-growth)) - 1,
        growth,
        2,
        growth / 2,
    )
    return -1 / ALPHA


@cache
def result() -> Result:
    """Return the checked result."""
    p = Proof()
    total, shape = bias(p), column(p)
    whole, tail = limits(p)
    missing, exponent = missing_modes(p)
    error = sum_against_integral(p)
    return Result(
        "spectrum_average",
        "A power-law spectrum that ends at the model's size",
        "With $\\lambda_k = \\lambda k^{-\\alpha}$ and initial loss $c_k = c\\,k^{-1-a\\alpha}$ of mode $k = 1..N$,"
        " the bias is"
        " $$\\sum_{k\\le N} c_ke^{-2\\lambda_k\\tau} \\simeq \\frac{c\\,\\Gamma(a)}\\alpha(2\\lambda)^{-a}\\;"
        "\\tau^{-a}\\,Q(a,\\,l_c n^{-r}\\tau),\\qquad r = \\alpha,$$ exactly the column `bias`, and the modes beyond"
        " $N$"
        " cost $\\tfrac c{a\\alpha}N^{-a\\alpha}$: the column `size` with $a_N = r\\,a_T$.",
        (
            "Quadratic modes with power-law curvatures and power-law initial loss; a model of size $N$ has the first"
            " $N$.",
            "The sum over modes is an integral: for a summand with one maximum they differ by at most twice that"
            " maximum, of order $\\tau^{-1/\\alpha}$ of the sum while $z = 2\\lambda\\tau N^{-\\alpha}$ is small (the"
            " model has modes left). Beyond, the share is about $\\alpha z/2N$ and grows with time, to order one at $z"
            " \\sim N/\\alpha$. The first mode's incomplete gamma is dropped.",
            "Intrinsic time is counted in thousands in the code, which is part of $l_c$.",
        ),
        {
            "bias": total,
            "column": shape,
            "unlimited": whole,
            "exhausted": tail,
            "missing": missing,
            "size_exponent": exponent,
            "sum_error_exponent": error,
        },
        tuple(p.steps),
        ("bias", "size", "constant"),
        "derivations/spectrum_average.py",
        remark="The exponents are those of the spectrum; the relation $a_N = r\\,a_T$ is not kept by the fitted ones.",
        sources=("Bordelon, Atanasov, Pehlevan: A dynamical model of neural scaling laws (arXiv 2402.01092)",),
    )
