"""Results and their proofs: every step is a sympy identity that is checked when the result is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import sympy as sp

PROVED = "proved"
HEURISTIC = "scaling argument"
STANDINGS = (PROVED, HEURISTIC)
"""`PROVED`: follows from the stated assumptions, algebra and calculus checked, textbook theorems named. `HEURISTIC`: a
scaling argument whose algebra is checked, but whose claim about training is not derived."""


class ProofError(Exception):
    """A step of a derivation does not hold."""


@dataclass(frozen=True)
class Step:
    """One checked step: `left` `relation` `right`.

    Attributes
    ----------
    text : str
        What is done, with mathematics between dollar signs.
    left, right : sympy expressions
        The two sides as they are shown.
    relation : str
        ``"="`` or ``">="``.
    shown : str
        LaTeX shown in place of `left`, for sides that sympy writes out.
    """

    text: str
    left: sp.Basic
    right: sp.Basic
    relation: str = "="
    shown: str = ""


@dataclass(frozen=True)
class Result:
    """A statement, what it assumes, and the steps that were checked.

    Attributes
    ----------
    name : str
        Unique; the module's name for derivations, ``theorem_1`` .. for theorems.
    title : str
        One line.
    statement : str
        Text with LaTeX between dollar signs ($ inline, $$ displayed).
    assumptions : tuple of str
        Text with LaTeX, one each.
    expressions : mapping
        What is proved, by name, as sympy expressions.
    steps : tuple of Step
        In the order of the proof.
    feeds : tuple of str
        Columns and states of `optlaws` that rest on it.
    module : str
        File that derives it, relative to ``theory/``.
    standing : str
        One of `STANDINGS`.
    remark : str
        What the result does not say.
    sources : tuple of str
        Papers in which the idea is found; the proof is our own.
    """

    name: str
    title: str
    statement: str
    assumptions: tuple[str, ...]
    expressions: Mapping[str, sp.Basic]
    steps: tuple[Step, ...]
    feeds: tuple[str, ...]
    module: str
    standing: str = PROVED
    remark: str = ""
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a result without steps, without assumptions or of unknown standing."""
        if self.standing not in STANDINGS:
            raise ProofError(f"standing of {self.name} must be one of {', '.join(STANDINGS)}, got {self.standing!r}")
        if not (self.steps and self.assumptions and self.expressions):
            raise ProofError(f"{self.name} must have steps, assumptions and expressions; add what is missing")


def _pulled(expr: sp.Expr) -> sp.Expr:
    """Return an expression with integrals split into terms, and what is constant in them in front."""

    def pull(integrand: sp.Expr, *limits: sp.Tuple) -> sp.Expr:
        parts = []
        for term in sp.Add.make_args(sp.expand(integrand, power_exp=True)):
            outside, inside = sp.powsimp(term).as_independent(limits[0][0], as_Add=False)
            outer, inner = sp.expand(outside, power_exp=True), sp.expand(inside, power_exp=True)
            front, inner = inner.as_independent(limits[0][0], as_Add=False)
            parts.append(outer * front * sp.Integral(inner, *limits))
        return sp.Add(*parts)

    return sp.expand(expr.replace(sp.Integral, pull))


def _simplified(difference: sp.Expr) -> sp.Expr:
    """Return an expression after the simplifications tried, 0 as soon as one of them gives 0."""
    tries = (
        sp.expand,
        _pulled,  # before integrals are solved, which may take long
        lambda e: sp.expand(e.doit()),
        lambda e: sp.powsimp(sp.expand(e.doit())),
        lambda e: sp.simplify(e.doit()),
        lambda e: sp.simplify(sp.expand(e.doit().rewrite(sp.exp))),
        lambda e: sp.simplify(sp.gammasimp(sp.expand_func(e.doit()))),
    )
    out = difference
    for attempt in tries:
        out = attempt(difference)
        if out == 0:
            return out
    return out


def vanishes(difference: sp.Basic) -> bool:
    """Return whether sympy simplifies an expression, or every entry of a matrix, to zero.

    >>> x = sp.Symbol("x")
    >>> vanishes((x + 1) ** 2 - x**2 - 2 * x - 1), vanishes(x - 1)
    (True, False)
    """
    if isinstance(difference, sp.MatrixBase):
        return all(_simplified(entry) == 0 for entry in difference)
    return bool(_simplified(difference) == 0)


@dataclass
class Proof:
    """Steps collected one by one; each method checks its step and raises `ProofError` where it does not hold.

    >>> x = sp.Symbol("x", positive=True)
    >>> p = Proof()
    >>> p.equal("square", (x + 1) ** 2, x**2 + 2 * x + 1)
    x**2 + 2*x + 1
    >>> p.equal("wrong", x, x + 1)
    Traceback (most recent call last):
        ...
    theory.result.ProofError: step fails: wrong; the sides differ by -1
    """

    steps: list[Step] = field(default_factory=list)

    def equal(self, text: str, left: sp.Expr, right: sp.Expr, *, shown: str = "") -> sp.Expr:
        """Check that two sides are equal; return the right one. `shown`: LaTeX for the left one."""
        difference = left - right
        if not vanishes(difference):
            shown = difference if isinstance(difference, sp.MatrixBase) else _simplified(difference)
            raise ProofError(f"step fails: {text}; the sides differ by {shown}")
        self.steps.append(Step(text, left, right, shown=shown))
        return right

    def at_least(self, text: str, left: sp.Expr, right: sp.Expr, gap: sp.Expr) -> sp.Expr:
        """Check left >= right by a certificate: left - right equals `gap`, which is plainly not negative."""
        if not vanishes(left - right - gap):
            raise ProofError(f"step fails: {text}; the certificate differs by {_simplified(left - right - gap)}")
        if gap.is_nonnegative is not True:
            raise ProofError(f"step fails: {text}; the certificate {gap} is not known to be at least 0")
        self.steps.append(Step(f"{text} (the difference is ${sp.latex(gap)} \\ge 0$)", left, right, ">="))
        return right

    def series(self, text: str, left: sp.Expr, variable: sp.Symbol, order: int, right: sp.Expr) -> sp.Expr:
        """Check the expansion of `left` at 0 below the given order; return `right`."""
        found = sp.series(left.doit(), variable, 0, order).removeO()
        if not vanishes(found - right):
            raise ProofError(f"step fails: {text}; the expansions differ by {_simplified(found - right)}")
        shown = sp.Add(right, sp.Order(variable**order), evaluate=False)
        self.steps.append(Step(text, left, shown))
        return right

    def limit(self, text: str, expr: sp.Expr, variable: sp.Symbol, to: sp.Expr, value: sp.Expr) -> sp.Expr:
        """Check a limit (from above where `to` is finite); return its value."""
        found = sp.limit(expr, variable, to, "+")
        if not vanishes(found - value):
            raise ProofError(f"step fails: {text}; the limit is {found}, not {value}")
        self.steps.append(Step(text, sp.Limit(expr, variable, to), value))
        return value
