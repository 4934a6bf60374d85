"""A law that can be checked by hand: it stands in for a fitted one in the tests of ranking, report and commands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class FakePrediction:
    """Expected losses L = loss + F w, w ~ Normal(0, 1): the factors F (n, r) give the joint covariance F F'."""

    loss: Any
    factors: Any
    noise: Any
    in_domain: Any
    reasons: list[str]
    assumed: dict[str, float] = field(default_factory=dict)

    @property
    def sd(self):
        return np.sqrt((self.factors**2).sum(axis=1) + self.noise**2)

    @property
    def lower(self):
        return self.loss - 1.6448536269514722 * self.sd

    @property
    def upper(self):
        return self.loss + 1.6448536269514722 * self.sd

    def covariance(self, i):
        return self.factors[i] @ self.factors[i].T


@dataclass(frozen=True)
class FastPrediction(FakePrediction):
    """The same, with one column of the covariance at hand."""

    def covariance_with(self, j, rows=None):
        return self.factors[slice(None) if rows is None else rows] @ self.factors[j]


@dataclass(frozen=True)
class FixedLaw:
    """Predicts what it is told, whatever the runs."""

    loss: Any
    factors: Any
    noise: float = 0.001
    out: tuple[int, ...] = ()
    fast: bool = True
    name: str = "fixed"

    def predict(self, runs):
        loss = np.asarray(self.loss, dtype=float)
        inside = np.ones(len(loss), dtype=bool)
        inside[list(self.out)] = False
        reasons = ["" if ok else "peak rate 0.1 is above 0.002, the highest in training" for ok in inside]
        kind = FastPrediction if self.fast else FakePrediction
        return kind(loss, np.asarray(self.factors, dtype=float), np.full(len(loss), self.noise), inside, reasons)


@dataclass(frozen=True)
class FakeLaw:
    """Loss from the mean rate, the size and the tokens; good for looking at tables and figures."""

    name: str = "fake"
    basis_id: str = "fake-2"
    domain: dict[str, tuple[float, float]] = field(
        default_factory=lambda: {"peak": (1e-4, 2e-3), "params": (7e6, 1.7e8), "steps": (3000.0, 200000.0)}
    )
    defaults: dict[str, float] = field(
        default_factory=lambda: {"params": 1e8, "tokens": 2.56e9, "batch_tokens": 51200.0, "weight_decay": 0.1}
    )
    info: dict[str, Any] = field(
        default_factory=lambda: {
            "n_runs": 12,
            "digest": "0" * 64,
            "sources": ["made-up"],
            "leave_group_out": {
                "horizon": {
                    "mean_error_pct": 0.12,
                    "spearman": 0.98,
                    "pool_spearman": 0.95,
                    "coverage": 0.91,
                    "width_pct": 0.7,
                },
                "size": {
                    "mean_error_pct": 0.24,
                    "spearman": 0.97,
                    "pool_spearman": None,
                    "coverage": 0.9,
                    "width_pct": 1.1,
                },
            },
            "rebuild": "python benchmarks/build_laws.py fake",
            "versions": {"numpy": "2.0.0"},
            "notes": "made up for the tests",
        }
    )

    def _predict(self, peak, end, params, tokens):
        tail = np.abs(np.log(peak / 1e-3))
        loss = 2.2 + 1.1 * (params / 1e7) ** -0.3 + 0.9 * (tokens / 1e8) ** -0.3 + 0.01 * tail**2 + 0.03 * end
        factors = np.stack([np.full_like(loss, 0.02), 0.004 * tail, 0.003 * end], axis=1)
        inside = (peak >= 1e-4) & (peak <= 2e-3)
        reasons = [
            "" if ok else f"peak rate {p:g} is outside 0.0001 .. 0.002, the range of training"
            for ok, p in zip(inside, peak, strict=True)
        ]
        return FastPrediction(loss, factors, np.full(loss.shape, 0.002), inside, reasons)

    def predict(self, runs):
        batch = runs.batch()
        ends = np.array([s.lr(s.total_steps - 1) / s.peak for s in runs.schedule_tuple()])
        tokens = np.where(np.isnan(runs.tokens), 1e9, runs.tokens)
        return self._predict(np.asarray(batch.peak), ends, np.where(np.isnan(runs.params), 1e8, runs.params), tokens)

    def predict_curve(self, runs, steps):
        steps = np.asarray(steps, dtype=float)
        schedule = runs.schedule_tuple()[0]
        ends = np.array([schedule.lr(int(max(min(k, schedule.total_steps) - 1, 0))) / schedule.peak for k in steps])
        n = len(steps)
        tokens = np.maximum(steps, 1) * runs.batch_tokens[0]
        return self._predict(np.full(n, schedule.peak), ends, np.full(n, runs.params[0]), tokens)

    def save(self, path):
        import json

        from optlaws.runs import atomic_write

        with atomic_write(path) as stream:
            stream.write(json.dumps({"name": self.name}))
