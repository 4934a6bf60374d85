"""Do runs of another optimizer count as AdamW's at another rate: python benchmarks/optimizers.py [--write].

A law of AdamW runs that also saw some runs of Lion or Muon on the smallest network predicts that optimizer's runs on a
larger one (runs of `optlaws/data/cpu_sweep_optimizers`, trained for this; the AdamW runs are those of
`cpu_sweep_repeats`). Beside it: the same law as if the optimizer were AdamW, and a law of that optimizer's runs alone.
Then AdamW runs of arXiv 2501.18965 (public, read only) are renamed: what is put in must come out. --write puts the
page into docs/optimizers.md. The last line is JSON.
"""

# ruff: noqa: E501  (texts and tables as they are printed)
from __future__ import annotations

import argparse
import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from public import completed, load, write_page

from optlaws.errors import OptlawsWarning
from optlaws.law import Law, fit_law
from optlaws.law.optimizers import Optimizers, at_rates, fit_equivalent
from optlaws.runs import RunTable, read_runs
from optlaws.validation import configurations, same_horizon, scores

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "optlaws" / "data"
OTHERS = ("lion", "muon")
DRAWS = range(10)
COUNTS = (4, 8, 16)
RENAMED = (4, 8, 16, 32)
RATE, LOSS = 0.05, -0.02  # of the runs that are renamed


def fitted(runs: RunTable) -> Law:
    """Return a law, without the warnings that few runs bring."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptlawsWarning)
        return fit_law(runs)


def row(law: Law, runs: RunTable) -> dict[str, float]:
    """Return error, bias, order within pools, regret, cover and width of a law on runs, %."""
    p = law.predict(runs)
    s = scores(runs.final_loss, p.loss, p.lower, p.upper, same_horizon(runs), candidate=configurations(runs))
    return {
        "error": s["error"], "bias": s["bias"], "order": s["pool_spearman"], "regret": s["regret"],
        "cover": 100 * s["cover"], "width": s["width"],
    }  # fmt: skip


def mean_row(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the means of the figures of several draws, and the largest error."""
    return {key: float(np.mean([one[key] for one in rows])) for key in rows[0]} | {
        "worst": max(one["error"] for one in rows)
    }


def trained() -> dict[str, Any]:
    """Return the figures of runs trained with other optimizers, by optimizer."""
    small = completed(read_runs(DATA / "cpu_sweep_repeats" / "runs.csv"))
    adam = small.select(small.params <= 5e4)
    law = fitted(adam)
    runs = read_runs(DATA / "cpu_sweep_optimizers" / "runs.csv")
    out: dict[str, Any] = {}
    for name in OTHERS:
        mine = runs.select(np.array([each == name for each in runs.optimizer]))
        ended = completed(mine)
        first, held = (ended.select(part) for part in (ended.params < 2e4, ended.params > 2e4))
        rows: dict[str, Any] = {"as if it were AdamW": row(replace(law, optimizers=None), held)}
        for count in COUNTS:
            several = []
            for seed in DRAWS:
                pick = np.random.default_rng(seed).permutation(len(first))[:count]
                one = fit_equivalent(law, first.select(np.sort(pick)))
                several.append(row(replace(law, optimizers=Optimizers("adamw", {name: one})), held))
                if count >= len(first):
                    break
            rows[f"AdamW's law and {min(count, len(first))} runs of it"] = mean_row(several)
        rows[f"a law of these {len(first)} runs alone"] = row(fitted(first), held)
        out[name] = {
            "runs": len(mine), "diverged": len(mine) - len(ended), "first": len(first), "held": len(held), "rows": rows,
            "found": fit_equivalent(law, first).to_dict(), "from_held": fit_equivalent(law, held).to_dict(),
        }  # fmt: skip
    return out


def renamed() -> dict[int, dict[str, float]]:
    """Return how renamed AdamW runs are found again, by their number: errors of ln f and d over their sds, and %."""
    runs = completed(load("schaipp"))
    out = {}
    for count in RENAMED:
        gaps, rows = [], []
        for seed in DRAWS:
            order = np.random.default_rng(seed).permutation(len(runs))
            rest, pick = runs.select(np.sort(order[count:])), np.sort(order[:count])
            seen = at_rates(runs.select(pick), np.full(count, 1.0 / RATE))
            named = ("other",) * count
            one = fit_equivalent(
                fitted(rest), replace(seen, optimizer=named, final_loss=seen.final_loss * np.exp(LOSS))
            )
            (rate_var, _), (_, loss_var) = one.covariance
            gaps.append([(one.log_rate - math.log(RATE)) / rate_var**0.5, (one.log_loss - LOSS) / loss_var**0.5])
            rows.append([abs(one.log_rate - math.log(RATE)), abs(one.log_loss - LOSS)])
        z, far = np.abs(gaps), np.array(rows)
        out[count] = {
            "rate": 100 * float(far[:, 0].mean()), "loss": 100 * float(far[:, 1].mean()),
            "rate_in": 100 * float((z[:, 0] < 1.645).mean()), "loss_in": 100 * float((z[:, 1] < 1.645).mean()),
        }  # fmt: skip
    return out


def interval(value: float, variance: float) -> tuple[float, float]:
    """Return the ends of a 90 % interval."""
    half = 1.645 * math.sqrt(variance)
    return value - half, value + half


def words(one: dict[str, Any]) -> str:
    """Return an equivalent in words."""
    (rate_var, _), (_, loss_var) = one["covariance"]
    low, high = (math.exp(end) for end in interval(one["log_rate"], rate_var))
    less, more = (100 * math.expm1(end) for end in interval(one["log_loss"], loss_var))
    return (
        f"{math.exp(one['log_rate']):.3g} ({low:.3g} .. {high:.3g}) | {100 * math.expm1(one['log_loss']):+.2f} %"
        f" ({less:+.2f} .. {more:+.2f}) | {100 * one['scatter']:.2f} %"
    )


def page(real: dict[str, Any], again: dict[int, dict[str, float]]) -> str:
    """Return the page."""
    lines = [
        "# Other optimizers than the law's own", "",
        "Written by `python benchmarks/optimizers.py --write`. A law is fitted to the runs of one optimizer. Runs of another"
        " count as its own at f times their rate (decay per step kept), with a loss that differs by a factor; both numbers"
        " are found from some runs of it (`optlaws/law/optimizers.py`). The form was put down before any run of this page"
        " was trained, and has no constant that was chosen on them; its priors (f within a factor of ten, 5 % of loss) are"
        " judgement.", "",
        "## Runs trained for this", "",
        "`benchmarks/cpu_sweep_optimizers.yaml`: two networks, S of 13.9K and L of 39.9K parameters, cosine and WSD, four"
        " peak rates a factor of four apart, 512 and 1,024 updates, one seed. The law is that of AdamW's runs of"
        " `cpu_sweep_repeats` (S, M, L). Some of an optimizer's runs of S (all, or ten draws of fewer, seeds 0 to 9) say how"
        " it counts; its runs of L are predicted. These are far smaller than language models, and one seed scatters by about"
        " 0.36 %.", "",
    ]  # fmt: skip
    for name, one in real.items():
        lines += [
            f"### {name.capitalize()}: {one['runs']} runs, {one['diverged']} diverged; {one['held']} of L predicted", "",
            "| law | error % (worst draw) | bias % | order within pools | regret % | 90 % cover | width % |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]  # fmt: skip
        for label, f in one["rows"].items():
            worst = f" ({f['worst']:.2f})" if "worst" in f else ""
            lines.append(
                f"| {label} | {f['error']:.2f}{worst} | {f['bias']:+.2f} | {f['order']:.2f} | {f['regret']:.2f} |"
                f" {f['cover']:.0f} | {f['width']:.1f} |"
            )
        lines += [
            "", "| found from | f (90 %) | loss over AdamW's at that rate (90 %) | scatter beside the law's |",
            "| --- | --- | --- | --- |",
            f"| its {one['first']} runs of S | {words(one['found'])} |",
            f"| its {one['held']} runs of L, not used above | {words(one['from_held'])} |", "",
        ]  # fmt: skip
    lines += [
        "## AdamW runs renamed", "",
        f"Runs of arXiv 2501.18965 are taken for those of another optimizer, of rates {1 / RATE:g} times higher and losses"
        f" {100 * -math.expm1(LOSS):.1f} % lower; the law is fitted to the rest. Here two numbers are all there is, so this"
        " says only that they are found and how well their intervals hold (ten draws, seeds 0 to 9).", "",
        "| runs | error of f % | error of the loss % | f in its 90 % interval | loss in its own |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {n} | {f['rate']:.1f} | {f['loss']:.3f} | {f['rate_in']:.0f} % | {f['loss_in']:.0f} % |"
            for n, f in again.items()
        ),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print; write the page with --write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    real, again = trained(), renamed()
    text = page(real, again)
    print(text)
    if options.write:
        write_page(ROOT / "docs" / "optimizers.md", text)
    print(json.dumps({"trained": real, "renamed": again}))


if __name__ == "__main__":
    main()
