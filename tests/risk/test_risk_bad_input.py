"""Questions about risk that have no answer are refused in one sentence."""

import numpy as np
import pytest

from optlaws import load_law
from optlaws.errors import InputError
from optlaws.risk import Prior, curve_outcome
from optlaws.risk.changes import risk_map, safe_changes
from optlaws.runs import RunTable
from optlaws.schedules import wsd


@pytest.fixture(scope="module")
def model():
    return load_law("llama-slimpajama").risk


@pytest.fixture(scope="module")
def run():
    return RunTable.build(wsd(1e-3, 1000, warmup=10), params=1e8, batch_tokens=1e5, beta1=0.9)


class TestChanges:
    @pytest.mark.parametrize("accepted", [np.nan, -0.1, 1.5])
    def test_an_accepted_risk_that_is_no_probability(self, run, model, accepted):
        with pytest.raises(InputError, match="accepted must be a probability from 0 to 1, got"):
            safe_changes(run, model, accepted)

    def test_a_map_over_another_lever(self, run, model):
        with pytest.raises(InputError, match="over must be one of warmup_steps, batch_tokens, got 'beta1'"):
            risk_map(run, model, "beta1", points=3)

    def test_a_map_of_more_than_one_run(self, run, model):
        two = RunTable.concat([run, RunTable.build(run.schedule_tuple()[0], run_id=["2"], params=1e8)])
        for table in (two, run.select([])):
            with pytest.raises(InputError, match="run must be one run, got a table of"):
                risk_map(table, model, "warmup_steps", points=3)

    @pytest.mark.parametrize("reach", [0.0, 1.0, np.nan, np.inf])
    def test_axes_without_a_reach(self, run, model, reach):
        with pytest.raises(InputError, match="reach must be a finite factor above 1, got"):
            risk_map(run, model, "warmup_steps", points=3, reach=reach)

    def test_axes_without_points(self, run, model):
        with pytest.raises(InputError, match="points must be at least 2, got 0"):
            risk_map(run, model, "warmup_steps", points=0)


class TestCurves:
    def test_steps_that_are_not_finite(self):
        with pytest.raises(InputError, match="step must be finite, got nan"):
            curve_outcome([np.nan], [3.0])
        with pytest.raises(InputError, match="step must be finite, got inf"):
            curve_outcome([1.0, np.inf], [3.0, 3.0])

    @pytest.mark.parametrize("low", [0.0, -1.0])
    def test_losses_of_zero_or_less(self, low):
        with pytest.raises(InputError, match="loss must be above 0 nats per token, got"):
            curve_outcome([1, 2, 3], [2.0, 1.0, low])

    def test_a_run_that_broke_down_is_no_error(self):
        assert curve_outcome([1, 2], [3.0, -np.inf]).status == "nonfinite"


class TestPriors:
    def test_another_number_of_parameters(self):
        with pytest.raises(InputError, match="sd must be 7 finite numbers, one for each of level, size"):
            Prior(sd=(0.1,))

    @pytest.mark.parametrize("name", ["scatter", "scatter_sd", "cell_sd", "source_sd"])
    def test_spreads_that_are_none(self, name):
        with pytest.raises(InputError, match=f"{name} must be finite and above 0, got"):
            Prior(**{name: -1.0})

    def test_a_parameter_without_a_spread(self):
        with pytest.raises(InputError, match="sd must be finite and above 0, got 0"):
            Prior(sd=(0.0,) * 7)
