"""The equations of the states as text, the one place where they are written, with meaning and unit of every symbol.

In the texts ``^`` is a power and a space multiplies. Time is continuous: update number k covers k .. k + 1, at the rate
that the schedule's formula has at k - 1/2 .. k + 1/2.
"""

from __future__ import annotations

from dataclasses import dataclass

from optlaws.dynamics.model import Dynamics
from optlaws.dynamics.solve import FIRST_TOKENS, LARGEST_ESCAPE

MODE = "_k"
"""How the symbols of one of several modes end; a column puts its own number there."""


@dataclass(frozen=True)
class Symbol:
    """A symbol of the formulas.

    Attributes
    ----------
    symbol : how it is written.
    equation : what it equals, or how it moves; empty where it is given.
    meaning : what it is.
    unit : in which it is counted.
    """

    symbol: str
    equation: str
    meaning: str
    unit: str


@dataclass(frozen=True)
class Constant:
    """A constant of the formulas: how it is written, its name in the code, its value and its unit."""

    symbol: str
    name: str
    value: float
    unit: str


_HEAT = "Theta at u = 1, h = 1"
_RATE = "lr_ref, at n = 1"
SYMBOLS = (
    Symbol("'", "", "derivative by the number of updates done; what has one begins at 0, but for R", "1 / step"),
    Symbol("eta", "", "learning rate", "1"),
    Symbol("wd", "", "weight decay", "1 / learning rate"),
    Symbol("n", "n = params / params_ref", "active parameters; 1 where no run states them", "params_ref"),
    Symbol("b", "b = batch_tokens / batch_ref", "tokens per step; 1 where no run states them", "batch_ref"),
    Symbol("t", "t = steps / steps_ref", "updates done so far", "steps_ref"),
    Symbol("d", "d = b t", "tokens so far", "batch_ref * steps_ref"),
    Symbol("x", "x = n^cN eta / lr_ref", "scaled learning rate", _RATE),
    Symbol("x_max", "x_max = max x", "highest scaled rate so far", _RATE),
    Symbol("R", "(R^2)' = kappa x^2 - 2 wd eta R^2", "weight norm, 1 at the start", "norm at the start"),
    Symbol("u", "u = x / R", "felt rate", f"{_RATE}, R = 1"),
    Symbol("u_max", "u_max = max u", "highest felt rate so far", f"{_RATE}, R = 1"),
    Symbol(
        "bc",
        f"bc = Bc max(d, {FIRST_TOKENS:g})^gD",
        "critical batch, above which noise no longer limits the drift; without end where no run states its batch",
        "batch_ref",
    ),
    Symbol("g", "g = sqrt(b / (1 + b / bc))", "pace of intrinsic time; 1 with plain SGD", "1"),
    Symbol("tau", "tau' = u g", "intrinsic time", "steps at u = 1, g = 1"),
    Symbol("h", "h = 1 / sqrt(b (1 + b / bc))", "what the batch leaves of the noise; 1 / b with plain SGD", "1"),
    Symbol("Theta", "Theta = u^q h", "temperature: noise of the gradient; q = 1 with plain SGD", _HEAT),
    Symbol(
        f"v{MODE}",
        f"v{MODE}' = 2 l{MODE} tau' (u / u_max)^(s - 1) (Theta - v{MODE})",
        f"variance at the curvature l{MODE}",
        _HEAT,
    ),
    Symbol("C", "C' = 2 rho tau' C + Theta tau'", f"escape covariance, {LARGEST_ESCAPE:g} at most", _HEAT),
    Symbol("Q(a, z)", "", "upper incomplete gamma function of order a at z, divided by Gamma(a)", "1"),
)

_NAMES = (
    ("kappa", "kappa", "1 / step"),
    ("q", "temperature_exponent", "1"),
    ("cN", "size_exponent", "1"),
    ("s", "relaxation", "1"),
    ("Bc", "critical_batch", "batch_ref"),
    ("gD", "critical_growth", "1"),
    ("rho", "escape_rate", "1 / intrinsic time"),
    ("lr_ref", "lr_ref", "learning rate"),
    ("params_ref", "params_ref", "parameters"),
    ("batch_ref", "batch_ref", "tokens per step"),
    ("steps_ref", "steps_ref", "steps"),
)


def equation(symbol: str, mode: int | None = None) -> str:
    """Return the equation of a symbol of `SYMBOLS`, of one mode (0, 1, ...) where it has several.

    >>> equation("u"), equation("v_k", 3)
    ('u = x / R', "v_3' = 2 l_3 tau' (u / u_max)^(s - 1) (Theta - v_3)")
    """
    text = next(entry.equation for entry in SYMBOLS if entry.symbol == symbol)
    return text if mode is None else text.replace(MODE, f"_{mode}")


def constants(dynamics: Dynamics) -> tuple[Constant, ...]:
    """Return the constants of the equations by symbol, the curvatures one by one."""
    known = dynamics.to_dict()
    curvatures = (
        Constant(f"l_{k}", f"curvatures[{k}]", float(value), "1 / intrinsic time")
        for k, value in enumerate(dynamics.curvatures)
    )
    return (*(Constant(symbol, name, known[name], unit) for symbol, name, unit in _NAMES), *curvatures)
