"""Learning-rate schedules: families built by joining phases, one step convention, exact texts, cells for the solvers.

Step k = 0 .. T-1, `lr(k)` is the rate used by update k, T counts warm-up and decay.
"""

from optlaws.schedules.adapters import as_lambda, as_optax
from optlaws.schedules.batch import Group, ScheduleBatch
from optlaws.schedules.build import (
    chain,
    constant,
    continue_from,
    cosine,
    cyclic,
    exponential,
    from_array,
    inverse_sqrt,
    linear,
    multistep,
    one_cycle,
    piecewise,
    polynomial,
    step,
    two_stage,
    warm_restarts,
    wsd,
)
from optlaws.schedules.cells import Cells, cells, cells_at
from optlaws.schedules.families import FAMILIES, describe
from optlaws.schedules.schedule import Schedule, parse
from optlaws.schedules.shapes import DECAYS, SHAPES, Phase

__all__ = [
    "DECAYS",
    "FAMILIES",
    "SHAPES",
    "Cells",
    "Group",
    "Phase",
    "Schedule",
    "ScheduleBatch",
    "as_lambda",
    "as_optax",
    "cells",
    "cells_at",
    "chain",
    "constant",
    "continue_from",
    "cosine",
    "cyclic",
    "describe",
    "exponential",
    "from_array",
    "inverse_sqrt",
    "linear",
    "multistep",
    "one_cycle",
    "parse",
    "piecewise",
    "polynomial",
    "step",
    "two_stage",
    "warm_restarts",
    "wsd",
]
