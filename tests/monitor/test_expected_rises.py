"""Rises that a law expects, and the scatter of a few blocks: neither is taken for divergence."""

import numpy as np
import pytest
from monitor_helpers import TOTAL, expected_curve, feed, new_monitor, plain_path

from optlaws.monitor import DIVERGENCE, CurvePrior
from optlaws.monitor.alarms import block_noise, departures, expected_rises

STEPS = np.arange(50.0, TOTAL + 1, 50.0)
RESTARTS = f"warm_restarts:peak=4e-3,steps={TOTAL},warmup=300,period=5000"


def rises():
    """How far above its lowest so far the law's curve is, reading by reading."""
    path = new_monitor(RESTARTS).path
    logs = np.array([path.log_loss_at(s) for s in STEPS])
    lowest, out = np.inf, []
    for step, log in zip(STEPS, logs, strict=True):
        lowest = min(lowest, log) if step >= path.start else np.inf
        out.append(log - lowest if step >= path.start else 0.0)
    return np.array(out)


def watched(factor):
    monitor = new_monitor(RESTARTS)
    feed(monitor, STEPS, expected_curve(monitor, STEPS) * np.exp(factor))
    return [alarm for alarm in monitor.history if alarm.kind == DIVERGENCE]


def test_expected_rises_are_those_above_the_lowest_so_far():
    path = new_monitor(RESTARTS).path
    own = np.interp(STEPS, path.steps, expected_rises(path))
    np.testing.assert_allclose(own, rises(), atol=5e-3)
    assert own.max() > 0.08


@pytest.mark.parametrize(("more", "diverged"), [(0.0, False), (0.9, False), (2.0, True)])
def test_a_restart_may_raise_the_loss_by_twice_what_the_law_expects(more, diverged):
    assert bool(watched(more * rises())) is diverged


def test_a_run_is_well_again_where_it_is_back_on_a_curve_that_rises():
    """A jump from step 4000 to 6000; the rate went up again at 5000, and the law's own curve with it."""
    (alarm,) = watched(np.log(1.6) * ((STEPS >= 4000) & (STEPS < 6000)))
    assert 4000 <= alarm.step <= 4600
    assert 6000 <= alarm.ended <= 6600


@pytest.mark.parametrize("count", [3, 4, 5, 8])
def test_the_scatter_of_a_few_blocks_is_not_underrated(count):
    """Told from so few it is put too high on average, and hardly ever at less than half of what it is."""
    rng = np.random.default_rng(count)
    found = np.array([block_noise(rng.standard_normal(count).tolist()) for _ in range(2000)])
    assert (found < 0.5).mean() < 0.12
    assert np.median(found) > 1.0
    many = [block_noise(rng.standard_normal(66).tolist()) for _ in range(200)]
    assert np.mean(many) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(("lasting", "given_time"), [(0.05, True), (0.15, False)])
def test_a_spike_that_loses_a_fifth_of_its_height_in_a_window_is_given_time(lasting, given_time):
    """A window is 2 % of the run and a spike on its way back has 6 %: one that hardly falls is told after the first."""
    monitor, u = new_monitor(), STEPS / TOTAL
    factor = np.log(4.0) * (u >= 0.4) * np.exp(-np.maximum(u - 0.4, 0.0) / lasting)
    feed(monitor, STEPS, expected_curve(monitor, STEPS) * np.exp(factor))
    at = next(alarm.step / TOTAL for alarm in monitor.history if alarm.kind == DIVERGENCE)
    assert (at > 0.44) is given_time
    assert 0.4 < at < 0.48


def test_departures_are_in_sds_of_all_that_is_not_known():
    """Reading by reading: the law's sd, what curves depart by, misfit, another corpus' level, noise of a block."""
    path, rng = plain_path(sd=0.01), np.random.default_rng(2)
    root = 0.01 * rng.standard_normal((6, 6))
    mean = 0.01 * rng.standard_normal(6)
    steps, noise = np.linspace(100.0, 900.0, 7), 0.004
    expected, effects = path.at(steps)
    logs = expected + 0.03 * rng.standard_normal(7)
    for spread, factor in ((0.5, 1.0), (1.0, 1.0), (3.0, 3.0)):  # widths learnt below 1 do not make alarms of nothing
        for level in (0.0, 0.2):
            prior = CurvePrior(mean, root @ root.T, 0.002, spread=spread, law_sd=0.01, level=level)
            z = departures(path, prior, steps, logs, noise)
            own = prior.shape_covariance(prior.shape_scale(path.sd))
            for i in range(7):
                d = np.array([-1.0, *effects[i]])
                variance = factor**2 * (0.01**2 + d @ own @ d + 0.002**2) + level**2 + noise**2
                assert z[i] == pytest.approx((logs[i] - expected[i] - d @ mean) / np.sqrt(variance), rel=1e-9)
