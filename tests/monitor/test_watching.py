"""The monitor as a whole: input, state, winding back, learning."""

import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from monitor_helpers import TOTAL, WSD, expected_curve, feed, new_monitor

from optlaws import CurveTable, Law, RunTable, fit_law, load_law, parse
from optlaws.errors import FitError, InputError, LawError, OptlawsWarning
from optlaws.monitor import CurvePrior, Monitor, learn_prior, paths, with_prior

STEPS = np.arange(100.0, TOTAL + 1, 100.0)


def noisy(monitor, steps=STEPS, seed=0, level=0.02):
    rng = np.random.default_rng(seed)
    return expected_curve(monitor, steps) * np.exp(level * rng.standard_normal(len(steps)))


def test_status_says_where_the_run_is():
    monitor = new_monitor()
    status = feed(monitor, STEPS[:50], noisy(monitor)[:50])
    assert (status.step, status.total, status.fraction, status.readings) == (5000.0, TOTAL, 0.25, 50)
    assert status.in_domain
    assert (status.diverged, status.off_track, status.reasons) == (False, False, ())
    f = status.forecast
    assert f.step == 5000.0
    assert f.lower < f.loss < f.upper
    json.dumps(status.to_dict(), allow_nan=False)


def test_a_status_stays_what_it_was():
    monitor = new_monitor()
    loss = noisy(monitor)
    status = feed(monitor, STEPS[:60], loss[:60])
    before = status.forecast
    feed(monitor, STEPS[60:], 1.05 * loss[60:])
    assert status.forecast == before


def test_statuses_stay_what_they_were_through_blocks_and_winding_back():
    """Blocks are 50 steps long here, and readings 10 apart: statuses of the middle and the end of blocks."""
    monitor, steps = new_monitor(), np.arange(10.0, 5001, 10.0)
    loss = noisy(monitor, steps)
    kept, forecasts = [], []
    for step, one in zip(steps, loss, strict=True):
        kept.append(monitor.update(step, one))
        if step % 130 == 0:
            forecasts.append((len(kept) - 1, monitor.status.forecast))
    monitor.rewind(2000.0)
    feed(monitor, steps[steps > 2000], 1.1 * loss[steps > 2000])
    for place, forecast in forecasts:
        assert kept[place].forecast == forecast


def test_a_table_of_one_run_is_the_same_as_a_schedule():
    runs = RunTable.build(parse(WSD), params=85e6, batch_tokens=51_200)
    one, other = Monitor(load_law("llama-slimpajama"), runs), new_monitor()
    np.testing.assert_array_equal(one.path.log_loss, other.path.log_loss)


def test_bad_input_is_refused():
    law, monitor = load_law("llama-slimpajama"), new_monitor()
    two = RunTable.build([parse(WSD), parse(WSD)], params=85e6, batch_tokens=51_200)
    with pytest.raises(InputError, match="run must be one run, got a table of 2"):
        Monitor(law, two)
    with pytest.raises(InputError, match="params must stand in the run table itself"):
        Monitor(law, two.select([0]), params=1e8)
    with pytest.raises(InputError, match="step must be 0 to 20000, the length of the schedule, got 20001"):
        monitor.update(TOTAL + 1, 3.0)
    with pytest.raises(InputError, match="loss must be above 0"):
        monitor.update(1, 0.0)
    monitor.update(10, 8.0)
    with pytest.raises(InputError, match=r"step must not be below 10, .*rewind\(9\)"):
        monitor.update(9, 8.0)
    with pytest.raises(InputError, match="to go back to"):
        monitor.rewind(-1)


@pytest.mark.parametrize("cut", [1, 37, 150, 199])
def test_state_goes_on_where_it_was(cut):
    whole, first = new_monitor(), new_monitor()
    loss = noisy(whole)
    loss[120:140] *= 1.6  # an alarm that ends
    feed(whole, STEPS, loss)
    feed(first, STEPS[:cut], loss[:cut])
    second = Monitor.from_dict(json.loads(json.dumps(first.to_dict(), allow_nan=False)))
    assert second.status.step == first.status.step
    status = feed(second, STEPS[cut:], loss[cut:])
    assert status.forecast == whole.status.forecast
    assert second.history == whole.history
    assert len(whole.history) >= 1


def test_state_after_a_loss_that_is_not_finite():
    monitor = new_monitor()
    monitor.update(100, 6.0, math.nan)
    monitor.update(200, math.nan)
    again = Monitor.from_dict(json.loads(json.dumps(monitor.to_dict(), allow_nan=False)))
    assert again.status.diverged
    assert math.isnan(again.status.loss)


def test_a_status_with_a_loss_that_is_not_finite_is_json():
    monitor = new_monitor()
    found = json.loads(json.dumps(monitor.update(200, math.inf).to_dict(), allow_nan=False))
    assert found["diverged"]
    assert (found["loss"], found["alarms"][0]["value"], found["alarms"][0]["threshold"]) == (None, None, None)


@pytest.mark.parametrize("state", [{"format": "other"}, {}, None, [1]])
def test_a_state_of_something_else_is_refused(state):
    with pytest.raises(LawError, match="state must be that of a monitor"):
        Monitor.from_dict(state)


@pytest.mark.parametrize(
    "damage", [{"path": {}}, {"blocks": {"x": 1}}, {"step": None}, {"lasting": [{"kind": 1}]}, {"thresholds": None}]
)
def test_a_damaged_state_is_refused(damage):
    with pytest.raises(LawError, match=r"state of a monitor must be whole, got a damaged one .*; start a new monitor"):
        Monitor.from_dict({**new_monitor().to_dict(), **damage})


def test_a_state_from_before_readings_were_counted_goes_on():
    monitor = new_monitor()
    feed(monitor, STEPS, noisy(monitor))
    state = monitor.to_dict()
    del state["blocks"]["counts"]
    assert Monitor.from_dict(state).rewind(5000.0).step == 5000.0


def test_winding_back_counts_the_readings_that_are_left():
    """Blocks are 50 steps long here, and readings 10 apart."""
    monitor, steps = new_monitor(), np.arange(10.0, 5001, 10.0)
    assert feed(monitor, steps, noisy(monitor, steps)).readings == 500
    assert monitor.rewind(2500.0).readings == 249
    assert Monitor.from_dict(monitor.to_dict()).update(2500, 4.0).readings == 250


def test_winding_back_forgets_a_blow_up():
    monitor, never = new_monitor(), new_monitor()
    loss = noisy(monitor)
    bad = loss.copy()
    bad[100:] *= 2.0
    feed(monitor, STEPS[:120], bad[:120])
    assert monitor.status.diverged
    status = monitor.rewind(9000.0)
    assert not status.diverged
    assert status.step == 9000.0
    feed(monitor, STEPS[90:], loss[90:])
    feed(never, STEPS, loss)
    assert monitor.history == ()
    assert monitor.status.forecast.loss == pytest.approx(never.status.forecast.loss, rel=2e-4)


def test_a_law_file_carries_its_prior(tmp_path):
    law = load_law("llama-slimpajama")
    own = CurvePrior(np.full(6, 0.01), 1e-4 * np.eye(6), 1e-3, 1.5, 9)
    with_prior(law, own).save(tmp_path / "law.json")
    again = Monitor(Law.load(tmp_path / "law.json"), parse(WSD), params=85e6, batch_tokens=51_200)
    np.testing.assert_array_equal(again.prior.mean, own.mean)
    assert again.prior.spread == 1.5


def synthetic(count=24, seed=0, offset=0.012, slope=0.05):
    """Runs whose curves depart from a law by a known offset and slow bias."""
    law = load_law("llama-slimpajama")
    rng = np.random.default_rng(seed)
    specs = [
        f"{kind}:peak={peak:g},steps={total},warmup=300"
        for kind in ("cosine", "wsd")
        for peak in (5e-4, 1e-3, 2e-3)
        for total in (10_000, 20_000, 30_000, 40_000)
    ][:count]
    runs = RunTable.build([parse(s) for s in specs], params=85e6, batch_tokens=51_200, status="completed")
    losses = law.predict(runs).loss * np.exp(5e-4 * rng.standard_normal(len(specs)))
    runs = replace(runs, final_loss=losses)
    names, steps, values = [], [], []
    for i, path in enumerate(paths(law, runs)):
        at = np.linspace(400, path.total, 60).round()
        log, effects = path.at(at)
        y = log + np.log(losses[i]) - path.log_final - offset + effects[:, 0] * slope + 3e-4 * rng.standard_normal(60)
        names += [runs.run_id[i]] * 60
        steps.append(at)
        values.append(np.exp(y))
    return runs, CurveTable(tuple(names), np.concatenate(steps), np.concatenate(values))


def test_learning_recovers_offset_and_slope():
    runs, curves = synthetic()
    prior = learn_prior(load_law("llama-slimpajama"), runs, curves, refit=False)
    assert prior.curves == len(runs)
    assert prior.mean[0] == pytest.approx(0.012, abs=5e-4)
    assert prior.mean[1] + prior.mean[2] / 2 == pytest.approx(0.05, abs=0.03)
    assert prior.misfit < 6e-4
    assert np.sqrt(prior.covariance[0, 0]) < 1e-3


def test_a_left_out_family_is_forecast_better_with_its_curves_and_a_learnt_prior():
    runs, curves = synthetic()
    kind = np.array([s.kind for s in runs.schedule_tuple()])
    part = runs.select(kind == "cosine")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptlawsWarning)  # twelve runs are few
        law = fit_law(part)
    prior = learn_prior(law, part, curves)
    errors = {"learnt": [], "default": [], "law": []}
    where = curves.runs()
    for i in np.flatnonzero(kind == "wsd"):
        rows = where[runs.run_id[i]]
        rows = rows[curves.step[rows] <= 0.5 * runs.steps[i]]
        for name, used in (("learnt", prior), ("default", None)):
            monitor = Monitor(law, runs.select([i]), prior=used)
            f = feed(monitor, curves.step[rows], curves.loss[rows]).forecast
            errors[name].append(abs(np.log(f.loss / runs.final_loss[i])))
        errors["law"].append(abs(np.log(f.prior_loss / runs.final_loss[i])))
    assert np.mean(errors["learnt"]) < 0.9 * np.mean(errors["law"])
    assert np.mean(errors["learnt"]) <= np.mean(errors["default"]) + 1e-4


def test_too_few_curves_are_refused():
    runs, curves = synthetic(count=6)
    only = curves.select(np.array([name in runs.run_id[:2] for name in curves.run_id]))
    with pytest.raises(FitError, match="at least 3 finished runs"):
        learn_prior(load_law("llama-slimpajama"), runs, only, refit=False)
