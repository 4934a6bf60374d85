"""Trend and field the slow way: dense matrices, every covariance written out, no inducing points (tests only)."""

import numpy as np

from optlaws._normal import NORMAL_90


def matern(a, b):
    """(1 + r) exp(-r), r = sqrt(3) |a_i - b_j|, one pair at a time."""
    out = np.empty((len(a), len(b)))
    for i in range(len(a)):
        for j in range(len(b)):
            r = np.sqrt(3.0) * np.sqrt(((a[i] - b[j]) ** 2).sum())
            out[i, j] = (1.0 + r) * np.exp(-r)
    return out


def same(a, b):
    return (np.abs(a[:, None] - b[None]) < 1e-6).astype(float)


def free_scale(problem):
    """Prior sd of a coefficient without a prior: the loss itself, by the column's mean."""
    return 1.0 / (problem.columns / problem.loss[:, None]).mean(axis=0)


def prior_sds(problem, prior):
    return np.where(np.isfinite(prior), prior * problem.loss.mean(), free_scale(problem))


def residual_covariance(problem, settings, noise, field_sd, offsets=True):
    """Covariance of the relative residuals of the training points, coefficients held fixed (no growth, no weights)."""
    k = field_sd**2 * matern(problem.coordinates, problem.coordinates)
    if offsets:
        k += settings.size_sd**2 * same(problem.size, problem.size)
    k += settings.source_sd**2 * np.outer(problem.curve, problem.curve)
    return k + np.diag(noise**2 * problem.share)


def without_noise(problem, coefficients, settings, noise):
    """The losses less what the fit takes for noise while it looks for the trend: columns are shares of these."""
    k = residual_covariance(problem, settings, noise, settings.trend_sd, offsets=False)
    residual = 1.0 - problem.columns @ coefficients / problem.loss
    return problem.loss * (1.0 - noise**2 * problem.share * np.linalg.solve(k, residual))


class Kriging:
    """Universal kriging with known coefficients for the mean, and their prior for the covariance.

    `noise` is that of the predictions, `scatter` the one with which the coefficients were found.
    """

    def __init__(self, problem, coefficients, prior, settings, noise, scatter):
        self.problem, self.c, self.settings = problem, coefficients, settings
        self.active = coefficients > 0
        self.sds = prior_sds(problem, prior)[self.active]
        k = residual_covariance(problem, settings, noise, settings.field_sd)
        self.residual = 1.0 - problem.columns @ coefficients / problem.loss
        self.alpha = np.linalg.solve(k, self.residual)
        smooth = without_noise(problem, coefficients, settings, scatter)
        self.a = problem.columns[:, self.active] / smooth[:, None] * self.sds
        self.whole = k + self.a @ self.a.T

    def cross(self, coordinates, size, curve):
        s, p = self.settings, self.problem
        k = s.field_sd**2 * matern(coordinates, p.coordinates) + s.size_sd**2 * same(size, p.size)
        return k + s.source_sd**2 * curve * p.curve[None]

    def predict(self, columns, coordinates, size, curve=0.0):
        """Losses (n,) and the joint covariance of ln of the expected losses (n, n)."""
        s = self.settings
        cross = self.cross(coordinates, size, curve)
        loss = columns @ self.c / (1.0 - cross @ self.alpha)
        a = columns[:, self.active] / loss[:, None] * self.sds
        both = cross + a @ self.a.T
        prior = s.field_sd**2 * matern(coordinates, coordinates) + s.size_sd**2 * same(size, size) + a @ a.T
        prior += s.source_sd**2 * curve
        return loss, prior - both @ np.linalg.solve(self.whole, both.T)


def interval(point):
    total = np.sqrt(point.sd**2 + point.noise**2)
    return point.loss * np.exp(-NORMAL_90 * total), point.loss * np.exp(NORMAL_90 * total)
