"""Which constants a fit hands to the regression: of sparse networks, of a law to be like, of curves left out."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from made_runs import curves_of, plan, with_losses

from optlaws.errors import OptlawsWarning
from optlaws.features import basis_ids
from optlaws.law import fit_law, fitting, refits
from optlaws.regression import Settings

RUNS = with_losses(plan(peaks=(3e-4, 1e-3), steps=(3000, 6000)), noise=0.001)


def fit(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptlawsWarning)
        return fit_law(*args, **kwargs)


@pytest.mark.parametrize(
    ("share", "given", "sd"),
    [
        (1.0, None, 0.0021),
        (0.25, None, 0.02),
        (0.25, Settings(size_sd=0.05), 0.05),
        (1.0, Settings(size_sd=0.05), 0.05),
    ],
)
def test_one_sparse_network_among_the_runs_makes_new_sizes_less_certain(share, given, sd):
    """A run of `active_params` = share of `params`; runs that do not say count as dense."""
    active = np.full(len(RUNS), np.nan)
    active[3] = share * RUNS.params[3]
    law = fit(replace(RUNS, active_params=active), settings=given)
    assert law.posterior.settings.size_sd == sd


def test_a_law_like_another_has_its_basis_units_and_factor():
    """Of final losses, too: whatever basis is asked for, and though these runs have the usual units."""
    whole = fit(RUNS, basis=basis_ids()[0])
    units = {"params_ref": 3e7, "steps_ref": 5000.0}
    posterior = replace(whole.posterior, spread=1.75)
    like = replace(whole, posterior=posterior, info={**whole.info, "units": units})
    part = fit(RUNS.select(np.arange(2, len(RUNS))), like=like, basis=basis_ids()[-1], own_units=False)
    assert part.basis_id == whole.basis_id != basis_ids()[-1]
    assert part.posterior.spread == 1.75
    assert part.info["units"] == units
    assert {name: getattr(part.basis.dynamics, name) for name in units} == units


def test_curves_left_out_may_ask_for_more_than_the_usual_range(monkeypatch):
    """Where curves left out need 9 times the sds, residuals by the formula do not bring it below that."""
    left = refits.LeftOut(np.full(9, (9.0 * 1.6448536269514722) ** 2), np.ones(9), np.zeros(9), 9)
    least = left.least_spread()
    assert least > Settings().curve_spreads[1]
    monkeypatch.setattr(fitting, "left_out_curves", lambda *_: left)
    runs = plan(peaks=(5e-4, 1e-3), steps=(4000,), params=(6e7,))
    law = fit(runs, curves_of(runs, every=400, noise=0.0005))
    assert law.posterior.spread == pytest.approx(least, rel=1e-12)
    assert law.info["leave_group_out"][refits.CALLED]["coverage"] == 1.0
