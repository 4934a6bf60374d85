"""A callback for Lightning; lightning is imported when the callback is made."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from optlaws.errors import InputError
from optlaws.integrations.loop import TrainingMonitor
from optlaws.monitor import Monitor

PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def make_callback(
    monitor: Monitor,
    *,
    loss: str | None = None,
    grad_norm: str | None = None,
    every: int = 1,
    stop_on: tuple[str, ...] = (),
    **options: Any,
) -> Any:
    """Return a `lightning.pytorch.Callback` that feeds a monitor and keeps its state in checkpoints.

    Parameters
    ----------
    monitor : Monitor
    loss : str, optional
        Name of a logged metric; default: what `training_step` returns.
    grad_norm : str, optional
        Name of the logged metric that holds the gradient norm.
    every : int
        Optimizer steps between readings.
    stop_on, **options
        As in `TrainingMonitor`; with an alarm of a kind in `stop_on` the trainer is asked to stop, in all processes.

    Raises
    ------
    InputError
        Neither lightning nor pytorch_lightning is installed, or `every` is below 1.
    """
    if every < 1:
        raise InputError(f"every must be at least 1 step, got {every!r}")
    base = _base()
    watch = TrainingMonitor(monitor, stop_on=stop_on, **options)

    class MonitorCallback(base):  # type: ignore[misc,valid-type]  # known when it is made
        """Feeds training losses to a monitor; rank 0 only, whose word to stop goes to the others."""

        def __init__(self) -> None:
            super().__init__()
            self.watch = watch
            self.last = -1

        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *args: Any
        ) -> None:
            """Take in one loss an optimizer step: that of the last of its accumulated batches."""
            step = int(trainer.global_step)
            if step in (0, self.last) or step % every:
                return
            metrics = trainer.callback_metrics
            if loss is not None:
                value = metrics.get(loss)
            else:
                value = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
            if value is None:
                return
            self.last = step
            if loss is None:  # Lightning has divided what training_step returned by the batches of a step
                value = _number(value) * getattr(trainer, "accumulate_grad_batches", 1)
            norm = None if grad_norm is None else metrics.get(grad_norm)
            stop = getattr(trainer, "is_global_zero", True) and watch.step(
                step, _number(value), None if norm is None else _number(norm)
            )
            if stop_on and getattr(trainer, "world_size", 1) > 1:  # or the others would wait for a rank that has left
                stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
            if stop:
                trainer.should_stop = True

        def state_dict(self) -> dict[str, Any]:
            """Return what the checkpoint keeps."""
            return watch.state_dict()

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            """Go on from a checkpoint."""
            watch.load_state_dict(state_dict)
            self.last = int(watch.monitor.status.step)  # the next accumulated batches belong to a later step

    return MonitorCallback()


def _number(value: Any) -> float:
    """Return a tensor's or a number's value."""
    return float(value.detach()) if hasattr(value, "detach") else float(value)


def _base() -> Any:
    """Return Lightning's Callback class, of either package."""
    for name in PACKAGES:
        try:
            return import_module(name).Callback
        except ImportError:
            continue
    raise InputError("make_callback needs lightning, which is not installed; install it or use TrainingMonitor")


__all__ = ["make_callback"]
