"""Residuals of a rival law: of the runs of groups left out in turn, or of those that it was fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from optlaws.baselines._readings import level_of
from optlaws.baselines.base import FloatArray, Progress, column, fit_kind
from optlaws.errors import OptlawsError
from optlaws.law.groups import derived, group_labels
from optlaws.law.residuals import CALLED, group_texts, group_values, summary
from optlaws.runs import CurveTable, RunTable

GROUPS = 6  # neighbours are put together until there are no more groups than this
READINGS = 40  # of a curve, evenly spread, whose residuals count
GROUP_COLUMNS = ("params", "tokens", "steps", "peak_lr", "batch_tokens")


def said(what: str, progress: Progress | None) -> Progress | None:
    """Return a callback that says what its words are about."""
    return None if progress is None else lambda word: progress(f"{what}, {word}")


def _groups(runs: RunTable, group: str | None) -> tuple[str, np.ndarray] | None:
    """Return what is left out in turn, and the runs' labels 0, 1, ... (n,); None if nothing varies."""
    if group is not None:
        made = derived(runs, group)
        by = group if made is None else CALLED.get(made, made)
        return by, np.unique(group_labels(runs, group), return_inverse=True)[1]
    for name in GROUP_COLUMNS:
        values = column(runs, name)
        if not np.isfinite(values).all():
            continue
        levels, label = np.unique(values, return_inverse=True)
        if len(levels) > GROUPS:
            label = label * GROUPS // len(levels)
        if len(levels) > 1:
            return name, label
    return None


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Residuals ln(loss / prediction) of runs whose group was left out, (n,), labels of the groups (n,), summaries.

    `means` are the mean errors of the groups, in %, by the group in words.
    """

    residuals: FloatArray
    label: np.ndarray
    by: str
    errors: dict[str, float]
    groups: dict[str, Any]
    means: dict[str, float]


def left_out_residuals(
    kind: Any, runs: RunTable, group: str | None, seed: int, progress: Progress | None
) -> LeftOut | None:
    """Return the residuals of runs whose group was left out, None where there are not two of them."""
    found = _groups(runs, group)
    if found is None or not hasattr(kind, "predict"):
        return None
    by, label = found
    residuals = np.full(len(runs), np.nan)
    values = np.unique(label)
    for place, value in enumerate(values, start=1):
        held = label == value
        where = f"{by} left out, {place} of {len(values)}"
        if progress is not None:
            progress(where)
        try:
            law = fit_kind(kind, runs.select(~held), seed=seed, progress=said(where, progress))
            residuals[held] = np.log(runs.final_loss[held] / law.predict(runs.select(held)))
        except OptlawsError:  # too little is left without this group
            continue
    order = np.argsort(label, kind="stable")
    good = order[np.isfinite(residuals[order])]
    if len(good) < 2:
        return None
    kept, residuals, label = runs.select(good), residuals[good], label[good]
    relative = -np.expm1(-residuals)  # 1 - prediction / loss
    error = 100 * np.abs(relative)
    errors = {"mean_error_pct": float(error.mean()), "max_error_pct": float(error.max()), "n_runs": len(residuals)}
    values = group_values(kept, by)
    texts = group_texts(values, label)
    means = {text: float(error[label == value].mean()) for text, value in zip(texts, np.unique(label), strict=True)}
    return LeftOut(residuals, label, by, errors, summary(relative, label, texts), means)


def training_residuals(law: Any, kept: RunTable, runs: RunTable, curves: CurveTable | None) -> FloatArray:
    """Return ln(loss / prediction) of the training runs, or of their curves."""
    if curves is None or not hasattr(law, "predict_curve"):
        residuals = np.log(kept.final_loss / law.predict(kept)) if len(kept) else np.empty(0)
    else:
        row_of, parts, level = {name: i for i, name in enumerate(runs.run_id)}, [], level_of(runs, curves)
        for name, index in curves.runs().items():
            rows = index[(curves.step[index] > 0) & np.isfinite(curves.loss[index])]
            if name not in row_of or len(rows) < 2:
                continue
            rows = rows[len(rows) // 4 :]  # what comes after the warm-up
            rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(READINGS, len(rows))).astype(int))]
            predicted = law.predict_curve(runs.select([row_of[name]]), curves.step[rows])
            parts.append(np.log(level * curves.loss[rows] / predicted))
        residuals = np.concatenate(parts) if parts else np.empty(0)
    return np.asarray(residuals[np.isfinite(residuals)])
