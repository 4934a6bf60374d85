"""The cells against a plain loop over the steps, for every schedule and optimizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import DYNAMICS, NAMES, SCHEDULES, SETTINGS, SIZE, STATES, STEPS, naive, relative, table
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import naive_curve

from optlaws.dynamics import States, curve_states, drive, end_states, final_grid, final_states, solve
from optlaws.runs import RunTable
from optlaws.schedules import Schedule, ScheduleBatch, piecewise

# Tolerances relative to the highest value along the naive curve, T = 600. The peak is that of the continuous-time rate,
# half a step ahead of the last step's: 1 / 2T of a ramp over the whole run, 1 / 60 inside a warm-up of 30 steps.
COARSE = {"peak": 2e-3, "tau": 1e-2, "radius": 2e-3, "variance": 2e-2, "escape": 2e-2}
COARSE_CURVE = COARSE | {"peak": 2e-2, "variance": 6e-2}
FINE = {"peak": 2e-3, "tau": 2e-4, "radius": 1e-5, "variance": 5e-3, "escape": 5e-4}
FINE_CURVE = FINE | {"peak": 2e-2, "variance": 1e-2}
LOGGED = np.unique([1, 2, 7, *range(25, STEPS, 25), STEPS - 1, STEPS]).astype(float)


def points(states: States, rows: Any) -> States:
    return States(**{name: getattr(states, name)[rows] for name in States.__dataclass_fields__})


def assert_same(one: States, other: States, rtol: float = 1e-11) -> None:
    for name in States.__dataclass_fields__:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=rtol, err_msg=name)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", NAMES)
def test_final_states_follow_the_steps(name: str, setting: str) -> None:
    twin, run = naive(name, setting), table([SCHEDULES[name]], SETTINGS[setting])
    for resolution, tolerance in ((1.0, COARSE), (16.0, FINE)):
        states = final_states(run, DYNAMICS, resolution=resolution)
        assert (len(states), states.t.tolist()) == (1, [STEPS / DYNAMICS.steps_ref])
        for state in STATES:
            curve = getattr(twin, state)
            assert relative(getattr(states, state)[0], curve[-1], curve) < tolerance[state], (state, resolution)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", NAMES)
def test_curves_follow_the_steps(name: str, setting: str) -> None:
    twin, run = naive(name, setting), table([SCHEDULES[name]], SETTINGS[setting])
    at = LOGGED.astype(int) - 1
    for resolution, tolerance in ((1.0, COARSE_CURVE), (16.0, FINE_CURVE)):
        states = curve_states(run.schedule_tuple(), [LOGGED], drive(run, DYNAMICS), DYNAMICS, resolution=resolution)
        np.testing.assert_allclose(states.t, LOGGED / DYNAMICS.steps_ref, rtol=1e-14)
        for state in STATES:
            curve = getattr(twin, state)
            assert relative(getattr(states, state), curve[at], curve) < tolerance[state], (state, resolution)


@given(
    rates=st.lists(st.floats(1e-4, 1e-2), min_size=5, max_size=5),
    falls=st.integers(0, 3),
    size=st.floats(0.05, 10.0),
    batch=st.floats(0.01, 30.0),
    weight_decay=st.floats(0.0, 1.0),
    plain=st.booleans(),
)
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
def test_any_piecewise_schedule_follows_the_steps(
    rates: list[float], falls: int, size: float, batch: float, weight_decay: float, plain: bool
) -> None:
    # corners 50 steps apart, and one jump
    corners = [(50 * i, rate) for i, rate in enumerate(rates)]
    s = piecewise([*corners[: falls + 1], (50 * falls, rates[falls] / 3), *corners[falls + 1 :]], 200)
    twin = naive_curve(s, DYNAMICS, n=size, b=batch, weight_decay=weight_decay, plain=plain)
    run = RunTable.build(
        s,
        params=size * DYNAMICS.params_ref,
        batch_tokens=batch * DYNAMICS.batch_ref,
        optimizer="sgd" if plain else "adamw",
        weight_decay=weight_decay,
    )
    states = final_states(run, DYNAMICS, resolution=16.0)
    for state in STATES:
        tolerance = {"peak": 5e-2, "variance": 5e-2}.get(state, 3e-2)  # up to 1 % of the norm a step
        error = relative(getattr(states, state)[0], getattr(twin, state)[-1], getattr(twin, state))
        assert error < tolerance, state


def test_a_batch_is_the_runs_one_by_one_in_any_order_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    schedules = list(SCHEDULES.values())
    runs = RunTable.concat(
        [
            RunTable.build(
                schedules,
                run_id=[f"{key}-{name}" for name in SCHEDULES],
                params=np.geomspace(1e7, 1e9, len(schedules)),
                batch_tokens=np.geomspace(1e4, 1e7, len(schedules)),
                optimizer=setting.optimizer,
                weight_decay=setting.weight_decay,
            )
            for key, setting in SETTINGS.items()
        ]
    )
    together = final_states(runs, DYNAMICS)
    for i in range(0, len(runs), 7):
        assert_same(final_states(runs.select([i]), DYNAMICS), points(together, [i]))
    order = np.random.default_rng(0).permutation(len(runs))
    assert_same(final_states(runs.select(order), DYNAMICS), points(together, order))
    monkeypatch.setattr(solve, "CHUNK", 5)
    monkeypatch.setattr(solve, "BLOCK", 5)
    for threads in (None, 1, 3):
        assert_same(final_states(runs, DYNAMICS, threads=threads), together)


def test_curves_of_a_batch_are_the_curves_one_by_one_and_end_at_the_final_states() -> None:
    schedules = [SCHEDULES[name] for name in ("cosine", "wsd-sqrt", "array", "cyclic", "constant-warm")]
    runs = table(schedules)
    steps = [np.array(at, dtype=float) for at in ([600], [1, 599, 600], [300], list(range(1, 601)), [37, 38, 500])]
    everything = drive(runs, DYNAMICS)
    together = curve_states(schedules, steps, everything, DYNAMICS)
    assert len(together) == sum(map(len, steps))
    first = 0
    for i, at in enumerate(steps):
        rows = slice(first, first + len(at))
        alone = curve_states(schedules[i : i + 1], [at], everything.take(slice(i, i + 1)), DYNAMICS)
        assert_same(points(together, rows), alone)
        np.testing.assert_allclose(together.t[rows], at / DYNAMICS.steps_ref, rtol=1e-14)
        first += len(at)
    ends = curve_states(schedules, [np.array([float(STEPS)])] * len(schedules), everything, DYNAMICS)
    assert_same(ends, final_states(runs, DYNAMICS))


def test_a_grid_is_the_same_as_the_list_of_its_schedules() -> None:
    grids: dict[str, dict[str, Any]] = {
        "cosine": {"warmup": [0, 10, 300, 50], "final": [0.0, 1e-5, 0.0, 1e-4]},
        "wsd": {"warmup": [0, 10, 300, 50], "decay": [0.2, 0.1, 100, 0.5], "shape": "sqrt"},
        "multistep": {"warmup": [0, 10, 300, 50]},
        "two_stage": {"switch": [0.5, 0.6, 10, 20], "second": [0.0, 1e-4, 1e-5, 2e-3]},
        "one_cycle": {"pct": [0.1, 0.3, 0.5, 0.77]},
    }
    for kind, more in grids.items():
        columns = {"peak": [1e-3, 2e-3, 5e-4, 1e-2], "steps": [1000, 2000, 777, 500], **more}
        arrays = {k: np.array(v) if isinstance(v, list) else v for k, v in columns.items()}
        singles = [
            Schedule(kind, **{k: v[i] if isinstance(v, list) else v for k, v in columns.items()}) for i in range(4)
        ]
        known = {"params": [1e7, 1e8, 1e9, 3e8], "batch_tokens": [1e5, 1e6, 3e5, 1e4]}
        grid = RunTable.build(ScheduleBatch.grid(kind, **arrays), **known)
        assert_same(final_states(grid, DYNAMICS), final_states(RunTable.build(singles, **known), DYNAMICS))


@pytest.mark.parametrize("setting", SETTINGS)
def test_one_grid_of_all_runs_ends_as_final_states(setting: str) -> None:
    """Runs of few and of many cells, out of the order of their kinds, in one grid padded with cells of no width."""
    runs = table([SCHEDULES[name] for name in reversed(NAMES)], SETTINGS[setting])
    batch = runs.batch()
    together = end_states(final_grid(batch), batch, drive(runs, DYNAMICS), DYNAMICS)
    assert_same(together, final_states(runs, DYNAMICS), rtol=1e-9)


def test_felt_rates_over_the_highest_so_far() -> None:
    """Cell by cell: what was felt in all cells before counts, at both of their ends, and in this one what rises to it.

    A cell that rises and is followed by a jump down was highest at its right end, which no later cell begins with.
    """
    rng = np.random.default_rng(4)
    left, right = rng.uniform(0.1, 1.0, (2, 9, 5))
    felt = 0.5 * (left + right)
    found = solve._below_peak(felt, left, right)
    for i in range(5):
        before = 0.0
        for k in range(9):
            assert found[k, i] == pytest.approx(felt[k, i] / max(before, left[k, i], felt[k, i]), rel=1e-14)
            before = max(before, left[k, i], felt[k, i], right[k, i])
    assert (found <= 1.0).all()


@pytest.mark.parametrize("resolution", [0.1, 1.0])
def test_after_a_jump_down_from_a_ramp_the_variance_follows_its_equation(resolution: float) -> None:
    """A ramp of any cells to the peak, then half of it: v' = 2 l tau' (1/2)^(s - 1) (Theta - v) to the end."""
    d = replace(DYNAMICS, kappa=1e-300)  # the norm stays 1 without weight decay
    s = piecewise([(0, 1e-5), (500, 2e-3), (500, 1e-3), (4000, 1e-3)], 4000)
    run = table([s], SETTINGS["adam"], batch=None)
    at = np.array([500.0, 2000.0, 4000.0])
    states = curve_states(run.schedule_tuple(), [at], drive(run, d, use_batch=False), d, resolution=resolution)
    rate = 1e-3 / d.lr_ref * SIZE**d.size_exponent
    theta, share = rate**d.temperature_exponent, rate / states.peak[0]
    assert share == pytest.approx(0.5, rel=2e-3)  # the ramp ends half a step before the jump
    for k in (1, 2):
        pace = (states.tau[k] - states.tau[0]) * share ** (d.relaxation - 1.0)
        expected = theta + (states.variance[0] - theta) * np.exp(-2.0 * d.curvatures * pace)
        np.testing.assert_allclose(states.variance[k], expected, rtol=1e-6)
