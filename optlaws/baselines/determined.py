"""Least squares of polynomials on what runs determine: directions in which they hardly vary are left flat.

The rule, for columns of logarithms x (n, m), one a quantity:

1. A column whose standard deviation is at most `ALIKE` (1 %) counts as constant, and has no part. The others are
   centred and scaled to standard deviation 1 (`standard`).
2. Principal directions of these in which the runs' standard deviation is at most `LEAST` (a twentieth of one column's)
   are left out of all terms: where N and D grow together, the law is flat in what they do against each other.
3. Degree by degree, the terms, those that vary by more scaled to standard deviation 1, lose what terms of lower degree
   account for; singular directions in which `LEAST` or less is left are 0: a quantity of two values has a slope and no
   curvature.

What is determined is fitted as if nothing else were there; a design of full rank is fitted as by plain least squares. A
direction of a twentieth carries the noise of the losses into the law twentyfold.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement, product

import numpy as np

from optlaws.baselines.base import FloatArray

LEAST = 0.05
ALIKE = 0.01
PART = 0.1  # of a quantity that lies in directions left out, above which it is named
MOSTLY = 0.5  # of a term, likewise
SHOWN = 6  # terms named in a text


def standard(x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return middle (m,) and spread (m,) of columns x (n, m), and (x - middle) / spread.

    Columns that vary by `ALIKE` or less have spread 1, and are 0.
    """
    middle, spread = x.mean(axis=0), x.std(axis=0)
    varies = spread > ALIKE
    spread = np.where(varies, spread, 1.0)
    return middle, spread, np.where(varies, (x - middle) / spread, 0.0)


def terms(columns: int, degree: int) -> list[tuple[int, ...]]:
    """Return the columns whose product each term is, all terms up to a degree, the constant () first."""
    return [which for power in range(degree + 1) for which in combinations_with_replacement(range(columns), power)]


def monomials(z: FloatArray, degree: int) -> FloatArray:
    """Return all `terms` of the columns of z (n, m), shape (n, terms)."""
    return np.stack([np.prod(z[:, list(which)], axis=1) for which in terms(z.shape[1], degree)], axis=1)


def directions(z: FloatArray, degree: int) -> FloatArray:
    """Return what runs at standard columns z (n, m) determine, by steps 2 and 3 of the rule.

    Returns
    -------
    ndarray of shape (terms - 1, k)
        Orthonormal columns of coefficients of the terms without the constant.
    """
    flat = _projection(z)
    design = monomials(z @ flat, degree)[:, 1:]
    design -= design.mean(axis=0)
    scale = 1.0 / np.maximum(design.std(axis=0), 1.0)
    powers = np.array([len(which) for which in terms(z.shape[1], degree)[1:]])
    lower, found = np.zeros((len(z), 0)), np.zeros((len(powers), 0))
    for power in range(1, degree + 1):
        at = np.flatnonzero(powers == power)
        block = design[:, at] * scale[at]
        left, value, right = np.linalg.svd(block - lower @ (lower.T @ block), full_matrices=False)
        kept = value > LEAST * np.sqrt(len(z))
        lower = np.concatenate([lower, left[:, kept]], axis=1)
        more = np.zeros((len(powers), int(kept.sum())))
        more[at] = (right[kept] * scale[at]).T
        found = np.concatenate([found, more], axis=1)
    return np.asarray(np.linalg.qr(_of_mixed(flat, degree) @ found)[0])


def least_squares(z: FloatArray, y: FloatArray, degree: int, ridge: float = 0.0) -> FloatArray:
    """Return the coefficients of all terms, the constant first, of least squares of y (n,) in the determined ones.

    `ridge` is added to the diagonal of the normal equations; the constant is free of it.
    """
    kept = directions(z, degree)
    top = monomials(z, degree)[:, 1:]
    middle = top.mean(axis=0)
    design = (top - middle) @ kept
    rows = np.concatenate([design, np.sqrt(ridge) * np.eye(kept.shape[1])])
    target = np.concatenate([y - y.mean(), np.zeros(kept.shape[1])])
    slopes = kept @ np.linalg.lstsq(rows, target, rcond=None)[0]
    return np.concatenate([[y.mean() - middle @ slopes], slopes])


def unscaled(found: FloatArray, middle: FloatArray, spread: FloatArray, degree: int) -> FloatArray:
    """Return the coefficients (terms,) in columns x of a polynomial in z = (x - middle) / spread."""
    every = terms(len(middle), degree)
    place = {which: i for i, which in enumerate(every)}
    out = np.zeros(len(every))
    for value, which in zip(found, every, strict=True):
        for kept in product((True, False), repeat=len(which)):
            factors = [(1.0 if keep else -middle[i]) / spread[i] for i, keep in zip(which, kept, strict=True)]
            out[place[tuple(i for i, keep in zip(which, kept, strict=True) if keep)]] += value * np.prod(factors)
    return out


def undetermined(x: FloatArray, names: Sequence[str], degree: int) -> list[str]:
    """Return, in words, what runs at columns x (n, m) of these names do not determine; nothing: []."""
    z = standard(x)[2]
    varies = np.abs(z).max(axis=0, initial=0.0) > 0
    there = [name for name, moves in zip(names, varies.tolist(), strict=True) if moves]
    still = [name for name in names if name not in there]
    found = []
    if still:
        found.append(
            f"{_listed(still)} hardly {'vary and have' if len(still) > 1 else 'varies and has'} no part in the law"
        )
    if not there:
        return found
    z = z[:, varies]
    lost = np.eye(len(there)) - _projection(z)
    tied = [name for name, part in zip(there, np.abs(lost).max(axis=0).tolist(), strict=True) if part > PART]
    if tied:
        found.append(f"{_listed(tied)} vary together, and what each does by itself is not told")
    every, kept = terms(len(there), degree)[1:], directions(z, degree)
    if kept.shape[1] < len(every):
        left_out = 1.0 - (kept**2).sum(axis=1)
        out = [_term(which, there) for which, share in zip(every, left_out.tolist(), strict=True) if share > MOSTLY]
        more = [f"{len(out) - SHOWN} more"] if len(out) > SHOWN else []
        text = f"of {len(every)} terms in {_listed(there)} these runs tell {kept.shape[1]}"
        found.append(text + (f", not {_listed([*out[:SHOWN], *more])}" if out else ""))
    return found


def _projection(z: FloatArray) -> FloatArray:
    """Return the projection (m, m) on the principal directions in which z (n, m) varies."""
    value, vectors = np.linalg.eigh(z.T @ z / len(z))
    kept = vectors[:, value > LEAST**2]
    return np.asarray(kept @ kept.T)


def _of_mixed(mix: FloatArray, degree: int) -> FloatArray:
    """Return the coefficients in terms of z of each term of z @ mix, a column each, the constant left out."""
    every = terms(len(mix), degree)[1:]
    place = {which: i for i, which in enumerate(every)}
    out = np.zeros((len(every), len(every)))
    for j, which in enumerate(every):
        for source in product(range(len(mix)), repeat=len(which)):
            out[place[tuple(sorted(source))], j] += np.prod(mix[list(source), list(which)])
    return out


def _term(which: tuple[int, ...], names: Sequence[str]) -> str:
    """Return a term in words, such as params^2 tokens."""
    powers = {names[i]: which.count(i) for i in which}
    return " ".join(name if power == 1 else f"{name}^{power}" for name, power in powers.items())


def _listed(words: Sequence[str]) -> str:
    """Return words as a list for people."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
