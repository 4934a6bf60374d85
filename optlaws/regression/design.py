"""Which runs would teach most about others: prior covariances of relative losses, and a greedy choice of runs.

Before a run is made, its loss under `trend_field`'s model is a normal variable whose covariance with every other loss
is known; only the losses themselves are not. What the runs at hand will say of others can therefore be worked out
before they are made (Krause, Singh and Guestrin, JMLR 9, 2008; Cohn, Ghahramani and Jordan, JAIR 4, 1996): run i takes

    cov(t, i)^2 / (var(i) + noise(i)^2)

off the variance of the expected loss of t.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from optlaws.dynamics.model import FloatArray
from optlaws.regression.kernel import group_matrix, levels_of, matern32
from optlaws.regression.run_noise import noise_variance, share_of
from optlaws.regression.settings import Settings
from optlaws.regression.trend_field import FREE
from optlaws.regression.whitened import cholesky

HALF_NORMAL = float(np.sqrt(2.0 / np.pi))  # mean of a normal variable cut off at 0, over its scale


@dataclass(frozen=True, eq=False)
class Joint:
    """The joint prior of the relative expected losses of n points: cov = F F' + field_sd^2 Matern32 + size offsets.

    Attributes
    ----------
    features : (n, p), rows F of the trend and of the offsets of sizes.
    coordinates : (n, k), of the field.
    field_sd : of the field.
    noise : (n,) relative variance of one new run about its expectation.
    """

    features: FloatArray
    coordinates: FloatArray
    field_sd: float
    noise: FloatArray

    def between(self, i: np.ndarray, j: np.ndarray) -> FloatArray:
        """Return the covariances of points i with points j, shape (len i, len j)."""
        field = matern32(self.coordinates[i], self.coordinates[j])
        return np.asarray(self.features[i] @ self.features[j].T + self.field_sd**2 * field)

    def variances(self) -> FloatArray:
        """Return the variances of all points, shape (n,)."""
        return np.asarray((self.features**2).sum(axis=1) + self.field_sd**2)


def joint_prior(
    columns: FloatArray,
    coordinates: FloatArray,
    size: FloatArray,
    *,
    coefficients: FloatArray,
    scale: FloatArray,
    damage_columns: tuple[int, ...],
    peak_columns: tuple[int, ...],
    settings: Settings,
) -> Joint:
    """Return the joint prior of n points.

    Parameters
    ----------
    columns : ndarray of shape (n, 16)
    coordinates : ndarray of shape (n, k)
    size : ndarray of shape (n,)
        ln of the scaled model size.
    coefficients : ndarray of shape (16,)
        The expected ones: columns @ coefficients are the losses that others are taken relative to.
    scale : ndarray of shape (16,)
        Prior sds of the coefficients in the same units; inf where they are free, as in `fit_trend_field`.
    damage_columns, peak_columns : tuple of int
        Places of the columns whose share of the loss widens the noise. Where their expected coefficient is 0 the mean
        of the prior cut off at 0 stands for it.
    settings : Settings
        Constants of the regression. The noise is its typical one.
    """
    loss = columns @ coefficients
    relative = columns / loss[:, None]
    free = FREE / np.maximum(relative.mean(axis=0), 1e-300)
    sd = np.where(np.isfinite(scale), scale, free)
    offsets = group_matrix(size, levels_of(size))
    likely = np.where(coefficients > 0, coefficients, HALF_NORMAL * sd)
    hurt, peaks = (share_of(columns, likely, which, loss) for which in (damage_columns, peak_columns))
    noise = noise_variance(settings.noise_typical, settings.noise_growth, settings.spike_typical, hurt, peaks)
    return Joint(np.hstack([relative * sd, settings.size_sd * offsets]), coordinates, settings.field_sd, noise)


@dataclass
class _State:
    """What is known after some runs: variances of n points, covariances with the targets, and the runs' own columns.

    Each of `steps` has shape (k, n), k rows of the Cholesky factor of the joint covariance.
    """

    joint: Joint
    targets: np.ndarray
    variance: FloatArray
    shared: FloatArray
    steps: list[FloatArray]

    def learn(self, rows: np.ndarray) -> None:
        """Take in the losses of points (k,) at once: k rows of the Cholesky factor of the joint covariance."""
        if not len(rows):
            return
        columns = self.joint.between(rows, np.arange(len(self.variance)))
        for step in self.steps:
            columns -= step[:, rows].T @ step
        own = columns[:, rows] + np.diag(self.joint.noise[rows])
        step = solve_triangular(cholesky(own), columns, lower=True, overwrite_b=True)
        self.steps.append(step)
        self.variance = np.maximum(self.variance - (step * step).sum(axis=0), 0.0)
        self.shared = self.shared - step.T @ step[:, self.targets]

    def gain(self) -> FloatArray:
        """Return what each point would take off the mean variance of the targets, shape (n,)."""
        return np.asarray((self.shared**2).mean(axis=1) / (self.variance + self.joint.noise))

    def left(self) -> float:
        """Return the mean variance of the targets."""
        return float(self.variance[self.targets].mean())


def choose_runs(
    joint: Joint,
    pool: np.ndarray,
    targets: np.ndarray,
    count: int,
    *,
    known: np.ndarray | None = None,
    cost: FloatArray | None = None,
    budget: float = np.inf,
    exponent: float = 0.0,
) -> tuple[np.ndarray, FloatArray]:
    """Choose runs one after the other, each the one that takes most off the mean variance of the targets.

    Parameters
    ----------
    joint : Joint
        Of n points.
    pool, targets : integer arrays of shape (q,) and (t,)
        Places of the runs that may be made, and of those that matter; t >= 1.
    count : int
        Runs to choose, 0 .. len(pool).
    known : integer array of shape (f,), optional
        Places of runs that are finished.
    cost : ndarray of shape (n,), optional
        Of each point; needed with a budget or an exponent.
    budget : float
        Of all chosen runs together; must allow for the `count` cheapest of the pool.
    exponent : float
        The gain is divided by the cost to this power.

    Returns
    -------
    ndarray of shape (count,)
        Places of the chosen runs, in the order of choice.
    ndarray of shape (count + 1,)
        Mean variance of the targets' relative expected losses before the first choice and after each.
    """
    targets = np.asarray(targets)
    everything = np.arange(len(joint.noise))
    state = _State(joint, targets, joint.variances(), joint.between(everything, targets), [])
    state.learn(np.asarray([] if known is None else known, dtype=int))
    left, chosen, variances = list(np.asarray(pool, dtype=int)), [], [state.left()]
    price = np.ones(len(everything)) if cost is None else cost
    for turn in range(count):
        worth = state.gain()[left] / price[left] ** exponent
        if np.isfinite(budget):
            worth = np.where(_affordable(price[left], budget, count - turn - 1), worth, -1.0)
        place = left.pop(int(np.argmax(worth)))
        budget -= float(price[place])
        state.learn(np.array([place]))
        chosen.append(place)
        variances.append(state.left())
    return np.array(chosen, dtype=int), np.array(variances)


def _affordable(cost: FloatArray, budget: float, more: int) -> np.ndarray:
    """Return which of the runs leave enough of the budget for `more` others, the cheapest ones, shape (n,)."""
    order = np.argsort(cost, kind="stable")
    cheapest = float(cost[order[:more]].sum())
    after = np.full(len(cost), cheapest)
    if more < len(cost):
        after[order[:more]] = cheapest - cost[order[:more]] + cost[order[more]]
    total = cost + after
    fits = total <= budget * (1.0 + 1e-9)
    return np.asarray(fits if fits.any() else total <= total.min() * (1.0 + 1e-9))  # rounding, without slack
