"""Ranking in the tails: candidates far behind, and laws whose intervals are no normal ones."""

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import pytest
from fake_law import FixedLaw

from optlaws.ranking import Z, rank
from optlaws.runs import RunTable
from optlaws.schedules import parse


def runs(n):
    return RunTable.build([parse(f"cosine:peak={1e-3 + 1e-6 * i},steps=1000") for i in range(n)])


def test_many_that_are_far_behind_have_a_chance_together():
    """Each of 200 independent candidates 3.7 sds behind has one in ten thousand, all of them 2 %."""
    behind, spread = 200, 0.01
    loss = np.append(3.0, np.full(behind, 3.0 * np.exp(3.7 * spread / 3.0)))
    factors = spread * np.diag(np.append(0.0, loss[1:] / 3.0))
    p = rank(runs(behind + 1), FixedLaw(loss, factors, noise=0.0)).p_best
    expected = NormalDist().cdf(3.7) ** behind
    draws = 2**21 / (behind + 1)
    assert p[0] == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / draws))
    assert p.sum() == pytest.approx(1.0)


@dataclass(frozen=True)
class WideLaw(FixedLaw):
    """Its intervals have `times` standard deviations on either side, as those of Student's t or of conformal ones."""

    times: float = 2.5

    def predict(self, runs):
        p = super().predict(runs)

        class Wide(type(p)):
            lower = property(lambda own: own.loss * np.exp(-self.times * own.sd / own.loss))
            upper = property(lambda own: own.loss * np.exp(self.times * own.sd / own.loss))

        return Wide(p.loss, p.factors, p.noise, p.in_domain, p.reasons)


@pytest.mark.parametrize("times", [0.7, Z, 2.5])
def test_differences_are_as_wide_as_the_intervals_of_the_law(times):
    """Of independent losses of equal sd the difference has sqrt(2) times the interval of each."""
    ranking = rank(runs(2), WideLaw([3.0, 3.0], np.zeros((2, 1)), noise=0.01, times=times))
    single = np.log(ranking.upper / ranking.lower)[0] / 2.0
    half = np.log1p(ranking.difference_upper[1] / 3.0)
    assert single == pytest.approx(times * 0.01 / 3.0, rel=1e-12)
    assert half == pytest.approx(np.sqrt(2.0) * single, rel=1e-9)
    assert np.log1p(ranking.difference_lower[1] / 3.0) == pytest.approx(-half, rel=1e-9)


def test_a_law_that_is_sure_of_everything_has_normal_differences():
    """Where no interval has a width there is none to take the factor from."""
    law = WideLaw([3.0, 3.1], np.zeros((2, 1)), noise=0.0)
    ranking = rank(runs(2), law)
    assert ranking.difference_lower[1] == pytest.approx(ranking.difference_upper[1]) == pytest.approx(0.1)
    one = replace(law, noise=0.01, times=0.0)  # intervals without a width about losses with an sd
    ranking = rank(runs(2), one)
    half = Z * np.hypot(0.01 / 3.0, 0.01 / 3.1)
    assert ranking.difference_upper[1] == pytest.approx(3.0 * np.expm1(np.log(3.1 / 3.0) + half), rel=1e-9)
