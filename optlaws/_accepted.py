"""The divergence risk that is accepted: its default, its range, and what to do for a law that knows no risk."""

from __future__ import annotations

from numbers import Real
from typing import Any

from optlaws.errors import InputError

ACCEPTED = 0.05
"""Probability of divergence that is accepted where nobody says otherwise."""


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
