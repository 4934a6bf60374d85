"""What parameters may be, what laws look at, and what is said of both."""

import json

import numpy as np
import pytest

from optlaws.baselines import REGISTRY, get_baseline
from optlaws.baselines.base import not_above_zero, training
from optlaws.baselines.chinchilla import Chinchilla
from optlaws.baselines.functional import FunctionalLaw
from optlaws.cli import run
from optlaws.errors import FitError, LawError
from optlaws.law import load_any_law, load_law
from optlaws.law.baseline import BaselineFit, fit_baseline
from optlaws.ranking import rank
from optlaws.runs import RunTable
from optlaws.schedules import parse

GRID = [(n, t) for n in (5e7, 1e8, 2e8, 4e8) for t in (2000, 6000, 20000)]


def made(loss):
    """Return runs of four sizes and three lengths with these losses of N and D."""
    n, steps = np.array(GRID).T
    specs = [parse(f"cosine:peak=1e-3,steps={int(t)},warmup=100") for t in steps]
    return RunTable.build(specs, params=n, batch_tokens=5e5, final_loss=loss(n, steps * 5e5), status="completed")


@pytest.fixture(scope="module")
def chinchilla():
    return fit_baseline("chinchilla", made(Chinchilla.refit().loss))


def candidates(**columns):
    specs = ["cosine:peak=1e-3,steps=6000,warmup=100", "wsd:peak=1e-3,steps=6000,warmup=100,decay=0.2"]
    return RunTable.build([parse(spec) for spec in specs], **columns)


def test_a_law_that_does_not_see_schedules_says_that_it_cannot_rank_them(chinchilla):
    ranking = rank(candidates(params=1e8, batch_tokens=5e5), chinchilla)
    assert ranking.difference.tolist() == [0.0, 0.0]
    assert ranking.advice == (
        "1 and 2 have the same predicted loss because law 'chinchilla' looks only at params and tokens, not at the"
        " schedule: it cannot rank them; take a built-in law, or fit one without --law."
    )
    assert "cannot rank" not in rank(candidates(params=[1e8, 3e8], batch_tokens=5e5), chinchilla).advice


def test_on_the_command_line(chinchilla, tmp_path, capsys):
    chinchilla.save(tmp_path / "law.json")
    specs = ["cosine:peak=1e-3,steps=6000,warmup=100", "constant:peak=1e-3,steps=6000,warmup=100"]
    law = str(tmp_path / "law.json")
    assert run(["rank", *specs, "--params", "1e8", "--batch-tokens", "5e5", "--law", law]) == 0
    assert "looks only at params and tokens, not at the schedule: it cannot rank them" in " ".join(
        capsys.readouterr().out.split()
    )


def test_laws_that_look_at_the_schedule_are_not_blind():
    for name in REGISTRY:
        kind = get_baseline(name)
        fit = BaselineFit(name, kind, {}, {}, {})
        assert (fit.blind == "") is ("schedule" in kind.needs)
    assert BaselineFit("mine", get_baseline("mup"), {}, {}, {}).blind == "law 'mine' looks only at params and peak_lr"


def test_every_parameter_that_must_be_above_zero_is_one_of_the_law():
    for name in REGISTRY:
        kind = get_baseline(name)
        assert set(getattr(kind, "above_zero", ())) <= set(kind.__dataclass_fields__), name
        if hasattr(kind, "published"):
            assert not_above_zero(kind.published()) == ""


@pytest.mark.parametrize("value", [-0.35, 0.0])
def test_a_rival_law_whose_loss_grows_with_size_is_refused(chinchilla, tmp_path, value, capsys):
    document = chinchilla.to_dict()
    document["parameters"] = {**document["parameters"], "alpha": value}
    path = tmp_path / "law.json"
    path.write_text(json.dumps(document))
    with pytest.raises(LawError, match=rf"alpha of law 'chinchilla' must be above 0, got {value:g}; fit it again"):
        load_any_law(path)
    assert run(["laws", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "law.json': alpha of law 'chinchilla' must be above 0" in said


def test_a_fit_that_ends_there_is_refused_too():
    with pytest.raises(FitError, match=r"alpha of law 'chinchilla' must be above 0, got -.*: these runs do not follow"):
        fit_baseline("chinchilla", made(lambda n, d: 2.0 + 0.1 * (n / 1e8) ** 0.5 + (d / 1e9) ** -0.3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"aN": -0.13}, "exponent aN of basis 'sde16' must be above 0, got -0.13; fit it again"),
        ({"aT": 0.0}, "exponent aT of basis 'sde16' must be above 0, got 0"),
        ({"nv": -0.5}, "exponent nv of basis 'sde16' must be 0 or more, got -0.5"),
    ],
)
def test_a_law_of_our_basis_with_such_exponents_is_refused(tmp_path, change, message):
    path = tmp_path / "law.json"
    load_law("llama-slimpajama").save(path)
    document = json.loads(path.read_text())
    document["exponents"].update(change)
    path.write_text(json.dumps(document))
    with pytest.raises(LawError, match=message):
        load_law(path)


def test_powers_and_memories_with_a_range_of_their_own():
    with pytest.raises(LawError, match=r"beta of law 'functional' must be above 1, got 0\.9"):
        FunctionalLaw(2.0, 1.0, 0.5, 1.0, 0.9, 1.0)
    with pytest.raises(LawError, match="lam of law 'annealing' must be above 0 and below 1, got 1"):
        get_baseline("annealing")(2.0, 1.0, 0.5, 1.0, 1.0)


@pytest.mark.parametrize(("fewest", "noun"), [(1, "1 completed run with"), (5, "5 completed runs with")])
def test_one_run_is_one_run(fewest, noun):
    none = RunTable.build(parse("cosine:peak=1e-3,steps=100"), params=1e8)
    with pytest.raises(FitError, match=noun):
        training(Chinchilla, none, fewest)
