"""A callback for Hugging Face Trainer; transformers is imported when the callback is made."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from optlaws.errors import InputError
from optlaws.integrations.loop import TrainingMonitor
from optlaws.monitor import Monitor

LOSSES = ("loss", "eval_loss")


def make_callback(monitor: Monitor, *, loss: str = "loss", stop_on: tuple[str, ...] = (), **options: Any) -> Any:
    """Return a `transformers.TrainerCallback` that feeds a monitor.

    Parameters
    ----------
    monitor : Monitor
    loss : str
        Which logged loss to follow: "loss" (training) or "eval_loss".
    stop_on, **options
        As in `TrainingMonitor`; with an alarm of a kind in `stop_on` the trainer is asked to stop and to save.

    Raises
    ------
    InputError
        transformers is not installed, or `loss` is another name.

    Notes
    -----
    Every process follows the losses, which the trainer has gathered, so that all stop together; only the main process
    warns. The trainer logs a loss that is not finite as another one unless it has `logging_nan_inf_filter=False`:
    without it the monitor sees no NaN. The state is not in the trainer's checkpoints: keep
    `callback.watch.state_dict()`.

    Examples
    --------
    ::

        Trainer(..., callbacks=[make_callback(monitor, stop_on=("divergence",))])
    """
    if loss not in LOSSES:
        raise InputError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
    try:
        base = import_module("transformers").TrainerCallback
    except ImportError:
        raise InputError(
            "make_callback needs transformers, which is not installed; install it or use TrainingMonitor"
        ) from None
    watch = TrainingMonitor(monitor, stop_on=stop_on, **options)

    class MonitorCallback(base):  # type: ignore[misc,valid-type]  # known when it is made
        """Feeds logged losses to a monitor."""

        def __init__(self) -> None:
            super().__init__()
            self.watch = watch

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> Any:
            """Take in what the trainer logs: {"loss": ..., "grad_norm": ..., ...} at `state.global_step`."""
            if not logs or loss not in logs:
                return control
            self.watch.quiet = not getattr(state, "is_world_process_zero", True)
            if watch.step(state.global_step, logs[loss], logs.get("grad_norm")):
                control.should_training_stop = True
                control.should_save = True
            return control

    return MonitorCallback()


__all__ = ["make_callback"]
