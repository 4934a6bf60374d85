"""Laws: fit, predict, store."""

from optlaws.law.builtin import builtin_names, load_any_law, load_law, with_risk
from optlaws.law.fitting import fit_law
from optlaws.law.model import Law, Prediction

__all__ = ["Law", "Prediction", "builtin_names", "fit_law", "load_any_law", "load_law", "with_risk"]
