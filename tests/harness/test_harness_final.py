"""The end of a run: its last evaluation needs no more memory than training, and what comes before it is not lost."""

import gc
import itertools
import json
import math
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

from test_harness_train import QUADRATIC, assert_same
from tiny_runs import tiny

from optlaws.errors import InputError
from optlaws.harness import read_record, train, train_stacked
from optlaws.harness.config import read_config
from optlaws.harness.engine import Engine
from optlaws.harness.sweep import Tables

ROOT = Path(__file__).resolve().parents[2]

SIZES = """
import json, sys
import torch
from optlaws.harness import train
from optlaws.harness.models import Transformer
seen, forward = set(), Transformer.forward
def spied(self, tokens, targets):
    seen.add((torch.is_grad_enabled(), len(tokens)))
    return forward(self, tokens, targets)
Transformer.forward = spied
import torch.distributed as dist
dist.init_process_group("gloo")
found = {}
for name, config in json.load(open("configs.json")).items():
    seen.clear()
    record = train(config)
    found[name] = [sorted(seen), record.final_loss, float(record.curve.loss[-1])]
json.dump(found, open(f"seen{dist.get_rank()}.json", "w"))
dist.destroy_process_group()
"""


def test_evaluation_holds_no_more_sequences_than_training_on_several_processes(tmp_path):
    shape = {"batch": 16, "eval": {"every": 3, "sequences": 40}, "threads": 1}
    configs = {
        f"{parallel} {size}": tiny("constant:peak=1e-3,steps=4", micro_batch=size, parallel=parallel, **shape)
        for parallel in ("ddp", "fsdp")
        for size in (None, 2)
    }
    (tmp_path / "configs.json").write_text(json.dumps({key: one.to_dict() for key, one in configs.items()}))
    (tmp_path / "script.py").write_text(SIZES)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "script.py"],
        capture_output=True, text=True, check=False, timeout=600, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    alone = train(tiny("constant:peak=1e-3,steps=4", **shape))
    for rank in range(2):
        for key, (sizes, final, last) in json.loads((tmp_path / f"seen{rank}.json").read_text()).items():
            most = configs[key].micro_batch or 8  # half of the batch
            assert {size for trains, size in sizes if trains} == {most}, key
            assert max(size for _, size in sizes) == most, key
            assert (final, last) == pytest.approx((alone.final_loss, alone.curve.loss[-1]), rel=1e-5)


def fail_from(monkeypatch, number):
    """Let the evaluations from that number on, counted from 0, run out of memory until the patch is undone."""
    own, count = Engine.losses, itertools.count()

    def losses(engine, source, step):
        if next(count) >= number:
            raise torch.OutOfMemoryError("too little")
        return own(engine, source, step)

    monkeypatch.setattr(Engine, "losses", losses)


def count_updates(monkeypatch):
    """Return the list to which every update's engine is added."""
    own, updates = Engine.gradients, []
    monkeypatch.setattr(Engine, "gradients", lambda *args: updates.append(args[0]) or own(*args))
    return updates


@pytest.mark.parametrize("every", [0, 7])
def test_a_run_whose_last_evaluation_fails_goes_on_from_its_last_update(every, tmp_path, monkeypatch):
    config = tiny(name="end", checkpoint={"every": every})
    whole = train(config)
    fail_from(monkeypatch, 0)
    with pytest.raises(InputError, match=r"micro_batch: .* got 4 sequences .*; lower it and use --out .*end, where"):
        train(config, tmp_path / "end")
    assert [path.name for path in (tmp_path / "end" / "checkpoints").iterdir()] == ["step-000000024.pt"]
    monkeypatch.undo()
    updates = count_updates(monkeypatch)
    assert_same(train(config, tmp_path / "end"), whole)
    assert updates == []
    assert (tmp_path / "end" / "checkpoints").exists() == bool(every)


@pytest.mark.parametrize(
    ("changes", "saved"),
    [
        ({"eval": {"every": 7}}, []),
        ({"eval": {"every": 0}}, [24]),  # how long an evaluation takes is not known
        ({"eval": {"every": 7}, "checkpoint": {"every": 10}}, [10, 20, 24]),
    ],
)
def test_no_checkpoint_before_a_short_evaluation_where_nobody_asked_for_one(changes, saved, tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr("optlaws.harness.loop.save_checkpoint", lambda folder, step, *rest: steps.append(step))
    whole = train(tiny(**changes))
    assert_same(train(tiny(**changes), tmp_path / "alone"), whole)
    assert steps == saved
    train_stacked([tiny(name="a", **changes), tiny(name="b", **changes)], tmp_path)
    assert steps == saved * 2
    if not saved:
        monkeypatch.setattr("optlaws.harness.loop.SHORT", 0.0)
        train(tiny(**changes), tmp_path / "long")
        assert steps == [24]


@pytest.mark.parametrize("stacked", [False, True])
def test_nothing_holds_a_model_once_it_is_trained(stacked, tmp_path, monkeypatch):
    """Without the help of the garbage collector, which would come too late for the memory of the next model."""
    engines, own = [], Engine.__init__
    monkeypatch.setattr(
        Engine, "__init__", lambda self, *args, **kinds: engines.append(weakref.ref(self)) or own(self, *args, **kinds)
    )
    gc.collect()
    gc.disable()
    try:
        train_stacked([tiny(name="a"), tiny(name="b")], tmp_path) if stacked else train(tiny(), tmp_path)
        assert [engine() for engine in engines] == [None]
    finally:
        gc.enable()


def test_a_stack_whose_last_evaluation_fails_goes_on_from_its_last_update(tmp_path, monkeypatch):
    configs = [tiny("wsd:peak=3e-3,steps=10,warmup=4,decay=0.25", name="short", seed=1), tiny(name="long")]
    whole = train_stacked(configs)
    fail_from(monkeypatch, 2)  # the short one's two are done
    with pytest.raises(InputError, match="lower it, or stack fewer runs"):
        train_stacked(configs, tmp_path)
    assert read_record(tmp_path / "short").status == "completed"
    monkeypatch.undo()
    updates = count_updates(monkeypatch)
    for one, other in zip(train_stacked(configs, tmp_path), whole, strict=True):
        assert_same(one, other)
    assert updates == []


def test_micro_batch_may_change_when_a_run_is_taken_up_again(tmp_path):
    config = tiny(name="own", micro_batch=4)
    whole = train(config)
    asked = iter(range(100))
    half = train(config, tmp_path / "own", stop=lambda: next(asked) == 11)
    assert half.status == "interrupted"
    smaller = config.with_(micro_batch=1)
    asked = iter(range(100))
    assert train(smaller, tmp_path / "own", stop=lambda: next(asked) == 5).steps_done == 16
    done = train(config.with_(micro_batch=None), tmp_path / "own")
    assert done.final_loss == pytest.approx(whole.final_loss, abs=2e-5)
    assert done.curve.loss[:11].tolist() == whole.curve.loss[:11].tolist()
    assert read_config(tmp_path / "own" / "config.json").micro_batch is None
    with pytest.raises(InputError, match=r"holds the run 'own' with other settings"):
        train(config.with_(batch=8), tmp_path / "own")


def test_a_run_without_a_name_may_change_it_too(tmp_path):
    asked = iter(range(100))
    half = train(tiny(micro_batch=4), tmp_path / "own", stop=lambda: next(asked) == 11)
    done = train(tiny(micro_batch=2), tmp_path / "own")
    assert done.curve.loss[:11].tolist() == half.curve.loss.tolist()
    assert done.status == "completed"
    with pytest.raises(InputError, match="with other settings"):
        train(tiny(micro_batch=2, name="mine"), tmp_path / "own")


@pytest.mark.parametrize(
    ("changes", "free"),
    [
        ({}, True),
        ({"model": {"kind": "mlp", "width": 16, "depth": 1}}, True),
        ({"model": {"experts": 4, "hidden": 8, "balance": 0}}, True),
        ({"model": {"experts": 4, "hidden": 8}}, False),
        (QUADRATIC, False),
    ],
)
def test_micro_batch_is_free_where_it_changes_nothing_but_rounding(changes, free):
    config = tiny(batch=12, **changes)
    for size in (1, 2, 3, 4, 6, 12):
        assert config.with_(micro_batch=size).goes_on_from(config.digest()) == free
        assert config.goes_on_from(config.with_(micro_batch=size).digest()) == free
    assert config.goes_on_from(config.digest())
    assert not config.goes_on_from(config.with_(seed=1, micro_batch=2).digest())
    assert not config.goes_on_from(config.with_(batch=6).digest())


def test_a_stack_keeps_its_micro_batch_and_a_sweep_takes_a_run_that_changed_it(tmp_path):
    from optlaws.harness.grid import Planned

    config = tiny(name="own")
    (tmp_path / "runs").mkdir()
    train(config.with_(micro_batch=2), tmp_path / "runs" / "own")
    assert Tables(tmp_path, [Planned(config, "main", "t")]).done == 1
    with pytest.raises(InputError, match="with other settings"):
        train_stacked([config], tmp_path / "runs")
    assert math.isfinite(read_record(tmp_path / "runs" / "own").final_loss)
