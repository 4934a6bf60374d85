"""All states of the continuous equations together, by spectral quadrature on panels that end at the kinks.

Within a panel every integral up to a node is exact for polynomials of degree `NODES - 1`; panels shrink geometrically
towards both ends of every phase and towards the kink of the critical batch, so that boundary layers of stiff modes and
powers of a vanishing rate are resolved. Accuracy is about 1e-12.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.polynomial import legendre

from optlaws.dynamics import Dynamics, solve
from optlaws.dynamics.model import FloatArray
from optlaws.schedules import Schedule

NODES, HALVINGS = 24, 34


def _cumulative() -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return nodes on [0, 1], weights, and the matrix of integrals from 0 to each node."""
    x, w = legendre.leggauss(NODES)
    fit = np.linalg.inv(legendre.legvander(x, NODES - 1))
    upto = np.stack([legendre.legval(x, legendre.legint(row, lbnd=-1)) for row in np.eye(NODES)], axis=1)
    return (x + 1) / 2, w / 2, upto @ fit / 2


def _rate(shape: str, u: FloatArray, start: float, stop: float) -> FloatArray:
    """Return the rate at fractions u of a formula, held before its beginning."""
    u = np.maximum(u, 0.0)
    if shape == "constant":
        return start + 0.0 * u
    if shape == "linear":
        return start + (stop - start) * u
    if shape == "cosine":
        return start + (stop - start) * np.sin(np.pi * u / 2) ** 2
    if shape == "exponential":
        return np.asarray(start * np.exp(u * np.log(stop / start)))
    raise ValueError(f"shape must be constant, linear, cosine or exponential, got {shape!r}; the oracle knows no other")


def _panels(begin: float, end: float, kinks: list[float]) -> FloatArray:
    """Return panel edges of a stretch, cut at the kinks and geometric towards every cut."""
    cuts = [begin, *sorted(k for k in kinks if begin < k < end), end]
    edges = []
    for a, b in pairwise(cuts):
        near = 0.5 ** np.arange(HALVINGS, 0, -1)
        edges.append(a + (b - a) * np.concatenate([[0.0], near, 1.0 - near[::-1][1:]]))
    return np.concatenate([*edges, [end]])


def solution(
    schedule: Schedule, n: float, b: float, weight_decay: float, plain: bool, dynamics: Dynamics
) -> dict[str, float]:
    """Return the states at the end of a schedule of constant, linear, cosine and exponential phases.

    Parameters as in `theory.oracle.cells.solution`. A first pass finds where the felt rate is highest: the pace of the
    variances has a kink there.
    """
    _, highest = _pass(schedule, n, b, weight_decay, plain, dynamics, None)
    return _pass(schedule, n, b, weight_decay, plain, dynamics, highest)[0]


def _pass(
    schedule: Schedule, n: float, b: float, weight_decay: float, plain: bool, dynamics: Dynamics, kink: float | None
) -> tuple[dict[str, float], float]:
    """Return the states with panels that end at `kink` (steps) too, and the step at which the felt rate is highest."""
    c, highest = dynamics, 0.0
    bends = [] if kink is None else [kink]
    x, weights, upto = _cumulative()
    scale = n**c.size_exponent / c.lr_ref
    q = 1.0 if plain else c.temperature_exponent
    square, tau, covariance, peak, top = 1.0, 0.0, 0.0, 0.0, 0.0
    pace_of = 2.0 * c.curvatures
    v = np.zeros(len(pace_of))
    first = solve.FIRST_TOKENS * c.steps_ref / b
    for phase in schedule.phases:
        edges = _panels(phase.begin, phase.end, [phase.begin + 0.5, first, *bends])
        peak = max(peak, phase.start)
        for a, width in zip(edges[:-1], np.diff(edges), strict=True):
            if width <= 0:
                continue
            at = a + width * x
            eta = _rate(phase.shape, (at - 0.5 - phase.begin) / phase.span, phase.start, phase.stop)
            crowd = b / (c.critical_batch * np.maximum(at * b / c.steps_ref, solve.FIRST_TOKENS) ** c.critical_growth)
            g, h = (np.ones(NODES), np.full(NODES, 1 / b)) if plain else (
                np.sqrt(b / (1 + crowd)), 1 / np.sqrt(b * (1 + crowd))
            )  # fmt: skip
            decay = 2 * weight_decay * width * (upto @ eta)
            fed = c.kappa * scale**2 * eta**2 * np.exp(decay) * width
            radius = np.sqrt(np.exp(-decay) * (square + upto @ fed))
            total = 2 * weight_decay * width * (weights @ eta)
            square = float(np.exp(-total) * (square + weights @ fed))
            felt = eta * scale / radius
            move = felt * g * width
            elapsed, inside = float(weights @ move), upto @ move
            source = weights * move * felt**q * h
            left = elapsed - inside
            tops = np.maximum(np.maximum.accumulate(felt), top)
            slow = (felt / np.maximum(tops, 1e-300)) ** (c.relaxation - 1.0)
            if tops[-1] > top:
                top, highest = float(tops[-1]), float(at[int(felt.argmax())])
            relaxed = move * slow
            behind = float(weights @ relaxed) - upto @ relaxed
            v = v * np.exp(-pace_of * float(weights @ relaxed))
            v += pace_of * (np.exp(-np.outer(pace_of, behind)) @ (source * slow))
            growth = 2 * c.escape_rate
            covariance = covariance * np.exp(growth * elapsed) + float(np.exp(growth * left) @ source)
            tau += elapsed
    steps = schedule.total_steps / c.steps_ref
    states = {f"v_{i}": float(value) for i, value in enumerate(v)}
    states |= {"n": n, "b": b, "t": steps, "d": steps * b, "tau": tau, "peak": max(peak, schedule.peak) * scale}
    return states | {"radius": float(np.sqrt(square)), "escape": float(covariance)}, highest
