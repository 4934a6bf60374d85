"""The re-forecast: against dense formulas, limits that must hold, and recovery of what was put in."""

from dataclasses import astuple

import numpy as np
import pytest
from monitor_helpers import plain_path
from scipy.stats import norm

from optlaws.errors import InputError, LawError
from optlaws.monitor import CurvePrior, reforecast
from optlaws.monitor.forecast import (
    FORGETTING,
    INDEPENDENT,
    MOST_SHAPE,
    SCALE_ODDS,
    SCALES,
    check_prior,
    independent_share,
    mixture,
    outlier_weights,
    posterior,
    reading_noise,
)

SIZE = 6


def prior(offset=0.0, offset_sd=1e-4, effect_sd=0.02, misfit=5e-4, law_sd=0.0):
    mean = np.zeros(SIZE)
    mean[0] = offset
    return CurvePrior(mean, np.diag(np.array([offset_sd, *[effect_sd] * 5]) ** 2), misfit, law_sd=law_sd)


def readings(path, shift=0.0, weights=None, until=0.5, count=60, seed=0, noise=5e-4):
    steps = np.linspace(path.start, until * path.total, count)
    log, effects = path.at(steps)
    extra = 0.0 if weights is None else effects @ weights
    return steps, log + shift + extra + noise * np.random.default_rng(seed).standard_normal(count)


def test_without_readings_it_is_the_laws_answer():
    path = plain_path()
    f = reforecast(path, prior(), np.array([]), np.array([]))
    assert f.loss == f.prior_loss == pytest.approx(3.0)
    assert (f.lower, f.upper) == (f.prior_lower, f.prior_upper)
    assert f.readings == 0
    early = reforecast(path, prior(), np.array([1.0, 10.0]), np.array([5.0, 5.0]))
    assert early.loss == f.loss  # readings before `start` say nothing


def test_posterior_equals_the_dense_formula():
    rng = np.random.default_rng(0)
    design, y, weight = rng.standard_normal((12, 4)), rng.standard_normal(12), rng.uniform(0.5, 2, 12)
    root = rng.standard_normal((3, 4, 4))
    covariance = root @ root.transpose(0, 2, 1)
    mean, spread, evidence = posterior(design, y, weight, covariance)
    full = []
    for k in range(3):
        s = design @ covariance[k] @ design.T + np.diag(1 / weight)
        gain = covariance[k] @ design.T @ np.linalg.inv(s)
        np.testing.assert_allclose(mean[k], gain @ y, rtol=1e-8)
        np.testing.assert_allclose(spread[k], covariance[k] - gain @ design @ covariance[k], atol=1e-8)
        full.append(-0.5 * (y @ np.linalg.solve(s, y) + np.linalg.slogdet(s)[1]))
    np.testing.assert_allclose(np.diff(evidence), np.diff(full), rtol=1e-8)


def test_forecast_equals_a_naive_twin():
    path, p = plain_path(sd=0.01), prior(offset=0.01, offset_sd=0.002, law_sd=0.004)  # unsure 2.5 times
    steps, log = readings(path, shift=0.004, seed=3)
    got = reforecast(path, p, steps, log)

    expected, effects = path.at(steps)
    y = log - expected
    noise = reading_noise(y)
    weights = outlier_weights(y, noise)
    means, sds, evidences = [], [], []
    for m in SCALES:
        c = np.zeros((SIZE + 1, SIZE + 1))
        c[0, 0] = (m * path.sd) ** 2
        c[1, 1] = p.covariance[0, 0]
        c[2:, 2:] = (2.5 * min(m, MOST_SHAPE)) ** 2 * p.covariance[1:, 1:]
        h = np.column_stack([np.ones(len(y)), -np.ones(len(y)), effects])
        variance = []
        for k in range(len(steps)):
            share = 1.0 if k == 0 else min(INDEPENDENT * np.log(steps[k] / steps[k - 1]), 1.0)
            age = (steps[k] / steps[-1]) ** FORGETTING
            variance.append((p.misfit**2 / share + noise**2) / age / weights[k])
        joint = h @ c @ h.T + np.diag(variance)
        r = y - h @ np.array([0.0, *p.mean])
        gain = c[0] @ h.T @ np.linalg.inv(joint)
        means.append(gain @ r)
        sds.append(np.sqrt(c[0, 0] - gain @ h @ c[0]))
        evidences.append(-0.5 * (r @ np.linalg.solve(joint, r) + np.linalg.slogdet(joint)[1]))
    odds = SCALE_ODDS * np.exp(np.array(evidences) - max(evidences))
    odds /= odds.sum()
    assert np.log(got.loss / 3.0) == pytest.approx(odds @ means, abs=1e-9)
    cdf = odds @ norm.cdf(np.log(got.lower / 3.0), means, sds)
    assert cdf == pytest.approx(0.05, abs=1e-6)


def test_mixture_of_equal_parts_is_one_normal():
    centre, low, high = mixture(np.full(5, 0.3), np.full(5, 2.0), SCALE_ODDS)
    assert (centre, low, high) == pytest.approx((0.3, 0.3 - 1.6448536 * 2, 0.3 + 1.6448536 * 2))


def test_a_run_that_follows_its_law_keeps_the_laws_precision():
    path = plain_path(sd=0.002)
    f = reforecast(path, prior(effect_sd=0.1), *readings(path, until=0.25))
    assert f.law_scale < 1.3
    assert np.log(f.upper / f.lower) <= np.log(f.prior_upper / f.prior_lower)
    assert abs(np.log(f.loss / 3.0)) < 0.002


@pytest.mark.parametrize("shift", [-0.1, 0.03, 0.25])
def test_other_data_move_the_level_by_many_sds_and_are_followed(shift):
    path = plain_path(sd=0.002)
    f = reforecast(path, prior(), *readings(path, shift=shift, until=0.8))
    assert np.log(f.loss / 3.0) == pytest.approx(shift, abs=0.01)
    assert f.lower < 3.0 * np.exp(shift) < f.upper
    assert f.law_scale > 3


def test_effects_that_vanish_at_the_end_leave_the_final_loss_alone():
    path, weights = plain_path(sd=0.02), np.array([0.04, 0.02, -0.03, 0.0, 0.02])
    f = reforecast(path, prior(effect_sd=0.05), *readings(path, weights=weights, until=0.7))
    assert abs(np.log(f.loss / 3.0)) < 0.006
    assert f.lower < 3.0 < f.upper


def test_offset_between_evaluation_sets_parts_final_loss_and_last_reading():
    path = plain_path(sd=0.002)
    f = reforecast(path, prior(offset=0.012), *readings(path, shift=-0.012))
    assert f.loss == pytest.approx(3.0, rel=0.002)
    assert f.last_reading == pytest.approx(3.0 * np.exp(-0.012), rel=0.002)


def test_unknown_offset_leaves_the_final_loss_to_the_law():
    path = plain_path(sd=0.002)
    f = reforecast(path, CurvePrior.default(False), *readings(path, shift=-0.015))
    assert abs(np.log(f.loss / 3.0)) < 0.002
    assert -0.02 < np.log(f.last_reading / 3.0) < -0.005
    assert f.last_lower < 3.0 * np.exp(-0.015) < f.last_upper


def test_logging_ten_times_as_often_hardly_changes_the_answer():
    path = plain_path()
    few = reforecast(path, prior(), *readings(path, shift=0.01, noise=0.0, count=40))
    many = reforecast(path, prior(), *readings(path, shift=0.01, noise=0.0, count=400))
    assert many.loss == pytest.approx(few.loss, rel=5e-4)
    assert many.upper - many.lower == pytest.approx(few.upper - few.lower, rel=0.25)


def test_a_run_that_the_law_is_unsure_of_has_an_unsure_shape():
    steps, log = readings(plain_path(), shift=0.01, until=0.3)
    sure, unsure = (reforecast(plain_path(), prior(law_sd=sd), steps, log) for sd in (0.02, 0.002))
    assert unsure.upper - unsure.lower > 1.1 * (sure.upper - sure.lower)
    assert prior(law_sd=0.002).shape_scale(0.006) == pytest.approx(3.0)
    assert prior(law_sd=0.0).shape_scale(0.006) == 1.0


def test_one_spike_hardly_moves_it():
    path = plain_path()
    steps, log = readings(path)
    calm = reforecast(path, prior(), steps, log)
    log = log.copy()
    log[40] += 1.0
    assert reforecast(path, prior(), steps, log).loss == pytest.approx(calm.loss, rel=5e-4)


def test_intervals_cover_curves_drawn_from_the_model():
    path, p = plain_path(sd=0.004), prior(effect_sd=0.03, offset=0.01, offset_sd=0.001)
    rng, inside = np.random.default_rng(5), []
    for seed in range(150):
        e = 0.004 * rng.standard_normal()
        offset, *w = p.mean + np.sqrt(np.diag(p.covariance)) * rng.standard_normal(SIZE)
        steps, log = readings(path, shift=e - offset, weights=np.array(w), until=0.4, count=40, seed=seed)
        f = reforecast(path, p, steps, log)
        inside.append(f.lower <= 3.0 * np.exp(e) <= f.upper)
    assert 0.84 <= np.mean(inside) <= 0.98  # binomial band about 0.9; the mixture and FORGETTING make it wider


def test_noise_is_measured_in_spite_of_spikes():
    rng = np.random.default_rng(0)
    y = 0.03 * rng.standard_normal(400)
    y[::23] += 2.0
    assert reading_noise(y) == pytest.approx(0.03, rel=0.3)
    assert reading_noise(y[:3]) == 0.01


def test_close_readings_share_what_they_add():
    steps = np.geomspace(100.0, 100.0 * np.e, 1001)
    assert independent_share(steps).sum() == pytest.approx(INDEPENDENT + 1, rel=1e-6)
    assert independent_share(np.array([1.0, 10.0, 100.0])).tolist() == [1.0, 1.0, 1.0]


def test_readings_of_one_step_are_one_their_mean():
    """A log that has a step several times tells no more, and no less, than one with the mean of these readings."""
    path = plain_path()
    steps, log = readings(path, shift=0.01, noise=0.002, until=0.6)
    once = reforecast(path, prior(), steps, log)
    twice = reforecast(path, prior(), np.repeat(steps, 2), np.repeat(log, 2))
    assert astuple(twice) == pytest.approx(astuple(once), rel=1e-12)
    around = np.repeat(log, 3) + np.tile([-0.004, 0.004, 0.0], len(log))
    assert astuple(reforecast(path, prior(), np.repeat(steps, 3), around)) == pytest.approx(astuple(once), rel=1e-9)
    last = reforecast(path, prior(), np.append(steps, [steps[-1]] * 30), np.append(log, [log[-1]] * 30))
    assert astuple(last) == pytest.approx(astuple(once), rel=1e-12)


def test_prior_round_trips_and_refuses_others():
    p = prior(offset=0.01)
    again = CurvePrior.from_dict(p.to_dict())
    np.testing.assert_array_equal(again.covariance, p.covariance)
    assert (again.misfit, again.spread, again.law_sd) == (p.misfit, p.spread, p.law_sd)
    with pytest.raises(LawError, match="effects of a monitor's prior must be slow_bias"):
        CurvePrior.from_dict({**p.to_dict(), "effects": ["slow_bias"]})
    with pytest.raises(LawError, match="must have 'misfit'"):
        CurvePrior.from_dict({k: v for k, v in p.to_dict().items() if k != "misfit"})
    with pytest.raises(LawError, match=r"mean must have the shape \(6,\), got \(1,\)"):
        CurvePrior.from_dict({**p.to_dict(), "mean": [0.0]})
    with pytest.raises(InputError, match="finite numbers"):
        check_prior(CurvePrior(np.full(SIZE, np.nan), p.covariance, 1e-3))


def test_on_another_corpus_the_level_is_the_curves():
    """Losses in another unit give the same forecast in that unit; the law's level, and its offset, say nothing."""
    path = plain_path(sd=0.002)
    steps, log = readings(path, weights=np.array([0.1, 0.0, 0.02, 0.0, 0.0]))
    found = [reforecast(path, CurvePrior.elsewhere(), steps, log + shift) for shift in (0.0, np.log(2.0), -1.0)]
    for one, factor in zip(found[1:], (2.0, np.exp(-1.0)), strict=True):
        for name in ("loss", "lower", "upper", "last_reading"):
            assert getattr(one, name) == pytest.approx(factor * getattr(found[0], name), rel=2e-4)
    assert found[0].loss == pytest.approx(found[0].last_reading, rel=1e-4)
    assert found[0].lower < 3.0 < found[0].upper  # the path's end, where the effects vanish
    before = reforecast(path, CurvePrior.elsewhere(), np.array([]), np.array([]))
    assert (before.loss, before.lower, before.upper) == (before.prior_loss, before.prior_lower, before.prior_upper)
