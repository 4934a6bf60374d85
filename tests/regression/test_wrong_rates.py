"""Rates in per cent, all of them or a few: losses look like any others, advice and risk do not."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from made_runs import plan, with_losses

from optlaws.errors import OptlawsWarning
from optlaws.law import fit_law, with_risk
from optlaws.law.outliers import lonely_rates
from optlaws.sweeps import load_sweep

RUNS = with_losses(plan(), noise=0.0005)


def scaled(runs, which, factor):
    schedules = [s.scaled(factor) if i in which else s for i, s in enumerate(runs.schedule_tuple())]
    return replace(runs, schedules=tuple(schedules))


def told(work):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OptlawsWarning)
        work()
    return [str(one.message) for one in caught]


@pytest.mark.parametrize("which", [[4], [4, 20, 41]])
def test_a_few_rates_in_per_cent_are_named(which):
    """Or left out and named where the loss stands apart beside that rate."""
    texts = told(lambda: fit_law(scaled(RUNS, which, 100.0)))
    (text,) = (x for x in texts if "ten or more times off" in x)
    assert "those of all others, 0.0003 .. 0.002" in text
    assert all(any(repr(RUNS.run_id[i]) in x for x in texts) for i in which)
    assert "mistyped (per cent?)" in text


@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_other_rates_are_not(factor):
    with warnings.catch_warnings():
        warnings.simplefilter("error", OptlawsWarning)
        fit_law(with_losses(scaled(RUNS, [4, 20], factor), noise=0.0005))


@pytest.mark.parametrize(
    ("column", "factor", "text"),
    [("params", 1e-6, "params has a median of 40: millions?"), ("batch_tokens", 1 / 1024, "median of 50: sequences?")],
)
def test_sizes_in_millions_and_batches_in_sequences(column, factor, text):
    wrong = replace(RUNS, **{column: getattr(RUNS, column) * factor}, tokens=np.full(len(RUNS), np.nan))
    assert any(text in x for x in told(lambda: fit_law(wrong)))
    assert not any("median of" in x for x in told(lambda: fit_law(RUNS)))


class TestLonely:
    @pytest.mark.parametrize("peaks", [[1e-3] * 12, [1e-4, 1e-3] * 10, np.geomspace(1e-5, 1.0, 40), [1e-3, 1.0]])
    def test_none(self, peaks):
        assert not len(lonely_rates(np.array(peaks)))

    def test_on_either_side(self):
        usual = np.geomspace(2e-4, 4e-3, 20)
        assert lonely_rates(np.r_[usual, 0.2, 0.05]).tolist() == [20, 21]
        assert lonely_rates(np.r_[1e-6, usual]).tolist() == [0]
        assert lonely_rates(np.r_[1e-6, usual]).dtype == np.intp
        assert lonely_rates(np.r_[1e-6, usual, 1.0]).tolist() == [0, 21]
        assert not len(lonely_rates(np.r_[0.0, usual]))


class TestAllInPerCent:
    def test_they_are_doubted(self):
        wrong = scaled(RUNS, range(len(RUNS)), 100.0)
        (text,) = (x for x in told(lambda: with_risk(fit_law(wrong), wrong)) if "felt" in x)
        assert "in the right unit (rates as numbers like 1e-3, no per cent" in text

    @pytest.mark.parametrize("name", ["cpu_sweep_rich", "cpu_sweep_wide", None])
    def test_tiny_networks_with_their_high_rates_are_not(self, name):
        runs = RUNS if name is None else load_sweep(name)[0]
        with warnings.catch_warnings():
            warnings.simplefilter("error", OptlawsWarning)
            law = fit_law(runs.select([status == "completed" for status in runs.status]))
            with_risk(law, runs)
