"""The script of the sweep for one GPU, at toy size."""

import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_sweep.py"


# The script with archives whenever a job has ended: what half a minute does to jobs of minutes.
OFTEN = """
import sys
sys.path[:0] = [{benchmarks!r}, {root!r}]
import gpu_sweep
gpu_sweep.PACK_EVERY = 0.0
gpu_sweep.main()
"""


def call(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
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


@pytest.fixture
def script(monkeypatch):
    pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")
    spec = importlib.util.spec_from_file_location("gpu_sweep", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_compiling_is_tried_before_it_is_asked_for(script, monkeypatch, capsys):
    import torch

    def refuse(function):
        raise RuntimeError("no C compiler")

    class Works:
        grad = torch.full((8,), 2.0)

        def backward(self):
            pass

    assert not script.compiles() or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", lambda *size, **kinds: Works())
    monkeypatch.setattr(torch, "compile", lambda function: lambda point: point)
    with torch._dynamo.config.patch(suppress_errors=False, recompile_limit=8):  # put back at the end
        assert script.compiles()
        monkeypatch.setattr(torch, "compile", refuse)
        assert not script.compiles()
    assert "torch.compile does not work here (RuntimeError)" in capsys.readouterr().out


def test_compiling_does_not_change_which_runs_there_are(script):
    plain, compiled = (script.read_grid(script.grid(False, way)) for way in (False, True))
    assert [one.config.run_id for one in plain] == [one.config.run_id for one in compiled]
    assert {one.config.compile for one in compiled} == {True}


def test_finished_runs_are_packed_when_the_sweep_fails(script, monkeypatch, tmp_path):
    from optlaws.errors import InputError

    def fails(work, *rest):
        (work / "runs" / "half").mkdir(parents=True)
        raise InputError("micro_batch: too much")

    monkeypatch.setattr(script, "run", fails)
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["gpu_sweep.py", "--toy", "--work", str(tmp_path / "work")])
    with pytest.raises(InputError, match="micro_batch"):
        script.main()
    with tarfile.open(tmp_path / "runs.tar.gz") as archive:
        assert archive.getnames() == []


def test_what_a_validation_needs_comes_first_and_no_stack_mixes_lengths(script, monkeypatch, tmp_path):
    jobs = []
    monkeypatch.setattr("optlaws.harness.sweep._in_turn", lambda found, *rest: jobs.extend(found) or iter(()))
    result, left = script.run(tmp_path, 1e6, False)
    assert (result.done, result.total, left) == (0, 151, None)
    assert sum(map(len, jobs)) == 151
    assert all(len({run.steps for run in job}) == 1 for job in jobs)
    lengths = [(job[0].steps, job[0].model.width, len(job)) for job in jobs]
    fitted = [(1000, 256, 16)] * 2 + [(2000, 256, 16)] * 2 + [(1000, 384, 15), (2000, 384, 15)]
    assert lengths[:6] == fitted
    assert {width for steps, width, _ in lengths[6:] if steps < 4000} == {640}
    longest = [place for place, (steps, *_) in enumerate(lengths) if steps == 4000]
    assert longest == list(range(len(jobs) - len(longest), len(jobs)))
    assert [size for _, width, size in lengths[longest[0] :] if width < 640] == [16, 12, 9]


def test_a_model_that_cannot_be_compiled_is_named(script, monkeypatch, tmp_path, capsys):
    import torch

    def refuse(graph, inputs):
        raise RuntimeError("no program")

    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compiled(model, backend=refuse))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    account = script.Account(script.read_grid(script.grid(True)), tmp_path, None)
    name = next(iter(account.size))
    with torch._dynamo.config.patch(suppress_errors=True):
        torch.compile(lambda x: x + 1)(torch.ones(2))
    account.new = [name]
    account.settle()
    assert f"{account.size[name]}: 1 of 1 programs so far COULD NOT BE COMPILED" in capsys.readouterr().out
    monkeypatch.setattr(torch, "compile", lambda model: compiled(model, backend="eager"))
    torch.compile(lambda x: x + 2)(torch.ones(2))
    assert script.not_compiled() == (2, 1)
    account.new = [name]
    account.settle()
    assert "COULD NOT" not in capsys.readouterr().out


def test_what_is_left_is_reckoned_by_size(script, tmp_path):
    account = script.Account(script.read_grid(script.grid(True)), tmp_path, None)
    assert account.left() is None
    account.paces = {"S": (60.0, 2.0), "M": (60.0, 1.0)}
    account.open = set()
    assert account.left() == 0
    names = {size: next(name for name, own in account.size.items() if own == size) for size in "SML"}
    account.open, account.cost = set(names.values()), dict.fromkeys(names.values(), 1.0)
    assert account.left() == pytest.approx(0.5 + 1.0 + 120 / 3 / 60)


def test_a_killed_sweep_leaves_its_archive_and_the_next_call_goes_on_from_it(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")
    out = tmp_path / "out"
    out.mkdir()
    often = OFTEN.format(benchmarks=str(SCRIPT.parent), root=str(ROOT))
    sweep = subprocess.Popen(
        [sys.executable, "-c", often, "--toy", "--work", tmp_path / "work", "--minutes", "1e6"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "OUT": str(out)},
    )  # fmt: skip
    before = time.monotonic()
    while time.monotonic() - before < 600 and sweep.poll() is None:  # the first archive is empty
        if (out / "runs.tar.gz").exists():
            with tarfile.open(out / "runs.tar.gz") as archive:
                if archive.getnames():
                    break
        time.sleep(0.02)
    sweep.kill()
    assert sweep.wait() == -9
    said = sweep.stdout.read()
    sweep.stdout.close()
    assert "151  S-" in said
    with tarfile.open(out / "runs.tar.gz") as archive:
        kept = {Path(name).parts[1] for name in archive.getnames()}
    assert len(kept) >= 1
    again = call(SCRIPT, "--toy", "--work", tmp_path / "other", "--from", out / "runs.tar.gz", "--minutes", "0.001")
    assert again.returncode == 0, again.stderr
    assert f"{len(kept)} of 151 runs are finished" in again.stdout
    last = json.loads(again.stdout.splitlines()[-1])
    assert (last["done"], last["total"], last["trained"]) == (len(kept), 151, 0)
    assert not last["compiled"]


@pytest.mark.slow
def test_toy_sweep_stops_in_time_and_is_taken_up_from_its_archive(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")
    from optlaws.runs import read_runs

    work, out = tmp_path / "work", tmp_path / "out"
    out.mkdir()
    first = call(SCRIPT, "--toy", "--work", work, "--minutes", "0.4", OUT=str(out))
    assert first.returncode == 0, first.stderr
    assert (out / "runs.tar.gz").exists()
    rest = ("--toy", "--work", tmp_path / "other", "--from", out / "runs.tar.gz", "--minutes", "1e6")
    again = call(SCRIPT, *rest, OUT=str(out))
    assert again.returncode == 0, again.stderr
    done = json.loads(first.stdout.splitlines()[-1])["done"]
    assert f"{done} of 151 runs are finished" in again.stdout
    assert "151 of 151 runs finished" in again.stdout
    assert len(read_runs(out / "runs.csv")) == 151
