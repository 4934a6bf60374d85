"""How far a law of one corpus is off on another: a second field beside the law's own.

A built-in law has seen one corpus, one tokenizer, one kind of network. On runs of another its level is off, and so is
the shape of its prediction: the best peak rate lies elsewhere, the batch counts for more or less. Nothing in the runs
asked about shows that, so it cannot be tested for; it can be counted. After Kennedy and O'Hagan (Bayesian calibration
of computer models, 2001), the other corpus' ln loss is the law's plus a level and two fields of mean 0,

    ln L' = ln L + l + g(z) + h(z'),    l ~ Normal(0, level^2),    cov g = shape^2 k,    cov h = setting^2 k,

k the kernel of the law's own field (Matern 3/2), z its coordinates and z' those of them that say size, data, peak rate
and batch. Candidates that differ little keep sure differences, ones of another schedule less sure ones, and ones far
apart in rate or batch hardly any.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Real

import numpy as np

from optlaws.dynamics.model import FloatArray
from optlaws.errors import InputError
from optlaws.regression.kernel import matern32

SETTING = 4  # the first coordinates: size, data, peak rate, batch (`Basis.coordinates`)


@dataclass(frozen=True)
class Discrepancy:
    """What is added to the uncertainty of a law, in ln loss (dimensionless).

    Attributes
    ----------
    level : float
        Standard deviation that all runs share, at least 0.
    shape : float
        Standard deviation of the field over all coordinates of the law's field, at least 0.
    setting : float
        Standard deviation of the field over size, data, peak rate and batch alone, at least 0.

    Raises
    ------
    InputError
        One of them is no finite number from 0.
    """

    level: float
    shape: float
    setting: float

    def __post_init__(self) -> None:
        """Refuse what is no standard deviation."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, Real) or not 0 <= float(value) < float("inf"):
                raise InputError(f"{field.name} must be a finite number from 0, got {value!r:.40}; 0 leaves it out")

    @property
    def variance(self) -> float:
        """Variance of ln loss at any point."""
        return self.level**2 + self.shape**2 + self.setting**2

    def covariance(self, a: FloatArray, b: FloatArray) -> FloatArray:
        """Return the covariance of ln loss between points of coordinates a (n, k) and b (m, k), shape (n, m)."""
        fields = self.shape**2 * matern32(a, b) + self.setting**2 * matern32(a[:, :SETTING], b[:, :SETTING])
        return np.asarray(self.level**2 + fields)


OTHER_CORPUS = Discrepancy(level=0.14, shape=0.025, setting=0.05)
"""From the built-in laws' predictions of sources that they were not fitted to: `benchmarks/transfer.py`."""
