"""The quantities whose ranges among a law's runs are its domain."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from optlaws.dynamics.model import FloatArray
from optlaws.dynamics.solve import effective_decay, plain_sgd
from optlaws.runs import RunTable, format_quantity
from optlaws.schedules import ScheduleBatch
from optlaws.schedules.cells import cells

SLACK = 1.05  # the domain reaches this factor beyond the training range
SLACKS = {"warmup_steps": 3.0}  # a warm-up matters by its order of magnitude
FARTHEST = 20.0  # factors of e that count
EARLY = 0.02  # share of a run before which, as before the end of its warm-up, a law says nothing of its curve
UNITS = {
    "params": "parameters",
    "tokens": "tokens",
    "batch_tokens": "tokens per step",
    "peak_lr": "",
    "mean_rate": "of the peak rate",
    "steps": "steps",
    "warmup_steps": "steps",
    "restarts": "times that the rate rises after a fall",
    "weight_decay": "",
    "plain_sgd": "1 for plain SGD, 0 for adaptive optimizers",
}


FAR = {
    "warmup_steps": (3.0, 1.0, 0.002),
    "weight_decay": (1.05, 0.01, 0.005),
    "steps": (16.0, 0.0, 0.003),
    "params": (16.0, 0.0, 0.003),
    "batch_tokens": (16.0, 0.0, 0.003),
    "peak_lr": (16.0, 0.0, 0.003),
}
"""Quantity: factor beyond the domain up to which the law's own uncertainty is trusted, a number that is added to both
values first, and relative sd for every factor of e further out. Judgement, not fitted: with whole groups left out the
public runs do not reach there; only laws of a few of Marin's runs, and laws of another source, do.
"""


def curve_from(runs: RunTable) -> FloatArray:
    """Return the step from which a law speaks of the curves of n runs, (n,): their warm-up and 2 % of them are over.

    Its columns grow without bound towards step 0, where a real loss is that of an untrained network.
    """
    total = np.asarray(runs.steps, dtype=float)
    warm = np.asarray(runs.batch().warmup_steps, dtype=float)
    return np.asarray(np.minimum(np.maximum(np.maximum(warm, EARLY * total), 1.0), total))


def far_out(values: Mapping[str, FloatArray], domain: Mapping[str, tuple[float, float]]) -> FloatArray | None:
    """Return rows (n, q) whose products are the covariances of ln loss that n runs have for being far out of a domain.

    What the law does not know of a quantity beyond its runs is a slope, the same for all candidates on that side: those
    equally far out share it. None where no run is far out. `values` are those of `domain_values`.
    """
    columns = []
    for name, (free, shift, sd) in FAR.items():
        if name not in values or name not in domain:
            continue
        low, high = domain[name]
        with np.errstate(divide="ignore"):
            v = np.log(values[name] + shift)
        for beyond in (np.log(low + shift) - v if low + shift > 0 else None, v - np.log(max(high + shift, 1e-300))):
            if beyond is not None and (beyond > np.log(free)).any():
                columns.append(sd * np.clip(beyond - np.log(free), 0.0, FARTHEST))
    return np.stack(columns, axis=1) if columns else None


def in_domain_text(name: str, value: float) -> str:
    """Return a value of the domain for people: counts like 85M, others as they are."""
    counted = UNITS.get(name) in ("parameters", "tokens", "tokens per step", "steps")
    return format_quantity(value) if counted and value >= 1000 else f"{value:.4g}"


def mean_rate(batch: ScheduleBatch) -> FloatArray:
    """Return the mean rate of each schedule over its peak, 0 .. 1, shape (n,): 1 if constant, 1/2 for a cosine."""
    area = np.empty(len(batch))
    for index, grid in cells(batch):
        area[index] = (grid.mean * grid.width).sum(axis=1)
    peak = np.asarray(batch.peak)
    return np.asarray(np.divide(area, peak * batch.total_steps, out=np.zeros(len(batch)), where=peak > 0))


def domain_values(runs: RunTable, use_params: bool, use_batch: bool) -> dict[str, FloatArray]:
    """Return the quantities whose range is a law's domain, by name, shape (n,)."""
    batch = runs.batch()
    out = {
        "peak_lr": np.asarray(batch.peak, dtype=float),
        "steps": np.asarray(batch.total_steps, dtype=float),
        "warmup_steps": np.asarray(batch.warmup_steps, dtype=float),
        "restarts": np.asarray(batch.restarts, dtype=float),
        "mean_rate": mean_rate(batch),
    }
    if use_params:
        out["params"] = runs.size
    if use_batch:
        out["batch_tokens"] = runs.batch_tokens
        out["tokens"] = np.where(np.isfinite(runs.tokens), runs.tokens, runs.batch_tokens * out["steps"])
    out["weight_decay"] = effective_decay(runs)
    out["plain_sgd"] = plain_sgd(runs)
    return out
