"""Which runs are repeats of one configuration."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.runs._table import RunTable

SETTINGS = ("width", "depth", "heads", "experts", "grad_clip", "eps", "dropout", "z_loss")
"""Columns beside the known ones in which repeats of a configuration agree, where a table has them."""

SAME = 1.01
"""Factor between values that count as one: tokens that are steps times batch are rounded by the step."""


def levels(values: npt.NDArray[np.float64], within: float = SAME) -> npt.NDArray[np.intp]:
    """Return the place of each value's level (n,), the lowest first; values are above 0.

    A value that is a factor `within` or less from the next one has its level.
    """
    found, index = np.unique(values, return_inverse=True)
    return np.asarray(np.concatenate([[0], np.cumsum(found[1:] > within * found[:-1])])[index], dtype=np.intp)


def configurations(runs: RunTable) -> npt.NDArray[Any]:
    """Return labels (n,), equal for repeats of one configuration.

    That is schedule, sizes, batch, sequence length, optimizer with betas and weight decay, source, and what of
    `SETTINGS` the table has.
    """
    numbers = (runs.params, runs.active_params, runs.batch_tokens, runs.seq_len, runs.beta1, runs.beta2)
    others = [runs.extra[name] for name in SETTINGS if name in runs.extra]
    parts = zip(
        runs.schedule_tuple(), *numbers, runs.weight_decay, runs.optimizer, runs.source, *others, strict=True
    )  # fmt: skip
    texts = [" ".join([s.to_json(), *map(str, rest)]) for s, *rest in parts]
    return np.array(texts, dtype=object)  # as NumPy's own texts all would take the room of the longest
