"""Rival laws on runs that hardly tell them: the order of the rows must not choose where a search ends."""

from pathlib import Path

import numpy as np
import pytest

from optlaws.baselines import get_baseline
from optlaws.baselines.base import in_order
from optlaws.law.baseline import fit_baseline
from optlaws.runs import CurveTable, RunTable, read_runs
from optlaws.schedules import ScheduleBatch

RUNS = read_runs(Path(__file__).resolve().parents[2] / "examples" / "my_runs.csv")


@pytest.mark.parametrize("kind", ["kaplan", "critical_batch", "data_constrained"])
@pytest.mark.filterwarnings("ignore::optlaws.errors.OptlawsWarning")
def test_the_order_of_the_rows_changes_nothing(kind):
    asked = RunTable.build("cosine:peak=1e-3,steps=60000", params=110e6, batch_tokens=51_200)
    answers = []
    for order in (np.arange(len(RUNS)), np.arange(len(RUNS))[::-1], np.random.default_rng(2).permutation(len(RUNS))):
        law = fit_baseline(kind, RUNS.select(order))
        p = law.predict(asked)
        assert p.lower[0] <= p.loss[0] <= p.upper[0]
        answers.append([p.loss[0], p.lower[0], p.upper[0]])
    np.testing.assert_allclose(answers[1:], [answers[0]] * 2, rtol=1e-9)


@pytest.mark.parametrize("kind", ["chinchilla", "kaplan", "critical_batch", "quadratic", "mup", "openai_rate"])
@pytest.mark.filterwarnings("ignore::optlaws.errors.OptlawsWarning")
def test_a_law_fitted_by_itself_is_that_of_the_command_whatever_the_order(kind):
    wanted = fit_baseline(kind, RUNS).law.parameters()
    for order in (np.arange(len(RUNS))[::-1], np.random.default_rng(2).permutation(len(RUNS))):
        assert get_baseline(kind).fit(RUNS.select(order)).parameters() == pytest.approx(wanted, rel=1e-12)


def test_the_order_of_runs_with_curves_changes_nothing():
    done = RUNS.select(np.isfinite(RUNS.final_loss))
    names = [name for name in done.run_id for _ in range(3)]
    steps = np.concatenate([np.round(total * np.array([0.6, 0.8, 1.0])) for total in done.steps])
    losses = np.concatenate([loss + np.array([0.2, 0.1, 0.0]) for loss in done.final_loss])
    curves = CurveTable(tuple(names), steps, losses)
    fits = [get_baseline("annealing").fit(RUNS.select(order), curves) for order in (slice(None), slice(None, None, -1))]
    assert fits[0] == fits[1]


def test_the_order_is_that_of_the_runs():
    mixed = RUNS.select(np.random.default_rng(0).permutation(len(RUNS)))
    assert in_order(mixed).run_id == in_order(RUNS).run_id
    losses = in_order(mixed).final_loss
    assert (np.diff(losses) >= 0).all()
    batch = RunTable.build(ScheduleBatch.grid("cosine", peak=np.array([2e-3, 1e-3]), steps=1000), params=1e8)
    assert np.asarray(in_order(batch).batch().peak).tolist() == [1e-3, 2e-3]
