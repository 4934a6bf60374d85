"""Every column as a sympy expression of the states, taken from the derivations and evaluated in mpmath."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache

import mpmath as mp
import sympy as sp

from optlaws.features import Column, basis_ids, get_basis
from optlaws.features.columns import TAU_UNIT
from theory.derivations import anti_concentration, finite_runs, peak_damage, sharpness, spectrum_average
from theory.symbols import b, d, n, t, tau

STATE = {"n": n, "b": b, "t": t, "d": d, "tau": tau}
STATE |= {name: sp.Symbol(name, positive=True) for name in ("peak", "radius", "escape")}
"""Symbols of the states; `tau` stands for thousands of intrinsic time, variances are `v_0`, `v_1`, .."""


def mode(index: int) -> sp.Symbol:
    """Return the symbol of the variance at the curvature of that index."""
    return sp.Symbol(f"v_{index}", positive=True)


def exponent(name: str) -> sp.Symbol:
    """Return the symbol of a constant of the basis."""
    return sp.Symbol(name, positive=True)


def _bias() -> sp.Expr:
    shape = spectrum_average.column()
    given = {"a": "aT", "l_c": "lc", "r": "r"}
    return shape.subs({s: exponent(given[s.name]) for s in shape.free_symbols if s.name in given})


def _escape() -> sp.Expr:
    radius, trace, escape = anti_concentration.R, anti_concentration.TRACE, STATE["escape"]
    bound = anti_concentration.bound()[0] / sp.sqrt(sp.E)  # the bound's shape, its constant set to 1
    return 1 - bound.subs(trace, escape * radius**2)


def _peak_time(text: str) -> sp.Expr:
    shape = peak_damage.peak_time().subs({peak_damage.X: STATE["peak"], peak_damage.T0: exponent("t0")})
    return shape * n ** -exponent("pn") if "n^-pn" in text else shape


_FORMULAS: dict[str, Callable[[], sp.Expr]] = {
    "constant": lambda: sp.Integer(1),
    "size": lambda: n ** -exponent("aN"),
    "bias": _bias,
    "transient": finite_runs.transient,
    "inverse_norm": lambda: 1 / sharpness.R.subs(sharpness.R, STATE["radius"]),
    "escape_probability": _escape,
    "peak_fourth": lambda: peak_damage.damage()[1].subs(peak_damage.X, STATE["peak"]) / sp.sqrt(t),
    "peak_tokens": lambda: STATE["peak"] ** 2 / d,
    "batch_noise": lambda: finite_runs.batch_noise()[0],
    "tokens": lambda: d ** -exponent("aD"),
}


def registered() -> dict[str, Column]:
    """Return the columns of all registered bases by name."""
    return {column.name: column for name in basis_ids() for column in get_basis(name).columns}


@cache
def formula(name: str, text: str) -> sp.Expr:
    """Return a column's expression in the symbols of the states and of the basis' constants.

    Parameters
    ----------
    name : str
        Name of the column.
    text : str
        Its formula as the code states it, from which the curvature of ``variance_size`` is read, and whether
        ``peak_time`` falls with the size.

    Raises
    ------
    KeyError
        No closed form for this column: add one to this module and a derivation that feeds it.
    """
    found = re.fullmatch(r"variance_(\d+)", name)
    if found:
        return mode(int(found[1])) * tau ** -exponent("gv")
    if name == "variance_size":
        index = re.search(r"v_(\d+)", text)
        if index is None:
            raise KeyError(f"formula of {name} must name its curvature as v_0, v_1, .., got {text!r}")
        return mode(int(index[1])) * tau ** -exponent("gv") * n ** exponent("nv")
    if name == "peak_time":
        return _peak_time(text)
    if name not in _FORMULAS:
        raise KeyError(f"no closed form for the column {name!r}; add it to theory/oracle/columns.py")
    return _FORMULAS[name]()


@cache
def _compiled(name: str, text: str) -> tuple[tuple[str, ...], Callable[..., mp.mpf]]:
    expr = formula(name, text)
    symbols = sorted(expr.free_symbols, key=lambda s: str(s.name))
    return tuple(s.name for s in symbols), sp.lambdify(symbols, expr, "mpmath")


def value(column: Column, states: Mapping[str, mp.mpf], exponents: Mapping[str, float]) -> mp.mpf:
    """Return a column at one point.

    Parameters
    ----------
    column : Column
        A column of a registered basis.
    states : mapping
        ``n, b, t, d, peak, tau`` (intrinsic time, not in thousands), ``radius, escape, v_0, v_1, ..``.
    exponents : mapping
        Constants of the basis.
    """
    known = {**{k: mp.mpf(v) for k, v in exponents.items()}, **states, "tau": mp.mpf(states["tau"]) / int(TAU_UNIT)}
    names, function = _compiled(column.name, column.formula)
    by_symbol = {symbol.name: key for key, symbol in STATE.items()}
    return mp.mpf(function(*(known[by_symbol.get(name, name)] for name in names)))
