"""optlaws sweep as a command, and the script of the large sweep at toy size."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from optlaws.runs import read_curves, read_runs

ROOT = Path(__file__).resolve().parents[2]
GRID = """\
base: {data: {vocab: 32, branching: 4}, seq_len: 8, batch: 4, device: cpu, threads: 1, eval: {sequences: 8}}
sizes: {a: {depth: 1, width: 16, heads: 2}, b: {depth: 1, width: 8, heads: 2}}
schedules: {wsd: "wsd:decay=0.2"}
peaks: [1.0e-3, 3.0e-3]
horizons: [10]
"""


@pytest.fixture
def run(run):
    return lambda *args: run("sweep", *args)


@pytest.fixture
def grid(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    return path


def script(*args, **more):
    return subprocess.run(
        [sys.executable, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more},
    )


def test_without_torch_one_sentence(grid):
    code = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'torch' else find(name, *more)\n"
        "from optlaws import cli\n"
        f"sys.exit(cli.run(['sweep', {str(grid)!r}, '--out', 'x']))\n"
    )
    done = script("-c", code)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "pip install -e '.[train]'" in done.stderr


def test_a_grid_becomes_a_table_and_is_not_trained_again(grid, tmp_path, run):
    pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")
    out = tmp_path / "out"
    code, text, err = run(grid, "--out", out, "--stacked", "a=2,b=1")
    assert (code, err) == (0, "")
    assert "4 of 4 runs of the grid are finished, 4 of them trained now." in text
    table = read_runs(out / "runs.csv", need_loss=True)
    assert table.status == ("completed",) * 4
    assert table.extra["stacked"] == ("2", "2", "", "")
    assert table.extra["size"] == ("a", "a", "b", "b")
    assert set(read_curves(out / "curves.csv").runs()) == set(table.run_id)
    before = (out / "runs.csv").read_bytes()
    assert "0 of them trained now" in run(grid, "--out", out)[1]
    assert (out / "runs.csv").read_bytes() == before


def test_dry_run_lists_the_runs_without_torch(grid, tmp_path):
    code = (
        "import sys\n"
        "sys.modules['torch'] = None  # whatever asks for it fails\n"
        "from optlaws import cli\n"
        f"sys.exit(cli.run(['sweep', {str(grid)!r}, '--out', {str(tmp_path / 'x')!r}, '--dry-run']))\n"
    )
    done = script("-c", code)
    assert (done.returncode, done.stderr) == (0, "4 runs, 40 updates\n")
    assert len(done.stdout.splitlines()) == 4
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--stacked", "0", "--out", "x"], "--stacked must be a number of at least 1"),
        (["--stacked", "a=2,3", "--out", "x"], "--stacked must be a number of at least 1"),
        (["--stacked", "c=2", "--out", "x"], "stacked: key must be one of a, b"),
        (["--out", "x", "--workers", "2", "--ray"], "workers and ray must not both be given"),
        ([], "--out must be given"),
    ],
)
def test_bad_calls_have_code_2(grid, tmp_path, run, args, message):
    pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")
    args = [str(tmp_path / "x") if arg == "x" else arg for arg in args]
    code, text, err = run(grid, *args)
    assert (code, text, err.count("\n")) == (2, "", 1)
    assert message in err


def test_bad_grid_has_code_2(tmp_path, run):
    pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")
    bad = tmp_path / "bad.yaml"
    bad.write_text(GRID.replace("peaks", "peak"))
    code, _, err = run(bad, "--out", tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert "did you mean 'peaks'" in err
    assert not (tmp_path / "out").exists()


def test_the_large_sweep_at_toy_size(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")
    args = (ROOT / "benchmarks" / "gpu_sweep.py", "--toy", "--work", tmp_path / "work")
    cut = script(*args, "--minutes", 0.03, OUT=str(tmp_path))
    assert cut.returncode == 0, cut.stderr
    done = script(*args, "--minutes", "1e6", OUT=str(tmp_path))
    assert done.returncode == 0, done.stderr
    table = read_runs(tmp_path / "runs.csv")
    assert len(table) >= 150
    assert len({schedule.kind for schedule in table.schedule_tuple()}) >= 6
    assert f"{len(table)} of {len(table)} runs finished" in done.stdout
    read_curves(tmp_path / "curves.csv")
