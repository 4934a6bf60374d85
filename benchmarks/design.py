"""Are runs that `optlaws design` chooses worth more than runs drawn at random? python benchmarks/design.py [--write].

As in docs/few_runs.md a law is fitted to a few of the small (or short) runs of a source and predicts all larger (or
longer) ones, whose losses nothing has seen. Each draw (seeds 0 to 9) first leaves a random 60 % of the small runs to
choose from, so that there is a spread; then as many runs are drawn at random from these, or chosen by `design_runs`
with all larger runs as its targets, or chosen with a quarter of the mean cost of the drawn ones as the budget. The
choice sees schedules, sizes and batches, never a loss. Its criterion (the mean variance of the targets, greedily,
from the priors as they were) was the first that was tried and nothing in it was fitted to these tables; the priors
themselves and the constants of the basis were chosen with these sources in view, which serves drawn and chosen runs
alike. Cost is 6 N D, as a multiple of the mean run of the small ones.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
from accuracy import splice, table
from few_runs import tasks
from public import Array, write_page

from optlaws import RunTable
from optlaws.design import design_runs
from optlaws.law import fit_law
from optlaws.validation import configurations, scores

ROOT = Path(__file__).resolve().parents[1]
COUNTS = (4, 6, 8, 12, 16, 24, 32, 64)
DRAWS = 10
PART = 0.6  # of the small runs, to choose from
SHARE = 0.25  # of the cost of drawn runs
HEAD = [
    "runs", "made", "error %, mean (worst draw)", "order within pools", "regret % (worst draw)",
    "90 % cover (worst draw)", "width %", "cost",
]  # fmt: skip


def figures(runs: RunTable, made: Array, held: RunTable, pool: Array) -> list[float]:
    """Return what a law fitted to some of the runs says of the held-out ones."""
    p = fit_law(runs.select(np.sort(made))).predict(held)
    s = scores(held.final_loss, p.loss, p.lower, p.upper, pool, candidate=configurations(held))
    return [s["error"], s["pool_spearman"], s["regret"], 100 * s["cover"], s["width"]]


def compared(
    runs: RunTable, small: Array, pool: Array, draws: int, counts: tuple[int, ...]
) -> dict[tuple[int, str], Array]:
    """Return figures and cost, (draws, 6), by the number of runs and how they were come by."""
    held, places = runs.select(~small), np.flatnonzero(small)
    cost = 6.0 * runs.size * runs.tokens
    cost = cost / cost[places].mean()
    unit = float((6.0 * runs.size * runs.tokens)[places].mean())
    found: dict[tuple[int, str], Array] = {}
    for count in counts:
        if count > PART * len(places):
            break
        rows: dict[str, list[list[float]]] = {"drawn": [], "designed": [], "designed, a quarter of the cost": []}
        for seed in range(draws):
            random = np.random.default_rng(seed)
            left = random.choice(places, max(count, round(PART * len(places))), replace=False)
            few = random.choice(left, count, replace=False)
            choice = runs.select(left)
            mean = float(cost[left].mean()) * count * unit
            budget = max(SHARE * mean, float(np.sort(cost[left])[:count].sum()) * unit)
            made = {
                "drawn": few,
                "designed": left[design_runs(held, choice, count, max_risk=1.0).picked],
                "designed, a quarter of the cost": left[
                    design_runs(held, choice, count, max_risk=1.0, budget=budget).picked
                ],
            }
            for name, which in made.items():
                rows[name].append([*figures(runs, which, held, pool[~small]), float(cost[which].sum())])
        found.update({(count, name): np.array(values) for name, values in rows.items()})
    return found


def lines(found: dict[tuple[int, str], Array]) -> list[list[str]]:
    """Return the rows of a table."""
    out = []
    for (count, name), values in found.items():
        mean, high, low = values.mean(axis=0), values.max(axis=0), values.min(axis=0)
        out.append([
            str(count) if name == "drawn" else "", name, f"{mean[0]:.2f} ({high[0]:.2f})", f"{mean[1]:.2f}",
            f"{mean[2]:.2f} ({high[2]:.2f})", f"{mean[3]:.0f} ({low[3]:.0f})", f"{mean[4]:.1f}", f"{mean[5]:.2g}",
        ])  # fmt: skip
    return out


def summary(found: dict[str, dict[tuple[int, str], Array]]) -> str:
    """Return in one paragraph how often the chosen runs were better."""
    parts = []
    for name in ("designed", "designed, a quarter of the cost"):
        pairs = [(rows[key], rows[key[0], "drawn"]) for rows in found.values() for key in rows if key[1] == name]
        ratio = np.exp(np.mean([np.log(a[:, 0].mean() / b[:, 0].mean()) for a, b in pairs]))
        better = sum(float(a[:, 0].mean()) < float(b[:, 0].mean()) for a, b in pairs)
        kind = [(a[:, 2].mean(), b[:, 2].mean()) for a, b in pairs]
        price = np.exp(np.mean([np.log(a[:, 5].mean() / b[:, 5].mean()) for a, b in pairs]))
        parts.append(
            f"{name}: mean error {ratio:.2f} times that of drawn runs (geometric mean of {len(pairs)} rows; lower in"
            f" {better}), mean regret {np.mean([a for a, _ in kind]):.2f} % against {np.mean([b for _, b in kind]):.2f}"
            f" %, cover {np.mean([a[:, 3].mean() for a, _ in pairs]):.0f} % against"
            f" {np.mean([b[:, 3].mean() for _, b in pairs]):.0f} %, cost {price:.2f} times"
        )
    return "Over all rows of docs/design.md, " + "; ".join(parts) + "."


def page(draws: int) -> tuple[str, str]:
    """Return the page, and its summary."""
    found, parts = {}, []
    for name, (runs, small, pool) in tasks().items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[name] = compared(runs, small, pool, draws, COUNTS)
        parts.append(f"## {name}\n\n{int((~small).sum())} runs are predicted.\n\n{table(HEAD, lines(found[name]))}")
    about, short = " ".join(str(__doc__).split("\n\n", 1)[1].split()), summary(found)
    text = (
        "# Which runs does a law need?\n\nWritten by `python benchmarks/design.py --write`"
        f" ({draws} draws, seeds 0 to {draws - 1}). {about}\n\n{short}\n\n" + "\n\n".join(parts) + "\n"
    )
    return text, short


def main() -> None:
    """Print the page; with --write also into docs/design.md, and its summary into docs/planning_guide.md."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--draws", type=int, default=DRAWS, help="how often runs are drawn (default: %(default)s)")
    parser.add_argument(
        "--write", action="store_true", help="write docs/design.md and the summary in docs/planning_guide.md"
    )
    options = parser.parse_args()
    if options.draws < 1:
        parser.error(f"--draws must be at least 1, got {options.draws}; leave it out for {DRAWS}")
    text, short = page(options.draws)
    print(text)
    if options.write:
        write_page(ROOT / "docs" / "design.md", text)
        text = f"Written by `python benchmarks/design.py --write`. {short}"
        splice(ROOT / "docs" / "planning_guide.md", "design", text)


if __name__ == "__main__":
    main()
