"""The command about rival laws: fit one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from optlaws.commands.core import training_tables
from optlaws.commands.shared import errors_text, stem
from optlaws.errors import InputError
from optlaws.runs import format_quantity
from optlaws.runs._compute import FLOPS

BEYOND = (1.0, 10.0, 100.0)  # times the largest budget of the runs: those that `fit` divides into size and data

if TYPE_CHECKING:
    from optlaws.law.baseline import BaselineFit


def fit(
    runs: Sequence[str],
    curves: Sequence[str],
    group: str | None,
    basis: str | None,
    calibrate: str | None,
    name: str | None,
    output: str,
    kind: str,
    monitor: bool = False,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Fit a rival law to run tables (and curve tables) and write it."""
    from optlaws.baselines import get_baseline
    from optlaws.commands.shared import ticking
    from optlaws.law.baseline import fit_baseline

    get_baseline(kind)
    for option, value in (("--basis", basis), ("--calibrate", calibrate)):
        if value is not None:
            raise InputError(
                f"{option} is for the law of this package, got it with --law {kind}; leave one of them out"
            )
    if monitor:
        raise InputError(f"--monitor is for the law of this package, got it with --law {kind}; leave one of them out")
    table, readings = training_tables(runs, curves, group, output, headers)
    with ticking(f"fit of {kind}") as tick:
        law = fit_baseline(kind, table, readings, group=group, name=name or stem(output), progress=tick)
    law.save(output)
    compute = FLOPS * table.size * table.tokens
    largest = float(np.max(compute, initial=0.0, where=np.isfinite(compute)))
    click.echo(_summary(law, output, largest), err=output == "-")


def _division(law: Any, compute: float) -> str:
    """Return how an allocation law divides a budget, in words."""
    params, tokens = law.allocate(compute)
    return f"At {compute:.3g} FLOPs: {format_quantity(params)} parameters, {format_quantity(tokens)} tokens."


def _summary(law: BaselineFit, output: str, largest: float) -> str:
    info = law.info
    left_out = info["n_left_out"]
    without = f" ({left_out} more left out: diverged, interrupted or without a loss)" if left_out else ""
    curves = f" and {info['n_curves']} curves" if info["n_curves"] else ""
    lines = [f"Wrote {output}: rival law {law.law.name}, {info['n_runs']} runs{curves}{without}.", law.law.formula]
    lines.append(law.parameters_text())
    for split, errors in info["leave_group_out"].items():
        lines.append(f"{split} left out: {errors_text(errors)}")
    lines.append(f"Intervals from {law.residuals['from']}.")
    if hasattr(law.law, "allocate") and largest > 0:
        lines += [_division(law.law, times * largest) for times in BEYOND]
    return "\n".join(lines)
