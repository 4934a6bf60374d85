"""Fitting laws to runs of a known law: what is found, what is refused, and the joint covariance."""

from dataclasses import replace

import numpy as np
import pytest
from made_runs import curve_losses, curves_of, expected, plan, with_losses
from naive_kriging import Kriging
from threadpoolctl import threadpool_limits

from optlaws.errors import FitError, InputError, OptlawsError, OptlawsWarning, TableError
from optlaws.features import feature_table, get_basis
from optlaws.law import fit_law, fitting
from optlaws.law.baseline import fit_baseline
from optlaws.law.calibrate import profile_exponents
from optlaws.law.domain import mean_and_end_rate
from optlaws.law.fitting import _Fit
from optlaws.regression import Settings
from optlaws.runs import CurveTable, RunTable
from optlaws.schedules import parse


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def runs():
    return with_losses(plan(), noise=0.0005)


@pytest.fixture(scope="module")
def law(runs):
    return fit_law(runs)


@pytest.fixture(scope="module")
def few():
    """Nine runs of one size and length, enough for curves."""
    return plan(steps=(4000,), params=(6e7,))


def changed(runs, **columns):
    kept = ("run_id", "params", "batch_tokens", "optimizer", "weight_decay", "status", "final_loss")
    given = {name: getattr(runs, name) for name in kept} | columns
    if "batch_tokens" in columns and "tokens" not in columns:
        given["tokens"] = None
    return RunTable.build(runs.schedules, **given)


class TestKnownTruth:
    def test_new_runs_inside_the_domain(self, law):
        new = plan(peaks=(6e-4, 1.5e-3), steps=(4500, 9000), params=(2e7, 6e7))
        p = law.predict(new)
        assert np.abs(p.loss / expected(new) - 1).mean() < 1e-3
        assert p.in_domain.all()
        assert (p.lower < p.loss).all()
        assert (p.loss < p.upper).all()
        assert law.info["n_runs"] == 54

    def test_outside_the_domain_it_says_so_and_is_wider(self, law):
        inside = law.predict(plan(steps=(12000,), params=(6e7,)))
        far = law.predict(plan(steps=(60000,), params=(1e9,)))
        assert not far.in_domain.any()
        assert "steps 60K above 12K, the highest in training" in far.reasons[0]
        assert "params 1B above 60M, the highest in training" in far.reasons[0]
        assert np.median(far.sd / far.loss) > 2 * np.median(inside.sd / inside.loss)

    def test_differences_of_schedules_are_surer_than_losses(self, law):
        new = plan(peaks=(6e-4,), steps=(12000,), params=(6e7,))
        p = law.predict(new)
        c = p.covariance(slice(None))
        difference = np.sqrt(c[0, 0] + c[1, 1] - 2 * c[0, 1])
        assert difference < np.sqrt(c[0, 0] + c[1, 1])
        assert c[0, 1] > 0

    def test_several_sources_of_loss_agree(self, few):
        """On finals only, on curves only, on both: each predicts the known law."""
        curves = curves_of(few, noise=0.0005)
        finals = with_losses(few, noise=0.0005, seed=1)
        truth = expected(few)
        with pytest.warns(OptlawsWarning, match="9 runs for 16 columns"):
            laws = [fit_law(finals)]
        laws += [fit_law(few, curves), fit_law(finals, curves)]
        for fitted in laws:
            assert np.abs(fitted.predict(few).loss / truth - 1).max() < 3e-3
        assert [x.info["n_runs"] for x in laws] == [9, 0, 9]
        assert [x.info["n_curves"] for x in laws] == [0, 9, 9]
        assert set(laws[1].info["calibrated"]) == {"kappa", "temperature_exponent", "aT"}
        steps = np.arange(500.0, 4001.0, 500.0)
        along = np.concatenate(curve_losses(few, [steps] * 9))
        assert np.abs(laws[1].predict_curve(few, steps).loss / along - 1).max() < 5e-3

    def test_final_losses_may_lie_on_another_evaluation_set(self, few):
        finals = with_losses(few)
        shifted = changed(finals, final_loss=1.01 * finals.final_loss)
        fitted = fit_law(shifted, curves_of(few, noise=0.0003))
        at_end, on_curve = fitted.predict(few), fitted.predict_curve(few, np.array([4000.0]))
        assert np.mean(at_end.loss / on_curve.loss) == pytest.approx(1.01, abs=3e-3)

    def test_unfinished_runs_are_counted_and_left_out(self, runs, law):
        status = list(runs.status)
        loss = runs.final_loss.copy()
        status[:3] = "diverged", "interrupted", "nonfinite"
        loss[:3] = 9.0, 8.0, np.nan
        fitted = fit_law(changed(runs, status=status, final_loss=loss))
        assert fitted.info["n_left_out"] == 3
        assert fitted.info["n_runs"] == 51
        assert np.abs(fitted.predict(runs).loss / law.predict(runs).loss - 1).max() < 5e-3

    @pytest.mark.parametrize(("column", "flag"), [("params", "use_params"), ("batch_tokens", "use_batch")])
    def test_an_empty_column_is_done_without(self, runs, column, flag):
        one_size = runs.select(runs.params == 6e7)
        fitted = fit_law(changed(one_size, **{column: None}))
        assert not getattr(fitted, flag)
        assert column not in fitted.domain
        bare = changed(one_size, **{column: None})
        assert np.abs(fitted.predict(bare).loss / one_size.final_loss - 1).mean() < 2e-3


class TestRefusals:
    def test_too_few(self, runs):
        with pytest.raises(
            FitError, match=r"at least 4 completed runs .* are needed, got 3; add runs or give --curves"
        ):
            fit_law(runs.select([0, 1, 2]))
        with pytest.raises(FitError, match=r"at least 4 completed runs .* are needed, got 1"):
            fit_law(runs.select([0]))

    def test_all_diverged(self, runs):
        with pytest.raises(FitError, match=r"got none of 54 \(all diverged"):
            fit_law(changed(runs, status="diverged"))

    def test_no_losses(self, runs):
        with pytest.raises(FitError, match="got none of 54"):
            fit_law(plan())

    @pytest.mark.parametrize("column", ["params", "batch_tokens"])
    def test_a_column_that_some_runs_lack(self, runs, column):
        values = getattr(runs, column).copy()
        values[[4, 7]] = np.nan
        with pytest.raises(FitError, match=rf"{column} must be given for all runs .* 2 of 54 lack it \(first: '5'\)"):
            fit_law(changed(runs, **{column: values}))

    def test_unknown_group_column(self, runs):
        with pytest.raises(TableError, match="group must name a column; no column 'famly'"):
            fit_law(runs, group="famly")

    @pytest.mark.parametrize(
        ("group", "called"),
        [("family", "family"), ("horizon", "horizon"), ("peak", "peak rate"), ("size", "size"), ("batch", "batch")],
    )
    def test_groups_that_follow_from_schedules_and_sizes(self, runs, law, group, called):
        bare = changed(runs, extra={})
        if called not in law.info["leave_group_out"]:
            with pytest.raises(FitError, match="must have at least 2 different values"):
                fit_law(bare, group=group)
            return
        assert fit_law(bare, group=group).info["leave_group_out"].keys() == {called}

    def test_a_column_goes_before_a_group_of_its_name(self, runs):
        own = tuple("ab"[i % 2] for i in range(len(runs)))
        law = fit_law(changed(runs, extra={"family": own}), group="family")
        assert {row["group"] for row in law.info["left_out_groups"]["family"]["groups"]} == {"a", "b"}

    def test_group_column_of_one_value(self, runs):
        with pytest.raises(FitError, match="group column 'optimizer' must have at least 2 different values, got one"):
            fit_law(runs, group="optimizer")

    def test_unknown_basis(self, runs):
        with pytest.raises(InputError, match=r"basis must be one of .*, got 'sde15'; did you mean 'sde16'"):
            fit_law(runs, basis="sde15")

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ({"settings": {}}, "settings must be a Settings of optlaws.regression.settings, got {}; write Settings"),
            ({"settings": {"size_sd": 0.01}}, "settings must be a Settings of .*, got {'size_sd': 0.01}"),
            ({"settings": 0}, "settings must be a Settings of .*, got 0"),
            ({"info": 3}, "info must be a mapping of further entries, got 3; leave it out"),
            ({"inducing_pool": "pool.csv"}, "inducing_pool must be a RunTable, got str"),
            ({"group": 3}, "group must name a column; no column 3 in this table"),
        ],
    )
    def test_arguments_of_another_kind(self, runs, argument, message):
        with pytest.raises(OptlawsError, match=message):
            fit_law(runs, **argument)

    def test_curves_of_other_runs(self, few):
        curves = CurveTable(("nobody",) * 30, np.arange(1.0, 31.0), np.full(30, 3.0))
        with pytest.raises(FitError, match="run_id of the curves must occur in the run table"):
            fit_law(few, curves)

    def test_too_few_readings(self, few):
        curves = curves_of(few.select([0]), every=1000)
        with pytest.raises(FitError, match="at least 20 readings after the warm-up are needed, got 4"):
            fit_law(few, curves)

    def test_a_candidate_without_what_the_law_needs(self, law, runs):
        assumed = law.predict(changed(runs, params=None)).assumed
        assert assumed == {"params": 4e7}


@pytest.fixture(scope="module")
def plain(runs):
    """A law whose noise is the same for all runs: no weights, no growth, no spikes."""
    settings = Settings(robust=1e9, noise_growth=1e9, spike_typical=1e-12, spike_grid=(1e-12,))
    return fit_law(runs, settings=settings)


@pytest.fixture(scope="module")
def mixed():
    """Candidates inside and outside the domain, two of another size."""
    table = plan(peaks=(5e-4, 4e-3), steps=(7000, 30000), params=(6e7, 3e8))
    return table.select([0, 1, 2, 4, 7, 13, 22])


class TestCovariance:
    def test_it_is_the_dense_one(self, runs, plain, mixed):
        basis, posterior = get_basis(), plain.posterior
        work = _Fit(runs, None, basis, posterior.settings, None)
        problem, _ = work.problem(basis)
        if len(posterior.inducing) < len(runs):
            pytest.skip("not every run is an inducing point, so the dense twin does not apply")
        scatter = plain.info["fit"]["scatter"]
        twin = Kriging(problem, posterior.coefficients, basis.prior, posterior.settings, posterior.noise, scatter)
        p = plain.predict(mixed)
        loss, covariance = twin.predict(feature_table(mixed), p._view.coordinates, p._view.size)
        np.testing.assert_allclose(p.loss, loss, rtol=1e-8)
        covariance *= posterior.spread**2
        size = p._view.size
        new = (np.abs(size[:, None] - problem.size[None]) > 0.2).all(axis=1)
        assert 0 < new.sum() < len(new)
        held = (max(posterior.spread, 1.0) ** 2 - posterior.spread**2) * posterior.settings.size_sd**2
        covariance += held * np.outer(new, new) * (np.abs(size[:, None] - size[None]) < 1e-6)
        # a slope in steps and one in size that nobody knows, beyond sixteen times the longest and the largest run
        for values, most in ((mixed.steps, runs.steps.max()), (mixed.params, runs.params.max())):
            beyond = 0.003 * np.maximum(np.log(values / most / 16.0), 0.0)
            covariance += np.outer(beyond, beyond)
        covariance *= np.outer(loss, loss)
        np.testing.assert_allclose(p.covariance(slice(None)), covariance, rtol=2e-5, atol=1e-9)

    def test_it_is_positive_semidefinite_and_symmetric(self, law, mixed):
        c = law.predict(mixed).covariance(np.arange(len(mixed)))
        np.testing.assert_allclose(c, c.T, rtol=1e-10, atol=1e-14)
        assert np.linalg.eigvalsh((c + c.T) / 2).min() > -1e-10 * np.trace(c)

    def test_its_diagonal_is_the_sd_without_noise(self, law, mixed):
        p = law.predict(mixed)
        np.testing.assert_allclose(np.diag(p.covariance(slice(None))), p.sd**2 - p.noise**2, rtol=1e-6)

    def test_parts_and_columns_of_it_agree(self, law, mixed):
        p = law.predict(mixed)
        whole = p.covariance(slice(None))
        np.testing.assert_allclose(p.covariance([5, 1]), whole[np.ix_([5, 1], [5, 1])], rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(p.covariance_with(3), whole[:, 3], rtol=1e-9, atol=1e-14)

    def test_twins_differ_by_nothing(self, law):
        one = plan(peaks=(5e-4,), steps=(7000,), params=(6e7,)).select([0])
        both = RunTable.build(one.schedules * 2, params=6e7, batch_tokens=51200.0, optimizer="adamw", weight_decay=0.1)
        c = law.predict(both).covariance(slice(None))
        assert c[0, 0] + c[1, 1] - 2 * c[0, 1] == pytest.approx(0.0, abs=1e-10)


def test_columns_that_the_runs_do_not_determine_are_named():
    """With one size, the size column is a multiple of the constant; with several it is its own."""
    from optlaws.law.misfit import undetermined

    rng = np.random.default_rng(0)
    x = rng.uniform(1.0, 2.0, (30, 4))
    x[:, 0] = 1.0
    assert undetermined(x, "abcd") == []
    x[:, 2] = 3.0
    assert undetermined(x, "abcd") == ["c"]
    x[:, 3] = x[:, 1] - 0.5 * x[:, 0]
    assert undetermined(x, "abcd") == ["c", "d"]


def test_curves_of_diverged_runs_are_not_fitted(few):
    """A diverged run's rising curve changes nothing."""
    curves, runs = curves_of(few, noise=0.0005), with_losses(few, noise=0.0005, seed=1)
    last = runs.run_id[-1]
    rising = CurveTable(
        curves.run_id,
        curves.step,
        np.where(np.array(curves.run_id) == last, curves.loss + 5.0, curves.loss),
    )
    broken = fit_law(replace(runs, status=(*runs.status[:-1], "diverged")), rising)
    without = fit_law(runs.select(slice(0, len(runs) - 1)), curves)
    np.testing.assert_allclose(broken.predict(runs).loss, without.predict(runs).loss, rtol=1e-9)


@pytest.mark.parametrize("column", ["run_id", "final_loss"])
def test_groups_of_single_runs_are_refused(few, column):
    with pytest.raises(FitError, match="column that several runs share"):
        fit_law(with_losses(few, noise=0.0005, seed=1), group=column)


def test_another_optimizer_is_out_of_the_domain(law):
    new = plan(steps=(12000,), params=(6e7,))
    assert "plain_sgd" in law.predict(replace(new, optimizer=("sgd",) * len(new))).reasons[0]


def test_a_mean_rate_never_seen_is_out_of_the_domain(law):
    """Training held cosine, WSD and constant schedules: from half of the peak on average to all of it."""
    low, high = law.domain["mean_rate"]
    assert 0.5 < low < 0.56
    assert 0.95 < high <= 1.0
    steep = RunTable.build(
        [parse("polynomial:peak=1e-3,steps=6000,warmup=300,power=4"), parse("wsd:peak=1e-3,steps=6000,warmup=300")],
        params=6e7,
        batch_tokens=51200.0,
        weight_decay=0.1,
    )
    p = law.predict(steep)
    assert p.in_domain.tolist() == [False, True]
    assert p.reasons[0].startswith("mean_rate 0.2")
    assert "the lowest in training" in p.reasons[0]


@pytest.mark.parametrize(
    "text",
    ["cosine:peak=1e-3,steps=2000,warmup=100", "wsd:peak=1e-3,steps=2000,warmup=100", "array:values=0.1/0.3/0.2/0.1"],
)
def test_mean_rate_is_the_mean_over_the_steps(text):
    schedule = parse(text)
    direct = schedule.lr(np.arange(schedule.total_steps)).mean() / schedule.peak
    assert mean_and_end_rate(RunTable.build([schedule]).batch())[0][0] == pytest.approx(direct, rel=2e-3)


def test_many_curves_are_thinned(few, monkeypatch):
    """All curves together give no more readings than intervals can be calibrated with."""

    def counts():
        work = _Fit(few, curves_of(few, every=10), get_basis(), Settings(), None)
        return [len(steps) for _, steps, _ in work.readings]

    assert counts() == [fitting.POINTS_PER_CURVE] * len(few)
    monkeypatch.setattr(fitting, "MOST_READINGS", 180)
    assert counts() == [180 // len(few)] * len(few)
    monkeypatch.setattr(fitting, "MOST_READINGS", 1)
    assert counts() == [fitting.FEWEST_PER_CURVE] * len(few)


class TestRefused:
    """Arguments that would give a law that cannot be written, or intervals that mean something else."""

    def test_a_group_column_with_an_empty_text_cell(self, runs):
        labelled = replace(runs, extra={"lab": ("a", "b", "") * (len(runs) // 3)})
        with pytest.raises(FitError, match=r"group column 'lab' must be filled in every run, got an empty cell in 18"):
            fit_law(labelled, group="lab")

    @pytest.mark.parametrize(
        ("column", "message"),
        [
            ("seq_len", "group column 'seq_len' must be filled in every run, got an empty cell in 54 of 54"),
            ("batch_tokens", "group column 'batch_tokens' must have at least 2 different values, got one"),
            ("run_id", "group must be a column that several runs share, got 'run_id'"),
        ],
    )
    def test_a_rival_law_refuses_the_same_groups(self, runs, column, message):
        loss = 1.7 + 400 * runs.params**-0.34 + 410 * runs.tokens**-0.28
        with pytest.raises(FitError, match=message):
            fit_baseline("chinchilla", replace(runs, final_loss=loss), group=column)

    @pytest.mark.parametrize("name", [None, 3])
    def test_a_name_that_is_no_text(self, runs, name):
        with pytest.raises(InputError, match="name must be text, got"):
            fit_law(runs, name=name)
        if name is not None:
            with pytest.raises(InputError, match="name must be text, got 3"):
                fit_baseline("chinchilla", runs, name=name)

    def test_an_empty_pool(self, runs):
        with pytest.raises(InputError, match="inducing_pool must hold at least one run, got an empty table"):
            fit_law(runs, inducing_pool=runs.select(np.array([], dtype=int)))

    @pytest.mark.parametrize("names", ["aN", ["aN", "aN"]])
    def test_exponents_named_twice_or_as_one_text(self, runs, names):
        with pytest.raises(InputError, match="exponents to calibrate must be a list of different names, got"):
            fit_law(runs, calibrate=names)


class TestAnyShape:
    def test_one_point_has_a_covariance_too(self, law, runs):
        p = law.predict(runs.select(slice(0, 4)))
        assert p.covariance(2).shape == (1, 1)
        assert p.covariance(2)[0, 0] == p.covariance([2])[0, 0]
        np.testing.assert_array_equal(p.covariance(np.array([True, False, True, False])), p.covariance([0, 2]))

    @pytest.mark.parametrize(
        ("steps", "got"),
        [
            ([1000, [2000]], r"a row of shape \(\)"),
            ([np.array([1000.0])], "1 of them"),
            (np.array([[1000.0, 2000.0]]), "1 of them"),
            (np.array([[[1000.0]], [[2000.0]]]), r"a row of shape \(1, 1\)"),
            (["a", "b"], r"\['a', 'b'\]"),
            (7, "7"),
        ],
    )
    def test_steps_that_are_not_one_row_a_run(self, law, runs, steps, got):
        with pytest.raises(
            InputError, match=f"steps must be one list of numbers, or one for each of the 2 runs, got {got}"
        ):
            law.predict_curve(runs.select([0, 1]), steps)

    @pytest.mark.parametrize("kind", [list, tuple, range, np.array, iter])
    def test_one_row_of_steps_may_be_a_list_or_a_range(self, law, runs, kind):
        some = runs.select([0, 1])
        for few in (some, runs.select([0])):
            wanted = law.predict_curve(few, np.array([1000, 1400, 1800])).loss
            row = range(1000, 2000, 400) if kind is range else kind([1000, 1400, 1800])
            np.testing.assert_array_equal(law.predict_curve(few, row).loss, wanted)
        each = law.predict_curve(some, np.array([[1000, 1400], [1100, 1500]])).loss
        np.testing.assert_array_equal(law.predict_curve(some, [[1000, 1400], range(1100, 1600, 400)]).loss, each)
        with pytest.raises(InputError, match="steps must hold at least one step for every run"):
            law.predict_curve(some, [])

    def test_steps_in_any_order_and_of_any_type(self, law, runs):
        one = runs.select([0])
        rising = law.predict_curve(one, np.array([1000.0, 2000.0])).loss
        asked = law.predict_curve(one, np.array([2000, 1000, 2000], dtype=np.int32)).loss
        np.testing.assert_allclose(asked, rising[[1, 0, 1]], rtol=1e-14)


def test_too_few_left_out_residuals_to_calibrate_are_said(runs):
    """Eighteen runs in three groups give eighteen residuals, and a factor of 1 that nothing supports."""
    labelled = replace(runs, extra={"lab": ("a", "b", "c") * 18}).select(np.arange(0, 54, 3))
    labelled = replace(labelled, extra={"lab": ("a", "b", "c") * 6})
    with pytest.warns(
        OptlawsWarning, match="too few runs are left in groups that can be held out: interval widths are not calibrated"
    ):
        fitted = fit_law(labelled, group="lab")
    assert fitted.posterior.spread == 1.0
    assert "residuals" not in fitted.info["fit"]


def test_a_column_of_data_is_not_calibrated_without_batches():
    """Where no batch is known a fit leaves that column out, and the search for its exponent must see the same."""
    runs = with_losses(plan())
    found = profile_exponents(runs, get_basis(), ["aD"], use_batch=False, trials=40)
    assert found.values["aD"] == pytest.approx(get_basis().exponents["aD"], rel=0.02)


def test_one_curve_is_no_surer_than_several(few):
    """No group can be left out of one curve: its intervals are at least as wide as the narrowest of several."""
    one = fit_law(few.select([0]), curves_of(few.select([0]), every=100, noise=0.0005))
    assert one.posterior.spread == Settings().curve_spreads[0]


def test_progress_is_told_and_changes_nothing(few):
    said = []
    curves = curves_of(few, noise=0.0005)
    told, silent = (fit_law(few, curves, progress=hear) for hear in (said.append, None))
    assert len(said) > 10
    assert set(said) == {"trial of constants"}
    np.testing.assert_array_equal(told.posterior.mean, silent.posterior.mean)
    assert told.info == silent.info


@pytest.mark.parametrize("family", ["cosine", "wsd"])
@pytest.mark.filterwarnings("ignore:.*copies of another under a new name")
def test_repeats_of_one_family_do_not_outvote_the_others(family):
    """Every run of one family five times: the others' predictions move by less than their noise."""
    runs = with_losses(plan(), noise=0.002, field=True)
    kinds = np.array([schedule.kind for schedule in runs.schedule_tuple()])
    rows = np.concatenate([np.arange(len(runs)), np.repeat(np.flatnonzero(kinds == family), 4)])
    again = runs.select(rows)
    again = replace(again, run_id=tuple(f"{name} {place}" for place, name in enumerate(again.run_id)))
    others = plan(peaks=(5e-4, 1.5e-3), steps=(4000, 9000))
    others = others.select(np.array([schedule.kind != family for schedule in others.schedule_tuple()]))
    before, after = (fit_law(table).predict(others) for table in (runs, again))
    moved = np.abs(after.loss - before.loss)
    assert (moved < before.noise).all()
    assert moved.mean() < 0.5 * before.noise.mean()
