"""muP: the best peak rate of a small model, carried to a wide one.

Source: Yang et al., arXiv 2203.03466, table 8 (Adam).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import numpy as np

from optlaws.baselines.base import Advice, Parametric, columns, training
from optlaws.baselines.optimal_rate import power
from optlaws.errors import InputError
from optlaws.runs import CurveTable, RunTable

WIDTH = 0.5  # width ~ N^WIDTH at constant depth; 1/3 where depth grows with width


class Multipliers(NamedTuple):
    """Factors on the base model's settings for one kind of weight matrix under Adam."""

    rate: float
    initial_sd: float
    output: float


@dataclass(frozen=True)
class MuP(Parametric):
    """Peak rate base_rate (width / base_width)^-1 for hidden matrices under Adam, width ~ N^share.

    Run tables hold parameters, not widths: with depth fixed, width grows as N^(1/2). Fitted by transfer as in the
    paper: the best rate of the smallest model is carried to all others; data and batch change nothing. All three
    constants are above 0.
    """

    base_rate: float
    base_params: float
    share: float = WIDTH

    name: ClassVar[str] = "mup"
    source: ClassVar[str] = "Yang et al., arXiv 2203.03466, table 8 (Adam)"
    formula: ClassVar[str] = "rate = base_rate (N / base_params)^-share"
    needs: ClassVar[tuple[str, ...]] = ("params", "peak_lr")
    above_zero: ClassVar[tuple[str, ...]] = ("base_rate", "base_params", "share")

    @classmethod
    def fit(cls, runs: RunTable, curves: CurveTable | None = None, *, seed: int = 0, starts: int = 0) -> Self:
        """Take the peak rate of the best run of the smallest model; nothing is random.

        Raises
        ------
        FitError, LawError
            No completed run, or one without N or peak rate.
        """
        kept = training(cls, runs, 1)
        n, rate = columns(cls, kept)
        small = np.flatnonzero(n == n.min())
        return cls(float(rate[small[np.argmin(kept.final_loss[small])]]), float(n.min()))

    def recommend(self, params: float, tokens: float, loss: float = float("nan")) -> Advice:
        """Return the peak rate of hidden matrices for N parameters; the law has no batch (NaN).

        Raises
        ------
        InputError
            N / base_params is not a finite number above 0.
        """
        return Advice(power(self.base_rate, (params / self.base_params, -self.share)), float("nan"))


def multipliers(width_ratio: float, kind: str) -> Multipliers:
    """Return what muP multiplies the base model's settings with (table 8, Adam).

    Parameters
    ----------
    width_ratio : float
        Width over base width, above 0.
    kind : str
        "input" (embeddings and biases), "hidden" or "output".

    Raises
    ------
    InputError
        Another kind, or a ratio not above 0.
    """
    if not width_ratio > 0:
        raise InputError(f"width_ratio must be above 0, got {width_ratio:g}; give width over base width")
    table = {
        "input": Multipliers(1.0, 1.0, 1.0),
        "hidden": Multipliers(1.0 / width_ratio, width_ratio**-0.5, 1.0),
        "output": Multipliers(1.0, 1.0, 1.0 / width_ratio),
    }
    if kind not in table:
        raise InputError(f"kind must be one of {', '.join(table)}, got {kind!r}; name one of them")
    return table[kind]
