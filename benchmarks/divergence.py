"""Scores, calibration and labels of the risk model on the public runs: python benchmarks/divergence.py [--write].

--write puts them into docs/divergence.md, docs/divergence_reliability.png and the README.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from build_risk import build
from divergence_scores import (
    Scored,
    bootstrap,
    logistic_predictor,
    neighbour_ceiling,
    order_of_labels,
    risk_predictor,
    row_keys,
    score,
    simulated_ceiling,
    steplaw,
)
from public import load, load_curves

from optlaws.dynamics import Dynamics
from optlaws.plotting import new_axes, save_figure
from optlaws.risk import PARAMETERS, Prior, RiskFit, curve_outcomes, fit_risk, labels, run_labels
from optlaws.runs import RunTable, format_quantity

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "divergence.md"
PICTURE = ROOT / "docs" / "divergence_reliability.png"
TARGETS = {
    "Step Law dense, one N left out": {"f1": 0.87, "auc": 0.993, "brier": 0.019, "ece": 0.01},
    "Marin, one size left out, Step Law in training": {"f1": 0.85, "auc": 0.95, "brier": 0.035},
    "Step Law only -> Marin": {"f1": 0.85, "auc": 0.95, "brier": 0.035},
}
LOWER_IS_BETTER = ("brier", "ece")
DIGITS = {"f1": 3, "auc": 4, "brier": 5, "ece": 4}


@dataclass(frozen=True)
class Task:
    """A protocol: runs that are split by size, runs always in training, or runs of another source to score."""

    runs: RunTable
    also: RunTable | None = None
    test: RunTable | None = None

    @property
    def target(self) -> RunTable:
        """The runs that are scored."""
        return self.test or self.runs


def tasks() -> dict[str, Task]:
    """Return the protocols, the three with targets first."""
    dense, marin = steplaw(), load("marin")
    first, second, third = TARGETS
    return {
        first: Task(dense),
        second: Task(marin, also=dense),
        third: Task(dense, test=marin),
        "Step Law dense, one N left out, Marin in training": Task(dense, also=marin),
    }


def measure() -> tuple[dict[str, Scored], dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Return the predictions of each protocol, the bootstrap of their scores, and the scores of rivals."""
    scored, spread, rivals = {}, {}, {}
    for name, task in tasks().items():
        start = time.perf_counter()
        scored[name] = score(task.runs, risk_predictor, task.also, task.test)
        spread[name] = bootstrap(scored[name], row_keys(task.target))
        print(f"{name}: {scored[name].scores()} ({time.perf_counter() - start:.0f} s)")
        if name in TARGETS:
            for warmup, words in ((False, "ln rate, B, N, D"), (True, "the same and ln warm-up")):
                rival = score(task.runs, logistic_predictor(warmup), task.also, task.test)
                rivals[f"{name}: logistic regression on {words}"] = rival.scores()
    return scored, spread, rivals


def figures(row: dict[str, float], target: dict[str, float], sd: dict[str, float]) -> list[str]:
    """Return F1, AUC, Brier and ECE with their bootstrap sd, and whether the target is reached."""
    cells = []
    for key in ("f1", "auc", "brier", "ece"):
        text = f"{row[key]:.{DIGITS[key]}f}"
        text += f" ± {sd[key]:.3f}" if sd else ""
        if key in target:
            good = row[key] <= target[key] if key in LOWER_IS_BETTER else row[key] >= target[key]
            text += f" ({'reached' if good else 'missed'}: {target[key]:g})"
        cells.append(text)
    return cells


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


def reliability(scored: dict[str, Scored]) -> None:
    """Draw observed against predicted frequency, with 90 % intervals, and how many runs each bin holds."""
    from scipy.stats import beta

    axes = new_axes(6.4, 5.4)
    axes.plot([0, 1], [0, 1], color="#7d7d7d", linewidth=1.0, linestyle="--")
    for (name, one), colour, shift in zip(
        [(name, scored[name]) for name in TARGETS], ("#0072b2", "#d55e00", "#009e73"), (0.0, 0.004, 0.008), strict=True
    ):
        place = np.minimum((one.probability * 10).astype(int), 9)
        x, y, ends, count = [], [], [], []
        for k in range(10):
            rows = place == k
            n, hits = int(rows.sum()), float(one.label[rows].sum())
            if n:
                x.append(float(one.probability[rows].mean()) + shift)
                y.append(hits / n)
                ends.append(beta.ppf([0.05, 0.95], hits + 0.5, n - hits + 0.5))
                count.append(n)
        bars = np.abs(np.array(ends).T - np.array(y))
        axes.errorbar(x, y, yerr=bars, fmt="o", color=colour, capsize=2, markersize=5, linewidth=1.2, label=name)
        for at, level, n in zip(x, y, count, strict=True):
            axes.annotate(
                f"{n}",
                (at, level),
                xytext=(5, -9 + 2500 * shift),
                textcoords="offset points",
                fontsize=7.5,
                color=colour,
            )
    axes.set_xlabel("predicted probability of divergence (mean of the bin)")
    axes.set_ylabel("share of runs that diverged, 90 % interval")
    axes.legend(loc="upper left", frameon=False, fontsize=8.5)
    axes.grid(True, color="#e6e6e6", linewidth=0.6)
    save_figure(axes.figure, PICTURE)  # type: ignore[arg-type]


def calibration_rows(scored: dict[str, Scored]) -> list[list[str]]:
    """Return runs, mean prediction and observed share of five coarse bins."""
    edges = (0.0, 0.01, 0.05, 0.2, 0.5, 0.8, 1.0 + 1e-12)
    rows = []
    for name in TARGETS:
        one = scored[name]
        for low, high in pairwise(edges):
            inside = (one.probability >= low) & (one.probability < high)
            if inside.any():
                cells = [
                    f"{int(inside.sum())}",
                    f"{one.probability[inside].mean():.3f}",
                    f"{one.label[inside].mean():.3f}",
                ]
                rows.append([name, f"{low:g} .. {min(high, 1.0):g}", *cells])
    return rows


def curve_labels() -> tuple[list[list[str]], list[list[str]]]:
    """Return counts by source of what the curve detector says, and each run that it flags."""
    counts, flagged = [], []
    for source in ("mpl", "schaipp"):
        outcomes = curve_outcomes(load_curves(source))
        status = dict(zip(*(lambda r: (r.run_id, r.status))(load(source)), strict=True))
        seen = Counter(outcome.status for outcome in outcomes.values())
        largest = max(outcomes.items(), key=lambda item: item[1].largest)
        ends = max(outcomes.items(), key=lambda item: item[1].rise)
        diverged = sum(status.get(name) == "diverged" for name in outcomes)
        counts.append(
            [
                source, f"{len(outcomes)}", f"{diverged}", f"{seen['completed']}", f"{seen['diverged']}",
                f"{seen['nonfinite']}", f"{largest[1].largest:.3f} ({largest[0]})", f"{ends[1].rise:.3f}",
            ]
        )  # fmt: skip
        flagged += [
            [source, name, outcome.status, f"{outcome.since:g}", f"{outcome.rise:.3f}", status.get(name) or "-"]
            for name, outcome in outcomes.items()
            if outcome.status != "completed"
        ]
    return counts, flagged


def status_rows() -> list[list[str]]:
    """Return runs and diverged runs by source and size."""
    rows = []
    for name in ("steplaw", "marin", "schaipp", "mpl", "nqs"):
        runs = load(name)
        label, source = run_labels(runs), np.array(runs.source)
        for each in np.unique(source):
            mine = source == each
            sizes = np.unique(runs.size[mine])
            parts = [(format_quantity(float(n)), mine & (runs.size == n)) for n in sizes]
            hit = [f"{text}: {int(np.nansum(label[part]))}" for text, part in parts if np.nansum(label[part])]
            cells = [f"{mine.sum()}", f"{int(np.nansum(label[mine]))}", ", ".join(hit) or "-"]
            rows.append([each, *cells, f"{int(np.isnan(label[mine]).sum())}"])
    return rows


def parameter_rows(fit: RiskFit) -> list[list[str]]:
    """Return prior and posterior of every number of the model."""
    prior, sd = Prior(), np.sqrt(np.diag(fit.covariance))
    names = [*PARAMETERS, *(f"offset of {source}" for source in fit.sources)]
    means = [*prior.mean, *[0.0] * len(fit.sources)]
    spreads = [*prior.sd, *[prior.source_sd] * len(fit.sources)]
    rows = [
        [name, f"{a:.3f} ± {b:.3f}", f"{c:.3f} ± {d:.3f}"]
        for name, a, b, c, d in zip(names, means, spreads, fit.mean, sd, strict=True)
    ]
    rows.append(["scatter", f"{prior.scatter:g} (times or over {np.exp(prior.scatter_sd):.2f})", f"{fit.scatter:.4f}"])
    rows.append(["cell", f"{prior.cell_sd:g} (fixed)", "-"])
    return rows


def missed_rows(scored: dict[str, Scored]) -> list[list[str]]:
    """Return how many Marin runs lie on the wrong side of the chosen threshold, by what was varied in them."""
    rows = []
    for name, task in tasks().items():
        if task.target.source[0].startswith("marin"):
            one, target = scored[name], task.target
            kinds = np.array([run.rpartition("-")[2] for run in target.run_id])
            for kind in np.unique(kinds):
                mine = kinds == kind
                false = int((mine & one.decision & (one.label == 0)).sum())
                missed = int((mine & ~one.decision & (one.label > 0)).sum())
                if false or missed:
                    rows.append([name, kind, f"{mine.sum()}", f"{int(one.label[mine].sum())}", f"{false}", f"{missed}"])
    return rows


def evidence_rows() -> list[list[str]]:
    """Return the marginal likelihood of the labels under other choices than those made by hand."""
    dense = steplaw()
    both = RunTable.concat([dense, load("marin")])
    prior = Prior()

    def with_size(mean: float) -> Prior:
        return replace(prior, mean=(prior.mean[0], mean, *prior.mean[2:]))

    choices: list[tuple[str, dict[str, Any]]] = [("as chosen", {})]
    choices += [
        (f"kappa {k:g} instead of {Dynamics().kappa:g}", {"dynamics": Dynamics(kappa=k)}) for k in (0.1, 0.2, 0.6, 1.0)
    ]
    choices += [(f"prior of size about {m:g}", {"prior": with_size(m)}) for m in (0.0, -0.02, -0.067, -0.1)]
    choices += [(f"cell {sd:g}", {"prior": replace(prior, cell_sd=sd)}) for sd in (0.002, 0.03)]
    choices += [(f"source {sd:g}", {"prior": replace(prior, source_sd=sd)}) for sd in (0.03, 0.1)]
    out = []
    for name, settings in choices:
        found = [fit_risk(runs, **settings).evidence for runs in (dense, both)]
        out.append([name, *(f"{value:.2f}" for value in found)])
    return out


def page(scored: dict[str, Scored], spread: dict[str, dict[str, float]], rivals: dict[str, dict[str, float]]) -> str:
    """Return docs/divergence.md."""
    oracle, simulated = neighbour_ceiling(), simulated_ceiling(steplaw())
    pairs, flips = order_of_labels()
    fit, runs = build()
    counts, flagged = curve_labels()
    offsets = dict(zip(fit.sources, fit.mean[len(PARAMETERS) :], strict=True))
    apart = 100 * np.expm1(offsets["marin2025-adamw"] - offsets["steplaw-dense"])
    rows = []
    for name in TARGETS | {k: {} for k in scored}:
        row = scored[name].scores()
        low, high = min(scored[name].thresholds), max(scored[name].thresholds)
        chosen = f"{low:.2f}" if low == high else f"{low:.2f} .. {high:.2f}"
        rows.append([name, *figures(row, TARGETS.get(name, {}), spread[name]), chosen, f"{row['f1_at_half']:.3f}"])
    header = ["left out", "F1", "AUC", "Brier", "ECE", "threshold chosen inside", "F1 at 0.5"]
    rival_rows = [[name, *figures(row, {}, {})] for name, row in rivals.items()]
    ideal = [f"{simulated[k][0]:.4f} ± {simulated[k][1]:.4f}" for k in ("f1", "auc", "brier", "ece")]
    ceiling = [
        ["model drawn from itself: exactly right but for the scatter", *ideal],
        ["oracle that sees the labels of the rows beside", f"{oracle['f1']:.3f} ± {oracle['sd']:.3f}", "-", "-", "-"],
    ]
    flagged_text = (
        table(["source", "run", "verdict", "since step", "rise", "status"], flagged) if flagged else "None.\n"
    )
    return PAGE_TEXT.format(
        scores=table(header, rows),
        ceiling=table(["Step Law dense", "F1", "AUC", "Brier", "ECE"], ceiling),
        pairs=f"{pairs:,}", flips=flips,
        rivals=table(["left out: rival", "F1", "AUC", "Brier", "ECE"], rival_rows),
        calibration=table(["left out", "predicted", "runs", "mean prediction", "diverged"], calibration_rows(scored)),
        missed=table(["left out", "varied", "runs", "diverged", "false alarms", "missed"], missed_rows(scored)),
        apart=f"{apart:.0f}",
        parameters=table(["number", "prior", "fitted on all public runs"], parameter_rows(fit)),
        evidence=table(["choice", "Step Law", "Step Law and Marin"], evidence_rows()),
        runs=f"{len(runs):,}", rows=fit.rows, diverged=int(run_labels(runs).sum()),
        by_status=table(["source", "runs", "diverged", "by size", "not known"], status_rows()),
        curves=table(
            ["source", "curves", "by status", "completed", "diverged", "nonfinite", "largest rise", "at the end"],
            counts,
        ),
        flagged=flagged_text, rise=labels.RISE, sustained=labels.SUSTAINED, window=labels.WINDOW, fewest=labels.FEWEST,
    )  # fmt: skip


PAGE_TEXT = """# Divergence

Written by `python benchmarks/divergence.py --write` from the public runs; no row of them is in this repository.

## The criterion

A run is judged by the highest *felt* rate u = x / R on its way: the scaled rate over the weight norm, which grows
during the warm-up and so bounds u (`theory/stability.py`: for a linear warm-up that is not very short, u depends on the
slope peak / warm-up alone, as its cube root). It is held against a critical rate

    ln u_c = level + size ln n + recovery ln(1 + h / h0) - ln(1 + (s / b) h / (h + h1)) + momentum ln((1 - beta1) / .1)

(h steps at half the peak rate or more, n parameters, b tokens a step). **Criterion: u / u_c, threshold 1.** The
probability of divergence is the normal distribution function of ln(u / u_c) over the scatter of thresholds, widened by
what is not known of the numbers (their posterior covariance, the offset of a source that was never seen).

What is derived and what is not: the felt rate, its maximum, and the edge 1 / (1 + s / b) of a mode under multiplicative
noise are. That a run which blew up early can recover (h0), that noise needs time (h1), and the exponents are read off
runs. How beta1 enters is open: linear theory moves the edge up and the growth beyond it up, too; runs say that a
longer memory is less stable.

## Scores

Each row: fitted without the runs scored; the decision threshold of F1 chosen on inner folds (each training source and
size left out in turn); ± is the standard deviation over resampled rows of runs. Targets in brackets. The last column is
the decision at the criterion's own threshold, 1, where nothing is chosen.

{scores}
Chosen by hand, with these public tables in view: the form of the criterion (logarithmic recovery and noise instead of a
quadratic in ln b; evidence of the training runs spoke for them), the priors below, the felt rate's constants (those of
the loss laws), and the rule for the decision threshold. Marin's ten runs with another beta1 were seen before the prior
of `momentum` was written: it is half of what "the warm-up counts in units of the momentum's memory" would give, with a
standard deviation of half of that. The prior of `size` is the middle between a critical peak rate like N^-1/3 and
N^-1/2 (width grows like N^1/3 to N^1/2). Everything else is fitted in each fold.

### What the labels allow

Labels are ordered along the rate ({flips} wrong-way pairs of {pairs}), but the threshold jitters from one batch size to
the next, and nothing that is known before a run explains it. A model that is exactly right about everything but this
jitter gets:

{ceiling}
So on Step Law nothing is left to gain but luck. On Marin there is: its critical felt rate lies {apart} % above that of
Step Law, which a criterion fitted on the other source cannot know, and its few diverged runs leave F1 a standard
deviation of .08. Its order of runs by risk is right (AUC); its level is not. What lies on the wrong side:

{missed}
### Rivals under the same protocol

{rivals}
## Calibration and class imbalance

One run in ten diverged, and most runs are far from the threshold, so accuracy says nothing and AUC little: Brier score
and calibration error are what the probability is chosen by. Nothing is reweighted or resampled - that would break the
calibration - and a row of runs that differ in the rate only counts as one observation, not as twelve independent ones.
The threshold of a decision is a matter of costs: F1 takes both errors alike, and is best near .45. A diverged run costs
more than a slightly lower peak rate: `optlaws rank` and `optlaws risk` accept 5 % unless told otherwise (`--max-risk`).

![Share of runs that diverged against the predicted probability.](divergence_reliability.png)

{calibration}
Marin's probabilities between .2 and .5 are too high by the offset of its source; `optlaws fit` on runs of one's own
moves that offset, and completed runs alone do so, too.

## The numbers

Fitted on {runs} runs ({diverged} diverged) in {rows} rows by `python benchmarks/build_risk.py`; the two built-in laws
hold these numbers, each with the offset of its own source. The mixture-of-experts half of Step Law has no divergence:
its highest rate is 2.8e-3, far below the threshold. Multi-Power-Law runs do not say their batch and are left out.

{parameters}
Other choices, by ln of the marginal likelihood of the labels (higher is better; a difference of 1 says little, of 3
something). The growth of the norm, kappa, was taken over from the loss laws and not fitted here; labels of divergence
ask for the same value:

{evidence}
## Labels

Run tables: `status`.

{by_status}
Curves: `optlaws.risk.curve_outcome`. A run counts as diverged where the running median of {window} readings ends above
{rise} times its lowest value so far and has stayed there for {sustained:.0%} of the readings (at least {fewest}); as
nonfinite at the first reading that is no finite number. What it says of every public curve ("largest rise": the running
median over its lowest value before, at any reading):

{curves}
Curves flagged:

{flagged}"""


def readme_block(scored: dict[str, Scored], spread: dict[str, dict[str, float]]) -> str:
    """Return the table of the README."""
    rows = [[name, *figures(scored[name].scores(), TARGETS[name], spread[name])] for name in TARGETS]
    head = ["left out", "F1", "AUC", "Brier", "ECE"]
    return f"Written by `python benchmarks/divergence.py --write`.\n\n{table(head, rows)}"


def main() -> None:
    """Measure, print, and write where asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    scored, spread, rivals = measure()
    text = page(scored, spread, rivals)
    if write:
        PAGE.write_text(re.sub(r"\n{3,}", "\n\n", text), encoding="utf-8")
        reliability(scored)
        readme = ROOT / "README.md"
        old = readme.read_text(encoding="utf-8")
        block = f"<!-- risk:begin -->\n{readme_block(scored, spread)}<!-- risk:end -->"
        new = re.sub(r"<!-- risk:begin -->.*?<!-- risk:end -->", lambda _: block, old, flags=re.DOTALL)
        readme.write_text(new, encoding="utf-8")
    else:
        print(text)
    last: dict[str, Any] = {name: one.scores() for name, one in scored.items()}
    print(json.dumps(last))


if __name__ == "__main__":
    main()
