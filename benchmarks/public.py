"""Splits and scores on the public runs (shared by the benchmarks; the data are read, never copied)."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from optlaws.errors import ExtrapolationWarning, RankDeficiencyWarning
from optlaws.law import Law, fit_law
from optlaws.runs import CurveTable, RunTable, atomic_write, read_curves, read_runs
from optlaws.validation import HeldOut, cross_validate, finished, same_budget, sizes

warnings.simplefilter("ignore", ExtrapolationWarning)  # what is held out lies outside on purpose
warnings.simplefilter("ignore", RankDeficiencyWarning)

Array = np.ndarray
FITTED = ("cosine_24000", "constant_24000", "wsdcon_9")  # Multi-Power-Law protocol


def data_dir() -> Path:
    """Return the folder of the public tables: OPTLAWS_DATA, or ../shared/data beside the checkout."""
    folder = Path(os.environ.get("OPTLAWS_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        sys.exit(
            f"the public tables were not found in {folder};"
            " set OPTLAWS_DATA to the folder that holds schaipp_runs.csv and the others"
        )
    return folder


def data_file(name: str) -> Path:
    """Return the path of one of the public tables; one that is absent ends the script with one sentence."""
    path = data_dir() / name
    if not path.is_file():
        sys.exit(
            f"the public table {name} was not found in {path.parent};"
            " put it there, or set OPTLAWS_DATA to the folder that holds it"
        )
    return path


def load(name: str) -> RunTable:
    """Read a run table of the public data."""
    return read_runs(data_file(f"{name}_runs.csv"))


def load_curves(name: str) -> CurveTable:
    """Read a curve table of the public data."""
    return read_curves(data_file(f"{name}_curves.csv"))


def write_page(path: Path, text: str) -> None:
    """Write a page that takes its name only when it is whole."""
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path) as stream:
        stream.write(text)


def completed(runs: RunTable) -> RunTable:
    """Return the runs that ended with a finite loss."""
    return runs.select(finished(runs) & np.array([status == "completed" for status in runs.status]))


def schaipp_splits(runs: RunTable) -> dict[str, tuple[Array, Array]]:
    """Return the named (train, test) masks on the schaipp runs."""
    kind = np.array([s.kind for s in runs.schedule_tuple()])
    peak = np.asarray(runs.batch().peak)
    n, steps = sizes(runs), runs.steps
    middle = n == 84934656
    out = {
        "horizon > 25k": (steps <= 25000, steps > 25000),
        "cosine from WSD": (kind != "cosine", kind == "cosine"),
        "WSD from cosine": (kind != "wsd", kind == "wsd"),
        "constant from both": (kind != "constant", kind == "constant"),
    }
    for rate in (1e-4, 5e-4, 1e-3, 2e-3):
        same = np.isclose(peak, rate)
        out[f"peak {rate:g} left out"] = (middle & ~same, middle & same)
    out["sizes > 60M"] = (n <= 6e7, n > 6e7)
    out["sizes > 100M"] = (n <= 1e8, n > 1e8)
    return out


def schaipp_rows(fit: Callable[..., Law] = fit_law) -> dict[str, dict[str, Any]]:
    """Return the figures of every schaipp split."""
    runs = completed(load("schaipp"))
    splits = ((name, train, test) for name, (train, test) in schaipp_splits(runs).items())
    rows = cross_validate(runs, splits, fit)
    del rows["all"]  # the splits overlap
    return rows


def steplaw_rows(source: str, by: str, fit: Callable[..., Law] = fit_law) -> dict[str, Any]:
    """Return the figures on one half of the Step Law grid with whole cells, or sizes, left out one at a time."""
    runs = completed(load("steplaw"))
    runs = runs.select([s == source for s in runs.source])
    cells = same_budget(runs)
    labels = cells if by == "cell" else sizes(runs).astype(str)
    splits = ((label, labels != label, labels == label) for label in np.unique(labels))
    return cross_validate(runs, splits, fit, pool=same_budget, by_pool=True)["all"]


def nqs_rows(fit: Callable[..., Law] = fit_law) -> dict[str, dict[str, Any]]:
    """Return the figures on the noisy-quadratic runs: largest compute left out, from 1/15 and from 1/4 of it.

    The third row predicts all that is larger than the training runs, its authors' filtered runs left out on both sides.
    """
    runs = completed(load("nqs"))
    compute = runs.params * runs.tokens
    ratio = compute.max() / compute
    out = {}
    kept = np.array([cell != "True" for cell in runs.extra["filtered"]])
    small, largest = ratio >= 15.5, ratio < 1.8
    for name, train, test in (
        ("from <= 1/15.6 of the compute", small, largest),
        ("from <= 1/4 of the compute", ratio >= 3.9, largest),
        ("all above 1/15.6 of the compute, unfiltered", small & kept, ~small & kept),
    ):
        held, result = runs.select(test), HeldOut()
        result.add(fit(runs.select(train)), held, np.zeros(len(held)))
        out[name] = result.row()
    return out


def mpl_rows(fit: Callable[..., Law] = fit_law) -> dict[str, dict[str, Any]]:
    """Return the figures of the Multi-Power-Law protocol: fit on three curves of a size, predict the others.

    `folds` holds those of each held-out curve.
    """
    runs, curves = load("mpl"), load_curves("mpl")
    where = curves.runs()
    out: dict[str, dict[str, Any]] = {}
    for size in ("25M", "100M", "400M"):
        mine = np.array([name.startswith(size + "-") for name in runs.run_id])
        shape = np.array([name.split("-")[1] for name in runs.run_id])
        train = runs.select(mine & np.isin(shape, FITTED))
        test = runs.select(mine & ~np.isin(shape, FITTED))
        if not len(test) or not len(train):
            continue
        seen = curves.select(np.isin(np.asarray(curves.run_id), train.run_id))  # no fit is handed a held-out reading
        start = time.perf_counter()
        law = fit(train, seen)
        seconds = time.perf_counter() - start
        figures, covers, widths = [], [], []
        for i, name in enumerate(test.run_id):
            rows = where[name]
            y = curves.loss[rows]
            p = law.predict_curve(test.select([i]), np.maximum(curves.step[rows], 1.0))
            e = np.abs(p.loss - y)
            figures.append(
                [
                    1 - (e**2).sum() / ((y - y.mean()) ** 2).sum(),
                    e.mean(),
                    np.sqrt((e**2).mean()),
                    (e / y).mean(),
                    (e / y).max(),
                    e[-1],
                ]
            )
            covers.append(((y >= p.lower) & (y <= p.upper)).mean())
            widths.append((100 * (p.upper - p.lower) / p.loss).mean())
        mean = np.mean(figures, axis=0)
        names = ("r2", "mae", "rmse", "pred_e", "worst_e", "final")
        out[size] = dict(zip(names, map(float, mean), strict=True))
        out[size] |= {f"{name}_sd": float(sd) for name, sd in zip(names, np.std(figures, axis=0), strict=True)}
        out[size]["folds"] = dict(zip(names, np.transpose(figures).tolist(), strict=True))
        out[size] |= {
            "cover": float(np.mean(covers)),
            "width": float(np.mean(widths)),
            "curves": len(test),
            "seconds": seconds,
        }
    return out
