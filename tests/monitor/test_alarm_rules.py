"""The rules behind alarms one at a time, on blocks made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from monitor_helpers import plain_path

from optlaws.monitor import CurvePrior, Thresholds
from optlaws.monitor.alarms import Blocks, Divergence, block_noise, off_track, stuck

T = Thresholds()
LIMIT = np.log(1.2)  # of `stuck`


def prior(offset=0.0, sd=0.0):
    mean = np.zeros(6)
    mean[0] = offset
    return CurvePrior(mean, np.diag([sd**2, 0.0, 0.0, 0.0, 0.0, 0.0]), 0.003)


def test_the_noise_of_blocks_by_hand():
    """Median absolute second difference, 1.4826 / sqrt(6) of it, times 1 + 6 / n for n of them."""
    assert block_noise([0.0, 0.1, 0.3, 0.2]) == pytest.approx(4.0 * 1.4826 / np.sqrt(6.0) * 0.2)
    assert block_noise([0.0, 0.1, 0.3, 0.2, 0.2]) == pytest.approx(3.0 * 1.4826 / np.sqrt(6.0) * 0.1)
    assert block_noise([1.0, 1.25]) == 0.25
    assert block_noise(np.linspace(3.0, 1.0, 30).tolist()) == pytest.approx(0.0, abs=1e-12)


def test_a_block_ends_where_the_next_one_begins():
    """Blocks of 10 steps from 0: 9.9 belongs to the first, 10 to the second."""
    blocks = Blocks(10.0)
    assert [blocks.add(step, step, np.nan) for step in (0.0, 4.0, 9.9, 10.0, 19.0, 31.0)] == [
        False, False, False, True, False, True,
    ]  # fmt: skip
    assert blocks.arrays()[1] == [4.0, 14.5, 31.0]


@pytest.mark.parametrize("wave", [0.0, 0.05])
def test_a_rise_must_exceed_its_limit_and_six_standard_errors(wave):
    """Of the window's level, whose median has 1.25 times the error of a mean; the window is 20 of 1000 steps."""
    steps = np.arange(100) * 5.0
    logs = wave * (np.arange(100) % 2) + 2.0 * (np.arange(100) >= 95)
    watch = Divergence(T, 1000.0, best=0.0)
    rise, limit, falling = watch.look(steps.tolist(), logs.tolist(), [np.nan] * 100, 0.0, False)
    few = 1.0 + 6.0 / 64.0
    noise = few * 1.4826 / np.sqrt(6.0) * 2.0 * wave
    assert limit == pytest.approx(max(0.05, 6.0 * 1.25 * noise / np.sqrt(4)))
    assert rise == pytest.approx(np.sort(logs[-4:])[1])
    assert not falling
    assert watch.since == steps[-4]


@pytest.mark.parametrize(("level", "expected", "well"), [(0.02, 0.0, True), (0.03, 0.0, False), (0.03, 0.01, True)])
def test_a_run_is_well_again_within_half_of_a_rise(level, expected, well):
    """Of twice what the law expects above the best level."""
    steps, logs = (np.arange(50) * 5.0).tolist(), [level] * 50
    assert Divergence(T, 1000.0, best=0.0).recovered(logs, steps, expected) is well


class TestStuck:
    path = plain_path()
    steps = np.arange(2.5, 450.1, 2.5)

    def logs(self, above, since=200.0):
        """On the path until a step, then flat, so that the median of the last 50 steps lies `above` it."""
        late = self.steps >= self.steps[-1] - 50.0
        on = self.path.reach_at(self.steps)
        return np.where(self.steps < since, on, above + np.median(on[late]))

    def test_the_excess_is_the_median_over_what_is_within_reach(self):
        excess, allowed = stuck(self.path, prior(), T, self.steps, self.logs(0.3))
        late = self.steps >= 400.0
        expected = np.median(self.logs(0.3)[late] - self.path.reach_at(self.steps[late]))
        assert excess == pytest.approx(expected, rel=1e-12)
        assert excess == pytest.approx(0.3, abs=1e-3)
        assert allowed == pytest.approx(LIMIT)

    @pytest.mark.parametrize(("above", "offset", "found"), [
        (0.16, 0.0, False), (0.16, 0.04, True), (0.2, 0.0, True), (0.2, -0.04, False),
    ])  # fmt: skip
    def test_the_offset_of_the_evaluation_sets_is_taken_into_account(self, above, offset, found):
        """Losses on the curve's set lie that much below final ones."""
        answer = stuck(self.path, prior(offset), T, self.steps, self.logs(above))
        assert (answer is not None) is found
        if found:
            assert answer[0] == pytest.approx(above + offset, abs=1e-3)

    @pytest.mark.parametrize(("first", "found"), [(0.08, False), (0.11, True)])
    def test_a_loss_that_has_only_just_risen_is_given_time(self, first, found):
        """The first block of the window must lie above half of the limit, 0.091."""
        logs = self.logs(0.3)
        at = int(np.argmax(self.steps >= 400.0))
        logs[at] = self.path.reach_at(self.steps[at : at + 1])[0] + first
        logs[-1] = logs[at]  # else it has not fallen
        assert (stuck(self.path, prior(), T, self.steps, logs) is not None) is found

    @pytest.mark.parametrize(("share", "found"), [(0.15, True), (0.25, False)])
    def test_a_loss_that_falls_a_fifth_of_what_it_must_is_not_stuck(self, share, found):
        on = self.path.reach_at(self.steps)
        logs = np.where(self.steps < 200.0, on, 0.3 + on[-1] + share * (on - on[-1]))
        assert (stuck(self.path, prior(), T, self.steps, logs) is not None) is found

    def test_a_run_that_was_as_high_from_the_start_is_not(self):
        on = self.path.reach_at(self.steps)
        flat = np.where(self.steps < 200.0, on + 0.3, self.logs(0.3))
        assert stuck(self.path, prior(), T, self.steps, flat) is None


class TestOffTrack:
    path = replace(plain_path(sd=0.01), effects=np.zeros((50, 5)))
    sd = np.hypot(np.hypot(0.01, 0.003), 0.002)

    @pytest.mark.parametrize("side", [-1.0, 1.0])
    def test_it_counts_the_sds_of_the_last_twentieth(self, side):
        """A steady departure from step 380 on, of a run that followed its law before: the median, with its sign."""
        steps = np.arange(2.5, 450.1, 2.5)
        logs = self.path.at(steps)[0] - 0.02 + side * 5.0 * self.sd * (steps > 380.0)
        value, allowed = off_track(self.path, prior(0.02, 0.002), T, steps, logs)
        assert allowed == T.off_track
        assert value == pytest.approx(side * 5.0, rel=0.02)
        logs[-3] -= side * 2.0 * self.sd  # one block of these inside
        assert off_track(self.path, prior(0.02, 0.002), T, steps, logs) is None

    @pytest.mark.parametrize(("off", "found"), [(2, False), (3, True)])
    def test_of_few_readings_the_last_three_decide(self, off, found):
        steps = np.linspace(100.0, 700.0, 13)
        logs = self.path.at(steps)[0]
        logs[-off:] += 0.3
        answer = off_track(self.path, prior(), T, steps, logs)
        assert (answer is not None) is found

    @pytest.mark.parametrize(
        ("total", "start", "found"), [(2000.0, 20.0, False), (1000.0, 90.0, False), (1000.0, 20.0, True)]
    )
    def test_a_run_is_off_its_track_from_a_tenth_on_and_a_window_after_the_start(self, total, start, found):
        """At step 120: a tenth of 2000 steps is 200, and 90 + 50 is 140."""
        path = replace(self.path, steps=self.path.steps * total / 1000.0, start=start)
        steps = np.arange(60.0, 120.1, 2.5)
        logs = path.at(steps)[0] + 0.5
        assert (off_track(path, prior(), T, steps, logs) is not None) is found


def test_what_was_read_after_a_step_is_forgotten():
    """Of a block that reaches over it nothing stays; one that ended before it does."""
    blocks = Blocks(10.0)
    for step in np.arange(1.0, 38.0):
        blocks.add(step, step, np.nan)
    blocks.cut(25.0)
    assert blocks.arrays()[0] == [5.0, 14.5]
    assert blocks.readings == 19


@pytest.mark.parametrize(("late", "count", "strained"), [(10.0, 40, True), (2.9, 40, False), (10.0, 12, False)])
def test_a_strained_gradient_halves_rise_and_patience(late, count, strained):
    """Three last norms above 3 times the median of the others, of 13 at least; the window is then 10 steps, not 20."""
    steps, logs = np.arange(count) * 2.5, 0.04 * (np.arange(count) >= count - 12)
    grads = np.where(np.arange(count) >= count - 3, late, 1.0)
    watch = Divergence(T, 1000.0, best=0.0)
    assert watch.strained(grads.tolist()) is strained
    answer = watch.look(steps.tolist(), logs.tolist(), grads.tolist(), 0.0, False)
    if strained:
        assert answer == (pytest.approx(0.04), pytest.approx(0.025), False)
        assert watch.since == steps[-4]
    else:
        assert answer is None


@pytest.mark.parametrize(
    ("late", "falling"),
    [
        ([1.0, 0.95, 0.9, 0.85, 0.8, 0.75], True),  # 0.2 of a height of 0.95 lost
        ([1.0, 0.95, 0.92, 0.9, 0.9, 0.9], False),  # 0.05 of it
        ([0.1, 0.09, 0.09, 0.09, 0.08, 0.08], False),  # a ninth of it, and less than half of the limit
        ([0.1, 0.1, 0.09, 0.085, 0.08, 0.078], False),  # more than a fifth of it, and less than half of the limit
        ([1.0, 1.0, 0.95, 0.9, 0.85, 0.82], False),  # 0.18 of a height of 1, and a fifth of what is left
        ([0.1, 0.9, 1.0, 0.8, 0.7, 0.7], True),
    ],
)
def test_a_spike_is_on_its_way_back_where_its_last_third_is_a_fifth_lower(late, falling):
    """The window has five blocks here. Such a spike has 6 % of the run, 60 steps, before it is divergence."""
    logs = [0.0] * 60 + late
    steps = (np.arange(66) * 4.0).tolist()
    first = Divergence(T, 1000.0, best=0.0)
    answer = first.look(steps, logs, [np.nan] * 66, 0.0, False)
    assert (answer is None) is falling
    lasting = Divergence(T, 1000.0, best=0.0, since=steps[-1] - 61.0)
    assert lasting.look(steps, logs, [np.nan] * 66, 0.0, False)[2] is falling
