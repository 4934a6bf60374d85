"""Regression from columns to loss: trend and field, its kernel, and scikit-learn estimators (loaded when used)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "PlainLinear": "optlaws.regression.estimators",
    "SignedLinear": "optlaws.regression.estimators",
    "TrendFieldRegressor": "optlaws.regression.estimators",
    "Posterior": "optlaws.regression.trend_field",
    "Problem": "optlaws.regression.trend_field",
    "Settings": "optlaws.regression.trend_field",
    "fit_trend_field": "optlaws.regression.trend_field",
    "predict_trend_field": "optlaws.regression.trend_field",
}

__all__ = [
    "PlainLinear",
    "Posterior",
    "Problem",
    "Settings",
    "SignedLinear",
    "TrendFieldRegressor",
    "fit_trend_field",
    "predict_trend_field",
]

if TYPE_CHECKING:
    from optlaws.regression.estimators import PlainLinear, SignedLinear, TrendFieldRegressor
    from optlaws.regression.trend_field import Posterior, Problem, Settings, fit_trend_field, predict_trend_field


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: scikit-learn takes a second to load, and `rank` needs none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'optlaws.regression' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
