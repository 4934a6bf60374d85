"""Predict the final loss of a language-model training run for any learning-rate schedule, before paying for it.

The names below are the public surface; each is imported when it is first used, so that `import optlaws` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from optlaws._version import __version__

_HOMES = {
    "CurveTable": "optlaws.runs",
    "Law": "optlaws.law",
    "Monitor": "optlaws.monitor",
    "Prediction": "optlaws.law.model",
    "Ranking": "optlaws.ranking",
    "RunTable": "optlaws.runs",
    "Schedule": "optlaws.schedules",
    "ScheduleBatch": "optlaws.schedules",
    "basis_ids": "optlaws.features",
    "compare_laws": "optlaws.compare",
    "design_runs": "optlaws.design",
    "errors": "optlaws.errors",
    "feature_table": "optlaws.features",
    "fit_law": "optlaws.law",
    "get_basis": "optlaws.features",
    "load_any_law": "optlaws.law",
    "load_law": "optlaws.law",
    "load_sweep": "optlaws.sweeps",
    "optimize_schedule": "optlaws.optimize",
    "parse": "optlaws.schedules",
    "rank": "optlaws.ranking",
    "read_candidates": "optlaws.runs",
    "read_curves": "optlaws.runs",
    "read_runs": "optlaws.runs",
    "recommend_settings": "optlaws.recommend",
    "register_basis": "optlaws.features",
    "standard_pool": "optlaws.design",
    "sweep_names": "optlaws.sweeps",
    "with_risk": "optlaws.law",
    "write_runs": "optlaws.runs",
}

__all__ = [
    "CurveTable",
    "Law",
    "Monitor",
    "Prediction",
    "Ranking",
    "RunTable",
    "Schedule",
    "ScheduleBatch",
    "__version__",
    "basis_ids",
    "compare_laws",
    "design_runs",
    "errors",
    "feature_table",
    "fit_law",
    "get_basis",
    "load_any_law",
    "load_law",
    "load_sweep",
    "optimize_schedule",
    "parse",
    "rank",
    "read_candidates",
    "read_curves",
    "read_runs",
    "recommend_settings",
    "register_basis",
    "standard_pool",
    "sweep_names",
    "with_risk",
    "write_runs",
]

if TYPE_CHECKING:
    from optlaws import errors
    from optlaws.compare import compare_laws
    from optlaws.design import design_runs, standard_pool
    from optlaws.features import basis_ids, feature_table, get_basis, register_basis
    from optlaws.law import Law, fit_law, load_any_law, load_law, with_risk
    from optlaws.law.model import Prediction
    from optlaws.monitor import Monitor
    from optlaws.optimize import optimize_schedule
    from optlaws.ranking import Ranking, rank
    from optlaws.recommend import recommend_settings
    from optlaws.runs import CurveTable, RunTable, read_candidates, read_curves, read_runs, write_runs
    from optlaws.schedules import Schedule, ScheduleBatch, parse
    from optlaws.sweeps import load_sweep, sweep_names


if not TYPE_CHECKING:  # a type checker that sees it takes any misspelled name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'optlaws' has no attribute {name!r}")
        module = import_module(_HOMES[name])
        value = module if name == "errors" else getattr(module, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
