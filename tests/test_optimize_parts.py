"""The pieces of the search for schedules one at a time: lengths, bounds, warm-ups, grids, knots."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from quadratic_law import BATCH, QuadraticLaw, Wall

from optlaws import parse
from optlaws.errors import InputError
from optlaws.law.domain import mean_and_end_rate
from optlaws.optimize import free, make_task
from optlaws.optimize.families import LOWEST, Shape, _closer, _product, member, parameters, warmups
from optlaws.optimize.task import lengths, peak_bounds, risk_notes

LAW = QuadraticLaw()


@dataclass(frozen=True)
class Told(QuadraticLaw):
    info: dict = field(default_factory=dict)


class TestLengths:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ((2000, 1e9, None), (2000, 1e9, 5e5)),
            ((2000, None, 5e5), (2000, None, 5e5)),
            ((2000, None, None), (2000, None, 1e6)),
            ((None, 1e9, 4e5), (2500, 1e9, 4e5)),
            ((None, 1e9, None), (1000, 1e9, 1e6)),
            ((2000, 1.04e9, 5e5), (2000, 1.04e9, 5e5)),
            ((2000, 0.96e9, 5e5), (2000, 0.96e9, 5e5)),
            ((None, 1e9, 3e5), (3333, 1e9, 3e5)),
        ],
    )
    def test_one_follows_from_the_others_or_the_law(self, given, expected):
        assert lengths(*given, {"batch_tokens": 1e6}) == expected

    @pytest.mark.parametrize("tokens", [0.94e9, 1.06e9])
    def test_three_that_disagree_by_more_than_a_twentieth(self, tokens):
        with pytest.raises(InputError, match="tokens must be steps"):
            lengths(2000, tokens, 5e5, {})


class TestBounds:
    """The law's own peak rates are from 1e-4 to 1e-2."""

    @pytest.mark.parametrize(
        ("low", "high", "outside", "expected"),
        [
            (None, None, False, (1e-4, 1e-2)),
            (5e-4, 2e-3, False, (5e-4, 2e-3)),
            (1e-5, 1.0, False, (1e-4, 1e-2)),
            (None, None, True, (2.5e-5, 4e-2)),
            (1e-5, None, True, (1e-5, 4e-2)),
            (None, 1.0, True, (2.5e-5, 1.0)),
            (0.1, None, True, (0.1, 0.1)),
            (None, 1e-5, True, (1e-5, 1e-5)),
        ],
    )
    def test_inside_the_law_or_four_times_beyond(self, low, high, outside, expected):
        assert peak_bounds(LAW, low, high, outside)[:2] == pytest.approx(expected)
        told = peak_bounds(LAW, low, high, outside)[2]
        assert bool(told) is (high == 1.0 and not outside)

    @pytest.mark.parametrize(("low", "high", "name"), [(2e-2, None, "min_peak"), (None, 5e-5, "max_peak")])
    def test_nothing_is_left(self, low, high, name):
        with pytest.raises(InputError, match=f"{name} must leave peak rates from 0.0001 to 0.01"):
            peak_bounds(LAW, low, high, False)


def test_a_risk_is_told_from_four_fifths_of_the_accepted_one():
    risky = QuadraticLaw(risk=Wall(1e-3))
    assert risk_notes(risky, 0.039, 0.05) == ()
    assert risk_notes(risky, 0.041, 0.05)[0].startswith("the accepted divergence risk bounds this plan (4.1 % of at mo")


@pytest.mark.parametrize(
    ("steps", "usual", "expected"),
    [(4000, 500, (100, 500)), (4000, None, (100, 1000)), (40000, 500, (100, 500, 10000)), (150, 500, (75,))],
)
def test_warm_ups_are_shortest_usual_and_longest_up_to_half_of_the_run(steps, usual, expected):
    """Without a usual one the geometric mean; half of the run where all that the law has seen is longer."""
    info = {} if usual is None else {"schedules": {"warmup_steps": float(usual)}}
    law = Told(info=info, domain=LAW.domain | {"warmup_steps": (100.0, 10000.0)})
    assert warmups(make_task(law, steps=steps)) == expected


class TestParameters:
    task = make_task(LAW, steps=1000, min_lr=2e-5)

    def ask(self, kind, point, fixed=None, **axes):
        shape = Shape(kind, kind, {name: (value,) for name, value in axes.items()}, fixed or {})
        points = {"peak": 1e-3, "warmup": 100.0} | axes | point
        return parameters(self.task, shape, {name: np.array([value]) for name, value in points.items()})

    def test_rates_are_shares_of_the_peak_between_floor_and_peak(self):
        for share, rate in ((0.1, 1e-4), (0.03333333, 3.333e-5), (0.001, 2e-5), (0.95, 9e-4)):
            assert self.ask("cosine", {}, final=share)["final"] == pytest.approx(rate)
        assert self.ask("cosine", {"peak": 1.0}, final=0.1)["peak"] == 1e-2  # the highest allowed
        low = replace(self.task, floor=0.0)
        shape = Shape("wsd", "wsd", {"final": (0.0,)}, {"shape": "exponential"})
        point = {"peak": np.array([1e-3]), "warmup": np.array([0.0]), "final": np.array([0.0])}
        assert parameters(low, shape, point)["final"] == pytest.approx(LOWEST * 1e-3)  # it cannot end at 0

    def test_lengths_are_shares_of_the_run_that_leave_the_warm_up(self):
        for share, length in ((0.2, 200), (0.001, 20), (0.95, 900)):
            assert self.ask("wsd", {}, decay=share)["decay"] == length
        for share, length in ((0.5, 500), (0.1, 300), (0.99, 980)):
            assert self.ask("two_stage", {"warmup": 300.0}, switch=share)["switch"] == length
        assert self.ask("inverse_sqrt", {}, timescale=0.4)["timescale"] == 400
        assert self.ask("polynomial", {}, power=1.23456)["power"] == 1.23

    def test_a_warm_up_is_at_most_half_of_the_run(self):
        assert self.ask("constant", {"warmup": 700.0})["warmup"] == 500
        assert self.ask("constant", {"warmup": 700.0, "steps": 3000.0})["warmup"] == 700

    def test_members_are_what_the_parameters_say(self):
        shape = Shape("wsd", "wsd", {"decay": (0.2,)}, {"shape": "sqrt"})
        points = {"peak": np.array([1e-3, 2e-3]), "warmup": np.array([100.0, 50.0]), "decay": np.array([0.2, 0.3])}
        made = member(shape, parameters(self.task, shape, points), 1)
        assert made == parse("wsd:peak=2e-3,steps=1000,warmup=50,decay=300,shape=sqrt")


class TestGrids:
    def test_they_close_in_to_half_of_the_wider_neighbouring_gap(self):
        """Peaks in logarithms, shares evenly; ends stay in range, and the point itself is kept."""
        axes = {
            "peak": np.array([1e-4, 1e-3, 1e-1]),
            "decay": np.array([0.1, 0.2, 0.6]),
            "warmup": np.array([1.0, 9.0]),
        }
        new = _closer(axes, {"peak": 1e-3, "decay": 0.2, "warmup": 9.0})
        np.testing.assert_allclose(new["peak"], 1e-3 * 10.0 ** np.array([-1.0, -0.5, 0.0, 0.5, 1.0]))
        np.testing.assert_allclose(new["decay"], [0.02, 0.1, 0.2, 0.3, 0.4])
        assert new["warmup"].tolist() == [9.0]
        ends = _closer(axes, {"peak": 1e-4, "decay": 0.6, "warmup": 1.0})
        np.testing.assert_allclose(ends["peak"], 1e-4 * 10.0 ** np.array([-0.5, -0.25, 0.0, 0.25, 0.5]))
        np.testing.assert_allclose(ends["decay"], [0.4, 0.5, 0.6, 0.7, 0.8])

    def test_all_combinations(self):
        grid = _product({"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0, 5.0])})
        pairs = set(zip(grid["a"].tolist(), grid["b"].tolist(), strict=True))
        assert pairs == {(a, b) for a in (1.0, 2.0) for b in (3.0, 4.0, 5.0)}


class TestKnots:
    task = make_task(LAW, steps=10000)

    def test_they_crowd_towards_the_end(self):
        """The share left after a share u of the knots is (1 - u)^1.6."""
        knots = free.Knots.spread(self.task, 100, 8)
        left = (1.0 - np.arange(1, 9) / 8.0) ** 1.6
        np.testing.assert_allclose(knots.steps, 100 + (1.0 - left) * 9900, atol=0.51)
        assert knots.steps[-1] == 10000

    def test_rates_are_sums_of_falls_between_the_lowest_and_the_highest(self):
        knots = free.Knots.spread(self.task, 100, 3)
        x = np.array([[np.log(2e-3), 0.5, 0.25, 9.0], [np.log(8e-3), -4.0, 1.0, 0.0]])
        rates = knots.rates(x)
        np.testing.assert_allclose(rates[0], 2e-3 * np.exp([0.0, -0.5, -0.75, np.log(1e-3)]))
        np.testing.assert_allclose(rates[1], [8e-3, 1e-2, 1e-2, 1e-2])
        floor = free.Knots(replace(self.task, floor=1e-3), 100, knots.steps)
        np.testing.assert_allclose(floor.rates(x)[0], [2e-3, 2e-3 * np.exp(-0.5), 1e-3, 1e-3])

    @pytest.mark.parametrize("warm", [0, 400])
    def test_the_mean_rate_is_that_of_the_schedule(self, warm):
        knots = free.Knots.spread(self.task, warm, 5)
        start = parse(f"wsd:peak=1e-3,steps=10000,warmup={warm},decay=0.4,final=1e-4")
        judge = free.Objective(self.task, knots, start, 0.0)
        rates = knots.rates(np.stack([knots.start(start), [np.log(3e-3), 0.1, 0.2, 0.3, 0.4, 0.5]]))
        exact = mean_and_end_rate(knots.batch(rates))[0]
        np.testing.assert_allclose(judge._mean_rate(rates), exact, rtol=1e-3)
        np.testing.assert_allclose(knots.rates(knots.start(start)[None])[0, 0], 1e-3)

    def test_derivatives_of_the_objective(self):
        """One-sided differences of its values, far from where a rate is cut off."""
        knots = free.Knots.spread(self.task, 100, 4)
        start = parse("cosine:peak=1e-3,steps=10000,warmup=100")
        ask = free.Objective(self.task, knots, start, 1.0)
        x = np.array([np.log(2e-3), 0.3, 0.2, 0.4, 0.5])
        value, slope = ask(x)
        for k in range(5):
            step = 1e-4 * np.eye(5)[k]
            assert slope[k] == pytest.approx((ask(x + step)[0] - value) / 1e-4, abs=2e-4)


def test_a_score_is_cautious_only_about_what_is_beyond_the_known():
    """sd of ln L is doubt ln(peak / 1e-4) beside what is shared; the noise of a run stands for the known."""
    task = make_task(QuadraticLaw(doubt=0.01, shared=0.0), steps=10000, caution=2.0)
    judged = task.judge([parse(f"cosine:peak={peak},steps=10000,warmup=100") for peak in (1e-4, 1e-3)])
    known = 0.001 / judged.loss
    sd = np.array([0.0, 0.01 * np.log(10.0)])
    np.testing.assert_allclose(judged.sd, sd, atol=1e-9)
    np.testing.assert_allclose(judged.score(2.0), np.log(judged.loss) + 2.0 * np.maximum(sd - known, 0.0), rtol=1e-9)
    assert task.columns["batch_tokens"] == BATCH
