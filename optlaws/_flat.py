"""How flat a loss is about its lowest value, and where that lies: what `optlaws.recommend` says beside a setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.dynamics.model import FloatArray
from optlaws.ranking import root_of

FLAT = 1e-3
"""Relative loss that a setting may cost to count as near-optimal."""

DRAWS = 4000  # of expected losses
WHOLE = 0.8  # share of what was looked at, in ln, from which a range of the best says nothing
TOO_FAR = 100.0  # factor from the recommendation beyond which advice is no advice


@dataclass(frozen=True, eq=False)
class FlatRange:
    """Settings that are predicted to cost at most `FLAT` more than the one that is recommended.

    Attributes
    ----------
    best, low, high : the recommended value, and the ends of the range about it.
    low_open, high_open : whether the range reaches the end of what was looked at (the law's domain, or a bound).
    least, most : the 5 % and 95 % points of where, among the values, the expected loss is lowest; NaN where the law
        states no error of expected losses, or a single value was looked at.
    values, loss, lower, upper : the scan, (m,): losses in nats per token with their 90 % interval; NaN where nothing
        is allowed.
    """

    best: float
    low: float
    high: float
    low_open: bool
    high_open: bool
    values: FloatArray
    loss: FloatArray
    lower: FloatArray
    upper: FloatArray
    least: float = np.nan
    most: float = np.nan

    @property
    def least_open(self) -> bool:
        """Whether `least` is the lowest value that was allowed, and the best may lie lower."""
        return bool(self.least <= self.values[np.isfinite(self.loss)].min())

    @property
    def most_open(self) -> bool:
        """Whether `most` is the highest value that was allowed, and the best may lie higher."""
        return bool(self.most >= self.values[np.isfinite(self.loss)].max())

    @property
    def unsettled(self) -> bool:
        """Whether the runs leave open where the best lies: `least` .. `most` is open, or nearly all that was allowed.

        >>> x = np.geomspace(1.0, 100.0, 5)
        >>> flat = [FlatRange(9.0, 9.0, 9.0, False, False, x, x, x, x, *ends) for ends in ((3, 30), (2, 90), (3, 100))]
        >>> [one.unsettled for one in flat]
        [False, True, True]
        """
        if not np.isfinite(self.least):
            return False
        allowed = np.log(self.values[np.isfinite(self.loss)])
        wide = np.log(self.most / self.least) >= WHOLE * (allowed.max() - allowed.min())
        return self.least_open or self.most_open or bool(wide)


def where_lowest(prediction: Any, rows: npt.NDArray[np.intp], values: FloatArray) -> tuple[float, float]:
    """Return the 5 % and 95 % points of where the expected loss is lowest, among the values (m,) of some rows.

    By `DRAWS` draws of the expected losses, ln of them normal with the law's joint covariance, run noise left out.
    """
    loss = np.asarray(prediction.loss, dtype=np.float64)[rows]
    covariance = np.asarray(prediction.covariance(rows), dtype=np.float64) / loss[:, None] / loss
    if len(rows) < 2 or not covariance.diagonal().any():
        return np.nan, np.nan
    root = root_of(0.5 * (covariance + covariance.T))
    drawn = np.log(loss) + np.random.default_rng(0).standard_normal((DRAWS, len(rows))) @ root.T
    low, high = np.quantile(values[rows][drawn.argmin(axis=1)], [0.05, 0.95], method="inverted_cdf")
    return float(low), float(high)


def flat_range(
    values: FloatArray, loss: FloatArray, lower: FloatArray, upper: FloatArray, place: int | None = None
) -> FlatRange:
    """Return the range about one value in which the loss is at most `FLAT` higher, ends by straight lines in ln.

    Parameters
    ----------
    values, loss : (m,), values ascending and above 0; losses NaN where nothing is allowed, one at least finite.
    place : row of that value, which must be allowed; by default that of the lowest loss.

    Examples
    --------
    >>> x = np.geomspace(0.1, 10, 401)
    >>> r = flat_range(x, 2 * (1 + 0.001 * np.log(x) ** 2), x, x)
    >>> round(r.best, 3), round(r.low, 3), round(r.high, 3), r.low_open
    (1.0, 0.368, 2.718, False)
    """
    place = int(np.nanargmin(loss)) if place is None else place
    limit = float(loss[place]) * (1.0 + FLAT)
    ends, opened = [], []
    for way in (-1, 1):
        i = place
        while 0 <= i + way < len(values) and loss[i + way] <= limit:
            i += way
        j = i + way
        if 0 <= j < len(values) and np.isfinite(loss[j]):
            share = (limit - loss[i]) / (loss[j] - loss[i])
            ends.append(float(values[i] ** (1 - share) * values[j] ** share))
            opened.append(False)
        else:
            ends.append(float(values[i]))
            opened.append(True)
    return FlatRange(float(values[place]), ends[0], ends[1], opened[0], opened[1], values, loss, lower, upper)


def too_far(advised: float, own: float) -> bool:
    """Return whether a rate or a batch is more than `TOO_FAR` times the recommended one, or less than that share of it.

    >>> too_far(7.7e-11, 3e-3), too_far(1e-3, 3e-3), too_far(float("nan"), 3e-3)
    (True, False, False)
    """
    return bool(abs(np.log(advised / own)) > np.log(TOO_FAR))
