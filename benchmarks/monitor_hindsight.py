"""What a partial curve can say of the final loss at all, where the law fits the curve so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

SLOPES = np.linspace(-20.0, 20.0, 4001)
LATEST = 5  # readings whose median gap counts


def gap(residuals: np.ndarray) -> float:
    """Return ln (curve / law's curve) of the latest readings."""
    return float(np.median(residuals[-LATEST:]))


def hindsight(seen: Mapping[float, Sequence[tuple[float, float]]]) -> list[str]:
    """Return a sentence for each cut; `seen` holds ln (final loss / predicted) and the gap at the cut of each run.

    The forecast is predicted x exp(slope x gap) with the slope that suits these very runs best: no forecast that adds
    to the law a multiple of where the curve lies now can do better.
    """
    out = []
    for at, pairs in seen.items():
        end, now = 100.0 * np.array(pairs).T
        errors = np.abs(end[None] - SLOPES[:, None] * now[None]).mean(axis=1)
        best = int(errors.argmin())
        out.append(
            f"- {100 * at:.0f} %: the curve so far lies {np.abs(now).mean():.3f} % from the law's, the end"
            f" {np.abs(end).mean():.3f} %; correlation of the two {np.corrcoef(end, now)[0, 1]:+.2f}; best multiple of"
            f" the gap in hindsight {SLOPES[best]:+.1f}, with an error of {errors[best]:.3f} %"
        )
    return out
