"""What the labels say: counts of the run tables, and the verdict of the curve detector on every public curve."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from public import load, load_curves

from optlaws.risk import CurveOutcome, curve_outcomes, labels, run_labels
from optlaws.runs import format_quantity, read_curves, read_runs

LABELS_PAGE = Path(__file__).resolve().parents[1] / "docs" / "divergence_labels.md"
DATA = LABELS_PAGE.parents[1] / "optlaws" / "data"
CURVES = ("mpl", "schaipp")
TABLES = ("steplaw", "marin", "schaipp", "mpl", "nqs")
RULE = f"""A run counts as diverged where the running median of {labels.WINDOW} readings ends above {labels.RISE}
times its lowest value so far and has stayed there for {labels.SUSTAINED:.0%} of the readings (at least
{labels.FEWEST}); as nonfinite at the first reading that is no finite number."""


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


def verdicts() -> dict[str, dict[str, CurveOutcome]]:
    """Return what the curve detector says, by source and run."""
    return {source: curve_outcomes(load_curves(source)) for source in CURVES}


def curve_rows(found: dict[str, dict[str, CurveOutcome]]) -> tuple[list[list[str]], list[list[str]]]:
    """Return counts by source of what the curve detector says, and each run that it flags."""
    counts, flagged = [], []
    for source, outcomes in found.items():
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
    for name in TABLES:
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


def percent(ratio: float) -> str:
    """Return a rise in %."""
    return f"{100 * (ratio - 1):.2f}"


def own_runs() -> str:
    """Return the section on the built-in sweeps: what their status says, and what the detector makes of the curves."""
    rows = []
    for folder in sorted(path.parent for path in DATA.glob("*/runs.csv")):
        runs, curves = read_runs(folder / "runs.csv", need_loss=True), read_curves(folder / "curves.csv")
        seen = curve_outcomes(curves)
        for status in ("completed", "diverged"):
            mine = [seen[name] for name, own in zip(runs.run_id, runs.status, strict=True) if own == status]
            if not mine:
                continue
            told = Counter(outcome.status for outcome in mine)
            most = max(outcome.largest for outcome in mine)
            rows.append([folder.name, status, *(str(told[k]) for k in ("completed", "diverged")), percent(most)])
    return (
        "## Our own sweeps\n\n"
        "The status of these runs is that of `optlaws sweep`: diverged is a run that broke down while it\n"
        "was trained, or one that ends above 1.2 times the best loss of its size and tokens, the rule of Step Law's\n"
        "table. The second looks at other runs too, the detector at one curve alone: a run that stays high from the\n"
        "start and never rises it calls completed. During a run the law stands in for the other runs (docs/monitor.md,"
        " the\nruns that learnt"
        " nothing).\n\n"
        + table(["sweep", "status", "detector: completed", "detector: diverged", "largest rise, %"], rows)
    )


def labels_page(found: dict[str, dict[str, CurveOutcome]]) -> str:
    """Return docs/divergence_labels.md: a row for every run that has a curve."""
    total = sum(len(outcomes) for outcomes in found.values())
    seen = Counter(outcome.status for outcomes in found.values() for outcome in outcomes.values())
    without = [name for name in TABLES if name not in CURVES]
    parts = [
        "# What the curve detector says of every public run\n",
        "Written by `python benchmarks/divergence.py --write`. All entries are computed from the curves by\n"
        "`optlaws.risk.curve_outcome`; no reading of them is in this repository.\n",
        RULE + "\n",
        f"{total} runs have a curve: {seen['completed']} completed, {seen['diverged']} diverged,"
        f" {seen['nonfinite']} nonfinite. The runs of {', '.join(without)} have none: for them the table's `status`"
        " counts\n(docs/divergence.md has the counts).\n",
        "*Largest rise*: the running median over its lowest value before, at any reading, in %; *at the end*: the same"
        "\nat the last reading; *since*: step from which a diverged run stays up.\n",
    ]
    parts.append(own_runs())
    for source, outcomes in found.items():
        rows = [
            [name, o.status, percent(o.largest), percent(o.rise), "-" if np.isnan(o.since) else f"{o.since:g}"]
            for name, o in sorted(outcomes.items())
        ]
        parts += [f"## {source}\n", table(["run", "verdict", "largest rise", "at the end", "since"], rows)]
    return "\n".join(parts)
