"""Recommended settings: known optima and flat ranges, published laws beside them, bad input."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from quadratic_law import BATCH, PEAK, QuadraticLaw, Wall
from scipy.special import ndtr

from optlaws import RunTable, load_law, parse, recommend_settings
from optlaws.baselines import REGISTRY, get_baseline
from optlaws.baselines.step_law import StepLaw
from optlaws.commands.recommend import _range_texts
from optlaws.errors import InputError, LawError, RiskError
from optlaws.law.baseline import fit_baseline
from optlaws.recommend import FLAT, choose_law, flat_range, published_laws, rival_advice, where_lowest

DOMAIN = {
    "peak_lr": (1e-4, 1e-2), "warmup_steps": (100.0, 100.0), "batch_tokens": (4e4, 4e6), "mean_rate": (0.4, 1.0)
}  # fmt: skip


def replace_peak(schedule, peak):
    """Return the schedule at another peak rate, of as many figures as the search tries, its rates in proportion."""
    peak = float(f"{peak:.4g}")
    spec = schedule.to_dict() | {"peak_lr": peak}
    share = spec.get("final_lr", 0.0) / schedule.peak
    return parse(spec | {"final_lr": share * peak})


@pytest.fixture(scope="module")
def dense():
    return recommend_settings(load_law("steplaw-dense"), params=268e6, tokens=20e9)


class TestKnownOptimum:
    def test_peak_batch_and_ranges(self):
        """The best batch is BATCH; with the peak tuned again a batch costs b ln(B / BATCH)^2, a peak a ln^2."""
        law = QuadraticLaw(a=0.02, b=0.01, m=0.0, scaling=0.5, domain=DOMAIN)
        found = recommend_settings(law, params=1e8, tokens=1e10)
        assert found.task.columns["batch_tokens"] == pytest.approx(BATCH, rel=0.12)
        own = PEAK * (found.task.columns["batch_tokens"] / BATCH) ** 0.5
        assert found.schedule.peak == pytest.approx(own, rel=0.03)
        half = np.sqrt(np.log1p(FLAT) / 0.02)
        assert np.log(found.peak.high / own) == pytest.approx(half, abs=0.04)
        assert np.log(found.peak.low / own) == pytest.approx(-half, abs=0.04)
        half = np.sqrt(np.log1p(FLAT) / 0.01)
        assert np.log(found.batch.high / BATCH) == pytest.approx(half, abs=0.05)
        assert np.log(found.batch.low / BATCH) == pytest.approx(-half, abs=0.05)
        assert found.loss == pytest.approx(2.0, rel=1e-3)

    def test_a_range_that_reaches_the_end_is_open(self):
        law = QuadraticLaw(m=0.0, domain=DOMAIN | {"peak_lr": (1e-4, 8e-4)})
        found = recommend_settings(law, params=1e8, tokens=1e10, batch_tokens=BATCH)
        assert found.schedule.peak == pytest.approx(8e-4)
        assert (found.peak.low_open, found.peak.high_open) == (False, True)
        assert found.batch is None

    def test_risk(self):
        law = QuadraticLaw(m=0.0, domain=DOMAIN, risk=Wall(5e-4))
        found = recommend_settings(law, params=1e8, tokens=1e10, batch_tokens=BATCH)
        assert found.schedule.peak <= 5e-4
        assert found.peak.high <= 5e-4
        with pytest.raises(RiskError, match=r"every candidate has a divergence risk above 0\.05"):
            recommend_settings(QuadraticLaw(domain=DOMAIN, risk=Wall(1e-6)), params=1e8, tokens=1e10)


class TestWhereTheLowestLies:
    def test_twin(self):
        """Of three expected losses whose errors are independent: how often each is lowest."""
        loss, sd = np.array([2.0, 2.01, 2.5]), np.array([0.01, 0.01, 0.001])
        first = ndtr(np.log(loss[1] / loss[0]) / np.hypot(*(sd / loss)[:2]))
        assert 0.7 < first < 0.95
        values = np.array([1e-4, 1e-3, 1e-2])
        assert where_lowest(Drawn(loss, np.diag(sd**2)), np.arange(3), values) == (1e-4, 1e-3)
        assert where_lowest(Drawn(loss, np.diag(sd**2)), np.array([0, 2]), values) == (1e-4, 1e-4)

    def test_what_all_share_moves_nothing(self):
        loss = np.array([2.0, 2.01, 2.02])
        shared = Drawn(loss, 0.1 * np.outer(loss, loss))
        assert where_lowest(shared, np.arange(3), np.arange(3.0)) == (0.0, 0.0)

    def test_an_end_of_the_scan_is_open(self):
        values, loss = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 1.9, 1.9, np.nan])
        flat = replace(flat_range(values, loss, loss, loss), least=2.0, most=3.0)
        assert (flat.least_open, flat.most_open) == (False, True)  # at 4 nothing is allowed
        assert _range_texts(flat, counts=False)[0] == "2 .. above 3"
        assert _range_texts(replace(flat, least=1.0, most=2.0), counts=False)[0] == "below 1 .. 2"
        assert np.isnan(where_lowest(Drawn(np.ones(1), np.ones((1, 1))), np.arange(1), np.ones(1))).all()

    def test_a_law_that_states_no_error_does_not_say(self):
        assert np.isnan(where_lowest(Drawn(np.ones(3), np.zeros((3, 3))), np.arange(3), np.arange(3.0))).all()

    def test_it_is_wider_beyond_the_runs(self, dense):
        far = recommend_settings(load_law("steplaw-dense"), params=5e9, tokens=20e9)
        for name in ("peak", "batch"):
            near, other = getattr(dense, name), getattr(far, name)
            assert near.least <= near.best <= near.most
            assert other.most / other.least > 1.2 * near.most / near.least


@dataclass(frozen=True)
class Drawn:
    loss: np.ndarray
    matrix: np.ndarray

    def covariance(self, rows):
        return self.matrix[np.ix_(rows, rows)]


class TestFlatRange:
    def test_holes_end_it(self):
        x = np.arange(1.0, 8.0)
        loss = np.array([1.0, 1.0, np.nan, 1.0, 0.9999, 1.0, 2.0])
        found = flat_range(x, loss, loss, loss)
        assert (found.best, found.low, found.low_open) == (5.0, 4.0, True)
        assert 6.0 < found.high < 6.01


class TestBuiltIn:
    def test_step_law_grid(self, dense):
        """On the grid that Step Law was fitted on, our advice is near its own."""
        peak, batch = StepLaw.published().recommend(268e6, 20e9)
        assert dense.schedule.peak == pytest.approx(peak, rel=0.4)
        assert dense.task.columns["batch_tokens"] == pytest.approx(batch, rel=0.5)
        assert dense.in_domain
        assert dense.family == "cosine"  # the only shape that this law has seen
        assert dense.shapes is not None
        costs = {law.name: law.cost for law in dense.published}
        assert abs(costs["step_law"]) < 2e-3
        assert costs["openai_rate"] > 0.01
        assert np.isnan(costs["microsoft_rate"])

    def test_the_recommendation_is_the_lowest_of_its_scan(self, dense):
        assert dense.loss <= np.nanmin(dense.peak.loss) * (1 + 1e-6)
        assert dense.loss <= np.nanmin(dense.batch.loss) * (1 + 1e-4)
        assert dense.peak.low < dense.schedule.peak < dense.peak.high
        assert dense.lower < dense.loss < dense.upper

    @pytest.mark.parametrize(("params", "tokens"), [(85e6, 2.56e9), (1e9, 20e9)])
    @pytest.mark.parametrize("caution", [0.0, 2.0])
    def test_what_is_recommended_is_the_best_of_its_range(self, params, tokens, caution):
        """At 1B the divergence risk bounds the peak rate, between two rates of the first grid."""
        found = recommend_settings(load_law("llama-slimpajama"), params=params, tokens=tokens, caution=caution)
        assert found.schedule.peak == pytest.approx(found.peak.best, rel=1e-3)
        allowed = np.isfinite(found.peak.loss)
        others = [replace_peak(found.schedule, peak) for peak in found.peak.values[allowed]]
        score = found.task.judge([found.schedule, *others]).score(caution)
        assert score[0] <= score[1:].min() + 2e-7  # rates of few figures
        if not caution:
            assert found.loss == pytest.approx(np.nanmin(found.peak.loss), rel=1e-9)
        assert found.schedule in found.families.runs.schedule_tuple()
        assert found.risk <= 0.05

    def test_more_data_wants_a_larger_batch(self):
        law = load_law("steplaw-dense")
        batches = [recommend_settings(law, params=268e6, tokens=d).task.columns["batch_tokens"] for d in (8e9, 80e9)]
        assert batches[1] > 1.5 * batches[0]

    def test_the_nearest_law_is_chosen(self):
        assert choose_law(85e6, 2e9, None).name == "llama-slimpajama"
        assert choose_law(400e6, 50e9, None).name == "steplaw-dense"
        assert choose_law(7e9, 1e12, None).name == "steplaw-dense"

    def test_far_outside_is_said(self):
        found = recommend_settings(params=7e9, tokens=1e12)
        assert not found.in_domain
        assert "params 7B above" in found.reasons
        assert "outside the law's domain" in found.notes[-1]

    def test_sgd_is_outside(self):
        found = recommend_settings(load_law("llama-slimpajama"), params=85e6, tokens=2.56e9, optimizer="sgd")
        assert "plain_sgd" in found.reasons
        assert np.isnan(found.risk)
        assert "the divergence risk is not known, and nothing was left out because of it" in found.notes[0]


@dataclass(frozen=True)
class Informed(QuadraticLaw):
    info: dict = field(default_factory=dict)


def families(*names):
    return {"left_out_groups": {"family": {"groups": [{"group": name, "n_runs": 9} for name in names]}}}


class TestFamiliesSeen:
    """A law of the mean rate alone: all families that reach its best one are equal but for rounding."""

    def ask(self, m=0.01, info=None, domain=DOMAIN, **more):
        law = Informed(m=m, domain=domain, info=info or {})
        return recommend_settings(law, params=1e8, tokens=1e10, batch_tokens=BATCH, **more)

    @pytest.mark.parametrize("name", ["linear", "cosine"])
    def test_a_family_that_was_seen_is_taken_where_it_cannot_be_told_apart(self, name):
        found = self.ask(info=families(name))
        lowest = found.families.names[found.families.best]
        assert found.family == name != lowest
        row = found.families.names.index(name)
        assert found.families.difference_lower[row] <= 0 < found.families.difference[row]
        (why,) = (note for note in found.notes if "is recommended" in note)
        assert why.startswith(f"{name} is recommended, and not {lowest} of lowest predicted loss")
        assert f"cannot tell it from {name}, which it has seen (+0.00" in why

    def test_the_lowest_of_those_seen_is_taken(self):
        seen = self.ask(info=families("linear", "cosine", "two_stage"))
        rows = [seen.families.names.index(name) for name in ("linear", "cosine", "two-stage")]
        assert seen.families.names.index(seen.family) == min(rows, key=lambda row: seen.families.loss[row])

    def test_a_difference_that_the_law_is_sure_of_counts(self):
        found = self.ask(m=2.0, info=families("linear"))
        row = found.families.names.index("linear")
        assert found.families.difference_lower[row] > 0
        assert found.families.names[found.families.best] == found.family
        assert not any("is recommended" in note for note in found.notes)

    @pytest.mark.parametrize("info", [{}, families(), families("my own words"), {"left_out_groups": {"horizon": {}}}])
    def test_a_law_that_does_not_know_takes_the_lowest(self, info):
        found = self.ask(info=info)
        assert found.family == found.families.names[found.families.best]

    def test_of_a_law_of_one_shape_that_does_not_know_it_is_the_cosine(self):
        assert self.ask(m=0.1, domain=DOMAIN | {"mean_rate": (0.5, 0.55)}).family == "cosine"

    def test_the_runs_themselves_say_more_than_the_file(self):
        """A file leaves small groups out; of the runs given all completed ones count."""
        specs = [f"{kind}:peak={p},steps=1000" for kind, p in (("linear", 1e-3), ("linear", 2e-3), ("cosine", 4e-3))]
        runs = RunTable.build(
            specs, params=1e8, tokens=1e9, batch_tokens=1e6, final_loss=[3.0, 2.9, np.nan],
            status=["completed", "completed", "diverged"],
        )  # fmt: skip
        assert self.ask(info=families("wsd"), fitted_on=runs).family == "linear"


class TestPublished:
    def test_all_that_have_printed_constants(self):
        names = {law.name for law, _ in published_laws()}
        assert names == {"openai_rate", "microsoft_rate", "deepseek_rate", "porian_rate", "minicpm_batch", "step_law"}

    def test_a_batch_that_cannot_be_judged_has_no_cost(self):
        """A law of the batch alone says nothing where one batch was seen, or where the batch is settled."""
        one = recommend_settings(load_law("llama-slimpajama"), params=85e6, tokens=2.56e9)
        settled = recommend_settings(load_law("steplaw-dense"), params=268e6, tokens=20e9, batch_tokens=1e6)
        for found in (one, settled):
            costs = {law.name: law.cost for law in found.published}
            assert np.isnan(costs["minicpm_batch"])
            assert np.isfinite(costs["step_law"])
            risks = {law.name: law.risk for law in found.published}
            assert risks["porian_rate"] > risks["openai_rate"] >= 0.0
            assert np.isnan(risks["minicpm_batch"])
        assert "others' rates are judged at the batch that was given" in settled.notes

    def test_a_risk_that_the_other_law_never_promises(self):
        """What is accepted may be below all that the law of shapes knows: then it is not asked."""
        domain = DOMAIN | {"mean_rate": (0.5, 0.55)}
        law = QuadraticLaw(m=0.0, domain=domain, risk=Wall(1e-2, low=0.0))
        found = recommend_settings(law, params=1e8, tokens=1e10, batch_tokens=BATCH, max_risk=0.0)
        assert found.shapes is None
        assert found.risk == 0.0

    def test_others_are_fitted_to_runs(self):
        schedules = [parse(f"cosine:peak={p},steps=1000") for p in (1e-3, 2e-3, 4e-3)]
        runs = RunTable.build(
            schedules, params=1e8, tokens=1e9, batch_tokens=1e6, final_loss=[3.0, 2.9, 3.1], run_id=list("abc")
        )
        fitted = {law.name: law for law, note in published_laws(runs) if note == "fitted to the runs given"}
        assert fitted["mup"].base_rate == 2e-3

    def test_one_law_alone(self):
        advice = rival_advice("step_law", 268e6, 20e9)
        assert advice.peak_lr == pytest.approx(1.79 * 268e6**-0.713 * 20e9**0.307)
        assert "2503.04715" in advice.source

    def test_every_law_that_advises_is_offered(self):
        with pytest.raises(LawError, match="law must advise peak rates or batches") as error:
            rival_advice("chinchilla", 1e8, 1e9)
        for name in REGISTRY:
            assert (f" {name}" in str(error.value).split(", got")[0]) == hasattr(get_baseline(name), "recommend")

    def test_constants_that_nobody_printed(self):
        with pytest.raises(LawError, match="law 'mup' has no printed constants"):
            rival_advice("mup", 1e8, 1e9)


class TestBadInput:
    def test_sizes(self):
        with pytest.raises(InputError, match="params must be a finite number above 0, got 0"):
            recommend_settings(params=0, tokens=1e9)
        with pytest.raises(InputError, match="tokens must be a finite number above 0, got nan"):
            recommend_settings(params=1e8, tokens=float("nan"))

    def test_a_run_of_no_steps(self):
        with pytest.raises(InputError, match=r"tokens must be enough for 10 steps of 32.77K tokens, got 1K"):
            recommend_settings(load_law("steplaw-dense"), params=268e6, tokens=1000)
        with pytest.raises(InputError, match="steps must be at least 4"):
            recommend_settings(load_law("llama-slimpajama"), params=268e6, tokens=1000)

    def test_a_law_that_knows_no_rates(self):
        rng = np.random.default_rng(0)
        n, d = rng.uniform(1e7, 1e9, 30), rng.uniform(1e9, 1e10, 30)
        loss = 1.7 + 400 * n**-0.34 + 400 * d**-0.28
        runs = RunTable.build([parse("cosine:peak=1e-3,steps=1000")] * 30, params=n, tokens=d, final_loss=loss)
        with pytest.raises(LawError, match="must know learning rates to find the best one, and chinchilla does not"):
            recommend_settings(fit_baseline("chinchilla", runs), params=1e8, tokens=1e9)

    def test_no_batch(self):
        law = QuadraticLaw(defaults={})
        with pytest.raises(InputError, match="batch_tokens must be given for law 'quadratic'"):
            recommend_settings(law, params=1e8, tokens=1e9)
