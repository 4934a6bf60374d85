"""Damage by the highest rate, its repair and its scatter: peak_time, peak_fourth, peak_tokens. Scaling arguments."""

from __future__ import annotations

from functools import cache

import sympy as sp

from theory.result import HEURISTIC, Proof, Result
from theory.symbols import n, t

X, T0 = sp.symbols("x t_0", positive=True)  # highest scaled rate, mixing time
CN = sp.Symbol("c_N", positive=True)


def damage(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return the first two orders of the escape probability 1 - (1 + C)^(-1/2) in the peak's covariance C ~ x^2."""
    p = proof or Proof()
    small = sp.Symbol("epsilon", positive=True)
    p.series(
        "Escape at the peak, with covariance $C = \\epsilon x^2$ from noise of size $x$ a step, to second order",
        1 - (1 + small * X**2) ** sp.Rational(-1, 2),
        small,
        3,
        small * X**2 / 2 - 3 * small**2 * X**4 / 8,
    )
    return X**2, X**4


def spreading(proof: Proof | None = None) -> sp.Expr:
    """Return the density at the origin of a free walk, (2 pi D t)^(-1/2): repair as t^-1/2."""
    p = proof or Proof()
    x, rate = sp.Symbol("y", real=True), sp.Symbol("D", positive=True)
    density = sp.exp(-(x**2) / (2 * rate * t)) / sp.sqrt(2 * sp.pi * rate * t)
    p.equal(
        "A free walk spreads by the heat equation",
        sp.diff(density, t),
        rate / 2 * sp.diff(density, x, 2),
        shown=r"\partial_t p",
    )
    return p.equal(
        "so what stays where it was thrown falls as $t^{-1/2}$",
        density.subs(x, 0),
        1 / sp.sqrt(2 * sp.pi * rate * t),
        shown=r"p(0, t)",
    )


def mixing(proof: Proof | None = None) -> sp.Expr:
    """Return the average of exp(-k t) over relaxation rates spread evenly: repair as 1 / t."""
    p = proof or Proof()
    k, top = sp.symbols("k K", positive=True)
    mean = sp.Integral(sp.exp(-k * t), (k, 0, top)) / top
    value = p.equal(
        "A walk that has mixed forgets at relaxation rates spread evenly up to $K$",
        mean,
        (1 - sp.exp(-top * t)) / (top * t),
    )
    p.limit("which is one over time", value * t, t, sp.oo, 1 / top)
    return 1 / t


def peak_time(proof: Proof | None = None) -> sp.Expr:
    """Return x^2 / (sqrt(t) (sqrt(t) + sqrt(t0))) with its limits: t^-1/2 before t0 and 1 / t after."""
    p = proof or Proof()
    column = X**2 / (sp.sqrt(t) * (sp.sqrt(t) + sp.sqrt(T0)))
    p.limit("The column before the mixing time", column * sp.sqrt(t), t, sp.Integer(0), X**2 / sp.sqrt(T0))
    p.limit("and after it", column * t, t, sp.oo, X**2)
    return column


def size_of_fourth(proof: Proof | None = None) -> sp.Expr:
    """Return the exponent of the size in x^4 / sqrt(t), x = (eta / eta_ref) n^cN: 4 cN."""
    p = proof or Proof()
    rate = sp.Symbol("eta", positive=True)
    column = (rate * n**CN) ** 4 / sp.sqrt(t)
    return p.equal(
        "Second order at fixed learning rate grows with the size as the power",
        sp.simplify(n * sp.diff(sp.log(column), n)),
        4 * CN,
        shown=r"n\,\partial_n\log\tfrac{x^4}{\sqrt t}",
    )


def scatter(proof: Proof | None = None) -> sp.Expr:
    """Return variance over mean of the sum of a Poisson number of independent shares: E J^2 / E J.

    Shown for shares j1, j2 of chances p1, 1 - p1: the generating function is linear in the law of J, so that two
    values stand for any law.
    """
    p = proof or Proof()
    theta, events = sp.Symbol("theta", real=True), sp.Symbol("Lambda", positive=True)
    first, second, chance = sp.symbols("j_1 j_2 p_1", positive=True)
    shares = chance * sp.exp(theta * first) + (1 - chance) * sp.exp(theta * second)
    cumulants = events * (shares - 1)
    mean = p.equal(
        "Loss spikes, in number Poisson with mean $\\Lambda$, leave shares $j_1$ and $j_2$ with chances $p_1$ and"
        " $1-p_1$: the mean of their sum, from $\\Lambda(\\mathrm{E}\\,e^{\\theta J}-1)$",
        sp.diff(cumulants, theta).subs(theta, 0),
        events * (chance * first + (1 - chance) * second),
        shown=r"\kappa_1 = \Lambda\,\mathrm{E}J",
    )
    variance = p.equal(
        "and its variance",
        sp.diff(cumulants, theta, 2).subs(theta, 0),
        events * (chance * first**2 + (1 - chance) * second**2),
        shown=r"\kappa_2 = \Lambda\,\mathrm{E}J^2",
    )
    return p.equal(
        "so that the variance of the damage is proportional to the damage",
        variance / mean,
        (chance * first**2 + (1 - chance) * second**2) / (chance * first + (1 - chance) * second),
        shown=r"\kappa_2 / \kappa_1 = \mathrm{E}J^2 / \mathrm{E}J",
    )


@cache
def result() -> Result:
    """Return the checked result."""
    p = Proof()
    first, second = damage(p)
    free, mixed = spreading(p), mixing(p)
    column, power = peak_time(p), size_of_fourth(p)
    spike = scatter(p)
    return Result(
        "peak_damage",
        "Damage by the highest rate, and its repair",
        "`peak_time` $x_{max}^2/(\\sqrt t(\\sqrt t + \\sqrt{t_0}))$: escape at the peak to first order in its"
        " covariance,"
        " undone as $t^{-1/2}$ while the walk spreads and as $1/t$ once it has mixed. `peak_fourth`"
        " $x_{max}^4/\\sqrt t$: the"
        " power of its second order. `peak_tokens` $x_{max}^2/d$: the first order, repair counted in tokens. Damage"
        " by a Poisson number of spikes scatters from run to run with a variance proportional to it.",
        (
            "A peak of scaled rate $x$ adds a covariance proportional to $x^2$, whatever its length.",
            "The damage is proportional to the probability of having escaped and not yet returned.",
            "A further factor $n^{-p_n}$ of `peak_time` in the code is fitted and has no argument here.",
            "The interpolation between $t^{-1/2}$ and $1/t$, and $t_0$, are choices.",
            "The second-order term of $1 - (1 + C)^{-1/2}$ is negative; the column's coefficient is kept non-negative"
            " because what it stands for (instability near the largest stable rate) adds loss. This sign is not"
            " derived.",
            "Why the second order should be repaired as $t^{-1/2}$ alone, and the first as $1/d$ beside `peak_time`,"
            " has no argument here.",
            "That spikes are independent, rare, and leave shares of one law whatever the rate and the run's length, is"
            " assumed; `optlaws.regression.run_noise` counts the sum of all peak columns as their damage.",
        ),
        {
            "first": first,
            "second": second,
            "free": free,
            "mixed": mixed,
            "peak_time": column,
            "size_power": power,
            "spike": spike,
        },
        tuple(p.steps),
        ("peak", "peak_time", "peak_fourth", "peak_tokens"),
        "derivations/peak_damage.py",
        HEURISTIC,
        remark="No theorem here: the two limits of the repair are checked, their use as a loss term is not derived.",
    )
