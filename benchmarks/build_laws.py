"""Rebuild the built-in laws from the public runs: python benchmarks/build_laws.py [NAME ...] [--to FOLDER].

A built-in law carries no run of others: its field is stored at points of a space-filling design over the law's domain,
its coefficients and errors are ours. Leave-group-out errors are measured by refitting without each group.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from public import completed, load, schaipp_splits
from scipy.stats import qmc

from optlaws.law import Law, fit_law
from optlaws.regression.trend_field import Settings
from optlaws.runs import RunTable
from optlaws.schedules import Schedule, parse
from optlaws.validation import HeldOut, same_budget, same_horizon, sizes

POINTS = 8192  # of the design, among which the inducing points are chosen
SETTINGS = Settings(most_inducing=192)


def _between(u: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return log-uniform values."""
    return np.asarray(low * (high / low) ** u)


def summary(scores: HeldOut, by_pool: bool = False) -> dict[str, float | None]:
    """Return the scores of a left-out split that a law's file keeps; None: no pool has runs to rank."""
    row = scores.row(by_pool=by_pool)
    within = row["pool_spearman"]
    return {
        "mean_error_pct": round(row["error"], 4),
        "spearman": round(row["spearman"], 4),
        "pool_spearman": round(within, 4) if np.isfinite(within) else None,
        "coverage": round(row["cover"], 4),
        "width_pct": round(row["width"], 4),
        "n_runs": row["runs"],
    }


def slimpajama_design(domain: dict[str, tuple[float, float]]) -> RunTable:
    """Return constant, cosine and WSD schedules that fill the domain."""
    u = qmc.Sobol(6, seed=0).random(POINTS)
    peak, size = _between(u[:, 0], *domain["peak_lr"]), _between(u[:, 1], *domain["params"])
    steps = _between(u[:, 2], *domain["steps"]).round().astype(int)
    schedules: list[Schedule] = []
    for kind, p, t, share, end in zip((u[:, 3] * 5).astype(int), peak, steps, u[:, 4], u[:, 5], strict=True):
        common = f"peak={float(p)!r},steps={t},warmup=300"
        if kind == 0:
            text = f"constant:{common}"
        elif kind == 1:
            text = f"cosine:{common},final={float(0.1 * end * p)!r}"
        else:
            decay, shape = float((0.05 + 0.9 * share) * (1 - 320 / t)), "sqrt" if kind == 2 else "linear"
            text = f"wsd:{common},decay={decay!r},shape={shape}"
        schedules.append(parse(text))
    batch = float(np.sqrt(np.prod(domain["batch_tokens"])))
    return RunTable.build(schedules, params=size, batch_tokens=batch, weight_decay=0.1)


def steplaw_design(domain: dict[str, tuple[float, float]]) -> RunTable:
    """Return cosine schedules that fill the domain."""
    u = qmc.Sobol(4, seed=0).random(POINTS)
    peak, size = _between(u[:, 0], *domain["peak_lr"]), _between(u[:, 1], *domain["params"])
    tokens, batch = _between(u[:, 2], *domain["tokens"]), _between(u[:, 3], *domain["batch_tokens"])
    steps = np.maximum((tokens / batch).round(), 100).astype(int)
    schedules = [
        parse(f"cosine:peak={float(p)!r},steps={t},warmup=2000,final={min(1e-5, float(p))!r}")
        for p, t in zip(peak, steps, strict=True)
    ]
    return RunTable.build(schedules, params=size, batch_tokens=batch, weight_decay=0.1)


def build_slimpajama() -> Law:
    """Fit `llama-slimpajama` and measure it."""
    runs = completed(load("schaipp"))
    errors: dict[str, Any] = {}
    for name, (train, test) in schaipp_splits(runs).items():
        scores, held = HeldOut(), runs.select(test)
        scores.add(fit_law(runs.select(train)), held, same_horizon(held))
        errors[name] = summary(scores)
    return _finish(
        "llama-slimpajama",
        runs,
        slimpajama_design,
        errors,
        "runs of arXiv 2501.18965 (AdamW, SlimPajama, batch 51,200 tokens, warm-up 300 steps):"
        " schedules, horizons, sizes",
    )


def build_steplaw() -> Law:
    """Fit `steplaw-dense` and measure it."""
    runs = completed(load("steplaw"))
    runs = runs.select([s == "steplaw-dense" for s in runs.source])
    errors: dict[str, Any] = {}
    for name, labels in (("one (N, D) cell left out", same_budget(runs)), ("one N left out", sizes(runs).astype(str))):
        scores = HeldOut()
        for label in np.unique(labels):
            held = runs.select(labels == label)
            scores.add(fit_law(runs.select(labels != label)), held, same_budget(held))
        errors[name] = summary(scores, by_pool=True)
    return _finish(
        "steplaw-dense",
        runs,
        steplaw_design,
        errors,
        "dense runs of arXiv 2503.04715 (AdamW, warm-up 2,000 steps, cosine to 1e-5): peak rate, batch, N, D;"
        " losses are smoothed training losses",
    )


def _finish(name: str, runs: RunTable, design: Any, errors: dict[str, Any], notes: str) -> Law:
    whole = fit_law(runs)
    law = fit_law(
        runs, name=name, settings=SETTINGS, inducing_pool=design(dict(whole.domain)),
        info={"leave_group_out": errors, "rebuild": f"python benchmarks/build_laws.py {name}", "notes": notes},
    )  # fmt: skip
    moved = 100 * np.abs(law.predict(runs).loss / whole.predict(runs).loss - 1)
    print(
        f"{name}: {len(law.posterior.inducing)} inducing points, moves predictions by {moved.mean():.4f} % on average,"
        f" {moved.max():.3f} % at most"
    )
    for split, row in errors.items():
        print(f"  {split}: {row}")
    return law


BUILDERS = {"llama-slimpajama": build_slimpajama, "steplaw-dense": build_steplaw}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(BUILDERS), metavar="NAME", help=", ".join(BUILDERS))
    parser.add_argument("--to", type=Path, default=Path(__file__).resolve().parents[1] / "optlaws" / "laws")
    arguments = parser.parse_args()
    for each in arguments.names:
        if each not in BUILDERS:
            parser.error(f"NAME must be one of {', '.join(BUILDERS)}, got {each!r}")
    for each in arguments.names:
        BUILDERS[each]().save(arguments.to / f"{each}.json")
