"""IsoFLOP profiles (Stanford CS336, assignment 3): N and D for 1e23 and 1e24 FLOPs.

Both use the run of lowest loss of each budget. The published 5.00e10 parameters and 3.37e11 tokens come from least
squares of N and D themselves, which the largest budgets decide; a straight line through the logarithms of the same
optima gives 7.0e10 and 2.4e11, and 1.6 times the parameters at 1e24. Parabolas through each profile stand beside them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from optlaws.baselines.allocation import PowerAllocation
from optlaws.baselines.chinchilla_isoflop import ChinchillaIsoFlop
from optlaws.baselines.isoflop import IsoFlop
from optlaws.errors import TableError
from paper_repro.core import Row, expected, need, new_axes


def reproduce(data: Path, quick: bool, figures: Path | None) -> list[Row]:
    """Return the rows; quick or not, all of it takes no time."""
    path = need(data, "isoflops_curves.json", "the IsoFLOP runs; without them nothing here can be computed")
    keys = ("parameters", "compute_budget", "final_loss")
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))
        n, c, y = (np.array([run[key] for run in runs], dtype=float) for key in keys)
    except (KeyError, TypeError, ValueError):
        raise TableError(f"{path.name} must be a list of runs with numbers {', '.join(keys)}; get it again") from None
    laws: dict[str, PowerAllocation] = {
        "least squares of N and D": IsoFlop.fit_points(n, c, y, scale="linear"),
        "line through logarithms": IsoFlop.fit_points(n, c, y),
        "minima of parabolas": ChinchillaIsoFlop.fit_points(n, c, y),
    }
    book, rows = expected("isoflop"), []
    for name, law in laws.items():
        for budget in (1e23, 1e24):
            text = f"{budget:.0e}".replace("e+", "e")
            for letter, value, power in zip("ND", law.allocate(budget), (law.a, law.b), strict=True):
                rows.append(
                    book.row(f"allocation, {name}", f"{letter} at {text} FLOPs", value, f"exponent {power:.4f}")
                )
    if figures:
        figure, axes = new_axes()
        for budget in np.unique(c):
            mine = c == budget
            order = np.argsort(n[mine])
            axes.semilogx(n[mine][order], y[mine][order], ".-", label=f"{budget:.0e}")
        axes.set(xlabel="parameters", ylabel="loss, nats per token", title="IsoFLOP profiles")
        axes.legend(title="FLOPs", fontsize=6)
        figure.savefig(figures / "isoflop.png", dpi=120)
    return rows
