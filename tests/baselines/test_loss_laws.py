"""Laws of the loss in N and D: parameters come back, formulas are those of the papers, bad input is one sentence."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from made import grid, table, with_law

from optlaws.baselines import REGISTRY, baseline_names, get_baseline
from optlaws.baselines.base import BaselineLaw, CurveLaw, LossLaw
from optlaws.baselines.chinchilla import GRID, Chinchilla, _Fit, _starts
from optlaws.baselines.critical_batch import CriticalBatch
from optlaws.baselines.data_constrained import DataConstrained
from optlaws.baselines.kaplan import Kaplan, critical_batch
from optlaws.baselines.polynomial import CubicRidge, Quadratic
from optlaws.baselines.step_law import StepLaw
from optlaws.baselines.step_law_valley import StepLawValley
from optlaws.errors import FitError, InputError, LawError, TableError


def test_every_law_keeps_the_interface():
    assert len(set(baseline_names())) == len(REGISTRY) >= 18
    for name in baseline_names():
        kind = get_baseline(name)
        assert kind.name == name
        assert "arXiv" in kind.source or "no paper" in kind.source or "CS336" in kind.source
        assert " ".join(kind.source.split()) in " ".join((sys.modules[kind.__module__].__doc__ or "").split())
        assert kind.formula
        assert isinstance(kind.needs, tuple)
        assert hasattr(kind, "fit")
        assert hasattr(kind, "parameters")
        assert any(hasattr(kind, method) for method in ("predict", "recommend", "allocate"))


def test_an_unknown_law_is_one_sentence():
    with pytest.raises(LawError, match="got 'chinchila'; did you mean 'chinchilla'"):
        get_baseline("chinchila")


def test_protocols_describe_the_laws():
    law = Chinchilla.refit()
    assert isinstance(law, BaselineLaw)
    assert isinstance(law, LossLaw)
    assert not isinstance(law, CurveLaw)


def test_chinchilla_loss_and_parameters():
    law = Chinchilla.published()
    assert law.loss(1e9, 2e10) == pytest.approx(1.69 + 406.4 / 1e9**0.34 + 410.7 / 2e10**0.28, rel=1e-14)
    assert law == Chinchilla(**law.parameters())


def test_chinchilla_fit_gives_back_its_parameters():
    law = Chinchilla.refit()
    runs = with_law(law, table(*grid()))
    found = Chinchilla.fit(runs, starts=100)
    for name, value in law.parameters().items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-3)


def test_chinchilla_fit_ignores_outliers_and_failed_runs():
    law = Chinchilla.refit()
    runs = with_law(law, table(*grid(), status=["completed"] * 24 + ["diverged"]), noise=1e-3)
    spoiled = np.array(runs.final_loss)
    spoiled[[3, 17]] *= 1.5
    from dataclasses import replace

    found = Chinchilla.fit(replace(runs, final_loss=spoiled), starts=100)
    assert np.abs(found.predict(runs) / law.predict(runs) - 1).max() < 0.01


def test_chinchilla_starts_are_the_published_grid():
    assert len(_starts(0, 0)) == len(_starts(10**6, 0)) == 4500 == int(np.prod([len(v) for v in GRID.values()]))
    assert np.array_equal(_starts(50, 3), _starts(50, 3))
    assert not np.array_equal(_starts(50, 3), _starts(50, 4))


def test_chinchilla_gradient_is_that_of_its_objective():
    rng = np.random.default_rng(0)
    n, d = grid()
    loss = Chinchilla.published().loss(n, d) * np.exp(0.002 * rng.standard_normal(len(n)))
    work = _Fit(n, d, loss)
    objective = work.objective()
    x = work.inward(np.array([[6.0, 6.2, 0.5, 0.34, 0.29]]))
    rows = np.zeros(1, dtype=int)
    value, slope = objective(x, rows)
    for j in range(5):
        step = np.zeros((1, 5))
        step[0, j] = 1e-7
        numeric = (objective(x + step, rows)[0] - objective(x - step, rows)[0]) / 2e-7
        assert slope[0, j] == pytest.approx(float(numeric[0]), rel=1e-4, abs=1e-9)
    assert np.allclose(work.outward(x), [[6.0, 6.2, 0.5, 0.34, 0.29]])
    law = Chinchilla._from(work.outward(x)[0])
    assert law.objective(n, d, loss) == pytest.approx(float(value[0]), rel=1e-12)


def test_chinchilla_allocation_is_the_minimum_of_its_loss():
    law = Chinchilla.refit()
    n, d = law.allocate(1e22)
    assert 6 * n * d == pytest.approx(1e22)
    around = n * np.geomspace(0.5, 2, 201)
    losses = law.loss(around, 1e22 / 6 / around)
    assert around[np.argmin(losses)] == pytest.approx(n, rel=0.01)
    assert sum(law.exponents) == pytest.approx(1)
    with pytest.raises(InputError, match="compute must be above 0"):
        law.allocate(-1.0)


def test_chinchilla_bootstrap_covers_the_truth_and_depends_on_the_seed():
    law = Chinchilla.refit()
    n, d = (np.tile(values, 4) for values in grid())
    rng = np.random.default_rng(1)
    loss = law.loss(n, d) * np.exp(0.003 * rng.standard_normal(len(n)))
    best = Chinchilla.fit_points(n, d, loss, starts=100)
    draws = Chinchilla.bootstrap(n, d, loss, best, draws=200, seed=0)
    alpha = np.array([one.alpha for one in draws])
    assert abs(alpha.mean() - law.alpha) < 4 * alpha.std()
    assert alpha.std() < 0.1
    again = Chinchilla.bootstrap(n, d, loss, best, draws=200, seed=0)
    assert [one.alpha for one in again] == alpha.tolist()


def test_kaplan_formula_and_recovery():
    law = Kaplan.published()
    runs = table(*grid())
    n, d = grid()
    expected = ((law.N_c / n) ** (law.alpha_n / law.alpha_d) + law.D_c / d) ** law.alpha_d
    assert np.allclose(law.predict(runs), expected, rtol=1e-13)
    found = Kaplan.fit(with_law(law, runs))
    assert found.alpha_n == pytest.approx(law.alpha_n, rel=1e-3)
    assert found.alpha_d == pytest.approx(law.alpha_d, rel=1e-3)
    assert critical_batch(2.5) == pytest.approx(2e8 / 2.5 ** (1 / 0.21))


def test_critical_batch_recovery_and_limits():
    law = CriticalBatch(1.7, 30.0, 12.0, 0.2, 0.45, 1.2e6)
    n, d = (np.repeat(values, 4) for values in grid())
    runs = with_law(law, table(n, d, batch=np.tile([6e4, 3e5, 1.5e6, 6e6], 25)))
    found = CriticalBatch.fit(runs)
    assert found.B_c == pytest.approx(law.B_c, rel=0.02)
    assert found.gamma == pytest.approx(law.gamma, rel=0.02)
    assert found.recommend(1e8, 1e9).batch_tokens == found.B_c
    assert law.rate(1.0, law.B_c) == pytest.approx(0.5)
    assert law.rate(1.0, 1e12) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(InputError, match="batch_tokens must be above 0"):
        law.rate(1.0, 0.0)
    small, large = (law.predict(table([1e8], [1e10], batch=b))[0] for b in (1e4, 1e8))
    assert small < law.predict(table([1e8], [1e10], batch=1.2e6))[0] < large


def test_data_constrained_discounts_repetition():
    law = DataConstrained.published()
    once = table([1e8], [2e9])
    unique = [[f"{u:.0f}"] for u in (2e9, 1e9, 2.5e8)]
    losses = [law.predict(table([1e8], [2e9], extra={"unique_tokens": u}))[0] for u in unique]
    assert losses[0] == law.predict(once)[0]
    assert losses[0] < losses[1] < losses[2]
    four = 1e9 * (1 + law.r_tokens * (1 - np.exp(-3 / law.r_tokens)))
    naive = law.E + law.A / 1e6**law.alpha + law.B / four**law.alpha
    given = law.predict(table([1e6], [4e9], extra={"unique_tokens": ["1e9"]}))[0]
    assert given == pytest.approx(naive, rel=1e-12)
    paired = 1e9 * (law.A / law.B) ** (1 / law.alpha)
    size = paired * (1 + law.r_params * (1 - np.exp(-(1e9 / paired - 1) / law.r_params)))
    naive = law.E + law.A / size**law.alpha + law.B / 1e9**law.alpha
    assert law.predict(table([1e9], [1e9]))[0] == pytest.approx(naive, rel=1e-12)


def test_data_constrained_recovery():
    law = DataConstrained.published()
    n, d = grid()
    n, d = np.tile(n, 3), np.tile(d, 3)
    unique = d / np.repeat([1.0, 4.0, 30.0], 25)
    runs = with_law(law, table(n, d, extra={"unique_tokens": [repr(float(u)) for u in unique]}))
    found = DataConstrained.fit(runs)
    assert found.alpha == pytest.approx(law.alpha, rel=0.02)
    assert found.r_tokens == pytest.approx(law.r_tokens, rel=0.1)
    plain = DataConstrained.fit(with_law(law, table(*grid())))
    assert (plain.r_params, plain.r_tokens) == (law.r_params, law.r_tokens)
    assert plain.alpha == pytest.approx(law.alpha, rel=0.02)
    with pytest.raises(TableError, match="unique_tokens must be a number above 0"):
        law.predict(table([1e8], [1e9], extra={"unique_tokens": ["many"]}))


def rates_grid():
    """Return runs on a grid of rates and batches about Step Law's optimum, with a quadratic valley."""
    law, floor = StepLaw.published(), Chinchilla.refit()
    rows = []
    for n, d in zip(*grid((1e8, 2e8, 4e8), (4e9, 2e10, 1e11)), strict=True):
        advice = law.recommend(n, d)
        for i in np.linspace(-1.2, 1.2, 7):
            for j in np.linspace(-1.2, 1.2, 7):
                rows.append((n, d, advice.peak_lr * np.exp(i), advice.batch_tokens * np.exp(j), i, j))
    n, d, peak, batch, x, y = np.array(rows).T
    loss = floor.loss(n, d) * np.exp(0.012 * x**2 - 0.004 * x * y + 0.008 * y**2)
    return table(n, d, batch=batch, peak=peak, loss=loss)


def test_polynomials_and_the_valley_fit_a_valley():
    runs = rates_grid()
    for kind, bound in ((Quadratic, 0.01), (CubicRidge, 0.01), (StepLawValley, 0.002)):
        law = kind.fit(runs)
        assert np.abs(law.predict(runs) / runs.final_loss - 1).mean() < bound, kind
        make = getattr(kind, "from_parameters", None)
        parameters = law.parameters()
        again = make(parameters) if make else kind(**parameters)
        assert np.array_equal(again.predict(runs), law.predict(runs))
    advice, truth = law.recommend(2e8, 2e10), StepLaw.published().recommend(2e8, 2e10)
    assert advice.peak_lr == pytest.approx(truth.peak_lr, rel=0.25)


def test_bad_input_names_the_column_and_a_way_out():
    runs = table(*grid(), loss=3.0)
    with pytest.raises(FitError, match="law 'chinchilla' needs at least 5 completed runs"):
        Chinchilla.fit(runs.select([0, 1]))
    from dataclasses import replace

    gone = replace(runs, params=np.full(25, np.nan), active_params=np.full(25, np.nan))
    with pytest.raises(LawError, match="params must be a finite number above 0 for law 'chinchilla'"):
        Chinchilla.fit(gone)
    with pytest.raises(LawError, match="tokens must be"):
        Chinchilla.refit().predict(replace(runs, tokens=np.zeros(25)))
    with pytest.raises(FitError, match="'quadratic' needs at least 30 completed runs"):
        Quadratic.fit(runs)


def test_columns_that_do_not_vary_have_no_part_in_a_polynomial():
    n, d = (np.tile(values, 2) for values in grid())
    runs = with_law(Chinchilla.refit(), table(n, d))
    law = Quadratic.fit(runs)
    other = law.predict(table(n, d, peak=7e-3))
    assert np.allclose(other, law.predict(runs), rtol=1e-9)
    assert np.abs(other / runs.final_loss - 1).mean() < 0.01
