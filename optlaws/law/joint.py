"""Which combinations of size, length, rate and batch a law's runs had: each alone in its range says too little."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws._content import Content
from optlaws._entries import number, numbers
from optlaws.dynamics.model import FloatArray
from optlaws.law.domain import in_domain_text

NAMES = ("params", "steps", "peak_lr", "batch_tokens")
FEWEST = 12  # different combinations: fewer say nothing of their shape
TOLERANCE = 0.15  # of ln: a quantity that never varied on its own may differ by so much, times the square root of limit
SLACK = 1.2  # on the largest squared distance of the training runs


@dataclass(frozen=True, eq=False)
class Joint(Content):
    """An ellipsoid that holds all training runs, in logarithms of quantities (Cook's test of hidden extrapolation).

    Runs of larger models that are longer, say, leave a range of sizes and one of lengths, and a small model trained for
    long lies in both. In made-up worlds with such a design 76 to 80 % of the 90 % intervals of such runs covered, and
    the ranges called nearly all of them inside the domain; this test so calls 7 to 15 %, its tolerance the best of
    three in these very worlds. Of random thirds of the public runs, looked at after, it names one.

    Attributes
    ----------
    names : quantities, out of `NAMES`.
    mean : (k,) of their logarithms.
    precision : (k, k) inverse of their covariance, `TOLERANCE`^2 added to the variances.
    limit : squared distance from the mean above which a run is unlike those seen.
    """

    names: tuple[str, ...]
    mean: FloatArray
    precision: FloatArray
    limit: float

    @classmethod
    def of(cls, values: Mapping[str, FloatArray]) -> Joint | None:
        """Return the ellipsoid of runs with these values, (n,) each; None where they are too few or all alike."""
        names = tuple(name for name in NAMES if name in values and (values[name] > 0).all())
        if not names:
            return None
        logs = np.log(np.stack([values[name] for name in names], axis=1))
        if not np.isfinite(logs).all() or len(np.unique(logs.round(6), axis=0)) < FEWEST:
            return None
        mean = logs.mean(axis=0)
        gap = logs - mean
        precision = np.linalg.inv(gap.T @ gap / len(gap) + TOLERANCE**2 * np.eye(len(names)))
        return cls(names, mean, precision, SLACK * float(((gap @ precision) * gap).sum(axis=1).max()))

    def shares(self, values: Mapping[str, FloatArray]) -> FloatArray:
        """Return what each quantity adds to the squared distance of n runs, (n, k); their sum is the distance."""
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = np.log(np.stack([values[name] for name in self.names], axis=1)) - self.mean
        return np.asarray((gap @ self.precision) * gap)

    def reasons(self, values: Mapping[str, FloatArray], asked: npt.NDArray[np.bool_]) -> dict[int, str]:
        """Return, for those of n runs that are asked about and lie outside, the two quantities that say so."""
        if not set(self.names) <= set(values):
            return {}
        shares = self.shares(values)
        out = {}
        for i in np.flatnonzero((shares.sum(axis=1) > self.limit) & asked).tolist():
            two = [self.names[k] for k in np.sort(np.argsort(-shares[i])[:2])]
            texts = [f"{name} {in_domain_text(name, float(values[name][i]))}" for name in two]
            out[i] = f"{' with '.join(texts)}: no run in training had such a combination"
        return out

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain texts and numbers."""
        return {
            "names": list(self.names), "mean": self.mean.tolist(), "precision": self.precision.tolist(),
            "limit": self.limit,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Joint:
        """Return what `to_dict` wrote.

        Raises
        ------
        KeyError, TypeError, ValueError
            An entry is missing, unknown, or no finite number, or the precision is that of no ellipsoid; a law file so
            damaged is a `LawError`.
        """
        names = data["names"]
        if not isinstance(names, list) or not names or not all(names.count(name) == 1 for name in names):
            raise TypeError(f"joint.names must be a list of different quantities, got {names!r:.60}")
        if not all(name in NAMES for name in names):
            raise ValueError(f"joint.names must be some of {', '.join(NAMES)}, got {names!r:.60}")
        mean = numbers(data["mean"], len(names), name="joint.mean")
        precision = numbers(data["precision"], len(names), len(names), name="joint.precision")
        if not np.allclose(precision, precision.T) or np.linalg.eigvalsh(precision).min() <= 0:
            raise ValueError("joint.precision must be symmetric and positive definite")
        limit = number(data["limit"], "joint.limit", 0.0)
        if limit == 0:
            raise ValueError("joint.limit must be above 0, got 0")
        return cls(tuple(names), mean, precision, limit)
