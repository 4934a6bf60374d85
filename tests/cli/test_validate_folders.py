"""optlaws validate of several folders: one law, but pools, repeats and kinds of losses by folder."""

import csv
import dataclasses
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from made_sweep import sweep_tables

from optlaws import cli
from optlaws.commands.folders import read_folders
from optlaws.commands.shared import tell_kinds_of
from optlaws.commands.validate import levels_of, put_to_the_test, repeat_spread
from optlaws.commands.validation_report import levels_text, report
from optlaws.errors import OptlawsWarning
from optlaws.runs import RunTable, read_curves, write_curves, write_runs
from optlaws.validation import competing, configurations, scores

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tables():
    return sweep_tables()


@pytest.fixture(scope="module")
def verdict(tables):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return put_to_the_test(*tables)


def renamed(runs, end="-b"):
    return dataclasses.replace(runs, run_id=tuple(name + end for name in runs.run_id))


def other_level(runs, factor):
    """Return a sweep of the same configurations on other data: other names, losses times a factor."""
    return dataclasses.replace(renamed(runs), final_loss=runs.final_loss * factor)


@pytest.fixture(scope="module")
def apart(tables):
    """The verdict on two folders, one of which has losses 1.5 times those of the other."""
    runs = tables[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        both = RunTable.concat([runs, other_level(runs, 1.5)])
        return put_to_the_test(both, folder=["a"] * len(runs) + ["b"] * len(runs))


def test_runs_of_two_folders_neither_compete_nor_are_repeats(tables, verdict, apart):
    n = len(tables[0])
    assert apart.repeat_sd == pytest.approx(verdict.repeat_sd)
    assert apart.repeats == 2 * verdict.repeats
    assert apart.scores["pools"] == 2 * verdict.scores["pools"]
    assert not set(apart.pool[:n]) & set(apart.pool[n:])
    assert not set(apart.tried[:n]) & set(apart.tried[n:])
    for here, labels in ((apart.pool, competing), (apart.tried, configurations)):
        lone = labels(tables[0])
        for part in (here[:n], here[n:]):
            np.testing.assert_array_equal(
                np.unique(part, return_inverse=True)[1], np.unique(lone, return_inverse=True)[1]
            )
    assert [cell[:4] for cell in apart.cells] == [(name, *cell[1:4]) for name in "ab" for cell in verdict.cells]
    assert [cell[0] for cell in verdict.cells] == [""] * len(verdict.cells)
    done = [status == "completed" for status in apart.runs.status]
    assert repeat_spread(apart.runs.select(done), configurations(apart.runs)[done])[0] > 10  # what was said before


def test_the_ceiling_is_that_of_one_folder(verdict, apart):
    alone, both = verdict.ceiling(), apart.ceiling()
    assert both["error"] == pytest.approx(alone["error"], rel=0.1)
    assert both["pool_spearman"] == pytest.approx(alone["pool_spearman"], abs=0.05)


def test_levels_of_folders(tables):
    runs = tables[0]
    done = runs.select([status == "completed" for status in runs.status])
    half, mark = done.select(slice(0, 20)), lambda *parts: np.repeat(np.array(["a", "b", "c"][: len(parts)]), parts)
    both = RunTable.concat([done, other_level(done.select(slice(3, 23)), 1.25)])
    assert levels_of(both, mark(len(done), 20)) == [("a", "b", 20, pytest.approx(25))]
    assert levels_of(done, np.array([""] * len(done))) == []
    rest = renamed(done.select(slice(20, len(done))), "-c")
    three = RunTable.concat([other_level(half, 0.5), half, rest])
    assert levels_of(three, mark(20, 20, len(rest)))[0] == ("a", "b", 20, pytest.approx(100))
    # repeats of one configuration stand at the end, its first run among the first twenty
    assert [found[:3] for found in levels_of(three, mark(20, 20, len(rest)))[1:]] == [("a", "c", 1), ("b", "c", 1)]


def test_the_report_says_what_each_folder_got(tables, verdict, apart):
    text = report(apart)
    assert "One law was fitted to the runs of all folders, and knows of no difference between them." in text
    for name, rows in (("a", slice(0, len(tables[0]))), ("b", slice(len(tables[0]), None))):
        error = 100 * (apart.predicted / apart.runs.final_loss - 1)[rows][apart.scored[rows]]
        line = f"| {name} | {len(error)} | {np.abs(error).mean():.2f} | {error.mean():+.2f} | "
        assert line in text.partition("## Pools")[0]
    said = (
        "osses of 72 configurations that a and b both trained are 50 % higher in b: one law for both cannot tell them"
    )
    assert f"**L{said}" in text
    assert [said in line for line in levels_text(apart)] == [True]
    assert "| folder | parameters | budget |" in text
    assert "\n| b | 100M | " in text
    assert "Runs of one folder that differ in the seed alone scatter by" in text
    lone = report(verdict)
    assert "folder" not in lone
    near = dataclasses.replace(apart, levels=[("a", "b", 1, -0.25)], repeats=0)
    assert levels_text(near) == []
    assert "Losses of 1 configuration that a and b both trained differ by -0.25 %." in report(near)
    assert "No configuration was trained in two folders" in report(dataclasses.replace(near, levels=[]))


def test_the_pools_of_the_report_can_be_made_from_the_table(tables, tmp_path, monkeypatch, capsys):
    runs = tables[0]
    for name, some in (("a", runs), ("b", other_level(runs, 1.5))):
        (tmp_path / name).mkdir()
        write_runs(tmp_path / name / "runs.csv", some)
    monkeypatch.chdir(tmp_path)
    assert cli.run(["validate", "a", "b"]) == 0
    assert (
        "warning: losses of 72 configurations that a and b both trained are 50 % higher in b" in capsys.readouterr().err
    )
    with open("validation.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[-4:] == ["tokens", "batch_tokens", "folder", "pool"]
    assert [float(row["tokens"]) for row in rows] == [*runs.tokens] * 2
    assert {row["batch_tokens"] for row in rows} == {"51200"}
    assert [row["folder"] for row in rows] == ["a"] * len(runs) + ["b"] * len(runs)
    held = [row for row in rows if row["side"] == "held out" and row["status"] == "completed"]
    pools = {}
    for row in held:
        pools.setdefault((row["folder"], row["params"], row["tokens"], row["pool"]), []).append(row)
    assert len(pools) == len({key[-1] for key in pools}) == len({key[:-1] for key in pools}) == 10
    table = Path("validation.md").read_text(encoding="utf-8").partition("## Pools")[2]
    for (folder, params, _, _), some in pools.items():
        s = scores(*([float(row[k]) for row in some] for k in ("final_loss", "predicted_loss", "lower", "upper")))
        cells = f" {s['runs']} | {s['error']:.2f} | {s['bias']:+.2f} | {s['pool_spearman']:.3f} | "
        assert [
            line
            for line in table.splitlines()
            if line.startswith(f"| {folder} | {float(params) / 1e6:g}M |") and cells in line
        ], cells


def in_folders(tables, tmp_path, rename=False):
    """Write the larger size of a sweep into a folder of its own, and the others into another."""
    runs, curves = tables
    large = runs.params == runs.params.max()
    for name, mask in (("small", ~large), ("large", large)):
        (tmp_path / name).mkdir()
        some = runs.select(mask)
        names = set(some.run_id)
        write_curves(tmp_path / name / "curves.csv", curves.select([one in names for one in curves.run_id]))
        if rename and name == "large":
            some = dataclasses.replace(some, run_id=(runs.run_id[0], *some.run_id[1:]))
            (tmp_path / name / "curves.csv").unlink()
        write_runs(tmp_path / name / "runs.csv", some)


def test_several_folders_are_validated_together(tables, verdict, tmp_path):
    in_folders(tables, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "optlaws", "validate", "small", "large", "--law", "law.json"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert "No configuration was trained in two folders" in done.stdout
    assert f"scored on {verdict.scores['runs']} completed runs" in done.stdout
    names = ["validation.md", "validation.csv", "validation.png", "validation_curves.png"]
    assert done.stdout.endswith(f"\nWrote {', '.join(names)} and law.json.\n")
    assert all((tmp_path / name).is_file() for name in (*names, "law.json"))
    assert f"mean error | {verdict.scores['error']:.2f} %" in done.stdout
    assert f"mean error along the curves | {verdict.curve_error():.2f} %" in done.stdout
    assert len((tmp_path / "validation.csv").read_text().splitlines()) == 1 + len(tables[0])


def test_a_run_in_two_folders_is_refused(tables, tmp_path, monkeypatch, capsys):
    in_folders(tables, tmp_path, rename=True)
    monkeypatch.chdir(tmp_path)
    assert cli.run(["validate", "small", "large"]) == 2
    assert capsys.readouterr().err == (
        "optlaws: run_id must be another one for every run, got '1' in small and in large; rename the runs, or leave "
        "one of the two out\n"
    )
    assert cli.run(["validate", "small", "small"]) == 2
    assert "got '1' and 51 more in small and in small; rename" in capsys.readouterr().err
    assert cli.run(["validate", "small", "nowhere"]) == 2
    assert "DIR must be a folder with runs.csv in it" in capsys.readouterr().err
    assert not (tmp_path / "validation.md").exists()


class TestKinds:
    """What is said where the curves of folders are of two kinds."""

    def read(self, tables, tmp_path, small=None):
        """Read two folders, the smaller one's curves without validation losses and with this `loss_kind`."""
        in_folders(tables, tmp_path)
        path = tmp_path / "small" / "curves.csv"
        curves = read_curves(path)
        write_curves(
            path, dataclasses.replace(curves, extra={} if small is None else {"loss_kind": (small,) * len(curves)})
        )
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            runs, curves, folder = read_folders([str(tmp_path / "small"), str(tmp_path / "large")])
            tell_kinds_of(runs, curves)
        assert [Path(name).name for name in folder] == ["small" if n < 1e8 else "large" for n in runs.params]
        return curves, [str(one.message) for one in said if issubclass(one.category, OptlawsWarning)]

    def test_curves_that_do_not_say_of_what_they_are(self, tables, tmp_path):
        curves, said = self.read(tables, tmp_path)
        assert len(said) == 1
        assert "large are evaluation losses, those of " in said[0]
        assert "small do not say what they are" in said[0]
        assert "add a column loss_kind (training or evaluation) to the curves of" in said[0]
        assert set(curves.extra["loss_kind"]) == {"", "evaluation"}

    def test_training_losses_beside_validation_losses(self, tables, tmp_path):
        curves, said = self.read(tables, tmp_path, "training")
        assert len(said) == 1
        assert said[0].startswith("the curves mix evaluation losses of ")
        assert " with training losses of '1', '2', " in said[0]
        assert set(curves.loss[np.array(curves.extra["loss_kind"]) == "training"]) == {99.0}

    def test_one_kind_is_one_kind(self, tables, tmp_path):
        assert self.read(tables, tmp_path, "evaluation")[1] == []

    def test_built_in_sweeps_say_it(self):
        curves = read_folders(["cpu_sweep"])[1]
        assert set(curves.extra["loss_kind"]) == {"evaluation"}

    def test_a_lone_val_loss_is_an_evaluation_loss(self, tmp_path):
        path = tmp_path / "c.csv"
        path.write_text("run_id,step,val_loss\na,1,3\n")
        assert read_curves(path).extra == {"loss_kind": ("evaluation",)}
        path.write_text("run_id,step,val_loss,loss_kind\na,1,3,training\n")
        assert read_curves(path).extra == {"loss_kind": ("training",)}
