"""The command as a process of its own: exit codes, streams, speed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIZES = ["--params", "85M", "--tokens", "2.56B", "--batch-tokens", "51200"]


def optlaws(*args, stdin="", **env):
    return subprocess.run(
        [sys.executable, "-m", "optlaws", *map(str, args)],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        timeout=240,
    )


def test_version():
    done = optlaws("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("optlaws, version ")


def test_bad_input_has_code_2_and_no_traceback(tmp_path):
    done = optlaws("schedule", "cosine:peak=-1,steps=10")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    empty = tmp_path / "empty.csv"
    empty.touch()
    done = optlaws("rank", empty)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert optlaws().returncode == 2


def test_a_closed_pipe_is_no_failure():
    command = f'"{sys.executable}" -m optlaws schedule cosine:peak=1e-3,steps=300000 | head -n 2'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.stdout.splitlines()[0] == "step,lr"
    assert done.stderr == ""


def test_a_million_steps_are_printed():
    done = optlaws("schedule", "cosine:peak=1e-3,steps=1000000")
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1_000_001


def test_rank_with_the_built_in_law():
    done = optlaws("rank", "cosine:peak=1e-3,warmup=300", "wsd:peak=1e-3,decay=0.2,warmup=300", *SIZES)
    assert done.returncode == 0, done.stderr
    assert "cosine:peak=0.001,steps=50000" in done.stdout
    done = optlaws("rank", "-", *SIZES, "--format", "json", stdin="- cosine:peak=1e-3\n- linear:peak=1e-3\n")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["candidates"]) == 2


def test_rank_writes_the_same_twice():
    args = ["rank", "cosine:peak=1e-3", "wsd:peak=1e-3,decay=0.2", *SIZES, "--format", "csv"]
    assert optlaws(*args).stdout == optlaws(*args).stdout


def test_rank_loads_neither_sklearn_nor_matplotlib():
    code = (
        "import sys; from optlaws import cli\n"
        "assert cli.run(['rank', 'cosine:peak=1e-3,steps=1000']) == 0\n"
        "assert not {'sklearn', 'matplotlib', 'torch', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [["laws"], ["laws", "llama-slimpajama"], ["laws", "--format", "json"]])
def test_laws(command):
    done = optlaws(*command)
    assert done.returncode == 0, done.stderr
    assert "llama-slimpajama" in done.stdout


def test_features():
    done = optlaws("features", "wsd:peak=1e-3,steps=25000,warmup=300,decay=0.2", "--format", "csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 17


def test_fit_and_predict_public_runs(data_dir, tmp_path):
    runs = data_dir / "schaipp_runs.csv"
    if not runs.exists():
        pytest.skip("schaipp_runs.csv is not there")
    law, out = tmp_path / "law.json", tmp_path / "out.csv"
    done = optlaws("fit", runs, "-o", law)
    assert done.returncode == 0, done.stderr
    done = optlaws("predict", law, runs, "-o", out)
    assert done.returncode == 0, done.stderr
    assert out.read_text().count("\n") == runs.read_text().count("\n")
    law.write_text(law.read_text()[:500])
    done = optlaws("predict", law, runs, "-o", out)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
