"""The benchmark scripts as commands: help, absent data, partial runs, and pages that say what the scripts say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = (
    "accuracy", "build_laws", "build_risk", "curve_prior", "divergence", "extrapolation", "few_runs", "monitor",
    "mpl_published", "nested", "odds", "planned_runs", "planning", "readme_ranking", "residuals", "rivals",
    "rivals_speed", "speed", "transfer",
)  # fmt: skip


def run(name, *args, **environment):
    """Return the finished process of a script."""
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_says_what_it_does_and_does_nothing(name, tmp_path):
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "docs" / "ranking.png"]
    before = [path.stat().st_mtime_ns for path in pages]
    done = run(name, "--help", OPTLAWS_DATA=str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {name}.py")
    assert f"benchmarks/{name}.py" in done.stdout
    assert [path.stat().st_mtime_ns for path in pages] == before


@pytest.mark.parametrize("name", ["extrapolation", "few_runs", "monitor", "odds", "rivals", "speed", "transfer"])
def test_absent_tables_are_one_sentence(name, tmp_path):
    done = run(name, OPTLAWS_DATA=str(tmp_path))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert f"was not found in {tmp_path}; put it there, or set OPTLAWS_DATA" in done.stderr


def test_an_absent_folder_is_one_sentence(tmp_path):
    done = run("transfer", OPTLAWS_DATA=str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"the public tables were not found in {tmp_path / 'none'}; set OPTLAWS_DATA")


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("rivals", ("--write", "--laws", "chinchilla"), "--write needs all laws and all tasks, got a part of them"),
        ("rivals", ("--write", "--tasks", "nqs"), "--write needs all laws and all tasks, got a part of them"),
        ("rivals", ("--laws", "chinchila"), "got 'chinchila'; did you mean 'chinchilla'?"),
        ("monitor", ("--write", "--part", "alarms"), "--write needs all parts, or the figure alone"),
        ("mpl_published", ("--write", "--scaled", "3"), "--write needs the whole procedure, got --scaled"),
        ("build_laws", ("llama",), "NAME must be one of llama-slimpajama, steplaw-dense, got 'llama'"),
    ],
)
def test_a_part_never_replaces_a_page(name, args, said, tmp_path):
    done = run(name, *args, OPTLAWS_DATA=str(tmp_path))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_scripts_that_train_say_that_they_need_torch(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('not here')\n")
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    for name, args in (("harness", ("--help",)), ("planned_runs", ("--work", tmp_path / "work"))):
        done = run(name, *args, PYTHONPATH=path)
        assert done.returncode == 1
        assert done.stderr.startswith(f"benchmarks/{name}.py needs torch, got ")
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_part_of_the_harness_page_needs_a_new_file(tmp_path):
    pytest.importorskip("torch")
    page = tmp_path / "page.md"
    page.write_text("whole\n")
    done = run("harness", "--toy", "--part", "start", "-o", page)
    assert done.returncode == 2
    assert "-o must name a new file with --part or --toy" in done.stderr
    assert page.read_text() == "whole\n"


def test_the_harness_says_what_each_part_has_found_at_once(folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    import harness

    def killed(toy, repeat):
        raise KeyboardInterrupt

    page = tmp_path / "page.md"
    monkeypatch.setattr(harness, "start", lambda toy, repeat: {"seconds": harness.fact(2.0)})
    monkeypatch.setattr(harness, "cpu", killed)
    arguments = ["harness.py", "--toy", "--part", "start", "--part", "cpu", "-o", str(page)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(KeyboardInterrupt):
        harness.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"part": "start", "seconds": {"value": 2.0}}
    assert [path.name for path in tmp_path.iterdir()] == ["page.md.part"]
    assert "| seconds | 2 |" in (tmp_path / "page.md.part").read_text()
    monkeypatch.setattr(sys, "argv", [*arguments[:4], "-o", str(page)])
    harness.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"seconds": {"value": 2.0}}
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]


def records(rates, stack=""):
    extras = [{"tokens_per_second": (str(rate),), "stacked": (stack,)} for rate in rates]
    curve = SimpleNamespace(loss=np.array([2.0, 1.0]))
    runs = [SimpleNamespace(extra=extra, tokens=[1000.0], params=[3e6]) for extra in extras]
    return [SimpleNamespace(runs=each, curve=curve) for each in runs]


def test_stacks_on_a_gpu_are_compared_by_training_alone(folder, monkeypatch):
    pytest.importorskip("torch")
    import harness

    assert harness.rate_of(records([100.0, 300.0])) == pytest.approx(2000 / (10 + 10 / 3))
    assert harness.rate_of(records([800.0, 800.0], "2")) == 800
    found = harness.stacked(True, 1)
    best = {way: found[f"16 x 3M, eager, tokens/s {way}"]["value"] for way in ("stacked", "in turn")}
    assert found["16 x 3M stacked over in turn, GPU"]["value"] == best["stacked"] / best["in turn"]

    clock = [0.0]  # a machine on which each call costs three seconds before a run of two, or a stack of one, begins

    def after(seconds, made):
        clock[0] += seconds
        return made

    monkeypatch.setattr(harness, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(harness, "train", lambda run: after(3 + 2, records([500.0])[0]))
    monkeypatch.setattr(harness, "train_stacked", lambda runs, at_once: after(3 + 1, records([4000.0] * 4, "4")))
    found = harness.stacked(True, 2)
    tokens = 4 * 6 * 4 * 16
    rates = {name.partition("tokens/s ")[2]: row["value"] for name, row in found.items() if "tokens/s" in name}
    whole = {"stacked, whole calls": tokens / 4, "in turn, whole calls": tokens / 20}
    assert rates == {"stacked": 4000, "in turn": 500, **whole}
    assert found["16 x 3M stacked over in turn, GPU"]["value"] == 8
    assert found["16 x 3M stacked over in turn, GPU, whole calls"]["value"] == 5


def test_only_what_stands_between_the_markers_is_replaced(folder, tmp_path):
    from accuracy import splice

    page = tmp_path / "page.md"
    page.write_text("head\n<!-- a:begin -->\nold\n<!-- a:end -->\nfoot\n")
    splice(page, "a", "new")
    assert page.read_text() == "head\n<!-- a:begin -->\nnew\n<!-- a:end -->\nfoot\n"
    with pytest.raises(SystemExit, match=r"page\.md must have the markers <!-- b:begin --> and <!-- b:end -->"):
        splice(page, "b", "new")
    assert page.read_text().count("new") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]


def test_what_is_no_number_is_a_dash(folder):
    from accuracy import number

    assert (number(0.98765), number(float("nan"))) == ("0.988", "-")


def test_pages_say_what_their_scripts_say(folder):
    """A text that is changed in one of the two only is found here; figures are not compared."""
    import accuracy
    import curve_prior
    import few_runs
    import monitor
    import nested
    import odds
    import planned_runs
    import rivals
    import transfer

    def about(module):
        return " ".join(module.__doc__.split("\n\n", 1)[1].split())

    pages = {name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in (
        "accuracy", "curve_prior", "few_runs", "monitor", "nested", "odds", "planned_runs", "rivals", "transfer",
    )}  # fmt: skip
    assert accuracy.CAVEAT in pages["accuracy"]
    assert pages["rivals"].startswith(f"# Beside every rival\n\n{rivals.INTRO}\n\n{rivals.NOTES}\n\n")
    assert pages["monitor"].startswith(monitor.INTRO + monitor.thresholds())
    for module in (curve_prior, few_runs, nested, odds, planned_runs, transfer):
        assert about(module) in pages[module.__name__]


def test_residuals_by_band_of_rates(folder):
    from residuals import bands

    runs = SimpleNamespace(batch=lambda: SimpleNamespace(peak=np.array([1e-4, 5e-4, 5.9e-3, 6e-3, 2e-2])))
    low, second, third, high = "0 to 0.0005", "0.0005 to 0.002", "0.002 to 0.006", "0.006 to 1"
    assert second not in bands(runs)[0]
    assert bands(runs).tolist() == [f"peak {x}" for x in (low, second, third, high, high)]


def test_repeats_are_runs_of_one_configuration(folder, monkeypatch):
    import residuals

    from optlaws.runs import RunTable

    specs = ["cosine:peak=1e-3,steps=1000"] * 3 + ["cosine:peak=2e-3,steps=1000"] * 3
    loss = [3.0, 3.003, 3.0015, 2.0, 2.001, 5.0]
    params = [1e8] * 5 + [2e8]  # the last one is of another size: no repeat
    runs = RunTable.build(specs, params=params, batch_tokens=1e5, final_loss=loss, status=("completed",) * 6)
    monkeypatch.setattr(residuals, "load", lambda name: runs)
    text = residuals.repeats()
    assert "2 configurations" in text
    assert "0.062 to 0.088 % for the middle half of them, median 0.075, at most 0.100" in text
    sd = 100 * np.sqrt(np.mean([np.var(np.log(loss[:3]), ddof=1), np.var(np.log(loss[3:5]), ddof=1)]))
    assert f"standard deviation of one run {sd:.3f} %" in text


def test_transfer_judges_the_runs_that_a_law_trusts(folder):
    from transfer import HEAD, row

    from optlaws.runs import RunTable

    specs = [f"cosine:peak={peak},steps=1000" for peak in (1e-3, 2e-3, 3e-3, 4e-3)]
    runs = RunTable.build(specs, params=1e8, batch_tokens=1e5, final_loss=[2.0, 2.1, 2.2, 2.3])

    def law(known):
        loss = runs.final_loss * np.array([1.1, 1.2, 1.0, 1.0])
        guess = SimpleNamespace(loss=loss, lower=loss - 0.01, upper=loss + 0.01, in_domain=np.array(known))
        return SimpleNamespace(predict=lambda runs: guess)

    found = dict(zip(HEAD, row("x", law([True, False, True, False]), runs, True), strict=True))
    assert found["in domain %"] == "50"
    assert found["of these: level off %"] == f"{50 * np.log(1.1):+.1f}"
    assert found["cover %"] == "50"
    nothing = dict(zip(HEAD, row("x", law([False] * 4), runs, True), strict=True))
    assert [nothing[name] for name in HEAD[-3:]] == ["0", "-", "-"]


def test_rivals_of_the_risk_model_see_what_they_are_given(folder):
    """A threshold that rises and falls with the batch: squares and trees find it, a straight line does not."""
    from divergence_scores import boosting_predictor, logistic_predictor
    from sklearn.metrics import roc_auc_score

    from optlaws.risk import run_labels
    from optlaws.runs import RunTable

    rng = np.random.default_rng(0)
    count = 600
    batch, steps = np.exp(rng.normal(12.0, 1.0, count)), rng.integers(2000, 20_000, count)
    peak = np.exp(rng.normal(np.log(5e-3), 0.3, count))
    bad = np.abs(np.log(batch) - 12.0) > 0.7
    runs = RunTable.build(
        [f"cosine:peak={p!r},steps={t},warmup=500" for p, t in zip(peak.tolist(), steps.tolist(), strict=True)],
        params=np.exp(rng.normal(18.0, 0.5, count)), batch_tokens=batch,
        status=tuple("diverged" if b else "completed" for b in bad),
    )  # fmt: skip
    train, test = runs.select(np.arange(count) < 400), runs.select(np.arange(count) >= 400)

    def auc(predict):
        return roc_auc_score(run_labels(test), predict(train, test))

    assert auc(logistic_predictor(False)) < 0.65
    assert auc(logistic_predictor(False, 2, 1.0)) > 0.95
    assert auc(boosting_predictor) > 0.95


@pytest.fixture
def five_runs():
    """Five runs of one pool, a split that holds four of them out, and a law that swaps two neighbours."""
    from optlaws.runs import RunTable

    peaks = (1e-3, 2e-3, 3e-3, 4e-3, 5e-3)
    specs = [f"cosine:peak={peak},steps=1000" for peak in peaks]
    loss = np.array([2.0, 2.1, 2.101, 2.2, 2.3])
    runs = RunTable.build(specs, params=1e8, batch_tokens=1e5, final_loss=loss, status=("completed",) * 5)
    guess = dict(zip(peaks, loss[[0, 2, 1, 3, 4]], strict=True))

    def fit(train, **options):
        from optlaws.errors import FitError

        if options:
            raise FitError("calibrate must have at least 30 completed runs, got 1; add runs or leave it out")

        def predict(held):
            values = np.array([guess[float(peak)] for peak in held.batch().peak])
            return SimpleNamespace(loss=values, lower=values - 0.1, upper=values + 0.1)

        return SimpleNamespace(predict=predict)

    held = np.array([False, True, True, True, True])
    return {"load": lambda name: runs, "schaipp_splits": lambda runs: {"x": (~held, held)}, "fit_law": fit}


def test_pairs_the_wrong_way_round_are_counted(folder, five_runs, monkeypatch):
    import residuals

    for name, value in five_runs.items():
        monkeypatch.setattr(residuals, name, value)
    line = residuals.missed_order().splitlines()[-1]
    apart = f"{100 * np.log(2.101 / 2.1):.3f}"
    assert line == f"| x | 100M, 1,000 steps | 4 | 0.800 | 1 of 6 | {apart} / {apart} |"
    monkeypatch.setattr(residuals, "SPEARMAN_TARGET", 0.79)  # reached: no row
    assert residuals.missed_order().splitlines()[-1].startswith("| ---")


def test_a_split_too_small_to_calibrate_has_a_dash(folder, five_runs, monkeypatch):
    import accuracy

    for name, value in five_runs.items():
        monkeypatch.setattr(accuracy, name, value)
    error = 100 * np.mean([2.101 / 2.1 - 1, 1 - 2.1 / 2.101, 0.0, 0.0])
    assert accuracy.calibrated_report().splitlines()[-1] == f"| x | {error:.3f} | - | - |"


def test_odds_count_what_came_of_them(folder):
    from odds import reliability, summary

    sure, even = np.array([0.9, 0.06, 0.04]), np.full(4, 0.25)
    row = summary("made", [(sure, 0), (sure, 2), (even, 3)])
    assert row[:5] == ["made", "3", "3", "1", "2 of 3"]  # sets of 1, 1 and 4 runs; the second misses its best
    assert row[5] == f"{100 * (0.9 * 0.04 * 0.25) ** (1 / 3):.1f}"
    assert row[6] == f"{100 * (1 / 3 / 3 / 4) ** (1 / 3):.1f}"
    shares = {line[0]: line[1:4] for line in reliability([(sure, 0), (sure, 2), (even, 3)])}
    assert shares == {
        "1 to 5 %": ["2", "4.00", "50.00"],
        "5 to 20 %": ["2", "6.00", "0.00"],
        "20 to 50 %": ["4", "25.00", "25.00"],
        "80 to 95 %": ["2", "90.00", "50.00"],
    }


def test_few_runs_never_draws_what_is_predicted(folder, monkeypatch):
    import few_runs

    from optlaws.runs import RunTable

    specs = [f"cosine:peak={peak},steps=2000,warmup=100" for peak in (5e-4, 1e-3, 2e-3, 4e-3)] * 4
    size = np.repeat([1e7, 2e7, 4e7, 8e7], 4)
    runs = RunTable.build(
        specs, params=size, batch_tokens=5e4, final_loss=3 + 1e2 / size**0.35 + np.arange(16) % 4 / 99
    )
    seen, fit = [], few_runs.fit_law
    monkeypatch.setattr(few_runs, "fit_law", lambda drawn: seen.append(drawn) or fit(drawn))
    small = size < 4e7
    rows = few_runs.learning_curve(runs, small, size.astype(str), 3, (4, 6, 20))
    assert [row[0] for row in rows] == ["4", "6", "all 8"]
    assert [len(drawn) for drawn in seen] == [4, 4, 4, 6, 6, 6, 8]
    assert all(set(drawn.run_id) <= set(runs.select(small).run_id) for drawn in seen)
    assert few_runs.blind(np.array([2.0, 2.0, 2.0, 2.2, 3.0]), np.array(list("aaaab"))) == pytest.approx(2.5)
