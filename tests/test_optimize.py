"""Planning a schedule: known optima, bounds kept, never worse than the standard ones, bad input."""

import json
from dataclasses import replace

import numpy as np
import pytest
from quadratic_law import MEAN, PEAK, QuadraticLaw, Wall
from scipy.special import ndtr

from optlaws import RunTable, load_law, optimize_schedule, parse
from optlaws.commands.optimize import _gain_text
from optlaws.errors import InputError, LawError, OptlawsWarning, RiskError
from optlaws.law.baseline import fit_baseline
from optlaws.optimize import FREE, make_task, record, search, standard_shapes
from optlaws.optimize.families import tidy, warmups
from optlaws.optimize.free import Knots, cautious, differences
from optlaws.optimize.task import size_reasons
from optlaws.runs import gather_candidates

SIZES = {"params": 85e6, "tokens": 2.56e9, "steps": 50000}


def mean_of(schedule):
    return schedule.array().mean() / schedule.peak


@pytest.fixture(scope="module")
def law():
    return load_law("llama-slimpajama")


@pytest.fixture(scope="module")
def found(law):
    return optimize_schedule(law, **SIZES)


class TestKnownOptimum:
    def test_peak_and_shape(self):
        best = optimize_schedule(QuadraticLaw(), steps=10000)
        assert best.schedule.peak == pytest.approx(PEAK, rel=0.03)
        assert mean_of(best.schedule) == pytest.approx(MEAN, abs=0.02)
        assert best.loss == pytest.approx(2.0, rel=1e-4)

    def test_each_family_finds_its_own_peak(self):
        task = make_task(QuadraticLaw(m=0.0), steps=10000, caution=0.0)
        for best in search(task, warmups(task), standard_shapes()):
            assert best.schedule.peak == pytest.approx(PEAK, rel=0.06), best.family

    def test_free_reaches_what_no_family_of_that_peak_does(self):
        """With the mean rate bound to 0.9 a decay must be short; the free schedule gets there too."""
        law = QuadraticLaw(m=5.0, domain={"peak_lr": (1e-3, 1e-3), "mean_rate": (0.4, 1.0), "warmup_steps": (10, 10)})
        best = optimize_schedule(law, steps=10000, caution=0.0, knots=6)
        assert best.schedule.peak == 1e-3
        assert mean_of(best.schedule) == pytest.approx(MEAN, abs=0.01)

    def test_caution_moves_to_what_is_known(self):
        """d/dx of a x^2 + c s (x + x_0) is 0 at x = -c s / 2 a, x = ln(peak / PEAK), nothing being shared."""
        a, c, s = 0.02, 2.0, 0.005
        law = QuadraticLaw(a=a, m=0.0, doubt=s, shared=0.0)
        task = make_task(law, steps=10000, caution=c)
        best = search(task, warmups(task), standard_shapes())[0]
        assert np.log(best.schedule.peak / PEAK) == pytest.approx(-c * s / (2 * a), abs=0.03)

    def test_a_gain_that_is_not_sure_is_no_gain(self):
        """Away from the reference the law is in doubt by more than any gain: a standard schedule is recommended."""
        best = optimize_schedule(QuadraticLaw(doubt=0.5, m=0.0), steps=10000, min_peak=1e-3, max_peak=1.2e-3)
        assert best.family != FREE
        assert "no free schedule was surely better" in best.advice


class TestInvariants:
    def test_never_worse_than_any_standard_schedule(self, law, found):
        task = found.task
        names = range(len(found.ranking))
        judged = task.judge([*found.ranking.runs.schedule_tuple(), found.schedule])
        score = cautious(judged, len(names), task.caution)
        assert (score >= -1e-12).all()
        others = [f"{s},steps=50000,warmup=300" for s in (
            "cosine:peak=1e-3", "wsd:peak=1e-3,decay=0.2,shape=sqrt", "wsd:peak=2e-3,decay=0.4", "linear:peak=2e-3",
            "cosine:peak=2e-3,final=2e-4", "inverse_sqrt:peak=1e-3,decay=0.1",
        )]  # fmt: skip
        losses = task.judge([parse(s) for s in others]).loss
        assert (found.loss < losses).all()

    def test_plain_loss_without_caution(self, law):
        best = optimize_schedule(law, **SIZES, caution=0.0, knots=6)
        assert best.loss == pytest.approx(best.ranking.loss.min(), rel=1e-12)

    def test_bounds(self, law):
        best = optimize_schedule(law, **SIZES, min_lr=1e-4, max_peak=8e-4, min_peak=5e-4, warmup=[500], knots=8)
        rates = best.schedule.array()
        assert len(rates) == 50000
        assert rates.max() <= 8e-4
        assert best.schedule.peak >= 5e-4
        assert rates[500:].min() >= 1e-4 * (1 - 1e-9)
        assert best.schedule.warmup_steps == 500
        for schedule in best.ranking.runs.schedule_tuple():
            assert schedule.total_steps == 50000
            assert schedule.array()[500:].min() >= 1e-4 * (1 - 1e-9)

    def test_exact_length_domain_and_never_rising(self, found):
        rates = found.schedule.array()
        assert len(rates) == found.schedule.total_steps == 50000
        assert (np.diff(rates[300:]) <= 1e-15).all()
        assert found.ranking.in_domain.all()
        assert (found.ranking.risk <= 0.05).all()

    def test_round_trip(self, found):
        assert parse(found.schedule.to_json()) == found.schedule
        read = json.loads(json.dumps(record(found)))
        assert parse(read["schedule"]) == found.schedule

    def test_the_fast_batch_and_the_schedule_are_one(self, law):
        task = make_task(law, **SIZES)
        knots = Knots.spread(task, 300, 7)
        x = knots.start(parse("wsd:peak=1e-3,steps=50000,warmup=300,decay=0.4"))
        fast = task.judge(knots.batch(knots.rates(x[None])))
        slow = task.judge([knots.schedule(x)])
        assert fast.loss[0] == pytest.approx(slow.loss[0], rel=2e-5)

    def test_gains_are_differences_of_predictions(self, law, found):
        for gain in found.gains:
            judged = found.task.judge([found.schedule, gain.schedule])
            ratio, sd = differences(judged, 0)
            single = np.hypot(sd[1], gain.noise / judged.loss[0])  # of one run of each
            assert gain.gain == pytest.approx(judged.loss[1] - judged.loss[0], abs=1e-9)
            assert gain.lower < gain.gain < gain.upper
            assert sd[1] > 0
            assert gain.noise == pytest.approx(np.hypot(*judged.prediction.noise))
            assert np.log1p(gain.lower / judged.loss[0]) == pytest.approx(ratio[1] - 1.645 * single, abs=1e-5)
            mine, other = judged.risk
            lower = ndtr(ratio[1] / single)
            assert gain.p_real == pytest.approx((1 - mine) * (other + (1 - other) * lower))
            assert (lower > 0.95) == (gain.lower > 0)

    def test_sizes_outside_are_said_and_do_not_stop_it(self, law):
        best = optimize_schedule(law, params=1e9, tokens=20e9, batch_tokens=51200, knots=0)
        assert "params 1B above" in best.notes[-1]
        assert "schedule" not in size_reasons(best.ranking.reasons[best.row])

    def test_the_optimum_reads_back_as_a_candidate(self, found, law, tmp_path):
        path = tmp_path / "s.json"
        path.write_text(found.schedule.to_json())
        runs = gather_candidates([str(path)], {"params": 85e6}, law.defaults).runs
        assert law.predict(runs).loss[0] == pytest.approx(found.loss, rel=1e-9)

    def test_rising_is_allowed_when_asked(self, law):
        task = make_task(law, **SIZES, monotone=False, outside=True)
        knots = Knots.spread(task, 300, 5)
        rates = knots.rates(np.array([[np.log(5e-4), -0.3, 0.1, 0.2, 0.3, 0.4]]))[0]
        assert rates[1] > rates[0]

    @pytest.mark.parametrize("steps", [4, 7, 10, 33])
    def test_very_short_runs(self, law, steps):
        best = optimize_schedule(law, params=85e6, steps=steps, outside=True)
        assert len(best.schedule.array()) == steps
        assert best.schedule.warmup_steps <= steps // 2

    def test_without_warm_up(self, law):
        best = optimize_schedule(law, **SIZES, outside=True, warmup=[0], knots=5)
        assert best.schedule.warmup_steps == 0
        assert best.schedule.lr(0) == best.schedule.peak

    def test_warm_ups_that_were_not_tried_are_named(self, law):
        best = optimize_schedule(law, **SIZES, warmup=[300, 2000], knots=0)
        assert best.schedule.warmup_steps == 300
        assert any("warm-ups of 2000 steps were left out: the law has seen 300" in note for note in best.notes)
        both = optimize_schedule(law, **SIZES, warmup=[300, 2000], knots=0, outside=True)
        assert not any("left out" in note for note in both.notes)

    def test_a_plan_at_the_accepted_risk_says_so(self):
        near = QuadraticLaw(m=0.0, risk=Wall(5e-4, low=0.045))
        best = optimize_schedule(near, params=1e8, tokens=1e10, steps=20000, knots=0)
        assert any("accepted divergence risk bounds this plan (4.5 % of at most 5 %)" in note for note in best.notes)
        calm = optimize_schedule(QuadraticLaw(m=0.0, risk=Wall(5e-4)), params=1e8, tokens=1e10, steps=20000, knots=0)
        assert not any("bounds this plan" in note for note in calm.notes)

    def test_a_law_that_states_no_error(self):
        rng = np.random.default_rng(1)
        peaks, batches = np.geomspace(1e-4, 1e-2, 30), rng.choice([1e5, 2e5, 4e5], 30)
        runs = RunTable.build(
            [parse(f"cosine:peak={p},steps={int(4e9 / b)},warmup=100") for p, b in zip(peaks, batches, strict=True)],
            params=rng.choice([1e8, 2e8], 30), batch_tokens=batches,
            final_loss=3.0 * np.exp(0.01 * np.log(peaks / 1e-3) ** 2 + 0.001 * rng.standard_normal(30)),
        )  # fmt: skip
        with pytest.warns(OptlawsWarning, match="tell 8, not params"):  # two sizes make no parabola
            rival = fit_baseline("quadratic", runs)
        best = optimize_schedule(rival, params=1e8, batch_tokens=2e5, steps=20000, warmup=[100], knots=0)
        assert best.schedule.peak == pytest.approx(1e-3, rel=0.3)
        assert "states no error" in best.notes[-1]
        assert all(gain.lower < gain.gain < gain.upper for gain in best.gains)
        assert "(one run of each)" in _gain_text(best.gains[0], best)

    def test_what_was_not_tried_is_not_said_to_be_worse(self, law):
        best = optimize_schedule(law, **SIZES, knots=0)
        assert "free" not in best.advice
        assert (
            "by this law's account a run of it ends lower than one of the best cosine with probability" in best.advice
        )


class TestRisk:
    def test_a_run_that_diverges_does_not_end_lower(self):
        """A gain that is sure is no surer than that the run is completed."""
        law = QuadraticLaw(m=0.0, risk=Wall(5e-4, low=0.045))
        best = optimize_schedule(law, params=1e8, tokens=1e10, steps=20000, knots=0)
        assert best.gains
        assert all(gain.p_real <= 1 - 0.045 * 0.9 for gain in best.gains)

    def test_kept(self):
        best = optimize_schedule(QuadraticLaw(risk=Wall(6e-4)), steps=10000)
        assert best.schedule.peak <= 6e-4
        assert best.schedule.peak == pytest.approx(6e-4, rel=0.1)

    def test_nothing_is_safe(self):
        with pytest.raises(RiskError, match=r"every candidate has a divergence risk above 0\.05, the lowest 0\.6"):
            optimize_schedule(QuadraticLaw(risk=Wall(1e-5)), steps=10000)

    def test_the_lowest_known_risk_is_told(self):
        """Shapes whose risk nobody knows do not hide that of others."""

        class Partly:
            def probability(self, runs, defaults=None):
                risk = np.full(len(runs), 0.5)
                for group in runs.batch().groups:
                    if "cosine" in group.shapes:
                        risk[group.index] = np.nan
                return risk

        with pytest.raises(RiskError, match=r"above 0\.05, the lowest 0\.5 \(linear:"):
            optimize_schedule(QuadraticLaw(risk=Partly()), steps=10000, max_risk=0.05)

    def test_accepted_when_asked(self):
        best = optimize_schedule(QuadraticLaw(risk=Wall(6e-4)), steps=10000, max_risk=0.7)
        assert best.schedule.peak == pytest.approx(PEAK, rel=0.05)


class TestBadInput:
    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"steps": 10.5}, "steps must be a whole number of updates, got 10.5"),
            ({"steps": 2}, "steps must be at least 4"),
            ({"steps": float("nan")}, "steps must be a finite number above 0, got nan"),
            ({"params": -1.0}, "params must be a finite number above 0"),
            ({"knots": 65}, "knots must be a whole number from 0 to 64, got 65"),
            ({"knots": -1}, "knots must be a whole number from 0 to 64, got -1"),
            ({"knots": float("nan")}, "knots must be a whole number from 0 to 64, got nan"),
            ({"knots": "3"}, "knots must be a whole number from 0 to 64, got '3'"),
            ({"max_peak": 1e-6}, "max_peak must leave peak rates from 0.0001 to 0.002"),
            ({"min_peak": 1.0}, "min_peak must leave peak rates"),
            ({"min_peak": 1e-3, "max_peak": 5e-4}, "min_peak must be at most max_peak"),
            ({"max_peak": -1.0}, "max_peak must be a finite rate above 0, got -1.0"),
            ({"min_lr": 1.0}, "min_lr must be a rate from 0 to the highest peak, 0.002, got 1.0"),
            ({"max_risk": 2.0}, "max_risk must be a probability from 0 to 1, got 2.0"),
            ({"caution": -1.0}, "caution must be from 0 to 10 standard deviations, got -1.0"),
            ({"warmup": [30000.0]}, "warmup must be a whole number of steps from 0 to half of the run, 25000"),
            ({"warmup": [0.0]}, "bounds must leave a schedule inside the domain"),
            ({"batch_tokens": 1e6}, "tokens must be steps . batch_tokens"),
            ({"knots": 0, "monotone": False}, "knots must be above 0 where the free schedule may rise, got 0"),
            ({"optimizer": " "}, "optimizer must be a name like adamw, got ' '"),
            (
                {"steps": None, "tokens": 1e300, "batch_tokens": 1e-100},
                r"steps, tokens / batch_tokens, must be at most 1,000,000,000,000, got 1e\+300 / 1e-100 = inf",
            ),
            ({"steps": None, "tokens": 230e3}, r"whole number of updates of 51.2K tokens, got 230K, 4.49 updates"),
        ],
    )
    def test_values(self, law, settings, words):
        with pytest.raises(InputError, match=words):
            optimize_schedule(law, **{**SIZES, **settings})

    def test_no_length(self):
        with pytest.raises(InputError, match="steps, or tokens must be given"):
            optimize_schedule(QuadraticLaw(), params=1e8)

    def test_no_law(self):
        with pytest.raises(LawError, match="must be a fitted law that predicts losses"):
            optimize_schedule(7, steps=1000)

    @pytest.mark.filterwarnings("ignore:law .* is doubtful")
    def test_laws_that_cannot_be_searched(self):
        steps = np.arange(2000, 3000, 100)
        schedules = [parse(f"wsd:peak=1e-3,steps={n},warmup=100,decay=0.3") for n in steps]
        loss = 2 + 100 / steps
        runs = RunTable.build(schedules, params=1e8, batch_tokens=1e5 + steps, final_loss=loss)
        for kind, words in (("multi_power", "sums over every update"), ("chinchilla", "must know learning rates")):
            with pytest.raises(LawError, match=words):
                optimize_schedule(fit_baseline(kind, runs), steps=1000)

    def test_no_range_of_peaks(self):
        law = QuadraticLaw(domain={"warmup_steps": (100.0, 100.0)})
        with pytest.raises(InputError, match="min_peak and max_peak must be given for law 'quadratic'"):
            optimize_schedule(law, steps=1000)

    def test_risk_without_a_model(self):
        with pytest.raises(InputError, match="max_risk needs a law with a risk model"):
            optimize_schedule(QuadraticLaw(), steps=1000, max_risk=0.1)


def test_tidy_keeps_figures():
    assert tidy(np.array([0.00123456, 12345.678, 0.0])).tolist() == [0.001235, 12350.0, 0.0]


def test_steps_from_tokens_and_the_laws_batch(law):
    task = make_task(law, tokens=2.56e9)
    assert task.steps == 50000
    assert task.assumed == {"params": 84934656.0, "weight_decay": 0.1, "batch_tokens": 51200.0}
    assert isinstance(task.runs([parse("cosine:peak=1e-3,steps=50000")]), RunTable)


def test_a_setting_gains_nothing_by_the_noise_of_its_runs():
    """What counts of the law's doubt is beyond the scatter of its runs, which no rate changes."""
    law = load_law("steplaw-dense")
    task = make_task(law, params=268e6, tokens=20e9, batch_tokens=524288.0)
    judged = task.judge([parse(f"cosine:peak={peak},steps={task.steps},warmup=2000") for peak in ("5e-4", "5e-3")])
    assert judged.noise[1] > 3 * judged.noise[0]
    assert judged.known.tolist() == [law.info["fit"]["scatter"]] * 2
    beyond = np.maximum(judged.sd - judged.known, 0.0)
    np.testing.assert_allclose(judged.score(2.0), np.log(judged.loss) + 2.0 * beyond, rtol=1e-12)
    plain = make_task(replace(law, info={}), params=268e6, tokens=20e9, batch_tokens=524288.0)
    again = plain.judge([parse(f"cosine:peak=5e-4,steps={task.steps},warmup=2000")])
    assert again.known == pytest.approx(again.noise)
