"""What counts against a setting that the law does not know, and against an unusual warm-up; what a law file keeps."""

import warnings
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from quadratic_law import BATCH, PEAK, QuadraticLaw

from optlaws import RunTable, fit_law, load_law, optimize_schedule, parse, recommend_settings
from optlaws.commands.recommend import _text, advice
from optlaws.commands.recommend_figure import panel
from optlaws.errors import InputError, LawError, OptlawsWarning
from optlaws.law.baseline import fit_baseline
from optlaws.law.domain import larger_note, schedules_seen
from optlaws.optimize import Gain, make_task
from optlaws.plotting import new_axes
from optlaws.recommend import FlatRange, _seen

SIZES = {"params": 1e8, "tokens": 4e9, "batch_tokens": BATCH}
NOISE = 0.001 / 2.0  # of QuadraticLaw's runs


@dataclass(frozen=True)
class Stated(QuadraticLaw):
    info: dict = field(default_factory=dict)


class TestCaution:
    def test_recommend_and_optimize_answer_alike(self):
        """Where doubt grows with the rate both go to the lower rate: a x^2 + c s (x + x_0) is lowest at -c s / 2 a."""
        law = QuadraticLaw(a=0.02, m=0.0, doubt=0.005, shared=0.0)
        for caution in (0.0, 1.0, 2.0):
            own = recommend_settings(law, **SIZES, caution=caution)
            other = optimize_schedule(law, **SIZES, caution=caution, knots=0)
            assert own.schedule.peak == pytest.approx(other.schedule.peak, rel=0.01)
            assert np.log(own.schedule.peak / PEAK) == pytest.approx(-caution * 0.005 / 0.04, abs=0.03)

    def test_the_default_is_one(self):
        law = QuadraticLaw(a=0.02, m=0.0, doubt=0.005, shared=0.0)
        own, other = recommend_settings(law, **SIZES), optimize_schedule(law, **SIZES, knots=0)
        assert own.task.caution == other.task.caution > 0
        assert own.schedule.peak < 0.9 * PEAK

    def test_batches_too(self):
        """A batch that the law is in doubt about must promise more than that."""

        @dataclass(frozen=True)
        class Doubted(QuadraticLaw):
            def predict(self, runs):
                found = super().predict(runs)
                more = 0.02 * np.log(runs.batch_tokens / 4e4) * found.loss
                return replace(found, factors=np.column_stack([found.factors, more]))

        domain = {"peak_lr": (1e-4, 1e-2), "warmup_steps": (100.0, 100.0), "batch_tokens": (4e4, 4e6)}
        law = Doubted(m=0.0, b=0.02, shared=0.0, domain=domain)
        bold, careful = (recommend_settings(law, params=1e8, tokens=1e10, caution=c).batch.best for c in (0.0, 1.0))
        assert bold == pytest.approx(BATCH, rel=0.12)
        assert np.log(careful / BATCH) == pytest.approx(-0.5, abs=0.12)  # c s / 2 b

    def test_doubt_within_the_noise_of_a_run_does_not_count(self):
        """Among settings that the law knows the mean decides (docs/optimize.md)."""
        law = QuadraticLaw(m=0.0, doubt=0.9 * NOISE / np.log(1e2), shared=0.0)
        assert recommend_settings(law, **SIZES, caution=10.0).schedule.peak == pytest.approx(PEAK, rel=0.03)
        judged = make_task(law, **SIZES).judge([parse("cosine:peak=1e-3,steps=10000,warmup=100")])
        assert judged.sd[0] < judged.noise[0]
        assert judged.score(10.0)[0] == np.log(judged.loss[0])

    def test_twin_of_the_score(self):
        law = QuadraticLaw(doubt=0.01)
        judged = make_task(law, **SIZES).judge([parse(f"cosine:peak={p},steps=10000,warmup=100") for p in (1e-3, 3e-3)])
        for i in range(2):
            alone = np.sqrt(judged.prediction.sd[i] ** 2 - judged.prediction.noise[i] ** 2) / judged.loss[i]
            noise = judged.prediction.noise[i] / judged.loss[i]
            assert judged.score(1.5)[i] == pytest.approx(np.log(judged.loss[i]) + 1.5 * max(alone - noise, 0.0))

    def test_where_the_mean_goes_elsewhere_it_is_said(self):
        law = QuadraticLaw(a=0.02, m=0.0, doubt=0.02, shared=0.0)
        found = recommend_settings(law, **SIZES)
        (note,) = (note for note in found.notes if "the lowest predicted loss is at a peak rate of" in note)
        assert "where the law is less sure (--caution 1.64; 0 goes by the mean alone)" in note
        assert not any("--caution" in note for note in recommend_settings(law, **SIZES, caution=0.0).notes)

    @pytest.mark.parametrize("caution", [-1.0, 11.0, np.nan])
    def test_bad_input(self, caution):
        with pytest.raises(InputError, match="caution must be from 0 to 10 standard deviations"):
            recommend_settings(QuadraticLaw(), **SIZES, caution=caution)


@dataclass(frozen=True)
class Warm(Stated):
    """A law that puts runs `gain` (relative) lower for every factor of e of warm-up."""

    gain: float = 0.0

    def predict(self, runs):
        found = super().predict(runs)
        factor = np.exp(-self.gain * np.log(np.maximum(runs.batch().warmup_steps, 1.0) / 300.0))
        return replace(found, loss=found.loss * factor, factors=found.factors * factor[:, None])


@dataclass(frozen=True)
class LongOnly:
    """A risk that only long warm-ups are free of."""

    least: float

    def probability(self, runs, defaults=None):
        return np.where(np.asarray(runs.batch().warmup_steps) < self.least, 0.6, 0.01)


DOMAIN = {"peak_lr": (1e-4, 1e-2), "warmup_steps": (100.0, 1000.0), "mean_rate": (0.4, 1.0)}


class TestWarmup:
    def ask(self, gain=0.0, risk=None, usual=400.0, **more):
        info = {"schedules": {"kinds": {"cosine": 9}, "warmup_steps": usual}} if usual else {}
        law = Warm(m=0.0, domain=DOMAIN, info=info, gain=gain, risk=risk)
        found = recommend_settings(law, **SIZES, **more).schedule
        assert optimize_schedule(law, **SIZES, knots=0, **more).schedule.warmup_steps == found.warmup_steps
        return found.warmup_steps

    def test_the_usual_one_is_taken(self):
        assert self.ask() == 400

    @pytest.mark.parametrize("side", [-1, 1])
    def test_another_one_must_promise_more_than_the_noise(self, side):
        far = np.log(400 / 100) if side < 0 else np.log(1000 / 400)
        assert self.ask(gain=side * 0.8 * NOISE / far) == 400
        assert self.ask(gain=side * 1.3 * NOISE / far) == (100 if side < 0 else 1000)

    def test_another_one_is_taken_where_only_it_is_safe(self):
        assert self.ask(risk=LongOnly(700.0)) == 1000

    def test_a_law_that_does_not_state_it_takes_the_lowest(self):
        assert self.ask(gain=1e-6, usual=None) == 1000

    def test_those_given(self):
        assert self.ask(gain=1e-6, warmup=[200, 600]) == 600
        assert self.ask(gain=1e-6, warmup=[400, 600]) == 400

    def test_it_is_at_most_half_of_the_run(self):
        law = Warm(m=0.0, domain=DOMAIN, info={"schedules": {"kinds": {}, "warmup_steps": 900.0}})
        found = recommend_settings(law, params=1e8, tokens=BATCH * 500, batch_tokens=BATCH)
        assert found.schedule.warmup_steps <= 250


def made(count=24):
    rng = np.random.default_rng(0)
    size, peak = rng.choice([1e8, 2e8, 4e8], count), np.exp(rng.uniform(np.log(5e-4), np.log(2e-3), count))
    kinds = ["wsd" if i % 6 == 0 else "cosine" for i in range(count)]
    warm = np.where(size > 1.5e8, 800, 300)
    specs = [f"{k}:peak={p:.4g},steps=10000,warmup={w}" for k, p, w in zip(kinds, peak, warm, strict=True)]
    specs = [f"{spec},decay=0.2" if spec.startswith("wsd") else spec for spec in specs]
    loss = (1.7 + 400 * size**-0.34) * np.exp(0.01 * np.log(peak / 1e-3) ** 2 + 0.002 * rng.standard_normal(count))
    status = ["completed"] * (count - 1) + ["diverged"]
    return RunTable.build(specs, params=size, tokens=5e9, batch_tokens=5e5, final_loss=loss, status=status)


@pytest.fixture(scope="module")
def law():
    return fit_law(made())


class TestLawFiles:
    def test_both_routes_agree(self, law, tmp_path):
        """A law that is read knows the schedules of its runs as one that was just fitted to them."""
        law.save(tmp_path / "law.json")
        read = load_law(tmp_path / "law.json")
        assert read.info["schedules"] == {"kinds": {"cosine": 19, "wsd": 4}, "warmup_steps": 800.0}
        assert _seen(read, None) == _seen(law, made()) == {"cosine", "wsd"}
        ask = {"params": 5e8, "tokens": 5e9, "batch_tokens": 5e5}
        one, other = recommend_settings(law, **ask, fitted_on=made()), recommend_settings(read, **ask)
        assert (one.schedule, one.loss, one.family) == (other.schedule, other.loss, other.family)
        assert one.notes == other.notes

    def test_laws_of_others_too(self):
        runs = made().select(np.arange(23))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptlawsWarning)
            fitted = fit_baseline("chinchilla", runs)
        assert fitted.info["schedules"] == schedules_seen(runs)

    def test_old_files_are_read_and_do_not_say(self, tmp_path):
        law = load_law("llama-slimpajama")
        kinds = {"constant", "cosine", "wsd"}
        assert _seen(law, None) == set(law.info["schedules"]["kinds"]) == kinds
        law = replace(law, info={key: value for key, value in law.info.items() if key != "schedules"})
        law.save(tmp_path / "old.json")
        assert "schedules" not in load_law(tmp_path / "old.json").info
        assert _seen(load_law(tmp_path / "old.json"), None) == kinds

    @pytest.mark.parametrize(
        "wrong", [[], {"kinds": [], "warmup_steps": 1.0}, {"kinds": {}}, {"kinds": {"wsd": "x"}, "warmup_steps": 1.0},
                  {"kinds": {}, "warmup_steps": -1.0}]
    )  # fmt: skip
    def test_bad_entries_are_named(self, law, tmp_path, wrong):
        replace(law, info={**law.info, "schedules": wrong}).save(tmp_path / "law.json")
        with pytest.raises(LawError, match=r"schedules"):
            load_law(tmp_path / "law.json")


@pytest.fixture(scope="module")
def wide():
    """A law that knows nothing of the rate."""
    return recommend_settings(QuadraticLaw(a=1e-4, m=0.0, doubt=0.05, shared=0.0), **SIZES, caution=0.0)


@pytest.fixture(scope="module")
def sure():
    return recommend_settings(QuadraticLaw(a=0.02, m=0.0, doubt=1e-4, shared=0.0), **SIZES)


class TestWhatIsNotSettled:
    def test_the_sentence_says_so(self, wide):
        assert wide.peak.unsettled
        text = advice(wide)
        assert (
            "Your runs do not settle the peak rate: the best may lie anywhere from below 0.0001 to above 0.01" in text
        )
        told = sorted(p.peak_lr for p in wide.published if p.peak_lr > 1e-6)
        assert f"published laws say {told[0]:.3g} (" in text
        assert f" to {told[-1]:.3g} (" in text
        assert "predicted to cost" not in text
        table = _text(wide)
        assert "below 0.0001 .. above 0.01" in table
        assert "(below, above: the best may lie beyond all that the law's domain and the accepted risk allow)" in table

    def test_what_is_settled_is_told_as_before(self, sure):
        assert not sure.peak.unsettled
        assert "predicted to cost less than 0.1 % more, uncertainty ignored" in advice(sure)
        assert "do not settle" not in advice(sure)
        assert "beyond all" not in _text(sure)

    def test_nearly_all_that_was_looked_at_is_not_settled(self):
        x = np.geomspace(1.0, 100.0, 50)
        for ends, unsettled in (((1.3, 90.0), True), ((1.3, 40.0), False), ((x[0], 2.0), True), ((50.0, x[-1]), True)):
            assert FlatRange(9.0, 8.0, 10.0, False, False, x, x, x, x, *ends).unsettled == unsettled

    def test_the_figure_has_arrows_at_open_ends_and_the_domain_s_edges(self, wide, sure):
        for found, arrows in ((wide, {"<", ">"}), (sure, set())):
            panel(ax := new_axes(), found, found.peak, "peak_lr")
            assert {line.get_marker() for line in ax.lines} & {"<", ">"} == arrows
            labels = ax.get_legend_handles_labels()[1]
            assert any(label.startswith("the best lies here (90 %)") for label in labels)
            edges = [float(line.get_xdata()[0]) for line in ax.lines if line.get_linestyle() == ":"]
            left, right = ax.get_xlim()
            assert edges == [end for end in (1e-4, 1e-2) if left <= end <= right]
            assert ("edge of the law's domain" in labels) == bool(edges)

    def test_the_recommended_point_lies_on_the_curve(self):
        law = QuadraticLaw(a=0.02, m=0.0, doubt=0.02, shared=0.0)
        found = recommend_settings(law, **SIZES)
        panel(ax := new_axes(), found, found.peak, "peak_lr")
        (dot,) = (line for line in ax.lines if line.get_marker() == "o")
        assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (found.schedule.peak, pytest.approx(found.loss))


def test_far_larger_runs_are_said():
    domain = {"params": (1.5e8, 7e8)}
    assert larger_note(domain, np.array([1e8, 3e9])).startswith("3B is 4.3 times the largest size of the law's runs")
    assert larger_note(domain, np.array([7e10])).startswith("70B is 100 times the largest size")
    assert larger_note(domain, np.array([1.4e9, np.nan])) == larger_note({}, np.array([1e12])) == ""
    assert larger_note(domain, np.array([np.nan])) == ""


def test_odds_name_the_divergence_that_is_in_them():
    gain = Gain("cosine", parse("cosine:peak=1e-3,steps=100"), 0.005, 0.002, 0.008, 0.96, 0.002, risk=0.03)
    assert gain.odds == "96 % (3 % diverge)"
    assert replace(gain, risk=1e-4).odds == "96 %"
