"""The script of the sweep for one GPU, at toy size."""

import importlib.util
import os
import subprocess
import sys
import tarfile
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
    with torch._dynamo.config.patch(suppress_errors=False):  # put back at the end
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
