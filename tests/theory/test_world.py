"""The model world is what it says, its law is recovered, and errors grow as on paper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import gamma, zeta
from theory.world import World, error_growth, paper_sd, power_law_inflation, profile_exponents, recover, training_runs
from theory.world import __main__ as command
from theory.world.model import quadrature
from theory.world.recover import EXPONENTS, FREE, make_schedule, target_runs

from optlaws.dynamics import final_states
from optlaws.errors import InputError
from optlaws.law import fit_law
from optlaws.law.calibrate import CLEAN
from optlaws.schedules import constant, cosine, wsd

pytestmark = pytest.mark.filterwarnings("ignore:.*copy of another under a new name")  # this world has no noise


def naive_loss(world, schedule, modes, batch):
    """Step by step and mode by mode, from the recursion of second moments E x^2."""
    unit = 4.0 * world.noise_loss * 524288.0 / 0.015
    total = world.irreducible + world.amplitude * zeta(world.signal, modes + 1)
    for i in range(1, modes + 1):
        h, s = world.top * i**-world.spectrum, unit * i**-world.noise
        second = 2.0 * world.amplitude * i**-world.signal / h
        for k in range(schedule.total_steps):
            rate = schedule.lr(k)
            second = (1.0 - rate * h) ** 2 * second + rate**2 * s / batch
        total += 0.5 * h * second
    return total


@pytest.mark.parametrize(
    "schedule",
    [constant(0.02, 40, warmup=5), cosine(0.015, 60), wsd(0.02, 50, decay=0.3, warmup=4), constant(0.5, 30)],
    ids=str,
)
def test_loss_is_that_of_the_naive_recursion(schedule):
    world = World(spectrum=1.1, signal=1.4, noise=1.3, noise_loss=0.05, params_per_mode=2.0)
    assert world.final_loss(schedule, 34.0, 3e5) == pytest.approx(naive_loss(world, schedule, 17, 3e5), rel=1e-12)


@pytest.mark.parametrize("modes", [1, 300, 321, 5000, 100_000])
def test_quadrature_over_modes(modes):
    index, weight = quadrature(modes)
    for power in (0.9, 1.3, 2.5):
        direct = float((np.arange(1.0, modes + 1.0) ** -power).sum())
        assert float(weight @ index**-power) == pytest.approx(direct, rel=1e-7)


def test_losses_approach_the_columns_of_the_basis():
    world = World(noise_loss=1e-9)
    basis = world.true_basis()
    params = np.array([2e7, 1e8, 1e9, 1e9])
    schedules = [make_schedule("cosine", 8e-3, t) for t in (4000, 4000, 4000, 16000)]
    runs = world.runs(schedules, params, np.full(4, 524288.0))
    columns = dict(zip(basis.names, basis.evaluate(final_states(runs, basis.dynamics)).T, strict=True))
    e = world.exponents
    modes = basis.dynamics.params_ref / world.params_per_mode
    size = world.amplitude / e["aN"] * modes ** -e["aN"]
    scale = 2.0 * world.top * basis.dynamics.lr_ref * 1000.0
    bias = world.amplitude * gamma(e["aT"]) / world.spectrum * scale ** -e["aT"]
    predicted = world.irreducible + size * columns["size"] + bias * columns["bias"]
    assert runs.final_loss == pytest.approx(predicted, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "match"), [({"signal": 1.0}, "signal .* above 1"), ({"top": -1.0}, "top .* above 0")]
)
def test_impossible_worlds(change, match):
    with pytest.raises(InputError, match=match):
        World(**change)


def test_impossible_runs():
    with pytest.raises(InputError, match="params must be at least 100000"):
        World().final_loss(constant(0.01, 10), 1e3, 1e5)
    with pytest.raises(InputError, match="peak rate must be below"):
        World().final_loss(constant(1.0, 10), 1e6, 1e5)


def test_runs_are_seeded_and_noise_is_relative():
    world = World()
    first, again = (training_runs(world, 20, noise=0.01, seed=3) for _ in range(2))
    clean = training_runs(world, 20, seed=3)
    assert first.final_loss == pytest.approx(again.final_loss, rel=0)
    ratio = np.log(first.final_loss / clean.final_loss)
    assert 0.004 < ratio.std() < 0.02


@pytest.fixture(scope="module")
def standard():
    return recover("standard")


def test_exponents_of_the_standard_world_within_2_percent(standard):
    errors = standard.exponent_errors()
    assert set(errors) == set(EXPONENTS)
    assert max(map(abs, errors.values())) < 2.0, errors


def test_loss_at_1000_times_the_compute_within_1_percent(standard):
    assert abs(standard.errors["found"]) < 1.0
    assert abs(standard.errors["found, no field"]) < 0.5
    assert abs(standard.errors["known"]) < 1.0


def test_wrong_exponents_miss_it(standard):
    """Exponents of the default basis are those of language models, not of this world: a stated failure."""
    assert abs(standard.errors["sde16 exponents"]) > 2.0
    assert abs(standard.errors["sde16"]) > 5.0


def test_missed_targets_are_named(standard):
    assert command.missed(standard) == []
    bad = replace(standard, found={**standard.found, "aN": 1.1 * standard.true["aN"]}, errors={"found": 1.5, **{}})
    bad = replace(bad, errors={**standard.errors, "found": 1.5})
    assert [text.split()[1] for text in command.missed(bad)] == ["aN", "at"]
    assert "standard" in command.recovery_table([standard])


def test_profile_needs_only_what_is_free():
    world = World()
    runs = training_runs(world, 60)
    true = world.true_basis()
    start = true.with_constants(exponents={"aN": 0.2})
    found = profile_exponents(runs, start, ["aN"], trials=40)
    assert set(found.values) == {"aN"}
    assert found.values["aN"] == pytest.approx(world.exponents["aN"], rel=0.02)
    assert found.basis.exponents["aT"] == true.exponents["aT"]


@pytest.mark.parametrize("span", [1.0, 3.0])
def test_power_law_on_paper(span):
    """The expansion against the exact least-squares covariance of E + A n^-a, a w = 0.3 and 0.9."""
    exponent, count, level = 0.3, 400, 0.3
    x = np.linspace(-span / 2, span / 2, count)
    power = level * np.exp(-exponent * x)
    j = np.column_stack([np.ones(count), power, -power * x])
    exact = [np.sqrt(np.linalg.inv(part.T @ part)[0, 0]) for part in (j[:, :2], j)]
    paper = power_law_inflation(exponent, span, count)
    assert exact == pytest.approx([paper["known"], paper["free"]], rel=0.2)


@pytest.fixture(scope="module")
def growth():
    variants = ("exponents known", "exponents free")
    return error_growth(factors=(1.0, 100.0), noises=(0.001,), seeds=2, count=100, trials=80, variants=variants)


def test_errors_grow_with_the_distance(growth):
    assert [(g.variant, g.compute) for g in growth] == [
        ("exponents known", 1.0), ("exponents known", 100.0), ("exponents free", 1.0), ("exponents free", 100.0),
    ]  # fmt: skip
    known, known_far, free, free_far = growth
    assert known_far.rms > known.rms
    assert free_far.rms > free.rms
    assert known_far.interval > known.interval
    assert free_far.rms < 1.5
    assert free_far.size == pytest.approx(10.0)
    assert "exponents free" in command.growth_table(growth)


def test_paper_widens_with_what_is_unknown_and_with_the_noise():
    world = World()
    runs, targets = training_runs(world, 60), target_runs(world, (1.0, 25.0), families=("WSD",))
    law = fit_law(runs, basis=world.true_basis(), settings=CLEAN)
    known, free = paper_sd(law, runs, targets, 0.001), paper_sd(law, runs, targets, 0.001, FREE)
    assert np.all(free > known)
    assert free[1] > free[0]
    assert np.all(paper_sd(law, runs, targets, 0.002, FREE) > free)


def test_no_noise_draws_are_refused_at_once(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["--seeds", "0"])
    assert "--seeds must be at least 1, got 0" in capsys.readouterr().err
