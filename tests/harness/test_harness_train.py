"""Whole runs on the CPU: what is recorded, that they repeat bit for bit, and how they end."""

import json
import math
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

from tiny_runs import tiny

from optlaws.errors import InputError
from optlaws.harness import entropy, loop, read_config, read_record, train, train_stacked
from optlaws.harness.machine import Machine
from optlaws.harness.record import CurveLog, Verdict
from optlaws.harness.sections import DivergenceConfig
from optlaws.runs import read_curves, read_runs
from optlaws.schedules import parse

QUADRATIC = {"model": {"kind": "quadratic", "dimension": 8}, "data": {"kind": "noise"}, "seq_len": 1}


def values_of(record):
    names = ("val_loss", "lr", "grad_norm")
    return record.curve.step.tolist(), record.curve.loss.tolist(), [record.curve.extra[name] for name in names]


def assert_same(one, other):
    assert one.status == other.status
    assert values_of(one) == values_of(other)
    assert one.final_loss == other.final_loss or (math.isnan(one.final_loss) and math.isnan(other.final_loss))


def test_record_and_files(tmp_path):
    schedule = "wsd:peak=3e-3,steps=24,warmup=5,decay=0.3,shape=sqrt"
    config = tiny(schedule, name="one", eval={"every": 10}, log_every=3)
    record = train(config, tmp_path / "one")
    assert record.status == "completed"
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["config.json", "curve.csv", "run.csv"]
    assert read_config(tmp_path / "one" / "config.json") == config

    runs = read_runs(tmp_path / "one" / "run.csv")
    assert runs.run_id == ("one",)
    assert runs.schedule_tuple() == (config.schedule,)
    assert runs.tokens[0] == 24 * 4 * 8
    assert runs.params[0] == 16 * 16 * 4 + 3 * 16 * 48 + 3 * 16
    assert (runs.optimizer, runs.weight_decay[0], runs.beta2[0]) == (("adamw",), 0.1, 0.95)
    assert runs.final_loss[0] == record.final_loss
    facts = {name: runs.extra[name][0] for name in runs.extra}
    assert facts["config_digest"] == config.digest()
    assert facts["steps_done"] == "24"
    assert facts["dtype"] == "float32"
    assert facts["seed"] == "0"
    assert float(facts["entropy"]) == entropy(config.data, 8).nats
    assert "torch" in facts["versions"]
    assert float(facts["tokens_per_second"]) > 0

    curve = read_curves(tmp_path / "one" / "curve.csv")
    assert curve.step.tolist() == [0, 3, 6, 9, 10, 12, 15, 18, 20, 21, 24]
    rates = [parse(schedule).lr(int(k)) for k in curve.step[:-1]]
    assert [float(cell) for cell in curve.extra["lr"][:-1]] == rates  # bit for bit
    assert [i for i, cell in enumerate(curve.extra["val_loss"]) if cell] == [4, 8, 10]
    assert float(curve.extra["val_loss"][-1]) == record.final_loss
    assert (curve.extra["lr"][-1], curve.extra["grad_norm"][-1]) == ("", "")
    assert abs(curve.loss[0] - math.log(32)) < 0.2
    assert_same(read_record(tmp_path / "one"), record)


def test_training_learns():
    config = tiny("wsd:peak=1e-2,steps=150,warmup=10,decay=0.25", batch=16, data={"weights": (0.2, 0.8)})
    record = train(config)
    floor = float(record.runs.extra["entropy"][0])
    assert floor < record.final_loss < record.curve.loss[0] - 0.4


def test_two_runs_are_bit_equal():
    config = tiny(eval={"every": 7})
    assert_same(train(config), train(config))
    assert values_of(train(config))[1] != values_of(train(config.with_(seed=1)))[1]
    data = config.with_(data_seed=1)
    assert train(data).curve.loss[0] != train(config).curve.loss[0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": {"name": "muon"}},
        {"optimizer": {"name": "sgd"}},
        {"optimizer": {"name": "adafactor"}},
        {"model": {"experts": 4, "hidden": 8}, "micro_batch": 2},
        {"model": {"kind": "mlp", "width": 16, "depth": 1}},
        QUADRATIC,
    ],
    ids=lambda changes: str(changes)[:50],
)
def test_resume_from_any_checkpoint_is_bit_equal(changes, tmp_path):
    config = tiny(eval={"every": 7}, checkpoint={"every": 5, "keep": None}, **changes)
    whole = train(config, tmp_path / "whole")
    names = sorted(path.name for path in (tmp_path / "whole" / "checkpoints").iterdir())
    assert names == [f"step-{k:09d}.pt" for k in (5, 10, 15, 20, 24)]
    for name in names[:-1]:
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        shutil.copy(tmp_path / "whole" / "checkpoints" / name, folder / "checkpoints")
        assert_same(train(config, folder), whole)


def test_interrupted_runs_go_on(tmp_path):
    config = tiny(eval={"every": 7})
    whole = train(config)
    asked = iter(range(100))
    half = train(config, tmp_path, stop=lambda: next(asked) == 11)
    assert (half.status, half.steps_done, math.isnan(half.final_loss)) == ("interrupted", 11, True)
    assert read_runs(tmp_path / "run.csv").status == ("interrupted",)
    assert half.curve.loss.tolist() == whole.curve.loss[:11].tolist()
    assert_same(train(config, tmp_path), whole)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("begun", ["bfloat16", "float32"])
def test_a_run_keeps_the_numbers_that_it_began_with(begun, tmp_path, monkeypatch):
    """`dtype: auto` is one digest and two formats: begun on one device, a run goes on in its format on another."""
    there = Machine.of

    def elsewhere(config):  # a device on which auto means the format `begun`
        return there(config.with_(dtype=begun) if config.dtype == "auto" else config)

    def here(config):
        other = "float32" if begun == "bfloat16" else "bfloat16"
        return there(config.with_(dtype=other) if config.dtype == "auto" else config)

    config = tiny()
    monkeypatch.setattr(Machine, "of", staticmethod(elsewhere))
    whole, asked = train(config), iter(range(100))
    train(config, tmp_path, stop=lambda: next(asked) == 11)
    monkeypatch.setattr(Machine, "of", staticmethod(here))
    record = train(config, tmp_path)
    assert record.runs.extra["dtype"] == (begun,)
    assert_same(record, whole)
    assert train(config).runs.extra["dtype"] != (begun,)


def test_interrupted_before_the_first_step(tmp_path):
    record = train(tiny(), tmp_path, stop=lambda: True)
    assert (record.status, record.steps_done, len(record.curve)) == ("interrupted", 0, 0)
    assert read_record(tmp_path).status == "interrupted"
    assert train(tiny(), tmp_path).status == "completed"


def test_finished_runs_are_left_alone(tmp_path):
    first = train(tiny(), tmp_path)
    time = (tmp_path / "run.csv").stat().st_mtime_ns
    assert_same(train(tiny(), tmp_path), first)
    assert (tmp_path / "run.csv").stat().st_mtime_ns == time
    train(tiny(), tmp_path, restart=True)
    assert (tmp_path / "run.csv").stat().st_mtime_ns != time
    with pytest.raises(InputError, match=r"holds the run .* with other settings"):
        train(tiny(seed=1), tmp_path)
    assert train(tiny(seed=1), tmp_path, restart=True).status == "completed"


def test_a_configuration_that_fails_leaves_no_trace(tmp_path):
    np.save(tmp_path / "tokens.npy", np.arange(5000) % 32)
    data = {"kind": "tokens", "train": str(tmp_path / "tokens.npy"), "vocab": 32}
    wrong = tiny(name="own", data=data, eval={"sequences": 1000})
    with pytest.raises(InputError, match=r"eval\.sequences"):
        train(wrong, tmp_path / "own")
    assert not list((tmp_path / "own").iterdir())
    first = train(tiny(name="own", data=data, eval={"sequences": 4}), tmp_path / "own")  # the corrected one
    assert first.status == "completed"
    with pytest.raises(InputError, match=r"eval\.sequences"):
        train(wrong, tmp_path / "own", restart=True)
    assert_same(read_record(tmp_path / "own"), first)
    with pytest.raises(InputError, match=r"eval\.sequences"):
        train_stacked([wrong.with_(name="two")], tmp_path)
    with pytest.raises(InputError, match=r"eval\.sequences"):
        train_stacked([wrong, wrong.with_(name="two")], tmp_path, restart=True)
    assert_same(read_record(tmp_path / "own"), first)
    assert not list(tmp_path.glob("stack-*"))


def test_a_restart_ignores_the_checkpoints_that_are_there(tmp_path):
    asked = iter([False] * 4 + [True] * 100)
    assert train(tiny(), tmp_path, stop=lambda: next(asked)).status == "interrupted"
    again = train(tiny(), tmp_path, restart=True)
    assert_same(again, train(tiny()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "curve.csv", "run.csv"]


def test_gradient_accumulation_changes_only_rounding():
    whole = train(tiny())
    parts = train(tiny(micro_batch=1))
    assert np.allclose(whole.curve.loss, parts.curve.loss, atol=2e-5)
    assert whole.final_loss == pytest.approx(parts.final_loss, abs=2e-5)


def test_huge_rates_end_as_diverged_or_nonfinite(tmp_path):
    config = tiny("constant:peak=30,steps=60", divergence={"factor": 1.2, "patience": 0.1}, optimizer={"clip": None})
    record = train(config, tmp_path)
    assert record.status in ("diverged", "nonfinite")
    assert record.steps_done < 60
    assert math.isnan(record.final_loss)
    assert read_record(tmp_path).status == record.status
    assert np.isfinite(record.curve.loss).all()


def test_overflow_is_nonfinite():
    config = tiny("constant:peak=1e6,steps=20", optimizer={"name": "sgd", "clip": None, "weight_decay": 0}, **QUADRATIC)
    record = train(config)
    assert record.status == "nonfinite"
    assert record.steps_done == len(record.curve) < 8


def test_verdict():
    def status(losses, steps=100, **settings):
        verdict = Verdict(DivergenceConfig(**settings), steps)
        for loss in losses:
            found = verdict.add(loss)
            if found:
                return found
        return verdict.end(losses[-1])

    assert status([4.0] * 100) == "completed"
    assert status([4.0] * 50 + [20.0] + [4.0] * 49) == "completed"  # a spike that heals
    assert status([4.0] * 50 + [8.0] * 50) == "diverged"
    assert status([4.0] * 96 + [8.0] * 4) == "diverged"  # in trouble at the end
    assert status([4.0] * 50 + [8.0] * 50, factor=None) == "completed"
    assert status([4.0] * 50 + [math.nan]) == "nonfinite"
    assert status([4.0, math.inf]) == "nonfinite"
    assert math.isnan(Verdict(DivergenceConfig(), 10).smoothed)


def test_verdict_smoothing_is_a_mean():
    verdict = Verdict(DivergenceConfig(), 100)
    losses = np.random.default_rng(0).uniform(1, 2, 50)
    for loss in losses:
        verdict.add(loss)
    weights = 0.9 ** np.arange(50)[::-1]
    assert verdict.smoothed == pytest.approx((weights * losses).sum() / weights.sum())


def test_sgd_on_the_quadratic_follows_its_recursion():
    """E w_i^2 of update k + 1 is (1 - eta l_i)^2 E w_i^2 + eta^2 noise^2 l_i / batch."""
    from optlaws.harness import train_stacked

    schedule = parse("wsd:peak=0.5,steps=60,warmup=10,decay=0.5")
    configs = [
        tiny(
            schedule.short(),
            name=f"q{seed}",
            data_seed=seed,
            optimizer={"name": "sgd", "beta1": 0, "clip": None, "weight_decay": 0},
            divergence={"factor": None},
            batch=2,
            **QUADRATIC,
        )
        for seed in range(300)
    ]
    losses = np.array([record.final_loss for record in train_stacked(configs, at_once=300)])
    curvature = np.arange(1, 9) ** -1.0
    square = np.ones(8)
    for k in range(60):
        eta = schedule.lr(k)
        square = (1 - eta * curvature) ** 2 * square + eta**2 * curvature / 2
    expected = 1 + 0.5 * (curvature * square).sum()
    assert abs(losses.mean() - expected) < 4 * losses.std(ddof=1) / math.sqrt(300)


def test_progress_and_prediction():
    seen, asked = [], []

    def predict(runs, curve):
        asked.append((runs.run_id[0], len(curve)))
        return 3.5

    train(tiny(name="p", eval={"every": 10}), progress=seen.append, predict=predict)
    assert seen[-1].step == seen[-1].steps == 24
    assert seen[-1].predicted == 3.5
    assert seen[-1].mfu is None
    assert asked[0] == ("p", 1)


LONG = "wsd:peak=3e-3,steps=100,warmup=4"


def test_the_curve_so_far_can_be_watched(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CURVES", 0.0)
    monkeypatch.setattr(loop, "WRITING", math.inf)  # however slow the disk is
    seen = []

    def look(now):
        if (tmp_path / "curve.csv").exists():
            seen.append(read_curves(tmp_path / "curve.csv"))
            assert not (tmp_path / "run.csv").exists()

    record = train(tiny(LONG), tmp_path, progress=look)
    assert seen
    for curve in seen:
        assert curve.loss.tolist() == record.curve.loss[: len(curve)].tolist()
    assert 0 < len(seen[-1]) < len(record.curve) == len(read_curves(tmp_path / "curve.csv"))
    monkeypatch.setattr("optlaws.harness.training.write_curves", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    again = train(tiny(LONG), tmp_path, restart=True)  # no reason to end a run
    assert again.curve.loss.tolist() == record.curve.loss.tolist()


def test_bad_checkpoints(tmp_path):
    config = tiny(checkpoint={"every": 10})
    asked = iter(range(100))
    train(config, tmp_path, stop=lambda: next(asked) == 15)
    (path,) = (tmp_path / "checkpoints").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a whole checkpoint"):
        train(config, tmp_path)
    torch.save({"format": 99}, path)
    with pytest.raises(InputError, match="not a checkpoint of this version"):
        train(config, tmp_path)
    path.write_bytes(whole)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "data": "other"}, path)
    with pytest.raises(InputError, match="the data have changed"):
        train(config, tmp_path)
    torch.save({**content, "digest": "other"}, path)
    with pytest.raises(InputError, match="of a run with other settings"):
        train(config, tmp_path)


def test_bad_folders(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="out must be a folder"):
        train(tiny(), tmp_path / "file")
    (tmp_path / "run.csv").write_text('run_id,schedule\na,"constant:peak=1,steps=2"\n')
    with pytest.raises(InputError, match="must be the record of one training run"):
        train(tiny(), tmp_path)


def test_a_short_validation_slice_is_told_before_the_run(tmp_path):
    np.arange(2000, dtype=np.uint16).tofile(tmp_path / "a.bin")
    config = tiny("constant:peak=1e-3,steps=1000000000", data={"kind": "tokens", "train": str(tmp_path / "a.bin")})
    with pytest.raises(InputError, match=r"eval.sequences must be at most \d+, the sequences that the validation"):
        train(config)


def test_bad_devices():
    with pytest.raises(InputError, match="device must be auto, cpu, cuda"):
        train(tiny(device="abacus"))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="CUDA devices that torch sees here"):
            train(tiny(device="cuda"))


def test_curve_log_keeps_numbers_exactly():
    log = CurveLog()
    log.add(3, 0.1 + 0.2, math.nan, 1 / 3, 2.0)
    table = CurveLog.of(log.array()).table("a")
    assert (table.step[0], table.loss[0]) == (3.0, 0.1 + 0.2)
    assert float(table.extra["lr"][0]) == 1 / 3
    assert table.extra["val_loss"] == ("",)


@pytest.mark.parametrize(
    "model", [{}, {"experts": 4, "hidden": 8}, {"kv_heads": 1, "qk_norm": True}, {"residual_dtype": "float32"}]
)
def test_bfloat16_on_the_cpu_is_near(model):
    exact, rough = train(tiny(model=model)), train(tiny(model=model, dtype="bfloat16"))
    assert rough.runs.extra["dtype"] == ("bfloat16",)
    assert rough.final_loss == pytest.approx(exact.final_loss, abs=0.02)


def test_config_json_is_plain(tmp_path):
    train(tiny(), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["schedule"]["kind"] == "wsd"


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_on_a_gpu(cuda, compiled, tmp_path):
    config = tiny(device=cuda, compile=compiled, model={"width": 64}, eval={"every": 10})
    record = train(config, tmp_path)
    assert record.status == "completed"
    assert record.runs.extra["dtype"] == ("bfloat16",)
    single = train(config.with_(device="cpu", compile=False))
    assert record.final_loss == pytest.approx(single.final_loss, abs=0.03)
    asked = iter(range(100))
    half = train(config, tmp_path / "half", stop=lambda: next(asked) == 13)
    assert half.status == "interrupted"
    assert train(config, tmp_path / "half").final_loss == pytest.approx(record.final_loss, abs=0.02)


@pytest.mark.gpu
def test_float32_on_a_gpu_equals_the_cpu(cuda):
    record, single = train(tiny(device=cuda, dtype="float32")), train(tiny())
    assert np.allclose(record.curve.loss, single.curve.loss, atol=1e-3)
