"""One run over two CPU processes is the run of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

from tiny_runs import tiny

from optlaws.errors import InputError
from optlaws.harness import read_record, train
from optlaws.harness.distributed import World, joined

ROOT = Path(__file__).resolve().parents[2]


def torchrun(config, out, folder):
    path = folder / "run.json"
    path.write_text(json.dumps(config.to_dict()))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "optlaws"]
    return subprocess.run(
        [*command, "train", str(path), "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def test_two_processes_train_the_run_of_one_and_take_up_its_checkpoint(tmp_path):
    config = tiny(name="pair", threads=1, eval={"every": 8}, batch=8, micro_batch=2)
    alone = train(config)
    asked = []
    half = train(config, tmp_path / "out", stop=lambda: len(asked) > 9 or asked.append(1))
    assert half.status == "interrupted"
    done = torchrun(config, tmp_path / "out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pair: completed after 24 of 24 steps") == 1
    record = read_record(tmp_path / "out")
    assert record.status == "completed"
    assert record.final_loss == pytest.approx(alone.final_loss, rel=1e-5)
    np.testing.assert_allclose(record.curve.loss, alone.curve.loss, rtol=1e-5)
    np.testing.assert_array_equal(record.curve.step, alone.curve.step)
    again = torchrun(config, tmp_path / "out", tmp_path)
    assert again.returncode == 0
    assert read_record(tmp_path / "out").final_loss == record.final_loss


def environment(monkeypatch, rank, size):
    for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", size), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, str(value))


def test_shares_of_a_batch(monkeypatch):
    environment(monkeypatch, 1, 4)
    world = World.of_environment()
    assert (world.rank, world.size, world.first) == (1, 4, False)
    assert [World(rank, 4).share(32) for rank in range(4)] == [(0, 8), (8, 8), (16, 8), (24, 8)]
    monkeypatch.delenv("MASTER_ADDR")
    assert World.of_environment() == World()


def test_bad_worlds_are_told_in_a_sentence(monkeypatch):
    environment(monkeypatch, 0, 3)
    with pytest.raises(InputError, match="batch must be a multiple of the 3 processes"), joined(tiny(batch=4)):
        pass
    with pytest.raises(InputError, match="micro_batch must be a divisor"), joined(tiny(batch=12, micro_batch=3)):
        pass
    environment(monkeypatch, "x", 3)
    with pytest.raises(InputError, match="must be whole numbers"):
        World.of_environment()
