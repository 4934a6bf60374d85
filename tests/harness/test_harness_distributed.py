"""One run over two CPU processes is the run of one, however parameters are held."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

from tiny_runs import tiny

from optlaws.errors import InputError
from optlaws.harness import read_config, read_record, train
from optlaws.harness.distributed import World, joined

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def torchrun(folder, *arguments):
    """Run a module or script in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=folder,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    return done


def assert_same_run(record, alone, rtol=1e-5):
    assert record.status == alone.status == "completed"
    assert record.final_loss == pytest.approx(alone.final_loss, rel=rtol)
    np.testing.assert_allclose(record.curve.loss, alone.curve.loss, rtol=rtol)
    np.testing.assert_array_equal(record.curve.step, alone.curve.step)
    norms = [[float(cell) for cell in one.curve.extra["grad_norm"] if cell] for one in (record, alone)]
    np.testing.assert_allclose(*norms, rtol=max(1e-3, rtol))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_the_run_of_one_and_take_up_its_checkpoint(parallel, tmp_path):
    every = {"every": 8, "keep": None}
    config = tiny(name="pair", threads=1, eval={"every": 8}, batch=8, micro_batch=2, checkpoint=every)
    alone = train(config)
    asked, out = [], tmp_path / "out"
    half = train(config, out, stop=lambda: len(asked) > 9 or asked.append(1))
    assert half.status == "interrupted"
    shared = config.with_(parallel=parallel)
    assert shared.digest() == config.digest()
    (tmp_path / "run.json").write_text(json.dumps(shared.to_dict()))
    done = torchrun(tmp_path, "-m", "optlaws", "train", "run.json", "--out", str(out))
    assert done.stdout.count("pair: completed after 24 of 24 steps") == 1
    record = read_record(out)
    assert_same_run(record, alone)
    assert (record.runs.extra["processes"], record.runs.extra["parallel"]) == (("2",), (parallel,))
    assert (alone.runs.extra["processes"], alone.runs.extra["parallel"]) == (("",), ("",))
    # The checkpoint that two processes wrote is that of a run in one.
    shutil.copytree(out / "checkpoints", tmp_path / "again" / "checkpoints")
    (tmp_path / "again" / "checkpoints" / "step-000000024.pt").unlink()
    again = train(config, tmp_path / "again", stop=lambda: False)
    assert_same_run(again, alone)
    assert again.curve.loss[:16].tolist() == record.curve.loss[:16].tolist()


SCRIPT = """
import json
from pathlib import Path
import torch.distributed as dist
from optlaws.harness import train
dist.init_process_group("gloo")
for i, config in enumerate(json.load(open("configs.json"))):
    record = train(config)
    if dist.get_rank() == 0:
        Path(f"out{i}").mkdir()
        record.write(Path(f"out{i}"))
dist.destroy_process_group()
"""


def test_models_and_optimizers_shared_out_in_pieces(tmp_path):
    changes = [
        {"model": {"heads": 4, "kv_heads": 1, "qk_norm": True, "tied": False}, "data": {"vocab": 33}},
        {"model": {"experts": 4, "hidden": 8, "balance": 0.0}, "optimizer": {"clip": 0.05}},
        {"model": {"kind": "mlp", "width": 15}, "optimizer": {"name": "sgd"}},
        {"model": {"parametrisation": "mup", "base_width": 8}, "optimizer": {"name": "adam", "clip": None}},
        {"optimizer": {"name": "muon"}},
    ]
    configs = [tiny(name=f"c{i}", threads=1, **change) for i, change in enumerate(changes)]
    shared = [config.with_(parallel="fsdp") for config in configs]
    (tmp_path / "configs.json").write_text(json.dumps([config.to_dict() for config in shared]))
    (tmp_path / "script.py").write_text(SCRIPT)
    torchrun(tmp_path, "script.py")
    for i, config in enumerate(configs):
        # Muon's own products are in bfloat16
        assert_same_run(read_record(tmp_path / f"out{i}"), train(config), 5e-3 if i == 4 else 2e-5)


ONE_AFTER_ANOTHER = """
import json
from optlaws.harness import train
for i, config in enumerate(json.load(open("configs.json"))):
    train(config, f"out{i}")
"""


def test_one_script_trains_several_runs(tmp_path):
    """Without a group of its own: the one that the first run makes serves the next, of another kind."""
    configs = [tiny("constant:peak=1e-3,steps=3", name=f"c{i}", threads=1, batch=8) for i in range(3)]
    kinds = ("ddp", "fsdp", "ddp")
    shared = [config.with_(parallel=kind).to_dict() for config, kind in zip(configs, kinds, strict=True)]
    (tmp_path / "configs.json").write_text(json.dumps(shared))
    (tmp_path / "script.py").write_text(ONE_AFTER_ANOTHER)
    torchrun(tmp_path, "script.py")
    for i, config in enumerate(configs):
        assert_same_run(read_record(tmp_path / f"out{i}"), train(config), 2e-5)


ONE_UPDATE = """
import json, sys
from pathlib import Path
import torch
from optlaws.harness import read_config
from optlaws.harness.distributed import joined
from optlaws.harness.engine import SingleEngine
from optlaws.harness.machine import Machine
from optlaws.harness.sources import open_source
def update():
    with joined(read_config("run.json")) as (world, config):
        machine = Machine.of(config)
        source = open_source(config, [config.order], machine.device)
        engine = SingleEngine(config, source.vocab, machine, world)
        engine.gradients(source, 0)
        engine.update(0)
        torch.save(engine.state(), f"state{world.rank}.pt")
update()
"""


def tensors(state):
    """Return the tensors of a state that are no single numbers."""
    if isinstance(state, dict | list | tuple):
        return [one for entry in (state.values() if isinstance(state, dict) else state) for one in tensors(entry)]
    return [state] if isinstance(state, torch.Tensor) and state.ndim else []


def test_the_whole_state_is_put_together_for_the_first_process_alone(tmp_path):
    config = tiny(threads=1, batch=8, parallel="fsdp")
    (tmp_path / "run.json").write_text(json.dumps(config.to_dict()))
    (tmp_path / "script.py").write_text(ONE_UPDATE)
    subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=ENVIRONMENT, check=True)
    alone = tensors(torch.load(tmp_path / "state0.pt", weights_only=True))
    torchrun(tmp_path, "script.py")
    first, second = (tensors(torch.load(tmp_path / f"state{rank}.pt", weights_only=True)) for rank in (0, 1))
    assert not second
    assert len(first) == len(alone) > 10
    assert {one.device.type for one in first} == {"cpu"}
    for one, other in zip(first, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


ENDING = """
import atexit, json, os, sys
from pathlib import Path

def gloo():
    return [name for path in Path("/proc/self/task").glob("*/comm") if "gloo" in (name := path.read_text().strip())]

found = {}
@atexit.register  # called after what optlaws has registered
def last():
    json.dump(found | {"at the end": gloo()}, open(f"threads{os.environ['RANK']}.json", "w"))

import torch.distributed as dist
from optlaws.harness import train
if "given" in sys.argv:
    dist.init_process_group("gloo")
train(json.load(open("run.json")), stop=lambda: bool(found.update({"at work": gloo()})))
if "given" in sys.argv:
    dist.destroy_process_group()
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs a system that lists a process's threads")
@pytest.mark.parametrize("group", ["own", "given"])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_the_threads_of_the_group_end_before_python_does(parallel, group, tmp_path):
    """One that is left may abort the process, once in hundreds of times."""
    config = tiny("constant:peak=1e-3,steps=2", threads=1, batch=8, parallel=parallel)
    (tmp_path / "run.json").write_text(json.dumps(config.to_dict()))
    (tmp_path / "script.py").write_text(ENDING)
    torchrun(tmp_path, "script.py", group)
    for rank in (0, 1):
        threads = json.loads((tmp_path / f"threads{rank}.json").read_text())
        if not threads["at work"]:
            pytest.skip(f"torch {torch.__version__} does not name its threads")
        assert threads["at the end"] == []


def environment(monkeypatch, rank, size):
    for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", size), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, str(value))


def test_shares_of_a_batch(monkeypatch):
    environment(monkeypatch, 1, 4)
    world = World.of_environment()
    assert (world.rank, world.size, world.first, world.sharded) == (1, 4, False, False)
    assert World.of_environment("fsdp").sharded
    assert not World(parallel="fsdp").sharded
    assert [World(rank, 4).share(32) for rank in range(4)] == [(0, 8), (8, 8), (16, 8), (24, 8)]
    monkeypatch.delenv("MASTER_ADDR")
    assert World.of_environment() == World()


def test_bad_worlds_are_told_in_a_sentence(monkeypatch):
    environment(monkeypatch, 0, 3)
    with pytest.raises(InputError, match="batch must be a multiple of the 3 processes"), joined(tiny(batch=4)):
        pass
    with pytest.raises(InputError, match="micro_batch must be a divisor"), joined(tiny(batch=12, micro_batch=3)):
        pass
    whole = tiny(batch=12, parallel="fsdp", optimizer={"name": "adafactor"})
    with pytest.raises(InputError, match=r"optimizer.name must be one of .* got 'adafactor'"), joined(whole):
        pass
    with pytest.raises(InputError, match="parallel must be one of ddp, fsdp, got 'pipeline'"):
        read_config({"schedule": "constant:peak=1,steps=1", "parallel": "pipeline"})
    environment(monkeypatch, "x", 3)
    with pytest.raises(InputError, match="must be whole numbers"):
        World.of_environment()


def test_two_processes_branch_from_the_run_of_one(tmp_path):
    changes = {"threads": 1, "eval": {"every": 8}, "batch": 8, "parallel": "fsdp"}
    constant = "constant:peak=3e-3,warmup=4,steps=20"
    train(tiny(constant, name="trunk", checkpoint={"every": 5, "keep": None}, **changes), tmp_path / "trunk")
    config = tiny("wsd:peak=3e-3,warmup=4,steps=18,decay=6", name="pair", **changes)
    (tmp_path / "run.json").write_text(json.dumps(config.to_dict()))
    done = torchrun(tmp_path, "-m", "optlaws", "train", "run.json", "--out", "out", "--branch", "trunk")
    assert done.stdout.count("pair: completed after 18 of 18 steps") == 1
    record, alone = read_record(tmp_path / "out"), train(config)
    assert_same_run(record, alone)
    assert record.curve.loss[:10].tolist() == alone.curve.loss[:10].tolist()
    assert record.runs.extra["branched_from"] == ("trunk@10",)
