"""The callbacks in real trainings of a tiny network on a CPU; skipped where a framework is absent."""

from __future__ import annotations

import math
import warnings

import pytest

from optlaws import load_law, parse
from optlaws.integrations import huggingface, lightning
from optlaws.monitor import Monitor

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
pytestmark = pytest.mark.filterwarnings("ignore")  # what frameworks warn of is theirs

TOTAL = 60
BLOW_UP = 30
WIDTH = 4


def monitor():
    schedule = parse(f"constant:peak=1e-3,steps={TOTAL},warmup=2")
    return Monitor(load_law("llama-slimpajama"), schedule, params=85e6, batch_tokens=51_200)


def loss_of(output, step, blows_up):
    """A loss whose level is known and whose gradient is that of the network: falls slowly, or jumps up for good."""
    level = 4.0 - 0.5 * step / TOTAL
    return output.square().mean() * 0.0 + level * (3.0 if blows_up and step >= BLOW_UP else 1.0)


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 1000

    def __getitem__(self, i):
        return {"x": torch.full((WIDTH,), float(i % 7)), "labels": torch.tensor(i % 2)}


class Network(torch.nn.Module):
    """Counts its optimizer steps by its forward passes."""

    def __init__(self, blows_up, passes=1):
        super().__init__()
        self.layer, self.blows_up, self.passes, self.seen = torch.nn.Linear(WIDTH, 1), blows_up, passes, 0

    def forward(self, x, labels=None, **ignored):
        step, self.seen = self.seen // self.passes, self.seen + int(self.training)
        return {"loss": loss_of(self.layer(x), step, self.blows_up), "logits": self.layer(x)}


class TestHuggingFace:
    @pytest.fixture(autouse=True)
    def _framework(self):
        pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")
        pytest.importorskip("accelerate", reason="accelerate is not installed: pip install accelerate")

    def train(self, folder, callback, network, **options):
        from transformers import Trainer, TrainingArguments

        given = {
            "max_steps": TOTAL, "logging_steps": 1, "per_device_train_batch_size": 2, "report_to": [],
            "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", **options,
        }  # fmt: skip
        args = TrainingArguments(output_dir=str(folder), **given)
        trainer = Trainer(model=network, args=args, train_dataset=Rows(), eval_dataset=Rows(), callbacks=[callback])
        trainer.train()
        return trainer

    def test_a_run_that_goes_well(self, tmp_path):
        callback = huggingface.make_callback(monitor(), stop_on=("divergence",))
        trainer = self.train(tmp_path, callback, Network(False))
        status = callback.watch.monitor.status
        assert trainer.state.global_step == TOTAL
        assert (status.step, status.readings, status.diverged) == (TOTAL, TOTAL, False)
        assert status.loss == pytest.approx(4.0 - 0.5 * (TOTAL - 1) / TOTAL, rel=1e-3)
        assert status.forecast.lower < status.forecast.loss < status.forecast.upper

    def test_a_blow_up_stops_and_saves(self, tmp_path):
        callback = huggingface.make_callback(monitor(), stop_on=("divergence",))
        trainer = self.train(tmp_path, callback, Network(True))
        assert callback.watch.monitor.status.diverged
        assert BLOW_UP < trainer.state.global_step <= BLOW_UP + 6
        assert (tmp_path / f"checkpoint-{trainer.state.global_step}").is_dir()

    def test_accumulated_batches_are_one_step(self, tmp_path):
        callback = huggingface.make_callback(monitor())
        self.train(tmp_path, callback, Network(False, passes=2), gradient_accumulation_steps=2)
        assert callback.watch.monitor.status.readings == TOTAL

    def test_losses_of_evaluations(self, tmp_path):
        callback = huggingface.make_callback(monitor(), loss="eval_loss")
        options = {"eval_strategy": "steps", "eval_steps": 20, "per_device_eval_batch_size": 500}
        self.train(tmp_path, callback, Network(False), **options)
        assert callback.watch.monitor.status.readings == TOTAL // 20

    def test_a_run_that_is_resumed(self, tmp_path):
        callback = huggingface.make_callback(monitor())
        options = {"save_strategy": "steps", "save_steps": 20}
        self.train(tmp_path, callback, Network(False), **options)
        again = huggingface.make_callback(monitor())
        again.watch.load_state_dict(callback.watch.state_dict())
        from transformers import Trainer, TrainingArguments

        args = TrainingArguments(
            output_dir=str(tmp_path), max_steps=TOTAL, logging_steps=1, per_device_train_batch_size=2, report_to=[],
            disable_tqdm=True, use_cpu=True, save_strategy="no",
        )  # fmt: skip
        trainer = Trainer(model=Network(False), args=args, train_dataset=Rows(), callbacks=[again])
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-40"))
        assert again.watch.monitor.status.step == TOTAL
        assert again.watch.monitor.status.readings == TOTAL


class TestLightning:
    @pytest.fixture(autouse=True, params=["lightning.pytorch", "pytorch_lightning"])
    def framework(self, request, monkeypatch):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = pytest.importorskip(
                request.param, reason=f"{request.param} is not installed: pip install lightning"
            )
        if request.param == "pytorch_lightning":  # the callback takes the first package that is there
            monkeypatch.setattr("optlaws.integrations.lightning.PACKAGES", ("pytorch_lightning",))
        return found

    def train(self, framework, folder, callback, blows_up=False, value=True, passes=1, from_file=None, steps=TOTAL):
        class Module(framework.LightningModule):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(WIDTH, 1)

            def training_step(self, batch, index):
                loss = loss_of(self.layer(batch["x"]), self.trainer.global_step, blows_up)
                self.log("train_loss", loss)
                self.log("norm", torch.tensor(1.0))
                return loss if value else {"loss": loss, "other": 1}

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.1)

        trainer = framework.Trainer(
            max_steps=steps, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False, callbacks=[callback], default_root_dir=str(folder),
            accumulate_grad_batches=passes,
        )  # fmt: skip
        loader = torch.utils.data.DataLoader(Rows(), batch_size=2)
        trainer.fit(Module(), loader, **({} if from_file is None else {"ckpt_path": str(from_file)}))
        return trainer

    @pytest.mark.parametrize("value", [True, False])
    def test_a_run_that_goes_well(self, framework, tmp_path, value):
        callback = lightning.make_callback(monitor(), stop_on=("divergence",), grad_norm="norm")
        trainer = self.train(framework, tmp_path, callback, value=value)
        status = callback.watch.monitor.status
        assert trainer.global_step == TOTAL
        assert (status.step, status.readings, status.diverged) == (TOTAL, TOTAL, False)
        assert status.loss == pytest.approx(4.0 - 0.5 * (TOTAL - 1) / TOTAL, rel=1e-3)
        assert not math.isnan(callback.watch.monitor._blocks.current()[2])

    def test_a_blow_up_stops(self, framework, tmp_path):
        callback = lightning.make_callback(monitor(), loss="train_loss", stop_on=("divergence",))
        trainer = self.train(framework, tmp_path, callback, blows_up=True)
        assert callback.watch.monitor.status.diverged
        assert BLOW_UP < trainer.global_step <= BLOW_UP + 6

    def test_accumulated_batches_are_one_step(self, framework, tmp_path):
        callback = lightning.make_callback(monitor(), every=2)
        self.train(framework, tmp_path, callback, passes=2)
        assert callback.watch.monitor.status.readings == TOTAL // 2
        assert callback.watch.monitor.status.loss == pytest.approx(4.0 - 0.5 * (TOTAL - 1) / TOTAL, rel=1e-3)

    def test_a_run_that_is_resumed(self, framework, tmp_path):
        first = lightning.make_callback(monitor())
        trainer = self.train(framework, tmp_path, first, steps=40)
        trainer.save_checkpoint(str(tmp_path / "run.ckpt"))
        again = lightning.make_callback(monitor())
        self.train(framework, tmp_path, again, from_file=tmp_path / "run.ckpt")
        assert again.watch.monitor.status.step == TOTAL
        assert again.watch.monitor.status.readings == TOTAL
