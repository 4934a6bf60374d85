"""What curves say of the time-scales: python benchmarks/curve_prior.py [--write] measures the prior of a fit to curves.

A fit to curves finds kappa, the exponent of the temperature and the exponent of the bias by evidence, about a prior. This
script asks groups of public training curves for that prior (empirical Bayes): the evidence of each group on a grid, then
the normal distribution of ln constant that makes all groups together most probable. Test curves of the Multi-Power-Law
protocol are not looked at. Beside the prior from all groups stand those from one source alone, and what each of them
makes of the Multi-Power-Law test curves: a prior of the other source alone is the nested figure.
"""

# ruff: noqa: E501  (tables as they are printed)
from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import table
from public import FITTED, completed, load, load_curves, mpl_rows, write_page

from optlaws.features import get_basis
from optlaws.law import fit_law, fitting
from optlaws.regression.trend_field import Settings, trend_evidence
from optlaws.validation import sizes

ROOT = Path(__file__).resolve().parents[1]
GRID = {
    "kappa": np.geomspace(0.06, 2.0, 7),
    "temperature_exponent": np.geomspace(0.5, 1.0, 5),
    "aT": np.geomspace(0.25, 0.8, 5),
}
GROUP = 10  # curves of a schaipp group
GROUPS = 5
SEED = 0
NARROWEST = 0.1  # least sd of ln constant: groups are few

OWN = {**get_basis().dynamics.to_dict(), **get_basis().exponents}

Prior = Mapping[str, tuple[float, float]]


def groups() -> dict[str, fitting._Fit]:
    """Return the groups of curves, by name: each what a user might fit a law to."""
    settings = Settings()
    own = settings.curve_field_sd
    settings = replace(
        settings,
        trend_sd=own,
        field_sd=own,
        spreads=settings.curve_spreads,
        most_inducing=min(fitting.CALIBRATION_INDUCING, settings.most_inducing),
    )
    out = {}
    runs, curves = load("mpl"), load_curves("mpl")
    name = np.array(runs.run_id)
    for size in ("25M", "100M", "400M"):
        mine = np.isin(name, [f"{size}-{shape}" for shape in FITTED])
        out[f"mpl {size}"] = fitting._Fit(runs.select(mine), curves, get_basis(), settings, None)
    runs, curves = completed(load("schaipp")), load_curves("schaipp")
    where = curves.runs()
    logged = np.array([len(where.get(i, ())) >= 12 for i in runs.run_id])
    params = sizes(runs)
    middle = np.random.default_rng(SEED).permutation(np.flatnonzero(logged & (params == 84934656)))
    for k in range(GROUPS):
        picked = np.sort(middle[k * GROUP : (k + 1) * GROUP])
        out[f"schaipp 85M, {k + 1}"] = fitting._Fit(runs.select(picked), curves, get_basis(), settings, None)
    for n in np.unique(params[logged & (params != 84934656)]):
        mine = logged & (params == n)
        if mine.sum() >= 4:
            out[f"schaipp {n / 1e6:.0f}M"] = fitting._Fit(runs.select(mine), curves, get_basis(), settings, None)
    return out


def evidence(work: fitting._Fit) -> np.ndarray:
    """Return the log evidence of one group at every point of the grid."""
    basis = get_basis()
    out = []
    for values in itertools.product(*GRID.values()):
        chosen = dict(zip(GRID, values, strict=True))
        trial = basis.with_constants(
            {k: v for k, v in chosen.items() if k not in basis.exponents},
            {k: v for k, v in chosen.items() if k in basis.exponents},
        )
        out.append(trend_evidence(work.problem(trial)[0], trial.prior, work.settings, centre=trial.centre))
    return np.array(out)


def empirical_bayes(logs: list[np.ndarray], steps: int = 200) -> Prior:
    """Return centre over the basis' value, and sd of ln constant, that make the groups most probable together (EM on the grid)."""
    points = np.log(np.array(list(itertools.product(*GRID.values()))))
    centre, sd = points.mean(axis=0), np.full(points.shape[1], 0.5)
    for _ in range(steps):
        before = -0.5 * (((points - centre) / sd) ** 2).sum(axis=1)
        first, second = [], []
        for log in logs:
            weight = np.exp(log + before - (log + before).max())
            weight /= weight.sum()
            first.append(weight @ points)
            second.append(weight @ (points - first[-1]) ** 2)
        centre = np.mean(first, axis=0)
        sd = np.maximum(np.sqrt(np.mean(second, axis=0) + np.var(first, axis=0)), NARROWEST)
    return {name: (float(np.exp(c)) / OWN[name], float(s)) for name, c, s in zip(GRID, centre, sd, strict=True)}


def with_prior(prior: Prior | None) -> list[str]:
    """Return PredE and the last step's error of 25M and 100M under a prior (None: the package's own)."""
    kept = fitting.CALIBRATED
    try:
        if prior is not None:
            fitting.CALIBRATED = dict(prior)
        rows: dict[str, Any] = mpl_rows(partial(fit_law))
    finally:
        fitting.CALIBRATED = kept
    return [f"{rows[s]['pred_e']:.5f} / {rows[s]['final']:.4f}" for s in ("25M", "100M")]


def shown(prior: Prior) -> list[str]:
    """Return a prior's cells."""
    return [f"{centre * OWN[name]:.2f} ({sd:.2f})" for name, (centre, sd) in prior.items()]


def main() -> None:
    """Measure and print; with --write also into docs/curve_prior.md."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help="write docs/curve_prior.md")
    args = parser.parse_args()
    logs = {}
    for name, work in groups().items():
        logs[name] = evidence(work)
        best = list(itertools.product(*GRID.values()))[int(np.argmax(logs[name]))]
        print(name, " ".join(f"{v:.2f}" for v in best), flush=True)
    points = list(itertools.product(*GRID.values()))
    peaks = [[name, *(f"{v:.2f}" for v in points[int(np.argmax(log))])] for name, log in logs.items()]
    used = fitting.CALIBRATED
    rows = [["in the package", *shown(used), *with_prior(None)]]
    for title, key in (("all groups", ""), ("schaipp groups alone (nested)", "schaipp"), ("mpl groups alone", "mpl")):
        prior = empirical_bayes([log for name, log in logs.items() if name.startswith(key)])
        rows.append([title, *shown(prior), *with_prior(prior)])
    names = list(GRID)
    text = (
        "# Prior of a fit to curves\n\nWritten by `python benchmarks/curve_prior.py --write`. "
        + " ".join(__doc__.split("\n\n", 1)[1].split())
        + "\n\n## Where the evidence of each group is highest (points of the grid)\n\n"
        + table(["group", *names], peaks)
        + "\n\n## Priors: centre (sd of ln), and the Multi-Power-Law test curves: PredE / error of the last step\n\n"
        + table(["from", *names, "25M", "100M"], rows)
    )
    print(text)
    if args.write:
        write_page(ROOT / "docs" / "curve_prior.md", text.rstrip() + "\n")


if __name__ == "__main__":
    main()
