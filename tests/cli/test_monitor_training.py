"""optlaws monitor on a run that optlaws train is training."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

from optlaws.harness import loop, train
from optlaws.runs import read_runs

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {
    "name": "watched",
    "model": {"depth": 1, "width": 16, "heads": 2},
    "data": {"vocab": 32, "branching": 4},
    "optimizer": {"name": "lion", "weight_decay": 0.1},
    "seq_len": 8,
    "batch": 4,
    "threads": 1,
    "device": "cpu",
    "schedule": "wsd:peak=1e-3,steps=1500,warmup=10",
}


def monitor(*args):
    return subprocess.run(
        [sys.executable, "-m", "optlaws", "monitor", "llama-slimpajama", *map(str, args)],
        capture_output=True, text=True, check=False, timeout=240, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folder of a run as it is while it is trained, and when it is over."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CURVES", 0.0)
        patch.setattr(loop, "REPORTS", 0.0)

        def look(now):
            if (place / "over" / "curve.csv").exists() and not (place / "begun").exists():
                shutil.copytree(place / "over", place / "begun")

        train(CONFIG, place / "over", progress=look)
    return place / "begun", place / "over"


def test_the_planned_row_is_that_of_the_end_without_an_end(folders):
    begun, over = folders
    assert {path.name for path in begun.iterdir()} == {"config.json", "planned.csv", "curve.csv", "train.lock"}
    assert {path.name for path in over.iterdir()} == {"config.json", "run.csv", "curve.csv"}
    planned, end = read_runs(begun / "planned.csv"), read_runs(over / "run.csv")
    for name in ("run_id", "optimizer", "schedule"):
        assert list(planned.column(name)) == list(end.column(name))
    for name in ("params", "active_params", "tokens", "steps", "batch_tokens", "seq_len", "beta1", "beta2"):
        assert planned.column(name)[0] == end.column(name)[0]
    assert planned.weight_decay[0] == 0.1
    assert {name: end.extra[name] for name in planned.extra} == dict(planned.extra)
    assert {"width", "depth", "config_digest"} <= set(planned.extra)
    assert math.isnan(planned.final_loss[0])
    assert not planned.status[0]


def test_a_run_that_is_trained_is_named_by_its_folder_or_its_configuration(folders):
    begun, over = folders
    log = ("--log", begun / "curve.csv", "--other-corpus", "--format", "json")
    by_folder = monitor(begun, *log)
    assert by_folder.returncode == 0, by_folder.stderr
    assert monitor(begun, "--log", begun / "curve.csv", "--other-corpus").stdout.count(" of 1500") == 1
    for other in (begun / "config.json", begun / "planned.csv", over, over / "run.csv", over / "config.json"):
        assert monitor(other, *log).stdout == by_folder.stdout
    followed = monitor(begun, "--log", over / "curve.csv", "--follow", "--every", "0.05", "--other-corpus")
    assert followed.returncode == 0, followed.stderr
    assert followed.stdout.splitlines()[-1].startswith("step 1500 of 1500")


def test_a_folder_without_a_run_is_told(tmp_path):
    done = monitor(tmp_path, "--log", tmp_path / "curve.csv")
    assert done.returncode == 2
    assert done.stderr.startswith("optlaws: RUN must be a run that optlaws train has begun if it is a folder, got ")
    assert done.stderr.count("\n") == 1
