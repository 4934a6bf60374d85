"""Runs far smaller than language models are fitted in units of their own, where the runs say so."""

import warnings

import numpy as np
import pytest
from made_runs import coefficients, plan, with_losses

from optlaws.cli import run as main
from optlaws.errors import OptlawsWarning
from optlaws.features import feature_table, get_basis
from optlaws.law import fit_law, load_law
from optlaws.runs import RunTable, write_runs

TINY = {"params_ref": 1.5e4, "batch_ref": 1024.0, "steps_ref": 500.0, "lr_ref": 0.03}


def tiny(peaks=(2e-3, 6e-3, 2e-2), steps=(250, 500, 1000), params=(7e3, 1.5e4, 2.5e4), noise=0.001, **columns):
    """Runs of a world that obeys the law in units of its own."""
    runs = plan(peaks, steps, params, 25, batch_tokens=1024.0, **columns)
    noisy = 1 + noise * np.random.default_rng(0).standard_normal(len(runs))
    loss = feature_table(runs, get_basis().with_constants(TINY)) @ coefficients() * noisy
    return RunTable.build(
        runs.schedules,
        run_id=runs.run_id,
        params=runs.params,
        batch_tokens=runs.batch_tokens,
        optimizer="adamw",
        weight_decay=0.1,
        status="completed",
        final_loss=loss,
    )


def plan_error(law, held):
    return float(np.abs(law.predict(held).loss / held.final_loss - 1).mean())


@pytest.fixture(scope="module")
def laws():
    """The law as it is fitted, and one that is kept in the usual units."""
    runs = tiny()
    mine = fit_law(runs)  # warns of nothing: in these units the runs obey the law
    with pytest.warns(OptlawsWarning, match="scatter by 1 % or more"):
        return mine, fit_law(runs, own_units=False)


def test_tiny_runs_get_units_of_their_own(laws):
    mine, usual = laws
    assert mine.info["units"] == pytest.approx({**TINY, "lr_ref": 0.03})
    assert "units" not in usual.info
    assert mine.basis.dynamics.params_ref == pytest.approx(1.5e4)


def test_they_predict_longer_and_larger_runs_better(laws):
    mine, usual = laws
    held = tiny(peaks=(4e-3,), steps=(2000,), params=(2.5e4, 8e4), noise=0.0)
    assert plan_error(mine, held) < 0.5 * plan_error(usual, held)
    assert plan_error(mine, held) < 0.02


def test_the_law_file_keeps_them(laws, tmp_path):
    mine, _ = laws
    held = tiny(peaks=(4e-3,), steps=(2000,), params=(8e4,), noise=0.0)
    mine.save(str(tmp_path / "law.json"))
    again = load_law(str(tmp_path / "law.json"))
    assert again.info["units"] == mine.info["units"]
    np.testing.assert_array_equal(again.predict(held).loss, mine.predict(held).loss)


def test_usual_units_for_language_models():
    law = fit_law(with_losses(plan(), noise=0.001))
    assert "units" not in law.info
    assert law.basis.dynamics == get_basis().dynamics


def test_a_few_tiny_runs_keep_the_usual_units():
    runs = tiny().select(np.arange(14))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptlawsWarning)
        law = fit_law(runs)
    assert "units" not in law.info


def test_the_command_says_so(tmp_path, capsys):
    write_runs(str(tmp_path / "runs.csv"), tiny())
    assert main(["fit", str(tmp_path / "runs.csv"), "-o", str(tmp_path / "law.json")]) == 0
    out = capsys.readouterr().out
    assert "in units of their own: params_ref 1.5e+04, batch_ref 1024, steps_ref 500, lr_ref 0.03" in out
