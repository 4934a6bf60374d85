"""A disk that is full when a checkpoint is written."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

from test_harness_train import assert_same
from tiny_runs import tiny

from optlaws.errors import OptlawsError
from optlaws.harness import checkpoint, train
from optlaws.harness.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

ROOT = Path(__file__).resolve().parents[2]


def limited(*arguments, folder, size):
    """Run a command whose files may have that many bytes at most."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return subprocess.run(
        [sys.executable, "-m", "optlaws", *arguments], preexec_fn=limit, cwd=folder, capture_output=True, text=True,
        check=False, timeout=240, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("stacked", [False, True])
def test_a_full_disk_is_one_sentence_and_costs_no_older_file(tmp_path, stacked):
    config = tiny(name="full", checkpoint={"every": 5}, threads=1)
    whole = train(config, tmp_path / "whole" / "full")
    asked = iter(range(100))
    train(config, tmp_path / "full", stop=lambda: next(asked) == 7)
    (kept,) = (tmp_path / "full" / "checkpoints").iterdir()
    before = {path: path.read_bytes() for path in (kept, tmp_path / "full" / "run.csv")}
    if stacked:
        grid = {
            "base": {key: value for key, value in config.to_dict().items() if key not in ("name", "model", "schedule")},
            "sizes": {"t": config.to_dict()["model"]},
            "schedules": ["wsd"],
            "peaks": [1e-3, 2e-3],
            "horizons": [10],
        }
        (tmp_path / "grid.json").write_text(json.dumps(grid))
        done = limited("sweep", "grid.json", "--out", "out", "--stacked", "2", folder=tmp_path, size=20_000)
        name = r"out/runs/stack-"
    else:
        (tmp_path / "run.json").write_text(json.dumps(config.to_dict()))
        done = limited("train", "run.json", "--out", "full", folder=tmp_path, size=20_000)
        name = "full/checkpoints/step-000000010.pt: "
    assert done.returncode == 1, done.stderr
    (line,) = [one for one in done.stderr.splitlines() if not one.startswith(("step", "0 of"))]
    assert line.startswith(f"optlaws: {name}")
    assert "the checkpoint could not be written (File too large); make room there and give the same command" in line
    assert not list(tmp_path.rglob("*.part"))
    assert {path: path.read_bytes() for path in before} == before
    if not stacked:
        assert_same(train(config, tmp_path / "full"), whole)


def test_a_write_that_fails_says_why(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, {"digest": "a", "numbers": torch.arange(5)}, keep=1)

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("optlaws.runs._files.os.fsync", full)
        with pytest.raises(CheckpointError, match=r"step-000000002.pt: .* \(No space left on device\); make room"):
            save_checkpoint(tmp_path, 2, {"digest": "a"}, keep=1)
    assert issubclass(CheckpointError, OptlawsError)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001.pt"]
    assert load_checkpoint(tmp_path / "step-000000001.pt", "a".__eq__)["numbers"].tolist() == list(range(5))


def test_a_run_without_checkpoints_ends_although_the_one_before_its_end_cannot_be_written(tmp_path, monkeypatch):
    whole = train(tiny(name="own"))

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "pack", full)
    assert_same(train(tiny(name="own"), tmp_path), whole)
    with pytest.raises(CheckpointError, match="could not be written"):
        train(tiny(name="own", checkpoint={"every": 100}), tmp_path, restart=True)
