"""How the figures of all laws are laid out, and which of them are told apart. Part of benchmarks/rivals.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from accuracy import table
from scipy.stats import t

OURS = "optlaws"
SCHAIPP_GROUPS = ("horizon", "family", "peak rate", "size")
Column = tuple[str, str, str, str | None, int]  # head, task, figure, spread, digits
SHORT: tuple[Column, ...] = (  # the README's: what a ranking needs first, without the spreads, which the page has
    ("Top-2", "schedules all", "hits", None, 0),
    ("Spearman", "schedules all", "spearman", None, 3),
    ("horizon, error %", "schedules horizon", "error", None, 3),
    ("family, error %", "schedules family", "error", None, 3),
    ("peak rate, error %", "schedules peak rate", "error", None, 3),
    ("size, error %", "schedules size", "error", None, 3),
    ("Step Law cell, error %", "Step Law cell left out", "error", None, 3),
    ("Step Law cell, regret %", "Step Law cell left out", "regret", None, 3),
    ("N = 537M, MAE nats", "Step Law N = 537M", "mae", None, 4),
    ("curves 25M, PredE x 1e5", "curves 25M", "pred_e", None, 1),
    ("curves 100M, PredE x 1e5", "curves 100M", "pred_e", None, 1),
    ("few steps, RMSLE %", "few steps from 1/15.6", "rmsle", None, 2),
    ("fit, s", "speed", "fit", None, 2),
    ("1,000 predictions, s", "speed", "predict", None, 4),
)
LONG: dict[str, tuple[Column, ...]] = {
    "Whole curves (Multi-Power-Law protocol: fitted on three curves of a size, mean over its held-out curves)": tuple(
        (f"{size} {label}", f"curves {size}", key, f"{key}_sd", digits)
        for size in ("25M", "100M", "400M")
        for key, label, digits in (
            ("r2", "R2", 4), ("mae", "MAE", 5), ("rmse", "RMSE", 5), ("pred_e", "PredE x 1e5", 1),
            ("worst_e", "WorstE x 1e5", 1), ("final", "final step", 4),
        )
    ),
    "Schedules, horizons, rates, sizes (runs of arXiv 2501.18965; error %, Spearman within pools, Top-2)": tuple(
        (f"{group} {label}", f"schedules {group}", key, spread, 3)
        for group in SCHAIPP_GROUPS
        for key, label, spread in (
            ("error", "error %", "spread"), ("spearman", "Spearman", "spearman_spread"), ("hits", "Top-2", None),
        )
    ),
    "Peak rate, batch, size, data (dense Step Law grid; laws without a loss have only a regret)": tuple(
        (f"{name} {label}", f"Step Law {name}", key, spread, digits)
        for name in ("cell left out", "N left out", "N = 537M")
        for key, label, spread, digits in (
            ("error", "error %", "spread", 3), ("regret", "regret %", "regret_spread", 3),
            ("mae", "MAE nats", "mae_spread", 4),
        )
    ),
    "Tiny batches and few steps (noisy-quadratic runs, largest compute left out)": tuple(
        (f"from {part} {key}", f"few steps from {part}", key, None, 2)
        for part in ("1/15.6", "1/4")
        for key in ("rmsle", "error", "worst")
    ),
    "Time (142 runs of one size; 1,000 WSD candidates of 50,000 steps)": SHORT[-2:],
}  # fmt: skip
LARGER = {"r2", "spearman", "hits"}
SMALL = {"pred_e", "worst_e"}  # shown times 1e5


def value(figures: dict[str, Any], column: Column) -> float | None:
    """Return a figure in the unit of its column, None where the law has none."""
    _, task, key, _, _ = column
    found = figures.get(task, {}).get(key)
    return None if found is None or not np.isfinite(found) else float(found) * (1e5 if key in SMALL else 1)


def cell(figures: dict[str, Any], column: Column) -> str:
    """Return a figure as text, with its spread over folds."""
    _, task, key, spread, digits = column
    found = value(figures, column)
    if found is None:
        return "-"
    row = figures[task]
    if key == "hits":
        return f"{found:.0f} of {row['pools']}"
    text = f"{found:.{digits}f}"
    if spread and row.get(spread) is not None:
        text += f" ± {row[spread] * (1e5 if key in SMALL else 1):.{digits}f}"
    if row.get("share", 1.0) < 0.995:
        text += f" ({100 * row['share']:.0f} % of runs)"
    return text


def ahead(results: dict[str, dict[str, Any]], columns: tuple[Column, ...]) -> list[str]:
    """Return a sentence for every column in which another law is ahead of ours or as good, or ours has no figure."""
    out = []
    for column in columns:
        found = {name: value(figures, column) for name, figures in results.items()}
        here = {name: v for name, v in found.items() if v is not None}
        if not here or set(here) == {OURS}:
            continue
        best = (max if column[2] in LARGER else min)(here, key=lambda name: here[name])
        mine = here.get(OURS)
        if best != OURS and (mine is None or here[best] != mine):
            ours = "no figure" if mine is None else cell(results[OURS], column)
            out.append(f"{column[0]}: {best} {cell(results[best], column)}, ours {ours}")
        elif tied := [name for name, figure in here.items() if name != OURS and figure == mine]:
            out.append(f"{column[0]}: {', '.join(tied)} as good, {cell(results[OURS], column)}")
    return out


def text_table(results: dict[str, dict[str, Any]], columns: tuple[Column, ...]) -> str:
    """Return a Markdown table of the laws that have a figure in one of the columns; the best of each is bold."""
    columns = tuple(c for c in columns if any(value(f, c) is not None for f in results.values()))
    if not columns:
        return ""
    rows = []
    for name, figures in results.items():
        texts = [cell(figures, column) for column in columns]
        if set(texts) != {"-"}:
            rows.append([name, *texts])
    for j, column in enumerate(columns, 1):
        numbers = [value(results[row[0]], column) for row in rows]
        here = [v for v in numbers if v is not None]
        best = (max if column[2] in LARGER else min)(here)
        for row, number in zip(rows, numbers, strict=True):
            if number == best:
                row[j] = f"**{row[j]}**"
    return table(["law", *(column[0] for column in columns)], rows)


def alike(results: dict[str, dict[str, Any]], columns: tuple[Column, ...]) -> list[str]:
    """Return a sentence for every column with laws that are not told apart from ours.

    Those whose differences from ours, fold by fold and over the runs that both predict, have a mean of which the 90 %
    interval (Student) holds 0.
    """
    out = []
    for column in columns:
        _, task, key, _, _ = column
        folds = {name: figures.get(task, {}).get("folds", {}).get(key, []) for name, figures in results.items()}
        ours = np.array(folds.get(OURS, []), dtype=float)
        if len(ours) < 2:
            continue
        near = []
        for name, values in folds.items():
            if name == OURS or len(values) != len(ours):
                continue
            gap = _gaps(
                results[name].get(task, {}), results[OURS].get(task, {}), key, np.array(values, dtype=float) - ours
            )
            gap = gap[np.isfinite(gap)]
            if len(gap) < 2:
                continue
            reach = float(t.ppf(0.95, len(gap) - 1)) * float(gap.std(ddof=1)) / np.sqrt(len(gap))
            if abs(float(gap.mean())) <= reach:
                near.append(f"{name} ({cell(results[name], column)})")
        if near:
            out.append(f"{column[0]} (ours {cell(results[OURS], column)}): {', '.join(near)}")
    return out


def _gaps(theirs: dict[str, Any], ours: dict[str, Any], key: str, whole: np.ndarray) -> np.ndarray:
    """Return the differences of the folds, each of the runs that both predict where these are known."""
    pairs = zip(theirs.get("each", {}).get(key, []), ours.get("each", {}).get(key, []), strict=True)
    gaps = [np.nanmean(np.array(a, dtype=float) - np.array(b, dtype=float)) for a, b in pairs]
    return np.array(gaps) if gaps else whole


__all__ = ["LONG", "OURS", "SHORT", "Column", "ahead", "alike", "cell", "text_table", "value"]
