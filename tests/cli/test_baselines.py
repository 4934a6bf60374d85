"""Rival laws on the command line: fit, predict, laws and rank read one file format."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from optlaws.cli import run
from optlaws.law import load_any_law, load_law
from optlaws.law.baseline import BaselineFit, fit_baseline, tails
from optlaws.ranking import rank
from optlaws.runs import CurveTable, RunTable, format_quantity, read_runs, write_curves, write_runs
from optlaws.schedules import parse

ROOT = Path(__file__).resolve().parents[2]


def made(count_each=1):
    """Return runs of four sizes, five lengths and three rates under a Chinchilla law with a valley."""
    rows = [
        (n, t, r) for n in (5e7, 1e8, 2e8, 4e8) for t in (2000, 6000, 20000, 60000, 200000) for r in (5e-4, 1e-3, 2e-3)
    ]
    n, t, r = np.array(rows * count_each).T
    batch = np.where(np.arange(len(n)) % 2, 2.5e5, 5e5)
    loss = 1.8 + 480 / n**0.35 + 2000 / (t * batch) ** 0.365
    loss = loss * np.exp(0.01 * np.log(r / 1e-3) ** 2 + 0.003 * np.sin(7 * np.arange(len(n))))
    specs = [
        parse(f"cosine:peak={rate!r},steps={int(steps)},warmup=100,final=1e-5")
        for steps, rate in zip(t, r.tolist(), strict=True)
    ]
    return RunTable.build(specs, params=n, batch_tokens=batch, final_loss=loss, status="completed", source="made")


@pytest.fixture(scope="module")
def runs():
    return made()


@pytest.fixture(scope="module")
def folder(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rivals")
    write_runs(folder / "runs.csv", runs)
    return folder


def read(path):
    with Path(path).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_fit_predict_laws_and_rank(folder, runs, capsys):
    law, out = folder / "chinchilla.json", folder / "out.csv"
    assert run(["fit", str(folder / "runs.csv"), "--law", "chinchilla", "-o", str(law)]) == 0
    said = capsys.readouterr().out
    assert "rival law chinchilla, 60 runs" in said
    assert "E + A N^-alpha + B D^-beta" in said
    assert "params left out: mean error %" in said
    document = json.loads(law.read_text())
    assert (document["format"], document["version"], document["kind"], document["law"]) == (
        "optlaws-law",
        1,
        "baseline",
        "chinchilla",
    )
    assert set(document["parameters"]) == {"E", "A", "B", "alpha", "beta"}
    assert document["info"]["n_runs"] == 60
    assert document["info"]["digest"] == runs.digest()
    assert run(["predict", str(law), str(folder / "runs.csv"), "-o", str(out)]) == 0
    rows = read(out)
    loss = np.array([float(row["predicted_loss"]) for row in rows])
    assert np.abs(loss / runs.final_loss - 1).mean() < 0.02
    assert all(float(row["lower"]) < float(row["predicted_loss"]) < float(row["upper"]) for row in rows)
    assert {row["in_domain"] for row in rows} == {"true"}
    assert np.mean([float(r["lower"]) <= float(r["final_loss"]) <= float(r["upper"]) for r in rows]) > 0.8
    capsys.readouterr()
    assert run(["laws", str(law)]) == 0
    said = capsys.readouterr().out
    assert "rival law chinchilla" in said
    assert "alpha" in said
    assert run(["laws", str(law), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"]["E"] == document["parameters"]["E"]
    specs = [f"cosine:peak=1e-3,steps={steps},warmup=100" for steps in (3000, 50000)]
    assert run(["rank", *specs, "--params", "1e8", "--batch-tokens", "5e5", "--law", str(law), "--format", "json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["law"] == "chinchilla"
    assert [row["steps"] for row in table["candidates"]] == [50000, 3000]


@pytest.mark.filterwarnings("ignore:law .* is doubtful")  # a cubic of few sizes
def test_files_give_the_same_digits(folder, runs):
    for kind in ("chinchilla", "kaplan", "cubic_ridge", "critical_batch"):
        fitted = fit_baseline(kind, runs)
        path = folder / f"{kind}-again.json"
        fitted.save(path)
        again = load_any_law(path)
        assert isinstance(again, BaselineFit)
        one, two = fitted.predict(runs), again.predict(runs)
        for name in ("loss", "lower", "upper", "sd"):
            assert np.array_equal(getattr(one, name), getattr(two, name))
        assert again.to_dict() == fitted.to_dict()
        assert fit_baseline(kind, runs).to_dict() == fitted.to_dict()


def test_intervals_come_from_groups_left_out(runs):
    fitted = fit_baseline("chinchilla", runs, group=None)
    assert list(fitted.info["leave_group_out"]) == ["params"]
    assert fitted.residuals["from"] == "groups left out"
    assert fitted.residuals["lower"] < 0 < fitted.residuals["upper"]
    one = made().select(np.flatnonzero(made().params == 1e8))
    assert list(fit_baseline("kaplan", one).info["leave_group_out"]) == ["tokens"]


@pytest.mark.filterwarnings("ignore:law .* is doubtful")  # a cubic of few sizes
def test_rank_takes_the_errors_of_different_groups_as_independent(runs):
    fitted = fit_baseline("cubic_ridge", runs)
    few = runs.select([4, 19, 34])
    ranking = rank(few, fitted)
    p = fitted.predict(few)
    assert ranking.order.tolist() == np.argsort(p.loss).tolist()
    second = int(ranking.order[1])
    width = np.log(1 + ranking.difference_upper[second] / p.loss.min()) - np.log(
        1 + ranking.difference[second] / p.loss.min()
    )
    single = np.log(p.upper / p.lower)[0] / 2
    assert width == pytest.approx(np.sqrt(2) * single, rel=0.35)
    assert p.covariance([0, 2])[0, 1] == p.covariance_with(0)[2] == 0
    assert ranking.p_best.sum() == pytest.approx(1)


def test_rank_lets_candidates_of_one_group_share_their_error(folder, runs, capsys):
    """Two lengths of one size: what the law gets wrong of the size drops out of the difference."""
    law = folder / "shared.json"
    fit_baseline("chinchilla", runs).save(law)
    specs = [f"{kind}:peak=1e-3,steps=20000,warmup=100" for kind in ("cosine", "constant")]
    command = ["rank", *specs, "--params", "1e8", "--batch-tokens", "5e5", "--law", str(law), "--format", "json"]
    assert run(command) == 0
    shared = json.loads(capsys.readouterr().out)["candidates"]
    document = json.loads(law.read_text())
    assert document["residuals"]["by"] == "params"
    for key in ("shared_sd", "own_sd", "own_factor", "by"):
        del document["residuals"][key]
    law.write_text(json.dumps(document))
    assert run(command) == 0
    alone = json.loads(capsys.readouterr().out)["candidates"]
    for one, two in zip(shared, alone, strict=True):
        assert [one[key] for key in ("predicted_loss", "lower", "upper")] == [
            two[key] for key in ("predicted_loss", "lower", "upper")
        ]
    assert 0 < shared[1]["difference_upper"] < alone[1]["difference_upper"]


def test_outside_the_training_runs_is_marked(runs):
    fitted = fit_baseline("chinchilla", runs)
    big = RunTable.build(parse("cosine:peak=1e-3,steps=6000,warmup=100"), params=9e9, batch_tokens=5e5)
    p = fitted.predict(big)
    assert not p.in_domain[0]
    assert p.reasons[0] == "params 9B above 400M, the highest in training"


def test_laws_that_only_advise_say_so(folder, capsys):
    law = folder / "step_law.json"
    assert run(["fit", str(folder / "runs.csv"), "--law", "isoflop", "-o", str(law)]) == 0
    text = capsys.readouterr().out
    assert "Intervals from nothing: the law predicts no losses." in text
    table, fitted = read_runs(folder / "runs.csv"), load_any_law(law).law
    budget = 6 * (table.params * table.tokens).max()
    for compute in (budget, 10 * budget, 100 * budget):
        params, tokens = (format_quantity(value) for value in fitted.allocate(compute))
        assert f"At {compute:.3g} FLOPs: {params} parameters, {tokens} tokens." in text
    assert run(["predict", str(law), str(folder / "runs.csv"), "-o", str(folder / "no.csv")]) == 2
    said = capsys.readouterr().err
    assert "(isoflop) divides compute but predicts no final losses; choose another law" in said
    assert run(["predict", str(folder / "chinchilla-again.json"), str(folder / "runs.csv"), "--curves", "-o", "-"]) == 2
    assert "divides compute and predicts final losses but predicts no losses along a run" in capsys.readouterr().err


def test_schedule_laws_take_curves(folder, capsys):
    specs = ["constant:peak=1e-3,steps=2000,warmup=50", "cosine:peak=1e-3,steps=2000,warmup=50,final=1e-4"]
    table = RunTable.build([parse(spec) for spec in specs], run_id=["a", "b"], params=1e8)
    steps = np.arange(100.0, 2001.0, 50.0)
    rates = [np.cumsum(np.asarray(parse(spec).lr(np.arange(2000)))) for spec in specs]
    loss = [2.5 + 1.2 * (area[steps.astype(int) - 1]) ** -0.4 for area in rates]
    curves = CurveTable(tuple(["a"] * len(steps) + ["b"] * len(steps)), np.tile(steps, 2), np.concatenate(loss))
    write_runs(folder / "two.csv", table)
    write_curves(folder / "two-curves.csv", curves)
    law = folder / "annealing.json"
    command = [
        "fit",
        str(folder / "two.csv"),
        "--curves",
        str(folder / "two-curves.csv"),
        "--law",
        "annealing",
        "-o",
        str(law),
    ]
    assert run(command) == 0
    assert "which is optimistic" in capsys.readouterr().out
    out = folder / "along.csv"
    assert (
        run(["predict", str(law), str(folder / "two.csv"), "--curves", str(folder / "two-curves.csv"), "-o", str(out)])
        == 0
    )
    found = np.array([float(row["predicted_loss"]) for row in read(out)])
    assert np.abs(found / np.concatenate(loss) - 1).max() < 0.02


def test_bad_input_has_code_2(folder, capsys):
    runs = str(folder / "runs.csv")
    for arguments, text in (
        (["--law", "chinchila"], "got 'chinchila'; did you mean 'chinchilla'?"),
        (
            ["--law", "chinchilla", "--basis", "x"],
            "--basis is for the law of this package, got it with --law chinchilla",
        ),
        (["--law", "chinchilla", "--group", "colour"], "no column 'colour'"),
    ):
        assert run(["fit", runs, *arguments, "-o", str(folder / "x.json")]) == 2
        assert text in capsys.readouterr().err
    assert not (folder / "x.json").exists()


def test_runs_that_tell_no_parameters_are_one_sentence(folder, capsys):
    with (ROOT / "examples" / "my_runs.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    with (folder / "flat.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows({**row, "final_loss": "3.0"} for row in rows)
    assert run(["fit", str(folder / "flat.csv"), "--law", "kaplan", "-o", str(folder / "flat.json")]) == 2
    said = capsys.readouterr().err
    assert "of law 'kaplan' must come out as a finite number, got inf" in said
    assert said.count("\n") == 1
    assert not (folder / "flat.json").exists()


def test_damaged_and_unknown_files_are_one_sentence(folder, runs, capsys):
    path = folder / "kaplan.json"
    fit_baseline("kaplan", runs).save(path)
    good = json.loads(path.read_text())
    for change, text in (
        ({"law": "nope"}, "law must be one of"),
        ({"parameters": {"N_c": 1.0}}, "damaged entry"),
        ({"residuals": {}}, "damaged entry"),
        ({"residuals": {**good["residuals"], "sd": -1.0}}, "sd above 0"),
        ({"residuals": {**good["residuals"], "lower": 9.0}}, "lower at most upper"),
        ({"residuals": {**good["residuals"], "own_sd": 9.0}}, "must add up to that of sd"),
        ({"residuals": {**good["residuals"], "shared_sd": -1.0}}, "residuals.shared_sd must be from 0"),
        ({"residuals": {**good["residuals"], "by": 3}}, "residuals.by must be text"),
        ({"draws": [[1.0]]}, "draws must be a list of lists"),
        ({"info": {**good["info"], "left_out_groups": [1]}}, "info.left_out_groups must be an object"),
        ({"info": {**good["info"], "leave_group_out": [1]}}, "info.leave_group_out must be an object"),
        ({"info": {**good["info"], "sources": 5}}, "info.sources must be a list of texts"),
        ({"kind": "other"}, "must have the entry"),
        ({"version": 9}, "must be of version 1, got 9"),
    ):
        path.write_text(json.dumps({**good, **change}))
        assert run(["laws", str(path)]) == 2
        said = capsys.readouterr().err
        assert text in said
        assert said.count("\n") == 1
    path.write_text(json.dumps({key: value for key, value in good.items() if key != "residuals"}))
    assert run(["laws", str(path)]) == 2
    assert "must have the entry 'residuals'" in capsys.readouterr().err
    path.write_text(json.dumps(good))
    with pytest.raises(Exception, match="got the rival law 'kaplan'; rival laws serve rank, predict and laws"):
        load_law(path)


def test_every_registered_law_goes_through_the_command(folder, capsys):
    from optlaws.baselines import get_baseline

    fewer = {"chinchilla_isoflop"}  # needs profiles of equal compute
    for name in (
        "chinchilla_envelope",
        "data_constrained",
        "step_law",
        "porian_rate",
        "deepseek_rate",
        "mup",
        "quadratic",
    ):
        kind, law = get_baseline(name), folder / f"{name}.json"
        code = run(["fit", str(folder / "runs.csv"), "--law", name, "-o", str(law)])
        said = capsys.readouterr()
        if code == 0:
            assert load_any_law(law).law.parameters()
        else:
            assert code == 2, (name, said.err)
            assert said.err.startswith(f"optlaws: law {kind.name!r}") or name in fewer


@pytest.mark.parametrize("law", [["--law", "chinchilla"], ["--calibrate", "aN"]])
def test_long_fits_tell_how_far_they_are(folder, capsys, monkeypatch, law):
    """On a terminal, and nowhere else; the file is the same."""
    from contextlib import contextmanager

    from optlaws.commands import shared

    path, said = folder / "told.json", []
    assert run(["fit", str(folder / "runs.csv"), *law, "-o", str(path)]) == 0
    assert capsys.readouterr().err == ""
    silent = path.read_text()

    @contextmanager
    def heard(what):
        yield said.append

    monkeypatch.setattr(shared, "ticking", heard)
    assert run(["fit", str(folder / "runs.csv"), *law, "-o", str(path)]) == 0
    assert len(said) > 20
    assert path.read_text() == silent


def test_as_a_process(folder):
    done = subprocess.run(
        [sys.executable, "-m", "optlaws", "fit", str(folder / "runs.csv"), "--law", "kaplan", "-o", "-"],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0
    assert json.loads(done.stdout)["law"] == "kaplan"
    assert "Wrote -" in done.stderr


@pytest.mark.parametrize("count", [2, 4, 10, 18, 19, 40, 100])
def test_intervals_of_few_residuals_cover_a_new_one(count):
    """90 % of new residuals at least, and not many more where there are ranks enough, within four standard errors."""
    rng = np.random.default_rng(count)
    draws = 0.01 * rng.standard_normal((4000, count + 1))
    inside = np.mean([low <= row[-1] <= high for row in draws for low, high in [tails(row[:-1])]])
    error = 4 * np.sqrt(0.9 * 0.1 / 4000)
    assert inside >= 0.9 - error
    if count < 19:
        assert inside <= 0.9 + error  # Student's t is exact for normal ones
    else:
        rank = int(0.05 * (count + 1) + 1e-9)
        assert inside == pytest.approx(1 - 2 * rank / (count + 1), abs=error)


def test_no_residuals_have_no_tails():
    assert tails(np.empty(0)) == (0.0, 0.0)
