"""The fit: what was put into made-up runs comes out, priors hold where runs say nothing, bad input is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_risk import SCATTER, TRUE, grid
from scipy.special import ndtr
from scipy.stats import norm

from optlaws.dynamics import Dynamics
from optlaws.errors import FitError, InputError, LawError
from optlaws.risk import PARAMETERS, Prior, RiskModel, fit_risk, quantities, run_labels, usable
from optlaws.risk.criterion import log_critical
from optlaws.risk.fitting import interval_terms, rows_of
from optlaws.risk.model import REACH, reach_values
from optlaws.runs import RunTable
from optlaws.schedules import cosine, parse


@pytest.fixture(scope="module")
def runs():
    return grid()


@pytest.fixture(scope="module")
def fit(runs):
    return fit_risk(runs)


def test_slopes_of_the_criterion():
    q = quantities(grid().select(slice(0, 40)), Dynamics())
    _, slopes = log_critical(q, TRUE)
    for k in range(len(PARAMETERS)):
        ends = []
        for side in (-1, 1):
            theta = TRUE.copy()
            theta[k] += side * 1e-6
            ends.append(log_critical(q, theta)[0])
        assert slopes[:, k] == pytest.approx((ends[1] - ends[0]) / 2e-6, abs=1e-7)


@pytest.mark.parametrize(("low", "high"), [(-np.inf, 0.3), (-0.2, np.inf), (-0.2, 0.3), (4.0, 4.1), (-9.0, -8.9)])
def test_interval_likelihood(low, high):
    mean, sd, step = 0.1, 0.4, 1e-5
    log_p, slope, bend = (v[0] for v in interval_terms(np.array([low]), np.array([high]), np.array([mean]), sd))
    a, b = (low - mean) / sd, (high - mean) / sd
    naive = norm.cdf(b) - norm.cdf(a) if a < 2 else norm.sf(a) - norm.sf(b)
    assert log_p == pytest.approx(np.log(naive), rel=1e-6)
    around = [interval_terms(np.array([low]), np.array([high]), np.array([mean + s]), sd) for s in (-step, step)]
    assert slope == pytest.approx((around[1][0][0] - around[0][0][0]) / (2 * step), rel=1e-4, abs=1e-6)
    assert bend == pytest.approx(-(around[1][1][0] - around[0][1][0]) / (2 * step), rel=1e-3, abs=1e-6)


def test_what_was_put_in_comes_out(fit):
    sd = np.sqrt(np.diag(fit.covariance))[: len(TRUE)]
    mean = fit.mean[: len(TRUE)].copy()
    mean[0] += fit.mean[-1]  # level and offset of a single source cannot be told apart
    assert (np.abs(mean - TRUE) < 3 * sd + 1e-3).all()
    assert (sd[:2] < np.array(Prior().sd)[:2]).all()
    assert fit.scatter == pytest.approx(SCATTER, rel=0.35)
    assert fit.rows == 54


def test_probabilities_are_calibrated_on_new_rows(fit):
    new = grid(seed=1)
    p, y = fit.model("a").probability(new), run_labels(new)
    for low, high in ((0.05, 0.35), (0.35, 0.65), (0.65, 0.95)):
        inside = (p > low) & (p < high)
        expected, count = p[inside].mean(), inside.sum()
        assert abs(y[inside].mean() - expected) < 3 * np.sqrt(expected * (1 - expected) / count)
    assert np.mean((p - y) ** 2) < 0.06


def test_offsets_of_sources():
    both = grid(sources=("a", "b"), offsets=(-0.06, 0.06))
    fit = fit_risk(both)
    assert fit.sources == ("a", "b")
    assert fit.mean[-1] - fit.mean[-2] == pytest.approx(0.12, abs=0.03)
    run = both.select([6])
    ratio = [fit.model(s).predict(run).criterion[0] for s in ("a", None, "b")]
    assert ratio[0] > ratio[1] > ratio[2]
    sure = [abs(fit.model(s).of_quantities(quantities(run, Dynamics()))[1][0] - 0.5) for s in ("a", None)]
    assert fit.model(None).covariance[-1, -1] == pytest.approx(Prior().source_sd ** 2)
    assert len(sure) == 2


def test_rows_share_their_luck(runs):
    """Repeats of a row add nothing: they are one observation."""
    doubled = RunTable.concat([runs, replace(runs, run_id=tuple(f"again-{name}" for name in runs.run_id))])
    assert fit_risk(doubled).mean == pytest.approx(fit_risk(runs).mean, abs=1e-9)
    rows = rows_of(runs, Dynamics())
    assert len(rows.low) == 54
    assert (rows.low < rows.high).all()


def test_a_row_out_of_order_is_bracketed(runs):
    row = runs.select(slice(0, 12))
    status = ["completed"] * 12
    status[5] = "diverged"
    rows = rows_of(replace(row, status=tuple(status)), Dynamics())
    ln_u = np.log(quantities(row, Dynamics()).felt)
    assert rows.low[0] == pytest.approx(ln_u[5] - 0.01)
    assert rows.high[0] == pytest.approx(ln_u[11] + 0.01)


def test_completed_runs_alone_move_the_level_up(fit):
    start = fit.model(None)
    peaks = np.geomspace(1e-2, 4e-2, 8)
    safe = RunTable.build(
        [cosine(peak=float(p), steps=20000, warmup=1000) for p in peaks], params=2e8, batch_tokens=524288.0,
        source="mine", status="completed", final_loss=3.0,
    )  # fmt: skip
    own = fit_risk(safe, start=start).model("mine")
    run = safe.select([3])
    assert own.mean[-1] > 0.02
    assert own.probability(run)[0] < start.probability(run)[0]
    assert own.mean[6] == pytest.approx(start.mean[6], abs=0.05)  # they say nothing on beta1


def test_what_the_runs_do_not_say_stays_at_the_prior():
    fit = fit_risk(grid(beta1=(0.9,)))
    k = PARAMETERS.index("momentum")
    assert fit.mean[k] == pytest.approx(Prior().mean[k], abs=1e-6)
    assert np.sqrt(fit.covariance[k, k]) == pytest.approx(Prior().sd[k], rel=1e-3)


def test_nothing_to_fit(runs):
    unknown = replace(runs, status=("interrupted",) * len(runs))
    assert not usable(unknown).any()
    with pytest.raises(FitError, match="runs must have at least one with a known outcome, params and batch_tokens"):
        fit_risk(unknown)
    plain = replace(runs, optimizer=("sgd",) * len(runs))
    with pytest.raises(FitError, match="params and batch_tokens and Adam or AdamW to judge divergence by"):
        fit_risk(plain)
    with pytest.raises(FitError, match="source must be one of a, got 'b'; leave it out for a new one"):
        fit_risk(runs).model("b")


class TestModel:
    @pytest.fixture
    def model(self, fit):
        return fit.model("a", n_runs=3)

    def test_probability_is_the_normal_integral(self, model, runs):
        part = runs.select(slice(0, 30))
        q = quantities(part, model.dynamics)
        mean, slopes = log_critical(q, model.mean[:-1])
        slopes = np.c_[slopes, np.ones(len(slopes))]
        for i in range(len(part)):
            variance = model.scatter**2 + model.cell_sd**2 + slopes[i] @ model.covariance @ slopes[i]
            z = (np.log(q.felt[i]) - mean[i] - model.mean[-1]) / np.sqrt(variance)
            assert model.probability(part)[i] == pytest.approx(ndtr(z))

    def test_criterion_one_is_one_half(self, model, runs):
        p = model.predict(runs)
        assert p.criterion == pytest.approx(p.felt / p.critical)
        assert np.array_equal(p.probability > 0.5, p.criterion > 1)
        assert np.array_equal(p.probability, model.probability(runs))
        assert len(p) == len(runs)

    def test_risk_rises_with_the_peak_and_falls_with_the_warm_up(self, model):
        def risk(peak, warmup):
            run = RunTable.build([cosine(peak=peak, steps=20000, warmup=warmup)], params=2e8, batch_tokens=524288.0)
            return model.probability(run)[0]

        peaks = [risk(p, 1000) for p in np.geomspace(1e-3, 0.1, 15)]
        assert (np.diff(peaks) >= 0).all()
        assert peaks[-1] > 0.99 > 0.01 > peaks[0]
        warm = [risk(1.5e-2, w) for w in (0, 10, 100, 500, 1000, 2000, 6000)]
        assert (np.diff(warm) <= 1e-12).all()

    def test_empty_cells(self, model):
        run = RunTable.build([cosine(peak=1e-2, steps=20000, warmup=1000)])
        p = model.predict(run, {"params": 2e8})
        assert p.assumed == {"params": 2e8, "batch_tokens": model.typical["batch_tokens"]}
        assert not p.in_domain[0]
        assert "params not given, 200M assumed; batch_tokens not given" in p.reasons[0]
        known = RunTable.build(
            [cosine(peak=1e-2, steps=20000, warmup=1000)], params=2e8, batch_tokens=model.typical["batch_tokens"]
        )
        assert p.probability == pytest.approx(model.probability(known))

    def test_plain_sgd_is_not_known(self, model):
        runs = RunTable.build(
            [parse("cosine:peak=0.1,steps=20000,warmup=1000")] * 2,
            params=2e8, batch_tokens=524288.0, optimizer=["sgd", "adamw"],
        )  # fmt: skip
        p = model.predict(runs)
        assert np.isnan(p.probability).tolist() == [True, False]
        assert np.isnan(model.probability(runs)).tolist() == [True, False]
        assert p.reasons[0] == "the risk of plain SGD is not known"

    def test_domain(self, model):
        runs = RunTable.build(
            [cosine(peak=1e-2, steps=20000, warmup=1000), cosine(peak=1e-2, steps=20000, warmup=3)],
            params=[2e8, 9e9], batch_tokens=524288.0,
        )  # fmt: skip
        p = model.predict(runs)
        assert p.in_domain.tolist() == [True, False]
        assert p.reasons[1] == (
            "warmup_steps 3 below 1K, the lowest in the risk model's runs;"
            " params 9B above 600M, the highest in the risk model's runs"
        )

    def test_a_narrow_network_takes_more(self, model):
        run = RunTable.build([cosine(peak=1.6e-2, steps=20000, warmup=1000)] * 3, params=2e8, batch_tokens=524288.0)
        run = replace(run, extra={"width": ("", "800", "100")})
        p = model.predict(run)
        assert p.critical[2] > p.critical[1] > p.critical[0]
        assert p.probability[2] < p.probability[1] < p.probability[0]
        assert p.reasons[0] == ""
        assert "relative_width 0.09921 below 1, the lowest in the risk model's runs" in p.reasons[2]

    def test_files_from_before_widths(self, model):
        data = model.to_dict()
        for part in ("domain", "typical"):
            data[part] = {k: v for k, v in data[part].items() if k != "relative_width"}
        assert RiskModel.from_dict(data).to_dict() == model.to_dict()

    def test_files_from_before_reach(self, model):
        data = model.to_dict()
        del data["reach"]
        ends = [model.domain[name] for name in ("params", "steps", "batch_tokens")]
        assert list(RiskModel.from_dict(data).reach.values()) == ends

    @pytest.mark.parametrize("name", REACH)
    def test_beyond_the_runs_of_its_source_it_is_less_sure(self, model, runs, name):
        """Nothing changes within; beyond, a sd for every factor of e, to either side, that moves no run over 1/2."""
        values = reach_values(quantities(runs, model.dynamics), model.dynamics)[name]
        assert (values.min(), values.max()) == pytest.approx(model.reach[name])
        middle, slack = float(np.median(np.unique(values))), 1.5
        inside = model.predict(runs)
        for ends, within in (
            ((values.min(), middle), values <= slack * middle),
            ((middle, values.max()), values >= middle / slack),
        ):
            outside = replace(model, reach={**model.reach, name: ends}).predict(runs)
            assert np.array_equal(outside.criterion, inside.criterion)
            assert np.array_equal(outside.probability[within], inside.probability[within])
            far = ~within & (np.abs(np.log(inside.criterion)) > 0.01) & (np.abs(inside.probability - 0.5) < 0.4999)
            assert far.sum() > 10
            sds = [np.log(inside.criterion[far]) / norm.ppf(p.probability[far]) for p in (inside, outside)]
            added = (0.04 * (np.abs(np.log(values[far] / middle)) - np.log(slack))) ** 2
            assert sds[1] ** 2 - sds[0] ** 2 == pytest.approx(added, rel=1e-6)

    def test_round_trip(self, model, runs):
        again = RiskModel.from_dict(model.to_dict())
        assert np.array_equal(again.probability(runs), model.probability(runs))
        assert again.info == {"n_runs": 3}
        assert again.to_dict() == model.to_dict()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"scatter": 0.0}, "standard deviations above 0"),
            ({"scatter": float("nan")}, "risk.scatter must be a finite number, got nan"),
            ({"mean": [1.0]}, "the entry 'risk' is damaged"),
            ({"mean": None}, "the entry 'risk' is damaged"),
            ({"parameters": ["level"]}, "risk parameters must be level, size"),
            ({"domain": {}}, "domain and typical must have the entries peak_lr"),
            ({"covariance_upper_triangle": [-1.0] * 36}, "risk must have a covariance"),
            ({"covariance_upper_triangle": 0.0}, "the entry 'risk' is damaged"),
            ({"scatter": 1e308}, "risk.scatter must be from 0 to 1000, got 1e.308"),
            ({"dynamics": {"kappa": 0.35}}, "dynamics must have the entry"),
            ({"reach": {"params": [1e6, 1e9]}}, "risk.reach must have params, high_steps, batch_tokens, above 0"),
            ({"reach": {name: [0.0, 1e9] for name in REACH}}, "risk.reach must have .* above 0"),
            ({"reach": {name: [2.0, 1.0] for name in REACH}}, "must be two numbers, the lowest first"),
            ({"reach": None}, "risk.reach must be an object"),
        ],
    )
    def test_damaged(self, model, change, message):
        with pytest.raises(LawError, match=message):
            RiskModel.from_dict({**model.to_dict(), **change})

    def test_missing_entry(self, model):
        data = model.to_dict()
        del data["scatter"]
        with pytest.raises(InputError, match="build it again"):
            RiskModel.from_dict(data)
