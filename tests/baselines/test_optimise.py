"""The optimiser behind the fits: known minima, many starts at once, weights of their own."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from made import grid, table, with_law

from optlaws.baselines.chinchilla import Chinchilla
from optlaws.baselines.optimise import bfgs, by_differences, huber, minimise_many
from optlaws.law.baseline import fit_baseline


def rosenbrock(x, rows):
    a, b = x[:, 0], x[:, 1]
    value = (1 - a) ** 2 + 100 * (b - a**2) ** 2
    return value, np.stack([-2 * (1 - a) - 400 * a * (b - a**2), 200 * (b - a**2)], axis=1)


def test_bfgs_reaches_the_minimum_from_every_start():
    starts = np.random.default_rng(0).uniform(-2, 2, (50, 2))
    found = bfgs(rosenbrock, starts, iterations=300)
    assert np.allclose(found.x, 1.0, atol=1e-4)
    assert (found.value < 1e-8).all()


def test_starts_do_not_touch_each_other():
    starts = np.random.default_rng(1).uniform(-2, 2, (7, 2))
    together = bfgs(rosenbrock, starts, iterations=30)
    for i in range(7):
        alone = bfgs(rosenbrock, starts[i : i + 1], iterations=30)
        assert np.allclose(alone.x[0], together.x[i], rtol=1e-9)


def test_the_value_never_rises():
    starts = np.random.default_rng(2).uniform(-2, 2, (20, 2))
    before = rosenbrock(starts, None)[0]
    last = before
    for count in (1, 3, 10, 30):
        value = bfgs(rosenbrock, starts, iterations=count).value
        assert (value <= last + 1e-12).all()
        last = value


def test_values_that_are_not_numbers_are_walked_around():
    def walled(x, rows):
        value, slope = rosenbrock(x, rows)
        return np.where(x[:, 0] > 1.5, np.nan, value), slope

    best, value = minimise_many(walled, np.array([[-1.0, 1.0], [1.9, 1.0], [0.0, 0.0]]))
    assert np.allclose(best, 1.0, atol=1e-5)
    assert value < 1e-10


def test_the_lowest_of_several_minima_is_found():
    def wells(x, rows):
        value = np.cos(3 * x[:, 0]) + 0.1 * (x[:, 0] - 1) ** 2
        return value, (-3 * np.sin(3 * x[:, 0]) + 0.2 * (x[:, 0] - 1))[:, None]

    best, _ = minimise_many(wells, np.linspace(-6, 6, 40)[:, None])
    dense = np.linspace(-6, 6, 200001)
    assert best[0] == pytest.approx(dense[np.argmin(wells(dense[:, None], None)[0])], abs=1e-3)


def test_every_start_may_have_its_own_weights():
    y = np.array([1.0, 2.0, 4.0])
    weights = np.eye(3)

    def objective(x, rows):
        off = x[:, :1] - y
        return (weights[rows] * off**2).sum(axis=1), 2 * (weights[rows] * off).sum(axis=1)[:, None]

    found = bfgs(objective, np.zeros((3, 1)), iterations=50)
    assert np.allclose(found.x[:, 0], y, atol=1e-6)


def test_huber_and_differences():
    r = np.array([-1.0, -0.5, 0.0, 0.2, 3.0])
    value, slope = huber(r, 0.5)
    assert np.allclose(value, [0.375, 0.125, 0.0, 0.02, 1.375])
    assert np.allclose(slope, [-0.5, -0.5, 0.0, 0.2, 0.5])
    objective = by_differences(lambda x: rosenbrock(x, None)[0])
    x = np.array([[0.3, -0.7], [1.1, 0.4]])
    assert np.allclose(objective(x, None)[0], rosenbrock(x, None)[0])
    assert np.allclose(objective(x, None)[1], rosenbrock(x, None)[1], rtol=1e-6)


class TestProgress:
    """Long searches say where they are, and find the same."""

    def test_of_many_starts(self):
        starts, said = np.random.default_rng(0).uniform(-2, 2, (50, 2)), []
        told, silent = (minimise_many(rosenbrock, starts, progress=hear) for hear in (said.append, None))
        assert np.array_equal(told[0], silent[0])
        assert told[1] == silent[1]
        assert said[0] == "50 starts"
        assert said.count("last steps") == 2

    @pytest.mark.filterwarnings("ignore:law .* is doubtful")
    @pytest.mark.parametrize(
        ("kind", "first"),
        [
            ("chinchilla", "500 starts"),
            ("kaplan", "starts"),
            ("noisy_quadratic", "start 1 of 48"),
            ("critical_batch", "starts"),
            ("data_constrained", "starts"),
            ("annealing", "start 1 of "),
            ("multi_power", "start 1 of 64"),
        ],
    )
    def test_of_fits_and_of_groups_left_out(self, kind, first):
        n, d = grid((1e8, 4e8), (1e9, 3e9, 1e10, 3e10))
        runs = table(n, d, batch=d / 500, peak=1e-3 + 1e-4 * np.arange(8))
        runs = with_law(Chinchilla.refit(), runs, noise=0.002)
        said = []
        told, silent = (fit_baseline(kind, runs, group="params", progress=hear) for hear in (said.append, None))
        assert told.to_dict() == silent.to_dict()
        assert said[0].startswith("all runs, ")
        assert first in said[0]
        assert "params left out, 2 of 2" in said
        assert any(word.endswith("last steps") for word in said)

    @pytest.mark.filterwarnings("ignore:law .* is doubtful")
    def test_of_laws_without_a_search(self):
        runs = with_law(
            Chinchilla.refit(), table(*grid(), peak=np.tile([1e-3, 2e-3, 3e-3, 4e-3, 6e-3], 5)), noise=0.002
        )
        said = []
        fit_baseline("cubic_ridge", runs, progress=said.append)
        assert said == [f"params left out, {place} of 5" for place in range(1, 6)]
