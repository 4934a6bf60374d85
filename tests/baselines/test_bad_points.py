"""Points, rates and settings that no law can be made of: refused in one sentence instead of a number."""

import numpy as np
import pytest

from optlaws.baselines import get_baseline
from optlaws.baselines.chinchilla import Chinchilla
from optlaws.baselines.chinchilla_envelope import ChinchillaEnvelope
from optlaws.baselines.chinchilla_isoflop import ChinchillaIsoFlop
from optlaws.baselines.convex_bound import ConvexBound, best_factor, bound_terms
from optlaws.baselines.isoflop import IsoFlop
from optlaws.baselines.kaplan import critical_batch
from optlaws.baselines.multi_power import MultiPowerLaw, optimise_rates
from optlaws.baselines.polynomial import Quadratic
from optlaws.baselines.step_law import StepLaw
from optlaws.errors import InputError, LawError
from optlaws.runs import RunTable
from optlaws.schedules import constant

N, D = np.array([1e7, 1e8, 1e9]), np.array([1e9, 4e9, 2e10])
LOSS = Chinchilla.published().loss(N, D)
MPL = MultiPowerLaw(3.04, 0.525, 0.508, 364.0, 2.07, 0.583, 0.641)

ALLOCATIONS = [IsoFlop, ChinchillaIsoFlop, ChinchillaEnvelope]


def grid_of_runs():
    n, d = (axis.ravel() for axis in np.meshgrid([1e7, 1e8, 1e9], [1e9, 2e9, 4e9]))
    schedules = [constant(1e-3 * (1 + i % 3), 1000) for i in range(len(n))]
    return RunTable.build(schedules, params=n, tokens=d, final_loss=Chinchilla.published().loss(n, d))


class TestPoints:
    @pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0, -3.0])
    def test_chinchilla_refuses_a_loss_that_is_none(self, wrong):
        loss = np.append(LOSS[:2], wrong)
        with pytest.raises(InputError, match=r"loss must be finite numbers above 0, got .* at place 2; drop"):
            Chinchilla.fit_points(N, D, loss)
        with pytest.raises(InputError, match="loss must be finite numbers above 0"):
            Chinchilla.bootstrap(N, D, loss, Chinchilla.published(), draws=2)
        with pytest.raises(InputError, match="loss must be finite numbers above 0"):
            Chinchilla.published().objective(N, D, loss)

    def test_lists_of_other_lengths_or_none_are_refused(self):
        with pytest.raises(InputError, match=r"lists of one length, at least 1, got shapes n \(2,\), d \(3,\)"):
            Chinchilla.fit_points(N[:2], D, LOSS)
        with pytest.raises(InputError, match="lists of one length, at least 1"):
            Chinchilla.fit_points(N[:0], D[:0], LOSS[:0])

    def test_numbers_stand_for_all_points_of_the_objective(self):
        law = Chinchilla(1.7, 400.0, 410.0, 0.34, 0.28)
        assert law.objective(1e8, D, LOSS) == law.objective(np.full(3, 1e8), D, LOSS)
        assert law.objective(1e8, np.float64(1e10), 2.5) == law.objective(*(np.array([x]) for x in (1e8, 1e10, 2.5)))

    @pytest.mark.parametrize("kind", ALLOCATIONS)
    def test_allocations_refuse_them_too(self, kind):
        with pytest.raises(InputError, match="loss must be finite numbers above 0, got nan at place 0"):
            kind.fit_points(N, 6 * N * D, np.append(np.nan, LOSS[1:]))
        with pytest.raises(InputError, match="compute must be finite numbers above 0, got nan"):
            kind.fit_points(N, np.append(np.nan, N[1:]), LOSS)
        with pytest.raises(InputError, match="n must be finite numbers above 0, got -1e"):
            kind.from_optima(np.array([1e20, 1e21]), -N[:2], D[:2])


class TestRates:
    @pytest.mark.parametrize(
        ("rates", "got"), [([0.0, 0.0], "none above 0"), ([], "none above 0"), ([1.0, np.nan], "nan"), ([1, -1], "-1")]
    )
    def test_the_bound_refuses_rates_that_are_none(self, rates, got):
        with pytest.raises(InputError, match=f"rates must be finite and at least 0, one of them above 0, got {got}"):
            bound_terms(np.array(rates, dtype=float))

    def test_a_best_rate_needs_a_distance_and_a_gradient(self):
        with pytest.raises(InputError, match="G must be a finite number above 0 for a best rate, got 0"):
            best_factor(np.ones(3), G=0.0)
        with pytest.raises(InputError, match="D must be a finite number above 0 for a best rate, got -1"):
            ConvexBound(2.0, -1.0, 1.0).best_peak(constant(1e-3, 10))

    @pytest.mark.parametrize("rates", [[], [1e-3, 0.0], [1e-3, -1e-3], [1e-3, np.nan]])
    def test_multi_power_slopes_need_rates_above_zero(self, rates):
        with pytest.raises(InputError, match="rates must be finite and above 0"):
            MPL.gradient(np.array(rates))

    @pytest.mark.parametrize("rate", [np.nan, 0.0, -1.0, np.inf])
    def test_the_optimisers_own_rate_is_checked(self, rate):
        with pytest.raises(InputError, match="rate must be a finite number above 0, got"):
            optimise_rates(MPL, steps=20, warmup=2, iterations=2, rate=rate)
        with pytest.raises(InputError, match="floor must be above 0 and below the peak inf"):
            optimise_rates(MPL, steps=20, warmup=2, iterations=2, peak=np.inf)


class TestSettings:
    @pytest.mark.parametrize("loss", [0.0, -1.0, np.nan, np.inf])
    def test_critical_batch(self, loss):
        with pytest.raises(InputError, match="loss must be a finite number above 0, got"):
            critical_batch(loss)

    @pytest.mark.parametrize("within", [0.0, -1.0, np.nan])
    def test_share_of_near_best_runs(self, within):
        with pytest.raises(InputError, match="within must be a fraction above 0, got"):
            StepLaw.fit(grid_of_runs(), within=within)

    @pytest.mark.parametrize("draws", [0, -1])
    def test_draws_of_a_band(self, draws):
        with pytest.raises(InputError, match="draws must be at least 1, got"):
            StepLaw.band(grid_of_runs(), draws=draws)

    def test_advice_for_an_infinite_model(self):
        with pytest.raises(InputError, match="must be above 0 and finite, got inf"):
            StepLaw.published().recommend(np.inf, 1e9)

    @pytest.mark.parametrize(("constant", "got"), [({"q": 164.0}, "inf"), ({"p": 164.0}, "0"), ({"b": np.inf}, "inf")])
    def test_advice_beyond_all_numbers(self, constant, got):
        law = StepLaw(**{**StepLaw.published().parameters(), **constant})
        with pytest.raises(
            InputError, match=f"a law advises must be above 0 and finite, got .* = {got}; correct params"
        ):
            law.recommend(1e8, 1e9)

    @pytest.mark.parametrize("name", [5, None, ["kaplan"]])
    def test_a_name_that_is_no_text(self, name):
        with pytest.raises(LawError, match="law must be one of"):
            get_baseline(name)

    def test_parameters_of_another_law(self):
        with pytest.raises(LawError, match="law 'quadratic' must have 23 parameters, got 1; fit it again"):
            Quadratic.from_parameters({"c_0": 1.0})
