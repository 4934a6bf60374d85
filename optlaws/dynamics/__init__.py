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

__all__ = [
    "Drive",
    "Dynamics",
    "States",
    "curve_grid",
    "curve_states",
    "drive",
    "end_states",
    "final_grid",
    "final_states",
    "integrate",
    "join_states",
    "weight_norm",
]
