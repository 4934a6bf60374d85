"""What `optlaws predict` says of a law on runs that have losses of their own."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import spearmanr

from optlaws.commands.misses import misses_text
from optlaws.runs import RunTable
from optlaws.schedules import parse

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "my_runs.csv"
LAW = "llama-slimpajama"


def answer(loss, half=0.05):
    loss = np.asarray(loss, dtype=float)
    return SimpleNamespace(loss=loss, lower=loss - half, upper=loss + half)


def runs(loss, **more):
    specs = [f"cosine:peak={1e-3 * (row + 1)},steps=1000" for row in range(len(loss))]
    return RunTable.build(specs, params=1e8, batch_tokens=1e5, final_loss=loss, **more)


def test_the_numbers_are_those_of_the_rows_that_were_written(run):
    code, out, err = run("predict", LAW, EXAMPLE, "-o", "-")
    assert code == 0
    rows = [row for row in csv.DictReader(out.splitlines()) if row["status"] == "completed"]
    loss, guess, lower, upper = (
        np.array([float(row[key]) for row in rows]) for key in ("final_loss", "predicted_loss", "lower", "upper")
    )
    assert f"On {len(rows)} finished runs law '{LAW}' is off by {100 * abs(guess / loss - 1).mean():.2f} %" in err
    assert f"its level by {100 * (guess / loss - 1).mean():+.2f} %" in err
    assert f"{100 * ((lower <= loss) & (loss <= upper)).mean():.0f} % of the losses lie inside" in err
    pools = {}
    for place, row in enumerate(rows):
        pools.setdefault((row["params"], row["batch_tokens"], parse(row["schedule"]).total_steps), []).append(place)
    ranks = [spearmanr(loss[rows], guess[rows]).statistic for rows in pools.values() if len(rows) >= 4]
    assert f"rank correlation {np.mean(ranks):.2f}, the mean of {len(ranks)} pools" in err
    assert "Runs that it was fitted to say nothing of how good it is on others." in err
    assert err.count("\n") == 1


def test_runs_without_losses_or_unfinished_are_not_counted(run, tmp_path):
    with open(EXAMPLE, encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row["final_loss"] = ""
    rows[0]["final_loss"], rows[1]["final_loss"], rows[1]["status"] = "2.9", "2.9", "interrupted"
    for name, kept in (("one.csv", rows), ("none.csv", rows[2:])):
        with open(tmp_path / name, "w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(kept)
    code, out, err = run("predict", LAW, "one.csv", "-o", "out.csv")
    assert (code, err) == (0, "")
    assert out.startswith("On 1 finished run law")
    assert "nothing is known of their order" in out
    assert run("predict", LAW, "none.csv", "-o", "out.csv") == (0, "", "")


@pytest.mark.parametrize(
    ("guess", "words"),
    [
        ([3.0, 3.1, 3.2, 3.3], "off by 0.00 % on average, its level by +0.00 %; rank correlation 1.00 in the one pool"),
        ([3.3, 3.2, 3.1, 3.0], "level by +0.25 %; rank correlation -1.00 in the one pool of 4 or more runs"),
        ([3.1] * 4, "rank correlation unknown (a pool is predicted, or ended, alike)"),
        ([3.0, 3.1, 3.2, 3.4], "75 % of the losses lie inside"),
        ([3.0, 3.1, 3.2, np.nan], "On 3 finished runs"),
    ],
)
def test_words_of_few_runs(guess, words):
    assert words in misses_text("mine", runs([3.0, 3.1, 3.2, 3.3]), answer(guess))


def test_nothing_to_say():
    assert misses_text("mine", runs([np.nan] * 3), answer([3.0] * 3)) == ""
    assert misses_text("mine", runs([3.0] * 3), answer([np.nan] * 3)) == ""
    assert misses_text("mine", runs([3.0] * 3, status=["diverged"] * 3), answer([3.0] * 3)) == ""
