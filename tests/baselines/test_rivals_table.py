"""The table of all laws: the best is marked, a column in which ours is behind is named, folds are whole groups."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import rivals
from made import grid, table, with_law

from optlaws.baselines.chinchilla import Chinchilla

FIGURES = {
    "optlaws": {
        "_why": {},
        "schedules family": {"error": 0.2, "spread": 0.05, "hits": 3, "pools": 4, "share": 1.0},
        "speed": {"fit": 0.5, "predict": 0.2},
    },
    "chinchilla": {
        "_why": {"curves": "no curves"},
        "schedules family": {"error": 0.1, "spread": 0.02, "hits": None, "pools": 4, "share": 0.6},
        "speed": {"fit": 1.0, "predict": None},
    },
}


def test_the_best_is_bold_and_what_is_missing_is_a_dash():
    text = rivals.text_table(FIGURES, rivals.SHORT)
    assert "| optlaws | 0.200 ± 0.050 | **0.50** | **0.2000** |" in text
    assert "| chinchilla | **0.100 ± 0.020 (60 % of runs)** | 1.00 | - |" in text


def test_where_ours_is_behind_is_said():
    behind = rivals.ahead(FIGURES, rivals.SHORT)
    assert behind == ["family, error %: chinchilla 0.100 ± 0.020 (60 % of runs), ours 0.200 ± 0.050"]
    long, short = rivals.report(FIGURES)
    assert behind[0] in short
    assert "## Where ours is not ahead\n\n- " in long
    assert "- chinchilla, curves: no curves" in long
    assert "| `chinchilla` | E + A N^-alpha + B D^-beta |" in long


def test_ours_without_a_figure_is_behind():
    figures = {"optlaws": {"_why": {}}, "chinchilla": FIGURES["chinchilla"]}
    assert any("ours no figure" in line for line in rivals.ahead(figures, rivals.SHORT))


def test_scores_need_half_of_the_runs():
    law = Chinchilla.refit()
    runs = with_law(law, table(*grid()))
    loss = np.array(runs.final_loss) * 1.01
    pool = np.zeros(25)
    assert rivals.score(loss, runs, pool)["error"] == pytest.approx(1.0)
    loss[:10] = np.nan
    row = rivals.score(loss, runs, pool)
    assert row["runs"] == 15
    assert row["share"] == 0.6
    loss[:13] = np.nan
    assert rivals.score(loss, runs, pool) is None


def test_a_rival_is_fitted_without_the_held_out_runs():
    law = Chinchilla.refit()
    runs = with_law(law, table(*grid()))
    held = runs.params == 8e8
    loss = rivals.Rival.named("chinchilla").losses(runs.select(~held), runs.select(held))
    assert np.abs(loss / runs.final_loss[held] - 1).max() < 1e-3
    assert not rivals.Rival.named("optlaws").offers("recommend")
    assert rivals.Rival.named("multi_power").one_size
    assert [test.sum() for _, test in rivals.folds(np.array([1, 1, 2, 3]))] == [2, 1, 1]


def test_printed_constants_are_not_fitted():
    rival = rivals.Rival.named(f"step_law{rivals.PRINTED}")
    assert rival.fit(table([1e8], [1e9], loss=3.0)) == rival.kind.published()


def test_laws_of_one_size_say_nothing_of_others():
    runs = table(np.repeat([1e8, 2e8], 8), np.tile(np.geomspace(1e9, 1e10, 8), 2), batch=1e7, loss=3.0)
    small = runs.params == 1e8
    assert np.isnan(rivals.Rival.named("annealing").losses(runs.select(small), runs.select(~small))).all()
