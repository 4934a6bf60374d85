"""A small network whose trained weights are all scale-invariant, with its gradient by hand, in independent replicas.

    y1 = W1 x,  z1 = y1 / rms(y1),  a = tanh(z1),  y2 = W2 a,  z2 = y2 / rms(y2),  out = V z2,  loss = |out - t|^2 / 2

Normalisation makes the loss a function of the directions of W1 and W2 only; V is fixed. Targets t are a fixed linear
map of x with label noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optlaws.schedules import Schedule
from theory.montecarlo.rows import FloatArray

INPUTS, WIDTH, OUTPUTS = 12, 16, 4
WEIGHTS = WIDTH * INPUTS + WIDTH * WIDTH
LABEL_NOISE = 2.0


@dataclass(frozen=True)
class Task:
    """What all replicas share: readout V (OUTPUTS, WIDTH) and target map (OUTPUTS, INPUTS)."""

    readout: FloatArray
    target: FloatArray


def make_task(rng: np.random.Generator) -> Task:
    """Return a random task."""
    return Task(
        rng.standard_normal((OUTPUTS, WIDTH)) / np.sqrt(WIDTH), rng.standard_normal((OUTPUTS, INPUTS)) / np.sqrt(INPUTS)
    )


def sample(task: Task, replicas: int, batch: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return inputs (replicas, batch, INPUTS) and noisy targets (replicas, batch, OUTPUTS)."""
    x = rng.standard_normal((replicas, batch, INPUTS))
    return x, x @ task.target.T + LABEL_NOISE * rng.standard_normal((replicas, batch, OUTPUTS))


def split(w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return W1 (replicas, WIDTH, INPUTS) and W2 (replicas, WIDTH, WIDTH) of the flat weights (replicas, WEIGHTS)."""
    return w[:, : WIDTH * INPUTS].reshape(-1, WIDTH, INPUTS), w[:, WIDTH * INPUTS :].reshape(-1, WIDTH, WIDTH)


def _normalise(y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return y / rms(y) over the last axis, and 1 / rms(y)."""
    inverse = 1.0 / np.sqrt((y * y).mean(axis=-1, keepdims=True))
    return y * inverse, inverse


def _through(d: FloatArray, z: FloatArray, inverse: FloatArray) -> FloatArray:
    """Return the gradient with respect to y of what has gradient d with respect to z = y / rms(y)."""
    return np.asarray((d - z * (d * z).mean(axis=-1, keepdims=True)) * inverse)


def loss_and_gradient(task: Task, w: FloatArray, x: FloatArray, t: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the mean loss of each replica (replicas,) and its gradient (replicas, WEIGHTS)."""
    first, second = split(w)
    z1, inverse1 = _normalise(x @ first.transpose(0, 2, 1))
    a = np.tanh(z1)
    z2, inverse2 = _normalise(a @ second.transpose(0, 2, 1))
    error = z2 @ task.readout.T - t
    loss = 0.5 * (error**2).sum(axis=-1).mean(axis=-1)
    d2 = _through(error @ task.readout / x.shape[1], z2, inverse2)
    d1 = _through((d2 @ second) * (1.0 - a * a), z1, inverse1)
    gradient = np.concatenate(
        [(d1.transpose(0, 2, 1) @ x).reshape(len(w), -1), (d2.transpose(0, 2, 1) @ a).reshape(len(w), -1)], axis=1
    )
    return loss, gradient


@dataclass(frozen=True)
class Trained:
    """Weights at the end (replicas, WEIGHTS) and squared norms (len(at), replicas) after the given numbers of steps."""

    weights: FloatArray
    square: FloatArray


def train(
    task: Task,
    schedule: Schedule,
    weights: FloatArray,
    rng: np.random.Generator,
    *,
    weight_decay: float = 0.0,
    at: Sequence[int] = (),
    batch: int = 4,
    beta1: float = 0.9,
    beta2: float = 0.99,
    plain: bool = False,
    shared: bool = False,
) -> Trained:
    """Train replicas from weights (replicas, WEIGHTS).

    With AdamW; `shared`: with one normaliser a layer, the mean of Adam's; `plain`: with SGD and decoupled decay.
    """
    w, m, v = weights.copy(), np.zeros_like(weights), np.zeros_like(weights)
    square = np.empty((len(at), len(w)))
    for k, rate in enumerate(schedule.array(), start=1):
        g = loss_and_gradient(task, w, *sample(task, len(w), batch, rng))[1]
        if not plain:
            m += (1.0 - beta1) * (g - m)
            v += (1.0 - beta2) * ((_layer_means(g * g) if shared else g * g) - v)
            g = m / (1.0 - beta1**k) / (np.sqrt(v / (1.0 - beta2**k)) + 1e-12)
        w *= 1.0 - rate * weight_decay
        w -= rate * g
        if k in at:
            square[list(at).index(k)] = (w * w).sum(axis=1)
    return Trained(w, square)


def _layer_means(values: FloatArray) -> FloatArray:
    """Return the mean over each layer at every weight of it, (replicas, WEIGHTS)."""
    out = np.empty_like(values)
    for layer in (slice(0, WIDTH * INPUTS), slice(WIDTH * INPUTS, None)):
        out[:, layer] = values[:, layer].mean(axis=1, keepdims=True)
    return out


def of_norm(w: FloatArray, radius: float) -> FloatArray:
    """Return the weights of every replica rescaled to a norm, which changes no output of the network."""
    return np.asarray(w * (radius / np.sqrt((w * w).sum(axis=1, keepdims=True))))
