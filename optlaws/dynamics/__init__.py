"""Stochastic dynamics of a training run under a learning-rate schedule."""

from optlaws.dynamics.model import Dynamics
from optlaws.dynamics.solve import (
    Drive,
    States,
    curve_grid,
    curve_states,
    drive,
    end_states,
    final_grid,
    final_states,
    integrate,
    join_states,
    weight_norm,
)
from optlaws.dynamics.symbols import SYMBOLS, Constant, Symbol, constants, equation

__all__ = [
    "SYMBOLS",
    "Constant",
    "Drive",
    "Dynamics",
    "States",
    "Symbol",
    "constants",
    "curve_grid",
    "curve_states",
    "drive",
    "end_states",
    "equation",
    "final_grid",
    "final_states",
    "integrate",
    "join_states",
    "weight_norm",
]
