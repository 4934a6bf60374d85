"""Several optimizers in one law: how runs of another count, what stays as it was, what is said of unknown ones."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from made_runs import plan, with_losses

from optlaws.dynamics.model import family
from optlaws.dynamics.solve import effective_decay
from optlaws.errors import FitError, LawError, OptlawsWarning
from optlaws.law import Law, fit_law, load_law, with_risk
from optlaws.law.optimizers import LOSS_SD, Equivalent, Optimizers, at_rates, fit_equivalent
from optlaws.ranking import rank
from optlaws.runs import RunTable, read_candidates, write_runs
from optlaws.schedules import ScheduleBatch

RATE, LOSS, NOISE = 0.05, -0.02, 0.0005  # what is true of the other optimizer


def of_muon(runs, seed):
    """Return runs of the known law as those of another optimizer that would have ended so, with noise."""
    seen = at_rates(with_losses(runs, noise=NOISE, seed=seed), np.full(len(runs), 1.0 / RATE))
    names = tuple(f"muon-{name}" for name in seen.run_id)
    return replace(seen, run_id=names, optimizer=("muon",) * len(runs), final_loss=seen.final_loss * np.exp(LOSS))


@pytest.fixture(scope="module")
def own():
    return with_losses(plan(), noise=NOISE)


@pytest.fixture(scope="module")
def alone(own):
    return fit_law(own)


@pytest.fixture(scope="module")
def muon():
    return of_muon(plan(peaks=(4e-4, 1.2e-3), steps=(4000, 9000), params=(2e7, 6e7)), 5)


@pytest.fixture(scope="module")
def both(own, muon):
    return fit_law(RunTable.concat([own, muon]))


def test_rate_and_loss_of_another_optimizer_are_found(both, muon):
    found = both.optimizers.others["muon"]
    (rate_var, cross), (_, loss_var) = found.covariance
    assert abs(found.log_rate - np.log(RATE)) < 3 * rate_var**0.5 < 0.2
    assert abs(found.log_loss - LOSS) < 3 * loss_var**0.5 < 0.005
    assert cross**2 <= rate_var * loss_var
    assert found.runs == len(muon)
    assert both.optimizers.own == "adamw"


def test_posteriors_are_as_wide_as_their_errors(alone):
    errors = []
    for seed in range(10, 26):
        runs = plan(peaks=(4e-4, 1.2e-3), steps=(9000,), params=(2e7,))
        found = fit_equivalent(alone, of_muon(runs, seed))
        (rate_var, _), (_, loss_var) = found.covariance
        errors.append([(found.log_rate - np.log(RATE)) / rate_var**0.5, (found.log_loss - LOSS) / loss_var**0.5])
    within = (np.abs(errors) < 1.645).mean(axis=0)
    assert (within >= 0.7).all()
    assert (np.mean(np.square(errors), axis=0) > 0.05).all()


def test_the_law_of_its_own_optimizer_is_that_of_its_own_runs(both, alone):
    new = plan(peaks=(6e-4, 1.5e-3), steps=(4500, 9000))
    p, q = both.predict(new), alone.predict(new)
    np.testing.assert_array_equal(p.loss, q.loss)
    np.testing.assert_array_equal(p.sd, q.sd)
    np.testing.assert_array_equal(p.covariance(slice(None)), q.covariance(slice(None)))
    assert both.info["n_runs"] == alone.info["n_runs"]


def test_a_run_of_another_optimizer_is_one_of_the_laws_own_at_another_rate(both, alone):
    found = both.optimizers.others["muon"]
    new = of_muon(plan(peaks=(6e-4, 1.5e-3), steps=(4500, 9000), params=(2e7, 6e7)), 0)
    schedules = [schedule.scaled(found.rate) for schedule in new.schedule_tuple()]
    counted = replace(
        new,
        schedules=tuple(schedules),
        weight_decay=effective_decay(new) / found.rate,
        optimizer=("adamw",) * len(new),
    )
    loss = np.exp(found.log_loss) * alone.predict(counted).loss
    p = both.predict(new)
    np.testing.assert_allclose(p.loss, loss, rtol=1e-12)
    np.testing.assert_allclose(both.expected_loss(new), loss, rtol=1e-12)
    ends = both.predict_curve(new, [np.array([t]) for t in new.steps])
    np.testing.assert_allclose(ends.loss, loss, rtol=1e-6)
    batch = replace(new, schedules=ScheduleBatch.from_schedules(new.schedule_tuple()))
    np.testing.assert_allclose(both.predict(batch).loss, loss, rtol=1e-12)
    assert p.in_domain.all()
    covered = (p.lower < new.final_loss) & (new.final_loss < p.upper)
    assert covered.mean() > 0.8


def test_what_is_not_known_of_an_optimizer_is_shared_by_its_runs(both):
    new = of_muon(plan(peaks=(6e-4, 1.5e-3), steps=(9000,), params=(2e7,)), 0)
    mine = plan(peaks=(6e-4, 1.5e-3), steps=(9000,), params=(2e7,))
    found = both.optimizers.others["muon"]
    runs, parts = RunTable.concat([replace(new, final_loss=mine.final_loss), mine]), []
    for sd in (0.01, 0.0):
        one = Equivalent(found.log_rate, found.log_loss, ((0.0, 0.0), (0.0, sd**2)))
        p = replace(both, optimizers=Optimizers("adamw", {"muon": one})).predict(runs)
        parts.append(p.covariance(slice(None)) / np.outer(p.loss, p.loss))
    n = len(new)
    expected = np.zeros_like(parts[0])
    expected[:n, :n] = 0.01**2
    np.testing.assert_allclose(parts[0] - parts[1], expected, atol=1e-12)


def test_runs_of_another_optimizer_scatter_by_their_own_beside_the_laws(both):
    """Independent of each other: it widens each interval, and no two runs have it in common."""
    new = of_muon(plan(peaks=(6e-4, 1.5e-3), steps=(9000,), params=(2e7,)), 0)
    mine = plan(peaks=(6e-4, 1.5e-3), steps=(9000,), params=(2e7,))
    runs = RunTable.concat([replace(new, final_loss=mine.final_loss), mine])
    found, parts = both.optimizers.others["muon"], []
    for scatter in (0.01, 0.0):
        one = replace(found, scatter=scatter)
        parts.append(replace(both, optimizers=Optimizers("adamw", {"muon": one})).predict(runs))
    wide, narrow = parts
    for name in ("noise", "sd"):
        gained = (getattr(wide, name) / wide.loss) ** 2 - (getattr(narrow, name) / narrow.loss) ** 2
        np.testing.assert_allclose(gained, np.repeat([0.01**2, 0.0], len(new)), atol=1e-12)
    np.testing.assert_allclose(wide.covariance(slice(None)), narrow.covariance(slice(None)), rtol=1e-12)
    along = replace(both, optimizers=Optimizers("adamw", {"muon": replace(found, scatter=0.01)})).predict_curve(
        runs, np.array([3000.0, 9000.0])
    )
    assert (along.noise[: 2 * len(new)] / along.loss[: 2 * len(new)] > 0.01).all()


def test_an_optimizer_that_was_not_seen_is_outside_and_hardly_known(both):
    new = plan(peaks=(1e-3,), steps=(9000,), params=(2e7,))
    new = new.select(np.array([0]))
    lion = replace(new, run_id=("lion",), optimizer=("lion",))
    p = both.predict(lion)
    assert not p.in_domain[0]
    assert "optimizer lion, adamw and muon in training" in p.reasons[0]
    assert p.sd[0] / p.loss[0] > LOSS_SD
    ranking = rank(RunTable.concat([new, lion]), both)
    assert ranking.p_best.max() < 0.9


def test_old_laws_say_nothing_of_optimizers(both):
    old = replace(both, optimizers=None)
    lion = replace(plan(), optimizer=("lion",) * len(plan()))
    assert not any("optimizer" in reason for reason in old.predict(lion).reasons)
    assert old.own_optimizer == "adamw"


def test_adam_however_made_is_one_family(alone):
    runs = plan(peaks=(1e-3,), steps=(9000,), params=(2e7,))
    for name in ("adam", "AdamW", "adamw_torch_fused"):
        p = alone.predict(replace(runs, optimizer=(name,) * len(runs), weight_decay=np.full(len(runs), 0.1)))
        np.testing.assert_array_equal(p.loss, alone.predict(replace(runs, weight_decay=np.full(len(runs), 0.1))).loss)
        assert p.in_domain.all()
    assert family("lion") == "lion"


def test_too_few_runs_of_an_optimizer_are_left_out_and_named(own, muon):
    table = RunTable.concat([own, muon.select(np.arange(2))])
    with pytest.warns(OptlawsWarning, match="fewer than 3 of one are completed with a final_loss, 2 of muon here"):
        law = fit_law(table)
    assert not law.optimizers.others


def test_a_law_of_another_optimizer_alone_is_that_optimizers(muon):
    law = fit_law(muon)
    assert law.optimizers == Optimizers("muon")
    unsaid = replace(muon, optimizer=(None,) * len(muon), weight_decay=effective_decay(muon))
    np.testing.assert_array_equal(law.predict(unsaid).loss, law.predict(muon).loss)
    assert law.predict(unsaid).in_domain.all()
    adam = law.predict(replace(muon, optimizer=("adamw",) * len(muon)))
    assert "optimizer adamw, muon in training" in adam.reasons[0]


def test_sizes_that_only_the_others_lack_are_an_error(own, muon):
    for missing in (np.full(len(muon), np.nan), np.where(np.arange(len(muon)) == 3, np.nan, muon.params)):
        with pytest.raises(FitError, match="params must be given for all runs of a fit or for none, but"):
            fit_law(RunTable.concat([own, replace(muon, params=missing)]))


def test_a_law_of_another_optimizer_knows_no_risk_of_adamw(muon):
    law = with_risk(fit_law(muon), muon)
    adam = replace(muon, optimizer=("adamw",) * len(muon))
    assert np.isfinite(law.risks(muon)).all()
    assert np.isnan(law.risks(adam)).all()
    assert np.isnan(law.risk.predict(law.as_usual(adam), law.defaults).probability).all()


def test_risk_is_judged_at_the_rate_that_counts(both, own, muon):
    law = with_risk(both, RunTable.concat([own, muon]))
    rate = law.optimizers.others["muon"].rate
    mine = read_candidates(["cosine:peak=4e-2,steps=9000,warmup=20"], params=6e7, batch_tokens=51200, weight_decay=0.1)
    theirs = replace(at_rates(mine, np.array([1.0 / rate])), optimizer=("muon",))
    np.testing.assert_allclose(law.risks(theirs), law.risks(mine), rtol=1e-9)
    assert np.isnan(law.risks(replace(mine, optimizer=("lion",)))).all()
    assert law.risks(mine)[0] > 0.5


def test_law_files_keep_optimizers(both, tmp_path):
    both.save(tmp_path / "law.json")
    again = Law.load(tmp_path / "law.json")
    assert again.optimizers == both.optimizers
    data = json.loads((tmp_path / "law.json").read_text())
    data["optimizers"]["others"]["muon"]["covariance"] = [[1.0, 2.0], [0.0, 1.0]]
    (tmp_path / "bad.json").write_text(json.dumps(data))
    with pytest.raises(LawError, match="an equivalent of an optimizer must have finite numbers"):
        Law.load(tmp_path / "bad.json")
    data["optimizers"] = {"own": 3, "others": {}}
    (tmp_path / "bad.json").write_text(json.dumps(data))
    with pytest.raises(LawError, match=r"damaged entry .*optimizers.own must be text"):
        Law.load(tmp_path / "bad.json")
    del data["optimizers"]
    (tmp_path / "old.json").write_text(json.dumps(data))
    assert Law.load(tmp_path / "old.json").optimizers is None


def test_built_in_laws_name_their_optimizer():
    assert load_law("llama-slimpajama").optimizers == Optimizers("adamw")


def command(*args):
    return subprocess.run([sys.executable, "-m", "optlaws", *map(str, args)], capture_output=True, text=True)


def test_commands(own, muon, both, tmp_path):
    write_runs(tmp_path / "runs.csv", RunTable.concat([own, muon]))
    done = command("fit", tmp_path / "runs.csv", "-o", tmp_path / "law.json")
    assert done.returncode == 0, done.stderr
    assert f"muon ({len(muon)} runs): a rate of it counts as 0.0" in done.stdout
    peak = 1e-3 / both.optimizers.others["muon"].rate
    (tmp_path / "candidates.csv").write_text(
        "schedule,optimizer,weight_decay\n"
        '"wsd:peak=1e-3,steps=9000,warmup=300",adamw,0.1\n'
        f'"wsd:peak={peak},steps=9000,warmup=300",muon,{0.1 * both.optimizers.others["muon"].rate}\n'
    )
    sizes = ("--params", "20M", "--batch-tokens", "51.2K")
    done = command("rank", "--law", tmp_path / "law.json", tmp_path / "candidates.csv", *sizes, "--format", "json")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)["candidates"]
    assert (first["optimizer"], second["optimizer"]) == ("muon", "adamw")
    assert first["p_best"] > 0.95
    assert first["in_domain"], first["reasons"]
    table = command("rank", "--law", tmp_path / "law.json", tmp_path / "candidates.csv", *sizes).stdout
    assert "optimizer" in table.splitlines()[2]
    spec = f"cosine:peak={40 * peak},steps=9000,warmup=20"
    asked = ("risk", tmp_path / "law.json", spec, *sizes, "--optimizer", "muon", "--weight-decay", "0.005")
    done = command(*asked, "--format", "json")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["candidates"]
    assert run["schedule"]["peak_lr"] == pytest.approx(40 * peak)
    lower = next(change for change in run["changes"] if change["lever"] == "peak_lr")
    assert lower["from"] == pytest.approx(40 * peak, rel=1e-6)
    unit = run["rate_unit"]
    assert unit == pytest.approx(peak / 1e-3)
    assert f"are the law's own: {unit:.3g} of muon counts as 1." in command(*asked).stdout
    done = command("rank", spec, "--optimizer", " ")
    assert done.returncode == 2
    assert "optimizer must be a name like adamw" in done.stderr
