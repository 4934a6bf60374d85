"""What `optlaws predict` says of runs that have losses of their own: how far the law was off on them."""

from __future__ import annotations

import math
from typing import Any

import click
import numpy as np

from optlaws.runs import RunTable


def tell_misses(name: str, runs: RunTable, prediction: Any, output: str) -> None:
    """Say how far a law was off on the finished runs among those that it predicted, if there are any.

    Parameters
    ----------
    name
        The law's.
    runs
        n runs.
    prediction
        Its `loss`, `lower` and `upper`, shape (n,), nats per token; runs without a finite one are not counted.
    output
        Where the table goes; if that is standard output, the text goes to standard error.
    """
    text = misses_text(name, runs, prediction)
    if text:
        click.echo(text, err=output == "-")


def tell_larger(law: Any, runs: RunTable, output: str) -> None:
    """Say where n runs are far larger than all that a law has seen; `output` as in `tell_misses`."""
    from optlaws.law.domain import larger_note

    text = larger_note(getattr(law, "domain", {}), runs.size)
    if text:
        click.echo(text, err=output == "-")


def misses_text(name: str, runs: RunTable, prediction: Any) -> str:
    """Return the sentences, empty where no run has both a loss and a prediction; see `tell_misses`."""
    from optlaws.validation import SMALLEST_POOL, competing, finished, scores

    answers = np.stack([prediction.loss, prediction.lower, prediction.upper])
    known = finished(runs) & (np.isfinite(answers) & (answers > 0)).all(axis=0)
    if not known.any():
        return ""
    loss, lower, upper = answers[:, known]
    found = scores(runs.final_loss[known], loss, lower, upper, competing(runs)[known])
    count, pools = found["runs"], found["pools"]
    if not pools:
        order = f"fewer than {SMALLEST_POOL} of them compete at one size and budget, so nothing is known of their order"
    else:
        of = found["pool_spearman"]
        rank = "unknown (a pool is predicted, or ended, alike)" if math.isnan(of) else f"{of:.2f}"
        where = f", the mean of {pools} pools" if pools > 1 else " in the one pool"
        order = f"rank correlation {rank}{where} of {SMALLEST_POOL} or more runs of one size and budget"
    return (
        f"On {count} finished run{'s' * (count > 1)} law {name!r} is off by {found['error']:.2f} % on average, its"
        f" level by {found['bias']:+.2f} %; {order}; {100 * found['cover']:.0f} % of the losses lie inside their 90 %"
        " intervals. Runs that it was fitted to say nothing of how good it is on others."
    )
