"""Rises that a law expects, and the scatter of a few blocks: neither is taken for divergence."""

import numpy as np
import pytest
from monitor_helpers import TOTAL, expected_curve, feed, new_monitor

from optlaws.monitor import DIVERGENCE
from optlaws.monitor.alarms import block_noise, expected_rises

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
