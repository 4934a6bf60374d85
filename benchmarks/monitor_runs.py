"""Curves that blow up, for benchmarks/monitor.py: injected, of noisy quadratics, and of tiny networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from optlaws.risk.labels import RISE
from optlaws.schedules import Schedule, parse

Array = np.ndarray
TEXT = Path(__file__).resolve().parents[1] / "LICENSE"  # a text that does not change


class Curve(NamedTuple):
    """A run: schedule, steps, losses, gradient norms."""

    name: str
    schedule: Schedule
    steps: Array
    loss: Array
    grad: Array


def _after(u: Array, value: Array | float) -> Array:
    return np.where(u >= 0, value, 0.0)


BLOW_UPS: dict[str, Callable[[Array], Array]] = {
    "jump to 1.5 x": lambda u: _after(u, np.log(1.5)),
    "jump to 1.2 x": lambda u: _after(u, np.log(1.2)),
    "to 2.3 x within 1 % of the run": lambda u: _after(u, np.log(2.3) * -np.expm1(-np.maximum(u, 0) / 0.01)),
    "overshoot to 4 x, then 2 x": lambda u: _after(u, np.log(2.0) * (1 + np.exp(-np.maximum(u, 0) / 0.01))),
    "slow rise, 2 % per 1 % of the run": lambda u: 2.0 * np.maximum(u, 0),
    "slow rise, 1 % per 1 % of the run": lambda u: np.maximum(u, 0.0),
    "NaN": lambda u: np.where(u >= 0, np.nan, 0.0),
}
LASTING = 0.1
"""Share of a run for which its level must stay above `optlaws.risk.labels.RISE` to count as blown up in hindsight."""

SPIKES: dict[str, Callable[[Array], Array]] = {
    "one reading at 3 x": lambda u: np.where(u == np.where(u >= 0, u, 9.0).min(), np.log(3.0), 0.0),
    "1.5 x, fading within 0.5 % of the run": lambda u: _after(u, np.log(1.5) * np.exp(-np.maximum(u, 0) / 0.005)),
    "2 x, fading within 1 %": lambda u: _after(u, np.log(2.0) * np.exp(-np.maximum(u, 0) / 0.01)),
    "4 x, fading within 1 %": lambda u: _after(u, np.log(4.0) * np.exp(-np.maximum(u, 0) / 0.01)),
    "1.1 x, fading within 2 %": lambda u: _after(u, np.log(1.1) * np.exp(-np.maximum(u, 0) / 0.02)),
}
"""ln factor by the fraction u of the run since the onset; "fading" by a factor e."""


def blown_up(steps: Array, loss: Array, total: float) -> float:
    """Return the step from which a run was blown up in hindsight, NaN if it was not.

    Its level, the median of 1 % of the run, stayed above `RISE` times its lowest value before for `LASTING` of the run
    or to its end, whether it came back later or not; or the loss ceased to be finite.
    """
    broken = np.flatnonzero(~np.isfinite(loss))
    count = max(round(0.01 * total / float(np.median(np.diff(steps)))), 3)
    finite = loss[: broken[0]] if len(broken) else loss
    since = np.nan if not len(broken) else float(steps[broken[0]])
    if len(finite) < 2 * count:
        return since
    level = np.median(np.lib.stride_tricks.sliding_window_view(finite, count), axis=1)
    at = steps[count - 1 : len(finite)]
    above = level > RISE * np.minimum.accumulate(level)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], above, [False]]).astype(int)))
    for first, last in zip(edges[::2], edges[1::2] - 1, strict=True):
        if at[last] - at[first] >= LASTING * total or (len(broken) and last == len(level) - 1):
            return float(at[first])
    return since


def quadratics(seed: int = 0, repeats: int = 5) -> Iterator[Curve]:
    """Yield runs of SGD on a noisy quadratic with 24 modes, below and above the stability threshold 2 / curvature.

    The sharpest curvature is constant or grows to its value over the run (progressive sharpening), so that blow-ups
    begin at any time, or end again where the rate falls. The loss saturates, as a network's does:
    3 + 0.7 ln(1 + q / 0.7).
    """
    total = 3000
    for spec in (f"constant:peak=1e-3,steps={total},warmup=100", f"cosine:peak=1e-3,steps={total},warmup=100"):
        schedule = parse(spec)
        rates = schedule.array() / 1e-3
        for sharpening in (False, True):
            for top in (0.5, 0.9, 1.02, 1.1, 1.3, 2.0):
                for repeat in range(repeats):
                    rng = np.random.default_rng([seed, repeat, int(1000 * top), sharpening])
                    curvature = np.geomspace(0.003, 2.0 * top, 24)
                    x = np.sqrt(2 * 8.0 / curvature / 24) * rng.choice([-1.0, 1.0], 24)
                    loss, grad = np.empty(total), np.empty(total)
                    for k in range(total):
                        now = curvature.copy()
                        if sharpening:
                            now[-1] *= 0.4 + 0.6 * k / total
                        g = now * x + 0.02 * rng.standard_normal(24)
                        q = min(0.5 * float(now @ x**2), 1e12)
                        loss[k] = (3.0 + 0.7 * np.log1p(q / 0.7)) * np.exp(0.02 * rng.standard_normal())
                        grad[k] = np.sqrt(float(g @ g))
                        x = np.clip(x - rates[k] * g, -1e6, 1e6)
                    word = ", sharpening" if sharpening else ""
                    yield Curve(
                        f"{schedule.kind}{word}, {top:g} of the threshold",
                        schedule,
                        np.arange(1, total + 1),
                        loss,
                        grad,
                    )


def networks(seed: int = 0, repeats: int = 3) -> Iterator[Curve]:
    """Yield training runs of a tiny character model (4 characters in, 48 tanh units) on the licence, SGD and Adam.

    Peak rates reach far beyond what trains; nothing is clipped. Losses are those of the batches of 64.
    """
    text = np.frombuffer(TEXT.read_bytes()[:20000], dtype=np.uint8)
    letters, code = np.unique(text, return_inverse=True)
    total, width, depth = 1500, 48, 4
    for adam in (False, True):
        for peak in (0.3, 1.0, 3.0, 6.0, 12.0, 30.0) if not adam else (3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0):
            schedule = parse(f"wsd:peak={peak:g},steps={total},warmup=50,decay=0.2")
            rates = schedule.array()
            for repeat in range(repeats):
                rng = np.random.default_rng([seed, repeat, int(1000 * peak), adam])
                size, v = len(letters), 12
                p = [
                    rng.standard_normal((size, v)),
                    rng.standard_normal((v * depth, width)) / np.sqrt(v * depth),
                    rng.standard_normal((width, size)) / np.sqrt(width),
                ]
                first, second = [np.zeros_like(w) for w in p], [np.zeros_like(w) for w in p]
                loss, grad = np.full(total, np.nan), np.full(total, np.nan)
                for k in range(total):
                    at = rng.integers(0, len(code) - depth, 64)
                    seen, target = code[at[:, None] + np.arange(depth)], code[at + depth]
                    e = p[0][seen].reshape(64, -1)
                    h = np.tanh(e @ p[1])
                    z = h @ p[2]
                    z -= z.max(axis=1, keepdims=True)
                    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
                    loss[k] = max(-log_p[np.arange(64), target].mean(), 1e-3)
                    d = np.exp(log_p)
                    d[np.arange(64), target] -= 1.0
                    d /= 64
                    dh = (d @ p[2].T) * (1 - h**2)
                    de = np.zeros_like(p[0])
                    np.add.at(de, seen.ravel(), (dh @ p[1].T).reshape(-1, v))
                    g = [de, e.T @ dh, h.T @ d]
                    grad[k] = np.sqrt(sum(float((w**2).sum()) for w in g))
                    for j in range(3):
                        step = g[j]
                        if adam:
                            first[j] = 0.9 * first[j] + 0.1 * g[j]
                            second[j] = 0.95 * second[j] + 0.05 * g[j] ** 2
                            step = (first[j] / (1 - 0.9 ** (k + 1))) / (
                                np.sqrt(second[j] / (1 - 0.95 ** (k + 1))) + 1e-8
                            )
                        p[j] = p[j] - rates[k] * step
                    if not np.isfinite(loss[k]):
                        break
                end = k + 1
                name = f"{'Adam' if adam else 'SGD'}, peak {peak:g}"
                yield Curve(name, schedule, np.arange(1, end + 1), loss[:end], grad[:end])
