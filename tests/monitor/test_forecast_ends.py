"""Both ends of a forecast, final loss and last reading, by dense formulas; noise and weights of readings by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from monitor_helpers import plain_path
from scipy.stats import norm

from optlaws.monitor import CurvePrior, reforecast
from optlaws.monitor.forecast import (
    FIRST_NOISE,
    FORGETTING,
    INDEPENDENT,
    MOST_SHAPE,
    MOST_UNSURE,
    NEIGHBOURS,
    OUTLIER,
    SCALE_ODDS,
    SCALES,
    outlier_weights,
    reading_noise,
)


def own_prior(spread=1.7):
    """Offset and effects that go together, a misfit of a reading, and a calibrated factor."""
    root = np.random.default_rng(1).standard_normal((6, 6)) * np.array([0.004, *[0.02] * 5])[:, None]
    mean = np.array([0.01, 0.02, 0.0, -0.01, 0.0, 0.01])
    return CurvePrior(mean, root @ root.T, 0.003, spread=spread, law_sd=0.004)


def odd_path():
    """The law's final loss lies on another evaluation set than its curve."""
    path = plain_path(sd=0.01)
    return replace(path, log_final=path.log_final + 0.05)


def test_final_loss_and_last_reading_equal_a_naive_twin():
    """The last reading is e - c below the path's end, with a misfit of its own; the factor widens both."""
    path, prior = odd_path(), own_prior()
    steps = np.linspace(path.start, 0.6 * path.total, 40)
    expected, effects = path.at(steps)
    y = np.random.default_rng(3).normal(0.004, 5e-4, 40) + effects @ prior.mean[1:] - prior.mean[0]
    got = reforecast(path, prior, steps, expected + y)
    noise = reading_noise(y)
    share = np.minimum(INDEPENDENT * np.diff(np.log(steps), prepend=-np.inf), 1.0)
    variance = (prior.misfit**2 / share + noise**2) / (steps / steps[-1]) ** FORGETTING / outlier_weights(y, noise)
    h = np.column_stack([np.ones(40), -np.ones(40), effects])
    ends = np.array([[1.0, 0.0, *[0.0] * 5], [1.0, -1.0, *[0.0] * 5]])  # e, and e - c
    r = y - h[:, 1:] @ prior.mean
    means, sds, heights = [], [], []
    for m in SCALES:
        factor = np.array([1.0, *[2.5 * min(m, MOST_SHAPE)] * 5])  # the law is 2.5 times less sure than of its runs
        c = np.zeros((7, 7))
        c[0, 0] = (m * path.sd) ** 2
        c[1:, 1:] = prior.covariance * np.outer(factor, factor)
        joint = h @ c @ h.T + np.diag(variance)
        gain = c @ h.T @ np.linalg.inv(joint)
        means.append(ends @ (gain @ r + np.array([0.0, *prior.mean])))
        left = np.diag(ends @ (c - gain @ h @ c) @ ends.T) + np.array([0.0, prior.misfit**2])
        sds.append(prior.spread * np.sqrt(left))
        heights.append(-0.5 * (r @ np.linalg.solve(joint, r) + np.linalg.slogdet(joint)[1]))
    odds = SCALE_ODDS * np.exp(np.array(heights) - max(heights))
    odds /= odds.sum()
    means, sds = np.array(means).T, np.array(sds).T
    final, last = path.log_final, path.log_loss[-1]
    assert np.log(got.loss) - final == pytest.approx(odds @ means[0], abs=1e-9)
    assert np.log(got.last_reading) - last == pytest.approx(odds @ means[1], abs=1e-9)
    for at, where, share in (
        (got.lower, 0, 0.05), (got.upper, 0, 0.95), (got.last_lower, 1, 0.05), (got.last_upper, 1, 0.95),
    ):  # fmt: skip
        assert odds @ norm.cdf(np.log(at) - (final, last)[where], means[where], sds[where]) == pytest.approx(share)
    assert got.law_scale == pytest.approx(np.exp(odds @ np.log(SCALES)))
    assert (got.step, got.fraction) == (steps[-1], pytest.approx(0.6))
    assert got.readings == 40


def test_before_a_reading_the_interval_is_the_laws_own():
    """It is calibrated by the law: the factor of forecasts widens it from the first reading on."""
    path, none = odd_path(), np.array([])
    one, wide = (reforecast(path, own_prior(spread), none, none) for spread in (1.0, 1.7))
    assert (wide.loss, wide.lower, wide.upper) == (wide.prior_loss, wide.prior_lower, wide.prior_upper)
    assert (wide.lower, wide.upper) == (one.lower, one.upper)
    assert (wide.step, wide.fraction, wide.readings) == (0.0, 0.0, 0)
    assert wide.last_reading == pytest.approx(np.exp(path.log_loss[-1] - own_prior().mean[0]))


def test_the_noise_of_readings_by_hand():
    """1.4826 / sqrt(2) of the median absolute difference, of four differences or more."""
    y = np.array([0.0, 0.01, -0.01, 0.02, 0.02, 0.06])  # differences .01, .02, .03, 0, .04
    assert reading_noise(y) == pytest.approx(1.4826 / np.sqrt(2.0) * 0.02, rel=1e-12)
    assert reading_noise(y[:4]) == FIRST_NOISE


def test_the_weights_of_outliers_by_hand():
    """(4 sds over the distance from the median of the latest 7)^2 beyond 4 sds, above or below; 1 within."""
    y = np.zeros(12)
    y[5], y[7], y[9] = 0.08, -0.12, 0.03
    weight = outlier_weights(y, 0.01)
    expected = np.ones(12)
    expected[5], expected[7] = 1.0 / 4.0, 1.0 / 9.0
    assert (NEIGHBOURS, OUTLIER) == (7, 4.0)
    np.testing.assert_allclose(weight, expected, rtol=1e-12)
    assert outlier_weights(np.array([0.0, 9.0]), 0.01).tolist() == [1.0, 1.0]


def test_a_law_that_is_surer_than_usual_keeps_the_usual_shape():
    prior = own_prior()
    assert [prior.shape_scale(sd) for sd in (0.001, 0.004, 0.012, 1.0)] == [1.0, 1.0, pytest.approx(3.0), MOST_UNSURE]


def test_on_another_corpus_the_shape_is_three_times_less_certain():
    """Than by default for a law of curves; not so the offset, and the level is free."""
    usual, there = CurvePrior.default(True), CurvePrior.elsewhere()
    factor = np.array([1.0, *[3.0] * 5])
    np.testing.assert_allclose(there.covariance, usual.covariance * np.outer(factor, factor), rtol=1e-12)
    assert there.level == 10.0
    assert usual.level == 0.0
