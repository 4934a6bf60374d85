"""Noise that grows with damage, offsets of sizes that no run had, and the evidence of reweighted fits."""

from dataclasses import replace

import numpy as np
import pytest
from naive_kriging import prior_sds
from test_trend_field import PRIOR, make, predict

from optlaws import RunTable, parse
from optlaws.features import basis_ids, feature_table, get_basis
from optlaws.regression import Settings, fit_trend_field
from optlaws.regression.trend_field import trend_evidence

STEADY = Settings(robust=1e9, rounds=8, noise_grid=(0.0012,))  # no weights; growth found to convergence


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_a_new_run_scatters_as_its_share_of_damage_says(rng):
    """Noise sd = that of an undamaged run times sqrt(1 + (share / growth)^2), one run and one column at a time."""
    problem, _ = make(rng, 40)
    posterior, _ = fit_trend_field(replace(problem, damage_columns=(3, 4)), PRIOR, Settings())
    new, _ = make(rng, 9)
    point, _ = predict(posterior, new)
    for i in range(9):
        share = sum(posterior.coefficients[j] * new.columns[i, j] for j in (3, 4)) / point.loss[i]
        assert point.noise[i] == pytest.approx(posterior.noise * np.hypot(1.0, share / 0.1), rel=1e-12)
    assert point.noise.max() > 1.1 * point.noise.min()
    plain, _ = fit_trend_field(problem, PRIOR, Settings())
    assert np.ptp(predict(plain, new)[0].noise) == 0.0


def test_a_fit_trusts_damaged_runs_less(rng):
    """It is the fit to the same runs whose noise variances are told from the start, growth put into the shares."""
    problem, _ = make(rng, 40)
    problem = replace(problem, damage_columns=(3, 4))
    found, _ = fit_trend_field(problem, PRIOR, STEADY)
    share = problem.columns[:, [3, 4]] @ found.coefficients[[3, 4]] / problem.loss
    told = replace(problem, share=1.0 + (share / STEADY.noise_growth) ** 2, damage_columns=())
    twin, _ = fit_trend_field(told, PRIOR, STEADY)
    unaware, _ = fit_trend_field(replace(problem, damage_columns=()), PRIOR, STEADY)
    new, _ = make(rng, 20)
    (a, _), (b, _), (other, _) = (predict(p, new) for p in (found, twin, unaware))
    np.testing.assert_allclose(a.loss, b.loss, rtol=1e-7)
    np.testing.assert_allclose(a.sd, b.sd, rtol=1e-5)
    assert np.abs(a.loss / other.loss - 1).max() > 1e-4


def test_groups_that_agree_do_not_make_a_new_size_surer(rng):
    """Runs of known sizes say nothing of how far off a new size may lie; groups that disagree do widen it."""
    problem, _ = make(rng, 40)
    posterior, _ = fit_trend_field(problem, PRIOR, Settings())
    size_sd = posterior.settings.size_sd
    unseen = replace(problem, size=problem.size + 5.0)

    def offset_variance(spread):
        return predict(replace(posterior, spread=spread), unseen)[0].sd ** 2

    usual, narrow, wide = (offset_variance(spread) for spread in (1.0, 0.4, 2.0))
    assert (narrow >= size_sd**2).all()
    np.testing.assert_allclose(narrow - size_sd**2, 0.16 * (usual - size_sd**2), rtol=1e-9)
    np.testing.assert_allclose(wide, 4.0 * usual, rtol=1e-9)


def soft_evidence(problem, prior, settings):
    """Log evidence without a field: scatter by soft-L1 weights of a first fit, Laplace in the active coefficients."""
    x = problem.columns / problem.loss[:, None]
    noise, sds = settings.noise_grid[0], prior_sds(problem, prior)

    def fit(weight):
        a = np.vstack([np.sqrt(weight)[:, None] * x / noise, np.diag(1.0 / sds)])
        c = np.linalg.lstsq(a, np.concatenate([np.sqrt(weight) / noise, np.zeros(len(sds))]), rcond=None)[0]
        return c, np.linalg.slogdet(a.T @ a)[1] + 2.0 * np.log(sds).sum()

    first, _ = fit(np.ones(len(x)))
    weight = 1.0 / np.sqrt(1.0 + ((1.0 - x @ first) / noise / settings.robust) ** 2)
    c, curvature = fit(weight)
    assert (c > 0).all()
    squares = weight @ (1.0 - x @ c) ** 2 / noise**2 + ((c / sds) ** 2).sum()
    return -0.5 * (squares + 2.0 * len(x) * np.log(noise) + curvature), weight


def test_an_outlier_that_counts_less_is_no_evidence_for_a_law(rng):
    """Weights make the noise of outliers larger; what that adds to the evidence by its width alone is taken off."""
    problem, _ = make(rng, 60, sizes=(1.0,))
    loss = problem.columns @ [1.9, 0.5, 0.02, 0.7, 0.01] * np.exp(0.002 * rng.standard_normal(60))
    loss[::12] *= 1.04
    problem = replace(problem, loss=loss)
    settings = Settings(trend_sd=1e-9, noise_grid=(0.002,), noise_typical=0.002, robust=2.0)
    expected, weight = soft_evidence(problem, PRIOR, settings)
    assert -0.5 * np.log(weight).sum() > 3.0
    assert trend_evidence(problem, PRIOR, settings) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("basis", basis_ids())
def test_damage_is_what_vanishes_with_the_rate(basis):
    """Columns of variance, peak and escape widen the noise: those that a run of next to no rate has none of."""
    texts = [f"wsd:peak={peak},steps=5000,warmup=300,decay=0.2" for peak in ("1e-3", "1e-9")]
    runs = RunTable.build([parse(text) for text in texts], params=8e7, batch_tokens=51200.0, weight_decay=0.1)
    usual, still = feature_table(runs, basis)
    gone = np.flatnonzero(still < 1e-3 * usual)
    assert get_basis(basis).damage == tuple(gone)
