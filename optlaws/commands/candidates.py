"""What commands that gather candidates say of them on standard error."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from optlaws.commands.shared import amount
from optlaws.errors import OptlawsWarning
from optlaws.ranking.table import schedule_text
from optlaws.runs import Candidates, RunTable

LEAST_TOKENS = 1e5  # of a run; below, a number is more likely one of millions or billions


def tell_candidates(found: Candidates, options: Mapping[str, Any]) -> None:
    """Say what `tell_overruled` says, and what `warn_of_small` and `warn_of_rising` do."""
    tell_overruled(found, options)
    warn_of_small(found.runs.size, found.runs.tokens, found.runs.batch_tokens)
    warn_of_rising(found.runs)


def warn_of_rising(runs: RunTable) -> None:
    """Warn of schedules whose warm-up takes the whole run: the rate rises to the end and misses the peak."""
    batch = runs.batch()
    rising = np.flatnonzero(np.asarray(batch.warmup_steps) >= np.asarray(batch.total_steps))
    if len(rising):
        first = int(rising[0])
        others = f" and of {len(rising) - 1} more" if len(rising) > 1 else ""
        warnings.warn(
            OptlawsWarning(
                f"the warm-up of {schedule_text(runs, first)!r:.80}{others} takes the whole run, whose rate rises to"
                f" the end, to {np.asarray(batch.peak)[first]:.4g}; shorten warmup or raise steps if that is not meant"
            ),
            stacklevel=2,
        )


def warn_of_small(*sizes: npt.ArrayLike) -> None:
    """Warn of parameters, tokens and tokens a step whose median is so small that a suffix must have been left out.

    The limits are those that `fit` doubts its runs by, and `LEAST_TOKENS`.

    Parameters
    ----------
    sizes
        Parameters, tokens and tokens a step, in this order, a number or an array each; NaN = not known.
    """
    from optlaws.law.outliers import LEAST_USUAL

    limits = {
        "params": LEAST_USUAL["params"][0],
        "tokens": LEAST_TOKENS,
        "batch_tokens": LEAST_USUAL["batch_tokens"][0],
    }
    small = []
    for (name, limit), values in zip(limits.items(), sizes, strict=True):
        known = np.asarray(values, dtype=np.float64)
        known = known[np.isfinite(known)]
        if known.size and np.median(known) < limit:
            small.append(f"{name} {np.median(known):.4g}")
    if small:
        warnings.warn(
            OptlawsWarning(
                f"{', '.join(small)} {'is' if len(small) == 1 else 'are'} far smaller than any training run's; numbers"
                " count single parameters and tokens: 85M means 85 million, 20B 20 billion"
            ),
            stacklevel=2,
        )


def tell_overruled(found: Candidates, options: Mapping[str, Any], what: str = "candidates") -> None:
    """Say which options were not used, since candidates (`what`) state the value themselves, and for how many."""
    if not found.overruled:
        return
    parts = []
    for name, count in found.overruled.items():
        value = options[name]
        text = value if isinstance(value, str) else amount(name, value)
        share = f" for {count} of {len(found.runs)} {what}" if len(found.runs) > 1 else ""
        parts.append(f"--{name.replace('_', '-')} {text}{share}")
    click.echo(f"optlaws: note: a value that is stated counts, not the option's: {', '.join(parts)}", err=True)
