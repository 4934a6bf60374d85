"""The table of all laws: the best is marked, a column in which ours is behind is named, folds are whole groups."""

import re
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


EVERY = tuple(column for columns in rivals.LONG.values() for column in columns)


def test_the_best_is_bold_and_what_is_missing_is_a_dash():
    text = rivals.text_table(FIGURES, EVERY)
    assert "| optlaws | 0.200 ± 0.050 | **3 of 4** | **0.50** | **0.2000** |" in text
    assert "| chinchilla | **0.100 ± 0.020 (60 % of runs)** | - | 1.00 | - |" in text


def test_the_short_table_has_no_spreads():
    text = rivals.text_table(FIGURES, rivals.SHORT)
    assert "| optlaws | 0.200 | **0.50** | **0.2000** |" in text
    assert "| chinchilla | **0.100 (60 % of runs)** | 1.00 | - |" in text
    assert "±" not in rivals.report(FIGURES)[1]


def tables(text):
    """Every Markdown table of a text: {(row, head of the column): cell}, bold type and spreads dropped."""
    for block in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE):
        head, _, *rows = [[part.strip() for part in line.strip("| \n").split(" | ")] for line in block.splitlines()]
        if head[0] == "law":
            yield {
                (row[0], name): re.sub(r" ± [\d.]+", "", part.strip("*"))
                for row in rows
                for name, part in zip(head[1:], row[1:], strict=False)  # formulas have bars of their own
            }


def test_the_table_of_the_readme_says_what_the_page_says():
    root = Path(__file__).resolve().parents[2]
    readme = (root / "README.md").read_text(encoding="utf-8")
    block = readme.split("<!-- rivals:begin -->\n")[1].split("\n<!-- rivals:end -->")[0]
    assert block.startswith(f"{rivals.IN_SHORT}\n\n| law | " + " | ".join(column[0] for column in rivals.SHORT) + " |")
    (shown,) = tables(block)
    page = {}
    for found in tables((root / "docs" / "rivals.md").read_text(encoding="utf-8")):
        page |= found
    of_the_page = {column[1:3]: column[0] for column in EVERY}
    compared = 0
    for head, task, key, _, _ in rivals.SHORT:
        if (task, key) in of_the_page:  # ranks over all splits together are the README's alone
            for law in (name for name, column in shown if column == head):
                assert shown[law, head] == page.get((law, of_the_page[task, key]), "-"), (law, head)
                compared += 1
    assert compared > 100


def test_where_ours_is_behind_is_said():
    behind = rivals.ahead(FIGURES, EVERY)
    assert behind == ["family error %: chinchilla 0.100 ± 0.020 (60 % of runs), ours 0.200 ± 0.050"]
    long, short = rivals.report(FIGURES)
    assert f"## Where ours is not ahead\n\n- {behind[0]}\n" in long
    behind = rivals.ahead(FIGURES, rivals.SHORT)
    assert behind == ["family, error %: chinchilla 0.100 (60 % of runs), ours 0.200"]
    assert behind[0] in short
    assert "- chinchilla, curves: no curves" in long
    assert "| `chinchilla` | E + A N^-alpha + B D^-beta |" in long


def test_ours_without_a_figure_is_behind():
    figures = {"optlaws": {"_why": {}}, "chinchilla": FIGURES["chinchilla"]}
    assert any("ours no figure" in line for line in rivals.ahead(figures, rivals.SHORT))


def test_a_rival_as_good_as_ours_is_named():
    both = {"optlaws": FIGURES["optlaws"], "chinchilla": FIGURES["optlaws"], "kaplan": FIGURES["optlaws"]}
    said = rivals.ahead(both, rivals.SHORT)
    assert said[0] == "family, error %: chinchilla, kaplan as good, 0.200"
    assert rivals.ahead({"optlaws": FIGURES["optlaws"]}, rivals.SHORT) == []


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
