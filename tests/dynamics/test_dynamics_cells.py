"""How near the cells are to the equations, at the resolution that laws are fitted with, for every kind of schedule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import DYNAMICS, Array, Setting, examples, table

from optlaws.dynamics import final_states
from optlaws.law import load_law
from optlaws.runs import RunTable
from optlaws.schedules import Schedule, cosine, cyclic, from_array, linear, step, two_stage, warm_restarts, wsd

STATES = ("radius", "tau", "escape", "variance")


def schedules(steps: int, peak: float) -> dict[str, Schedule]:
    """Return those of every family, with decays to 0 and with many phases."""
    warm = {"warmup": steps // 50}
    out = examples(steps, peak) | {
        "linear-to-0": linear(peak, steps),
        "linear-to-0-warm": linear(peak, steps, **warm),
        "cosine-to-0-warm": cosine(peak, steps, **warm),
        "wsd-to-0": wsd(peak, steps, 0.2),
        "stairs": step(peak, steps, every=0.05, factor=0.8),
        "early-fall": two_stage(peak, steps, switch=0.01, second=peak / 100),
        "40-restarts": warm_restarts(peak, steps, period=steps // 40),
        "20-restarts-warm": warm_restarts(peak, steps, period=steps // 20, warmup=steps // 20),
        "20-cycles": cyclic(peak, steps, period=steps // 20, low=peak / 100),
    }
    return out | {f"wsd-{d}-to-0": wsd(peak, steps, 0.2, d, **warm) for d in ("linear", "sqrt", "sqrt_left", "cosine")}


def states_of(runs: RunTable, resolution: float = 1.0) -> Array:
    """Return radius, intrinsic time, escape and variances at the end, (n, 3 + modes)."""
    states = final_states(runs, DYNAMICS, resolution=resolution)
    return np.column_stack([getattr(states, name) for name in STATES])


CORNERS = [(1e-3, 1.0, 1.0), (3e-4, 20.0, 0.05), (3e-3, 0.05, 20.0), (3e-3, 20.0, 20.0)]  # peak, size, batch


def test_every_family_is_as_near_as_is_claimed() -> None:
    found = []
    for steps in (2000, 30_000):
        for peak, size, batch in CORNERS:
            named = schedules(steps, peak)
            runs = RunTable.build(
                list(named.values()),
                params=size * DYNAMICS.params_ref,
                batch_tokens=batch * DYNAMICS.batch_ref,
                weight_decay=0.1,
            )
            errors = np.abs(states_of(runs) / states_of(runs, 12.0) - 1).max(axis=1)
            found.append(errors)
            for (name, s), error in zip(named.items(), errors.tolist(), strict=True):
                assert error < (3e-2 if s.warmup_steps else 2e-2), (name, steps, peak, size, batch)
    assert np.median(np.concatenate(found)) < 3e-3


def test_a_million_steps_are_as_near_as_is_claimed() -> None:
    found = []
    for peak, size, batch in CORNERS:
        runs = RunTable.build(
            [s for name, s in schedules(1_000_000, peak).items() if "array" not in name],
            params=size * DYNAMICS.params_ref,
            batch_tokens=batch * DYNAMICS.batch_ref,
            weight_decay=0.1,
        )
        error = np.abs(states_of(runs) / states_of(runs, 12.0) - 1)
        error[:, 2] *= final_states(runs, DYNAMICS).escape < 100  # beyond it the column of escape is 1
        assert error[:, :-2].max() < 4e-2
        assert error[:, -2].max() < 0.1
        assert error[:, -1].max() < 0.3
        found.append(error.max(axis=1))
    assert np.median(np.concatenate(found)) < 1.1e-2


def test_many_phases_are_as_near_as_few() -> None:
    names = ("40-restarts", "20-restarts-warm", "20-cycles", "stairs")
    runs = table([schedules(20_000, 1e-3)[name] for name in names])
    assert np.abs(states_of(runs) / states_of(runs, 12.0) - 1).max() < 7e-3


@pytest.mark.parametrize("steps", [2000, 20_000])
def test_identical_rates_in_two_forms_have_the_same_states(steps: int) -> None:
    """Single rates are right to 0.4 %, half to 0.15 %; what is left of the difference is the formula's own error."""
    named = schedules(steps, 1e-3)
    formulas, arrays = table(list(named.values())), table([from_array(s.array()) for s in named.values()])
    difference = np.abs(states_of(arrays) / states_of(formulas, 16.0) - 1)
    assert difference.max() < 4e-3
    assert np.median(difference.max(axis=1)) < 1.5e-3
    between = np.abs(states_of(arrays) / states_of(formulas) - 1).max(axis=1)
    own = np.abs(states_of(formulas) / states_of(formulas, 16.0) - 1).max(axis=1)
    assert np.all(between < 4e-3 + own)
    assert np.median(between) < 3e-3


@pytest.mark.parametrize("name", ["steplaw-dense", "llama-slimpajama"])
def test_identical_rates_in_two_forms_have_the_same_loss(name: str) -> None:
    law, named = load_law(name), schedules(20_000, 1e-3)
    losses = [
        law.predict(
            RunTable.build(forms, params=1e9, batch_tokens=5e5, optimizer="adamw", weight_decay=0.1)
        ).loss
        for forms in (list(named.values()), [from_array(s.array()) for s in named.values()])
    ]  # fmt: skip
    np.testing.assert_allclose(losses[1], losses[0], rtol=4e-4)


def test_an_early_jump_of_an_array_leaves_cells_for_what_follows() -> None:
    rates = np.repeat([1e-3, 1e-5], [1000, 99_000])
    runs = table([from_array(rates), two_stage(1e-3, 100_000, switch=1000, second=1e-5)])
    array, formula = states_of(runs)
    exact = states_of(runs, 16.0)[1]
    assert np.abs(array / exact - 1).max() < 1e-3
    assert np.abs(formula / exact - 1).max() < 4e-3


@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt", "power"])
def test_a_decay_to_zero_is_of_second_order_whatever_the_stiffness(shape: str) -> None:
    # plain SGD at a norm of 1: the temperature is the rate, the root of the intrinsic time that is left
    d = replace(DYNAMICS, kappa=1e-300, relaxation=1.0, slowest=1e-7, fastest=10.0, modes=60)
    runs = table([wsd(1e-3, 10**7, 0.5, shape, warmup=10**6)], Setting("sgd", 0.0, plain=True), batch=None)
    found = [
        final_states(runs, d, use_batch=False, resolution=r).variance for r in (1.0, 2.0, 4.0, 8.0, 100.0)
    ]  # fmt: skip
    errors = [float(np.abs(v - found[-1]).max()) for v in found[:-1]]
    assert np.log2(errors[0] / errors[-1]) / 3 > 1.9, errors
