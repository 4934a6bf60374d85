"""Stacked runs: each gets what it gets on its own, and none harms another."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

from tiny_runs import tiny

from optlaws.errors import InputError
from optlaws.harness import train, train_stacked

SPECS = (
    "wsd:peak={},steps=20,warmup=4,decay=0.25",
    "cosine:peak={},steps=14,warmup=2",
    "constant:peak={},steps=20",
)
RATES = (1e-3, 3e-3, 2e-4)


def runs_of(**changes):
    """Three runs that differ in everything that may differ but the seeds: schedule, length, decay."""
    return [
        tiny(
            spec.format(rate),
            name=f"m{i}",
            **{**changes, "optimizer": {"weight_decay": decay, **changes.get("optimizer", {})}},
        )
        for i, (spec, rate, decay) in enumerate(zip(SPECS, RATES, (0.1, 0.0, 0.3), strict=True))
    ]


def assert_close(stacked, configs, atol=3e-5):
    assert [record.run_id for record in stacked] == [config.run_id for config in configs]
    for record, config in zip(stacked, configs, strict=True):
        alone = train(config)
        assert record.status == alone.status
        assert record.curve.step.tolist() == alone.curve.step.tolist()
        assert np.allclose(record.curve.loss, alone.curve.loss, atol=atol)
        assert record.curve.extra["lr"] == alone.curve.extra["lr"]
        norms = [[float(cell or 0) for cell in r.curve.extra["grad_norm"]] for r in (record, alone)]
        assert np.allclose(norms[0], norms[1], rtol=1e-3)
        assert record.final_loss == pytest.approx(alone.final_loss, abs=atol)
        assert record.runs.weight_decay.tolist() == alone.runs.weight_decay.tolist()
        assert record.runs.params.tolist() == alone.runs.params.tolist()


@pytest.mark.parametrize(
    "changes",
    [
        {"eval": {"every": 6}},
        {"model": {"heads": 4, "kv_heads": 2, "qk_norm": True, "tied": False}, "micro_batch": 2},
        {"model": {"experts": 4, "hidden": 8}},
        {"model": {"experts": 4, "hidden": 8}, "optimizer": {"name": "muon"}},
        {"model": {"parametrisation": "mup", "base_width": 8}},
        {"model": {"kind": "mlp", "width": 16}},
        {"model": {"kind": "quadratic"}, "data": {"kind": "noise"}, "seq_len": 1, "optimizer": {"name": "sgd"}},
        {"optimizer": {"name": "sgd"}},
        {"optimizer": {"name": "adam", "clip": None}},
        {"optimizer": {"name": "muon"}},
        {"optimizer": {"name": "adafactor"}},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_losses_equal_separate_runs(changes):
    configs = runs_of(**changes)
    assert_close(train_stacked(configs, at_once=3), configs)


@pytest.mark.parametrize("name", ["lion", "adabelief", "stableadamw"])
def test_library_optimizers(name):
    pytest.importorskip("pytorch_optimizer", reason="pytorch_optimizer is not installed")
    configs = runs_of(optimizer={"name": name})
    assert_close(train_stacked(configs, at_once=3), configs, atol=1e-3)


def test_seeds_and_data_seeds():
    configs = [tiny(name=f"s{s}{d}", seed=s, data_seed=d) for s, d in ((0, 0), (1, 0), (1, 2), (3, 3))]
    records = train_stacked(configs)
    assert_close(records, configs)
    assert len({record.final_loss for record in records}) == 4
    shared = [tiny(name=f"s{s}", seed=s, data_seed=7) for s in range(3)]
    assert_close(train_stacked(shared), shared)


def test_a_member_that_blows_up_harms_nobody():
    calm = runs_of()
    wild = [
        tiny("constant:peak=1e6,steps=20", name="wild", optimizer={"weight_decay": 1e3}),
        tiny("constant:peak=30,steps=20", name="high", optimizer={"weight_decay": 0.0}),
    ]
    records = train_stacked([wild[0], *calm, wild[1]], at_once=5)
    assert records[0].status == "nonfinite"
    assert records[0].steps_done < 20
    assert records[4].status in ("diverged", "nonfinite")
    assert_close(records[1:4], calm)
    for record in (records[0], records[4]):
        assert np.isfinite(record.curve.loss).all()
        assert math.isnan(record.final_loss) or record.status == "diverged"


@pytest.fixture
def made(monkeypatch):
    """Return the list of programs that torch.compile makes from now on."""
    programs = []

    def compiler(graph, inputs):
        programs.append(graph)
        return graph.forward

    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compiled(model, backend=compiler))
    return programs


@pytest.mark.parametrize("seeds", [False, True])
def test_compiled_stacks_need_no_new_program_when_runs_leave(seeds, made):
    """Five, four, three and two runs share a program to train; one to evaluate, two where they have batches apart."""
    torch._dynamo.reset()
    configs = [
        tiny(f"constant:peak={1e-3 * (i + 1)},steps={steps}", name=f"c{i}", eval={"every": 4}, seed=i if seeds else 0)
        for i, steps in enumerate((5, 6, 7, 8, 8))
    ]
    with torch._dynamo.config.patch(automatic_dynamic_shapes=True):  # the settings are put back at the end
        records = train_stacked([config.with_(compile=True) for config in configs], at_once=5)
    assert len(made) == 2 + seeds
    assert_close(records, configs)


@pytest.mark.parametrize("stacked", [False, True])
def test_evaluations_need_no_program_of_their_own_on_cuda(stacked, made, monkeypatch):
    losses = []
    for one_program in (False, True):
        torch._dynamo.reset()
        monkeypatch.setattr("optlaws.harness.engine.Engine.one_program", one_program)
        configs = [tiny(name=f"r{rate}", eval={"every": 7}, compile=True) for rate in RATES[: 1 + stacked]]
        with torch._dynamo.config.patch(automatic_dynamic_shapes=True):
            records = train_stacked(configs) if stacked else [train(configs[0])]
        losses.append([[*record.curve.loss.tolist(), record.final_loss] for record in records])
    assert len(made) == 2 + 1
    assert np.allclose(*losses, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler looks at it
def test_compiled_experts_need_no_new_program_for_other_loads(made):
    counts = []
    for steps in (3, 30):
        torch._dynamo.reset()
        made.clear()
        configs = [tiny(f"constant:peak={r},steps={steps}", name=f"e{r}", model={"experts": 4}) for r in (0.01, 0.02)]
        with torch._dynamo.config.patch(automatic_dynamic_shapes=True):
            records = train_stacked([config.with_(compile=True) for config in configs])
        counts.append(len(made))
        assert_close(records, configs)
    assert counts[0] == counts[1]


def test_too_little_memory_is_said_in_one_sentence(monkeypatch):
    def full(self, source, step):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("optlaws.harness.engine.Engine.gradients", full)
    with pytest.raises(InputError, match=r"got 2 sequences of 8 tokens in each of 3 runs; lower it, or"):
        train_stacked(runs_of(micro_batch=2), at_once=3)
    with pytest.raises(InputError, match=r"fit into the memory of cpu .*, got 4 sequences of 8 tokens; lower it$"):
        train(tiny())


def test_at_once_changes_only_rounding():
    configs = runs_of()
    for record, other in zip(train_stacked(configs, at_once=1), train_stacked(configs, at_once=2), strict=True):
        assert np.allclose(record.curve.loss, other.curve.loss, atol=3e-5)
    assert record.runs.extra["stacked"] == ("1",)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_stop_and_go_on(name, tmp_path):
    configs = [
        *runs_of(checkpoint={"every": 8}, optimizer={"name": name}),
        tiny(
            "constant:peak=1e6,steps=20",
            name="wild",
            checkpoint={"every": 8},
            optimizer={"name": name, "weight_decay": 1e3},
        ),
    ]
    whole = train_stacked(configs, tmp_path / "whole")
    assert sorted(p.name for p in (tmp_path / "whole").iterdir()) == ["m0", "m1", "m2", "wild"]
    for moment in (3, 17):  # the second one after the shortest run has ended
        asked = iter(range(100))
        folder = tmp_path / f"half{moment}"
        half = train_stacked(configs, folder, stop=lambda asked=asked, moment=moment: next(asked) == moment)
        assert half[0].status == "interrupted"
        assert half[1].status == ("interrupted" if moment == 3 else "completed")
        again = train_stacked(configs, folder)
        for record, other in zip(again, whole, strict=True):
            assert record.status == other.status
            assert np.allclose(record.curve.loss, other.curve.loss, atol=3e-5)
            assert record.final_loss == pytest.approx(other.final_loss, abs=3e-5, nan_ok=True)
        assert sorted(p.name for p in folder.iterdir()) == ["m0", "m1", "m2", "wild"]


def test_finished_runs_are_not_trained_again(tmp_path):
    configs = runs_of()
    train(configs[1], tmp_path / "m1")
    time = (tmp_path / "m1" / "run.csv").stat().st_mtime_ns
    records = train_stacked(configs, tmp_path)
    assert [record.status for record in records] == ["completed"] * 3
    assert (tmp_path / "m1" / "run.csv").stat().st_mtime_ns == time


def test_checkpoints_of_a_stack_whose_runs_have_all_ended_are_removed(tmp_path, monkeypatch):
    configs = runs_of(checkpoint={"every": 8})
    with monkeypatch.context() as killed:
        killed.setattr("shutil.rmtree", lambda *where, **how: None)
        train_stacked(configs, tmp_path, at_once=3)
    assert len(list(tmp_path.glob("stack-*"))) == 1
    monkeypatch.setattr("optlaws.harness.training.Loop", None)  # nothing is trained again
    assert [record.status for record in train_stacked(configs, tmp_path, at_once=3)] == ["completed"] * 3
    assert not list(tmp_path.glob("stack-*"))


def test_bad_stacks(tmp_path):
    with pytest.raises(InputError, match="runs of a stack must be at least one"):
        train_stacked([])
    with pytest.raises(InputError, match="name must be another one for each run"):
        train_stacked([tiny(), tiny()])
    with pytest.raises(InputError, match="must differ only in name, schedule, weight decay and seeds, but b differs"):
        train_stacked([tiny(name="a"), tiny(name="b", batch=2)])
    with pytest.raises(InputError, match="differs from a in something else"):
        train_stacked([tiny(name="a"), tiny(name="b", checkpoint={"every": 3})])
    with pytest.raises(InputError, match="at_once must be a whole number of at least 1"):
        train_stacked([tiny()], at_once=0)


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_on_a_gpu(cuda, compiled):
    configs = [config.with_(device=cuda, dtype="float32", compile=compiled) for config in runs_of()]
    for record, config in zip(train_stacked(configs), configs, strict=True):
        alone = train(config.with_(compile=False))
        assert np.allclose(record.curve.loss, alone.curve.loss, atol=1e-3)
