"""The command about rival laws: fit one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from optlaws.commands.core import training_tables
from optlaws.commands.shared import errors_text, stem
from optlaws.errors import InputError

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
    click.echo(_summary(law, output), err=output == "-")


def _summary(law: BaselineFit, output: str) -> str:
    info = law.info
    left_out = info["n_left_out"]
    without = f" ({left_out} more left out: diverged, interrupted or without a loss)" if left_out else ""
    curves = f" and {info['n_curves']} curves" if info["n_curves"] else ""
    lines = [f"Wrote {output}: rival law {law.law.name}, {info['n_runs']} runs{curves}{without}.", law.law.formula]
    lines.append(law.parameters_text())
    for split, errors in info["leave_group_out"].items():
        lines.append(f"{split} left out: {errors_text(errors)}")
    lines.append(f"Intervals from {law.residuals['from']}.")
    return "\n".join(lines)
