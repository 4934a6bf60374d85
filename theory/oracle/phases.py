"""Closed forms of the states over the phases of a schedule, in mpmath (a cosine phase is a quadrature).

Continuous time: step k covers [k, k + 1] and the rate at t is the phase's formula at t - 1/2, held where that lies
before the formula's beginning. The integrals are those of `theory/derivations/quadratic_modes.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mpmath as mp

from optlaws.schedules import Schedule

KINDS = ("constant", "linear", "cosine", "exponential")


@dataclass(frozen=True)
class Piece:
    """A phase from `begin` to `end` steps, whose rate is the formula between u = `low` and u = `high`."""

    kind: str
    begin: int
    end: int
    start: float
    stop: float
    low: mp.mpf
    high: mp.mpf

    def rate(self, u: mp.mpf) -> mp.mpf:
        """Return the rate at the fraction u of the formula."""
        a, b = mp.mpf(self.start), mp.mpf(self.stop)
        if self.kind == "constant":
            return a
        if self.kind == "linear":
            return a + (b - a) * u
        if self.kind == "cosine":
            return a + (b - a) * (1 - mp.cos(mp.pi * u)) / 2
        if self.kind == "exponential":
            return a * (b / a) ** u
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}; the oracle knows no other")

    def sum(self, u: mp.mpf) -> mp.mpf:
        """Return the integral of the rate over the formula's fraction from `low` to u (times the span: steps)."""
        a, b, x = mp.mpf(self.start), mp.mpf(self.stop), self.low
        if self.kind == "constant":
            return a * (u - x)
        if self.kind == "linear":
            return a * (u - x) + (b - a) * (u**2 - x**2) / 2
        if self.kind == "cosine":
            return (a + b) / 2 * (u - x) + (a - b) / (2 * mp.pi) * (mp.sin(mp.pi * u) - mp.sin(mp.pi * x))
        return (self.rate(u) - self.rate(x)) / mp.log(b / a)


def pieces(schedule: Schedule) -> list[tuple[Piece, mp.mpf]]:
    """Return the pieces of a schedule with their steps per unit of u, held parts apart.

    A formula begins half a step inside its first step: before that the rate is held at its start.
    """
    out: list[tuple[Piece, mp.mpf]] = []
    for phase in schedule.phases:
        span = mp.mpf(phase.span)
        if phase.shape == "constant":
            whole = Piece("constant", phase.begin, phase.end, phase.start, phase.start, mp.mpf(0), mp.mpf(1))
            out.append((whole, mp.mpf(phase.end - phase.begin)))
            continue
        held = Piece("constant", phase.begin, phase.begin, phase.start, phase.start, mp.mpf(0), mp.mpf(1))
        out.append((held, mp.mpf("0.5")))
        high = (phase.end - phase.begin - mp.mpf("0.5")) / span
        out.append((Piece(phase.shape, phase.begin, phase.end, phase.start, phase.stop, mp.mpf(0), high), span))
    return out


def _powers(low: mp.mpf, high: mp.mpf, a: mp.mpf, c: mp.mpf) -> mp.mpf:
    """Return int_low^high w^(a - 1) e^(-c w) dw without cancellation: incomplete gammas for c > 0, else Kummer's."""
    if c > 0:
        return (mp.gammainc(a, c * low) - mp.gammainc(a, c * high)) / c**a
    return sum(sign * z**a / a * mp.hyp1f1(a, a + 1, -c * z) for sign, z in ((1, high), (-1, low)))


def integral(piece: Piece, span: mp.mpf, q: mp.mpf, p: mp.mpf) -> tuple[mp.mpf, mp.mpf]:
    """Return (S, I) of a piece: S = int rate, I = int rate^q exp(-p (S_end - S)) dS.

    Parameters
    ----------
    piece, span : Piece and steps per unit of u.
    q : exponent of the temperature.
    p : 2 l for a variance, -2 rho for the escape state, any sign.
    """
    total = span * piece.sum(piece.high)
    first, last = piece.rate(piece.low), piece.rate(piece.high)
    if piece.kind == "constant" or first == last:
        return total, first**q * (-mp.expm1(-p * total) / p if p else total)
    if piece.kind == "linear":
        m = (last - first) / (span * (piece.high - piece.low))
        scale, ends = mp.exp(-p * last**2 / (2 * m)) / (2 * m), (first**2, last**2)
        return total, scale * _powers(*ends, 1 + q / 2, -p / (2 * m))
    if piece.kind == "exponential":
        k = mp.log(first / last) / (span * (piece.high - piece.low))
        return total, mp.exp(p * last / k) / k * _powers(last, first, 1 + q, p / k)

    def element(u: mp.mpf) -> mp.mpf:
        return span * piece.rate(u) ** (q + 1) * mp.exp(-p * (total - span * piece.sum(u)))

    grid = [piece.low + (piece.high - piece.low) * (1 - mp.mpf(2) ** -k) for k in range(0, 24, 2)] + [piece.high]
    return total, mp.quad(element, grid)


def chained(parts: Sequence[tuple[Piece, mp.mpf]], q: mp.mpf, p: mp.mpf, factor: mp.mpf) -> tuple[mp.mpf, mp.mpf]:
    """Return (S, I) over all pieces of a schedule whose rates are multiplied by `factor`."""
    total, value = mp.mpf(0), mp.mpf(0)
    for piece, span in parts:
        elapsed, source = integral(piece, span, q, p * factor)
        total += factor * elapsed
        value = value * mp.exp(-p * factor * elapsed) + factor ** (1 + q) * source
    return total, value


def held_norm(
    schedule: Schedule, scale: mp.mpf, q: mp.mpf, curvatures: Sequence[float], rho: float, pace: mp.mpf, heat: mp.mpf
) -> dict[str, mp.mpf]:
    """Return tau, v_l and escape where the norm stays 1 and the batch factors are constant.

    Parameters
    ----------
    scale : x = scale * learning rate.
    q : exponent of the temperature.
    curvatures, rho : of the variances, of the escape state.
    pace, heat : factors g of intrinsic time and h of the temperature.
    """
    parts = pieces(schedule)
    out: dict[str, mp.mpf] = {}
    for index, curvature in enumerate(curvatures):
        p = 2 * mp.mpf(curvature) * pace
        elapsed, value = chained(parts, q, p, scale)
        out["tau"], out[f"v_{index}"] = pace * elapsed, p * heat * value
    out["escape"] = pace * heat * chained(parts, q, -2 * mp.mpf(rho) * pace, scale)[1]
    return out


def norm(schedule: Schedule, scale: mp.mpf, weight_decay: float, kappa: float) -> mp.mpf:
    """Return the weight norm R at the end of any schedule of these phases."""
    elapsed, value = chained(pieces(schedule), mp.mpf(1), 2 * mp.mpf(weight_decay), mp.mpf(1))
    return mp.sqrt(mp.exp(-2 * mp.mpf(weight_decay) * elapsed) + mp.mpf(kappa) * scale**2 * value)
