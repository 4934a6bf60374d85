"""Verdicts of the reproductions: mismatches that are explained, rules of tolerances, the effect of the warm-up."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from paper_repro import run as command  # noqa: E402
from paper_repro.core import Expected, expected, need  # noqa: E402

from optlaws.baselines.step_law import StepLaw  # noqa: E402
from optlaws.runs import RunTable, read_runs  # noqa: E402


def test_an_explained_mismatch_is_counted_apart_and_no_failure(monkeypatch, tmp_path, capsys):
    """A reason counts only where its check came out: the same row is a failure without it."""
    from paper_repro.sqrt_batch import reproduce

    cell = {"table": "t", "cell": "c", "published": 1.0, "tolerance": 0.1, "note": "rule", "reason": "few runs"}
    book = Expected("x", {("t", "c"): cell})
    for holds, code in ((True, 0), (False, 1)):
        row, out = book.row("t", "c", 2.0, holds=holds), tmp_path / str(holds)
        monkeypatch.setattr(reproduce, "reproduce", lambda data, quick, figures, row=row: [row])
        assert command.main(["sqrt_batch", "--data", str(tmp_path), "--out", str(out)]) == code
        said = capsys.readouterr().out
        mark = "explained" if holds else "MISMATCH"
        assert ("-- 1 values with a tolerance, 1 explained (sqrt_batch: t, c), 0 outside it" in said) == holds
        assert ("-- 1 values with a tolerance, 0 explained, 1 outside it: sqrt_batch: t, c" in said) != holds
        assert (out / "sqrt_batch.csv").read_text().splitlines()[1].split(",")[6] == mark
        assert ("why it differs: few runs" in (out / "sqrt_batch.md").read_text()) == holds
        counts = "1 | 0 | 1 | 0" if holds else "1 | 0 | 0 | 0"
        assert f"| [sqrt_batch](sqrt_batch.md) | {counts} |" in (out / "README.md").read_text()


def test_exponents_have_the_tolerance_of_the_rule(data_dir):
    """Half the 95 % band of the authors' samples; the published value beyond it lies within that of whole (N, D)."""
    from paper_repro.step_law.reproduce import BAND, EXPONENTS, FITTED, band_of_pairs

    runs = read_runs(need(data_dir, "steplaw_runs.csv", "the grid"))
    runs = runs.select([source == "steplaw-dense" for source in runs.source])
    book, samples = expected("step_law").cells, StepLaw.band(runs, draws=1000)
    wide = dict(zip((cell for cell, _, _ in EXPONENTS), band_of_pairs(runs, 300).T, strict=True))
    for cell, sign, name in EXPONENTS:
        low, high = np.quantile([sign * getattr(law, name) for law in samples], BAND)
        entry = book[FITTED, cell]
        assert entry["tolerance"] == pytest.approx((high - low) / 2, abs=6e-4)
        assert ("reason" in entry) == (not low <= entry["published"] <= high)
        assert wide[cell][0] <= entry["published"] <= wide[cell][1]
    row = next(
        row for row in command.run_one("step_law", data_dir, True, None).rows if row.cell == "rate: exponent of D"
    )
    assert row.ok is False
    assert row.explained


def test_competitors_of_step_law_have_the_tolerance_of_the_rule_and_can_fail(data_dir, monkeypatch):
    """Twice the standard error over the pairs; beyond it an explanation, which a wrong published value has not."""
    from paper_repro.step_law import reproduce as script

    def rows():
        found = command.run_one("step_law", data_dir, True, None).rows
        return {row.cell: row for row in found if row.table == "table 1, relative error" and row.published is not None}

    means = {}

    def note(values, printed):
        means.setdefault(printed, []).append(values)
        return ""

    monkeypatch.setattr(script, "about_pairs", note)
    right = rows()
    assert {name for name, row in right.items() if row.explained} == {*script.BOTH_OF_OPENAI, "DeepSeek"}
    assert all(row.ok or row.explained for row in right.values())
    (deepseek,) = means[9.26]
    rule = 2 * deepseek.std(ddof=1) / np.sqrt(len(deepseek))
    assert right["DeepSeek"].tolerance == pytest.approx(rule, abs=6e-3)
    book = expected("step_law")
    cells = {key: {**entry, "published": 10 * (entry["published"] or 0)} for key, entry in book.cells.items()}
    monkeypatch.setattr(script, "expected", lambda name: replace(book, cells=cells))
    wrong = rows()
    assert wrong["DeepSeek"].ok is False
    assert not wrong["DeepSeek"].explained
    assert not any(row.ok or row.explained for name, row in wrong.items() if name not in ("MiniCPM", "MeiTuan"))


def test_the_headline_protocol_runs_and_says_that_these_are_other_runs(data_dir):
    result = command.run_one("opt_laws", data_dir, True, None)
    assert not result.wrong
    rows = {row.cell: row for row in result.rows}
    assert "OTHER RUNS" in rows["Top-2 hit rate on held-out configurations"].note
    assert rows["relative loss error"].ours < 0.5
    assert "divergence F1" in rows
    assert rows["importance of warm-up falls with data"].ours == 1.0
    assert "in 36 of 36" in rows["importance of warm-up falls with data"].note
    assert rows["the same for warm-ups in proportion to the run"].ours == 0.0
    assert rows["the same, measured"].ours == 0.0
    assert rows["the same, measured"].explained


def test_an_effect_falls_if_its_size_does():
    from paper_repro.opt_laws.reproduce import Fall

    data = [1.0, 2.0, 4.0, 8.0]
    through_zero = np.array([[0.3, 0.1, -0.05, -0.4]])  # a slope of ln |effect| would say little here
    assert not Fall.of(through_zero, data).shown
    assert Fall.of(through_zero, data).larger.all()
    falling = np.array([[0.3, 0.1, -0.05, 0.01], [-0.4, 0.2, 0.3, -0.1]])
    assert Fall.of(falling, data).shown
    assert not Fall.of(falling, data, np.full((2, 4), 0.2)).shown  # the first falls by less than it may be off
    assert not Fall.of(np.vstack([falling, through_zero]), data).shown
    dip = Fall.of(np.array([[0.2, 0.3, 0.4, 0.5, 0.1]]), [*data, 16.0])
    assert dip.smaller.all()
    assert not dip.shown  # by rank it does not


def losses_of(first, last):
    """Return losses by tokens whose warm-ups 1,000, 2,000 and 4,000 differ by `first` % with the least data."""
    steps = np.linspace(0, 1, 4)
    return {
        1e9 * 2**i: tuple(float(3.0 * (1 + (a + (b - a) * w) / 100)) for a, b in zip(first, last, strict=True))
        for i, w in enumerate(steps)
    }


def test_a_measured_fall_is_explained_only_where_the_short_warm_ups_leave_it_open():
    from paper_repro.opt_laws.reproduce import measured_row

    book = expected("opt_laws")
    every = measured_row(book, losses_of((0.0, 0.5, 1.5), (0.0, 0.1, 0.2)))
    assert (every.ours, every.ok) == (1.0, True)
    left_open = measured_row(book, losses_of((0.0, 0.08, 1.5), (0.0, 0.06, 0.1)))
    assert (left_open.ours, left_open.explained) == (0.0, True)
    grows = measured_row(book, losses_of((0.0, 0.02, 1.5), (0.0, 0.19, 0.1)))
    assert (grows.ok, grows.explained) == (False, False)
    assert measured_row(book, dict(list(losses_of((0, 0, 1), (0, 0, 0)).items())[:2])).ours is None


def test_warm_ups_are_compared_where_nothing_else_differs():
    from paper_repro.opt_laws.reproduce import SWEPT, warm_up_measured

    names, specs, loss, tokens, beta = [], [], [], [], []
    for d, apart in ((1e9, 0.03), (2e9, 0.01)):
        for i, warm in enumerate((*SWEPT, 1000)):
            names.append(f"{d:g}-{warm}-{'base' if warm == 2000 else 'warmup' if i < 3 else 'beta'}")
            specs.append(f"cosine:peak=1e-3,steps={int(d / 1e5)},warmup={warm}")
            loss.append(3.0 * (1 + (apart if warm == 4000 else 0.0)) if i < 3 else 2.0)  # the last has another beta1
            tokens.append(d)
            beta.append(0.9 if i < 3 else 0.95)
    runs = RunTable.build(specs, run_id=names, params=1e8, batch_tokens=1e5, beta1=beta, final_loss=loss)
    runs = replace(runs, extra={name: ("1",) * len(runs) for name in ("grad_clip", "eps")})
    found = warm_up_measured(runs)
    assert list(found) == [1e9, 2e9]
    assert found[1e9] == pytest.approx((3.0, 3.0, 3.09))
    assert found[2e9] == pytest.approx((3.0, 3.0, 3.03))
    lost = runs.select([name != "1e+09-4000-warmup" for name in names])
    assert list(warm_up_measured(lost)) == [2e9]
