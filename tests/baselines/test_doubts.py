"""Rival laws that their runs do not tell say so, at the fit, in the file, and where they are used."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from made import grid, table

from optlaws.baselines import get_baseline
from optlaws.baselines.chinchilla import Chinchilla
from optlaws.cli import run
from optlaws.errors import OptlawsWarning
from optlaws.law import load_any_law
from optlaws.law.baseline import fit_baseline
from optlaws.law.doubts import doubts, unlike, unseen
from optlaws.runs import CurveTable, RunTable, write_curves, write_runs
from optlaws.schedules import parse


def valley(best=1e-3, rates=(1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3), batches=(1e5, 3e5, 9e5)):
    """Runs of four sizes and three lengths whose loss is lowest at one rate."""
    rows = [(n, d, r, b) for n in (5e7, 1e8, 2e8, 4e8) for d in (1e9, 3e9, 1e10) for r in rates for b in batches]
    n, d, r, b = np.array(rows).T
    runs = table(n, d, batch=b, peak=r)
    moved = best * (n / 1e8) ** -0.5 * (d / 3e9) ** 0.25
    loss = Chinchilla.refit().loss(runs.size, runs.tokens) * np.exp(0.02 * np.log(r / moved) ** 2)
    loss *= np.exp(0.02 * np.log(b / (3e5 * (d / 3e9) ** 0.5)) ** 2)
    return replace(runs, final_loss=loss * np.exp(1e-3 * np.sin(7 * np.arange(len(n)))))


def said(kind, runs, curves=None):
    """Return the law and what its fit warned of."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", OptlawsWarning)
        law = fit_baseline(kind, runs, curves)
    assert [str(x.message) for x in told] == (
        [f"law {kind!r} is doubtful: {'; '.join(law.info['doubts'])}; add runs that tell more, or choose another law"]
        if law.info["doubts"]
        else []
    )
    return law, "; ".join(law.info["doubts"])


@pytest.mark.parametrize("kind", ["chinchilla", "kaplan", "step_law", "step_law_valley"])
def test_laws_that_their_runs_tell_are_not_doubtful(kind):
    assert said(kind, valley())[1] == ""


def test_a_constant_of_no_part_is_named():
    """Losses without an irreducible part: E comes out at next to nothing."""
    n, d = grid()
    loss = 4.0 * (n / 1e8) ** -0.05 * np.exp(-0.01 * np.log(d / 1e8) ** 2)  # falls ever faster
    runs = table(n, d, loss=loss)
    law, text = said("chinchilla", runs)
    assert law.law.E < 1e-3
    assert f"of no part in it came out E ({law.law.E:.2g})" in text


def test_left_out_groups_that_are_not_predicted_are_named():
    law, text = said("quadratic", replace(valley(), final_loss=valley().final_loss * np.exp(valley().size / 4e8)))
    assert "it does not predict left-out groups: mean error" in text
    assert " groups above 10 %)" in text
    error = max(group["error_pct"] for group in law.info["left_out_groups"]["params"]["groups"])
    assert f"mean error {error:.3g} %" in text


@pytest.mark.parametrize(("best", "edge"), [(1e-5, True), (1e-1, True), (1e-3, False)])
def test_best_rates_at_the_edge_of_those_tried(best, edge):
    law, text = said("step_law", valley(best))
    assert ("the best rate lies at the edge of those tried in 12 of 12 pairs of N and D" in text) is edge
    if edge:  # every near-best run has one rate: the powers of N and D are 0
        assert abs(law.law.p) < 1e-9
        assert "of no part in it came out p (" in text


@pytest.mark.parametrize("best", [2e-4, 3e-4, 4e-4, 5e-3, 6e-3, 9e-3])
def test_best_rates_at_the_edge_are_said_of_more_than_half_of_the_pairs(best):
    """Counted one pair of N and D at a time, where some are best at an end of the rates tried and others between."""
    runs, edge = valley(best), 0
    for pair in {(n, d) for n, d in zip(runs.size, runs.tokens, strict=True)}:
        own = np.flatnonzero((runs.size == pair[0]) & (runs.tokens == pair[1]))
        edge += runs.schedules[own[runs.final_loss[own].argmin()]].peak in (1.25e-4, 8e-3)
    assert 0 < edge < 12
    text = "; ".join(doubts(get_baseline("step_law").published(), runs, {}, ""))
    assert (f"at the edge of those tried in {edge} of 12 pairs" in text) is (edge > 6)
    assert ("at the edge of those tried" in text) is (edge > 6)


def test_a_law_of_batches_alone_needs_no_range_of_rates():
    assert "rate" not in said("minicpm_batch", valley(1e-5))[1]


def test_exponents_at_the_edge_of_their_box():
    kind = get_baseline("annealing")
    runs = table(1e8, np.array([1e9, 2e9, 4e9]), loss=3.0)
    low, high = kind.box["alpha"]
    for value, edge in ((low, True), (high, True), (0.5, False)):
        text = "; ".join(doubts(kind(L0=2.0, A=1.0, alpha=value, C=0.5), runs, {}, ""))
        assert ("lies at the edge of the values searched" in text) is edge


def test_a_critical_batch_far_from_the_batches_tried():
    kind, runs = get_baseline("critical_batch"), valley()
    for batch, far in ((5e2, True), (5e5, False), (1e9, True)):
        law = kind(E=1.8, A=482.0, C=8.0, alpha=0.35, gamma=0.35, B_c=batch)
        assert ("far from the batches tried" in "; ".join(doubts(law, runs, {}, ""))) is far
    alike = runs.select(runs.batch_tokens == runs.batch_tokens[0])
    assert "B_c is not told by runs of one batch" in "; ".join(doubts(law, alike, {}, ""))


class TestBlindness:
    @pytest.fixture(scope="class")
    @classmethod
    def curves(cls):
        specs = [f"{kind}:peak=1e-3,steps=1000,warmup=50" for kind in ("constant", "cosine", "linear")]
        steps = np.arange(100.0, 1001.0, 50.0)
        table, names, losses = [], [], []
        for i, spec in enumerate(specs):
            area = np.cumsum(np.asarray(parse(spec).lr(np.arange(1000))))[steps.astype(int) - 1]
            names += [f"r{i}"] * len(steps)
            losses.append(2.5 + 1.2 * area**-0.4)
        table = RunTable.build(
            [parse(spec) for spec in specs], run_id=["r0", "r1", "r2"], params=[3e7, 6e7, 1.2e8], batch_tokens=5e4
        )
        return table, CurveTable(tuple(names), np.tile(steps, 3), np.concatenate(losses))

    def test_several_sizes_are_said(self, curves):
        law, text = said("annealing", *curves)
        assert "it does not look at params, which vary from 30M to 120M over these runs: fit one size" in text
        assert "batch_tokens" not in text
        assert law.info["unseen"] == {"params": [3e7, 6e7, 1.2e8], "batch_tokens": [5e4, 5e4, 5e4]}

    def test_other_sizes_are_outside_of_its_domain(self, curves, tmp_path):
        table, readings = curves
        law, text = said("annealing", replace(table, params=np.full(3, 6e7)), readings)
        assert "params" not in text
        law.save(tmp_path / "law.json")
        asked = RunTable.build(3 * [parse("cosine:peak=1e-3,steps=1000,warmup=50")], params=[5e7, 4.8e8, np.nan])
        for each in (law, load_any_law(tmp_path / "law.json")):
            found = each.predict(asked)
            assert found.in_domain.tolist() == [True, False, True]
            assert found.reasons[1] == "the law does not look at params, 480M here and 60M in training (median)"

    def test_laws_that_look_are_not_blind(self):
        assert unseen(get_baseline("chinchilla"), valley()) == {}
        assert unseen(get_baseline("step_law"), valley()) == {}  # it predicts no losses
        assert unlike("params", 8e7, [6e7, 6e7, 6e7]) == ""

    def test_damaged_entries(self, curves, tmp_path, capsys):
        path = tmp_path / "law.json"
        said("annealing", *curves)[0].save(path)
        good = json.loads(path.read_text())
        for key, value in (
            ("doubts", "text"), ("doubts", [1]), ("unseen", []), ("unseen", {"colour": [1.0, 1.0, 1.0]}),
            ("unseen", {"params": [1.0, 2.0]}), ("unseen", {"params": [0.0, 1.0, 2.0]}), ("unseen", {"params": "abc"}),
        ):  # fmt: skip
            path.write_text(json.dumps({**good, "info": {**good["info"], key: value}}))
            assert run(["laws", str(path)]) == 2
            told = capsys.readouterr().err
            assert told.count("\n") == 1
            assert "damaged entry" in told

    def test_on_the_command_line(self, curves, tmp_path, capsys):
        runs, readings, law = (str(tmp_path / name) for name in ("runs.csv", "curves.csv", "law.json"))
        write_runs(runs, curves[0])
        write_curves(readings, curves[1])
        assert run(["fit", runs, "--curves", readings, "--law", "annealing", "-o", law]) == 0
        assert "optlaws: warning: law 'annealing' is doubtful: " in capsys.readouterr().err
        assert run(["laws", law]) == 0
        assert "Doubtful: " in capsys.readouterr().out
        spec = "cosine:peak=1e-3,steps=1000,warmup=50"
        assert run(["rank", spec, "constant:peak=1e-3,steps=1000", "--params", "480M", "--law", law]) == 0
        told = capsys.readouterr()
        assert told.err.startswith("optlaws: note: law 'law' is doubtful: ")
        assert "the law does not look at params, 480M here and 60M in training" in told.out
        assert run(["predict", law, runs, "-o", str(tmp_path / "out.csv")]) == 0
        assert "is doubtful: " in capsys.readouterr().err


def test_files_from_before_are_read(tmp_path):
    law, _ = said("kaplan", valley())
    law.save(tmp_path / "law.json")
    document = json.loads((tmp_path / "law.json").read_text())
    for key in ("doubts", "unseen"):
        del document["info"][key]
    (tmp_path / "law.json").write_text(json.dumps(document))
    assert load_any_law(tmp_path / "law.json").predict(valley()).in_domain.all()
