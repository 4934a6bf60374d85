"""What the laws of the best peak rate and batch advise, alone: as published or fitted, and how sure a fitted one is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from optlaws.baselines import REGISTRY, get_baseline
from optlaws.errors import FitError, InputError, LawError
from optlaws.runs import RunTable

AS_PRINTED = {"microsoft_rate": "as printed; its units are ambiguous"}
DRAWS = 300  # bootstrap samples behind a band
BAND = (0.05, 0.95)


@dataclass(frozen=True)
class RivalAdvice:
    """What a published law alone advises.

    Attributes
    ----------
    name, source, formula : the law and where it is published.
    peak_lr, batch_tokens : its advice (rate, tokens), NaN where it says nothing.
    note : where its constants come from, or a reservation.
    peak_lr_low, peak_lr_high, batch_tokens_low, batch_tokens_high : 5 and 95 % points of the advice over the law's fits
        to bootstrap samples of its runs; NaN where there are none, as of printed constants.
    band_draws : how many samples these are.
    """

    name: str
    source: str
    formula: str
    peak_lr: float
    batch_tokens: float
    note: str
    peak_lr_low: float = float("nan")
    peak_lr_high: float = float("nan")
    batch_tokens_low: float = float("nan")
    batch_tokens_high: float = float("nan")
    band_draws: int = 0


def rival_advice(
    name: str, params: float, tokens: float, runs: RunTable | None = None, *, seed: int = 0
) -> RivalAdvice:
    """Return the advice of a law of the best rate, as published or fitted to runs.

    Parameters
    ----------
    name : of the law.
    params, tokens : N and D, above 0.
    runs : to fit it to; their bootstrap samples make the band of a law that has one.
    seed : of these samples.

    Raises
    ------
    LawError
        There is no such law, it advises no rates, it has no printed constants and there are no runs, or a run lacks a
        column that it needs.
    FitError
        The runs do not tell its constants.
    InputError
        `params` or `tokens`, where the law looks at it, is not a finite number above 0.
    """
    kind = get_baseline(name)
    if not hasattr(kind, "recommend"):
        able = [other for other in REGISTRY if hasattr(get_baseline(other), "recommend")]
        raise LawError(f"law must advise peak rates or batches, as {', '.join(able)} do, got {name!r}; choose another")
    if runs is None:
        if not hasattr(kind, "published"):
            raise LawError(
                f"law {name!r} has no printed constants, so runs must be given to fit it, got none; add --from RUNS"
            )
        return advice_of(kind.published(), params, tokens, AS_PRINTED.get(name, ""))
    return advice_of(kind.fit(runs), params, tokens, "fitted to the runs given", bootstrap(kind, runs, seed=seed))


def bootstrap(kind: Any, runs: RunTable, *, seed: int = 0) -> list[Any]:
    """Return a law of a kind through `DRAWS` bootstrap samples of runs; none if it has no band, or not from these.

    Raises
    ------
    LawError
        A run lacks a column that the law needs.
    """
    if not hasattr(kind, "band"):
        return []
    try:
        found = kind.band(runs, draws=DRAWS, seed=seed)
    except FitError:  # samples of so few runs do not tell the law, as all of them do
        return []
    return [law for law in found if np.isfinite(list(law.parameters().values())).all()]


def advice_of(law: Any, params: float, tokens: float, note: str = "", draws: Sequence[Any] = ()) -> RivalAdvice:
    """Return the advice of a fitted law of the best rate, with a band where there are fits to bootstrap samples.

    Raises
    ------
    InputError
        `params` or `tokens`, where the law looks at it, is not a finite number above 0.
    """
    peak, batch = law.recommend(params, tokens)
    found = RivalAdvice(law.name, law.source, law.formula, float(peak), float(batch), note)
    if not draws:
        return found
    low, high = np.quantile([one.recommend(params, tokens) for one in draws], BAND, axis=0).tolist()
    return replace(
        found, peak_lr_low=low[0], peak_lr_high=high[0], batch_tokens_low=low[1], batch_tokens_high=high[1],
        band_draws=len(draws),
    )  # fmt: skip


def published_laws(runs: RunTable | None = None) -> list[tuple[Any, str]]:
    """Return the laws of the best rate or batch with their printed constants, or fitted to runs where there are none.

    Each with a note on where its constants come from, "" for printed ones without reservation.
    """
    out: list[tuple[Any, str]] = []
    for name in REGISTRY:
        kind = get_baseline(name)
        if not hasattr(kind, "recommend") or hasattr(kind, "predict"):
            continue
        if hasattr(kind, "published"):
            out.append((kind.published(), AS_PRINTED.get(name, "")))
        elif runs is not None:
            try:
                out.append((kind.fit(runs), "fitted to the runs given"))
            except InputError:  # these runs do not tell its constants
                continue
    return out
