"""The script of the sweep for one GPU, at toy size."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_sweep.py"


def call(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def test_what_is_missing_is_said_in_one_sentence(tmp_path):
    hide = (
        "import importlib.util, runpy, sys; find = importlib.util.find_spec;"
        "importlib.util.find_spec = lambda name, *more: None if name in ('torch', 'yaml') else find(name, *more);"
        f"sys.argv = [{str(SCRIPT)!r}]; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    done = call("-c", hide)
    assert done.returncode == 1
    assert done.stderr == "gpu_sweep: torch and pyyaml must be installed, got none; pip install torch pyyaml\n"


@pytest.mark.slow
def test_toy_sweep_stops_in_time_and_is_taken_up_from_its_archive(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")
    from optlaws.runs import read_runs

    work, out = tmp_path / "work", tmp_path / "out"
    out.mkdir()
    first = call(SCRIPT, "--toy", "--work", work, "--minutes", "0.08", OUT=str(out))
    assert first.returncode == 0, first.stderr
    assert (out / "runs.tar.gz").exists()
    again = call(SCRIPT, "--toy", "--work", tmp_path / "other", "--from", out / "runs.tar.gz", OUT=str(out))
    assert again.returncode == 0, again.stderr
    done = int(first.stdout.splitlines()[-1].split()[0])
    assert f"{done} of 151 runs are finished" in again.stdout
    assert "151 of 151 runs finished" in again.stdout
    assert len(read_runs(out / "runs.csv")) == 151
