"""The square-root rule for Adam (Malladi et al., arXiv 2205.10287): when the batch grows k-fold, the rate grows by
sqrt(k), 1 - beta1 and 1 - beta2 by k, epsilon shrinks by sqrt(k).

Adam is simulated on a quadratic whose gradients are mostly noise, with batches of 1, 4 and 16. Under the square-root
rule the loss after equal numbers of samples stays that of the base batch; under the linear rule, or with the rate
unchanged, it does not. The published statement is one of trajectories; the tolerance of 5 % is ours.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paper_repro.core import Row, expected, new_axes

Floats = NDArray[np.float64]
MODES, COPIES, STEPS, MARKS = 64, 64, 4096, 32
RATE, BETA1, BETA2, EPSILON, NOISE = 5e-3, 0.9968, 0.9984, 1e-8, 12.0
POWERS = {"square-root rule": 0.5, "linear rule": 1.0, "unchanged rate": 0.0}


def losses(batch: int, power: float, seed: int, copies: int = COPIES) -> Floats:
    """Return the mean loss at `MARKS` equally spaced numbers of samples, the rate scaled by batch^power."""
    rng = np.random.default_rng(seed)
    curvature = np.geomspace(0.1, 1.0, MODES)
    w = np.ones((copies, MODES))
    m, v = np.zeros_like(w), np.zeros_like(w)
    rate, first, second = RATE * batch**power, 1 - batch * (1 - BETA1), 1 - batch * (1 - BETA2)
    epsilon, sd = EPSILON / batch**0.5, NOISE / batch**0.5
    out, steps = [], STEPS // batch
    for step in range(1, steps + 1):
        g = curvature * w + sd * rng.standard_normal(w.shape)
        m = first * m + (1 - first) * g
        v = second * v + (1 - second) * g * g
        w = w - rate * (m / (1 - first**step)) / (np.sqrt(v / (1 - second**step)) + epsilon)
        if step % (steps // MARKS) == 0:
            out.append(0.5 * float((curvature * w * w).sum(axis=1).mean()))
    return np.array(out)


def reproduce(data: Path, quick: bool, figures: Path | None) -> list[Row]:
    """Return the rows; quick or not, it takes two seconds."""
    base = losses(1, 0.5, 0)
    curves = {(name, k): losses(k, power, k) for name, power in POWERS.items() for k in (4, 16)}
    off = {key: float(np.abs(curve / base - 1).max()) for key, curve in curves.items()}
    book, rows = expected("sqrt_batch"), []
    for k in (4, 16):
        cell = f"largest departure of the loss, batch x {k}"
        rows.append(
            book.row("square-root rule", cell, off["square-root rule", k], f"at {MARKS} marks, {COPIES} copies")
        )
    for name, k in (("linear rule", 4), ("linear rule", 16), ("unchanged rate", 16)):
        more = off[name, k] >= 3 * off["square-root rule", k]
        rows.append(book.row(name, f"departs more, batch x {k}", float(more), f"largest departure {off[name, k]:.3g}"))
    if figures:
        figure, axes = new_axes()
        at = np.arange(1, MARKS + 1) * (STEPS // MARKS)
        axes.plot(at, base, "k", label="batch 1")
        for (name, k), curve in curves.items():
            axes.plot(at, curve, "--" if k == 4 else ":", label=f"{name}, batch {k}")
        axes.set(xlabel="samples", ylabel="loss", yscale="log", title="Adam on a noisy quadratic")
        axes.legend(fontsize=6)
        figure.savefig(figures / "sqrt_batch.png", dpi=120)
    return rows
