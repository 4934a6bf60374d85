"""What a law has not seen: betas, sparse networks, runs that end at their peak rate, columns that do not suffice."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from made_runs import plan, with_losses

from optlaws.commands.core import _fit_summary
from optlaws.errors import OptlawsWarning, told_otherwise
from optlaws.law import fit_law
from optlaws.law.domain import density, far_out, mean_and_end_rate
from optlaws.law.misfit import wider_field
from optlaws.regression.settings import Settings
from optlaws.runs import RunTable
from optlaws.schedules import parse
from optlaws.validation import configurations


def given(runs, **columns):
    """The runs with the same value in all cells of a column."""
    return replace(runs, **{name: np.full(len(runs), value) for name, value in columns.items()})


def width(prediction):
    return prediction.sd / prediction.loss


@pytest.fixture(scope="module")
def runs():
    return given(with_losses(plan(), noise=0.0005), beta1=0.9, beta2=0.95)


@pytest.fixture(scope="module")
def law(runs):
    return fit_law(runs)


@pytest.fixture(scope="module")
def new():
    return plan(peaks=(6e-4,), steps=(5000,), params=(2e7,))


class TestBetas:
    def test_others_than_those_seen_are_out_of_the_domain(self, law, new):
        for columns in ({"beta1": 0.95}, {"beta1": 0.5}, {"beta2": 0.999}, {"beta2": 0.8}):
            p = law.predict(given(new, **columns))
            name, value = next(iter(columns.items()))
            assert not p.in_domain.any()
            assert p.reasons[0].startswith(f"{name} {value:g} {'above' if value > 0.9 else 'below'} 0.9")

    def test_near_ones_and_unsaid_ones_are_in_it(self, law, new):
        usual = law.predict(new)
        for columns in ({}, {"beta1": 0.9, "beta2": 0.95}, {"beta1": 0.92, "beta2": 0.98}):
            p = law.predict(given(new, **columns))
            assert p.in_domain.all()
            np.testing.assert_array_equal(p.sd, usual.sd)

    def test_a_long_memory_makes_losses_uncertain_and_differences_at_one_memory_not(self, law, new):
        p, far = law.predict(new), law.predict(given(new, beta1=0.98))
        np.testing.assert_array_equal(far.loss, p.loss)
        np.testing.assert_allclose(width(far) ** 2 - width(p) ** 2, (0.06 * np.log(5 / 2)) ** 2, rtol=1e-6)
        pairs = [q.covariance([0, 1]) / np.outer(q.loss[:2], q.loss[:2]) for q in (far, p)]
        gaps = [m[0, 0] + m[1, 1] - 2 * m[0, 1] for m in pairs]
        assert gaps[0] == pytest.approx(gaps[1], rel=1e-6)

    def test_a_law_of_unknown_betas_does_not_judge_them(self, new):
        law = fit_law(with_losses(plan(), noise=0.0005))
        assert "beta1" not in law.domain
        assert law.predict(given(new, beta1=0.5)).in_domain.all()


class TestSparseNetworks:
    def test_share_of_active_parameters(self):
        runs = RunTable.build(
            ["constant:peak=1e-3,steps=100"] * 3, params=[4e8, 4e8, None], active_params=[1e8, None, 3e7]
        )
        assert density(runs).tolist() == [0.25, 1.0, 1.0]

    def test_a_law_of_dense_networks_is_unsure_of_them(self, law, new):
        sparse = replace(new, active_params=new.params, params=8 * new.params)
        p, q = law.predict(new), law.predict(sparse)
        assert q.reasons[0].startswith("density 0.125 below 1, the lowest in training")
        np.testing.assert_array_equal(q.loss, p.loss)
        assert (width(q) > 0.07).all()

    def test_another_size_of_sparse_networks_is_less_certain_than_one_of_dense_ones(self, runs, new):
        sparse = replace(runs, active_params=runs.params, params=np.full(len(runs), 4e8))
        other = replace(new, active_params=np.full(len(new), 3.5e7), params=np.full(len(new), 4e8))
        dense = replace(new, params=np.full(len(new), 3.5e7))
        assert (width(fit_law(sparse).predict(other)) > 4 * width(fit_law(runs).predict(dense))).all()


class TestEnds:
    @pytest.mark.parametrize(
        ("text", "end"),
        [
            ("constant:peak=1e-3,steps=5000", 1.0),
            ("cosine:peak=1e-3,steps=5000,warmup=300,final=1e-4", 0.1),
            ("linear:peak=1e-3,steps=5000", 0.0),
            ("wsd:peak=1e-3,steps=5000,decay=0.2,shape=sqrt", 0.0),
            ("two_stage:peak=1e-3,steps=5000,switch=0.5,second=2e-4", 0.2),
        ],
    )
    def test_last_rate(self, text, end):
        assert mean_and_end_rate(RunTable.build([parse(text)]).batch())[1][0] == pytest.approx(end, abs=2e-3)

    def test_a_law_of_annealed_runs_is_unsure_of_constant_rates_and_one_of_both_is_not(self, runs, law, new):
        kinds = np.array([s.kind for s in runs.schedule_tuple()])
        annealed = fit_law(runs.select(kinds != "constant"))
        still = new.select(np.array([s.kind == "constant" for s in new.schedule_tuple()]))
        assert annealed.domain["end_rate"][1] == pytest.approx(0.1, abs=1e-3)
        assert width(annealed.predict(still))[0] > 0.006 * np.log(1.1 / 0.2)
        assert width(law.predict(still))[0] < 0.003
        assert not any("end_rate" in reason for reason in annealed.predict(still).reasons)


class TestWiderField:
    def test_only_where_noise_is_suspect_and_the_evidence_is_plain(self):
        usual, asked = Settings(), []

        def evidence(gain):
            def of(settings):
                asked.append(settings.field_sd)
                return gain * np.log2(settings.field_sd / usual.field_sd)

            return of

        assert wider_field(usual, 0.001, 100, evidence(100.0)) == usual
        assert not asked
        assert wider_field(usual, 0.01, 100, evidence(30.0)) == usual  # 60 nats for 100 runs
        wide = wider_field(usual, 0.01, 100, evidence(40.0))
        assert (wide.field_sd, wide.trend_sd) == (4 * usual.field_sd, 4 * usual.trend_sd)
        assert wider_field(usual, 0.01, 12, evidence(100.0)) == usual

    def test_smooth_losses_that_leave_the_columns_are_not_called_noise(self):
        """A waviness of 3 % in the rate that no column has: it is smooth, and 0.1 % of noise is added."""
        runs = with_losses(plan(peaks=tuple(np.geomspace(2e-4, 4e-3, 12)), steps=(3000, 9000)), noise=0.001)
        wave = 0.03 * np.sin(3.0 * np.log(np.asarray(runs.batch().peak) / 1e-3))
        runs = replace(runs, final_loss=runs.final_loss * np.exp(wave))
        with warnings.catch_warnings():
            warnings.simplefilter("error", OptlawsWarning)
            with told_otherwise():
                law = fit_law(runs)
        assert law.posterior.noise < 0.004
        assert "the field has 4 times its usual width" in " ".join(_fit_summary(law, "law.json"))
        kept = np.arange(len(runs)) % 4 != 1
        part, held = fit_law(runs.select(kept)), runs.select(~kept)
        assert np.abs(part.predict(held).loss / held.final_loss - 1).mean() < 0.004


def test_repeats_are_no_further_configurations(runs):
    some = runs.select(np.arange(0, 24, 2))
    seeds = [replace(some, run_id=tuple(f"{name}-{k}" for name in some.run_id)) for k in range(3)]
    both = RunTable.concat([replace(one, final_loss=one.final_loss * (1 + 1e-3 * k)) for k, one in enumerate(seeds)])
    with pytest.warns(OptlawsWarning, match=r"12 runs \(36 with their repeats\) for 16 columns"):
        law = fit_law(both)
    assert law.info["n_configurations"] == 12
    for change in ({"beta1": 0.95}, {"beta2": 0.99}, {"seq_len": 512.0}):
        assert not set(configurations(given(some, **change))) & set(configurations(some))
    clipped = replace(some, extra={"grad_clip": ("0.5",) * len(some), "note": ("a",) * len(some)})
    open_ = replace(some, extra={"grad_clip": ("1",) * len(some), "note": ("b",) * len(some)})
    assert not set(configurations(clipped)) & set(configurations(open_))
    assert set(configurations(replace(clipped, extra={"note": ("c",) * len(some)}))) == set(configurations(some))


def test_deeper_annealing_than_any_seen_is_no_less_certain_for_it():
    """Optimal schedules end lower than those of the training runs; laws of higher ends had them right."""
    deep = far_out({"end_rate": np.array([0.0, 1.0])}, {"end_rate": (0.1, 1.0)})
    assert deep is None or not deep.any()
    far = far_out({"end_rate": np.array([0.0, 1.0])}, {"end_rate": (0.0, 0.1)})
    np.testing.assert_allclose(far[:, 0], [0.0, 0.006 * np.log(1.1 / 0.2 / 1.05)])
