"""Trend and field: sixteen non-negative columns, and a Gaussian-process field of the relative residuals.

Model, for a run with columns a (16), coordinates z and loss L (universal kriging; Cressie, Statistics for Spatial
Data, 3.4):

    L (1 - f(z) - o) = a . c  + noise,      c >= 0,  f ~ GP(0, field_sd^2 Matern32),  o ~ N(0, size_sd^2) per model size

so that f and o are relative residuals of the trend a . c. The coefficients have normal priors cut off at 0; they are
found first, by non-negative least squares whitened with the field's covariance, the field then given them. Everything
after that is a Bayesian linear regression in [field | size offsets | active columns], which gives joint covariances.

A column counts as a share of the loss. That loss must be the one without its noise (Gauss-Newton rounds about the last
fit): a share of the measured loss shrinks where the noise is above 0, so that a lower trend has the smaller sum of
squares. The field hides such a bias among the runs, but not beyond them: 9,000 runs had their trend .4 % too low.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dtrtrs

from optlaws._content import Content, read_only
from optlaws._normal import NORMAL_90, share_to_cover
from optlaws.dynamics.model import FloatArray
from optlaws.errors import FitError
from optlaws.regression.kernel import choose_inducing, field_features, group_matrix, levels_of, matern32, whitening
from optlaws.regression.run_noise import choose_noise, noise_variance, share_of
from optlaws.regression.settings import Settings
from optlaws.regression.whitened import Whitened, cholesky
from optlaws.runs import check_losses

FREE = 1.0  # prior scale of a column that is not penalised: no term makes more than the whole loss
LARGEST_SD = 0.5  # of ln loss: beyond it a prediction says nothing, and intervals would run out of range
FEWEST_CHECKED = 20  # fewer left-out residuals do not calibrate
FEWEST_NARROWING = 9  # points: fewer residuals have no 90 % quantile (0.9 (n + 1) > n), and may only widen


@dataclass(frozen=True, eq=False)
class Problem:
    """What a fit sees: m points (final losses and curve points).

    Attributes
    ----------
    columns : (m, 16), finite; loss : (m,), nats per token, above 0; coordinates : (m, k), in length scales.
    size : (m,) ln of the scaled model size; values within about SIZE_WIDTH share an offset.
    curve : (m,) 1 for curve points, 0 for final losses.
    share : (m,) noise variance of a point is multiplied by this (points of one curve share their information).
    damage_columns, peak_columns : places of the columns whose share of the loss widens the noise, `noise_variance`.
    """

    columns: FloatArray
    loss: FloatArray
    coordinates: FloatArray
    size: FloatArray
    curve: FloatArray
    share: FloatArray
    damage_columns: tuple[int, ...] = field(default=())
    peak_columns: tuple[int, ...] = field(default=())


@dataclass(frozen=True, eq=False)
class Posterior(Content):
    """A fitted trend and field: everything that a prediction needs, as plain numbers.

    Attributes
    ----------
    coefficients : (16,) >= 0
    inducing : (m, k) coordinates of the inducing points.
    sizes : (s,) ln of the scaled model sizes that have an offset.
    mean : (m + s + 1,) posterior mean of [field weights, size offsets, curve offset], whitened.
    root : (p, p) upper factor R with covariance R^-1 R^-T of [field, sizes, curve, active columns].
    noise : relative run-to-run sd where there is no damage.
    growth, spike : how it grows with damage, as in `noise_variance`.
    spread : calibrated factor of the sds of expected losses, from leave-group-out residuals.
    """

    coefficients: FloatArray
    inducing: FloatArray
    sizes: FloatArray
    mean: FloatArray
    root: FloatArray
    noise: float
    growth: float
    spike: float
    spread: float
    settings: Settings
    damage_columns: tuple[int, ...]
    peak_columns: tuple[int, ...]

    @cached_property
    def whitening(self) -> FloatArray:
        """Matrix W with phi = k W, k the kernel with the inducing points, (m, m)."""
        return np.asarray(read_only(whitening(self.inducing)))

    @cached_property
    def field_weights(self) -> FloatArray:
        """Weights of the kernel with the inducing points in the mean of the field, (m,)."""
        return np.asarray(read_only(self.settings.field_sd * (self.whitening @ self.mean[: len(self.inducing)])))

    @cached_property
    def inverse_root(self) -> FloatArray:
        """Inverse of `root`, (p, p)."""
        return np.asarray(read_only(solve_triangular(self.root, np.eye(len(self.root)), lower=False)))

    @property
    def active(self) -> np.ndarray:
        """Indices of the a columns with a coefficient above 0, shape (a,)."""
        return np.flatnonzero(self.coefficients > 0)


def _signed_trend(
    white: Whitened, x: FloatArray, precision: FloatArray, centre: FloatArray
) -> tuple[FloatArray, float]:
    """Return c >= 0 minimising (t - x c)' K^-1 (t - x c) + (c - m)' P (c - m), and the approximate log evidence.

    `x` has the column t after its own, (n, k + 1): K^-1 is applied to both at once. The evidence is that of ln loss,
    whose derivative in the residual r is 1 / (1 - r). A `FitError` where rounding hides what a column says.
    """
    from scipy.optimize import nnls  # slow to import, and only a fit needs it

    count = x.shape[1] - 1
    solved = white.solve(x)
    x, target, kx, kt = x[:, :count], x[:, count], solved[:, :count], solved[:, count]
    gram = x.T @ kx
    gram.flat[:: count + 1] += precision
    rhs = kx.T @ target + precision * centre
    try:
        low = cholesky(gram)
    except np.linalg.LinAlgError:  # rounding of the largest entries hides the smallest
        raise FitError(
            "columns must not differ by so many orders of magnitude between runs that rounding hides some; drop runs"
            " of sizes, lengths or rates far from all others, or correct them"
        ) from None
    c, _ = nnls(low.T, dtrtrs(low, rhs, lower=1)[0], maxiter=2000)
    r, moved = target - x @ c, c - centre
    active = np.flatnonzero(c)
    curvature = 2.0 * np.log(cholesky(gram[np.ix_(active, active)]).diagonal()).sum() - np.log(precision[active]).sum()
    evidence = -0.5 * (r @ (kt - kx @ c) + moved @ (precision * moved) + white.logdet() + curvature)
    return c, float(evidence + np.log(np.clip(1.0 - r, 1e-3, 1e3)).sum())


@dataclass(frozen=True, eq=False)
class _Trend:
    """A trend found: columns relative to the loss, about 1 on average; coefficients and prior; noise; weights.

    `residual` is 1 - fitted / loss, of the losses as they were measured.
    """

    x: FloatArray
    mean: FloatArray
    precision: FloatArray
    centre: FloatArray
    c: FloatArray
    noise: float
    weight: FloatArray
    phi: FloatArray
    rest: FloatArray
    inducing: FloatArray
    evidence: float
    residual: FloatArray


def trend_evidence(
    problem: Problem, prior: FloatArray, settings: Settings, rounds: int = 2, centre: FloatArray | None = None
) -> float:
    """Return the log evidence of the trend, for comparing constants; arguments and errors of `fit_trend_field`."""
    return _find_trend(problem, prior, settings, rounds, None, centre).evidence


def _find_trend(
    problem: Problem,
    prior: FloatArray,
    settings: Settings,
    rounds: int,
    pool: FloatArray | None,
    centre: FloatArray | None,
) -> _Trend:
    """Find coefficients and noise in rounds of reweighting."""
    y = problem.loss
    check_losses(y)
    if not np.isfinite(problem.columns).all():
        raise FitError(
            "columns must be finite, got an infinite one; a schedule or size among the runs is out of any range"
        )
    mean = (problem.columns / y[:, None]).mean(axis=0) + 1e-300
    unit = y.mean() * mean
    precision = np.where(np.isfinite(prior), 1.0 / np.maximum(prior * unit, 1e-12), 1.0 / FREE) ** 2
    middle = np.zeros(len(mean)) if centre is None else centre * unit
    candidates = problem.coordinates if pool is None else pool
    inducing = candidates[choose_inducing(candidates, settings.most_inducing)]
    phi = field_features(problem.coordinates, inducing, whitening(inducing))
    rest = np.maximum(1.0 - (phi**2).sum(axis=1), 0.0)
    trend_features = np.hstack([settings.trend_sd * phi, settings.source_sd * problem.curve[:, None]])
    trend_rest = settings.trend_sd**2 * rest

    weight, growth = np.ones(len(y)), np.ones(len(y))
    noise, c = settings.noise_grid[len(settings.noise_grid) // 2], np.zeros(len(mean))
    smooth, target = y, np.ones(len(y))  # the losses without their noise; 1 - fitted / y at the last c, plus x c
    for turn in range(rounds):
        x = problem.columns / smooth[:, None] / mean
        both = np.column_stack([x, target])
        trials = settings.noise_grid if turn < 2 else (noise,)
        best = -np.inf
        lighter = 0.5 * float(np.log(1.0 / weight).sum())
        unit_variance = problem.share * growth / weight
        for trial in trials:
            variance = trial**2 * unit_variance
            white = Whitened(trend_features, variance + trend_rest)
            found, evidence = _signed_trend(white, both, precision, middle)
            evidence += lighter
            evidence -= 0.5 * float(np.log(trial / settings.noise_typical) / settings.noise_range) ** 2
            if evidence > best:
                best, noise, c, chosen, kept = evidence, trial, found, white, variance
        fitted = problem.columns @ (c / mean)
        alpha = chosen.solve(1.0 - fitted / y)
        smooth = y * np.clip(1.0 - chosen.d * alpha, 0.1, 10.0)
        target = 1.0 - fitted / y + fitted / smooth
        residual = kept * alpha / (noise * np.sqrt(problem.share * growth))
        weight = 1.0 / np.sqrt(1.0 + (residual / settings.robust) ** 2)
        hurt = share_of(problem.columns, c / mean, problem.damage_columns, y)
        growth = noise_variance(1.0, settings.noise_growth, 0.0, hurt, hurt)
    return _Trend(x, mean, precision, middle, c, noise, weight, phi, rest, inducing, best, 1.0 - fitted / y)


def fit_trend_field(
    problem: Problem,
    prior: FloatArray,
    settings: Settings,
    *,
    centre: FloatArray | None = None,
    groups: list[FloatArray] | None = None,
    names: list[str] | None = None,
    pool: FloatArray | None = None,
) -> tuple[Posterior, dict[str, Any]]:
    """Fit coefficients, field and noise.

    Parameters
    ----------
    problem : Problem
        The points.
    prior : ndarray of shape (16,)
        Scales of the priors on c / loss: normal about the centre, cut off at 0; inf = free.
    settings : Settings
        Constants.
    centre : ndarray of shape (16,)
        Centres of the priors; default 0.
    groups : list of integer arrays of shape (m,)
        Each a partition; their leave-group-out residuals calibrate the intervals. Nothing is fitted again for them:
        see `_calibrate` for what of the fit to all points stays.
    names : list of str
        Names of the partitions.
    pool : ndarray of shape (q, k)
        Coordinates among which inducing points are chosen; None: the problem's own.

    Returns
    -------
    Posterior
    dict
        evidence : log evidence of the trend, up to a constant. noise, growth, spike, spread : as in `Posterior`.
        scatter : relative sd of single points about the trend, while it was found. groups : by the partition's name
        mean error, coverage (after calibration on the same residuals) and mean width, %.
        residuals : how many left-out residuals calibrated; below `FEWEST_CHECKED` they did not.
        left_out : these residuals, relative and above 0 where the loss was higher than predicted, by the partition's
        name (m,); NaN for a group that is all points.
        fit_error : mean absolute relative residual of the points themselves.

    Raises
    ------
    FitError
        The columns are not finite, or a loss is not above 0 (or absurdly far from 1).
    """
    trend = _find_trend(problem, prior, settings, settings.rounds, pool, centre)
    x, mean, precision, c = trend.x, trend.mean, trend.precision, trend.c
    weight, phi, rest, inducing = trend.weight, trend.phi, trend.rest, trend.inducing
    sizes = levels_of(problem.size)
    shared = settings.size_sd * group_matrix(problem.size, sizes)
    offsets = np.hstack([shared, settings.source_sd * problem.curve[:, None]])
    features, r = np.hstack([settings.field_sd * phi, offsets]), trend.residual
    active = np.flatnonzero(c > 0)
    about_centre = r + x[:, active] @ (c - trend.centre)[active]
    everything = np.hstack([features, x[:, active] / np.sqrt(precision[active])])
    hurt = share_of(problem.columns, c / mean, problem.damage_columns, problem.loss)
    left = settings.field_sd**2 * rest
    peaks = share_of(problem.columns, c / mean, problem.peak_columns, problem.loss)
    share = problem.share / weight
    found = choose_noise(about_centre, everything, left, share, hurt, peaks, trend.noise, settings)
    variance = share * noise_variance(*found, hurt, peaks)
    diagonal = variance + left
    white = Whitened(features, diagonal)
    inner_mean = white.inner_solve(features.T @ (r / diagonal))
    whole = np.hstack([features, x[:, active] * mean[active]])
    whole_precision = np.concatenate([np.ones(features.shape[1]), precision[active] * mean[active] ** 2])
    information = (whole / diagonal[:, None]).T @ whole + np.diag(whole_precision)
    scale = 1.0 / np.sqrt(np.diag(information))
    root = np.linalg.cholesky(information * scale[:, None] * scale[None]).T / scale[None]
    spread, checked, left_out = _calibrate(
        about_centre,
        features,
        x[:, active],
        precision[active],
        diagonal,
        variance * weight,
        variance,
        dict(zip(names or [], groups or [], strict=True)),
        settings.spreads,
    )
    posterior = Posterior(
        c / mean,
        inducing,
        sizes,
        inner_mean,
        root,
        *found,
        spread,
        settings,
        problem.damage_columns,
        problem.peak_columns,
    )
    info = {
        "evidence": trend.evidence,
        **dict(zip(("noise", "growth", "spike"), found, strict=True)),
        "scatter": trend.noise,
        "spread": spread,
        "groups": checked,
        "residuals": sum(int(np.isfinite(errors).sum()) for errors in left_out.values()),
        "left_out": left_out,
        "fit_error": float(np.abs(r - features @ inner_mean).mean()),
    }
    return posterior, info


def _calibrate(
    r: FloatArray, features: FloatArray, x: FloatArray, precision: FloatArray, diagonal: FloatArray,
    noise_variance: FloatArray, weighted_noise: FloatArray, groups: dict[str, FloatArray],
    spreads: tuple[float, float],
) -> tuple[float, dict[str, dict[str, float]], dict[str, FloatArray]]:  # fmt: skip
    """Return the factor of the model's sds with which 90 % intervals cover left-out residuals, and errors.

    Covered is the share of them that holds new runs with 90 % (`share_to_cover`). The third value is these residuals,
    (m,), by the partition's name; fewer than `FEWEST_CHECKED` in all leave the factor at 1, or at the lower end of its
    range where that is higher.

    With r the residuals of the trend that the priors expect before any run was seen, and K their joint covariance,
    trend coefficients included, leaving group g out gives the residual (K^-1)_gg^-1 (K^-1 r)_g with covariance
    (K^-1)_gg^-1 (Rasmussen and Williams, sec. 5.4.2, by blocks).

    It is quick because the law is not fitted again: which columns are active, the noise and the weights are those of
    the fit that saw group g. Runs count once in each partition.
    """
    m = len(r)
    if not groups:
        return max(1.0, spreads[0]), {}, {}
    full = Whitened(np.hstack([features, x / np.sqrt(precision)]), diagonal)
    solved = full.solve(r)
    signed: dict[str, FloatArray] = {}
    left: dict[str, tuple[FloatArray, FloatArray, FloatArray]] = {}  # squared errors, model variances, noise variances
    for name, partition in groups.items():
        errors, own = np.full(m, np.nan), np.full(m, np.nan)
        for value in np.unique(partition):
            g = np.flatnonzero(partition == value)
            if len(g) < m:
                errors[g], variance = full.without(g, solved[g])
                own[g] = variance - weighted_noise[g]
        good = np.isfinite(errors)
        if good.any():
            signed[name] = errors
            left[name] = (errors[good] ** 2, np.maximum(own[good], 0.0), noise_variance[good])
    spread, count = max(1.0, spreads[0]), sum(len(squares) for squares, _, _ in left.values())
    if count >= FEWEST_CHECKED:
        squares, own, noise = (np.concatenate(part) for part in zip(*left.values(), strict=True))
        tried = np.geomspace(*spreads, 200)
        tried = tried[tried >= 1.0] if m < FEWEST_NARROWING else tried
        shares = [(squares <= NORMAL_90**2 * (s * s * own + noise)).mean() for s in tried]
        spread = float(tried[min(int(np.searchsorted(shares, share_to_cover(m))), len(tried) - 1)])
    checked = {}
    for name, (squares, own, noise) in left.items():
        variance = spread**2 * own + noise
        checked[name] = {
            "mean_error_pct": 100.0 * float(np.sqrt(squares).mean()),
            "coverage": float((squares <= NORMAL_90**2 * variance).mean()),
            "width_pct": 200.0 * NORMAL_90 * float(np.sqrt(variance).mean()),
        }
    return spread, checked, signed


def new_size_variance(posterior: Posterior, known: FloatArray) -> FloatArray:
    """Return the variance of the offsets of sizes that no run had, shape (n,); `known` (n, s) is from `group_matrix`.

    A calibrated factor below 1 is left out: runs of known sizes say nothing of how far a new one may lie off.
    """
    left = np.maximum(1.0 - (known**2).sum(axis=1), 0.0)  # share of an offset's variance that the levels leave
    return np.asarray((max(posterior.spread, 1.0) * posterior.settings.size_sd) ** 2 * left)


@dataclass(frozen=True, eq=False)
class Point:
    """Predictions at n points: mean and the pieces of their uncertainty.

    Attributes
    ----------
    loss : (n,) nats per token.
    sd : (n,) relative sd of the expected loss.
    noise : (n,) relative sd of one new run about its expectation.
    """

    loss: FloatArray
    sd: FloatArray
    noise: FloatArray


def expected_loss(
    posterior: Posterior,
    columns: FloatArray,
    coordinates: FloatArray,
    size: FloatArray,
    *,
    curve: bool = False,
    kernel: FloatArray | None = None,
) -> FloatArray:
    """Return the expected losses alone, shape (n,), nats per token.

    Arguments as in `predict_trend_field`; `kernel`, (n, m), is that of the coordinates with the inducing points.
    """
    s, m = posterior.settings, len(posterior.inducing)
    k = matern32(coordinates, posterior.inducing) if kernel is None else kernel
    shift = k @ posterior.field_weights
    shift += s.size_sd * (group_matrix(size, posterior.sizes) @ posterior.mean[m:-1])
    if curve:
        shift += s.source_sd * posterior.mean[-1]
    return np.asarray(columns @ posterior.coefficients / (1.0 - shift))


def predict_trend_field(
    posterior: Posterior,
    columns: FloatArray,
    coordinates: FloatArray,
    size: FloatArray,
    *,
    curve: bool = False,
    rows: bool = False,
) -> tuple[Point, FloatArray]:
    """Return predictions, and either how new each point is or the rows of the joint covariance.

    Parameters
    ----------
    posterior : Posterior
    columns : (n, 16), coordinates : (n, k), size : (n,)
        As in `Problem`.
    curve : bool
        True: predict on the curve's evaluation set.
    rows : bool
        What the second value is.

    Returns
    -------
    Point
    ndarray
        rows=False: (n,), share of the field's prior variance that the inducing points leave at each point, 0 .. 1.
        rows=True: (n, p), rows B with cov(ln L_i, ln L_j) = B_i . B_j plus what the inducing points leave.
    """
    s = posterior.settings
    kernel = matern32(coordinates, posterior.inducing)
    loss = expected_loss(posterior, columns, coordinates, size, curve=curve, kernel=kernel)
    phi = kernel @ posterior.whitening
    rest = np.maximum(1.0 - (phi**2).sum(axis=1), 0.0)
    known = group_matrix(size, posterior.sizes)
    source = np.full((len(columns), 1), s.source_sd if curve else 0.0)
    features = np.hstack([s.field_sd * phi, s.size_sd * known, source])
    active = posterior.active
    whole = np.hstack([features, columns[:, active] / loss[:, None]])
    product = whole @ posterior.inverse_root
    length = np.sqrt((product**2).sum(axis=1))
    product *= np.minimum(1.0, LARGEST_SD / np.maximum(posterior.spread * length, LARGEST_SD))[:, None]
    own = posterior.spread**2 * s.field_sd**2 * rest + new_size_variance(posterior, known)
    sd = np.sqrt(posterior.spread**2 * (product**2).sum(axis=1) + own)
    hurt = share_of(columns, posterior.coefficients, posterior.damage_columns, loss)
    peaks = share_of(columns, posterior.coefficients, posterior.peak_columns, loss)
    noise = np.sqrt(noise_variance(posterior.noise, posterior.growth, posterior.spike, hurt, peaks))
    return Point(loss, sd, noise), product * posterior.spread if rows else rest


__all__ = [
    "Point",
    "Posterior",
    "Problem",
    "Settings",
    "expected_loss",
    "fit_trend_field",
    "group_matrix",
    "new_size_variance",
    "predict_trend_field",
    "trend_evidence",
]
