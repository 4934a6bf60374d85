"""The commands and the Python API tell the same numbers, and what they say agrees with itself."""

import csv
import io
import json

import numpy as np
import pytest

from optlaws import cli, load_law, rank
from optlaws.runs import gather_candidates, write_runs

RATES = (2e-4, 5e-4, 1e-3, 1.9e-3)
SPECS = [
    f"{kind}:peak={peak},steps={steps},warmup=300{more}"
    for peak in RATES
    for steps in (5000, 20000)
    for kind, more in (("cosine", ""), ("wsd", ",decay=0.2"), ("linear", ""))
]


@pytest.fixture(scope="module")
def law():
    return load_law("llama-slimpajama")


@pytest.fixture(scope="module")
def runs(law):
    return gather_candidates(SPECS, None, law.defaults).runs


def test_rank_predict_and_api_agree(law, runs, tmp_path, capsys):
    ranking = rank(runs, law)
    assert cli.run(["rank", *SPECS, "--format", "json"]) == 0
    candidates = json.loads(capsys.readouterr().out)["candidates"]
    assert [c["predicted_loss"] for c in candidates] == ranking.loss[ranking.order].tolist()
    write_runs(tmp_path / "runs.csv", runs)
    assert cli.run(["predict", "llama-slimpajama", str(tmp_path / "runs.csv"), "-o", "-"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    for column in ("predicted_loss", "lower", "upper"):
        want = getattr(ranking, column.removeprefix("predicted_"))
        np.testing.assert_allclose([float(row[column]) for row in rows], want, rtol=1e-12)


def test_the_order_of_candidates_does_not_matter(law, runs):
    first = rank(runs, law)
    shuffled = np.random.default_rng(3).permutation(len(runs))
    second = rank(runs.select(shuffled), law)
    np.testing.assert_allclose(second.loss, first.loss[shuffled], rtol=1e-12)
    np.testing.assert_allclose(second.difference_lower, first.difference_lower[shuffled], atol=1e-12)
    np.testing.assert_allclose(second.p_best, first.p_best[shuffled], atol=0.02)
    alone = law.predict(runs.select([5])).loss[0]
    assert alone == pytest.approx(first.loss[5], rel=1e-12)


def test_what_is_said_agrees_with_the_intervals(law, runs):
    for rows in ([0, 1], [0, 1, 2], [3, 4, 9, 10], list(range(len(runs)))):
        ranking = rank(runs.select(rows), law)
        assert ranking.p_best.sum() == pytest.approx(1.0, abs=1e-12)
        rivals = ranking.difference_lower[ranking.order] <= 0
        assert ("cannot be told apart" in ranking.advice) == bool(rivals.sum() > 1)
        inside = (ranking.lower <= ranking.loss) & (ranking.loss <= ranking.upper)
        assert inside.all()


def test_far_outside_is_flagged_with_its_reasons(law):
    found = gather_candidates(["cosine:peak=0.1,steps=25000"], {"params": 1e9}, law.defaults).runs
    ranking = rank(found, law)
    assert not ranking.in_domain[0]
    assert "peak_lr" in ranking.reasons[0]
    assert "params" in ranking.reasons[0]


def test_the_end_of_a_curve_is_the_final_loss(law, runs):
    for row in (0, 7, 20):
        run = runs.select([row])
        end = law.predict_curve(run, np.array([run.steps[0] / 2, run.steps[0]])).loss[-1]
        assert end == pytest.approx(law.predict(run).loss[0], abs=1e-4)


def test_a_built_in_law_that_has_seen_such_runs_is_named(run):
    """Outside one built-in law and inside another: said on standard error, and only then."""
    sizes = ("--params", "400M", "--tokens", "20B", "--batch-tokens", "512K")
    two = ("cosine:peak=1e-3,warmup=2000", "cosine:peak=5e-4,warmup=2000")
    code, out, err = run("rank", *two, *sizes, "--format", "csv", "--law", "llama-slimpajama")
    assert code == 0
    assert "2 of 2 lie inside that of 'steplaw-dense': --law steplaw-dense" in err
    assert "note" not in out
    code, taken, err = run("rank", *two, *sizes, "--format", "csv")
    assert (code, err.count("law 'steplaw-dense' is taken")) == (0, 1)
    assert taken == run("rank", *two, *sizes, "--format", "csv", "--law", "steplaw-dense")[1]
    code, _, err = run(
        "rank", "cosine:peak=1e-3,warmup=2000", "cosine:peak=5e-4,warmup=2000", *sizes, "--law", "steplaw-dense"
    )
    assert (code, err) == (0, "")


def test_formats_are_those_that_the_readme_states():
    """Commands with a choice of formats have JSON, and all of them but `laws` and `monitor` CSV."""
    choices = {
        name: set(option.type.choices)
        for name, command in cli.cli.commands.items()
        for option in command.params
        if "--format" in option.opts
    }
    assert {"rank", "risk", "laws", "monitor", "schedule", "compare", "design"} <= set(choices)
    assert all("json" in found for found in choices.values())
    assert {name for name, found in choices.items() if "csv" not in found} == {"laws", "monitor"}
