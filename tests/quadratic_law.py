"""A law whose best schedule, peak rate and batch are known: quadratic in ln peak, mean rate and ln batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fake_law import FastPrediction

from optlaws.law.domain import mean_and_end_rate

PEAK, MEAN, BATCH = 1.1e-3, 0.62, 400e3


@dataclass(frozen=True)
class Wall:
    """A risk that jumps where the peak rate passes a limit."""

    limit: float
    low: float = 0.01
    high: float = 0.6

    def probability(self, runs, defaults=None):
        return np.where(np.asarray(runs.batch().peak) > self.limit, self.high, self.low)


@dataclass(frozen=True)
class QuadraticLaw:
    """L = 2 exp(a ln(peak / p)^2 + m (mean rate - MEAN)^2 + b ln(B / BATCH)^2); p = PEAK (B / BATCH)^scaling.

    The standard deviation of ln L grows by `doubt` a unit of ln(peak / 1e-4), beside a part that all runs share.
    """

    a: float = 0.02
    m: float = 0.5
    b: float = 0.0
    scaling: float = 0.0
    doubt: float = 0.0
    shared: float = 0.01
    risk: Any = None
    name: str = "quadratic"
    domain: dict[str, tuple[float, float]] = field(
        default_factory=lambda: {"peak_lr": (1e-4, 1e-2), "warmup_steps": (100.0, 100.0), "mean_rate": (0.4, 1.0)}
    )
    defaults: dict[str, float] = field(default_factory=lambda: {"batch_tokens": BATCH})

    def predict(self, runs):
        batch = runs.batch()
        peak, area = np.asarray(batch.peak), mean_and_end_rate(batch)[0]
        size = np.log(runs.batch_tokens / BATCH)
        best = PEAK * np.exp(self.scaling * size)
        loss = 2.0 * np.exp(self.a * np.log(peak / best) ** 2 + self.m * (area - MEAN) ** 2 + self.b * size**2)
        factors = np.stack([np.full(len(loss), self.shared), self.doubt * np.log(peak / 1e-4)], axis=1) * loss[:, None]
        values = {"peak_lr": peak, "mean_rate": area, "warmup_steps": np.asarray(batch.warmup_steps)}
        values |= {"batch_tokens": runs.batch_tokens, "params": runs.params, "tokens": runs.tokens}
        reasons = []
        for i in range(len(loss)):
            out = []
            for name, (low, high) in self.domain.items():
                value = float(values[name][i])
                if not low / 1.0001 <= value <= high * 1.0001:
                    out.append(f"{name} {value:.4g} outside {low:g} .. {high:g} in training")
            reasons.append("; ".join(out))
        inside = np.array([not text for text in reasons])
        return FastPrediction(loss, factors, np.full(len(loss), 0.001), inside, reasons)
