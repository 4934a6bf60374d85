"""Intervals of rival laws: ranks of left-out residuals, pairs of runs, and a prediction inside its own interval."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from made import KnownLaw, grid, table

from optlaws import baselines
from optlaws.law.baseline import fit_baseline
from optlaws.law.residuals import difference_factor, tails
from optlaws.ranking import rank


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setitem(baselines.REGISTRY, "known", "made:KnownLaw")


@pytest.mark.parametrize("count", range(19, 120, 10))
def test_a_new_residual_lies_below_with_the_chance_that_is_said(count):
    """The rank is the largest whose chance k / (n + 1) is at most 5 %: the next one in would be too likely."""
    residuals = np.random.default_rng(count).permutation(np.arange(1.0, count + 1))
    low, high = tails(residuals)
    assert low / (count + 1) <= 0.05 < (low + 1) / (count + 1)
    assert high == count + 1 - low


def test_fewer_than_nineteen_have_no_five_per_cent_point():
    low, high = tails(np.arange(1.0, 19.0))
    assert low == -high
    assert high > 18.0


def pairs(residuals, label):
    """The 90 % point of differences within groups: a run is drawn, then another of its group."""
    found = []
    for i in range(len(residuals)):
        others = [j for j in range(len(residuals)) if label[j] == label[i] and j != i]
        found += [(abs(residuals[i] - residuals[j]), 1.0 / len(others)) for j in others]
    found.sort()
    total, so_far = sum(weight for _, weight in found), 0.0
    for distance, weight in found:
        so_far += weight
        if so_far >= 0.9 * total * (1 - 1e-12):
            return distance
    return found[-1][0]


@pytest.mark.parametrize("seed", range(3))
def test_each_run_counts_alike_in_groups_of_any_size(seed):
    """One large group of like runs has most of the pairs and no more say than its runs have."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(16), [60, *[4] * 15])
    residuals = np.where(label == 0, 0.001, 0.01) * rng.standard_normal(len(label))
    expected = pairs(residuals, label) / np.sqrt(2.0) / 0.005
    assert difference_factor(residuals, label, 0.005) == pytest.approx(expected, rel=1e-12)
    large = residuals[label == 0]
    assert difference_factor(large, np.zeros(60, dtype=int), 0.005) < 0.5 * expected


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_law_that_is_always_wrong_on_one_side_holds_its_own_prediction(sign):
    """All left-out losses lie 2 to 4 % above (or below) the law: the interval reaches from the prediction to them."""
    runs = table(*grid(), status="completed", loss=3.0)
    error = sign * np.linspace(0.02, 0.04, len(runs))
    fitted = fit_baseline("known", replace(runs, final_loss=KnownLaw(1.7).predict(runs) * np.exp(error)))
    p = fitted.predict(runs)
    assert (p.lower <= p.loss).all()
    assert (p.loss <= p.upper).all()
    far = p.upper if sign > 0 else p.lower
    assert (np.abs(np.log(far / p.loss)) > 0.038).all()
    ranking = rank(runs, fitted)
    assert (ranking.lower <= ranking.loss).all()
    assert (ranking.loss <= ranking.upper).all()
