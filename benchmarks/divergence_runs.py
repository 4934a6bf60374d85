"""Public run tables with the widths of the networks, which the tables do not say (shared by the benchmarks).

The widths are published beside the runs: Step Law's dense models in the table of model structures of arXiv 2503.04715
(width, feed-forward width and layers; params = layers (4 width^2 + 3 width feed-forward) to the digit), Marin's in
`marin/optimizer_sweep/models.py` of github.com/marin-community/marin. Where none is typed in here a run has the usual
width: no run of those sources diverged.
"""

from __future__ import annotations

from dataclasses import replace

from public import load

from optlaws.dynamics import Dynamics
from optlaws.risk.quantities import USUAL_WIDTH, WIDTH, relative_width
from optlaws.runs import RunTable

STRUCTURES = {
    "steplaw-dense": {
        214_663_680: (960, 9368, 7),
        268_304_384: (1024, 9552, 8),
        429_260_800: (1280, 9472, 10),
        536_872_960: (1280, 9048, 13),
    },
    "marin2025-adamw": {130_000_000: (512, 2048, 32), 300_000_000: (768, 3072, 32)},
}
"""Source: params as the tables say them: width, width of the feed-forward layers, layers."""


def with_widths(runs: RunTable) -> RunTable:
    """Return the runs with a column `width`, empty where it is not known."""
    found = [STRUCTURES.get(s, {}).get(int(n), ("",))[0] for s, n in zip(runs.source, runs.params, strict=True)]
    extra = {**runs.extra, WIDTH: tuple(str(width) for width in found)}
    return replace(runs, extra=extra, columns=(*(c for c in runs.columns if c != WIDTH), WIDTH))


def other_widths(runs: RunTable, power: float) -> RunTable:
    """Return runs whose relative widths are raised to a power: 0 = as if no width were known."""
    units = Dynamics()
    n = runs.size / units.params_ref
    width = USUAL_WIDTH * n ** (1 / 3) * relative_width(runs, n) ** power
    return replace(runs, extra={**runs.extra, WIDTH: tuple(map(repr, width.tolist()))})


def load_wide(name: str) -> RunTable:
    """Read a run table of the public data, with widths."""
    return with_widths(load(name))


def steplaw(kind: str = "dense") -> RunTable:
    """Return one half of the Step Law grid, diverged runs included."""
    runs = load_wide("steplaw")
    return runs.select([source == f"steplaw-{kind}" for source in runs.source])
