"""What is measured first on a GPU, at toy size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_first.py"


def call(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True, text=True, check=False, timeout=1200, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import gpu_first

    return gpu_first


def test_every_item_is_printed_and_the_last_line_holds_them_all():
    done = call("--toy", "--minutes", "1e6")
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    found = json.loads(last)
    items = ["about", "S eager", "M eager", "L eager", "124M", "124M float32 stream", "124M plain loop"]
    assert [line.split("  ")[-1].split(":")[0] for line in lines if " s  " in line] == items
    assert not any("failed" in found[name] for name in items)
    assert f"torch {torch.__version__}" in found["about"]["versions"]
    for name, runs in (("S eager", 16), ("M eager", 15), ("L eager", 1)):
        row = found[name]
        assert row["runs"] == runs
        assert row["ms"] > 0
        assert row["tokens_per_second"] == pytest.approx(runs * 2 * 8 / row["ms"] * 1e3, rel=0.01)
        assert ("leaving" in row) == (name == "S eager")
    assert sum(found["sweep"]["eager"].values()) > 0
    assert found["advice"].startswith("The sweep takes about")
    assert found["advice"] in lines


def test_without_a_gpu_it_says_so_in_one_sentence():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    done = call()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "gpu_first: a CUDA device must be here, got none that torch sees; give --toy to test the script\n"
    )


def test_an_item_that_fails_or_comes_too_late_costs_no_other(script, monkeypatch, capsys):
    def fails(*args, **kinds):
        raise RuntimeError("no memory\nand more")

    monkeypatch.setattr(script, "timed", fails)
    monkeypatch.setattr(script, "large", lambda *args, **kinds: {"tokens_per_second": 1.0})
    monkeypatch.setattr(script, "plain", lambda *args: {"tokens_per_second": 2.0})
    monkeypatch.setattr(sys, "argv", ["gpu_first.py", "--toy", "--minutes", "1e6"])
    script.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["L eager"] == {"failed": "RuntimeError: no memory"}
    assert (found["124M"], found["sweep"]) == ({"tokens_per_second": 1.0}, {})
    assert "not known" in found["advice"]
    monkeypatch.setattr(sys, "argv", ["gpu_first.py", "--toy", "--minutes", "0"])
    script.main()
    said = capsys.readouterr().out
    assert "124M: left out, as the time is nearly over" in said
    assert set(json.loads(said.splitlines()[-1])) == {"toy", "sweep", "advice"}


def test_the_sweep_is_reckoned_from_the_times_of_its_jobs(script):
    planned = script.read_grid(script.gpu_sweep.grid(False))
    row = {"ms": 0.0, "setup": 1.0, "end": 1.0, "evaluation": 0.0, "first": 10.0, "first_evaluation": 1.0}
    found = {size: {**row, "runs": script.gpu_sweep.STACKED[size]} for size in "SML"}
    parts = script.seconds(planned, found)
    # two seconds a job: two stacks of S and one of M of each length, 4 + 4 + 3 + 3 + 2 of L, and of the longest 4
    assert list(parts.values()) == [2.0 * 6, 2.0 * 16, 2.0 * (2 + 1 + 4), 33.0]
    found["L"] |= {"ms": 100.0, "evaluation": 1.0}
    more = script.seconds(planned, found)
    updates, evaluations = 9 * 1000 + 7 * 2000, 9 * 8 + 7 * 16
    assert more["the large model"] == pytest.approx(parts["the large model"] + 0.1 * updates + evaluations)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((500, 500, 100, 20), "it fits; run benchmarks/gpu_sweep.py in calls"),
        ((500, 500, 900, 20), "run benchmarks/gpu_sweep.py all the same"),
        ((500, 1500, 900, 20), "too long even without the longest runs"),
    ],
)
def test_what_to_do_follows_from_the_time(script, parts, said):
    names = ("what a law is fitted to", "the large model", "the longest runs", "first updates")
    compiled = dict(zip(names, map(float, parts), strict=True))
    eager = {name: 3 * value for name, value in compiled.items()}
    assert said in script.advice({"eager": eager, "compiled": compiled})
    assert "--eager" in script.advice({"eager": compiled, "compiled": eager})
