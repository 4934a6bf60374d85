"""Synthetic run tables whose losses follow a given law."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from optlaws.baselines.base import Parametric
from optlaws.runs import CurveTable, RunTable
from optlaws.schedules import parse


def table(n, d, *, batch=None, peak=None, loss=None, extra=None, **more):
    """Return runs of N parameters and D tokens (m,), with constant schedules of whole steps."""
    n, d = np.broadcast_arrays(np.asarray(n, dtype=float), np.asarray(d, dtype=float))
    m = len(n)
    batch = np.broadcast_to(np.asarray(5e5 if batch is None else batch, dtype=float), (m,))
    peak = np.broadcast_to(np.asarray(1e-3 if peak is None else peak, dtype=float), (m,))
    steps = np.maximum(np.round(d / batch), 1)
    made = [parse(f"constant:peak={float(p)!r},steps={int(s)},warmup=0") for p, s in zip(peak, steps, strict=True)]
    return RunTable.build(made, params=n, batch_tokens=d / steps, tokens=d, final_loss=loss, extra=extra, **more)


def grid(sizes=(5e7, 1e8, 2e8, 4e8, 8e8), horizons=(1e9, 3e9, 1e10, 3e10, 1e11)):
    """Return N and D of all pairs, each (m,)."""
    n, d = np.meshgrid(sizes, horizons, indexing="ij")
    return n.ravel(), d.ravel()


def with_law(law, runs, noise=0.0, seed=0):
    """Return the runs with the law's losses, times exp(noise)."""
    from dataclasses import replace

    rng = np.random.default_rng(seed)
    return replace(runs, final_loss=law.predict(runs) * np.exp(noise * rng.standard_normal(len(runs))))


@dataclass(frozen=True)
class KnownLaw(Parametric):
    """A law that every fit gets right: what is left over are the errors that were put into the losses."""

    E: float

    name: ClassVar[str] = "known"
    source: ClassVar[str] = "tests"
    formula: ClassVar[str] = "E + 400 N^-0.34 + 400 D^-0.28"
    needs: ClassVar[tuple[str, ...]] = ("params", "tokens")

    @classmethod
    def fit(cls, runs, curves=None, *, seed=0, starts=0):
        """Return the one law there is."""
        return cls(1.7)

    def predict(self, runs):
        """Return final losses, shape (n,)."""
        return self.E + 400 * runs.size**-0.34 + 400 * runs.tokens**-0.28


def of_schedules(specs, **columns):
    """Return runs of schedules given as texts, 100M parameters each unless said otherwise."""
    return RunTable.build([parse(spec) for spec in specs], **{"params": 1e8, **columns})


def curves_of(law, runs, every=40):
    """Return the curves that a law predicts for runs, a reading every so many steps from step 240 on."""
    parts = []
    for i, schedule in enumerate(runs.schedules):
        steps = np.arange(240.0, schedule.total_steps + 1, every)
        loss = law.predict_curve(runs.select([i]), steps)
        parts.append(CurveTable((runs.run_id[i],) * len(steps), steps, loss))
    return CurveTable.concat(parts)
