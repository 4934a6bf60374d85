"""Thresholds, priors and readings that a monitor cannot use are refused in one sentence."""

from dataclasses import replace

import numpy as np
import pytest
from monitor_helpers import new_monitor, plain_path

from optlaws import RunTable, load_law, parse
from optlaws.errors import FitError, InputError, LawError
from optlaws.law.baseline import fit_baseline
from optlaws.monitor import CurvePrior, Monitor, Thresholds, paths, reforecast
from optlaws.monitor.learning import fit_prior

WIDE = CurvePrior.default(True)


@pytest.mark.parametrize("fewest", [2.5, 0.5])
def test_the_number_of_blocks_is_whole(fewest):
    with pytest.raises(InputError, match=f"fewest must be a whole number of blocks above 0, got {fewest}"):
        Thresholds(fewest=fewest)


def test_a_whole_number_written_as_a_float_is_one():
    assert (Thresholds(fewest=3.0).fewest, type(Thresholds(fewest=3.0).fewest)) == (3, int)


class TestPriors:
    @pytest.mark.parametrize("changes", [{"spread": np.nan}, {"spread": -1.0}, {"law_sd": np.inf}, {"misfit": 0.0}])
    def test_numbers_that_are_none(self, changes):
        with pytest.raises(InputError, match="must hold finite numbers, misfit and spread above 0"):
            new_monitor(prior=replace(WIDE, **changes))

    def test_arrays_of_other_shapes(self):
        with pytest.raises(InputError, match=r"must have shapes \(6,\) and \(6, 6\), got \(2,\) and \(6, 6\)"):
            new_monitor(prior=replace(WIDE, mean=np.zeros(2)))

    def test_lists_will_do(self):
        listed = replace(WIDE, mean=WIDE.mean.tolist(), covariance=WIDE.covariance.tolist())
        assert new_monitor(prior=listed).status.forecast == new_monitor(prior=WIDE).status.forecast

    @pytest.mark.parametrize("changes", [{"misfit": "x"}, {"mean": [[1], [1, 2]]}, {"curves": None}])
    def test_a_file_with_texts_in_place_of_numbers(self, changes):
        with pytest.raises(LawError, match="a monitor's prior must hold numbers, got others"):
            CurvePrior.from_dict({**WIDE.to_dict(), **changes})

    def test_no_curve_to_learn_from(self):
        with pytest.raises(FitError, match="examples must be at least one finished curve, got none"):
            fit_prior([])


class TestReadings:
    def test_lists_of_other_lengths(self):
        with pytest.raises(InputError, match=r"two lists of equal length, got shapes \(2,\) and \(1,\)"):
            reforecast(plain_path(), WIDE, np.array([500.0, 501.0]), np.array([1.0]))

    @pytest.mark.parametrize(
        ("steps", "logs"),
        [([500.0, 501.0], [1.0, np.nan]), ([500.0, np.inf], [1.0, 1.0]), ([500.0, 400.0], [1.0, 1.0])],
    )
    def test_what_is_not_finite_or_goes_back(self, steps, logs):
        with pytest.raises(InputError, match="must be finite, steps ascending"):
            reforecast(plain_path(), WIDE, np.array(steps), np.array(logs))


class TestLaws:
    def test_a_rival_law_cannot_follow_a_run(self):
        n = np.array([1e7, 1e8, 1e9, 1e7, 1e8, 1e9])
        d = np.array([1e9, 1e9, 1e9, 4e9, 4e9, 4e9])
        schedule = parse("constant:peak=1e-3,steps=1000")
        loss = 1.7 + 400 * n**-0.34 + 410 * d**-0.28
        law = fit_baseline("chinchilla", RunTable.build([schedule] * 6, params=n, tokens=d, final_loss=loss))
        with pytest.raises(LawError, match=r"law must be one with dynamics to follow a run.*got BaselineFit"):
            Monitor(law, schedule, params=1e8, tokens=1e9)

    def test_one_grid_of_steps_a_run(self):
        run = RunTable.build("constant:peak=1e-3,steps=1000", params=85e6, batch_tokens=51_200)
        with pytest.raises(InputError, match="steps must be one array a run, 1, got 0"):
            paths(load_law("llama-slimpajama"), run, [])


class TestArguments:
    def test_a_law_by_its_name(self):
        run = parse("cosine:peak=1e-3,steps=1000,warmup=100")
        named, given = (Monitor(law, run, params=1e8) for law in ("llama-slimpajama", load_law("llama-slimpajama")))
        assert named.update(500, 3.5).forecast == given.update(500, 3.5).forecast
        with pytest.raises(LawError, match="law must be a law file or one of"):
            Monitor("no-such-law", run)

    def test_what_is_no_run(self):
        with pytest.raises(InputError, match="run must be a RunTable, got dict"):
            Monitor("llama-slimpajama", {"peak": 1e-3})
        short = "cosine:peak=1e-3,steps=1000"
        texts, parsed = (Monitor("llama-slimpajama", run, params=1e8) for run in (short, parse(short)))
        assert texts.update(500, 3.5).forecast == parsed.update(500, 3.5).forecast

    def test_a_short_form_takes_its_length_from_tokens_and_batch(self):
        sizes = {"params": 1e8, "tokens": 1e8, "batch_tokens": 1e5}
        texts, parsed = (
            Monitor("llama-slimpajama", f"cosine:peak=1e-3{steps}", **sizes) for steps in ("", ",steps=1000")
        )
        assert texts.update(500, 3.5).forecast == parsed.update(500, 3.5).forecast


class TestFarOut:
    """Losses that are none, of a law or of a log: powers of them run out of range, and alarms cannot be trusted."""

    @pytest.mark.parametrize("sizes", [{"params": 1e50}, {"params": 1e90}])
    @pytest.mark.parametrize("elsewhere", [False, True])
    def test_a_run_along_which_the_law_says_nothing(self, sizes, elsewhere):
        law = load_law("llama-slimpajama")
        law = law.on_other_corpus() if elsewhere else law
        with pytest.raises(LawError, match=r"must expect losses of 1e-30 to 1e\+30 nats per token along run '1'"):
            Monitor(law, "wsd:peak=1e-3,steps=20000,warmup=300", batch_tokens=51_200, **sizes)

    @pytest.mark.parametrize("loss", [2e30, 1e300, 1.7e308])
    def test_a_loss_too_large_to_be_one_counts_as_infinite(self, loss):
        monitor = new_monitor()
        status = monitor.update(500, loss)
        assert status.diverged
        assert [alarm.reason for alarm in status.alarms] == ["nonfinite"]
        assert status.to_dict()["loss"] == loss

    @pytest.mark.parametrize("loss", [0.0, 5e-324, 1e-300])
    def test_a_loss_too_small_to_be_one(self, loss):
        with pytest.raises(InputError, match=f"loss must be above 0 nats per token, 1e-30 at the least, got {loss!r};"):
            new_monitor().update(500, loss)

    def test_the_largest_and_the_smallest_may_meet(self):
        monitor = new_monitor()
        for step in range(10, 1000, 10):
            status = monitor.update(step, 1e-30 if step < 500 else 1e30)
        assert status.diverged
        assert all(value is None or np.isfinite(value) for value in status.to_dict()["forecast"].values())
