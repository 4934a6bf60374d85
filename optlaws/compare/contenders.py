"""The laws that are compared, ours, rivals and two lines to compare with, behind one way to fit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from optlaws.baselines import get_baseline
from optlaws.baselines.base import FloatArray, Progress, column, fit_kind, not_above_zero
from optlaws.compare.splits import Labels
from optlaws.errors import FitError
from optlaws.law import fit_law
from optlaws.law.baseline import fit_baseline
from optlaws.runs import CurveTable, RunTable

OURS = "optlaws"
SECONDS = 30.0
ALIKE = 1e-9  # squared distance: no nearer run than one as near as this
UNRANKING = {"params", "tokens", "steps"}  # a law that reads no more says the same of all runs of a pool


@dataclass(frozen=True)
class MeanLoss:
    """A line to compare with: every run ends at the mean loss of the training runs."""

    loss: float

    name: ClassVar[str] = "mean of runs"
    needs: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def fit(cls, runs: RunTable, curves: CurveTable | None = None, *, seed: int = 0, starts: int = 0) -> MeanLoss:
        """Take the mean."""
        return cls(float(runs.final_loss.mean()))

    def predict(self, runs: RunTable) -> FloatArray:
        """Return it for every run, shape (n,)."""
        return np.full(len(runs), self.loss)


@dataclass(frozen=True)
class NearestRun:
    """A line to compare with: every run ends where the most similar training run did, the mean of equally similar ones.

    Squared distance: the sum of ln(ratio)^2 of size, tokens (or steps), peak rate and batch, as far as all runs have
    them, and 1 for another kind of schedule.
    """

    runs: RunTable

    name: ClassVar[str] = "nearest run"
    needs: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def fit(cls, runs: RunTable, curves: CurveTable | None = None, *, seed: int = 0, starts: int = 0) -> NearestRun:
        """Keep the runs."""
        return cls(runs)

    def predict(self, runs: RunTable) -> FloatArray:
        """Return the losses, shape (n,)."""
        pairs = [(column(self.runs, name), column(runs, name)) for name in ("params", "peak_lr", "batch_tokens")]
        lengths = [(column(self.runs, name), column(runs, name)) for name in ("tokens", "steps")]
        pairs.append(lengths[0] if _known(*lengths[0]) else lengths[1])
        logs = [(np.log(known), np.log(asked)) for known, asked in pairs if _known(known, asked)]
        kinds, wanted = (np.array([s.kind for s in table.schedule_tuple()]) for table in (self.runs, runs))
        out = np.empty(len(runs))
        for i in range(len(runs)):
            apart = (kinds != wanted[i]) + sum(((known - asked[i]) ** 2 for known, asked in logs), np.zeros(len(kinds)))
            out[i] = self.runs.final_loss[apart <= apart.min() + ALIKE].mean()
        return out


def _known(*values: FloatArray) -> bool:
    return all(bool((np.isfinite(v) & (v > 0)).all()) for v in values)


REFERENCES: dict[str, Any] = {kind.name: kind for kind in (MeanLoss, NearestRun)}


class OutOfTimeError(Exception):
    """A law has had its time."""


class Contender:
    """A law behind one way to fit and predict, with its clock."""

    def __init__(
        self, name: str, limit: float, intervals: bool, progress: Progress | None, basis: str | None = None
    ) -> None:
        """Take a law by name, the seconds that its fits may take together, and whether rivals get intervals.

        With a basis it is our law of that one.
        """
        self.name, self.limit, self.progress, self.basis = name, limit, progress, basis
        ours = name == OURS or basis is not None
        self.kind: Any = None if ours else REFERENCES.get(name) or get_baseline(name)
        self.predicts = self.kind is None or hasattr(self.kind, "predict")
        self.advises = self.kind is not None and hasattr(self.kind, "recommend")
        self.intervals = intervals and self.kind is not None and self.group == "rival" and self.predicts
        self.needs: tuple[str, ...] = () if self.kind is None else self.kind.needs
        self.ranks = self.kind is None or self.group != "rival" or not set(self.needs) <= UNRANKING
        self.place, self.fold, self.folds = "", 0, 0  # for the words of progress
        self.spent = 0.0
        self.warned: list[str] = []

    @property
    def group(self) -> str:
        """What it is."""
        return "ours" if self.name == OURS else "reference" if self.name in REFERENCES else "rival"

    def unfit(self, runs: RunTable) -> str:
        """Return why it cannot be compared on these runs, "" if it can."""
        if not (self.predicts or self.advises):
            return "divides compute between size and data, and predicts no losses"
        for name in self.needs:
            if name in ("schedule", "curves"):
                continue
            values = column(runs, name)
            lack = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
            if len(lack) == len(runs):
                return f"needs {name}, which no run has"
            if len(lack):
                return f"needs {name}, which {len(lack)} of {len(runs)} runs lack (first: {runs.run_id[lack[0]]!r})"
        return ""

    def fit(self, runs: RunTable, curves: CurveTable | None) -> Any:
        """Return the law fitted to runs, and to those curves that are theirs."""
        if curves is not None:
            names = set(runs.run_id)
            curves = curves.select(np.array([name in names for name in curves.run_id], dtype=bool))
            curves = curves if len(curves) else None
        start, before = time.perf_counter(), self.spent

        def tick(word: str) -> None:
            self.spent = before + time.perf_counter() - start
            if self.spent > self.limit:
                raise OutOfTimeError
            if self.progress is not None:
                self.progress(f"{self.name} ({self.place}, fold {self.fold} of {self.folds}), {word}")

        try:
            tick("fit")
            if self.kind is None:
                return fit_law(runs, curves, basis=self.basis, progress=tick)
            if self.intervals:
                return fit_baseline(self.name, runs, curves, progress=tick)
            law = fit_kind(self.kind, runs, curves, progress=tick)
            wrong = not_above_zero(law)
            if wrong:
                raise FitError(f"{wrong}: these runs do not follow the law")
            return law
        finally:
            self.spent = before + time.perf_counter() - start

    def by_size(self, train: RunTable, test: RunTable) -> Iterator[tuple[RunTable, Labels]]:
        """Yield the training runs of a fit, and the places of the held-out runs that it predicts."""
        if not one_size(self.kind):
            yield train, np.arange(len(test))
            return
        here, there = np.nan_to_num(train.size), np.nan_to_num(test.size)  # runs without a size are one group
        for size in np.unique(there):
            yield train.select(here == size), np.flatnonzero(there == size)


def one_size(kind: Any) -> bool:
    """Return whether a rival law reads schedules but no sizes, and so holds for one size each."""
    return kind is not None and "schedule" in kind.needs and "params" not in kind.needs
