"""One list of all schedules, and what must hold for every one; then what the solvers refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import DYNAMICS, NAMES, SCHEDULES, SETTINGS, STATES, STEPS, examples, table

from optlaws.dynamics import Dynamics, States, curve_states, drive, final_states, join_states
from optlaws.dynamics.model import default_weight_decay, regime
from optlaws.errors import InputError
from optlaws.runs import RunTable
from optlaws.schedules import (
    Schedule,
    ScheduleBatch,
    cells,
    chain,
    constant,
    cosine,
    exponential,
    from_array,
    linear,
    piecewise,
    wsd,
)

FLOOR = {"peak": 0.0, "tau": 0.0, "variance": -1e-12, "escape": 0.0}  # rounding may leave a variance just below 0


def assert_sound(states: States) -> None:
    """Check that every state is finite and not negative."""
    for name in States.__dataclass_fields__:
        values = getattr(states, name)
        assert values.dtype == np.float64, name
        assert np.all(np.isfinite(values)), name
        assert np.all(values >= FLOOR.get(name, 1e-300)), name


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("steps", [20, STEPS, 100_000])
def test_states_are_finite_and_not_negative(steps: int, setting: str) -> None:
    for peak in (1e-8, 2e-3, 1.0):
        states = final_states(table(list(examples(steps, peak).values()), SETTINGS[setting]), DYNAMICS)
        assert states.variance.shape == (len(NAMES), DYNAMICS.modes)
        assert len(states) == len(NAMES)
        assert_sound(states)


@pytest.mark.parametrize("setting", SETTINGS)
def test_curves_only_grow_in_time_peak_and_escape(setting: str) -> None:
    steps = np.arange(1.0, STEPS + 1)
    runs = table(list(SCHEDULES.values()), SETTINGS[setting])
    states = curve_states(runs.schedule_tuple(), [steps] * len(runs), drive(runs, DYNAMICS), DYNAMICS)
    assert_sound(states)
    for name in ("t", "d", "tau", "peak", "escape"):
        curves = getattr(states, name).reshape(len(runs), STEPS)
        assert np.all(np.diff(curves, axis=1) >= 0), name
    rates = np.array([s.array() for s in SCHEDULES.values()])
    tau = states.tau.reshape(len(runs), STEPS)
    assert np.all((np.diff(tau, axis=1, prepend=0.0) > 0) | (rates < 1e-12))  # strictly wherever the rate is not 0
    if SETTINGS[setting].weight_decay == 0:
        assert np.all(np.diff(states.radius.reshape(len(runs), STEPS), axis=1) >= 0)


@pytest.mark.parametrize("setting", SETTINGS)
def test_more_rate_is_more_time_and_more_escape(setting: str) -> None:
    found = [
        final_states(table(list(examples(STEPS, peak).values()), SETTINGS[setting]), DYNAMICS)
        for peak in np.geomspace(1e-6, 1e-1, 11)
    ]
    for name in ("peak", "tau", "escape"):  # u = x / R grows with x at every step, however the norm reacts
        values = np.array([getattr(states, name) for states in found])
        assert np.all(np.diff(values, axis=0) > 0), name


def test_variance_stays_below_the_highest_temperature() -> None:
    for setting in SETTINGS.values():
        steps = np.arange(1.0, STEPS + 1)
        runs = table(list(SCHEDULES.values()), setting, batch=None)
        run = drive(runs, DYNAMICS, use_batch=False)
        states = curve_states(runs.schedule_tuple(), [steps] * len(runs), run, DYNAMICS)
        q = 1.0 if setting.plain else DYNAMICS.temperature_exponent
        felt = states.peak / states.radius.reshape(len(runs), STEPS).min(axis=1).clip(max=1.0).repeat(STEPS)
        assert np.all(states.variance <= (felt**q)[:, None] * (1 + 1e-9))


SPLITS: dict[str, tuple[Schedule, Schedule]] = {
    "constant": (constant(2e-3, 1000), chain(constant(2e-3, 137), constant(2e-3, 863))),
    "linear": (linear(2e-3, 1000), piecewise([(0, 2e-3), (250, 1.5e-3), (800, 4e-4), (1000, 0.0)], 1000)),
    "exponential": (
        exponential(1e-3, 1000, 1e-5),
        chain(exponential(1e-3, 400, 1e-3 * 10**-0.8), exponential(1e-3 * 10**-0.8, 600, 1e-5)),
    ),
    "wsd": (wsd(1e-3, 1000, 0.2, warmup=100), chain(wsd(1e-3, 700, 0.0, warmup=100), wsd(1e-3, 300, 200))),
}


@pytest.mark.parametrize("name", SPLITS)
def test_splitting_a_phase_changes_nothing(name: str) -> None:
    pair = SPLITS[name]
    np.testing.assert_allclose(pair[0].array(), pair[1].array(), rtol=1e-12, atol=1e-18)
    for setting in SETTINGS.values():
        for resolution, tolerance in ((1.0, 4e-2), (16.0, 2e-3)):
            states = final_states(table(pair, setting), DYNAMICS, resolution=resolution)
            for state in STATES:
                whole, split = getattr(states, state)
                np.testing.assert_allclose(split, whole, rtol=tolerance, err_msg=state)
        if name == "constant":  # exact but for rounding without a change of the norm and of the critical batch
            frozen = final_states(
                table(pair, replace(setting, weight_decay=0.0)), replace(DYNAMICS, kappa=1e-300), use_batch=False
            )
            for state in STATES:
                whole, split = getattr(frozen, state)
                np.testing.assert_allclose(split, whole, rtol=1e-9, err_msg=state)


@pytest.mark.parametrize("name", NAMES)
def test_splitting_an_array_changes_nothing(name: str) -> None:
    rates = SCHEDULES[name].array()
    pair = (from_array(rates), chain(from_array(rates[:217]), from_array(rates[217:])))
    for resolution, tolerance in ((1.0, 5e-2), (32.0, 1e-9)):  # at 32 every step is a cell in both
        states = final_states(table(pair), DYNAMICS, resolution=resolution)
        for state in ("tau", "radius", "variance", "escape"):
            whole, split = getattr(states, state)
            np.testing.assert_allclose(split, whole, rtol=tolerance, atol=tolerance * whole.max(), err_msg=state)


@pytest.mark.parametrize("steps", [STEPS, 5000])
def test_the_peak_of_an_array_is_its_highest_rate(steps: int) -> None:
    for name, s in examples(steps).items():
        states = final_states(table([from_array(s.array())]), DYNAMICS)
        peak = s.array().max() / DYNAMICS.lr_ref * states.n[0] ** DYNAMICS.size_exponent
        assert states.peak[0] == pytest.approx(peak, rel=1e-12), name


def test_an_array_is_the_schedule_it_holds() -> None:
    for name, s in SCHEDULES.items():
        states = final_states(table([s, from_array(s.array())]), DYNAMICS, resolution=16.0)
        for state in ("tau", "radius", "escape"):
            formula, array = getattr(states, state)
            assert array == pytest.approx(formula, rel=1e-3), (name, state)


def test_long_schedules_have_as_many_cells_and_sound_states() -> None:
    families: list[tuple[str, dict[str, Any]]] = [
        ("constant", {"warmup": 0.01}),
        ("linear", {"warmup": 0.01}),
        ("cosine", {"warmup": 0.01}),
        ("wsd", {"warmup": 0.01, "decay": 0.2, "shape": "sqrt"}),
        ("exponential", {"final": 1e-6}),
    ]
    for kind, more in families:
        schedules = [Schedule(kind, peak=1e-3, steps=steps, **more) for steps in (10**4, 10**6, 10**9)]
        counts = {grid.mean.shape[1] for s in schedules for _, grid in cells(ScheduleBatch.from_schedules([s]))}
        assert len(counts) == 1, kind
        assert counts.pop() <= 150, kind
        states = final_states(table(schedules), DYNAMICS)
        assert_sound(states)
        assert np.all(np.diff(states.tau) > 0), kind


def test_a_million_steps() -> None:
    schedules = examples(10**6)
    for setting in SETTINGS.values():
        assert_sound(final_states(table(list(schedules.values()), setting), DYNAMICS))
    s = schedules["wsd-sqrt"]
    runs = table([s, from_array(s.array())])
    formula, array = final_states(runs, DYNAMICS).tau
    assert array == pytest.approx(formula, rel=2e-2)
    curve = curve_states([s], [np.array([1.0, 500_000.0, 1e6])], drive(runs.select([0]), DYNAMICS), DYNAMICS)
    assert curve.tau[-1] == pytest.approx(formula, rel=1e-2)


def test_one_step() -> None:
    schedules = [constant(1e-3, 1), from_array([1e-3]), cosine(1e-3, 1), linear(1e-3, 1), wsd(1e-3, 1, 0.0)]
    for setting in SETTINGS.values():
        states = final_states(table(schedules, setting), DYNAMICS)
        assert_sound(states)
        for name in STATES:
            values = getattr(states, name)[:2]
            np.testing.assert_allclose(values[1], values[0], rtol=1e-9, err_msg=name)
        assert states.t.tolist() == [1 / DYNAMICS.steps_ref] * len(schedules)


def test_rates_of_zero_stop_the_clock() -> None:
    pause = piecewise([(0, 2e-3), (300, 2e-3), (300, 0.0), (600, 0.0)], 600)
    stop = constant(2e-3, 300)
    for setting in SETTINGS.values():
        states = final_states(table([pause, stop], replace(setting, weight_decay=0.0)), DYNAMICS)
        assert_sound(states)
        for name in ("peak", "tau", "radius", "variance", "escape"):
            paused, stopped = getattr(states, name)
            np.testing.assert_allclose(paused, stopped, rtol=1e-9, err_msg=name)
        assert states.t[0] == 2 * states.t[1]


@pytest.mark.parametrize(("name", "column"), [("params", "params"), ("batch_tokens", "batch_tokens")])
def test_a_missing_number_is_named_unless_the_law_does_not_use_it(name: str, column: str) -> None:
    known = {"params": [1e8, 2e8], "batch_tokens": [1e5, 2e5]}
    runs = RunTable.build([SCHEDULES["cosine"]] * 2, run_id=["first", "second"], **{**known, column: [1e8, None]})
    match = rf"{name} must be a number above 0 for this law, but run 'second' has none \(1 of 2 runs\); fill"
    with pytest.raises(InputError, match=match):
        final_states(runs, DYNAMICS)
    with pytest.raises(InputError, match=match):
        drive(runs, DYNAMICS)
    assert_sound(final_states(runs, DYNAMICS, use_params=name != "params", use_batch=name == "params"))


def test_what_a_law_does_not_use_counts_as_one() -> None:
    s = SCHEDULES["cosine"]
    known = RunTable.build([s] * 2, params=[1e7, 1e9], batch_tokens=[1e4, 1e6])
    unknown = RunTable.build([s] * 2)
    without = final_states(known, DYNAMICS, use_params=False, use_batch=False)
    for name in States.__dataclass_fields__:
        found = getattr(final_states(unknown, DYNAMICS, use_params=False, use_batch=False), name)
        np.testing.assert_array_equal(getattr(without, name), found, err_msg=name)
    assert without.n.tolist() == without.b.tolist() == [1.0, 1.0]
    np.testing.assert_array_equal(without.d, without.t)
    assert not drive(known, DYNAMICS).noise_limited
    assert drive(known, DYNAMICS, use_batch=False).noise_limited
    sizes = final_states(known, DYNAMICS, use_batch=False)
    np.testing.assert_allclose(sizes.n, np.array([1e7, 1e9]) / DYNAMICS.params_ref)
    assert sizes.peak[1] / sizes.peak[0] == pytest.approx(100**DYNAMICS.size_exponent)
    # an unknown batch is never above the critical one: more intrinsic time than a known batch of 1
    one = RunTable.build(s, batch_tokens=DYNAMICS.batch_ref)
    without_batch = final_states(one, DYNAMICS, use_params=False, use_batch=False)
    assert without_batch.tau[0] > final_states(one, DYNAMICS, use_params=False).tau[0]


def test_active_parameters_count_where_given() -> None:
    runs = RunTable.build([SCHEDULES["cosine"]] * 2, params=[1e9, 2e8], active_params=[1e8, None], batch_tokens=1e5)
    np.testing.assert_allclose(drive(runs, DYNAMICS).n, np.array([1e8, 2e8]) / DYNAMICS.params_ref)


def test_optimizers_and_their_weight_decay() -> None:
    names = ["AdamW", "adam", "SGD", None, "lion"]  # runs of Lion have decoupled decay as those of AdamW do
    run = drive(RunTable.build([SCHEDULES["cosine"]] * 5, optimizer=names, params=1e8, batch_tokens=1e5), DYNAMICS)
    assert run.plain.tolist() == [0, 0, 1, 0, 0]
    expected = [default_weight_decay("adamw"), 0.0, 0.0, default_weight_decay("adamw"), default_weight_decay("adamw")]
    assert run.weight_decay.tolist() == expected
    assert expected[0] > 0
    given = RunTable.build([SCHEDULES["cosine"]] * 2, weight_decay=[0.0, None], params=1e8, batch_tokens=1e5)
    assert drive(given, DYNAMICS).weight_decay.tolist() == [0.0, expected[0]]
    assert [regime(name) for name in names] == ["adaptive", "adaptive", "plain", "adaptive", "adaptive"]
    part = run.take(slice(1, 3))
    assert (part.plain.tolist(), len(part.n)) == ([0, 1], 2)


def test_joined_states_are_one_after_the_other() -> None:
    parts = [final_states(table([SCHEDULES[name]]), DYNAMICS) for name in NAMES[:3]]
    joined, together = join_states(parts), final_states(table([SCHEDULES[name] for name in NAMES[:3]]), DYNAMICS)
    assert len(joined) == 3
    for name in States.__dataclass_fields__:
        np.testing.assert_allclose(getattr(joined, name), getattr(together, name), rtol=1e-12)


def test_no_runs_have_no_states() -> None:
    states = final_states(table([]), DYNAMICS)
    assert (len(states), states.variance.shape) == (0, (0, DYNAMICS.modes))


@pytest.mark.parametrize("step", [0.0, -1.0, STEPS + 1.0, np.nan])
def test_steps_outside_the_run_are_refused(step: float) -> None:
    runs = table([SCHEDULES["cosine"]])
    with pytest.raises(InputError, match=r"step must be"):
        curve_states(runs.schedule_tuple(), [np.array([step, 5.0])], drive(runs, DYNAMICS), DYNAMICS)


def test_resolution_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match=r"resolution must be a number from 0.1 to 100"):
        final_states(table([SCHEDULES["cosine"]]), DYNAMICS, resolution=0.0)


def test_constants_round_trip() -> None:
    changed = replace(DYNAMICS, kappa=0.5, modes=4)
    assert Dynamics.from_dict(changed.to_dict()) == changed
    assert Dynamics.from_dict({}) == Dynamics()
    assert changed.curvatures.shape == (4,)
    np.testing.assert_allclose(changed.curvatures[[0, -1]], [changed.slowest, changed.fastest], rtol=1e-12)
    assert np.all(np.diff(DYNAMICS.curvatures) > 0)
    alone = replace(DYNAMICS, modes=1, slowest=1.0, fastest=1.0)
    assert alone.curvatures.tolist() == [1.0]
    assert final_states(table([SCHEDULES["cosine"]]), alone).variance.shape == (1, 1)


@pytest.mark.parametrize("name", sorted(DYNAMICS.to_dict()))
def test_constants_must_be_finite_and_above_zero(name: str) -> None:
    values: list[Any] = [0, -1.0, np.nan, np.inf, "0.4", None, True, [1.0]]
    for value in values:
        with pytest.raises(InputError, match=rf"^{name} must be a (finite|whole) number above 0, got .*; leave it out"):
            Dynamics(**{name: value})


def test_impossible_constants_are_named() -> None:
    with pytest.raises(InputError, match=r"fastest must be above slowest = 2, got 1"):
        Dynamics(slowest=2.0, fastest=1.0)
    with pytest.raises(InputError, match=r"modes must be a whole number above 0, got 2.5"):
        Dynamics(modes=2.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"no constant 'kapa'; did you mean 'kappa'\?; known: kappa, "):
        Dynamics.from_dict({"kapa": 1.0})


def test_constants_are_plain_numbers_whatever_their_type() -> None:
    given = Dynamics(kappa=np.float32(0.25), modes=np.int64(4), lr_ref=np.float64(0.01))  # type: ignore[arg-type]
    plain = given.to_dict()
    assert {type(value) for value in plain.values()} == {int, float}
    assert Dynamics.from_dict(plain) == Dynamics(kappa=0.25, modes=4, lr_ref=0.01)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_threads_are_a_whole_number(threads: Any) -> None:
    runs = RunTable.build("cosine:peak=1e-3,steps=1000", params=1e8, batch_tokens=5e5)
    with pytest.raises(InputError, match="threads must be a whole number above 0, or None for one per processor, got"):
        final_states(runs, Dynamics(), threads=threads)
