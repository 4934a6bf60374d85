"""What a comparison says in words: ahead, behind, not told apart."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from optlaws.compare import Comparison, Difference, Row, SplitResult, verdict


def row(law, kind, error, difference=None, runs=8):
    return Row(law, kind, runs, 1, error, 2 * error, np.nan, np.nan, 0, np.nan, np.nan, 0.1, difference, None, "")


def comparison(*rows, folds=("params > 1", "params > 2")):
    best = min(rows, key=lambda one: one.error)
    rows = tuple(replace(one, best=("error",)) if one is best else one for one in rows)
    rows = tuple(sorted(rows, key=lambda one: one.error))
    return Comparison(20, 0, 0, (SplitResult("size", folds, 8, 0, rows),), {}, {}, {})


class TestVerdict:
    def test_behind_is_said(self):
        text = verdict(
            comparison(row("optlaws", "ours", 0.5), row("kaplan", "rival", 0.3, Difference(-0.2, -0.3, -0.1)))
        )
        assert "Lowest mean error on 1 of 1 split: kaplan; optlaws on 0." in text
        assert "behind on size (0.5 %, kaplan 0.3 %: 0.2 ± 0.1)" in text

    def test_one_fit_of_each_tells_nothing_apart(self):
        rows = row("optlaws", "ours", 0.3), row("kaplan", "rival", 0.5, Difference(0.2, 0.1, 0.3))
        assert "ahead on size (" in verdict(comparison(*rows))
        text = verdict(comparison(*rows, folds=("params > 1",)))
        assert (
            "ahead, but by one fit of each law to one part of the runs, which could have come out otherwise, on size ("
            in text
        )

    def test_behind_one_of_many_is_a_matter_of_luck(self):
        near = Difference(-0.2, -0.395, -0.005)
        near.spreads = ((0.195 / stats.t(6).ppf(0.95), 6.0),)
        rows = row("optlaws", "ours", 0.5), row("kaplan", "rival", 0.3, near)
        more = [row(f"rival{i}", "rival", 0.6, Difference(0.1, -0.1, 0.3)) for i in range(4)]
        assert "behind on size" in verdict(comparison(*rows))
        text = verdict(comparison(*rows, *more))
        assert (
            "not told apart on size (0.5 %, kaplan 0.3 %: 0.2 ± 0.2, which the best of 5 rivals may be lower by luck)"
            in text
        )
        part = row("kaplan", "rival", 0.3, near, runs=4)
        assert "that they predict, ahead of optlaws" in verdict(comparison(rows[0], part))
        text = verdict(comparison(rows[0], part, *more))
        assert "ahead of optlaws" not in text
        assert (
            "On the part of the runs that they predict, lower than, but not told apart from, optlaws in mean error:"
            " kaplan (size, by 0.2 ± 0.2)." in text
        )

    @pytest.mark.parametrize("spread", [Difference(0.2, -0.1, 0.5), Difference(0.2, np.nan, np.nan)])
    def test_nothing_within_the_spread_is_claimed(self, spread):
        text = verdict(comparison(row("optlaws", "ours", 0.3), row("kaplan", "rival", 0.5, spread)))
        assert "not told apart on size (0.3 %, kaplan 0.5 %)" in text
        assert "ahead" not in text

    def test_a_rival_of_some_runs_is_not_hidden(self):
        part = row("multi_power", "rival", 0.1, Difference(-0.2, -0.25, -0.15), runs=4)
        text = verdict(
            comparison(row("optlaws", "ours", 0.3), part, row("kaplan", "rival", 0.5, Difference(0.2, 0.1, 0.3)))
        )
        assert "ahead on size (0.3 %, kaplan 0.5 %" in text
        assert "On the part of the runs that they predict, ahead of optlaws in mean error: multi_power (size" in text

    def test_a_line_below_every_law_is_said(self):
        line = row("nearest run", "reference", 0.1, Difference(-0.2, -0.3, -0.1))
        text = verdict(comparison(row("optlaws", "ours", 0.3), row("kaplan", "rival", 0.5), line))
        assert "No law has a lower error than a simple line: nearest run (size, 0.1 %)" in text
