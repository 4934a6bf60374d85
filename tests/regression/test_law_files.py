"""Law files: the same digits come back, and nothing but a whole law of this version is read."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from made_runs import curves_of, plan, with_losses

from optlaws.errors import InputError, LawError
from optlaws.features import get_basis
from optlaws.law import Law, fit_law, load_any_law, load_law, store
from optlaws.law.baseline import fit_baseline
from optlaws.law.optimizers import Equivalent, Optimizers
from optlaws.monitor.forecast import CurvePrior
from optlaws.monitor.learning import with_prior
from optlaws.runs import RunTable
from optlaws.schedules import from_array, parse

HUGE = 10**400  # no float is so large


@pytest.fixture(scope="module")
def law():
    return fit_law(with_losses(plan(), noise=0.0005), name="made")


@pytest.fixture
def path(law, tmp_path):
    law.save(tmp_path / "law.json")
    return tmp_path / "law.json"


def same_answers(a, b, runs):
    p, q = a.predict(runs), b.predict(runs)
    for name in ("loss", "sd", "lower", "upper", "noise", "in_domain"):
        np.testing.assert_array_equal(getattr(p, name), getattr(q, name))
    assert p.reasons == q.reasons
    np.testing.assert_array_equal(p.covariance([0, 3]), q.covariance([0, 3]))


def test_identical_digits(law, path):
    new = plan(peaks=(5e-4, 5e-3), steps=(4000, 40000))
    again = Law.load(path)
    same_answers(law, again, new)
    assert again.info == json.loads(json.dumps(law.info))
    assert (again.name, again.basis_id, again.domain, again.defaults) == ("made", "sde16", law.domain, law.defaults)
    same_answers(law, load_law(str(path)), new)


def test_a_file_without_the_growth_of_noise_has_that_of_the_settings(law, path):
    """As releases wrote it that did not look for another."""
    data = json.loads(path.read_text())
    assert data["posterior"].pop("growth") == law.posterior.growth != law.posterior.settings.noise_growth
    found = store.law_from_text(json.dumps(data), "law.json").posterior
    assert found.growth == law.posterior.settings.noise_growth
    assert found.noise == law.posterior.noise


def test_writing_again_gives_the_same_file(path, tmp_path):
    Law.load(path).save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_a_law_with_calibrated_time_scales(tmp_path):
    few = plan(steps=(4000,), params=(6e7,)).select([0, 4, 8])
    fitted = fit_law(few, curves_of(few, noise=0.0005))
    fitted.save(tmp_path / "law.json")
    again = Law.load(tmp_path / "law.json")
    assert again.basis.dynamics == fitted.basis.dynamics
    at = np.arange(500.0, 4001.0, 250.0)
    np.testing.assert_array_equal(again.predict_curve(few, at).loss, fitted.predict_curve(few, at).loss)


def test_plain_numbers_only(path):
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["format"] == "optlaws-law"
    assert len(data["columns"]) == 16
    assert "final_loss" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_truncated(path, share):
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: int(share * len(text.rstrip()))], encoding="utf-8")
    with pytest.raises(LawError, match=r"law\.json' is not complete JSON .*: it is truncated or no law; fit it again"):
        Law.load(path)


def edited(path, change):
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=2), "must be of version 1, got 2; fit it again"),
        (lambda d: d.pop("version"), "must be of version 1, got None"),
        (lambda d: d.update(version={"v": "x" * 999}), r"must be of version 1, got .{40}; fit it again"),
        (lambda d: d.update(basis=d["settings"]), r"basis must be text, got .{40}\)"),
        (lambda d: d.update(format="other"), 'must be a JSON object with "format": "optlaws-law"'),
        (lambda d: d.pop("posterior"), "must have the entry 'posterior', got none"),
        (lambda d: d.update(basis="sde99"), "basis must be one of .*, got 'sde99'"),
        (
            lambda d: d["columns"].reverse(),
            "columns of basis 'sde16' must be constant, .*, got peak_fourth, tokens, .*",
        ),
        (lambda d: d["dynamics"].update(kapa=1.0), "dynamics has no constant 'kapa'; did you mean 'kappa'"),
        (lambda d: d["exponents"].update(zz=1.0), "basis 'sde16' has no exponent 'zz'"),
        (lambda d: d["dynamics"].update(kappa=-1.0), "kappa must be a finite number above 0, got -1.0"),
        (lambda d: d["posterior"]["mean"].pop(), "has a damaged entry"),
        (lambda d: d["posterior"]["coefficients"].append(1.0), "has a damaged entry"),
        (lambda d: d["posterior"]["root_upper_triangle"].pop(), "has a damaged entry"),
        (lambda d: d["posterior"].update(noise="much"), "has a damaged entry"),
        (lambda d: d["posterior"]["sizes"].__setitem__(0, None), "has a damaged entry"),
        (lambda d: d["posterior"].update(inducing=5), "has a damaged entry"),
        (lambda d: d["exponents"].pop("pn"), "exponents must be those of basis 'sde16', which now has 'pn' too"),
        (lambda d: d["settings"].pop("size_sd"), "'size_sd' is missing or new"),
        (lambda d: d["settings"].update(new=1.0), "'new' is missing or new"),
        (lambda d: d.update(domain={"params": [1.0]}), "has a damaged entry"),
        (lambda d: d.update(domain=7), "has a damaged entry"),
        (lambda d: d.update(version=True), "must be of version 1, got True"),
        (lambda d: d.update(basis=None), "basis must be text, got None"),
        (lambda d: d.update(use_params="yes"), "use_params must be true or false, got 'yes'"),
        (lambda d: d.update(has_curves=None), "has_curves must be true or false, got None"),
        (lambda d: d["exponents"].update(aN=None), "exponents must be finite numbers"),
        (lambda d: d["exponents"].update(lc="0.3"), "exponents must be finite numbers"),
        (lambda d: d["settings"].update(size_sd=[1.0, 2.0]), "settings.size_sd must be a number"),
        (lambda d: d["settings"].update(noise_grid=1.0), "settings.noise_grid must be a list"),
        (lambda d: d["defaults"].update(batch_tokens=-3.5), "defaults must be numbers above 0"),
        (lambda d: d["info"].update(sources=[1]), "info.sources must be a list of texts"),
        (lambda d: d["info"].update(leave_group_out={"N": 3}), "info.leave_group_out must be an object of objects"),
        (lambda d: d["domain"].update(peak_lr=["nan", "nan"]), "domain.peak_lr must be a finite number, got 'nan'"),
        (lambda d: d["domain"].update(peak_lr=[True, 2.0]), "domain.peak_lr must be a finite number, got True"),
        (lambda d: d["domain"].update(steps=[2.0, 1.0]), "domain.steps must be two numbers, the lowest first, got 2"),
        (lambda d: d["domain"].update(steps=[-1.0, 1.0]), "domain.steps must be at least 0, got -1"),
        (lambda d: d["defaults"].update(params="6e7"), "defaults.params must be a finite number, got '6e7'"),
        (lambda d: d.update(peak_scale="0.75"), "peak_scale must be a finite number, got '0.75'"),
        (lambda d: d.update(peak_scale=1e-300), "peak_scale must be from 1e-12 to 1e.12, got 1e-300"),
        (lambda d: d["posterior"].update(noise="0.001"), "noise must be a finite number, got '0.001'"),
        (lambda d: d["posterior"].update(spread=True), "spread must be a finite number, got True"),
        (lambda d: d["posterior"].update(spread=1e300), "spread must be from 1e-12 to 1e.12, got 1e.300"),
        (lambda d: d["posterior"].update(root_size=3.5), "root_size must be a whole number from 0, got 3.5"),
        (lambda d: d["posterior"]["mean"].__setitem__(0, "0.1"), "must hold numbers only"),
        (lambda d: d["posterior"]["sizes"].__setitem__(0, True), "must hold numbers only"),
        (
            lambda d: d["posterior"]["inducing"][0].__setitem__(0, 1e300),
            "inducing must be finite, at most 1e.12 from 0",
        ),
        (
            lambda d: d["posterior"]["coefficients"].__setitem__(d["posterior"]["coefficients"].index(0.0), -1.0),
            "coefficients must be at least 0",
        ),
        (
            lambda d: d["posterior"].update(coefficients=[0.0] * 16),
            "coefficients must be at least 0, one of them above",
        ),
        (lambda d: d["exponents"].update(gv=1e300), "exponent gv of basis 'sde16' must be at most 100, got 1e.300"),
        (lambda d: d["settings"].update(field_sd=1e300), "field_sd must be a number from 1e-12 to 1e.12, got 1e.300"),
        (lambda d: d["settings"].update(rounds=2.5), "rounds must be a whole number from 1"),
        (lambda d: d["settings"].update(spreads=[4.0, 0.4]), "spreads must be two numbers, the lower one first"),
        (lambda d: d["posterior"]["mean"].append(0.5), "posterior.mean must have the shape"),
        (lambda d: d.update(domain=[1]), r"domain must be an object, got \[1\]"),
        (lambda d: d["domain"].update(steps=5), "domain.steps must be two numbers, got 5"),
        (lambda d: d["dynamics"].update(modes=8), "modes must be 6 for basis 'sde16', got 8"),
    ],
)
def test_damaged(path, change, message):
    with pytest.raises(LawError, match=message):
        Law.load(edited(path, change))


@pytest.fixture(scope="module")
def full():
    """The content of a law file with a risk model, a joint range, another optimizer and a monitor's prior."""
    law = load_law("steplaw-dense")
    known = Optimizers("adamw", {"muon": Equivalent(ranges={"steps": (10.0, 20.0)})})
    law = with_prior(replace(law, optimizers=known), CurvePrior.default(True))
    return json.dumps(store.law_to_dict(law))


def muon(d):
    return d["optimizers"]["others"]["muon"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(risk="low"), "risk must be an object, got 'low'"),
        (lambda d: d.update(risk=True), "risk must be an object, got True"),
        (lambda d: d["risk"].update(scatter="0.1"), "risk.scatter must be a finite number, got '0.1'"),
        (lambda d: d["risk"].update(scatter=True), "risk.scatter must be a finite number, got True"),
        (lambda d: d["risk"].update(cell_sd=1e9), "risk.cell_sd must be from 0 to 1000, got 1e.09"),
        (
            lambda d: d["risk"].update(cell_sd=HUGE),
            "risk.cell_sd must be a finite number, got a whole number beyond float",
        ),
        (lambda d: d["risk"].update(mean=[d["risk"]["mean"]]), r"risk.mean must have the shape .8,., got .1, 8."),
        (
            lambda d: d["risk"]["mean"].__setitem__(0, HUGE),
            "risk.mean must be finite, got a whole number beyond floats",
        ),
        (lambda d: d.update(domain={"steps": [1, HUGE]}), "domain.steps must be a finite number, got a whole number"),
        (lambda d: d["posterior"].update(noise=0), "noise must be from 1e-12 to 1e.12, got 0"),
        (lambda d: d["risk"].update(source_sd=0), "'risk' is damaged .*standard deviations above 0"),
        (lambda d: d["risk"]["mean"].__setitem__(0, "-2.1"), "risk.mean must hold numbers only"),
        (lambda d: d["risk"]["mean"].pop(), "risk.mean must have the shape"),
        (
            lambda d: d["risk"]["covariance_upper_triangle"].__setitem__(0, True),
            "risk.covariance_upper_triangle must hold",
        ),
        (lambda d: d["risk"]["domain"].update(steps=["1", 2]), "risk.domain.steps must be a finite number, got '1'"),
        (lambda d: d["risk"]["domain"].update(steps=[5, 2]), "risk.domain.steps must be two numbers, the lowest first"),
        (lambda d: d["risk"]["typical"].update(params=True), "risk.typical.params must be a finite number, got True"),
        (lambda d: d["risk"]["typical"].update(params=0), "risk.typical must have .*params.* above 0"),
        (lambda d: d["risk"]["typical"].update(beta1=1.0), "risk.typical must have .* beta1 below 1"),
        (lambda d: d["risk"].pop("typical"), "'risk' is damaged .*'typical'"),
        (lambda d: d["risk"].update(info=[["a", 1]]), "risk.info must be an object"),
        (lambda d: d.update(joint=True), "joint must be an object, got True"),
        (lambda d: d["joint"].pop("mean"), "joint must have the entry 'mean'"),
        (lambda d: d["joint"].update(names="steps"), "joint.names must be a list of different quantities, got 'steps'"),
        (lambda d: d["joint"].update(names=["params"] * 4), "joint.names must be a list of different quantities"),
        (lambda d: d["joint"]["names"].__setitem__(0, "width"), "joint.names must be some of params, steps"),
        (lambda d: d["joint"]["mean"].__setitem__(0, "18.1"), "joint.mean must hold numbers only"),
        (lambda d: d["joint"]["precision"].pop(), "joint.precision must have the shape"),
        (lambda d: d["joint"]["precision"][0].__setitem__(0, -7.0), "joint.precision must be symmetric and positive"),
        (lambda d: d["joint"]["precision"][0].__setitem__(1, 3.0), "joint.precision must be symmetric and positive"),
        (lambda d: d["joint"].update(limit="18"), "joint.limit must be a finite number, got '18'"),
        (lambda d: d["joint"].update(limit=True), "joint.limit must be a finite number, got True"),
        (lambda d: d["joint"].update(limit=-1), "joint.limit must be at least 0, got -1"),
        (
            lambda d: d["joint"].update(limit=-HUGE),
            "joint.limit must be a finite number, got a whole number beyond floats",
        ),
        (lambda d: d["joint"].update(limit=0), "joint.limit must be above 0, got 0"),
        (lambda d: d.update(optimizers="adamw"), "optimizers must be an object, got 'adamw'"),
        (lambda d: d["optimizers"].pop("own"), "optimizers must have the entry 'own'"),
        (lambda d: d["optimizers"].update(own=" "), "optimizers.own must be text, got ' '"),
        (lambda d: d["optimizers"].update(others=["muon"]), "optimizers.others must be an object"),
        (lambda d: d["optimizers"]["others"].update(muon=3), "optimizers.others.muon must be an object, got 3"),
        (lambda d: muon(d).update(log_rate="0.5"), "others.muon.log_rate must be a finite number, got '0.5'"),
        (lambda d: muon(d).update(log_loss=True), "optimizers.others.muon.log_loss must be a finite number, got True"),
        (lambda d: muon(d).update(log_loss=6), "optimizers.others.muon.log_loss must be from -5 to 5, got 6"),
        (lambda d: muon(d).update(scatter=-0.1), "optimizers.others.muon.scatter must be from 0 to 5, got -0.1"),
        (lambda d: muon(d).update(runs=2.5), "optimizers.others.muon.runs must be a whole number from 0, got 2.5"),
        (lambda d: muon(d).update(covariance=[[1, 0], ["0", 1]]), "muon.covariance must hold"),
        (lambda d: muon(d).update(covariance=[1, 0]), "muon.covariance must have the shape"),
        (lambda d: muon(d)["ranges"].update(steps=["10", 20]), "muon.ranges.steps must be a finite number, got '10'"),
        (lambda d: muon(d)["ranges"].update(steps=[20, 10]), "muon.ranges.steps must be two numbers, the lowest first"),
        (lambda d: muon(d).update(ranges=3), "muon.ranges must be an object, got 3"),
    ],
)
def test_damaged_risk_joint_and_optimizers(full, tmp_path, change, message):
    data = json.loads(full)
    change(data)
    with pytest.raises(LawError, match=r"^law file 'damaged\.json'.*" + message):
        store.law_from_text(json.dumps(data), "damaged.json")


@pytest.mark.parametrize("name", ["risk", "joint", "optimizers"])
@pytest.mark.parametrize("gone", [True, False])
def test_without_an_entry_that_need_not_be_there(full, name, gone):
    data = json.loads(full)
    data[name] = None
    if gone:
        del data[name]
    assert getattr(store.law_from_text(json.dumps(data), "law.json"), name) is None


@pytest.mark.parametrize(
    "change",
    [
        {"misfit": "0.01"},
        {"misfit": 0},
        {"spread": True},
        {"curves": 1.5},
        {"law_sd": -1.0},
        {"level": "0"},
        {"mean": ["0"] * 6},
        {"mean": [0.0] * 5},
        {"covariance": [0.0]},
    ],
)
def test_a_damaged_prior_of_a_monitor(full, change):
    data = json.loads(full)
    data["info"]["monitor"].update(change)
    law = store.law_from_text(json.dumps(data), "law.json")
    with pytest.raises(LawError, match=f"a monitor's prior must hold numbers, got others .{next(iter(change))}"):
        CurvePrior.of(law)


def test_a_prior_of_numpy_numbers():
    prior = CurvePrior(np.arange(6.0), np.eye(6), 0.01, curves=12, law_sd=0.02)
    data = {**prior.to_dict(), "mean": list(prior.mean), "covariance": [list(row) for row in prior.covariance]}
    assert CurvePrior.from_dict({**data, "misfit": np.float64(0.01), "curves": np.int64(12)}) == prior
    again = CurvePrior.from_dict({**data, "curves": 12.0, "covariance": prior.covariance})
    assert (again, type(again.curves)) == (prior, int)
    for change in ({"curves": True}, {"mean": [np.bool_(True)] * 6}, {"misfit": np.array([0.01])}):
        with pytest.raises(LawError, match="a monitor's prior must hold numbers, got others"):
            CurvePrior.from_dict({**data, **change})
    with pytest.raises(LawError, match=r"spread must be at least 1e-\d+, got 0"):
        CurvePrior.from_dict({**data, "spread": 0})


@pytest.mark.parametrize("number", ["1e999", "9" * 400, "9" * 5000, "NaN", "-Infinity"])
def test_numbers_out_of_range(path, number):
    text = path.read_text(encoding="utf-8")
    noise = json.loads(text)["posterior"]["noise"]
    path.write_text(text.replace(f'"noise":{noise!r}', f'"noise":{number}'), encoding="utf-8")
    with pytest.raises(LawError, match=r"law\.json' has a damaged entry .*; fit it again"):
        Law.load(path)


def test_a_file_without_spikes_has_none(law, path):
    """As releases wrote it before noise had a part by them."""
    data = json.loads(path.read_text())
    assert data["posterior"].pop("spike") == law.posterior.spike > 0
    assert tuple(data["posterior"].pop("peak_columns")) == law.posterior.peak_columns
    found = store.law_from_text(json.dumps(data), "law.json").posterior
    assert (found.spike, found.peak_columns) == (0.0, ())


@pytest.mark.parametrize(
    "change",
    [
        {"spike": None}, {"spike": "0.1"}, {"spike": -0.1}, {"spike": 2.0}, {"peak_columns": None},
        {"peak_columns": ""}, {"peak_columns": {}}, {"peak_columns": [13, 13]}, {"peak_columns": [16]},
        {"peak_columns": [0.5]}, "spike", "peak_columns",
    ],
)  # fmt: skip
def test_spikes_that_no_file_can_have(path, change):
    data = json.loads(path.read_text())
    if isinstance(change, str):
        del data["posterior"][change]
    else:
        data["posterior"].update(change)
    path.write_text(json.dumps(data))
    with pytest.raises(LawError, match=r"law\.json' has a damaged entry \(.*(spike|peak_columns).*\); fit it again"):
        Law.load(path)


@pytest.mark.parametrize("value", [object(), float("nan"), np.float32(1.0)])
def test_what_json_cannot_hold_is_one_sentence(law, path, value):
    good = path.read_bytes()
    with pytest.raises(LawError, match="law 'made' must hold texts, finite plain numbers, lists and objects only"):
        replace(law, info={"mine": value}).save(path)
    assert path.read_bytes() == good


def test_constants_of_numpy_types_are_written_as_plain_numbers(tmp_path):
    basis = get_basis().with_constants({"kappa": np.float32(0.25), "modes": np.int64(6)}, {"aN": np.float64(0.13)})
    fitted = fit_law(with_losses(plan(), noise=0.0005), basis=basis)
    fitted.save(tmp_path / "law.json")
    same_answers(fitted, Law.load(tmp_path / "law.json"), plan(peaks=(5e-4, 5e-3), steps=(4000,)))


@pytest.fixture(scope="module")
def rival():
    runs = plan()
    loss = 1.7 + 400 * runs.params**-0.34 + 410 * runs.tokens**-0.28
    noise = 1 + 1e-3 * np.random.default_rng(0).standard_normal(len(runs))
    return fit_baseline("chinchilla", replace(runs, final_loss=loss * noise))


def test_a_rival_law_comes_back_with_the_same_digits(rival, tmp_path):
    rival.save(tmp_path / "rival.json")
    again = load_any_law(tmp_path / "rival.json")
    new = plan(peaks=(5e-4,), steps=(4000,))
    for name in ("loss", "sd", "lower", "upper", "in_domain"):
        np.testing.assert_array_equal(getattr(again.predict(new), name), getattr(rival.predict(new), name))
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "rival.json").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["domain"].update(params=["nan", "nan"]), "domain.params must be a finite number, got 'nan'"),
        (lambda d: d["domain"].update(params=[2.0, 1.0]), "domain.params must be two numbers, the lowest first"),
        (lambda d: d["parameters"].update(E="1.7"), "parameters.E must be a finite number, got '1.7'"),
        (lambda d: d["parameters"].update(E=True), "parameters.E must be a finite number, got True"),
        (lambda d: d["residuals"].update(upper=1e300), "residuals.upper must be from -100 to 100, got 1e.300"),
        (lambda d: d["residuals"].update(sd="0.1"), "residuals.sd must be a finite number, got '0.1'"),
        (lambda d: d["residuals"].update(lower=2.0, upper=1.0), "residuals must have lower at most upper"),
        (lambda d: d["parameters"].update(alpha=-1.0), "alpha of law 'chinchilla' must be above 0, got -1"),
    ],
)
def test_a_damaged_rival_law(rival, tmp_path, change, message):
    rival.save(tmp_path / "rival.json")
    with pytest.raises(LawError, match=message):
        load_any_law(edited(tmp_path / "rival.json", change))


@pytest.mark.parametrize("text", ["[1, 2]", "3", '"law"', "{}", "null"])
def test_not_a_law(path, text):
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LawError, match="must be a JSON object with"):
        Law.load(path)


def test_not_text(path):
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(LawError, match="cannot be read"):
        Law.load(path)


def test_no_such_file(tmp_path):
    with pytest.raises(LawError, match=r"cannot be read .* check the path"):
        Law.load(tmp_path / "nothing.json")
    with pytest.raises(LawError, match=r"law must be a law file or one of .*, got 'no-such-law'"):
        load_law("no-such-law")
    with pytest.raises(LawError, match="cannot be read"):
        Law.load(tmp_path)


def test_a_half_written_file_never_replaces_a_good_one(law, path, monkeypatch):
    good = path.read_bytes()

    def broken(data, stream, **options):
        stream.write('{"format": "optlaws-law", ')
        stream.flush()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.json, "dump", broken)
    with pytest.raises((OSError, InputError), match="No space left"):
        law.save(path)
    assert path.read_bytes() == good
    assert os.listdir(path.parent) == ["law.json"]


def test_no_such_folder(law, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        law.save(tmp_path / "nowhere" / "law.json")


def test_a_law_predicts_a_schedule_of_one_rate_per_step() -> None:
    formula = parse("cosine:peak=1e-3,steps=20000,warmup=300")
    runs = RunTable.build([formula, from_array(formula.array())], params=6e7, batch_tokens=51200)
    loss = load_law("llama-slimpajama").predict(runs).loss
    np.testing.assert_allclose(loss[1], loss[0], rtol=2e-4)


@pytest.mark.parametrize("value", [3, None, b"law.json", ["llama-slimpajama"]])
def test_what_is_neither_a_name_nor_a_path_is_no_law(value):
    with pytest.raises(LawError, match=r"law must be a law file or one of llama.*, got .*; give the name or the path"):
        load_law(value)


def test_the_name_of_a_rival_law_says_how_to_make_one():
    for load in (load_law, load_any_law):
        with pytest.raises(LawError, match=r"'step_law', a rival law; `optlaws fit RUNS --law step_law -o FILE` makes"):
            load("step_law")
        with pytest.raises(LawError, match=r"did you mean 'steplaw-dense'\?; `optlaws laws` lists these"):
            load("steplaw-dens")
