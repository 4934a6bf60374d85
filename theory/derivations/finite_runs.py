"""Columns of short runs, finite data and large batches: transient, tokens, batch_noise. Scaling arguments."""

from __future__ import annotations

from functools import cache

import sympy as sp

from theory.result import HEURISTIC, Proof, Result
from theory.symbols import T, b, bc, d, t, tau

A = sp.Symbol("a", positive=True)


def transient(proof: Proof | None = None) -> sp.Expr:
    """Return 1 / t for 1 / (2 Lambda tau), the average of exp(-2 lam tau) over curvatures from 0 to Lambda."""
    p = proof or Proof()
    top, lam = sp.symbols("Lambda lambda", positive=True)
    mean = sp.Integral(sp.exp(-2 * lam * tau), (lam, 0, top)) / top
    value = p.equal(
        "Bias averaged over curvatures spread evenly up to $\\Lambda$",
        mean,
        (1 - sp.exp(-2 * top * tau)) / (2 * top * tau),
    )
    p.limit("falls as one over time", value * tau, tau, sp.oo, 1 / (2 * top))
    gap, smooth = sp.symbols("Delta L", positive=True)
    p.equal(
        "as does the bound of Theorem 1 without noise at $\\eta = 1/L$",
        2 * gap / (T / smooth),
        2 * gap * smooth / T,
        shown=r"\tfrac{2\Delta}{\eta T}\;\text{at}\;\eta = \tfrac1L",
    )
    return 1 / t


def tokens(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return the exponents of two estimates of the error of finite data: 1 for a finite dimension, a_T in one pass."""
    p = proof or Proof()
    dim, noise, alpha, weight = sp.symbols("m sigma alpha c", positive=True)
    error = noise**2 * dim / d
    first = p.equal(
        "Least squares with $m$ parameters: the error $\\sigma^2m/D$ has the exponent",
        -sp.simplify(d * sp.diff(sp.log(error), d)),
        sp.Integer(1),
        shown=r"-d\,\partial_d\log\tfrac{\sigma^2m}{d}",
    )
    # power-law spectrum: K modes learned, c K^(-a alpha) / (a alpha) left, a mode learned once lam K^-alpha D ~ 1
    left = weight * (d ** (1 / alpha)) ** (-A * alpha)
    second = p.equal(
        "Power-law spectrum in one pass: modes with $\\lambda_kD > 1$ are learned, $K = D^{1/\\alpha}$ of them, and"
        " the rest"
        " cost $K^{-a\\alpha}$, with the exponent",
        -sp.simplify(d * sp.diff(sp.log(left), d)),
        A,
        shown=r"-d\,\partial_d\log K^{-a\alpha}",
    )
    return first, second


def batch_noise(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return (sqrt(b / t), exponent 1/2 of the critical batch in d): first order of the bias' relative change."""
    p = proof or Proof()
    x, power = sp.symbols("x g", positive=True)
    bias = (1 + x) ** (A / 2)  # tau ~ (1 + b / bc)^(-1/2)
    p.series(
        "To first order in $x = b/b_c$ a batch raises the bias $\\tau^{-a} \\propto (1 + x)^{a/2}$ by",
        bias,
        x,
        2,
        1 + A * x / 2,
    )
    taken = (b / bc).subs(bc, (b * t) ** power)
    p.equal(
        "with $b_c \\propto d^{1/2}$ and $d = bt$ that is",
        taken.subs(power, sp.Rational(1, 2)),
        sp.sqrt(b / t),
        shown=r"\tfrac{b}{(bt)^{1/2}}",
    )
    gap, smooth, sigma = sp.symbols("Delta L sigma", positive=True)
    mean_square = 2 * sp.sqrt(2 * gap * smooth * sigma**2 / T)  # Theorem 1 at the best constant rate
    exponent = p.equal(
        "The exponent one half: $b_c = \\sigma^2/G^2$, and the bound on $G^2$ falls as $T^{-1/2}$ at the best"
        " constant rate",
        sp.simplify(T * sp.diff(sp.log(sigma**2 / mean_square), T)),
        sp.Rational(1, 2),
        shown=r"T\,\partial_T\log b_c",
    )
    return sp.sqrt(b / t), exponent


@cache
def result() -> Result:
    """Return the checked result."""
    p = Proof()
    start, (dense, one_pass), (batch, growth) = transient(p), tokens(p), batch_noise(p)
    return Result(
        "finite_runs",
        "Short runs, finite data and large batches",
        "`transient` $1/t$ has the form of the bias of curvatures spread evenly up to $\\Lambda$, $1/(2\\Lambda\\tau)$,"
        " and of the rate of Theorem 1 without noise; `tokens`"
        " $d^{-a_D}$ is an estimation error with $a_D$ from $a_T$ (one pass over a power-law spectrum) to 1 (finite"
        " dimension); `batch_noise` $\\sqrt{b/t}$ is, with $b_c \\propto \\sqrt d$, the first order in $b/b_c$ of the"
        " relative change of the bias.",
        (
            "`transient`: the fast end of the spectrum is flat; the theorem's rate is an upper bound, not the loss."
            " Steps $t$ stand for $2\\Lambda\\tau$: both are the same at one constant felt rate and batch only.",
            "`tokens`: learned and unlearned modes are split sharply; the error adds to the bias instead of being"
            " part of it.",
            "`batch_noise`: $b \\ll b_c$, $G^2$ follows its upper bound, $a$ is fixed. The bias itself, $\\tau^{-a}$,"
            " by which the relative change is multiplied, is left out.",
        ),
        {
            "transient": start,
            "tokens_dense": dense,
            "tokens_one_pass": one_pass,
            "batch_noise": batch,
            "critical_growth": growth,
        },
        tuple(p.steps),
        ("transient", "tokens", "batch_noise"),
        "derivations/finite_runs.py",
        HEURISTIC,
        remark="Only the algebra is checked. That the loss has these terms, additively, is an assumption which data"
        " decide.",
    )
