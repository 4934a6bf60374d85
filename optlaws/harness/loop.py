"""The training loop, for one run or for a stack of runs."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optlaws.errors import InputError
from optlaws.harness.checkpoint import CheckpointError, list_checkpoints, load_checkpoint, save_checkpoint
from optlaws.harness.config import TrainConfig
from optlaws.harness.distributed import World
from optlaws.harness.engine import Engine, SingleEngine, StackEngine
from optlaws.harness.machine import Machine, commit, versions
from optlaws.harness.member import Member
from optlaws.harness.models import Counts, count_parameters
from optlaws.harness.optim import betas_of
from optlaws.harness.record import CurveLog, RunRecord, make_record
from optlaws.harness.sections import SyntheticData
from optlaws.harness.sources import Source, open_source
from optlaws.harness.synthetic import entropy
from optlaws.runs import CurveTable, RunTable

Predict = Callable[[RunTable, CurveTable], float | None]
CUDA_FLUSH = 16  # updates between two looks at the losses on a GPU, each of which waits for it
UNTIMED = 3  # first updates, which compile and warm up
REPORTS = 0.2  # least seconds from one report of progress to the next
PREDICTIONS = 20  # predictions in a run
CURVES = 5.0  # seconds from one writing of the curve so far to the next, and more where writing takes long
WRITING = 0.02  # share of the time that this may take
SHORT = 5.0  # seconds of an evaluation before which nothing needs to be saved where nobody asked for checkpoints


@dataclass(frozen=True)
class Progress:
    """How far a run, or a stack of runs, has come.

    Attributes
    ----------
    step, steps
        Updates done, and updates in all (of the longest run).
    running
        Runs that still go on.
    loss, val_loss
        Smoothed training loss and last validation loss of the best run; NaN where not known.
    tokens_per_second
        Of all runs together.
    mfu
        Share of the device's arithmetic that the models use, None where the device's peak is not known.
    predicted
        Predicted final loss, None where nobody predicts.
    """

    step: int
    steps: int
    running: int
    loss: float
    val_loss: float
    tokens_per_second: float
    mfu: float | None
    predicted: float | None


@dataclass
class Clock:
    """Time spent on updates, without evaluations, checkpoints and the first few updates.

    It counts anew where a run goes on with other devices, so that its speed is theirs; `earlier` is the time before.
    """

    seconds: float = 0.0
    updates: int = 0
    tokens: float = 0.0
    earlier: float = 0.0


class Loop:
    """Trains runs that share everything but schedule, weight decay, seeds and name."""

    def __init__(
        self,
        configs: Sequence[TrainConfig],
        folder: Path | None,
        digest: str,
        *,
        stacked: bool,
        progress: Callable[[Progress], None] | None = None,
        predict: Predict | None = None,
        stop: Callable[[], bool] | None = None,
        done: Callable[[RunRecord], None] | None = None,
        world: World | None = None,
        ready: Callable[[], None] | None = None,
        fresh: bool = False,
        curve: Callable[[CurveTable], None] | None = None,
        branch: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        """Take the runs, the folder of their checkpoints and the digest that ties these to the runs.

        `done` is called for each run as soon as it has ended, unless it was interrupted. `world` are the processes that
        train a single run together. `ready` is called once data, models and optimizers are made, so that nothing is
        wrong with the configuration, and before the first update; `fresh` leaves checkpoints in the folder alone.
        `curve` is handed the curve so far of a single run every few seconds, for who watches it. `branch` returns the
        checkpoint that a single run without one of its own begins from.
        """
        self.world = world or World()
        self.config = configs[0]
        self.machine = Machine.of(self.config)
        self.members = [Member(config) for config in configs]
        self.active = list(range(len(configs)))
        self.folder, self.digest, self.stacked = folder, digest, stacked
        self.progress, self.predict, self.stop = progress, predict, stop or (lambda: False)
        self.done, self.ready, self.fresh = done or (lambda record: None), ready or (lambda: None), fresh
        self.curve, self.curve_at = curve, 0.0
        self.branch = branch
        self.branched_from: str | None = None
        self.steps = max(config.steps for config in configs)
        self.clock = Clock()
        self.step = 0
        self.predicted: float | None = None
        self.predict_at = 0
        self.reported = 0.0
        self.evaluation = math.inf  # seconds that the last evaluation before the end took
        self.first, self.mark = 0, 0.0  # the update that this process began with; when the updates that wait began
        self.pending: list[tuple[int, Tensor, Tensor, list[float], list[float] | None]] = []
        self.source: Source
        self.engine: Engine
        self.counts: Counts

    def run(self) -> list[RunRecord]:
        """Train until every run has ended or somebody says stop; return the records in the order of the runs.

        Raises
        ------
        InputError
            If the device's memory does not suffice, or the data do not fit the configuration.
        """
        with (
            self._memory(),
            interruptible() as interrupted,
            nullcontext(self._saved()) as (saved, where),  # first, as it says in which format the run goes on
            self.machine.set_up(self.config.threads),
        ):
            self._start(saved, where)
            ready = self.ready
            if self.world.size == 1:  # it may hold this loop, and with it all parameters (gradients' buckets are left)
                self.ready = lambda: None
            ready()
            self.first, self.mark = self.step, time.perf_counter()
            self._drop([i for i in self.active if self.members[i].status is None])
            while self.active:
                self._finish_runs()
                if not self.active:
                    break
                if self._told_to_stop(interrupted):
                    self._interrupt()
                    break
                self._checkpoint()
                val = self._validate()
                if not self.active:
                    break
                losses = self.engine.gradients(self.source, self.step)
                norms, rates = self.engine.update(self.step)
                self.pending.append((self.step, losses, norms, rates, val))
                self.step += 1
                if len(self.pending) >= (CUDA_FLUSH if self.machine.device.type == "cuda" else 1):
                    self._flush()
                    self._drop([i for i in self.active if self.members[i].status is None])
        return [self._record(member) for member in self.members]

    @contextmanager
    def _memory(self) -> Iterator[None]:
        """Say in one sentence that the device has too little memory."""
        try:
            yield
        except torch.OutOfMemoryError:
            config, runs = self.config, len(self.active)
            mine = self.world.share(config.batch)[1]
            got = min(config.micro_batch or mine, mine)
            sizes = f"{got} sequences of {config.seq_len} tokens" + (f" in each of {runs} runs" if self.stacked else "")
            way_out = "it, or stack fewer runs" if self.stacked else "it"
            if not self.stacked and self.folder and list_checkpoints(self.folder):
                way_out = f"it and use --out {self.folder.parent}, where the run goes on from its last checkpoint"
            raise InputError(
                f"micro_batch: sequences at once must fit into the memory of {self.machine.name}, got {sizes}; lower "
                + way_out
            ) from None

    def _told_to_stop(self, interrupted: Callable[[], bool]) -> bool:
        """Return whether somebody says stop; processes that work together agree on the update, on CUDA now and then."""
        if self.world.size > 1 and self.machine.device.type == "cuda" and self.step % CUDA_FLUSH:
            return False
        return self.world.any(self.stop() or interrupted(), self.machine.device)

    @property
    def _devices(self) -> str:
        """How many devices train the run, and of what kind."""
        return f"{self.world.size} {self.machine.name}"

    def _saved(self) -> tuple[dict[str, Any] | None, Path | None]:
        """Return the checkpoint that the runs go on from, None without one, and its file, None for a branch.

        They go on in the number format that they began with: `dtype: auto` chooses it once, on whatever device.
        """
        commit()  # found out now, so that what is wrong with it is said before the run
        found = list_checkpoints(self.folder) if self.folder and not self.fresh else []
        if found:
            saved = load_checkpoint(found[-1], self.digest.__eq__ if self.stacked else self.config.goes_on_from)
        elif self.branch:
            saved = self.branch()
        else:
            return None, None
        dtype = saved.get("dtype", self.machine.dtype_name)  # checkpoints of earlier versions do not say
        if dtype != self.machine.dtype_name:
            self.machine = Machine.of(self.config.with_(dtype=dtype))
        return saved, found[-1] if found else None

    def _start(self, saved: dict[str, Any] | None, file: Path | None) -> None:
        """Make source and engine, at a checkpoint if there is one."""
        if saved:
            for member, state in zip(self.members, saved["members"], strict=True):
                member.load(state)
            self.active, self.step = list(saved["active"]), int(saved["step"])
            self.branched_from = saved.get("branched_from")
            seconds, updates, tokens = saved["clock"]
            self.clock = Clock(seconds, updates, tokens, saved.get("earlier", 0.0))
            if saved.get("devices", self._devices) != self._devices:
                self.clock = Clock(earlier=self.clock.earlier + self.clock.seconds)
        self.source = open_source(self.config, [self.members[i].config.order for i in self.active], self.machine.device)
        if saved and saved["data"] != self.source.digest:
            where, way_out = (file, "use --restart") if file else ("branch", "train this run from the start")
            raise InputError(f"{where}: the data have changed since this checkpoint; bring them back or {way_out}")
        self.source.validation(self.config.eval.sequences - 1, 1)  # fails now rather than at the end of the run
        configs = [self.members[i].config for i in self.active]
        self.counts = count_parameters(self.config.model, self.source.vocab, self.config.seq_len)
        if self.stacked:
            self.engine = StackEngine(configs, self.source.vocab, self.machine)
        else:
            self.engine = SingleEngine(configs[0], self.source.vocab, self.machine, self.world)
        if saved:
            self.engine.load(saved["engine"])
            torch.set_rng_state(saved["rng"])

    def _flush(self) -> None:
        """Hand the readings that wait to their runs, and note the time that their updates took."""
        pending, self.pending = self.pending, []
        if not pending:
            return
        losses = torch.stack([entry[1] for entry in pending]).double().tolist()
        norms = torch.stack([entry[2] for entry in pending]).double().tolist()
        now = time.perf_counter()
        if pending[0][0] >= self.first + UNTIMED:
            self.clock.seconds += now - self.mark
            self.clock.updates += len(pending)
            self.clock.tokens += len(pending) * len(self.active) * self.config.batch_tokens
        for (step, _, _, rates, val), loss_row, norm_row in zip(pending, losses, norms, strict=True):
            for place, i in enumerate(self.active):
                val_loss = val[place] if val is not None else math.nan
                self.members[i].read(step, loss_row[place], norm_row[place], rates[place], val_loss)
        self._report(now)
        self.mark = time.perf_counter()

    def _drop(self, going_on: list[int]) -> None:
        """Go on with some of the runs."""
        if len(going_on) == len(self.active):
            return
        places = [self.active.index(i) for i in going_on]
        for i in self.active:
            if i not in going_on:
                self.done(self._record(self.members[i]))
        self.active = going_on
        if going_on:
            self.source.keep(places)
            self.engine.keep(places)

    def _finish_runs(self) -> None:
        """End the runs whose updates are all done."""
        done = [i for i in self.active if self.members[i].config.steps == self.step]
        if not done:
            return
        self._flush()
        self._save_trained(last=len(done) == len(self.active))
        val, loss = self.engine.losses(self.source, None), self.engine.losses(self.source, self.step)
        for place, i in enumerate(self.active):
            if i in done and self.members[i].status is None:
                self.members[i].finish(self.step, loss[place], val[place])
        self._drop([i for i in self.active if self.members[i].status is None])
        self.mark = time.perf_counter()

    def _save_trained(self, last: bool) -> None:
        """Write a checkpoint after the `last` update of all, lest the evaluation that follows costs it.

        Where nobody asked for checkpoints, and evaluations are known to be short, there is none: it would be removed
        at once.
        """
        alone = self.world.size == 1  # several processes, with clocks of their own, must do the same
        if alone and not self.config.checkpoint.every and self.evaluation < SHORT:
            return
        if last and self.step > self.first:
            # Where nobody asked for checkpoints, one that cannot be written is no reason to end a run.
            with suppress(*([] if self.config.checkpoint.every else [CheckpointError, InputError])):
                self._save()

    def _validate(self) -> list[float] | None:
        """Return the validation losses if they are due now."""
        every = self.config.eval.every
        if not every or self.step == 0 or self.step % every:
            return None
        self._flush()
        self._drop([i for i in self.active if self.members[i].status is None])
        began = time.perf_counter()
        found = self.engine.losses(self.source, None) if self.active else None
        self.mark = time.perf_counter()
        self.evaluation = self.mark - began
        return found

    def _checkpoint(self) -> None:
        every = self.config.checkpoint.every
        if self.folder and every and self.step > self.first and self.step % every == 0:
            self._flush()
            self._drop([i for i in self.active if self.members[i].status is None])
            if self.active:
                self._save()
            self.mark = time.perf_counter()

    def _save(self) -> None:
        if self.folder is None:
            return
        engine = self.engine.state()  # asked of all processes, as each may hold a piece of it
        if not self.world.first:
            return
        content = {
            "digest": self.digest,
            "names": [member.config.run_id for member in self.members],
            "data": self.source.digest,
            "members": [member.state() for member in self.members],
            "active": list(self.active),
            "clock": [self.clock.seconds, self.clock.updates, self.clock.tokens],
            "earlier": self.clock.earlier,
            "devices": self._devices,
            "dtype": self.machine.dtype_name,
            "branched_from": self.branched_from,
            "engine": engine,
            "rng": torch.get_rng_state(),
        }
        save_checkpoint(self.folder, self.step, content, self.config.checkpoint.keep)

    def _interrupt(self) -> None:
        """Write a checkpoint and mark the runs that were not done."""
        self._flush()
        self._drop([i for i in self.active if self.members[i].status is None])
        if self.active and self.step:
            self._save()
        for i in self.active:
            self.members[i].status = "interrupted"

    def _hand_curve(self, now: float) -> None:
        """Hand the curve so far to who wants it, not too often."""
        if self.curve is None or now < self.curve_at or self.step >= self.steps:
            return
        if self.curve_at:  # a run of a few seconds is written once, at its end
            self.curve(self.members[0].log.table(self.config.run_id))
        took = time.perf_counter() - now
        self.curve_at = now + max(CURVES, took / WRITING)

    def _report(self, now: float) -> None:
        """Tell how far the runs are, not too often."""
        self._hand_curve(now)
        done = self.step >= self.steps
        if self.predict and not self.stacked and self.step >= self.predict_at:
            self.predict_at = self.step + max(1, self.steps // PREDICTIONS)
            record = self._record(self.members[0])
            self.predicted = self.predict(record.runs, record.curve)
        if self.progress is None or (now - self.reported < REPORTS and not done):
            return
        self.reported = now
        going = [self.members[i] for i in self.active]
        losses = [member.verdict.smoothed for member in going if math.isfinite(member.verdict.smoothed)]
        validated = [member.val_loss for member in going if math.isfinite(member.val_loss)]
        rate = self.clock.tokens / self.clock.seconds if self.clock.seconds else 0.0
        self.progress(
            Progress(
                self.step, self.steps, len(going), min(losses, default=math.nan), min(validated, default=math.nan),
                rate, self._mfu(rate), self.predicted,
            )
        )  # fmt: skip

    def _mfu(self, tokens_per_second: float) -> float | None:
        peak = self.machine.peak_flops
        return tokens_per_second * self.counts.flops / (peak * self.world.size) if peak and tokens_per_second else None

    def planned(self) -> RunTable:
        """Return the run table of a single run that is about to be trained: one row, without an end."""
        counts = float(self.counts.params), float(self.counts.active_params)
        betas = betas_of(self.config.optimizer)
        return make_record(self.config, counts, None, CurveLog(), final_loss=math.nan, betas=betas, facts={}).runs

    def _record(self, member: Member) -> RunRecord:
        config = member.config
        rate = self.clock.tokens / self.clock.seconds if self.clock.seconds else None
        floor = entropy(config.data, config.seq_len).nats if isinstance(config.data, SyntheticData) else None
        facts = {
            "steps_done": member.steps_done,
            "train_loss": member.verdict.smoothed,
            "entropy": floor,
            "vocab": self.source.vocab or None,
            "total_params": self.counts.total,
            "data_digest": self.source.digest,
            "device": self.machine.name,
            "dtype": self.machine.dtype_name,
            "stacked": len(self.members) if self.stacked else None,
            "processes": self.world.size if self.world.size > 1 else None,
            "parallel": self.world.parallel if self.world.size > 1 else None,
            "branched_from": self.branched_from,
            "tokens_per_second": round(rate, 1) if rate else None,
            "mfu": self._mfu(rate or 0.0),
            "seconds": round(self.clock.earlier + self.clock.seconds, 3),
            "commit": commit(),
            "versions": versions(),
        }
        counts = float(self.counts.params), float(self.counts.active_params)
        return make_record(
            config,
            counts,
            member.status or "interrupted",
            member.log,
            final_loss=member.final_loss,
            betas=betas_of(config.optimizer),
            facts=facts,
        )


def saved_names(folder: Path, digest: str) -> list[str] | None:
    """Return the names of the runs in the newest checkpoint, None if there is no checkpoint.

    Raises
    ------
    InputError
        It is damaged, or of runs with another digest.
    """
    found = list_checkpoints(folder)
    return list(load_checkpoint(found[-1], digest.__eq__)["names"]) if found else None


_asking: list[list[int]] = []  # what each `interruptible` at work has seen, the outermost first


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM and the first SIGINT into a question that the loop asks; a second SIGINT interrupts at once.

    One inside another, such as a run's in a sweep's, tells that one, too, as the run may be over without having asked,
    and knows what that one was told before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    seen = list(_asking[-1]) if _asking else []

    def note(number: int, frame: Any) -> None:
        for told in _asking:
            told.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    _asking.append(seen)
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asking.pop()
        if seen and _asking:
            signal.signal(signal.SIGINT, signal.default_int_handler)
