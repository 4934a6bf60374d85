"""Sizes that no run can have are refused before a fit, by every law alike: one wrong cell must not end in a failure."""

import numpy as np
import pytest

from optlaws import RunTable, fit_law
from optlaws.design import design_runs
from optlaws.errors import FitError
from optlaws.law.baseline import fit_baseline

COUNT = 12
IDLE = "two_stage:peak=1e-3,steps=10000,warmup=1,switch=1,second=0"  # the warm-up begins at 0, and 0 follows


def table(schedule=None, **changes):
    specs = [
        f"{kind}:peak={peak},steps=10000,warmup=300" for kind in ("cosine", "linear") for peak in (5e-4, 1e-3, 2e-3)
    ]
    cells = {"params": 3e7, "batch_tokens": 51_200.0, "weight_decay": 0.1, "final_loss": 3.0}
    columns = {name: np.full(COUNT, value) for name, value in cells.items()}
    columns["params"][COUNT // 2 :] = 1.1e8
    columns["final_loss"] = 3.0 + 0.1 * np.sin(np.arange(COUNT))
    for name, value in changes.items():
        columns[name] = np.array(columns[name])
        columns[name][3] = value
    specs *= 2
    specs[3] = schedule or specs[3]
    return RunTable.build(specs, **columns)


CASES = [
    ({"params": 1e30}, r"params must be from 1 to 1e\+20 for a fit, got 1e\+30 in run '4'; correct it"),
    ({"params": 1e-300}, r"params must be from 1 to 1e\+20 for a fit, got 1e-300"),
    ({"batch_tokens": 1e-30}, r"tokens must be from 1 to 1e\+20 for a fit, got 1e-26"),
    ({"batch_tokens": 0.5}, r"batch_tokens must be from 1 to 1e\+20 for a fit, got 0.5"),
    ({"batch_tokens": 1e60}, r"tokens must be from 1 to 1e\+20 for a fit, got 1e\+64"),
    ({"schedule": IDLE}, "rates of a schedule must be above 0 in some update for a fit, got 0 in all of run '4'"),
    ({"weight_decay": 1e30}, r"weight_decay must be from 0 to 1e\+06 for a fit, got 1e\+30"),
]


@pytest.mark.parametrize(("changes", "message"), CASES)
@pytest.mark.parametrize("fit", [fit_law, lambda runs: fit_baseline("chinchilla", runs)])
def test_sizes_that_no_run_can_have(fit, changes, message):
    with pytest.raises(FitError, match=message):
        fit(table(**changes))


@pytest.mark.parametrize("kind", ["quadratic", "critical_batch"])
@pytest.mark.parametrize("loss", [1e-100, 1e-5, 1e60])
def test_rivals_refuse_losses_that_ours_refuses(kind, loss):
    with pytest.raises(FitError, match=r"losses must be from .* nats per token, got .*; drop that run or correct it"):
        fit_baseline(kind, table(final_loss=loss))


@pytest.mark.filterwarnings("ignore::optlaws.errors.OptlawsWarning")
@pytest.mark.parametrize("changes", [{"params": 1.0}, {"params": 1e15}, {"weight_decay": 1e6}, {"batch_tokens": 1.0}])
def test_the_ends_can_be_fitted(changes, tmp_path):
    law = fit_law(table(**changes))
    law.save(tmp_path / "law.json")
    assert np.isfinite(law.predict(table()).loss).all()


def test_runs_too_far_apart_to_be_told_from_each_other():
    with pytest.raises(FitError, match="columns must not differ by so many orders of magnitude between runs"):
        fit_law(table(params=1e20))


def test_a_design_refuses_them_too():
    with pytest.raises(FitError, match="rates of a schedule must be above 0 in some update"):
        design_runs(table(schedule=IDLE), table(), 2)
    with pytest.raises(FitError, match="params must be from 1 to"):
        design_runs(table(), table(params=1e30), 2)
