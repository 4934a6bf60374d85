"""Nested scores of the risk model on the public runs, and what the labels themselves allow.

Nothing of a group that is scored enters its fit, nor the choice of the decision threshold: that is made on predictions
for the training groups, each left out of a fit of its own (inner folds).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from divergence_runs import steplaw
from scipy.special import ndtr
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from optlaws.risk import fit_risk, run_labels
from optlaws.runs import RunTable

Array = np.ndarray
GRID = np.linspace(0.2, 0.8, 61)  # decision thresholds that are tried
SMOOTH = 5  # on either side: the F1 of a threshold is averaged over its neighbours, so that no single run decides
BINS = 10  # of the calibration error
DRAWS = 400  # of every bootstrap and simulation
Predictor = Callable[[RunTable, RunTable], Array]


@dataclass(frozen=True)
class Scored:
    """Predictions for held-out runs: probability, label and decision of each, shape (n,); a second rule's decision."""

    probability: Array
    label: Array
    decision: Array
    thresholds: tuple[float, ...]
    plugged: Array | None = None

    def scores(self) -> dict[str, float]:
        """Return F1, precision, recall, AUC, Brier score and calibration error."""
        p, y, d = self.probability, self.label, self.decision
        hits = float((d & (y > 0)).sum())
        return {
            "f1": float(f1_score(y, d)),
            "precision": hits / max(float(d.sum()), 1.0),
            "recall": hits / float((y > 0).sum()),
            "auc": float(roc_auc_score(y, p)),
            "brier": float(np.mean((p - y) ** 2)),
            "ece": calibration_error(p, y),
            "f1_at_half": float(f1_score(y, p > 0.5)),
            "f1_plug_in": float("nan") if self.plugged is None else float(f1_score(y, self.plugged)),
        }


def calibration_error(p: Array, y: Array) -> float:
    """Return the mean gap between predicted and observed frequency over `BINS` equal bins, weighted by their runs."""
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = [abs(p[place == k].sum() - y[place == k].sum()) for k in range(BINS)]
    return float(np.sum(gaps) / len(p))


def best_threshold(p: Array, y: Array) -> float:
    """Return the threshold of highest F1, smoothed over its neighbours."""
    f1 = np.array([f1_score(y, p > t) for t in GRID])
    padded = np.pad(f1, SMOOTH, mode="edge")
    return float(GRID[np.convolve(padded, np.ones(2 * SMOOTH + 1), mode="valid").argmax()])


def groups_of(runs: RunTable) -> Array:
    """Return the group of each run: its source and size."""
    names = np.array([f"{source} {size:.6g}" for source, size in zip(runs.source, runs.size, strict=True)])
    return np.asarray(np.unique(names, return_inverse=True)[1])


def risk_predictor(train: RunTable, test: RunTable) -> Array:
    """Predict with the risk model; a source that is in the training runs has its own offset."""
    fit = fit_risk(train)
    out = np.empty(len(test))
    for source in sorted(set(test.source)):
        rows = np.array([s == source for s in test.source])
        model = fit.model(source if source in fit.sources else None)
        out[rows] = model.probability(test.select(rows), threads=1)
    return out


def logarithms(runs: RunTable, warmup: bool) -> Array:
    """Return ln of peak rate, batch, size, tokens (and warm-up) of each run, shape (n, 4 or 5)."""
    batch = runs.batch()
    parts = [batch.peak, runs.batch_tokens, runs.size, runs.tokens, *([batch.warmup_steps] if warmup else [])]
    return np.log(np.stack(parts, axis=1))


def logistic_predictor(warmup: bool, degree: int = 1, c: float = 10.0) -> Predictor:
    """Return a logistic regression (1 / c: ridge) on a polynomial in the `logarithms` of the runs."""

    def predict(train: RunTable, test: RunTable) -> Array:
        columns = PolynomialFeatures(degree, include_bias=False)
        model = make_pipeline(StandardScaler(), columns, LogisticRegression(C=c, max_iter=5000))
        model.fit(logarithms(train, warmup), run_labels(train))
        return np.asarray(model.predict_proba(logarithms(test, warmup))[:, 1])

    return predict


def boosting_predictor(train: RunTable, test: RunTable) -> Array:
    """Predict with gradient-boosted trees (scikit-learn's defaults) on all the `logarithms` of the runs."""
    model = HistGradientBoostingClassifier(random_state=0)
    model.fit(logarithms(train, True), run_labels(train))
    return np.asarray(model.predict_proba(logarithms(test, True))[:, 1])


def plug_in_threshold(p: Array) -> float:
    """Return half the highest expected F1 of decisions p > t: the best threshold if the probabilities p are right.

    No label is looked at (Lipton, Elkan and Naryanaswamy 2014, arXiv 1402.1892).
    """
    ordered = np.sort(p)[::-1]
    expected = 2.0 * np.cumsum(ordered) / (np.arange(1, len(p) + 1) + ordered.sum())
    return float(expected.max() / 2.0)


def inner_thresholds(train: RunTable, predict: Predictor) -> tuple[float, float]:
    """Return two decision thresholds by leaving each group of the training runs out in turn.

    The one of highest F1 there, and the one of highest expected F1 (`plug_in_threshold`).
    """
    groups = groups_of(train)
    p = np.empty(len(train))
    for group in np.unique(groups):
        held = groups == group
        p[held] = predict(train.select(~held), train.select(held))
    return best_threshold(p, run_labels(train)), plug_in_threshold(p)


def score(runs: RunTable, predict: Predictor, also: RunTable | None = None, test: RunTable | None = None) -> Scored:
    """Score a predictor with whole sizes of `runs` left out, or fitted on all of them and applied to `test`.

    `also` are further runs that are always in training.
    """
    if test is not None:
        folds = [(runs, np.arange(len(test)))]
        target = test
    else:
        target, groups = runs, groups_of(runs)
        folds = [(runs.select(groups != g), np.flatnonzero(groups == g)) for g in np.unique(groups)]
    p, decision, plugged = np.empty(len(target)), *np.zeros((2, len(target)), dtype=bool)
    thresholds = []
    for rest, rows in folds:
        train = rest if also is None else RunTable.concat([rest, also])
        p[rows] = predict(train, target.select(rows))
        chosen, expected = inner_thresholds(train, predict)
        thresholds.append(chosen)
        decision[rows], plugged[rows] = p[rows] > chosen, p[rows] > expected
    return Scored(p, run_labels(target), decision, tuple(thresholds), plugged)


def bootstrap(scored: Scored, rows: Sequence[object]) -> dict[str, float]:
    """Return standard deviations of the scores over resampled rows (runs that differ in the peak rate only)."""
    members: dict[object, list[int]] = {}
    for i, key in enumerate(rows):
        members.setdefault(key, []).append(i)
    pools, rng = [np.array(m) for m in members.values()], np.random.default_rng(0)
    draws: list[dict[str, float]] = []
    while len(draws) < DRAWS:
        pick = np.concatenate([pools[k] for k in rng.integers(len(pools), size=len(pools))])
        if 0 < scored.label[pick].sum() < len(pick):
            part = Scored(scored.probability[pick], scored.label[pick], scored.decision[pick], ())
            draws.append(part.scores())
    return {name: float(np.std([draw[name] for draw in draws])) for name in draws[0]}


def row_keys(runs: RunTable) -> list[object]:
    """Return a key of each run that all runs share which differ from it in the peak rate only."""
    warm = runs.batch().warmup_steps
    return list(zip(runs.source, runs.size, runs.tokens, runs.batch_tokens, warm, runs.beta1, strict=True))


@lru_cache(maxsize=1)
def steplaw_rows() -> list[tuple[tuple[float, float], float, Array, Array]]:
    """Return the rows of the dense grid: (N, D), batch, ln peak rates, labels."""
    runs = steplaw()
    peak, label = np.log(np.asarray(runs.batch().peak)), run_labels(runs)
    members: dict[tuple[float, float, float], list[int]] = {}
    for i, key in enumerate(zip(runs.size.tolist(), runs.tokens.tolist(), runs.batch_tokens.tolist(), strict=True)):
        members.setdefault(key, []).append(i)
    out = []
    for (n, d, b), rows in sorted(members.items()):
        order = np.array(rows)[np.argsort(peak[rows])]
        out.append(((n, d), b, peak[order], label[order]))
    return out


def order_of_labels() -> tuple[int, int]:
    """Return the pairs of neighbouring rates within a row, and those in which the lower rate alone diverged."""
    pairs = [(y[:-1], y[1:]) for _, _, _, y in steplaw_rows()]
    return sum(len(a) for a, _ in pairs), int(sum((a > b).sum() for a, b in pairs))


def neighbour_ceiling() -> dict[str, float]:
    """Score an oracle that knows the labels of the two rows beside: next smaller and next larger batch, same (N, D)."""
    rows = steplaw_rows()

    def threshold(peak: Array, label: Array) -> float:
        step = float(np.median(np.diff(peak)))
        low = peak[label == 0].max() if (label == 0).any() else peak[0] - step
        high = peak[label == 1].min() if (label == 1).any() else peak[-1] + step
        return float(0.5 * (low + high))

    decisions, labels, keys = [], [], []
    for i, (cell, _, peak, label) in enumerate(rows):
        beside = [rows[j] for j in (i - 1, i + 1) if 0 <= j < len(rows) and rows[j][0] == cell]
        guess = np.mean([threshold(other[2], other[3]) for other in beside])
        decisions.append(peak > guess)
        labels.append(label)
        keys += [i] * len(label)
    decision, label = np.concatenate(decisions), np.concatenate(labels)
    scored = Scored(decision.astype(float), label, decision, ())
    return {"f1": scored.scores()["f1"], "sd": bootstrap(scored, keys)["f1"]}


def simulated_ceiling(fitted: RunTable, runs: RunTable) -> dict[str, tuple[float, float]]:
    """Score the model against labels drawn from itself: what one that is exactly right about all but luck would get.

    It is fitted to `fitted`, which hold the source of `runs`, and scored on `runs`; each row draws its own threshold.
    Returns mean and standard deviation of every score.
    """
    model = fit_risk(fitted).model(runs.source[0])
    ratio = np.log(model.predict(runs).criterion)
    spread = float(np.hypot(model.scatter, model.cell_sd))
    keys = row_keys(runs)
    place = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    row = np.array([place[key] for key in keys])
    rng = np.random.default_rng(0)
    p = ndtr(ratio / spread)
    draws: list[dict[str, float]] = []
    while len(draws) < DRAWS:
        label = (ratio > spread * rng.standard_normal(len(place))[row]).astype(float)
        if label.any():
            draws.append(Scored(p, label, p > 0.45, ()).scores())
    return {
        name: (float(np.mean([d[name] for d in draws])), float(np.std([d[name] for d in draws]))) for name in draws[0]
    }
