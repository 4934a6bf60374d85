"""Bases and grids that cannot be used are refused in one sentence."""

from dataclasses import replace

import numpy as np
import pytest

from optlaws.dynamics import curve_grid, final_states
from optlaws.errors import InputError
from optlaws.features import columns as c
from optlaws.features import get_basis
from optlaws.runs import RunTable
from optlaws.schedules import wsd

BASIS = get_basis()
RUN = RunTable.build(wsd(1e-3, 100, warmup=10), params=1e8, batch_tokens=1e5)


def with_column(column):
    return replace(BASIS, id="other", columns=(*BASIS.columns[:-1], column))


class TestBases:
    @pytest.mark.parametrize("name", [5, ["sde16"]])
    def test_a_name_that_is_no_text(self, name):
        with pytest.raises(InputError, match="basis must be one of sde16"):
            get_basis(name)

    @pytest.mark.parametrize("prior", [0.0, -1.0, np.nan])
    def test_a_prior_that_is_no_scale(self, prior):
        with pytest.raises(InputError, match="prior of column 'peak_tokens' must be above 0, or None"):
            with_column(c.peak_tokens(prior))

    def test_a_centre_that_is_no_number(self):
        with pytest.raises(InputError, match=r"and its centre finite, got 0\.1 and nan"):
            replace(BASIS, columns=(c.constant(np.nan, 0.1), *BASIS.columns[1:]))

    def test_a_curvature_that_the_states_lack(self):
        basis = with_column(c.variance(9, 1.0))
        with pytest.raises(InputError, match="column 'variance_9' of basis 'other' must name one of the 6 curvatures"):
            basis.evaluate(final_states(RUN, basis.dynamics))
        for column in (c.variance, c.variance_size):
            with pytest.raises(InputError, match="mode must be a place among the modes, 0 or more, got -1"):
                column(-1, 1.0)

    def test_coordinates_need_length_scales(self):
        with pytest.raises(InputError, match="scales of basis 'sde16' must hold size, tokens"):
            replace(BASIS, scales={}).coordinates(final_states(RUN, BASIS.dynamics), np.array([1e-3]), 1.0)


class TestGrids:
    @pytest.mark.parametrize("schedules", [[], [RUN.schedule_tuple()[0]] * 2])
    def test_one_array_of_steps_a_schedule(self, schedules):
        with pytest.raises(InputError, match="steps must be one array a schedule, at least 1, got"):
            curve_grid(schedules, [np.array([1.0])] if schedules else [])
