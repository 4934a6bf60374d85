"""The search for schedules: sure differences, bounds of risk, smooth rates, and shapes that are given up."""

import numpy as np
import pytest
from quadratic_law import PEAK, QuadraticLaw

from optlaws import load_law, parse
from optlaws.optimize import free, make_task, search
from optlaws.optimize.families import ROUNDS, Shape
from optlaws.optimize.free import cautious, differences, refine

START = "wsd:peak=3e-4,steps=10000,warmup=100,decay=0.2"


@pytest.mark.parametrize("shared", [0.0, 0.05])
def test_what_two_schedules_share_is_no_doubt_about_their_difference(shared):
    """ln L errs by shared z + doubt ln(peak / 1e-4) w: the difference has a sd of doubt ln(ratio of the peaks)."""
    doubt = 0.02
    task = make_task(QuadraticLaw(doubt=doubt, shared=shared, m=0.0), steps=10000)
    peaks = np.array([1e-3, 1e-3, 5e-4, 4e-3])
    judged = task.judge([parse(f"cosine:peak={peak},steps=10000,warmup=100") for peak in peaks])
    ratio, sd = differences(judged, 0)
    np.testing.assert_allclose(sd, doubt * np.abs(np.log(peaks / 1e-3)), atol=1e-7)
    truth = 0.02 * (np.log(peaks / PEAK) ** 2 - np.log(1e-3 / PEAK) ** 2)
    np.testing.assert_allclose(ratio, truth, atol=1e-9)
    np.testing.assert_allclose(cautious(judged, 0, 2.0), truth + 2.0 * sd, atol=3e-5)


class Slope:
    """A risk that rises evenly with ln peak and is accepted up to a limit."""

    limit = 6e-4

    def probability(self, runs, defaults=None):
        return np.clip(0.05 + 0.5 * np.log(np.asarray(runs.batch().peak) / self.limit), 0.0, 1.0)


def test_a_free_schedule_goes_as_far_as_the_accepted_risk():
    """The lowest loss lies beyond it, at 1.1e-3: the search comes to rest at the limit and not somewhere before."""
    task = make_task(QuadraticLaw(risk=Slope()), steps=10000, caution=0.0)
    start = parse(START)
    (found,), _ = refine(task, start, [start], 6)
    assert 0.97 * Slope.limit < found.peak <= Slope.limit
    assert np.log(task.judge([found]).loss[0] / 2.0) < 0.5 * np.log(task.judge([start]).loss[0] / 2.0)


def falls(schedule, task, count):
    """How far ln rate falls from knot to knot after the warm-up."""
    knots = free.Knots.spread(task, schedule.warmup_steps, count)
    return knots.start(schedule)[1:]


def test_of_schedules_of_equal_loss_the_smoothest_is_taken():
    """Only peak and mean rate matter here: rates then fall evenly, however uneven the start."""
    task = make_task(QuadraticLaw(), steps=10000, caution=0.0)
    start = parse(START)
    (found,), _ = refine(task, start, [start], 6)
    assert task.judge([found]).loss[0] == pytest.approx(2.0, rel=1e-4)
    rough = [float((np.diff(falls(s, task, 6)) ** 2).sum()) for s in (start, found)]
    assert rough[0] > 1.0
    assert rough[1] < 0.1


def test_smoothness_costs_next_to_nothing(monkeypatch):
    """Where the law does care, less than 0.01 % of the loss, against a search that does not smooth."""
    task = make_task(load_law("llama-slimpajama"), params=85e6, tokens=2.56e9, steps=50000, caution=0.0)
    start = parse("wsd:peak=1e-3,steps=50000,warmup=300,decay=0.3,shape=sqrt")
    smooth, _ = refine(task, start, [start], 5)
    monkeypatch.setattr(free, "ROUGH", 0.0)
    rough, _ = refine(task, start, [start], 5)
    losses = task.judge([smooth[0], rough[0], start]).loss
    assert losses[0] < losses[1] * (1 + 1e-4)
    assert losses[0] < losses[2] * (1 - 2e-3)


FIXED = Shape("decay", "cosine", {}, {})  # mean rate 1/2
COARSE = Shape("decay", "wsd", {"decay": (0.02, 0.45)}, {"shape": "linear"})  # 0.78 at the least, less later


def asked(m, shapes):
    """The best of the shapes, and how many grids were asked for."""
    said = []
    task = make_task(QuadraticLaw(m=m), steps=10000, caution=0.0)
    best = search(task, (100,), shapes, said.append)
    return best[0], len(said)


def test_a_shape_that_starts_a_little_behind_may_win():
    """Its first grid is worse by less than 0.2 %, its last one better: the order of the shapes is of no account."""
    alone = [asked(0.1, [shape])[0].score for shape in (FIXED, COARSE)]
    assert alone[1] < alone[0] - 1e-4
    for shapes in ([FIXED, COARSE], [COARSE, FIXED]):
        best, _ = asked(0.1, shapes)
        assert best.score == pytest.approx(min(alone), abs=1e-12)


def test_a_shape_that_starts_far_behind_is_given_up_after_one_grid():
    far = Shape("decay", "wsd", {"decay": (0.02, 0.05)}, {"shape": "linear"})
    assert asked(1.0, [COARSE])[1] == ROUNDS + 1
    assert asked(1.0, [COARSE, far])[1] == ROUNDS + 2
