"""Least-squares laws where runs do not tell every term: flat there, as before elsewhere, and said."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made import grid, table, with_law

from optlaws.baselines.base import columns
from optlaws.baselines.chinchilla import Chinchilla
from optlaws.baselines.determined import directions, least_squares, monomials, standard, terms, undetermined, unscaled
from optlaws.baselines.optimal_rate import regress
from optlaws.baselines.polynomial import NAMES, CubicRidge, Quadratic
from optlaws.baselines.step_law_valley import StepLawValley
from optlaws.cli import run
from optlaws.errors import FitError, OptlawsWarning
from optlaws.law import load_any_law
from optlaws.law.baseline import fit_baseline
from optlaws.runs import read_runs, write_runs

MY_RUNS = Path(__file__).parents[2] / "examples" / "my_runs.csv"
LAWS = (Quadratic, CubicRidge)


def free(seed=0, count=120):
    """Runs that vary in everything by itself, with the loss of a law and some noise."""
    rng = np.random.default_rng(seed)
    low, high = np.log([[3e7, 1e9, 3e-4, 1e5], [1e9, 3e10, 5e-3, 2e6]])
    n, d, peak, batch = np.exp(rng.uniform(low, high, (count, 4))).T
    return with_law(Chinchilla.refit(), table(n, d, batch=batch, peak=peak), noise=0.003)


def two_sizes():
    """Runs of two sizes and two lengths at one batch, three rates each, whose loss has no curvature."""
    n, d, peak = (x.ravel() for x in np.meshgrid([3e7, 1.1e8], [5e8, 1e9], [5e-4, 1e-3, 2e-3], indexing="ij"))
    runs = table(*(np.tile(x, 3) for x in (n, d)), batch=5e4, peak=np.tile(peak, 3))
    return replace(runs, final_loss=4.0 * (runs.size / 1e8) ** -0.05 * (runs.tokens / 1e9) ** -0.03)


def naive_terms(x, law):
    """The polynomial's terms, written out."""
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    out = [np.ones(len(z)), *z.T]
    out += [z[:, i] * z[:, j] for i in range(4) for j in range(i, 4)]
    if law.degree == 3:
        out += [z[:, i] * z[:, j] * z[:, k] for i in range(4) for j in range(i, 4) for k in range(j, 4)]
    return np.stack(out, axis=1)


@pytest.mark.parametrize("law", LAWS)
def test_runs_that_tell_everything_are_fitted_plainly(law):
    runs = free()
    x, y = np.log(np.stack(columns(law, runs), axis=1)), np.log(runs.final_loss)
    design = naive_terms(x, law)
    penalty = law.ridge * np.eye(design.shape[1])
    penalty[0, 0] = 0.0
    expected = design @ np.linalg.solve(design.T @ design + penalty, design.T @ y)
    np.testing.assert_allclose(np.log(law.fit(runs).predict(runs)), expected, rtol=1e-9)
    assert law.fit(runs).doubts(runs) == []


@pytest.mark.parametrize("law", LAWS)
def test_a_quantity_of_two_values_has_a_slope_and_no_curvature(law):
    runs = two_sizes()
    fitted = law.fit(replace(runs, run_id=tuple(str(i) for i in range(36))))
    between = np.geomspace(3e7, 1.1e8, 9)
    loss = fitted.predict(table(between, np.full(9, 7e8), batch=5e4))
    np.testing.assert_allclose(np.diff(np.log(loss), 2), 0.0, atol=1e-10)
    np.testing.assert_allclose(loss, 4.0 * (between / 1e8) ** -0.05 * 0.7**-0.03, rtol=1e-3)
    assert "batch_tokens hardly varies and has no part in the law" in fitted.doubts(runs)
    assert "params^2" in fitted.doubts(runs)[-1]
    assert fitted.predict(table([6e7], [7e8], batch=4e5)) == fitted.predict(table([6e7], [7e8], batch=5e4))


@pytest.mark.parametrize("law", LAWS)
def test_what_only_grows_together_is_flat_across(law):
    """D = 20 N to whole steps: the law holds along that line, and is constant against it."""
    rng = np.random.default_rng(1)
    n = np.exp(rng.uniform(np.log(3e7), np.log(1e9), 60))
    batch, peak = np.exp(rng.uniform(np.log([1e5, 5e-4]), np.log([1e6, 4e-3]), (60, 2))).T
    steps = np.round(20 * n / batch)
    runs = with_law(Chinchilla.refit(), table(n, steps * batch, batch=batch, peak=peak), noise=0.002)
    fitted = law.fit(runs)
    assert np.abs(fitted.predict(runs) / runs.final_loss - 1).max() < 0.01
    spread = np.array(fitted.values[4:6])
    across = np.exp(np.linspace(-0.7, 0.7, 5)[:, None] * spread * [1, -1]) * [2e8, 4e9]
    loss = fitted.predict(table(*across.T, batch=3e5, peak=1e-3))
    np.testing.assert_allclose(loss / loss[2], 1.0, rtol=2e-3)  # whole steps move D a little
    assert fitted.doubts(runs)[0] == "params and tokens vary together, and what each does by itself is not told"


def test_next_to_no_variation_is_none():
    x = np.random.default_rng(2).normal(size=(40, 2)) * [1.0, 1e-4]
    _, spread, z = standard(x)
    assert not z[:, 1].any()
    assert spread[1] == 1.0
    found = least_squares(z, x[:, 0] + 1e3 * x[:, 1], 2)  # a loss that follows the rounding
    flat = [i for i, which in enumerate(terms(2, 2)) if 1 in which]
    np.testing.assert_allclose(found[flat], 0.0, atol=1e-12)
    np.testing.assert_allclose(found[1], spread[0], rtol=0.1)


def test_two_values_with_some_spread_have_no_curvature_either():
    rng = np.random.default_rng(3)
    z = standard(np.repeat([-1.0, 1.0], 30)[:, None] + 0.01 * rng.normal(size=(60, 1)))[2]
    found = least_squares(z, rng.normal(size=60), 3)
    np.testing.assert_allclose(found[2:], 0.0, atol=1e-12)


@pytest.mark.parametrize(("columns_", "degree"), [(1, 3), (2, 3), (4, 2)])
def test_directions_are_orthonormal_and_whole_where_all_is_told(columns_, degree):
    z = standard(np.random.default_rng(4).normal(size=(200, columns_)))[2]
    found = directions(z, degree)
    width = len(terms(columns_, degree)) - 1
    assert found.shape == (width, width)
    np.testing.assert_allclose(found.T @ found, np.eye(width), atol=1e-12)
    assert undetermined(z, [str(i) for i in range(columns_)], degree) == []


def test_coefficients_in_columns_give_the_same_polynomial():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(50, 2)) * [2.0, 0.3] + [1.0, -4.0]
    middle, spread, z = standard(x)
    found = rng.normal(size=len(terms(2, 3)))
    again = monomials(x, 3) @ unscaled(found, middle, spread, 3)
    np.testing.assert_allclose(again, monomials(z, 3) @ found, rtol=1e-9, atol=1e-9)


def test_nothing_that_varies_is_a_constant():
    runs = replace(table(np.full(30, 1e8), np.full(30, 1e9)), final_loss=np.geomspace(3.0, 3.1, 30))
    law = Quadratic.fit(runs)
    np.testing.assert_allclose(law.predict(table([1e9], [1e11])), np.sqrt(3.0 * 3.1), rtol=1e-9)
    assert law.doubts(runs) == [f"{', '.join(NAMES[:3])} and {NAMES[3]} hardly vary and have no part in the law"]


def test_lines_of_rates_are_refused_where_columns_grow_together():
    law, n = Quadratic, np.linspace(17.0, 21.0, 30)
    target = -0.7 * n
    d = n + 3.0 + 1e-4 * np.sin(7 * n)  # D = 20 N to whole steps
    with pytest.raises(FitError, match="cannot be told from these runs"):
        regress(law, target, [n, d])
    apart = n + 0.5 * np.sin(7 * n)
    np.testing.assert_allclose(regress(law, target + 0.3 * apart, [n, apart]), [0.0, -0.7, 0.3], atol=1e-9)
    with pytest.raises(FitError, match="cannot be told from these runs"):
        regress(law, target, [np.full(30, 17.0) + 1e-5 * n])


def test_a_valley_of_two_rates_has_no_curvature():
    """Two rates about each optimum: the cubic has a slope in them; with one batch a length it has none in batches."""
    best = Chinchilla.refit()
    rows = [(n, d, f) for n in (5e7, 1e8, 2e8, 4e8) for d in (1e9, 3e9, 1e10) for f in (1.0, 2.0)]
    n, d, factor = np.array(rows).T
    rate, batch = 1e-3 * (n / 1e8) ** -0.5 * (d / 3e9) ** 0.25, 3e5 * (d / 3e9) ** 0.5
    runs = table(n, d, batch=batch, peak=rate * factor)
    runs = replace(runs, final_loss=best.loss(n, runs.tokens) * np.where(factor > 1, 1.02, 1.0))
    law = StepLawValley.fit(runs)
    assert "these runs tell" in law.doubts(runs)[-1]
    at = table(np.full(9, 1e8), np.full(9, 3e9), batch=3e5, peak=1e-3 * np.geomspace(1.0, 2.0, 9))
    loss = np.log(law.predict(at))
    np.testing.assert_allclose(np.diff(loss, 2), 0.0, atol=1e-5)
    np.testing.assert_allclose(loss[-1] - loss[0], np.log(1.02), rtol=0.05)


class TestSaid:
    """At the fit, in the file, in use."""

    def test_at_the_fit(self):
        runs = read_runs(MY_RUNS)
        with pytest.warns(OptlawsWarning, match="law 'quadratic' is doubtful: batch_tokens hardly varies") as told:
            law = fit_baseline("quadratic", runs)
        assert "these runs tell 7, not params^2 and tokens^2" in str(told[0].message)
        asked = table([8.5e7], [15_000 * 51200.0], batch=51200.0)
        assert runs.final_loss.min() < law.predict(asked).loss[0] < runs.final_loss.max()

    def test_not_where_all_is_told(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error", OptlawsWarning)
            assert fit_baseline("quadratic", free()).info["doubts"] == []

    def test_on_the_command_line(self, tmp_path, capsys):
        path = str(tmp_path / "q.json")
        assert run(["fit", str(MY_RUNS), "--law", "quadratic", "-o", path]) == 0
        assert "law 'quadratic' is doubtful: batch_tokens hardly varies" in capsys.readouterr().err
        assert load_any_law(path).info["doubts"][1].endswith("these runs tell 7, not params^2 and tokens^2")
        spec = "cosine:peak=1e-3,steps=15000,warmup=300"
        assert run(["rank", spec, "--params", "85M", "--batch-tokens", "51200", "--law", path]) == 0
        told = capsys.readouterr()
        assert "not params^2 and tokens^2" in told.err
        assert " 3.1" in told.out

    def test_written_runs_with_one_size(self, tmp_path, capsys):
        """Left-out sizes leave fewer of them: the cubic's curvature in N must not come from the rounding."""
        n, d = grid((1e8, 2e8, 4e8), tuple(np.geomspace(1e9, 1e11, 8)))
        runs = with_law(Chinchilla.refit(), table(n, d, peak=np.tile([5e-4, 1e-3, 2e-3], 8)), noise=0.002)
        write_runs(str(tmp_path / "runs.csv"), runs)
        assert run(["fit", str(tmp_path / "runs.csv"), "--law", "cubic_ridge", "-o", str(tmp_path / "law.json")]) == 0
        assert "is doubtful: " in capsys.readouterr().err
        law = load_any_law(tmp_path / "law.json")
        assert law.info["leave_group_out"]["params"]["max_error_pct"] < 10


def test_the_grid_itself():
    """The names that the texts give are those of the columns."""
    n, d = grid()
    runs = replace(table(n, d), final_loss=np.full(25, 3.0))
    text = undetermined(np.log(np.stack(columns(Quadratic, runs), axis=1)), NAMES, 2)
    assert text[0] == "peak_lr and batch_tokens hardly vary and have no part in the law"
