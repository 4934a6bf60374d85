"""Limits of the law in which Kaplan's and Chinchilla's come back."""

from __future__ import annotations

from functools import cache

import sympy as sp

from theory.result import Proof, Result
from theory.symbols import B

LIMIT, N, D, A_N, A_D = sp.symbols("E N D alpha beta", positive=True)
C_N, C_D, COMPUTE = sp.symbols("A_N A_D C", positive=True)
A, RATE, KAPPA = sp.symbols("a x kappa", positive=True)


def data_exponents(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return the exponents of tokens in tau^-a at fixed batch and rate: -a at fixed norm, -a / 2 while it grows."""
    p = proof or Proof()
    fixed = RATE * D / B  # tau = x T, T = D / B
    grown = 2 * (sp.sqrt(1 + KAPPA * RATE**2 * D / B) - 1) / (KAPPA * RATE)
    first = p.equal(
        "Fixed norm and batch: exponent of the tokens in $\\tau^{-a}$",
        sp.simplify(D * sp.diff(sp.log(fixed**-A), D)),
        -A,
        shown=r"D\,\partial_D\log\tau^{-a}",
    )
    second = p.limit(
        "Norm growing without weight decay: the exponent tends to",
        sp.simplify(D * sp.diff(sp.log(grown**-A), D)),
        D,
        sp.oo,
        -A / 2,
    )
    return first, second


def kaplan(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return the limits of E = 0 laws: (A_N N^-alpha) for unlimited data, (A_D D^-beta) for an unlimited model."""
    p = proof or Proof()
    law = C_N * N**-A_N + C_D * D**-A_D
    size = p.limit("Unlimited data", law, D, sp.oo, C_N * N**-A_N)
    data = p.limit("An unlimited model", law, N, sp.oo, C_D * D**-A_D)
    return size, data


def chinchilla(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return (N_opt, exponent of compute in it) of E + A_N N^-alpha + A_D D^-beta under C = 6 N D."""
    p = proof or Proof()
    loss = LIMIT + C_N * N**-A_N + C_D * (COMPUTE / (6 * N)) ** -A_D
    best = ((A_N * C_N) / (A_D * C_D) * (COMPUTE / 6) ** A_D) ** (1 / (A_N + A_D))
    slope = N * sp.diff(loss, N)
    p.equal(
        "Constant rate, batch and norm, columns `constant`, `size` and `bias` or `tokens`: the law is $E +"
        " A_NN^{-\\alpha} +"
        " A_DD^{-\\beta}$; at $C = 6ND$ its slope in $\\log N$",
        slope,
        -A_N * C_N * N**-A_N + A_D * C_D * (COMPUTE / (6 * N)) ** -A_D,
        shown=r"N\,\partial_N L",
    )
    balance = sp.log(A_N * C_N) - A_N * sp.log(N) - sp.log(A_D * C_D) + A_D * sp.log(COMPUTE / (6 * N))
    p.equal(
        "vanishes where the two terms' logarithms agree",
        sp.expand_log(balance.subs(N, best), force=True),
        sp.Integer(0),
        shown=r"\log\frac{\alpha A_NN^{-\alpha}}{\beta A_D(C/6N)^{-\beta}}",
    )
    power = p.equal(
        "so the best size grows with compute as the power",
        sp.simplify(COMPUTE * sp.diff(sp.log(best), COMPUTE)),
        A_D / (A_N + A_D),
        shown=r"C\,\partial_C\log N_{opt}",
    )
    return best, power


@cache
def result() -> Result:
    """Return the checked result."""
    p = Proof()
    fixed, grown = data_exponents(p)
    size, data = kaplan(p)
    best, power = chinchilla(p)
    return Result(
        "classical_limits",
        "Kaplan's and Chinchilla's laws as limits",
        "At constant rate, batch and norm $\\tau \\propto D$, and the columns `constant`, `size` and `bias` (or"
        " `tokens`) are"
        " $E + A_NN^{-\\alpha} + A_DD^{-\\beta}$ with $\\alpha = a_N$ and $\\beta = a_T$ (or $a_D$): Chinchilla's"
        " form, with"
        " $N_{opt} \\propto C^{\\beta/(\\alpha+\\beta)}$. $E = 0$ and one resource without limit give Kaplan's two"
        " laws. Without"
        " weight decay the norm grows and $\\beta$ tends to $a_T/2$.",
        (
            "The cut-off argument $l_cn^{-r}\\tau$ is small (the model has modes left); variance and escape columns"
            " are at"
            " fixed levels and part of $E$.",
            "Compute is $C = 6ND$.",
        ),
        {
            "fixed_norm": fixed,
            "growing_norm": grown,
            "kaplan_size": size,
            "kaplan_data": data,
            "best_size": best,
            "power": power,
        },
        tuple(p.steps),
        ("constant", "size", "bias", "tokens"),
        "derivations/classical_limits.py",
        sources=(
            "Kaplan et al.: Scaling laws for neural language models (arXiv 2001.08361)",
            "Hoffmann et al.: Training compute-optimal large language models (arXiv 2203.15556)",
        ),
    )
