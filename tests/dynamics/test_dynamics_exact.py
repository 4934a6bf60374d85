"""Closed forms, and the measured order of convergence where there is none."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from cases import BATCH, DYNAMICS, SIZE, Array, Setting, examples, table
from scipy.integrate import quad

from optlaws.dynamics import Dynamics, States, curve_states, drive, final_states, solve
from optlaws.runs import RunTable
from optlaws.schedules import Schedule, constant, linear, multistep, two_stage

ETA, STEPS = 2e-3, 1000
FROZEN = replace(DYNAMICS, kappa=1e-300, relaxation=1.0)  # the norm stays 1 without weight decay
X = ETA / DYNAMICS.lr_ref * SIZE**DYNAMICS.size_exponent
ADAM, SGD = Setting("adam", 0.0), Setting("sgd", 0.0, plain=True)


def final(s: Schedule, setting: Setting, dynamics: Dynamics = DYNAMICS, resolution: float = 1.0) -> States:
    """Return the final states of a run whose batch the law does not know (g = h = 1)."""
    return final_states(table([s], setting, batch=None), dynamics, use_batch=False, resolution=resolution)


@pytest.mark.parametrize("setting", [ADAM, SGD], ids=["adam", "sgd"])
def test_norm_at_constant_rate_without_weight_decay(setting: Setting) -> None:
    at = np.array([1.0, 10.0, 333.0, STEPS])
    runs = table([constant(ETA, STEPS)], setting)
    states = curve_states(runs.schedule_tuple(), [at], drive(runs, DYNAMICS), DYNAMICS)
    np.testing.assert_allclose(states.radius**2, 1 + DYNAMICS.kappa * X**2 * at, rtol=1e-9)
    assert final(constant(ETA, STEPS), setting).radius[0] == pytest.approx(states.radius[-1], rel=1e-9)


@pytest.mark.parametrize("weight_decay", [1e-9, 1e-3, 0.1, 10.0, 1e3])
def test_norm_at_constant_rate_with_weight_decay(weight_decay: float) -> None:
    a = 2 * weight_decay * ETA
    at = np.array([1.0, 10.0, 333.0, STEPS])
    runs = table([constant(ETA, STEPS)], Setting("adamw", weight_decay))
    states = curve_states(runs.schedule_tuple(), [at], drive(runs, DYNAMICS), DYNAMICS)
    grown = DYNAMICS.kappa * X**2 * -np.expm1(-a * at) / a
    np.testing.assert_allclose(states.radius**2, np.exp(-a * at) + grown, rtol=1e-8 if weight_decay < 1e-6 else 1e-12)


def test_norm_comes_to_its_equilibrium_and_the_felt_rate_grows_as_the_root_of_the_rate() -> None:
    wd, steps, felt = 0.1, 10**6, []
    for eta in (ETA, 4 * ETA):
        x = eta / DYNAMICS.lr_ref * SIZE**DYNAMICS.size_exponent
        radius = final(constant(eta, steps), Setting("adamw", wd)).radius[0]
        assert radius**2 == pytest.approx(DYNAMICS.kappa * x**2 / (2 * wd * eta), rel=1e-9)
        felt.append(x / radius)
    assert felt[1] / felt[0] == pytest.approx(2.0, rel=1e-9)


def test_norm_of_a_staircase_is_exact() -> None:
    s, a = multistep(ETA, STEPS), DYNAMICS.kappa * (SIZE**DYNAMICS.size_exponent / DYNAMICS.lr_ref) ** 2
    assert final(s, SGD).radius[0] ** 2 == pytest.approx(1 + a * float(np.sum(s.array() ** 2)), rel=1e-9)


def test_intrinsic_time_at_constant_rate() -> None:
    assert final(constant(ETA, STEPS), ADAM, FROZEN).tau[0] == pytest.approx(X * STEPS, rel=1e-9)
    radius = np.sqrt(1 + DYNAMICS.kappa * X**2 * STEPS)
    tau = 2 * (radius - 1) / (DYNAMICS.kappa * X)  # int x / sqrt(1 + kappa x^2 t) dt
    errors = [abs(final(constant(ETA, STEPS), SGD, resolution=r).tau[0] / tau - 1) for r in (1.0, 64.0)]
    assert errors[0] < 1e-2
    assert errors[1] < 1e-5


def test_states_at_constant_felt_rate() -> None:
    # growth and decay of the norm balance, and R stays 1: wd = kappa x^2 / 2 eta
    wd = DYNAMICS.kappa * X**2 / (2 * ETA)
    for optimizer, q in (("adamw", DYNAMICS.temperature_exponent), ("sgd", 1.0)):
        states = final(constant(ETA, STEPS), Setting(optimizer, wd))
        tau, temperature, rho = X * STEPS, X**q, DYNAMICS.escape_rate
        assert states.radius[0] == pytest.approx(1.0, rel=1e-9)
        assert states.tau[0] == pytest.approx(tau, rel=1e-9)
        variance = temperature * -np.expm1(-2 * DYNAMICS.curvatures * tau)
        np.testing.assert_allclose(states.variance[0], variance, rtol=1e-9)
        assert states.escape[0] == pytest.approx(temperature * np.expm1(2 * rho * tau) / (2 * rho), rel=1e-9)


def test_states_after_a_jump_of_the_felt_rate() -> None:
    second, steps, rho = X / 5, (400, 600), DYNAMICS.escape_rate
    states = final(two_stage(ETA, STEPS, switch=0.4, second=ETA / 5), SGD, FROZEN)
    v, c = np.zeros(DYNAMICS.modes), 0.0
    for x, t in zip((X, second), steps, strict=True):
        v = x + (v - x) * np.exp(-2 * DYNAMICS.curvatures * x * t)
        c = c * np.exp(2 * rho * x * t) + x * np.expm1(2 * rho * x * t) / (2 * rho)
    assert states.tau[0] == pytest.approx(X * 400 + second * 600, rel=1e-9)
    np.testing.assert_allclose(states.variance[0], v, rtol=1e-9)
    assert states.escape[0] == pytest.approx(c, rel=1e-9)


@pytest.mark.parametrize("relaxation", [0.7, 1.0, 1.3])
def test_states_of_a_linear_decay_are_integrals_over_the_past(relaxation: float) -> None:
    steps, rho = 100_000, DYNAMICS.escape_rate / 100
    curvatures = (1e-4, 1e-2)
    d = replace(FROZEN, slowest=curvatures[0], fastest=curvatures[1], modes=2, escape_rate=rho, relaxation=relaxation)
    states = final(linear(ETA, steps), SGD, d, resolution=32.0)

    def left(s: float, slow: float) -> float:
        """Time from fraction s of the run to its end, x = X (1 - s), at the pace x (x / X)^slow."""
        return X * steps * (1 - s) ** (2 + slow) / (2 + slow)

    def integral(rate: float, slow: float = 0.0) -> float:
        kinks = 1 - np.geomspace(1e-4, 0.5, 8)
        return quad(
            lambda s: X**2 * (1 - s) ** (2 + slow) * np.exp(rate * left(s, slow)) * steps,
            0, 1, points=kinks, epsrel=1e-10, limit=400,
        )[0]  # fmt: skip

    assert states.tau[0] == pytest.approx(left(0, 0.0), rel=1e-4)
    for v, curvature in zip(states.variance[0], d.curvatures, strict=True):
        assert v == pytest.approx(2 * curvature * integral(-2 * curvature, relaxation - 1), rel=1e-3)
    assert states.escape[0] == pytest.approx(integral(2 * rho), rel=1e-4)


def test_batch_sets_the_clock_and_the_temperature() -> None:
    wd = DYNAMICS.kappa * X**2 / (2 * ETA)
    far = replace(DYNAMICS, critical_batch=1e12)  # every batch is far below the critical one: square-root scaling
    runs = table([constant(ETA, STEPS)], Setting("adamw", wd))
    adam, plain = (final_states(replace(runs, optimizer=(name,)), far) for name in ("adamw", "sgd"))
    assert adam.tau[0] == pytest.approx(np.sqrt(BATCH) * X * STEPS, rel=1e-9)
    assert adam.variance[0, -1] == pytest.approx(X**far.temperature_exponent / np.sqrt(BATCH), rel=1e-9)
    assert plain.tau[0] == pytest.approx(X * STEPS, rel=1e-9)
    assert plain.variance[0, -1] == pytest.approx(X / BATCH, rel=1e-9)
    assert (adam.b[0], adam.n[0]) == (pytest.approx(BATCH), pytest.approx(SIZE))
    assert adam.d[0] == pytest.approx(BATCH * STEPS / far.steps_ref)
    near = replace(DYNAMICS, critical_batch=1e-6)  # far above it: intrinsic time stops growing with the batch
    several = RunTable.build([constant(ETA, STEPS)] * 2, params=1e8, batch_tokens=[1e6, 4e6], weight_decay=0.0)
    first, second = final_states(several, near).tau
    assert second / first == pytest.approx(4 ** (near.critical_growth / 2), rel=1e-3)


def test_escape_is_capped() -> None:
    states = final(constant(0.1, 10**6), Setting("adam", 0.0), replace(FROZEN, escape_rate=1.0))
    assert states.escape.tolist() == [solve.LARGEST_ESCAPE]


# "array" is left out: its cells follow the steps
LONG = {name: s for name, s in examples(20_000).items() if name != "array"}


@cache
def long_states(resolution: float, use_batch: bool) -> States:
    """Return the final states of all long schedules."""
    return final_states(table(list(LONG.values())), DYNAMICS, use_batch=use_batch, resolution=resolution)


def errors(state: str, *, use_batch: bool) -> Array:
    """Return each schedule's largest relative error at resolutions 4, 8, 16 against 100, shape (3, n)."""
    exact = getattr(long_states(100.0, use_batch), state)
    found = [np.abs(getattr(long_states(r, use_batch), state) / exact - 1) for r in (4.0, 8.0, 16.0)]
    return np.array(found).reshape(3, len(LONG), -1).max(axis=2)


@pytest.mark.parametrize("state", ["radius", "tau", "variance", "escape"])
def test_convergence_is_second_order(state: str) -> None:
    found = errors(state, use_batch=False)
    for name, (coarse, middle, fine) in zip(LONG, found.T, strict=True):
        assert coarse < 1e-2, name
        # a schedule that starts at its peak grows the norm within its first cells and reaches the order late
        assert fine < coarse / 4**1.7 + 1e-7, (name, coarse, middle, fine)
    coarse, _, fine = found[:, found[2] > 1e-8]
    assert len(fine) > 10
    assert np.median(np.log2(coarse / fine) / 2) > 1.9


@pytest.mark.parametrize("state", ["tau", "variance", "escape"])
def test_convergence_with_a_critical_batch(state: str) -> None:
    # the critical batch grows as d^gD from nothing, a singularity at the start that the median schedule does not feel
    coarse, _, fine = errors(state, use_batch=True)
    assert coarse.max() < 5e-2
    assert np.median(np.log2(coarse / fine) / 2) > 1.7
    assert np.all(fine < coarse * 0.8 + 1e-3)
