"""optlaws train as a process of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from optlaws.commands.lines import Lines
from optlaws.runs import CurveTable, RunTable, read_curves, read_runs
from optlaws.schedules import parse

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """\
name: cli
model: {depth: 1, width: 16, heads: 2}
data: {vocab: 32, branching: 4}
seq_len: 8
batch: 4
threads: 1
device: cpu
schedule: wsd:peak=3e-3,warmup=4
"""


def command(*args):
    return [sys.executable, "-m", "optlaws", "train", *map(str, args)]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def optlaws_train(*args, cwd=ROOT):
    return subprocess.run(
        command(*args), capture_output=True, text=True, cwd=cwd, env=environment(), timeout=240, check=False
    )


@pytest.fixture
def run(run):
    return lambda *args: run("train", *args)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG + "steps: 30\n")
    return path


def test_without_torch_one_sentence(config, tmp_path):
    blocker = tmp_path / "without"
    blocker.mkdir()
    code = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'torch' else find(name, *more)\n"
        "from optlaws import cli\n"
        f"sys.exit(cli.run(['train', {str(config)!r}]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment(), check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install -e '.[train]'" in done.stderr


def test_keys_are_listed_without_torch(run):
    code = "import sys\nsys.modules['torch'] = None\nfrom optlaws import cli\nsys.exit(cli.run(['train', '--keys']))\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == run("--keys")[1]
    for key in ("data.train", "data.vocab", "data.dtype", "data.val_fraction", "eval.sequences", "schedule"):
        assert f"\n{key} " in done.stdout
    assert "none is shown without" in " ".join(run("--help")[1].split())


def test_train_writes_a_run(config, tmp_path, run):
    pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")
    done = optlaws_train(config, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "cli: completed after 30 of 30 steps (960 tokens), validation loss" in done.stdout
    runs = read_runs(tmp_path / "runs" / "cli" / "run.csv")
    assert runs.status == ("completed",)
    assert len(read_curves(tmp_path / "runs" / "cli" / "curve.csv")) == 31
    code, out, err = run(config, "--out", tmp_path / "runs" / "cli")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == done.stdout.splitlines()[0]  # the finished run is read, not trained again
    assert (done.stdout.splitlines()[1][:5], out.splitlines()[1][:23]) == ("Wrote", "It was finished before,")
    assert "Wrote" in run(config, "--out", tmp_path / "runs" / "cli", "--restart")[1]


def test_where_there_is_no_terminal_a_line_is_said_now_and_then(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("optlaws.commands.lines.time.monotonic", lambda: now[0])
    Lines(first=0).say(lambda: "off, as in all these tests")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("OPTLAWS_PROGRESS", "on")
    lines = Lines(first=15, every=60)
    for second in (100.0, 114.0, 115.0, 116.0, 174.0, 175.0):
        now[0] = second
        lines.say(lambda: f"step {now[0]:.0f}")
    assert capsys.readouterr().err == "optlaws: step 115\noptlaws: step 175\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    Lines(first=0).say(lambda: "there is a bar")
    assert capsys.readouterr().err == ""


def test_a_law_may_predict(config, tmp_path, run):
    pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")
    assert run(config, "--out", tmp_path / "out", "--law", "llama-slimpajama")[::2] == (0, "")
    code, _, err = run(config, "--out", tmp_path / "other", "--law", "lama-slimpajama")
    assert code == 2
    assert "llama-slimpajama" in err


def test_the_predictor_sets_the_laws_shape_to_the_runs_level():
    from optlaws.commands.train import _predictor
    from optlaws.law import load_law

    law = load_law("llama-slimpajama")
    runs = RunTable.build(parse("wsd:peak=1e-3,steps=20000,warmup=300,decay=0.2"), params=85e6, batch_tokens=51_200)
    steps = np.arange(100.0, 10_001, 100)
    curve = CurveTable(("1",) * 100, steps, 1.25 * law.predict_curve(runs, steps).loss)
    predict = _predictor("llama-slimpajama")
    final = law.predict_curve(runs, np.array([20_000.0])).loss[0]
    assert predict(runs, curve) == pytest.approx(1.25 * final, rel=5e-4)
    assert predict(runs, curve.select(slice(0, 4))) is None


def test_bad_input_has_code_2(config, tmp_path, run):
    pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")
    assert run(tmp_path / "none.yaml")[0] == 2
    bad = tmp_path / "bad.yaml"
    bad.write_text(CONFIG + "step: 30\n")
    code, out, err = run(bad)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "did you mean 'steps'" in err


def test_sigterm_leaves_a_checkpoint_and_the_run_goes_on(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")
    path = tmp_path / "long.yaml"
    path.write_text(CONFIG + "steps: 1000000\ncheckpoint: {every: 20}\n")
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(path, "--out", out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=environment(),
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while not list(out.glob("checkpoints/*.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=240)
    assert (process.returncode, stderr) == (130, "")
    assert "interrupted after" in stdout
    runs = read_runs(out / "run.csv")
    assert runs.status == ("interrupted",)
    done = int(runs.extra["steps_done"][0])
    (checkpoint,) = (out / "checkpoints").iterdir()
    assert checkpoint.name == f"step-{done:09d}.pt"
    assert read_curves(out / "curve.csv").step[-1] == done - 1


def test_a_run_branches_from_another(tmp_path, run):
    pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")
    trunk, decayed = tmp_path / "trunk.yaml", tmp_path / "decayed.yaml"
    base = CONFIG.replace("name: cli\n", "").replace("schedule: wsd:peak=3e-3,warmup=4\n", "")
    trunk.write_text(
        base + "name: trunk\nschedule: constant:peak=3e-3,warmup=4,steps=30\ncheckpoint: {every: 10, keep: null}\n"
    )
    decayed.write_text(base + "name: decayed\nschedule: wsd:peak=3e-3,warmup=4,steps=28,decay=8\n")
    assert run(trunk, "--out", tmp_path / "trunk")[::2] == (0, "")
    done = optlaws_train(decayed, "--branch", "trunk", "--out", "decayed", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "decayed: completed after 28 of 28 steps" in done.stdout
    assert ", branched from trunk@20\nWrote decayed/run.csv" in done.stdout
    assert run(decayed, "--out", tmp_path / "whole")[::2] == (0, "")
    for name in ("curve.csv", "config.json"):
        assert (tmp_path / "decayed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    runs = [read_runs(tmp_path / folder / "run.csv") for folder in ("decayed", "whole")]
    assert runs[0].final_loss[0] == runs[1].final_loss[0]
    assert [one.extra["branched_from"] for one in runs] == [("trunk@20",), ("",)]
    decayed.write_text(decayed.read_text() + "seed: 3\n")
    code, out, err = run(decayed, "--branch", tmp_path / "trunk", "--out", tmp_path / "other")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "branch: seed must be the trunk's, 0, got 3; change it, or train this run from the start" in err
