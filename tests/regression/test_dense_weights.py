"""What a fit hands on between its steps, by dense algebra: weights, evidence, noise, few inducing points."""

from dataclasses import replace

import numpy as np
import pytest
from naive_kriging import matern, prior_sds, residual_covariance, same
from test_trend_field import PLAIN, PRIOR, make

from optlaws.regression import Settings, fit_trend_field, predict_trend_field
from optlaws.regression.kernel import SIZE_WIDTH, group_matrix
from optlaws.regression.run_noise import choose_noise
from optlaws.regression.trend_field import _find_trend, new_size_variance, trend_evidence


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def test_near_sizes_share_an_offset_as_a_bell_curve_says():
    """1 at a level, exp(-1/2) one width of ln size away, exp(-2) two."""
    levels = np.log(np.array([1e8, 1e9]))
    shared = group_matrix(levels[0] + SIZE_WIDTH * np.array([0.0, 1.0, -2.0]), levels)
    np.testing.assert_allclose(shared[:, 0], np.exp([0.0, -0.5, -2.0]), rtol=1e-9)
    np.testing.assert_allclose(shared[:, 1], 0.0, atol=1e-12)


def test_a_point_loses_weight_by_its_residual_in_its_own_noise_sds(rng):
    """1 / sqrt(1 + (z / robust)^2), z = sqrt(v) K^-1 r: of a curve's points and damaged runs v is larger than noise^2.

    The second round has the growth and the weights of the first in v; z leaves the weights out.
    """
    problem, _ = make(rng, 30, curves=True)
    problem = replace(problem, loss=problem.loss * (1.0 + 0.01 * rng.standard_normal(30)), damage_columns=(3, 4))
    settings = Settings(robust=1.0, noise_grid=(0.002,), noise_growth=0.05)
    growth, weight = np.ones(30), np.ones(30)
    for rounds in (1, 2):
        trend = _find_trend(problem, PRIOR, settings, rounds, None, None)
        variance = 0.002**2 * problem.share * growth
        told = replace(problem, share=problem.share * growth / weight)
        k = residual_covariance(told, settings, 0.002, settings.trend_sd, offsets=False)
        alpha = np.linalg.solve(k, 1.0 - problem.columns @ (trend.c / trend.mean) / problem.loss)
        z = variance / weight * alpha / np.sqrt(variance)
        weight = 1.0 / np.sqrt(1.0 + z**2)
        np.testing.assert_allclose(trend.weight, weight, rtol=1e-6)
        hurt = problem.columns[:, [3, 4]] @ (trend.c / trend.mean)[[3, 4]] / problem.loss
        growth = 1.0 + (hurt / 0.05) ** 2
    assert weight.min() < 0.5
    assert growth.max() > 2.0


def test_the_evidence_of_a_trend_holds_the_prior_of_its_noise(rng):
    """Normal in ln noise: of one noise under two medians the evidence differs by the prior's density alone."""
    problem, _ = make(rng, 20)
    near, far = (
        trend_evidence(problem, PRIOR, Settings(noise_grid=(0.002,), noise_typical=typical, noise_range=0.5))
        for typical in (0.002, 0.0005)
    )
    assert near - far == pytest.approx(0.5 * (np.log(4.0) / 0.5) ** 2, rel=1e-9)


def test_what_the_inducing_points_leave_is_no_noise_of_runs(rng):
    """The variance that the field's points leave and the shares of curve points are in the covariance, as in the sum.

    Noise is the root of its mean variance over the grid, by dense normal densities.
    """
    n = 30
    left, share = rng.uniform(1e-6, 2e-5, n), rng.uniform(1.0, 4.0, n)
    features = 0.003 * rng.standard_normal((n, 3))
    residual = features @ rng.standard_normal(3) + np.sqrt(left + share * 0.002**2) * rng.standard_normal(n)
    settings = Settings(noise_grid=tuple(np.geomspace(3e-4, 8e-3, 25)), growth_grid=(1.0,))
    zero = np.zeros(n)
    found, _, _ = choose_noise(residual, features, left, share, zero, zero, 0.002, settings)
    density = []
    for noise in settings.noise_grid:
        covariance = features @ features.T + np.diag(left + share * noise**2)
        fit = residual @ np.linalg.solve(covariance, residual) + np.linalg.slogdet(covariance)[1]
        density.append(-0.5 * (fit + (np.log(noise / settings.noise_typical) / settings.run_noise_range) ** 2))
    weight = np.exp(np.array(density) - max(density))
    assert found == pytest.approx(np.sqrt(weight @ np.square(settings.noise_grid) / weight.sum()), rel=0.01)


@pytest.mark.parametrize(
    ("prior", "close"), [(PRIOR, 5e-3), (np.full(5, 0.02), 0.02)], ids=["wide", "narrow"]
)  # narrow priors put the noise at the end of its grid, where halving shows
def test_the_noise_of_a_fit_is_that_of_the_dense_model(rng, prior, close):
    """About the centre of the priors: field by few inducing points, offsets, and the trend as the priors let it be."""
    problem, _ = make(rng, 40)
    pool = rng.uniform(-1.5, 1.5, size=(8, 2))
    settings = replace(PLAIN, noise_grid=tuple(np.geomspace(3e-4, 1e-2, 29)), rounds=12)
    posterior, about = fit_trend_field(problem, prior, settings, pool=pool)
    gram = matern(pool, pool)
    gram[np.diag_indices(8)] = 1.0 + 1e-9
    k = matern(problem.coordinates, pool)
    low = k @ np.linalg.solve(gram, k.T)
    left = np.diag(1.0 - np.diag(low))
    assert left.max() > 0.1
    c, scatter = posterior.coefficients, about["scatter"]
    residual = 1.0 - problem.columns @ c / problem.loss
    thin = settings.trend_sd**2 * left + scatter**2 * np.eye(40)
    smooth = problem.loss * (1.0 - np.diag(thin) * np.linalg.solve(thin + settings.trend_sd**2 * low, residual))
    x = problem.columns / smooth[:, None]
    a = x[:, c > 0] * prior_sds(problem, prior)[c > 0]
    whole = settings.field_sd**2 * (low + left) + settings.size_sd**2 * same(problem.size, problem.size) + a @ a.T
    about_centre = residual + x @ c
    density = []
    for noise in settings.noise_grid:
        covariance = whole + noise**2 * np.eye(40)
        fit = about_centre @ np.linalg.solve(covariance, about_centre) + np.linalg.slogdet(covariance)[1]
        density.append(-0.5 * (fit + (np.log(noise / settings.noise_typical) / settings.run_noise_range) ** 2))
    weight = np.exp(np.array(density) - max(density))
    assert posterior.noise == pytest.approx(np.sqrt(weight @ np.square(settings.noise_grid) / weight.sum()), rel=close)


def test_the_error_of_a_fit_is_the_mean_of_what_field_and_trend_leave(rng):
    """`fit_error` against the expected losses of the points themselves; a mean, and not the worst."""
    problem, _ = make(rng, 40)
    posterior, about = fit_trend_field(problem, PRIOR, Settings())
    point, _ = predict_trend_field(posterior, problem.columns, problem.coordinates, problem.size)
    trend = problem.columns @ posterior.coefficients
    shift = 1.0 - trend / point.loss
    assert about["fit_error"] == pytest.approx(np.abs(1.0 - trend / problem.loss - shift).mean(), rel=1e-6)


def test_the_evidence_of_a_trend_is_that_of_the_dense_model(rng):
    """Laplace about the coefficients found: field by few inducing points, priors about a centre, and ln loss."""
    problem, _ = make(rng, 25, curves=True)
    pool, noise, centre = rng.uniform(-1.5, 1.5, size=(6, 2)), 0.002, np.array([0.5, 0.2, 0.3, 0.1, 0.02])
    settings = replace(PLAIN, noise_grid=(noise,), noise_typical=noise)
    prior = np.full(5, 0.5)
    trend = _find_trend(problem, prior, settings, 1, pool, centre)
    c = trend.c / trend.mean
    gram = matern(pool, pool)
    gram[np.diag_indices(6)] = 1.0 + 1e-9
    k = matern(problem.coordinates, pool)
    low = k @ np.linalg.solve(gram, k.T)
    assert (1.0 - np.diag(low)).max() > 0.1
    k = settings.trend_sd**2 * (low + np.diag(1.0 - np.diag(low)))
    k += settings.source_sd**2 * np.outer(problem.curve, problem.curve) + noise**2 * np.diag(problem.share)
    x, sds = problem.columns / problem.loss[:, None], 0.5 * problem.loss.mean()
    residual, away = 1.0 - x @ c, (c - centre * problem.loss.mean()) / sds
    on = c > 0
    curvature = np.linalg.slogdet(np.eye(on.sum()) + sds**2 * x[:, on].T @ np.linalg.solve(k, x[:, on]))[1]
    squares = residual @ np.linalg.solve(k, residual) + away @ away
    expected = -0.5 * (squares + np.linalg.slogdet(k)[1] + curvature) + np.log(1.0 - residual).sum()
    assert away @ away > 0.1
    assert trend.evidence == pytest.approx(expected, rel=1e-6)


def test_a_size_near_a_known_one_is_as_new_as_its_offset_is_not_shared(rng):
    """Variance size_sd^2 (1 - s^2) of an offset that correlates by s = exp(-1/2) with a known one."""
    problem, _ = make(rng, 20, sizes=(1.0,))
    posterior, _ = fit_trend_field(problem, PRIOR, Settings())
    known = group_matrix(np.array([0.0, SIZE_WIDTH, 9.0]), posterior.sizes)
    expected = posterior.settings.size_sd**2 * np.array([0.0, 1.0 - np.exp(-1.0), 1.0])
    np.testing.assert_allclose(new_size_variance(posterior, known), expected, rtol=1e-9, atol=1e-18)
