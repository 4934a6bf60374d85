"""Units taken from the runs themselves, for runs far smaller than language models, or not made by AdamW.

The constants of a basis are numbers in units: a size, a batch, a count of steps and a rate (`Dynamics.params_ref`,
`batch_ref`, `steps_ref`, `lr_ref`). They were found on models of a million to a billion parameters and batches of some
ten thousand tokens and more. Over a few powers of ten the power laws in size and batch carry them; a network of ten
thousand parameters that sees a thousand tokens a step lies so far out that its whole training would last a few units
of intrinsic time. What can be kept there is the dimensionless law: the same constants, in units of these runs. Whether
that is better than the usual units, and how large the unit of the rate is, the evidence of the training runs decides.

The unit of the rate is that of AdamW. Other optimizers are at their best at rates several or many times higher or
lower; for a law of their runs it is taken from a wider range, whatever the sizes.
"""

from __future__ import annotations

import numpy as np

from optlaws.baselines.base import usable
from optlaws.dynamics.model import FloatArray, family
from optlaws.errors import FitError
from optlaws.features import Basis
from optlaws.law.calibrate import Evidence
from optlaws.regression.trend_field import Settings
from optlaws.runs import RunTable
from optlaws.runs._optimizers import USUAL_OPTIMIZER

FAR = 100.0
"""How many times smaller than the reference the median size or batch must be before other units are tried."""
RATES = (1.0, 2.0, 4.0, 8.0)
"""Units of the rate that are tried, over the usual one."""
OTHER_RATES = tuple(2.0**k for k in range(-6, 13))
"""The same for runs of other optimizers than Adam and AdamW."""
FEWEST = 16  # final losses before the units of a basis are asked about


def all_or_none(values: FloatArray, name: str, runs: RunTable) -> bool:
    """Return whether a column is known in every run (True) or in none (False); some is an error."""
    missing = np.flatnonzero(~np.isfinite(values))
    if 0 < len(missing) < len(values):
        raise FitError(
            f"{name} must be given for all runs of a fit or for none, but {len(missing)} of {len(values)} lack it"
            f" (first: {runs.run_id[missing[0]]!r}); fill or drop those runs"
        )
    return len(missing) == 0


def units_of(
    runs: RunTable, basis: Basis, settings: Settings, *, use_params: bool = True, use_batch: bool = True
) -> dict[str, float]:
    """Return the units in which runs are most probable; empty if these are the usual ones.

    Parameters
    ----------
    runs : RunTable
        Completed runs with losses, of one optimizer.
    basis : Basis
        With the usual units.
    settings : Settings
        Of the regression.
    use_params, use_batch : bool
        False: no run states its size (batch).

    Returns
    -------
    dict of str to float
        `params_ref` and `batch_ref` (medians, where known), `steps_ref` (median) and `lr_ref`, for
        `Basis.with_constants`.
    """
    usual = basis.dynamics
    own: dict[str, float] = {}
    if use_params:
        own["params_ref"] = float(np.median(runs.size))
    if use_batch:
        own["batch_ref"] = float(np.median(runs.batch_tokens))
    other = {family(name) for name in runs.optimizer} != {USUAL_OPTIMIZER}
    far = any(FAR * value < getattr(usual, name) for name, value in own.items())
    if not far and not other:
        return {}
    own["steps_ref"] = float(np.median(np.asarray(runs.batch().total_steps)))

    def evidence(units: dict[str, float]) -> float:
        trial = basis.with_constants(units)
        return Evidence(runs, trial, settings, use_params=use_params, use_batch=use_batch)(trial)

    tried: list[dict[str, float]] = [{}]
    for units in ([own] if far else []) + ([{}] if other else []):
        tried += [{**units, "lr_ref": usual.lr_ref * rate} for rate in (OTHER_RATES if other else RATES)]
    return max(tried, key=evidence)


def own_units_of(runs: RunTable, basis: Basis, settings: Settings) -> dict[str, float]:
    """Return the units of these runs if they are far from the usual ones and enough of them say so, else nothing."""
    keep = usable(runs)
    if keep.sum() < FEWEST or not (runs.final_loss[keep] > 0).all():
        return {}
    done = runs.select(keep)
    if not (np.asarray(done.batch().peak) > 0).all():
        return {}
    try:
        known = {
            "use_params": all_or_none(done.size, "params", done),
            "use_batch": all_or_none(done.batch_tokens, "batch_tokens", done),
        }
    except FitError:  # said, with its way out, where the fit begins
        return {}
    return units_of(done, basis, settings, **known)
