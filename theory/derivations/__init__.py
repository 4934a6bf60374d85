"""Derivations, one module a result; `result()` of each checks every step and returns a `theory.result.Result`."""

from theory import stability
from theory.derivations import (
    adam_sde,
    anti_concentration,
    cell_solutions,
    classical_limits,
    finite_runs,
    fokker_planck,
    loss_drop,
    peak_damage,
    quadratic_modes,
    sgd_convergence,
    sgd_sde,
    sharpness,
    spectrum_average,
    weight_norm,
)

DERIVATIONS = tuple(
    module.result
    for module in (
        sgd_sde,
        sgd_convergence,
        quadratic_modes,
        spectrum_average,
        adam_sde,
        weight_norm,
        fokker_planck,
        anti_concentration,
        loss_drop,
        classical_limits,
        cell_solutions,
        finite_runs,
        peak_damage,
        sharpness,
        stability,
    )
)
"""Functions that return the checked results, in reading order."""
