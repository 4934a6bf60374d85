"""Laws of curves fitted again without a fifth of them: intervals that hold for other curves."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from made_runs import curves_of, plan

from optlaws._normal import NORMAL_90
from optlaws.commands.core import _fit_summary
from optlaws.errors import InputError, OptlawsWarning
from optlaws.law import fit_law, refits
from optlaws.regression import Settings
from optlaws.runs import CurveTable

ALL = plan(peaks=(3e-4, 5e-4, 8e-4, 1.2e-3, 2e-3, 3e-3), steps=(4000, 6000), params=(6e7,))


def fit(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptlawsWarning)
        return fit_law(*args, **kwargs)


def wandering(seed, sd=0.004):
    """Curves of the known law, each with a slow wave of its own that no column follows."""
    rng = np.random.default_rng(seed)
    smooth = curves_of(ALL, every=100, noise=0.0003)
    own = dict(zip(ALL.run_id, rng.normal(size=(len(ALL), 2)) * sd, strict=True))
    total = dict(zip(ALL.run_id, np.asarray(ALL.steps), strict=True))
    part = np.array([s / total[name] for name, s in zip(smooth.run_id, smooth.step, strict=True)])
    a, b = np.array([own[name] for name in smooth.run_id]).T
    return CurveTable(smooth.run_id, smooth.step, smooth.loss * (1 + a * np.sin(3 * part) + b * np.cos(5 * part)))


def cover(law, runs, curves):
    where, inside = curves.runs(), []
    for i, name in enumerate(runs.run_id):
        k = where[name][10:]
        p = law.predict_curve(runs.select([i]), curves.step[k])
        inside.append(((curves.loss[k] >= p.lower) & (curves.loss[k] <= p.upper)).mean())
    return float(np.mean(inside))


@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_hold_for_curves_that_were_not_fitted(seed):
    """Readings of one curve err together: by the formula alone 90 % intervals covered 73 and 74 % of other curves."""
    curves, order = wandering(seed), np.random.default_rng(seed).permutation(len(ALL))
    law = fit(ALL.select(np.sort(order[:12])), curves)
    assert cover(law, ALL.select(np.sort(order[12:])), curves) >= 0.85
    told = law.info["leave_group_out"][refits.CALLED]
    assert set(told) == {"mean_error_pct", "coverage", "width_pct"}
    assert 0.9 <= told["coverage"] <= 1.0
    lines = _fit_summary(law, "law.json")
    assert any(line.startswith("a fifth of the curves left out: mean error") for line in lines)
    assert any("But for the last (a fifth of the curves: fitted anew) these are quick" in line for line in lines)


class TestFactor:
    def made(self, curves, model=1.0, noise=0.0):
        z = np.linspace(0.0, 4.0, 401)
        return refits.LeftOut(z**2, np.full(len(z), model), np.full(len(z), noise), curves)

    @pytest.mark.parametrize(("curves", "share"), [(9, 0.99), (18, 0.95), (90, 0.91), (4, 0.99)])
    def test_it_covers_what_conformal_intervals_of_so_many_curves_do(self, curves, share):
        left = self.made(curves)
        factor = left.least_spread()
        assert factor == pytest.approx(4.0 * share / NORMAL_90, rel=0.02)
        assert left.coverage(factor) >= share

    def test_it_scales_the_model_and_not_the_noise(self):
        quiet, noisy = self.made(90), self.made(90, noise=2.0)
        assert 1.0 < noisy.least_spread() < quiet.least_spread()
        assert self.made(90, noise=10.0).least_spread() == 1.0

    def test_errors_of_a_file(self):
        told = self.made(90, noise=3.0).errors(1.0)
        assert told["mean_error_pct"] == pytest.approx(200.0)
        assert told["width_pct"] == pytest.approx(400.0 * NORMAL_90)
        assert told["coverage"] == pytest.approx(2.0 * NORMAL_90 / 4.0, abs=0.01)


def test_fewer_than_four_configurations_are_left_in():
    """Repeats are one configuration: six runs of three settings."""
    three = ALL.select([0, 1, 2])
    twice = plan(peaks=(3e-4,), steps=(4000, 4000), params=(6e7,))
    assert len(twice) == 6
    for runs in (three, twice):
        law = fit(runs, curves_of(runs, every=100, noise=0.0005))
        assert refits.CALLED not in law.info["leave_group_out"]
        assert law.posterior.spread <= Settings().curve_spreads[1]


def test_repeats_are_left_out_together(monkeypatch):
    """Where one of two repeats stayed, it would tell the other's loss."""
    seen, real = [], refits.fit_trend_field
    monkeypatch.setattr(refits, "fit_trend_field", lambda p, *a, **k: (seen.append(set(p.loss)), real(p, *a, **k))[1])
    runs = plan(peaks=(3e-4, 1e-3), steps=(4000, 4000), params=(6e7,))
    curves = curves_of(runs, every=200, noise=0.0005)
    fit(runs, curves)
    where = curves.runs()
    assert len(seen) == 5
    for kept in seen:
        for first in range(6):
            there = [bool(kept & set(curves.loss[where[runs.run_id[i]]])) for i in (first, first + 6)]
            assert there[0] == there[1]


def test_the_order_of_runs_changes_nothing():
    curves = wandering(3)
    some = ALL.select(np.arange(0, 36, 3))
    turned = some.select(np.arange(len(some))[::-1])
    one, other = fit(some, curves), fit(turned, curves)
    assert one.posterior.spread == pytest.approx(other.posterior.spread, rel=1e-6)


def test_final_losses_beside_curves_are_left_out_with_them():
    """A run's final loss tells its curve's end: it goes when the curve goes."""
    curves, where = wandering(4), wandering(4).runs()
    some = ALL.select(np.arange(0, 36, 3))
    last = np.array([curves.loss[where[name][-1]] for name in some.run_id])
    law = fit(replace(some, final_loss=last), curves)
    assert law.info["leave_group_out"][refits.CALLED]["mean_error_pct"] > 0.1


class TestLike:
    def test_a_part_is_fitted_like_the_whole(self):
        """Its factor of the sds is that of the whole, its constants those that its own curves ask for."""
        curves, few = wandering(0), ALL.select(np.arange(0, len(ALL), 4))
        curves = curves.select(curves.step % 500 == 0)
        whole, part = fit(few, curves), few.select(np.arange(1, len(few)))
        some = fit(part, curves, like=whole)
        assert some.posterior.spread == whole.posterior.spread
        assert refits.CALLED not in some.info["leave_group_out"]
        alone = fit(part, curves)
        for name, value in alone.info["calibrated"].items():
            assert some.info["calibrated"][name] == pytest.approx(value, rel=0.35)
        np.testing.assert_allclose(some.predict(ALL).loss, alone.predict(ALL).loss, rtol=2e-3)

    def test_something_else(self):
        with pytest.raises(InputError, match="like must be a Law, got str; leave it out for a law of its own"):
            fit_law(ALL, like="law.json")
