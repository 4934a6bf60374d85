"""Rank candidate runs by predicted loss: differences, the probability of being best, and a sentence of advice.

Candidates share most of their prediction error, so a difference is far surer than either loss. Errors are relative:
with expected losses L, ln L ~ Normal(ln mu, C), and relative run noises e_i ~ Normal(0, s_i^2), independent of each
other,

    r_i = (ln L_i + e_i) - (ln L_b + e_b),    var r_i = C_ii + C_bb - 2 C_ib + s_i^2 + s_b^2,

where b is the candidate of lowest mu; the difference of losses and its interval are mu_b (exp(r) - 1) of r and of its
interval, so that a candidate of absurd loss cannot win by its absurd standard deviation. P(best)_i is the probability
that run i ends lowest if each candidate is run once: its noise is in it, as it is in the intervals. Nothing here forms
an n x n matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import signature
from os import PathLike
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from optlaws._accepted import ACCEPTED, TINY_RISK, accepted_risk, no_risk_model, too_risky
from optlaws._advice import advise, decimals
from optlaws._normal import NORMAL_90
from optlaws.errors import InputError, LawError, RiskError
from optlaws.runs import RunTable, candidate_names, check_runs

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.intp]

LEVEL = 0.9
Z = NORMAL_90  # LEVEL of an interval
JOINT = 2**14  # candidates of lowest loss whose difference to the best gets an interval
TOP = 256  # candidates that enter the sampling of P(best)
TOP_ELSEWHERE = 2048  # the same on another corpus, where more of them may be best
HOPELESS = 6.0  # standard deviations above the best beyond which a candidate cannot be best (P < 1e-9)
_BLOCK = 1024  # rows of the covariance that are asked for at a time
_DRAWS = 2**21  # normal numbers in all
MOST_TOLD = 1000  # candidates that are ranked a second time, as on another corpus
NEGLIGIBLE = 1e-4  # chance that all of some candidates diverge, below which what lies far above them is not looked at


class PredictionLike(Protocol):
    """What `rank` needs of a prediction for n runs; every array has shape (n,), losses in nats per token.

    `covariance(i)` is the joint covariance (m, m) of the expected losses (no run noise) of the m runs with indices i.
    Where there is a method `covariance_with(j) -> (n,)`, one column of that matrix, it is used, and asked for a part of
    the column only, `covariance_with(j, rows)`, where it takes a second argument. Where there is a number `factor`, the
    intervals of differences have that many standard deviations on either side, else as many as those of the losses.
    """

    @property
    def loss(self) -> FloatArray:
        """Predicted loss."""

    @property
    def sd(self) -> FloatArray:
        """Standard deviation of the prediction of one new run, noise included."""

    @property
    def lower(self) -> FloatArray:
        """Lower end of the 90 % interval."""

    @property
    def upper(self) -> FloatArray:
        """Upper end of the 90 % interval."""

    @property
    def noise(self) -> FloatArray:
        """Standard deviation of the run noise."""

    @property
    def in_domain(self) -> BoolArray:
        """Whether the run lies inside the law's training domain."""

    @property
    def reasons(self) -> Sequence[str]:
        """Why not, or ""."""

    def covariance(self, i: Any) -> FloatArray:
        """Joint covariance of the expected losses of the runs with indices i."""


class LawLike(Protocol):
    """What `rank` needs of a law."""

    @property
    def name(self) -> str:
        """The law's name."""

    def predict(self, runs: RunTable) -> PredictionLike:
        """Predict the final losses of n runs."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Candidates and how they compare; arrays are in the order of the candidates given, shape (n,).

    As text (`print(ranking)`) it is the table of `optlaws rank`.

    Attributes
    ----------
    runs, names, law
        The candidates, what to call them, the name of the law.
    order
        Indices of the candidates, lowest predicted loss first.
    loss, lower, upper
        Predicted loss and its 90 % interval for one new run, nats per token.
    difference, difference_lower, difference_upper
        Loss minus that of the best candidate, and its 90 % interval for two new runs; 0 for the best. Among more than
        `JOINT` candidates only so many of the lowest losses have intervals; of the others all ends are NaN, P(best) is
        0 and `in_domain` False, with a reason that says so.
    p_best
        Probability that the candidate ends lowest, each run once. A run that diverges ends nowhere, by `risk` where it
        is known and independently of the others, so that the sum is the chance that one is completed: 1 without risks.
        Only the `TOP` candidates nearest to the best share it (on another corpus `TOP_ELSEWHERE`), nearness in standard
        deviations of the difference: of more than so many that cannot be told apart, the others get 0.
    in_domain, reasons
        Whether the law was trained on such runs, and why not ("" where it was).
    advice
        One plain sentence. Its numbers are ranks: 1 is candidate `order[0]`, called `names[order[0]]`.
    risk
        Probability that the run diverges; None where the law has no risk model, NaN where that cannot say, and for all
        but the `JOINT` candidates of lowest loss.
    max_risk
        Risk above which a candidate is not recommended.
    preferred
        Index of the candidate that the advice names; None where it names none.
    left_out
        Names and risks of the candidates that `max_risk` left out.
    other_corpus
        Whether the uncertainty is the one that the law has on another corpus than its own.
    p_best_elsewhere
        P(best) on another corpus than the law's own, where that was asked for beside it (`with_elsewhere`), else None.
    """

    runs: RunTable
    names: tuple[str, ...]
    law: str
    order: IndexArray
    loss: FloatArray
    lower: FloatArray
    upper: FloatArray
    difference: FloatArray
    difference_lower: FloatArray
    difference_upper: FloatArray
    p_best: FloatArray
    in_domain: BoolArray
    reasons: tuple[str, ...]
    advice: str
    risk: FloatArray | None = None
    max_risk: float = ACCEPTED
    preferred: int | None = None
    left_out: tuple[tuple[str, float], ...] = ()
    other_corpus: bool = False
    p_best_elsewhere: FloatArray | None = None

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.names)

    def __str__(self) -> str:
        """Return the table that `optlaws rank` prints, without its last line break."""
        from optlaws.ranking.table import rank_table  # which needs this module

        return rank_table(self).rstrip("\n")

    @property
    def best(self) -> int:
        """Index of the candidate of lowest predicted loss."""
        return int(self.order[0])

    @property
    def decimals(self) -> int:
        """Digits after the point that show the differences to about two figures (3 to 6)."""
        return decimals(self.difference_upper - self.difference, self.upper - self.loss, self.order)


def rank(
    runs: RunTable,
    law: LawLike | str | PathLike[str],
    names: Sequence[str] | None = None,
    *,
    seed: int = 0,
    max_risk: float | None = None,
) -> Ranking:
    """Rank candidate runs by the loss that a law predicts for them.

    Parameters
    ----------
    runs
        The n >= 1 candidates.
    law
        A fitted law, the name of a built-in one, or a law file.
    names
        What to call the candidates; their run ids if left out, or their schedules where `RunTable.build` numbered them.
    seed
        Seed of the draws behind P(best), which then are the same on every call.
    max_risk
        Leave candidates out whose divergence risk is above this, 0 .. 1, or not known.

    Returns
    -------
    Ranking
        As for runs of the law's own corpus; for those of another ask `law.on_other_corpus()`, see there.

    Raises
    ------
    InputError
        If there is no candidate, the number of names does not fit, or `max_risk` is no probability or asked of a law
        without a risk model.
    LawError
        If there is no such law, or it does not predict a finite loss for one of them.
    RiskError
        If `max_risk` leaves none.
    """
    check_runs(runs, "candidates")
    if isinstance(law, (str, PathLike)):
        from optlaws.law import load_any_law

        law = load_any_law(law)
    if not hasattr(law, "predict"):
        raise LawError(f"law must be a fitted law, its name or its file, got {law!r:.60}; load one with load_law")
    n = len(runs)
    if n == 0:
        raise InputError("candidates must be at least one run, got none; name a schedule or a file of schedules")
    called = candidate_names(runs) if names is None else tuple(names)
    if len(called) != n:
        raise InputError(
            f"names must have one entry a candidate ({n}), got {len(called)}; leave it out for the run ids"
        )
    gone: tuple[tuple[str, float], ...] = ()
    if max_risk is not None:
        runs, called, gone = _safe_ones(runs, law, called, max_risk)
        n = len(runs)
    if n > JOINT and hasattr(law, "expected_loss"):
        return _rank_many(runs, law, called, seed, max_risk, gone)
    return _rank(runs, law, called, seed, max_risk, gone)


def with_elsewhere(ranking: Ranking, law: Any) -> Ranking:
    """Return the ranking with `p_best_elsewhere`, as it is where the law knows nothing of other corpora.

    Candidates are ranked a second time for it, so it is left out of more than `MOST_TOLD`, and of a single one.
    """
    if ranking.other_corpus or not 2 <= len(ranking) <= MOST_TOLD or not hasattr(law, "on_other_corpus"):
        return ranking
    return replace(ranking, p_best_elsewhere=rank(ranking.runs, law.on_other_corpus()).p_best)


def _rank(
    runs: RunTable, law: LawLike, called: tuple[str, ...], seed: int, max_risk: float | None,
    left_out: tuple[tuple[str, float], ...],
) -> Ranking:  # fmt: skip
    """Rank candidates beside which `left_out` were too risky."""
    n = len(runs)
    prediction = law.predict(runs)
    loss = np.asarray(prediction.loss, dtype=np.float64)
    sd = np.asarray(prediction.sd, dtype=np.float64)
    good = np.isfinite(loss) & np.isfinite(sd) & (loss > 0)
    if not good.all():
        row = int(np.argmin(good))
        raise LawError(
            f"law {law.name!r} predicts no finite loss above 0 for candidate {called[row]!r}; check its sizes and rates"
        )
    noise = np.asarray(prediction.noise, dtype=np.float64)
    lower, upper = (np.asarray(end, dtype=np.float64) for end in (prediction.lower, prediction.upper))
    in_domain = np.asarray(prediction.in_domain, dtype=bool)
    reasons = tuple(prediction.reasons)
    order = np.argsort(loss, kind="stable")
    best = int(order[0])
    relative = noise / loss
    variance = np.maximum((sd / loss) ** 2 - relative**2, 0.0)
    rows = order[:JOINT]
    shared = covariances(prediction, best, rows) / loss[rows] / loss[best]
    expected = np.full(n, np.nan)
    expected[rows] = np.maximum(variance[rows] + variance[best] - 2.0 * shared, 0.0)
    ratio = np.log(loss / loss[best])
    own = getattr(prediction, "factor", None)
    half = (_factor(loss, lower, upper, sd) if own is None else own) * np.sqrt(
        expected + relative**2 + relative[best] ** 2
    )
    half[best] = 0.0
    with np.errstate(over="ignore"):  # an absurd candidate may end at infinity
        ends = [loss[best] * np.expm1(ratio + side * half) for side in (-1.0, 1.0)]
    risk, limit = risks(runs, law), ACCEPTED if max_risk is None else max_risk
    elsewhere = getattr(law, "discrepancy", None) is not None
    apart = np.sqrt(expected + relative**2 + relative[best] ** 2)
    result = {
        "difference": loss - loss[best],
        "difference_lower": ends[0],
        "difference_upper": ends[1],
        "p_best": _p_best(prediction, loss, ratio, apart, relative, risk, seed, TOP_ELSEWHERE if elsewhere else TOP),
    }
    blind = getattr(law, "blind", "")
    advice, preferred = advise(
        runs, order, upper - loss, in_domain, reasons, risk, limit, **result, blind=blind, left_out=len(left_out),
        left_out_unknown=sum(bool(np.isnan(one)) for _, one in left_out),
    )  # fmt: skip
    return Ranking(
        runs=runs,
        names=called,
        law=law.name,
        order=order,
        loss=loss,
        lower=lower,
        upper=upper,
        in_domain=in_domain,
        reasons=reasons,
        advice=advice,
        risk=risk,
        max_risk=limit,
        preferred=preferred,
        left_out=left_out,
        other_corpus=elsewhere,
        **result,
    )


def risks(runs: RunTable, law: Any) -> FloatArray | None:
    """Return the divergence risk of each run, (n,), NaN where it is not known; None where the law has no risk model."""
    if hasattr(law, "risks"):
        return law.risks(runs)  # type: ignore[no-any-return]
    model = getattr(law, "risk", None)
    if model is None:
        return None
    return np.asarray(model.probability(runs, getattr(law, "defaults", None)), dtype=np.float64)


def _safe_ones(
    runs: RunTable, law: LawLike, names: tuple[str, ...], max_risk: float
) -> tuple[RunTable, tuple[str, ...], tuple[tuple[str, float], ...]]:
    """Return the candidates whose divergence risk is at most `max_risk`, their names, and the others with theirs."""
    max_risk, risk = accepted_risk(max_risk), risks(runs, law)
    if risk is None:
        raise no_risk_model(law)
    safe = risk <= max_risk
    if not safe.any():
        raise RiskError(too_risky(risk, max_risk, names), tuple(zip(names, risk.tolist(), strict=True)))
    if safe.all():
        return runs, names, ()
    kept = tuple(name for name, ok in zip(names, safe.tolist(), strict=True) if ok)
    gone = tuple((names[row], float(risk[row])) for row in np.flatnonzero(~safe).tolist())
    return runs.select(np.flatnonzero(safe)), kept, gone


def _rank_many(
    runs: RunTable, law: Any, names: tuple[str, ...], seed: int, max_risk: float | None,
    left_out: tuple[tuple[str, float], ...],
) -> Ranking:  # fmt: skip
    """Rank more than `JOINT` candidates: all by their expected losses, and only the lowest `JOINT` with intervals."""
    loss = np.asarray(law.expected_loss(runs), dtype=np.float64)
    if not (np.isfinite(loss) & (loss > 0)).all():
        row = int(np.argmin(np.isfinite(loss) & (loss > 0)))
        raise LawError(
            f"law {law.name!r} predicts no finite loss above 0 for candidate {names[row]!r}; check its sizes and rates"
        )
    order = np.argsort(loss, kind="stable")
    head = np.sort(order[:JOINT])
    near = _rank(runs.select(head), law, tuple(names[row] for row in head.tolist()), seed, max_risk, left_out)
    risk = None
    if near.risk is not None:
        risk = np.full(len(loss), np.nan)
        risk[head] = near.risk
    whole: dict[str, FloatArray] = {}
    for name in ("lower", "upper", "difference_lower", "difference_upper"):
        whole[name] = np.full(len(loss), np.nan)
        whole[name][head] = getattr(near, name)
    p_best, in_domain = np.zeros(len(loss)), np.zeros(len(loss), dtype=bool)
    p_best[head], in_domain[head] = near.p_best, near.in_domain
    reasons = [f"not looked at: {JOINT} candidates or more have a lower loss"] * len(loss)
    for row, why in zip(head.tolist(), near.reasons, strict=True):
        reasons[row] = why
    return Ranking(
        runs=runs,
        names=names,
        law=law.name,
        order=np.concatenate([head[near.order], order[JOINT:]]),
        loss=loss,
        difference=loss - loss[head[near.best]],
        p_best=p_best,
        in_domain=in_domain,
        reasons=tuple(reasons),
        advice=near.advice,
        risk=risk,
        max_risk=near.max_risk,
        preferred=None if near.preferred is None else int(head[near.preferred]),
        left_out=left_out,
        other_corpus=near.other_corpus,
        **whole,
    )


def covariances(prediction: PredictionLike, best: int, rows: IndexArray) -> FloatArray:
    """Covariance of the expected losses in some rows with the best one's, shape of `rows`."""
    one = getattr(prediction, "covariance_with", None)
    if one is not None and len(signature(one).parameters) > 1:
        return np.asarray(one(best, rows), dtype=np.float64)
    if one is not None and len(rows) == len(prediction.loss):
        return np.asarray(one(best), dtype=np.float64)[rows]
    parts = []
    for start in range(0, len(rows), _BLOCK):
        block = np.concatenate([[best], rows[start : start + _BLOCK]]).astype(np.intp)
        parts.append(np.asarray(prediction.covariance(block), dtype=np.float64)[0, 1:])
    return np.concatenate(parts)


def _factor(loss: FloatArray, lower: FloatArray, upper: FloatArray, sd: FloatArray) -> float:
    """Half-widths of ln loss per standard deviation that the law itself uses (normal: 1.645), the median over runs."""
    good = (sd > 0) & (upper > lower) & (lower > 0) & np.isfinite(upper)
    if not good.any():
        return Z
    return float(np.median(np.log(upper[good] / lower[good]) / (2.0 * sd[good] / loss[good])))


def _p_best(
    prediction: PredictionLike, loss: FloatArray, ratio: FloatArray, sd: FloatArray, noise: FloatArray,
    risk: FloatArray | None, seed: int, most: int,
) -> FloatArray:  # fmt: skip
    """Probability of each candidate to end lowest, from draws of the `most` plausible ones.

    `ratio` is ln of the loss over the best one's, `sd` its standard deviation, `noise` the relative run noise of each.
    In a draw a candidate diverges with its `risk` (unknown: 0) and cannot win. Draws come in pairs; ties are shared.
    """
    danger = np.nan_to_num(np.zeros(len(loss)) if risk is None else risk, nan=0.0)
    lowest = np.argsort(loss, kind="stable")[:most]
    ends = np.flatnonzero(np.cumprod(danger[lowest]) < NEGLIGIBLE)
    front = lowest[: int(ends[0]) + 1 if len(ends) else len(lowest)]  # one of these ends, but for a chance of that
    best = int(front[-1])
    p = np.zeros(len(loss))
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.where(ratio > ratio[best], (ratio - ratio[best]) / sd, 0.0)
    score[np.isnan(sd)] = np.inf
    score[front] = -1.0
    top = np.flatnonzero(score < HOPELESS)
    if len(top) > most:  # ties in the score are settled by the loss
        top = top[np.lexsort((loss[top], score[top]))[:most]]
    if len(top) == 1:
        p[best] = 1.0 - danger[best]
        return p
    covariance = np.asarray(prediction.covariance(top), dtype=np.float64) / loss[top, None] / loss[top]
    covariance = (covariance + covariance.T) / 2.0 + np.diag(noise[top] ** 2)
    root = root_of(covariance)
    mean = ratio[top]
    draws = int(np.clip(_DRAWS // len(top), 2**13, 2**18)) // 2
    rng = np.random.default_rng(seed)
    tie = 1e-5 * float(np.sqrt(max(covariance.diagonal().max(), 0.0)))
    tied = _any_tied(mean, covariance, tie)
    wins = np.zeros(len(top))
    mortal = bool((danger[top] > TINY_RISK).any())
    for start in range(0, draws, 2**13):
        count = min(2**13, draws - start)
        spread = rng.standard_normal((count, len(top))) @ root.T
        for sample in (mean + spread, mean - spread):
            if mortal:
                lost = rng.random((count, len(top))) < danger[top]
                sample = np.where(lost, np.inf, sample)[~lost.all(axis=1)]
            if tied:
                lowest = sample <= sample.min(axis=1, keepdims=True) + tie
                wins += (1.0 / lowest.sum(axis=1)) @ lowest
            else:
                wins += np.bincount(sample.argmin(axis=1), minlength=len(top))
    p[top] = wins / (2 * draws)
    return p


def root_of(covariance: FloatArray) -> FloatArray:
    """Return a lower triangle A with A A' = covariance, which may be singular: to about 1e-13 of its largest entry."""
    n, scale = len(covariance), float(covariance.diagonal().max())
    if scale <= 0.0:
        return np.zeros((n, n))
    for jitter in (1e-13, 1e-12, 1e-11, 1e-9):
        try:
            return np.asarray(np.linalg.cholesky(covariance + jitter * scale * np.eye(n)), dtype=np.float64)
        except np.linalg.LinAlgError:
            continue
    values, vectors = np.linalg.eigh(covariance)
    root: FloatArray = vectors * np.sqrt(np.maximum(values, 0.0))
    return root


def _any_tied(mean: FloatArray, covariance: FloatArray, tie: float) -> bool:
    """Whether two candidates have the same expected loss in every draw."""
    own = covariance.diagonal()
    apart = own[:, None] + own[None, :] - 2.0 * covariance
    same = (np.abs(mean[:, None] - mean[None, :]) <= tie) & (apart <= max(tie * tie, 1e-14 * float(own.max())))
    return bool(same.sum() > len(mean))
