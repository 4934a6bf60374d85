"""What the law expects along a run."""

from dataclasses import replace

import numpy as np
import pytest
from monitor_helpers import TOTAL, WSD, new_monitor

from optlaws import RunTable, load_law, parse
from optlaws.dynamics import curve_states
from optlaws.errors import InputError
from optlaws.law import builtin_names
from optlaws.monitor import Path, paths
from optlaws.monitor.path import with_reach

LAW = load_law("llama-slimpajama")
SPECS = [
    WSD,
    f"cosine:peak=1e-3,steps={TOTAL},warmup=300",
    f"constant:peak=5e-4,steps={TOTAL},warmup=300",
    f"warm_restarts:peak=1e-3,steps={TOTAL},warmup=300,period=5000",
    "wsd:peak=1e-3,steps=40,warmup=4,decay=0.5",
]


@pytest.mark.parametrize("spec", SPECS)
def test_path_follows_the_law_and_effects_vanish_at_the_end(spec):
    runs = RunTable.build(parse(spec), params=85e6, batch_tokens=51_200)
    (path,) = paths(LAW, runs)
    assert np.isfinite(path.effects).all()
    np.testing.assert_array_equal(path.effects[-1], 0.0)
    assert path.total == runs.steps[0]
    assert np.exp(path.log_final) == pytest.approx(float(LAW.predict(runs).loss[0]), rel=1e-12)
    at = np.unique(np.linspace(max(path.start, 2), path.total, 37).round())
    expected = LAW.predict_curve(runs, at).loss
    np.testing.assert_allclose(np.exp(path.at(at)[0]), expected, rtol=2e-3)
    for s in at:
        assert path.log_loss_at(s) == pytest.approx(path.at(np.array([s]))[0][0], abs=1e-12)


def test_bias_effects_fall_along_a_run():
    path = new_monitor(SPECS[2]).path
    late = path.steps >= path.start
    assert (np.diff(path.effects[late, :2], axis=0) <= 1e-12).all()


def test_noise_effects_are_what_annealing_removes():
    path = new_monitor(WSD).path
    before = path.at(np.array([0.79 * TOTAL]))[1][0, 2:]
    assert (before[1:] > 0).all()
    assert before[2] > before[1] > before[0]  # fast modes follow the rate down, slow ones hardly


def test_many_runs_at_once_and_own_steps():
    schedules = [parse(spec) for spec in SPECS]
    runs = RunTable.build(schedules, params=85e6, batch_tokens=51_200)
    steps = [np.array([5.0, 20.0])] * len(schedules)
    for one, (spec, path) in enumerate(zip(SPECS, paths(LAW, runs, steps), strict=True)):
        assert path.steps.tolist() == [5.0, 20.0, float(schedules[one].total_steps)], spec
        alone = paths(LAW, runs.select([one]), [steps[0]])[0]
        np.testing.assert_allclose(path.effects, alone.effects, atol=1e-12)


def test_path_round_trips():
    path = new_monitor().path
    again = Path.from_dict(path.to_dict())
    np.testing.assert_array_equal(again.effects, path.effects)
    assert (again.start, again.sd, again.reason) == (path.start, path.sd, path.reason)


def test_a_run_of_one_step_is_refused():
    runs = RunTable.build(parse("constant:peak=1e-3,steps=1"), params=85e6, batch_tokens=51_200)
    with pytest.raises(InputError, match="at least 2 steps, got 1"):
        paths(LAW, runs)


@pytest.mark.parametrize("name", builtin_names())
def test_effects_are_what_is_not_yet_learnt_and_the_variances(name):
    """Bias as a share of the final loss, 1 % at least and 30 times its end at most; modes second, middle and last."""
    law = load_law(name)
    runs = RunTable.build(parse(WSD), params=85e6, batch_tokens=51_200, weight_decay=0.1)
    (path,) = paths(law, runs)
    states = curve_states(runs.schedule_tuple(), [path.steps], law.drive(runs), law.basis.dynamics)
    place = law.basis.names.index("bias")
    bias = law.basis.evaluate(states, use_batch=law.use_batch)[:, place]
    share = law.posterior.coefficients[place] * bias[-1] / np.exp(path.log_loss[-1])
    ratio = np.minimum(bias / bias[-1], 30.0)
    slow = max(share, 0.01) * ratio
    modes = states.variance.shape[1]
    noise = states.variance[:, [1, modes // 2, modes - 1]]
    naive = np.column_stack([slow, slow * ratio**1.5 / 3.0, noise])
    assert ratio.max() > 2.0
    np.testing.assert_allclose(path.effects, naive - naive[-1], rtol=1e-9, atol=1e-12)


def test_of_a_law_of_curves_the_path_is_on_their_evaluation_set():
    """Its final loss is not: the offset that the law has found lies between them."""
    mean = LAW.posterior.mean.copy()
    mean[-1] = 1.0
    law = replace(LAW, has_curves=True, posterior=replace(LAW.posterior, mean=mean))
    runs = RunTable.build(parse(WSD), params=85e6, batch_tokens=51_200)
    (plain,), (path,) = paths(LAW, runs), paths(law, runs)
    at = np.linspace(5000.0, TOTAL, 9).round()
    np.testing.assert_allclose(np.exp(path.at(at)[0]), law.predict_curve(runs, at).loss, rtol=2e-3)
    assert (path.log_loss > plain.log_loss + 0.5 * law.posterior.settings.source_sd).all()
    assert path.log_final == pytest.approx(plain.log_final, rel=1e-12)
    reach, other = with_reach(path, law, runs).reach, with_reach(plain, LAW, runs).reach
    np.testing.assert_allclose((reach - other)[-20:], (path.log_loss - plain.log_loss)[-20:])
