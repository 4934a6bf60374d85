"""optlaws validate on made run tables: no torch, and every figure of the report worked out again."""

import dataclasses
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from made_sweep import sweep_tables

from optlaws import cli
from optlaws.commands.folders import measured
from optlaws.commands.validate import put_to_the_test, repeat_spread, small_and_short
from optlaws.commands.validation_report import report
from optlaws.errors import InputError
from optlaws.law import load_law
from optlaws.runs import CurveTable, read_curves, read_runs, write_curves, write_runs
from optlaws.sweeps import load_sweep
from optlaws.validation import configurations

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tables():
    return sweep_tables()


@pytest.fixture(scope="module")
def verdict(tables):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return put_to_the_test(*tables)


def test_the_smaller_half_is_fitted(tables):
    runs, _ = tables
    fitted = small_and_short(runs)
    assert set(runs.params[fitted]) == {25e6, 50e6}
    assert set(runs.steps[fitted]) == {2000, 4000}
    np.testing.assert_array_equal(fitted, (runs.params <= 50e6) & (runs.steps <= 4000))
    np.testing.assert_array_equal(small_and_short(runs, max_steps=2000), runs.steps <= 2000)
    np.testing.assert_array_equal(small_and_short(runs, max_params=50e6), runs.params <= 50e6)
    for limits in ({"max_params": 1.0}, {"max_params": 1e9, "max_steps": 1e9}):
        with pytest.raises(InputError, match="must leave runs on both sides"):
            small_and_short(runs, **limits)
    with pytest.raises(InputError, match="params must be given for every run"):
        small_and_short(dataclasses.replace(runs, params=np.where(runs.steps > 2000, np.nan, runs.params)))


def test_the_law_does_not_see_what_it_is_scored_on(tables, verdict):
    runs, curves = tables
    changed = np.where(verdict.fitted, runs.final_loss, 2 * runs.final_loss)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = put_to_the_test(dataclasses.replace(runs, final_loss=changed), curves)
    np.testing.assert_array_equal(again.predicted, verdict.predicted)
    np.testing.assert_array_equal(again.risk.probability, verdict.risk.probability)


def test_scores_are_those_of_the_held_out_completed_runs(tables, verdict):
    runs, _ = tables
    rows = [i for i in range(len(runs)) if not verdict.fitted[i] and runs.status[i] == "completed"]
    np.testing.assert_array_equal(np.flatnonzero(verdict.scored), rows)
    error = [100 * abs(verdict.predicted[i] / runs.final_loss[i] - 1) for i in rows]
    assert verdict.scores["runs"] == len(rows) == sum(cell["runs"] for *_, cell in verdict.cells)
    assert verdict.scores["error"] == pytest.approx(np.mean(error))
    hits = 0
    for n in (25e6, 50e6, 100e6):
        for steps in (2000, 4000, 8000):
            pool = [i for i in rows if runs.params[i] == n and runs.steps[i] == steps]
            if pool:
                top = sorted(pool, key=lambda i: verdict.predicted[i])[:2]
                hits += min(pool, key=lambda i: runs.final_loss[i]) in top
    assert (verdict.scores["hits"], verdict.scores["pools"]) == (hits, 5)
    assert verdict.scores["error"] < 2.0
    assert verdict.scores["spearman"] > 0.9


def test_confusion_counts_held_out_runs(tables, verdict):
    counts = verdict.confusion()
    assert sum(counts.values()) == int((~verdict.fitted).sum())
    assert counts["flagged, diverged"] + counts["not flagged, diverged"] == 1
    assert counts["flagged, diverged"] == 1
    strict = dataclasses.replace(verdict, accepted=1.0)
    assert strict.confusion()["flagged, diverged"] == 0


def test_curves_are_compared_by_validation_losses(tables, verdict):
    assert len(verdict.curves) == int(verdict.scored.sum())
    assert verdict.curve_error() < 5.0
    i, step, loss, _, _, _ = verdict.curves[0]
    assert step.min() > 0.125 * tables[0].steps[i]
    assert loss.max() < 20
    only = CurveTable(("a", "a"), np.array([1.0, 2.0]), np.array([3.0, 4.0]), {"val_loss": ("", "")})
    assert measured(only) is only
    part = measured(CurveTable(("a", "a"), np.array([1.0, 2.0]), np.array([3.0, 4.0]), {"val_loss": ("", "2.5")}))
    assert (part.step.tolist(), part.loss.tolist()) == ([2.0], [2.5])


def test_spread_of_repeats(tables, verdict):
    runs, _ = tables
    done = np.array([s == "completed" for s in runs.status])
    some = runs.select(done)
    same = [0, len(some) - 2, len(some) - 1]
    label = configurations(some)
    assert len(set(label[same])) <= 2
    loss = some.final_loss[label == label[-1]]
    assert len(loss) == 3
    assert repeat_spread(some, label) == pytest.approx((100 * np.std(loss / loss.mean(), ddof=1), 3))
    assert verdict.repeat_sd == pytest.approx(100 * np.std(loss / loss.mean(), ddof=1))
    assert np.isnan(repeat_spread(some.select(slice(0, 2)), label[:2])[0])


def test_the_command_writes_report_table_and_figures(tables, tmp_path, capsys):
    runs, curves = tables
    write_runs(tmp_path / "runs.csv", runs)
    write_curves(tmp_path / "curves.csv", curves)
    assert cli.run(["validate", str(tmp_path), "--law", str(tmp_path / "half.json")]) == 0
    out = capsys.readouterr().out
    report = (tmp_path / "validation.md").read_text(encoding="utf-8")
    for words in (
        "mean error",
        "runs that were not flagged",
        "Spearman",
        "Top-2",
        "90 % intervals cover",
        "diverged runs flagged | 1 of 1",
    ):
        assert words in out
        assert words in report
    assert report.count("\n| 25M |") + report.count("\n| 50M |") + report.count("\n| 100M |") == 5
    for name in ("validation.png", "validation_curves.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
    table = (tmp_path / "validation.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == len(runs) + 1
    assert load_law(tmp_path / "half.json").info["n_runs"] == int((small_and_short(runs)).sum()) - 1
    assert read_runs(tmp_path / "runs.csv").run_id == runs.run_id


def test_without_curves_and_without_torch(tables, tmp_path):
    write_runs(tmp_path / "runs.csv", tables[0])
    code = (
        "import sys\nfrom optlaws import cli\n"
        f"code = cli.run(['validate', {str(tmp_path)!r}])\n"
        "sys.exit(code or ('torch is loaded' if 'torch' in sys.modules else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "along the curves" not in done.stdout
    assert not (tmp_path / "validation_curves.png").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "DIR must be a folder with runs.csv in it"),
        (["DIR", "--max-params", "1"], "must leave runs on both sides"),
        (["DIR", "--fit-curves"], "--fit-curves needs curves"),
        (["DIR", "--max-risk", "2"], "--max-risk must be a probability"),
    ],
)
def test_bad_calls_have_code_2(tables, tmp_path, capsys, args, message):
    write_runs(tmp_path / "runs.csv", tables[0])
    assert cli.run(["validate", *(str(tmp_path) if arg == "DIR" else arg for arg in args)]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert message in captured.err


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ([], "got 2 of 8 runs (up to 25M parameters and 2,000 steps, by the lower half of sizes and of lengths)"),
        (["--max-params", "25M", "--max-steps", "2K"], "2 of 8 runs (up to 25M parameters and 2,000 steps, by your"),
    ],
)
def test_few_runs_on_the_small_side_are_told_with_the_way_out(tables, tmp_path, capsys, limits, words):
    runs = tables[0]
    some = (runs.size < 75e6) & (runs.steps < 6000) & (runs.batch().peak == 1e-3)
    assert some.sum() == 8
    write_runs(tmp_path / "runs.csv", runs.select(some))
    assert cli.run(["validate", str(tmp_path), *limits]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert "must be at least 4 completed ones, " in captured.err
    assert words in captured.err
    assert "; raise --max-params or --max-steps, or add runs" in captured.err
    assert cli.run(["validate", str(tmp_path), "--max-params", "25M", "--max-steps", "4K"]) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith(
        f"Wrote {tmp_path}/validation.md, {tmp_path}/validation.csv and {tmp_path}/validation.png.\n"
    )


def test_an_empty_folder_has_code_2(tmp_path, capsys):
    assert cli.run(["validate", str(tmp_path)]) == 2
    assert "no such file" in capsys.readouterr().err


def test_the_ceiling_is_what_the_scatter_of_repeats_leaves(verdict):
    sd = 0.3
    best = dataclasses.replace(verdict, repeat_sd=sd).ceiling()
    assert best["error"] == pytest.approx(sd * np.sqrt(2 / np.pi), rel=0.05)  # the mean of |normal|
    perfect = dataclasses.replace(verdict, repeat_sd=1e-9).ceiling()
    assert (perfect["pool_spearman"], perfect["top2"]) == (1.0, 100.0)


def test_the_built_in_sweep_can_be_read_and_its_law_loaded():
    folder = ROOT / "optlaws" / "data" / "cpu_sweep"
    runs, curves = read_runs(folder / "runs.csv", need_loss=True), read_curves(folder / "curves.csv")
    assert len(runs) >= 40
    assert len(set(runs.params)) == 4
    assert len({schedule.kind for schedule in runs.schedule_tuple()}) >= 6
    assert len(set(runs.steps)) >= 3
    assert set(curves.run_id) <= set(runs.run_id)
    assert runs.extra["ended"].count("completed") >= runs.status.count("completed")
    floor = np.array([float(cell) for cell in runs.extra["entropy"]])
    done = np.array([status == "completed" for status in runs.status])
    assert (runs.final_loss > floor)[done].all()  # nothing is better than the language's own entropy
    assert sum((folder / name).stat().st_size for name in ("runs.csv", "curves.csv")) < 400_000
    law = load_law(folder / "law.json")
    assert law.info["n_runs"] == int((done & (runs.params <= 30e3) & (runs.steps <= 1024)).sum())


def test_the_report_says_in_which_units_the_law_is(verdict):
    assert "units of their own" not in report(verdict)
    own = dataclasses.replace(verdict.law, info={**verdict.law.info, "units": {"params_ref": 15000.0, "lr_ref": 0.03}})
    said = report(dataclasses.replace(verdict, law=own))
    assert "the law is in units of their own: params_ref 1.5e+04, lr_ref 0.03." in said


def test_a_built_in_sweep_by_name(tmp_path, monkeypatch, capsys):
    """Its verdict is that of the page, and nothing is written into the package."""
    monkeypatch.chdir(tmp_path)
    before = sorted((ROOT / "optlaws" / "data" / "cpu_sweep_rich").iterdir())
    args = ["validate", "cpu_sweep_rich", "--max-params", "50K", "--max-steps", "2048"]
    assert cli.run([*args, "--out", "deep/out"]) == 0
    out = capsys.readouterr().out
    page = (ROOT / "docs" / "validation_cpu_sweep_rich.md").read_text(encoding="utf-8")
    for row in ("| mean error |", "| bias |", "| 90 % intervals cover |"):
        line = next(line for line in page.splitlines() if line.startswith(row))
        assert line in out
    assert (tmp_path / "deep" / "out" / "validation.md").exists()
    assert sorted((ROOT / "optlaws" / "data" / "cpu_sweep_rich").iterdir()) == before


@pytest.mark.parametrize(("out", "why"), [("file", "which is a file"), ("file/x", "is a file"), ("", "got ''")])
def test_a_file_is_no_folder_for_the_report(tmp_path, monkeypatch, capsys, out, why):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("keep")
    assert cli.run(["validate", "cpu_sweep_rich", "--out", out]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "--out must be a folder" in said.err
    assert why in said.err
    assert (tmp_path / "file").read_text() == "keep"


def test_no_folder_is_made_for_a_report_that_is_not_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["validate", "cpu_sweep_rich", "--max-params", "1", "--out", "new/out"]) == 2
    assert "must leave runs on both sides" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_sweeps_by_name_from_python():
    runs, curves = load_sweep("cpu_sweep_rich")
    assert set(curves.run_id) <= set(runs.run_id)
    with pytest.raises(InputError, match=r"sweep must be one of cpu_sweep, .* did you mean 'cpu_sweep_long'"):
        load_sweep("cpu_sweep_lon")


def test_without_pools_no_nan_is_printed(tables, tmp_path, capsys):
    runs, _ = tables
    small = np.flatnonzero(small_and_short(runs))
    done = np.array([status == "completed" for status in runs.status])
    kept = np.concatenate([small, np.flatnonzero(~small_and_short(runs) & done)[:3]])
    write_runs(tmp_path / "runs.csv", runs.select(np.sort(kept)))
    limits = [f"{values[small].max():.0f}" for values in (runs.size, runs.steps)]
    assert cli.run(["validate", str(tmp_path), "--max-params", limits[0], "--max-steps", limits[1]]) == 0
    out = capsys.readouterr().out
    assert "nan" not in out.partition("Wrote")[0]
    assert "no pool: at least 4 held-out runs must have one size and token budget" in out


def test_one_limit_limits_nothing_else(tables, tmp_path, capsys):
    runs, _ = tables
    write_runs(tmp_path / "runs.csv", runs)
    assert cli.run(["validate", str(tmp_path), "--max-params", "25M"]) == 0
    said = capsys.readouterr()
    assert "optlaws: note: runs of every length are fitted, as --max-steps is not given" in said.err
    assert f"of at most 25M parameters and {int(runs.steps.max()):,} steps" in said.out


def test_a_users_report_has_no_targets_of_this_project(tables, tmp_path, capsys, verdict):
    write_runs(tmp_path / "runs.csv", tables[0])
    assert cli.run(["validate", str(tmp_path)]) == 0
    said = capsys.readouterr().out + (tmp_path / "validation.md").read_text(encoding="utf-8")
    assert "target" not in said
    assert "missed" not in said
    assert "at most 0.5 %: " in report(verdict)
    rows = [line for line in said.splitlines() if line.startswith(("| held-out runs |", "| mean error |"))]
    assert {line.count("|") for line in rows} == {3}
