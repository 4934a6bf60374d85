"""The divergence risk that is accepted: its default, its range, and what to do for a law that knows no risk."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.errors import InputError

ACCEPTED = 0.05
"""Probability of divergence that is accepted where nobody says otherwise."""

TINY_RISK = 1e-6
"""Divergence risk below which a model's number says no more than "very small"."""


def accepted_risk(value: Any, name: str = "max_risk") -> float:
    """Return an accepted risk as it was given.

    Raises
    ------
    InputError
        It is no number from 0 to 1.
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not 0.0 <= float(value) <= 1.0:
        raise InputError(f"{name} must be a probability from 0 to 1, got {value!r:.40}; {ACCEPTED:g} is a usual choice")
    return float(value)


def no_risk_model(law: Any, name: str = "max_risk") -> InputError:
    """Return the error for an accepted risk that is asked of a law without a risk model."""
    text = f"{name} needs a law with a risk model, and law {law.name!r} has none"
    if not hasattr(law, "risk"):
        return InputError(f"{text}, as no rival law has; take a built-in law or one of fit_law, or leave {name} out")
    return InputError(
        f"{text}; law = optlaws.with_risk(law, runs) attaches one (`optlaws fit` does), from the runs of the fit, the"
        f" diverged ones included, where they have params and batch_tokens; or leave {name} out"
    )


def too_risky(risk: npt.NDArray[np.float64], max_risk: float, names: Sequence[str]) -> str:
    """Return the sentence that says that no candidate is at or below the accepted risk."""
    if np.isnan(risk).all():
        return f"no candidate has a known divergence risk, so none is at or below {max_risk:g}; leave max_risk out"
    least = int(np.nanargmin(risk))
    tiny = float(risk[least]) < TINY_RISK
    lowest = f"below {TINY_RISK:g}" if tiny else f"{risk[least]:.3g}"
    way_out = "accept a risk like 0.01" if tiny else "`optlaws risk` names the smallest safe change"
    return f"every candidate has a divergence risk above {max_risk:g}, the lowest {lowest} ({names[least]}); {way_out}"
