"""When a value counts as outside the range of the runs that something was fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

SLACK = 1.05
"""A domain reaches this factor beyond the range of training, where nothing else is said."""

ROUNDING = 1e-12


def outside(values: Any, low: Any, high: Any, slack: float = SLACK) -> npt.NDArray[np.intp]:
    """Return the places of values (n,) below low / slack or above high * slack; NaN is nowhere outside."""
    values = np.asarray(values, dtype=np.float64)
    return np.flatnonzero((values < low / slack - ROUNDING) | (values > high * slack + ROUNDING))
