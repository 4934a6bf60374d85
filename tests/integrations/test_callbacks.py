"""Callbacks, with light fakes of the frameworks' call signatures."""

import json
import logging
import math
import sys
import types
from dataclasses import replace

import numpy as np
import pytest

from optlaws import load_law, parse
from optlaws.errors import InputError, TableError
from optlaws.integrations import LiveLog, TrainingMonitor, huggingface, lightning
from optlaws.integrations.loop import describe
from optlaws.monitor import Alarm, Monitor

TOTAL = 10_000
STEPS = np.arange(50, TOTAL + 1, 50)


def monitor():
    schedule = parse(f"wsd:peak=1e-3,steps={TOTAL},warmup=300")
    return Monitor(load_law("llama-slimpajama"), schedule, params=85e6, batch_tokens=51_200)


def losses(blow_up=None):
    path = monitor().path
    y = np.exp(np.array([path.log_loss_at(float(s)) for s in STEPS]))
    return y if blow_up is None else np.where(blow_up <= STEPS, 2.0 * y, y)


def test_plain_loop_warns_and_stops(caplog):
    watch, called = TrainingMonitor(monitor(), stop_on=("divergence",), on_alarm=lambda s: called.append(s)), []
    with caplog.at_level(logging.INFO, logger="optlaws.monitor"):
        stopped = next(s for s, y in zip(STEPS, losses(6000), strict=True) if watch.step(int(s), y, 1.0))
    assert 6000 <= stopped <= 6400
    assert called[-1].diverged
    texts = [record.getMessage() for record in caplog.records]
    assert sum("divergence: loss has risen" in text for text in texts) == 1
    forecasts = [text for text in texts if "final loss" in text]
    assert len(forecasts) == 6  # at each tenth of the run before the alarm


def test_plain_loop_goes_on_without_stop_on():
    watch = TrainingMonitor(monitor())
    assert not any(watch.step(int(s), y) for s, y in zip(STEPS, losses(6000), strict=True))
    assert watch.monitor.status.diverged
    assert "no forecast holds" in describe(watch.monitor.status)


def test_alarms_that_are_over_are_counted():
    watch = TrainingMonitor(monitor())
    watch.step(100, 10.0)
    over = [Alarm("off_track", "above", 10.0 * i, 4.0, 3.5, "high", ended=10.0 * i + 5) for i in range(1, 6)]
    status, lasts = watch.monitor.status, Alarm("off_track", "above", 90.0, 4.0, 3.5, "high")
    assert describe(status).endswith("; no alarm")
    assert describe(status, over[:1]).endswith("; no alarm now; off track from step 10 to 15")
    assert describe(status, over).endswith("off track from step 40 to 45, off track from step 50 to 55, and 2 before")
    assert describe(replace(status, alarms=(lasts,)), over).endswith("; high")


def test_bad_readings_never_stop_a_loop(caplog):
    watch = TrainingMonitor(monitor())
    assert not watch.step(100, 0.0)
    assert not watch.step(100, 0.0)
    assert not watch.step(TOTAL + 1, 3.0)
    assert [r.levelname for r in caplog.records] == ["WARNING", "WARNING"]
    assert not watch.step(100, None)
    assert not watch.step("x", 3.0)
    assert len(caplog.records) == 4
    assert "loss must be above 0" in caplog.text
    assert watch.monitor.status.readings == 0


def test_a_step_that_goes_back_winds_the_monitor_back():
    watch = TrainingMonitor(monitor())
    for s, y in zip(STEPS, losses(6000), strict=True):
        watch.step(int(s), y)
        if s == 7000:
            break
    assert watch.monitor.status.diverged
    for s, y in zip(STEPS, losses(), strict=True):
        if s >= 5000:
            watch.step(int(s), y)
    assert watch.monitor.history == ()


def test_state_goes_through_json():
    watch = TrainingMonitor(monitor())
    y = losses()
    for k in range(100):
        watch.step(int(STEPS[k]), y[k])
    other = TrainingMonitor(monitor())
    other.load_state_dict(json.loads(json.dumps(watch.state_dict())))
    assert other.monitor.status.forecast == watch.monitor.status.forecast


def test_options_are_checked():
    with pytest.raises(InputError, match="stop_on must hold kinds of alarm out of divergence, off_track, got 'nan'"):
        TrainingMonitor(monitor(), stop_on=("nan",))
    with pytest.raises(InputError, match="forecast_every must be a fraction"):
        TrainingMonitor(monitor(), forecast_every=2)
    with pytest.raises(InputError, match="loss must be one of loss, eval_loss, got 'x'"):
        huggingface.make_callback(monitor(), loss="x")
    with pytest.raises(InputError, match="every must be at least 1 step, got 0"):
        lightning.make_callback(monitor(), every=0)


def test_missing_frameworks_are_named(monkeypatch):
    for name in ("transformers", "lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="needs transformers, which is not installed"):
        huggingface.make_callback(monitor())
    with pytest.raises(InputError, match="needs lightning, which is not installed"):
        lightning.make_callback(monitor())


class Base:
    """Stands for TrainerCallback and Callback."""


@pytest.fixture
def transformers(monkeypatch):
    fake = types.ModuleType("transformers")
    fake.TrainerCallback = Base
    monkeypatch.setitem(sys.modules, "transformers", fake)


def control():
    return types.SimpleNamespace(should_training_stop=False, should_save=False)


def state(step, main=True):
    return types.SimpleNamespace(global_step=step, is_world_process_zero=main)


def test_hugging_face(transformers):
    callback = huggingface.make_callback(monitor(), stop_on=("divergence",), forecast_every=0)
    assert isinstance(callback, Base)
    asked = control()
    for s, y in zip(STEPS, losses(6000), strict=True):
        logs = {"loss": float(y), "grad_norm": 1.0, "learning_rate": 1e-3, "epoch": 0.1}
        assert callback.on_log(None, state(int(s)), asked, logs=logs, model=None) is asked
        if asked.should_training_stop:
            break
    assert 6000 <= s <= 6400
    assert asked.should_save


def test_hugging_face_passes_over_other_logs(transformers):
    callback = huggingface.make_callback(monitor(), loss="eval_loss")
    asked = control()
    callback.on_log(None, state(10), asked, logs={"loss": 8.0})
    callback.on_log(None, state(10), asked)
    assert callback.watch.monitor.status.readings == 0
    callback.on_log(None, state(10), asked, logs={"eval_loss": 8.0})
    assert callback.watch.monitor.status.readings == 1


def test_hugging_face_stops_all_processes_and_warns_in_one(transformers, caplog):
    """A process that is not told to stop would wait for the main one for ever."""
    called = []
    for main in (True, False):
        callback = huggingface.make_callback(monitor(), stop_on=("divergence",), on_alarm=called.append)
        asked = control()
        callback.on_log(None, state(100, main), asked, logs={"loss": math.nan})
        callback.on_log(None, state(TOTAL + 1, main), asked, logs={"loss": 3.0})
        assert asked.should_training_stop
    assert len(called) == 1
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "divergence", "reading left out, and others like it without a word"
    ]  # fmt: skip


class Tensor:
    """Stands for a scalar tensor."""

    def __init__(self, value):
        self.value = value

    def detach(self):
        return self.value


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_lightning(monkeypatch, package):
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    fake = types.ModuleType(package)
    fake.Callback = Base
    if "." in package:
        monkeypatch.setitem(sys.modules, "lightning", types.ModuleType("lightning"))
    monkeypatch.setitem(sys.modules, package, fake)
    callback = lightning.make_callback(monitor(), grad_norm="norm", every=50, stop_on=("divergence",))
    trainer = types.SimpleNamespace(global_step=0, should_stop=False, is_global_zero=True, callback_metrics={})
    y = losses(6000)
    for batch in range(2 * TOTAL):  # two batches an optimizer step
        trainer.global_step = (batch + 1) // 2
        k = min(max(trainer.global_step // 50 - 1, 0), len(y) - 1)
        trainer.callback_metrics = {"norm": Tensor(1.0)}
        callback.on_train_batch_end(trainer, None, {"loss": Tensor(float(y[k]))}, None, batch)
        if trainer.should_stop:
            break
    assert 6000 <= trainer.global_step <= 6400
    saved = json.loads(json.dumps(callback.state_dict()))
    again = lightning.make_callback(monitor())
    again.load_state_dict(saved)
    assert again.watch.monitor.status.step == trainer.global_step


@pytest.fixture
def pytorch_lightning(monkeypatch):
    fake = types.ModuleType("pytorch_lightning")
    fake.Callback = Base
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", fake)


def test_lightning_stops_all_ranks(pytorch_lightning):
    said = []
    strategy = types.SimpleNamespace(reduce_boolean_decision=lambda stop, all: said.append((stop, all)) or True)
    for main in (True, False):
        callback = lightning.make_callback(monitor(), stop_on=("divergence",))
        trainer = types.SimpleNamespace(
            global_step=1, should_stop=False, is_global_zero=main, world_size=2, callback_metrics={}, strategy=strategy
        )
        callback.on_train_batch_end(trainer, None, Tensor(math.nan), None, 0)
        assert trainer.should_stop
        assert callback.watch.monitor.status.diverged == main
    assert said == [(True, False), (False, False)]


def test_lightning_resumed_takes_no_batch_for_the_step_before(pytorch_lightning):
    """With accumulation the first batches after a checkpoint still have its step."""
    first = lightning.make_callback(monitor())
    trainer = types.SimpleNamespace(global_step=7, should_stop=False, callback_metrics={}, accumulate_grad_batches=4)
    first.on_train_batch_end(trainer, None, Tensor(2.0), None, 0)
    again = lightning.make_callback(monitor())
    again.load_state_dict(first.state_dict())
    again.on_train_batch_end(trainer, None, Tensor(50.0), None, 1)
    assert (again.watch.monitor.status.readings, again.watch.monitor.status.loss) == (1, 8.0)
    trainer.global_step = 8
    again.on_train_batch_end(trainer, None, Tensor(2.5), None, 4)
    assert (again.watch.monitor.status.readings, again.watch.monitor.status.loss) == (2, 10.0)


def test_lightning_follows_a_named_metric(pytorch_lightning):
    callback = lightning.make_callback(monitor(), loss="val_loss")
    trainer = types.SimpleNamespace(global_step=1, should_stop=False, callback_metrics={})
    callback.on_train_batch_end(trainer, None, Tensor(3.0), None, 0)
    assert callback.watch.monitor.status.readings == 0
    trainer.callback_metrics = {"val_loss": Tensor(9.0)}
    callback.on_train_batch_end(trainer, None, Tensor(3.0), None, 0)
    assert callback.watch.monitor.status.loss == 9.0


def test_live_log_waits_for_whole_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 9.0, "grad_norm": 2.5}\n{"step": 2, "lo')
    log = LiveLog(path)
    assert [tuple(r) for r in log.new()] == [(1.0, 9.0, 2.5)]
    with path.open("a") as stream:
        stream.write('ss": NaN}\n\n{"step": 3, "learning_rate": 1e-3}\n{"global_step": 4, "loss": 8.0}')
    got = list(log.new())
    assert got[0].step == 2
    assert math.isnan(got[0].loss)
    assert [tuple(r) for r in log.new(whole=True)] == [(4.0, 8.0, None)]


def test_live_csv_picks_a_run(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("run_id,step,val_loss\na,1,9\nb,1,8\na,2,\na,3,7\n")
    assert [tuple(r) for r in LiveLog(path, "a").new()] == [(1.0, 9.0, None), (3.0, 7.0, None)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("log.csv", "time,value\n1,2\n", "line 1: a log must have columns step and loss, got time, value"),
        ("log.csv", "step,loss\n1,abc\n", "line 2: loss must be a number, got 'abc'"),
        ("log.jsonl", "step,loss\n", "line 1: a line must be one JSON object"),
        ("log.jsonl", '{"loss": 3.0}\n', "line 1: a line with a loss must have a step"),
        ("log.jsonl", '{"step": 1, "loss": 1' + 400 * "0" + "}\n", "line 1: loss must be a number, got '1000"),
        ("log.csv", "step,loss\n1,3," + 200_000 * "x" + "\n", r"line 2: a line must be CSV.*field larger than"),
        ("log.csv", "run_id,step,loss\na,1,9\nb,1,8\n", r"line 3: a log must be that of one run, got 'a' and 'b'"),
        ("log.jsonl", '[{"step": 1, "loss": 3}]', "line 1: a line must be one JSON object.*write it so, or name a CSV"),
    ],
)
def test_bad_logs_are_named(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(TableError, match=message):
        list(LiveLog(path).new(whole=True))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.jsonl", '{"step": 1, "loss": 9}\n{"step": 1, "val_loss": 12}\n{"step": 2, "loss": 8}\n'),
        ("log.csv", "step,val_loss,loss\n1,12,9\n1,12,\n2,,8\n"),
    ],
)
def test_a_log_has_one_kind_of_loss(tmp_path, name, text):
    """Losses of an evaluation between those of training would look like a rise."""
    path = tmp_path / name
    path.write_text(text)
    assert [(r.step, r.loss) for r in LiveLog(path).new()] == [(1.0, 9.0), (2.0, 8.0)]


def test_a_log_that_was_cut_is_named(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n1,9\n")
    log = LiveLog(path)
    list(log.new())
    path.write_text("step\n")
    with pytest.raises(TableError, match="has become shorter"):
        list(log.new())


def test_a_log_that_is_replaced_goes_on_or_begins_anew(tmp_path):
    """A trainer may write its whole curve again and again; a resumed run may have lost its last readings."""
    path, new = tmp_path / "log.csv", tmp_path / "new.csv"

    def replaced(rows):
        new.write_text("\n".join(["step,loss", *rows]) + "\n")
        new.replace(path)
        return [(r.step, r.loss) for r in log.new()]

    log = LiveLog(path)
    assert replaced(["1,9", "2,8"]) == [(1, 9), (2, 8)]
    assert replaced(["1,9", "2,8", "3,7"]) == [(3, 7)]
    assert replaced(["1,9", "2,8", "3,7"]) == []
    assert replaced(["1,9", "2,6", "3,5", "4,4"]) == [(1, 9), (2, 6), (3, 5), (4, 4)]
    assert replaced(["1,9"]) == [(1, 9)]
