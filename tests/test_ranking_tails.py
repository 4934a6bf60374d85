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


def test_ties_share_what_another_leaves_them():
    """Two that end alike in every draw, and a third below them in half of all: a quarter, a quarter, a half."""
    factors = np.array([[0.02, 0.0], [0.02, 0.0], [0.0, 0.02]])
    p = rank(runs(3), FixedLaw([3.0, 3.0, 3.0], factors, noise=0.0)).p_best
    assert p == pytest.approx([0.25, 0.25, 0.5], abs=0.01)
    assert p.sum() == pytest.approx(1.0)


@dataclass(frozen=True)
class RiskyLaw(FixedLaw):
    """Diverges as it is told; picks its rows by the run ids 1, 2, ..., so that parts of a table can be asked about."""

    danger: tuple[float, ...] = ()

    @property
    def risk(self):
        return self

    def rows(self, table):
        return [int(name) - 1 for name in table.run_id]

    def probability(self, table, defaults=None):
        return np.asarray(self.danger)[self.rows(table)]

    def expected_loss(self, table):
        return np.asarray(self.loss)[self.rows(table)]

    def predict(self, table):
        rows = self.rows(table)
        return FixedLaw(np.asarray(self.loss)[rows], np.asarray(self.factors)[rows], self.noise).predict(table)


def test_those_that_lie_just_behind_a_safe_one_share_with_it():
    """Where the lowest surely diverges, nearness counts from the first that does not: two sds behind it is near."""
    spread = 0.003
    law = RiskyLaw([2.9, 3.0, 3.0 + 2.0 * spread], spread * np.eye(3), noise=0.0, danger=(1.0, 0.0, 0.0))
    p = rank(runs(3), law).p_best
    expected = NormalDist().cdf(np.sqrt(2.0))
    assert p == pytest.approx([0.0, expected, 1.0 - expected], abs=0.005)


def test_among_very_many_risks_and_the_choice_are_those_of_the_lowest(monkeypatch):
    """The choice is a place among all candidates; risks of the others are not known."""
    monkeypatch.setattr("optlaws.ranking.JOINT", 3)
    law = RiskyLaw([3.5, 3.2, 3.4, 3.0, 3.1], 1e-3 * np.eye(5), danger=(0.01, 0.02, 0.03, 0.5, 0.04))
    ranking = rank(runs(5), law)
    assert ranking.preferred == 4
    assert ranking.order.tolist() == [3, 4, 1, 2, 0]
    np.testing.assert_array_equal(ranking.risk, [np.nan, 0.02, np.nan, 0.5, 0.04])
    assert ranking.p_best == pytest.approx([0.0, 0.02, 0.0, 0.5, 0.48], abs=0.01)
