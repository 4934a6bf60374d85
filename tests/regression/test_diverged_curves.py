"""Curves that diverged are no law's business, whatever the table says of their run."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from made_runs import curves_of, plan, with_losses

from optlaws.cli import run
from optlaws.errors import OptlawsWarning
from optlaws.law import fit_law, load_law
from optlaws.risk import curve_outcome, with_outcomes
from optlaws.runs import CurveTable, write_curves, write_runs

BAD = 4  # the run whose curve jumps half-way


@pytest.fixture(scope="module")
def runs():
    return with_losses(plan(), noise=0.0005)


@pytest.fixture(scope="module")
def curves(runs):
    made = curves_of(runs, every=400)
    mine = np.array([name == runs.run_id[BAD] for name in made.run_id])
    late = mine & (made.step > 0.5 * runs.steps[BAD])
    return replace(made, loss=np.where(late, 2.5 * made.loss, made.loss))


def said(runs, status, loss):
    """The runs, one of them with this status and loss."""
    table, losses = list(runs.status), runs.final_loss.copy()
    table[BAD], losses[BAD] = status, loss
    return replace(runs, status=tuple(table), final_loss=losses)


@pytest.mark.parametrize(("status", "loss"), [(None, np.nan), (None, 7.0), ("completed", 7.0), ("interrupted", np.nan)])
def test_the_law_is_that_of_the_table_that_says_so(runs, curves, status, loss):
    with pytest.warns(OptlawsWarning, match=f"1 run counts as diverged, .*: {runs.run_id[BAD]!r} \\(from step "):
        law = fit_law(said(runs, status, loss), curves)
    with warnings.catch_warnings():
        warnings.simplefilter("error", OptlawsWarning)
        told = fit_law(said(runs, "diverged", np.nan), curves)
    np.testing.assert_array_equal(law.predict(runs).loss, told.predict(runs).loss)
    assert law.info["n_left_out"] == told.info["n_left_out"] == 1
    assert law.info["n_curves"] == told.info["n_curves"] == len(runs) - 1


def test_outcomes_are_the_detector_s(runs, curves):
    table = said(runs, None, np.nan)
    table = replace(table, status=(None, *table.status[1:-1], "nonfinite"))
    found, diverged = with_outcomes(table, curves)
    mine = np.array([name == runs.run_id[BAD] for name in curves.run_id])
    assert diverged == {runs.run_id[BAD]: curve_outcome(curves.step[mine], curves.loss[mine])}
    assert found.status[0] == "completed"
    assert found.status[BAD] == "diverged"
    assert found.status[-1] == "nonfinite"
    again, none = with_outcomes(found, curves)
    assert again.status == found.status
    assert none == {}
    assert with_outcomes(table, None)[0] is table


def test_the_command_counts_it_for_the_risk(runs, curves, tmp_path, capsys):
    table, readings, file = tmp_path / "runs.csv", tmp_path / "curves.csv", tmp_path / "law.json"
    write_runs(str(table), said(runs, None, np.nan), {})
    write_curves(str(readings), curves, {})
    assert run(["fit", str(table), "--curves", str(readings), "-o", str(file)]) == 0
    out, err = capsys.readouterr()
    assert f"({len(runs) - 1} completed, 1 diverged)" in out
    assert err.count("counts as diverged") == 1
    assert load_law(str(file)).risk.info["n_diverged"] == 1


def test_missing_and_repeated_readings_are_no_divergence(runs):
    made = curves_of(runs, every=400)
    again = np.append(np.arange(len(made)), [0, 1, 2])
    twice = CurveTable(tuple(made.run_id[i] for i in again), made.step[again], made.loss[again])
    table, diverged = with_outcomes(replace(runs, status=(None,) * len(runs)), twice)
    assert diverged == {}
    assert set(table.status) == {"completed"}
    gap = replace(made, loss=np.where(np.arange(len(made)) % 7 == 0, np.nan, made.loss))
    table, diverged = with_outcomes(runs, gap)
    assert diverged == {}
    assert table.status == runs.status
