"""Runs that stand apart from the law of the others are named, and nothing else is."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_runs import curves_of, plan, with_losses

from optlaws.cli import run
from optlaws.commands.core import CURVES_TO_LEARN_FROM
from optlaws.errors import OptlawsWarning
from optlaws.law import builtin_names, fit_law, load_any_law, load_law
from optlaws.law.outliers import NAMED, apart, outliers_text
from optlaws.monitor import learning
from optlaws.runs import read_runs, write_curves, write_runs

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "my_runs.csv"


@pytest.fixture(scope="module")
def runs():
    return read_runs(EXAMPLE)


def spoilt(runs, change):
    loss = runs.final_loss.copy()
    for place, value in change.items():
        loss[place] = value if value > 5 else value * loss[place]
    return replace(runs, final_loss=loss)


@pytest.mark.parametrize(
    "change", [{3: 1.1}, {10: 0.9}, {5: 1.03}, {20: 1.3}, {2: 7.8, 9: 7.8, 15: 7.8}, {6: 7.8, 7: 7.8, 8: 7.8}]
)
def test_bad_runs_are_named_and_left_out_and_no_others(runs, change):
    with pytest.warns(OptlawsWarning, match="not fit the others and (is|are) left out") as told:
        law = fit_law(spoilt(runs, change))
    rest = fit_law(runs.select([place not in change for place in range(len(runs))]))
    np.testing.assert_allclose(law.predict(runs).loss, rest.predict(runs).loss, rtol=1e-12)
    assert law.info["n_runs"] == len(runs) - len(change)
    assert sum(one.category is OptlawsWarning for one in told) == 1  # and nothing of other data sets
    assert {x["run_id"] for x in law.info["outliers"]} == {runs.run_id[place] for place in change}
    for x in law.info["outliers"]:
        place = runs.run_id.index(x["run_id"])
        assert x["predicted"] == pytest.approx(runs.final_loss[place], rel=0.002)
    message = str(told[0].message)
    assert all(repr(runs.run_id[place]) in message for place in change)
    assert message.endswith("to diverged")


def test_good_runs_are_not(runs):
    assert "outliers" not in fit_law(runs).info
    for seed in range(3):
        assert "outliers" not in fit_law(with_losses(plan(), noise=0.004, seed=seed, field=True)).info


def test_a_law_with_a_pool_names_no_run(runs):
    bad = spoilt(runs, {3: 1.1})
    with pytest.warns(OptlawsWarning, match=repr(runs.run_id[3])):
        law = fit_law(bad, inducing_pool=plan())
    assert "outliers" not in law.info
    assert runs.run_id[3] not in json.dumps(dict(law.info))


def test_built_in_laws_name_no_run():
    for name in builtin_names():
        assert "outliers" not in load_law(name).info


@pytest.mark.parametrize("name", ["schaipp", "mpl", "steplaw", "nqs"])
def test_public_runs_whose_rates_are_far_too_high_raise_no_alarm(data_dir, name):
    table = read_runs(data_dir / f"{name}_runs.csv")
    done = np.array([status in (None, "completed") for status in table.status]) & np.isfinite(table.final_loss)
    table = table.select(done)
    if name == "steplaw":
        table = table.select([source == "steplaw-dense" for source in table.source])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptlawsWarning)  # that runs scatter
        assert "outliers" not in fit_law(table).info


def test_tails_that_fall_off_step_by_step_are_no_mistakes():
    steps = np.concatenate([np.full(30, 0.001), 0.0015 * 1.5 ** np.arange(10)])
    assert not len(apart(steps[None], np.ones(40)))
    assert apart(np.append(steps[:30], 0.1)[None], np.ones(31)).tolist() == [30]
    assert not len(apart(np.append(steps[:30], 0.1)[None], np.append(np.ones(30), 40.0)))  # as its damage explains
    assert not len(apart(np.append(steps[:30], 0.009)[None], np.ones(31)))  # less than 1 %


def test_residuals_that_disagree_name_no_run():
    fit, left_out = np.full(20, 0.001), np.full(20, 0.001)
    fit[4], left_out[4] = -0.1, 0.1
    assert not len(apart(np.stack([fit, left_out]), np.ones(20)))
    left_out[4] = np.nan  # its group is all runs
    assert apart(np.stack([fit, left_out]), np.ones(20)).tolist() == [4]
    assert not len(apart(fit[None, :8], np.ones(8)))  # too few runs to say which is odd


def test_more_than_a_few_are_counted():
    found = [{"run_id": f"r{i}", "loss": 9.0, "predicted": 3.0} for i in range(NAMED + 2)]
    assert outliers_text(found).endswith("'r4' (loss 9, predicted 3) and 2 more")


def test_on_the_command_line(runs, tmp_path, capsys):
    table, law = tmp_path / "runs.csv", tmp_path / "law.json"
    write_runs(table, spoilt(runs, {3: 1.1}))
    assert run(["fit", str(table), "-o", str(law)]) == 0
    told = capsys.readouterr()
    assert told.err.startswith(f"optlaws: warning: 1 run does not fit the others and is left out: '{runs.run_id[3]}'")
    assert "moved by 36 of these runs (36 completed, 0 diverged)." in told.out
    assert run(["laws", str(law)]) == 0
    assert f"Runs that stand apart: 1 run does not fit the others and is left out: '{runs.run_id[3]}'" in (
        capsys.readouterr().out
    )
    document = json.loads(law.read_text())
    for damaged in ([1], [{}], [{"run_id": "a", "loss": "3", "predicted": 3.0}], {}):
        law.write_text(json.dumps({**document, "info": {**document["info"], "outliers": damaged}}))
        assert run(["laws", str(law)]) == 2
        assert "info.outliers" in capsys.readouterr().err


class TestMonitor:
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("monitor")
        runs = with_losses(plan(peaks=(5e-4, 1e-3), steps=(2000,), params=(6e7,)), noise=0.0005)
        write_runs(folder / "runs.csv", runs)
        write_curves(folder / "curves.csv", curves_of(runs, every=50, noise=0.001))
        two = runs.select([0, 1])
        write_curves(folder / "two.csv", curves_of(two, every=50, noise=0.001))
        return folder

    def test_what_curves_say_is_stored(self, folder, capsys):
        law = folder / "law.json"
        command = ["fit", str(folder / "runs.csv"), "--curves", str(folder / "curves.csv"), "-o", str(law)]
        assert run(command) == 0
        assert capsys.readouterr().out.endswith("how runs depart from the law, for optlaws monitor.\n")
        plain = load_any_law(law)
        assert run([*command, "--monitor"]) == 0
        told = capsys.readouterr().out
        assert "Monitor: how 6 curves depart from this law is stored." in told
        assert "Add --monitor" not in told
        found = load_any_law(law)
        assert found.info["monitor"]["curves"] == 6
        assert np.array_equal(found.posterior.mean, plain.posterior.mean)

    def test_progress_tells_of_the_fits(self, folder, monkeypatch):
        from contextlib import contextmanager

        from optlaws.commands import core, shared
        from optlaws.runs import read_curves

        said = []

        @contextmanager
        def heard(what):
            yield lambda word: said.append((what, word))

        monkeypatch.setattr(shared, "ticking", heard)
        monkeypatch.setattr(learning, "_groups", lambda runs: [np.arange(len(runs)) > 3])
        runs, curves = read_runs(folder / "runs.csv"), read_curves(folder / "curves.csv")
        core._with_monitor(load_any_law(folder / "law.json"), runs, curves)
        assert ("monitor", "without group 1 of 1, fit") in said
        assert ("monitor", "without group 1 of 1, trial of constants") in said

    def test_an_interrupt_keeps_the_law(self, folder, monkeypatch, capsys):
        """What is fitted is not lost where learning from its curves, which takes much longer, is broken off."""

        def broken(*args, **kwargs):
            raise KeyboardInterrupt

        law = folder / "kept.json"
        monkeypatch.setattr(learning, "left_out", broken)
        command = ["fit", str(folder / "runs.csv"), "--curves", str(folder / "curves.csv"), "-o", str(law)]
        assert run([*command, "--monitor"]) == 130
        assert "monitor" not in load_any_law(law).info

    def test_without_curves_there_is_nothing_to_learn(self, folder, capsys):
        command = ["fit", str(folder / "runs.csv"), "-o", str(folder / "no.json"), "--monitor"]
        assert run(command) == 2
        assert "--monitor learns from curves, got none" in capsys.readouterr().err
        assert run([*command, "--curves", str(folder / "two.csv")]) == 2
        assert "--monitor needs curves of 3 or more completed runs with a final_loss, got 2" in capsys.readouterr().err
        assert run([*command, "--law", "chinchilla"]) == 2
        assert "--monitor is for the law of this package, got it with --law chinchilla" in capsys.readouterr().err
        assert not (folder / "no.json").exists()

    def test_as_many_curves_as_the_monitor_needs(self):
        assert learning.FEWEST_CURVES == CURVES_TO_LEARN_FROM
