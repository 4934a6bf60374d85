"""Divergence and off-track alarms: none where a run is well, one soon after a blow-up."""

import math
from pathlib import Path

import numpy as np
import pytest
from monitor_helpers import TOTAL, WSD, expected_curve, feed, new_monitor

import optlaws
from optlaws import load_law, read_curves, read_runs
from optlaws.errors import InputError
from optlaws.monitor import DIVERGENCE, OFF_TRACK, Monitor, Thresholds
from optlaws.monitor.alarms import Blocks, block_noise, expected_rises, window

STEPS = np.arange(50.0, TOTAL + 1, 50.0)
U = STEPS / TOTAL


def run(factor=0.0, noise=0.02, seed=0, spec=WSD, **options):
    """Feed the law's curve times exp(factor) and noise."""
    monitor = new_monitor(spec, **options)
    rng = np.random.default_rng(seed)
    loss = expected_curve(monitor, STEPS) * np.exp(factor + noise * rng.standard_normal(len(STEPS)))
    feed(monitor, STEPS, loss)
    return monitor


def diverged_at(monitor):
    steps = [alarm.step for alarm in monitor.history if alarm.kind == DIVERGENCE]
    return steps[0] / TOTAL if steps else math.nan


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.03, 0.05])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_alarm_on_a_run_that_follows_its_law(noise, seed):
    assert run(noise=noise, seed=seed).history == ()


def test_no_alarm_where_the_rate_goes_up_again():
    spec = f"warm_restarts:peak=1e-3,steps={TOTAL},warmup=300,period=5000"
    monitor = run(spec=spec, noise=0.005)
    assert expected_rises(monitor.path).max() > 0.02
    assert not [a for a in monitor.history if a.kind == DIVERGENCE]


BLOW_UPS = {
    "jump": np.log(1.5) * (U >= 0.4),
    "blow-up": np.log(2.3) * -np.expm1(-np.maximum(U - 0.4, 0) / 0.01),
    "overshoot": (U >= 0.4) * np.log(2.0) * (1 + np.exp(-np.maximum(U - 0.4, 0) / 0.01)),
    "slow": 2.0 * np.maximum(U - 0.4, 0),
    "exponential": np.log1p(0.01 * np.expm1(np.minimum(np.maximum(U - 0.4, 0) / 0.005, 9))),
}


@pytest.mark.parametrize("name", BLOW_UPS)
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
def test_alarm_soon_after_a_blow_up(name, noise):
    at = diverged_at(run(BLOW_UPS[name], noise))
    assert 0.4 <= at <= (0.52 if name == "slow" else 0.45)


@pytest.mark.parametrize("onset", [0.02, 0.1, 0.85])
def test_alarm_early_and_late_in_a_run(onset):
    at = diverged_at(run(np.log(2.5) * (onset <= U) * (1 + 2 * (U - onset))))
    assert onset <= at <= onset + 0.03


SPIKES = {
    "one reading": np.log(3.0) * (STEPS == 8000.0),
    "short": (U >= 0.4) * np.log(1.5) * np.exp(-np.maximum(U - 0.4, 0) / 0.005),
    "large": (U >= 0.4) * np.log(4.0) * np.exp(-np.maximum(U - 0.4, 0) / 0.01),
    "many": np.log(2.0) * (np.arange(len(U)) % 37 == 0),
}


@pytest.mark.parametrize("name", SPIKES)
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_no_alarm_on_spikes_that_recover(name, noise):
    assert math.isnan(diverged_at(run(SPIKES[name], noise)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_divergence_at_once(value):
    monitor = new_monitor()
    monitor.update(100, 6.0)
    status = monitor.update(150, value)
    assert status.diverged
    assert status.new[0].reason == "nonfinite"
    assert f"loss is {value} at step 150" in status.reasons[0]


def test_a_single_bad_reading_is_over_when_the_run_goes_on():
    monitor = new_monitor()
    loss = expected_curve(monitor, STEPS)
    loss[200] = math.nan
    feed(monitor, STEPS, loss)
    (alarm,) = monitor.history
    assert alarm.step == STEPS[200]
    assert alarm.ended <= STEPS[200] + 0.03 * TOTAL


def test_a_loss_that_never_falls_is_stuck():
    monitor = new_monitor()
    feed(monitor, STEPS, np.full(len(STEPS), 7.5))
    assert [a.reason for a in monitor.history if a.kind == DIVERGENCE][:1] == ["stuck"]
    assert diverged_at(monitor) <= 0.15


def test_reach_is_the_best_lower_peak():
    """Within reach is what the law expects of the same schedule at the best lower peak rate; never above the path."""
    law, high = load_law("llama-slimpajama"), new_monitor(WSD.replace("1e-3", "2e-2")).path
    assert (high.reach <= high.log_loss).all()
    ends = []
    for peak in np.geomspace(*law.domain["peak_lr"], 9):
        at = new_monitor(WSD.replace("1e-3", f"{peak:.17g}")).path
        ends.append((at.log_loss[-1], peak))
    best = new_monitor(WSD.replace("1e-3", f"{min(ends)[1]:.17g}")).path
    late = high.steps > 600
    np.testing.assert_allclose(high.reach[late], np.interp(high.steps, best.steps, best.log_loss)[late], atol=2e-3)
    low = new_monitor(WSD.replace("1e-3", f"{law.domain['peak_lr'][0]:.17g}")).path
    assert (low.reach == low.log_loss).all()


def test_a_run_at_a_hopeless_rate_is_stuck_though_the_law_expects_worse():
    """Far outside its domain the law predicts anything; what the run could have reached still tells."""
    monitor = new_monitor(WSD.replace("1e-3", "1e-1"))
    feed(monitor, STEPS, np.full(len(STEPS), 7.0))
    assert monitor.path.log_loss[-1] > np.log(7.0)
    assert diverged_at(monitor) <= 0.2


def test_eight_readings_are_enough_for_stuck():
    monitor = new_monitor()
    steps = np.linspace(TOTAL / 8, TOTAL, 8)
    feed(monitor, steps, np.full(8, 7.5))
    assert monitor.status.diverged


def test_a_state_without_reach_is_read():
    """States written before paths had a reach."""
    state = new_monitor().to_dict()
    del state["path"]["reach"]
    old = Monitor.from_dict(state)
    assert old.path.reach is None
    assert old.update(100, 8.0).diverged is False


@pytest.mark.parametrize(
    "sweep",
    ["cpu_sweep", "cpu_sweep_long", "cpu_sweep_rich", "cpu_sweep_wide", "cpu_sweep_repeats", "cpu_sweep_seeds"],
)
def test_diverged_runs_of_our_sweeps(sweep):
    """Most runs that learnt nothing raise an alarm, and no completed one does."""
    folder = Path(optlaws.__file__).parent / "data" / sweep
    law = load_law(str(folder / "law.json"))
    runs, curves = read_runs(folder / "runs.csv", need_loss=True), read_curves(folder / "curves.csv")
    where, found = curves.runs(), {"diverged": [], "completed": []}
    for i, status in enumerate(runs.status):
        if status == "diverged" or i % 8 == 0:
            rows = where[runs.run_id[i]]
            monitor = Monitor(law, runs.select([i]))
            for step, loss in zip(curves.step[rows], curves.loss[rows], strict=True):
                monitor.update(step, loss)
            found[status].append(any(alarm.kind == DIVERGENCE for alarm in monitor.history))
    assert np.mean(found["diverged"]) >= 0.7
    assert not any(found["completed"])


def test_rise_ends_where_the_run_recovers():
    monitor = run(np.log(1.5) * ((U >= 0.3) & (U < 0.5)))
    found = {a.reason: a for a in monitor.history if a.kind == DIVERGENCE}
    assert 0.3 * TOTAL <= found["rise"].step <= 0.33 * TOTAL
    for alarm in found.values():
        assert 0.5 * TOTAL <= alarm.ended <= 0.53 * TOTAL
    assert not monitor.status.diverged


def test_gradient_norm_brings_the_alarm_forward_and_alone_does_nothing():
    factor = BLOW_UPS["slow"]
    grads = np.where(U >= 0.4, 10.0, 1.0)
    monitor, quiet = new_monitor(), new_monitor()
    loss = expected_curve(monitor, STEPS) * np.exp(factor)
    feed(monitor, STEPS, loss, grads)
    feed(quiet, STEPS, loss)
    assert 0.4 < diverged_at(monitor) < diverged_at(quiet) - 0.01
    calm = new_monitor()
    feed(calm, STEPS, expected_curve(calm, STEPS), grads)
    assert calm.history == ()


def test_off_track_above_and_below():
    for shift, reason in ((0.2, "above"), (-0.2, "below")):
        monitor = run(shift * (U >= 0.3), noise=0.01)
        found = [a for a in monitor.history if a.kind == OFF_TRACK]
        assert [a.reason for a in found] == [reason]
        assert 0.3 < found[0].step / TOTAL < 0.45
        assert monitor.status.off_track


def test_alarms_see_only_the_past():
    factor = BLOW_UPS["jump"]
    monitor = new_monitor()
    loss = expected_curve(monitor, STEPS) * np.exp(factor)
    first = next(k for k, (s, y) in enumerate(zip(STEPS, loss, strict=True)) if monitor.update(s, y).new)
    other = new_monitor()
    for s, y in zip(STEPS[: first + 1], loss[: first + 1], strict=True):
        status = other.update(s, y)
    assert status.new


def test_how_often_a_run_is_logged_hardly_matters():
    at = []
    for every in (10, 50, 200):
        monitor, steps = new_monitor(), np.arange(every, TOTAL + 1, float(every))
        rng = np.random.default_rng(0)
        factor = np.log(1.6) * (steps >= 0.4 * TOTAL) + 0.02 * rng.standard_normal(len(steps))
        feed(monitor, steps, expected_curve(monitor, steps) * np.exp(factor))
        at.append(diverged_at(monitor))
    assert all(0.4 <= a <= 0.45 for a in at)


def test_thresholds_are_checked_and_used():
    with pytest.raises(InputError, match="rise must be a finite number above 0, got -1"):
        Thresholds(rise=-1)
    with pytest.raises(InputError, match=r"patience must be a fraction of the run of at most 0\.5, got 2"):
        Thresholds(patience=2)
    with pytest.raises(InputError, match="no threshold 'rize'; did you mean 'rise'"):
        Thresholds.from_dict({"rize": 1.0})
    bump = np.log(1.04) * (U >= 0.5)
    assert math.isnan(diverged_at(run(bump, noise=0.0)))
    assert diverged_at(run(bump, noise=0.0, thresholds=Thresholds(rise=0.02))) >= 0.5


def test_blocks_keep_medians_and_thin_what_is_too_much():
    blocks = Blocks(100.0)
    for k in range(250):
        blocks.add(k, math.log(3.0) + (5.0 if k == 7 else 0.0), math.nan)
    steps, logs, grads = blocks.arrays()
    assert len(steps) == 3
    assert logs == pytest.approx([math.log(3.0)] * 3)
    assert all(math.isnan(g) for g in grads)
    one = Blocks(1e6)
    for k in range(10_000):
        one.add(k, float(k), 1.0)
    assert len(one.open_steps) < 128
    assert one.current()[1] == pytest.approx(5000, rel=0.02)


def test_window_and_noise():
    assert window([1.0, 2.0, 3.0, 4.0], 2.0, 1) == 2
    assert window([1.0, 100.0], 2.0, 3) == 3
    rng = np.random.default_rng(0)
    assert block_noise((0.1 * rng.standard_normal(65)).tolist()) == pytest.approx(0.1, rel=0.4)
    assert block_noise([1.0]) == 0.0
