"""What a fit takes of curves, what it makes of runs that stand apart, and how far curves move its constants."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_runs import curves_of, plan
from threadpoolctl import threadpool_limits

from optlaws.errors import OptlawsWarning
from optlaws.features import get_basis
from optlaws.law import fit_law
from optlaws.law.fitting import CALIBRATED, _calibrate, _Fit
from optlaws.regression import Settings
from optlaws.runs import CurveTable, read_runs

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "my_runs.csv"


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def few():
    """Nine runs of 4000 steps, 300 of them warm-up."""
    return plan(steps=(4000,), params=(6e7,))


def points(runs, curves):
    return _Fit(runs, curves, get_basis(), Settings(), None).problem(get_basis())[0]


def test_a_curve_that_is_read_more_often_says_no_more(few):
    """Each curve's readings count as twenty independent ones together, or as many as there are."""
    weights = []
    for every in (400, 100, 50, 10):
        problem = points(few.select([0]), curves_of(few.select([0]), every=every))
        assert (problem.share >= 1.0).all()
        weights.append((1.0 / problem.share).sum())
    assert weights == pytest.approx([9.0, 20.0, 20.0, 20.0])  # every 400 steps: all but the first, of the warm-up


@pytest.mark.parametrize(("until", "looked_at"), [(300, False), (500, False), (600, True)])
def test_the_first_eighth_of_a_run_is_not_looked_at(few, until, looked_at):
    """Repeats differ most there: whatever a curve does before step 500 of 4000, the points of the fit are the same."""
    curves = curves_of(few, every=20)
    odd = CurveTable(curves.run_id, curves.step, np.where(curves.step <= until, 2.0, 1.0) * curves.loss)
    one, other = points(few, curves), points(few, odd)
    assert (not np.array_equal(one.loss, other.loss)) is looked_at
    np.testing.assert_array_equal(one.columns, other.columns)


@pytest.mark.parametrize("seed", range(4))
def test_constants_leave_their_usual_values_only_as_far_as_curves_pay_for_it(few, seed):
    """One noisy curve says little: what it gains in evidence is at least what the prior of the constants costs."""
    one, basis = few.select([0]), get_basis()
    work = _Fit(one, curves_of(one, every=100, noise=0.02, seed=seed), basis, Settings(), None)
    found, values = _calibrate(work, basis, None)
    usual = {**basis.dynamics.to_dict(), **basis.exponents}
    sds = [np.log(values[name] / usual[name] / centre) / sd for name, (centre, sd) in CALIBRATED.items()]
    middle = {name: usual[name] * centre for name, (centre, _) in CALIBRATED.items()}
    exponents = {name: value for name, value in middle.items() if name in basis.exponents}
    dynamics = {name: value for name, value in middle.items() if name not in basis.exponents}
    gain = work.evidence(found, work.settings) - work.evidence(basis.with_constants(dynamics, exponents), work.settings)
    assert gain >= 0.5 * float(np.square(sds).sum())


def test_a_run_that_stands_apart_but_spoils_nothing_is_kept_and_named():
    """Without it the others would have to scatter less; where the noise is what it is, it stays in the law."""
    runs = read_runs(EXAMPLE)
    runs = replace(runs, final_loss=runs.final_loss * np.where(np.arange(len(runs)) == 5, 1.03, 1.0))
    with pytest.warns(OptlawsWarning, match="1 run does not fit the others and may spoil the law") as told:
        law = fit_law(runs, settings=Settings(noise_grid=(0.001,)))
    assert law.info["n_runs"] == len(runs)
    assert [(x["run_id"], x.get("left_out")) for x in law.info["outliers"]] == [(runs.run_id[5], None)]
    assert "left out" not in str(told[0].message)


@pytest.fixture(scope="module")
def annealed(few):
    """A law of curves of cosines alone, of which no final loss is known."""
    some = few.select(np.array([s.kind == "cosine" for s in few.schedule_tuple()]))
    return fit_law(some, curves_of(some, every=100, noise=0.0005))


def test_curves_show_the_loss_at_every_rate(annealed, few):
    """Cosines pass through all rates: a run that ends at its peak rate is no less certain for it."""
    still = few.select(np.array([s.kind == "constant" for s in few.schedule_tuple()]))
    without = replace(annealed, domain={k: v for k, v in annealed.domain.items() if k != "end_rate"})
    np.testing.assert_array_equal(annealed.predict(still).sd, without.predict(still).sd)


def test_where_no_final_loss_is_known_a_curve_ends_at_the_final_loss(annealed, few):
    """There is one evaluation set only, and so no doubt about an offset between two."""
    end, final = annealed.predict_curve(few, np.array([4000.0])), annealed.predict(few)
    np.testing.assert_allclose(end.loss, final.loss, rtol=1e-6)
    np.testing.assert_allclose(end.sd, final.sd, rtol=1e-3)
