"""Divergence risk: quantities of a run, the criterion made of them, labels, fits, and the nearest safe change."""

from optlaws._accepted import ACCEPTED
from optlaws.risk.changes import DRIVERS, LEVERS, RiskMap, SafeChange, drivers, risk_map, safe_changes
from optlaws.risk.criterion import PARAMETERS, Prior
from optlaws.risk.fitting import RiskFit, fit_risk, usable
from optlaws.risk.labels import CurveOutcome, curve_outcome, curve_outcomes, run_labels, with_outcomes
from optlaws.risk.model import RiskModel, RiskPrediction
from optlaws.risk.quantities import Quantities, quantities

__all__ = [
    "ACCEPTED",
    "DRIVERS",
    "LEVERS",
    "PARAMETERS",
    "CurveOutcome",
    "Prior",
    "Quantities",
    "RiskFit",
    "RiskMap",
    "RiskModel",
    "RiskPrediction",
    "SafeChange",
    "curve_outcome",
    "curve_outcomes",
    "drivers",
    "fit_risk",
    "quantities",
    "risk_map",
    "run_labels",
    "safe_changes",
    "usable",
    "with_outcomes",
]
