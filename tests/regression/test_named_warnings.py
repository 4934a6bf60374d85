"""Too few runs, columns that runs do not determine, and runs outside the domain: warnings with names of their own."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from made_runs import plan, with_losses

from optlaws.errors import ExtrapolationWarning, RankDeficiencyWarning, TooFewRunsWarning, told_otherwise
from optlaws.law import fit_law


@pytest.fixture(scope="module")
def runs():
    return with_losses(plan(), noise=0.0005)


def test_few_runs_warn(runs):
    with pytest.warns(TooFewRunsWarning, match="12 runs for 16 columns"):
        fit_law(runs.select(np.arange(12)))
    with warnings.catch_warnings(), told_otherwise():
        warnings.simplefilter("error", TooFewRunsWarning)
        fit_law(runs.select(np.arange(16)))


def test_columns_that_do_not_vary_alone_warn(runs):
    with pytest.warns(RankDeficiencyWarning, match=r"2 of 16 columns \(size, variance_size\) do not"):
        law = fit_law(runs.select(runs.params == runs.params[0]))
    assert law.info["undetermined"] == ["size", "variance_size"]


def test_runs_outside_the_domain_warn(runs):
    law = fit_law(runs)
    far = replace(runs.select([0, 1]), params=np.array([runs.params[0], 1e13]))
    with pytest.warns(ExtrapolationWarning, match="1 of 2 runs lies outside the domain of law 'law', the first with"):
        prediction = law.predict(far)
    assert prediction.in_domain.tolist() == [True, False]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        law.predict(runs.select([0, 1]))
