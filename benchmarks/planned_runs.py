"""Plan a schedule, then train it: python benchmarks/planned_runs.py --work DIR [--write].

A law is fitted, with the defaults, on all runs of the built-in sweep `cpu_sweep`. For a size and a length that the
sweep does not have it is asked for the best schedule of every family and a free one; what it says of them is put down
in DIR/plan.json before anything is trained. Then each of them is trained with several seeds on the sweep's synthetic
language, and the means are set beside the plan. Runs that are finished in DIR are not trained again. Needs torch; about
half an hour on one CPU thread. --write puts the table into docs/planned_runs.md. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import table
from numpy.typing import NDArray
from public import write_page
from scipy.stats import spearmanr, t

from optlaws import Law, fit_law, optimize_schedule, parse, read_runs
from optlaws.errors import OptlawsWarning
from optlaws.runs._files import read_text
from optlaws.runs._yaml import load_yaml

ROOT = Path(__file__).resolve().parents[1]
SWEEP = "cpu_sweep"
MODEL = {"depth": 2, "width": 40, "heads": 2}
STEPS, SEEDS, AT_ONCE = 1536, 8, 4
Floats = NDArray[np.float64]


def settings() -> dict[str, Any]:
    """Return the sweep's own training configuration, with the model and the length of the planned runs."""
    content: dict[str, Any] = load_yaml(*read_text(ROOT / "benchmarks" / f"{SWEEP}.yaml"))
    return {**content["base"], "model": MODEL}


def law_of_the_sweep() -> Law:
    """Return a law fitted on every completed run of the sweep."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptlawsWarning)  # that these runs scatter, and are in units of their own
        return fit_law(read_runs(ROOT / "optlaws" / "data" / SWEEP / "runs.csv", need_loss=True), name=SWEEP)


def plan(params: int) -> dict[str, Any]:
    """Return what the law holds of the best schedule of each family and of the free one."""
    base = settings()
    found = optimize_schedule(
        law_of_the_sweep(),
        params=params,
        steps=STEPS,
        batch_tokens=base["batch"] * base["seq_len"],
        weight_decay=base["optimizer"]["weight_decay"],
    )
    r = found.ranking
    rows = [
        {
            "family": name,
            "schedule": r.runs.schedule_tuple()[i].to_dict(),
            "loss": float(r.loss[i]),
            "lower": float(r.lower[i]),
            "upper": float(r.upper[i]),
        }
        for i, name in enumerate(r.names)
    ]
    return {
        "params": params,
        "steps": STEPS,
        "optimum": found.family,
        "gains": [
            {"family": g.family, "gain": g.gain, "lower": g.lower, "upper": g.upper, "p_real": g.p_real}
            for g in found.gains
        ],
        "rows": sorted(rows, key=lambda row: row["loss"]),
    }


def trained(work: Path, planned: dict[str, Any]) -> dict[str, Floats]:
    """Train every planned schedule with every seed; return the final losses by family, (SEEDS,), NaN = diverged."""
    from optlaws.harness import train_stacked

    out = {}
    for row in planned["rows"]:
        runs = [
            {
                **settings(),
                "schedule": parse(row["schedule"]).to_dict(),
                "seed": seed,
                "name": f"{row['family'].replace(' ', '-')}-{seed}",
            }
            for seed in range(SEEDS)
        ]
        records = train_stacked(runs, work / "runs", at_once=AT_ONCE)
        out[row["family"]] = np.array([r.final_loss if r.status == "completed" else math.nan for r in records])
        print(row["family"], np.round(out[row["family"]], 4).tolist(), flush=True)
    return out


def report(planned: dict[str, Any], real: dict[str, Floats]) -> tuple[str, dict[str, Any]]:
    """Return the page and its figures."""
    best = planned["optimum"]
    mean = {family: float(losses.mean()) for family, losses in real.items()}
    wide = t.ppf(0.95, SEEDS - 1) / math.sqrt(SEEDS)  # half of a 90 % interval of a mean, over the standard deviation
    rows, inside = [], 0
    loss_of_best = next(row["loss"] for row in planned["rows"] if row["family"] == best)
    for row in planned["rows"]:
        losses = real[row["family"]]
        apart = losses - real[best]  # seed by seed: the same start and the same data
        inside += int(((losses > row["lower"]) & (losses < row["upper"])).sum())
        rows.append(
            [
                row["family"],
                f"{row['loss']:.4f} ({row['lower']:.3f} to {row['upper']:.3f})",
                f"{losses.mean():.4f} ± {wide * losses.std(ddof=1):.4f}",
                "-" if row["family"] == best else f"{row['loss'] - loss_of_best:+.4f}",
                "-" if row["family"] == best else f"{apart.mean():+.4f} ± {wide * apart.std(ddof=1):.4f}",
            ]
        )
    equal = [
        row["family"]
        for row in planned["rows"]
        if row["family"] != best and abs((apart := real[row["family"]] - real[best]).mean()) <= wide * apart.std(ddof=1)
    ]
    guess = np.array([row["loss"] for row in planned["rows"]])
    truth = np.array([mean[row["family"]] for row in planned["rows"]])
    figures = {
        "error_pct": float(100 * np.mean(np.abs(guess / truth - 1))),
        "bias_pct": float(100 * np.mean(guess / truth - 1)),
        "spearman": float(spearmanr(guess, truth).statistic),
        "cover_pct": 100 * inside / (SEEDS * len(rows)),
        "regret_pct": 100 * (mean[best] / min(mean.values()) - 1),
        "best": min(mean, key=lambda family: mean[family]),
    }
    words = [
        f"| {g['family']} | {g['gain']:+.4f} ({g['lower']:+.4f} to {g['upper']:+.4f}) | "
        f"{np.mean(real[g['family']] - real[best]):+.4f} |"
        for g in planned["gains"]
    ]
    text = "\n".join(
        [
            "# Planned, then trained",
            "",
            "Written by `python benchmarks/planned_runs.py --work DIR --write`. "
            + " ".join(str(__doc__).split("\n\n", 2)[1].split()),
            "",
            f"{planned['params']:,} parameters, {planned['steps']:,} updates, {SEEDS} seeds each, which all schedules "
            f"share; ± is half of a 90 % interval. The plan's choice is **{best}**; "
            + (
                "it has the lowest mean, too."
                if figures["best"] == best
                else f"the lowest mean is that of **{figures['best']}**, {figures['regret_pct']:.2f} % below."
            )
            + (f" These runs do not tell it from {' and '.join(equal)}." if equal else ""),
            "",
            table(
                [
                    "best of the family",
                    "planned loss (90 %)",
                    "trained",
                    "planned minus choice",
                    "trained minus choice",
                ],
                rows,
            ).rstrip(),
            "",
            f"Mean error of the planned losses {figures['error_pct']:.2f} % (bias {figures['bias_pct']:+.2f} %), "
            f"Spearman of the order {figures['spearman']:.3f}, {figures['cover_pct']:.0f} % of the runs inside their "
            "90 % interval. What the plan said the choice gains, and what it gained (loss of the other minus its own):",
            "",
            "| against the best | planned (90 %) | trained |",
            "| --- | --- | --- |",
            *words,
            "",
        ]
    )
    return text, figures


def main() -> None:
    """Plan, train and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder of the plan and the runs")
    parser.add_argument("--write", action="store_true", help="write docs/planned_runs.md")
    given = parser.parse_args()
    try:
        from optlaws.harness import count_parameters, read_config
    except ImportError:
        sys.exit("benchmarks/planned_runs.py needs torch, got none; pip install 'optlaws[train]'")

    given.work.mkdir(parents=True, exist_ok=True)
    place = given.work / "plan.json"
    if not place.exists():
        probe = read_config({**settings(), "schedule": f"constant:peak=1e-3,steps={STEPS}"})
        place.write_text(json.dumps(plan(count_parameters(probe.model).params), indent=1) + "\n", encoding="utf-8")
    planned = json.loads(place.read_text(encoding="utf-8"))
    text, figures = report(planned, trained(given.work, planned))
    print(text)
    if given.write:
        write_page(ROOT / "docs" / "planned_runs.md", text)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
