"""The figure of a validation: sizes told apart, axes about the held-out runs."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb

from optlaws.commands.validation_report import SIZES_SHOWN, curves_figure, losses_figure
from optlaws.runs import RunTable


def verdict(sizes, fitted=(2.0, 3.05, 9.0), half=0.02, held=(3.0, 3.1), ids=None):
    """Runs of one size fitted, with those losses, and one run of every size held out."""
    losses = np.concatenate([fitted, np.linspace(*held, len(sizes))])
    params = np.concatenate([np.full(len(fitted), 1e6), sizes])
    runs = RunTable.build(
        ["cosine:peak=1e-3,steps=100"] * len(losses),
        params=params,
        final_loss=losses,
        **({"run_id": ids} if ids else {}),
    )
    small = np.arange(len(losses)) < len(fitted)
    return SimpleNamespace(
        runs=runs, fitted=small, scored=~small, diverged=np.zeros(len(losses), dtype=bool), predicted=losses + 0.001,
        lower=losses + 0.001 - half, upper=losses + 0.001 + half, law=SimpleNamespace(name="law"), curves=(),
    )  # fmt: skip


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("n", [1, 3, 8, 9, 14, 40])
def test_every_size_held_out_has_a_row_and_a_shade_that_darkens(n):
    sizes = np.geomspace(2e6, 2e9, n)
    ax = losses_figure(verdict(sizes)).axes[0]
    texts = legend(ax)[1:]
    assert len(texts) == len(set(texts)) == min(n, SIZES_SHOWN)
    assert texts[0].startswith("held out, 2M")
    assert n == 1 or "2B parameters" in texts[-1]
    assert any(" to " in text for text in texts) == (n > SIZES_SHOWN)
    shades = [to_rgb(bars[0].get_color()) for bars in ax.containers]
    grey = [np.dot(shade, (0.299, 0.587, 0.114)) for shade in shades]
    assert (np.diff(grey) < -0.02).all()
    assert sum(len(bars[0].get_xdata()) for bars in ax.containers) == n


def test_the_axes_are_about_the_held_out_runs():
    ax = losses_figure(verdict([2e6, 3e6])).axes[0]
    low, high = ax.get_xlim()
    assert (low, high) == ax.get_ylim()
    assert 2.9 < low < 3.0  # room for the interval
    assert 3.12 < high < 3.2
    assert legend(ax)[0] == "fitted (2 more beyond the axes)"
    assert legend(losses_figure(verdict([2e6], fitted=(3.0,))).axes[0])[0] == "fitted"


@pytest.mark.parametrize("half", [0.0, 0.5, np.inf])
def test_intervals_of_any_width_leave_axes(half):
    low, high = losses_figure(verdict([2e6], half=half, held=(3.0, 3.0))).axes[0].get_xlim()
    assert low < 3.0 < high
    assert high - low < 1.2


def test_both_axes_have_their_unit():
    ax = losses_figure(verdict([2e6])).axes[0]
    assert "(nats per token)" in ax.get_xlabel()
    assert "(nats per token)" in ax.get_ylabel()
    assert ax.findobj(LineCollection)


def test_curves_of_long_names_have_titles_that_differ():
    ids = ["a", *(f"{'run-with-a-long-name-' * 4}{i}" for i in range(3))]
    one = verdict([2e6, 3e6, 4e6], fitted=(2.0,), ids=ids)
    curve = np.array([3.0, 2.9])
    one.curves = [(i, np.array([1.0, 2.0]), curve, curve, curve, curve) for i in (1, 2, 3)]
    titles = [ax.get_title().split("\n")[0] for ax in curves_figure(one).axes if ax.get_visible()]
    assert [title[-1] for title in titles] == ["0", "1", "2"]
