"""Texts in figures: labels that differ, fit and cover nothing."""

import itertools
import textwrap

import numpy as np
import pytest
from fake_law import FakeLaw
from figures import overlap, ranking_of

from optlaws import plotting
from optlaws.errors import OptlawsWarning
from optlaws.ranking import rank
from optlaws.runs import RunTable
from optlaws.schedules import parse


def test_labels_leave_out_what_all_share():
    ranking = ranking_of(2)
    labels = plotting.short_labels(ranking, ranking.order)
    assert all("steps" not in label for label in labels)
    named = rank(ranking.runs, FakeLaw(), names=["mine", "x" * 200])
    labels = plotting.short_labels(named, np.arange(2))
    assert labels[0] == "mine"
    assert all(len(line) <= 50 for label in labels for line in label.split("\n"))


@pytest.mark.parametrize(
    "names",
    [
        [f"pretrain-cfg-v7-{'long-' * 20}warmup{n}00-trial{n}" for n in range(6)],
        [f"{'x' * 150}{a}{'y' * 150}{b}" for a in "PQ" for b in "123"],
        ["x" * 200, "x" * 201, "x" * 200 + " y", "mine"],
        ["".join(parts) for parts in itertools.product(*[("a" * 30 + "1", "a" * 30 + "2")] * 4)],
        [f"run {i} of {'many ' * 30}" for i in range(20)],
    ],
)
@pytest.mark.parametrize(("width", "lines"), [(48, 2), (44, 1)])
def test_different_names_have_different_labels(names, width, lines):
    labels = plotting.told_apart([*names, names[0]], width, lines)
    assert len(set(labels)) == len(names)
    assert labels[0] == labels[-1]
    assert max(len(line) for label in labels for line in label.split("\n")) <= width
    assert max(label.count("\n") for label in labels) < lines
    assert all(label[0] == name[0] for label, name in zip(labels, names, strict=False))


def test_labels_that_differ_anyway_are_as_ever():
    names = ["short", "a " + "very " * 40 + "long one"]
    assert plotting.told_apart(names, 48) == [plotting.wrapped(name, 48) for name in names]


def test_what_sets_runs_apart_stands_in_their_labels():
    spec = "cosine:peak=1e-3,steps=1000"
    runs = RunTable.build([spec] * 3, params=[1e8, 2e8, 3e8], batch_tokens=1000, weight_decay=[0.1, 0.1, np.nan])
    ranking = rank(runs, FakeLaw(), names=["a", "b $x$", "c" * 100])
    labels = plotting.short_labels(ranking, np.arange(3))
    assert labels[:2] == ["a\n(params 100M, decay 0.1)", "b \\$x\\$\n(params 200M, decay 0.1)"]
    assert labels[2].endswith(" …\n(params 300M, decay -)")
    short = rank(runs.select([0, 1]), FakeLaw(), names=["a", "b"])
    assert plotting.short_labels(short, np.arange(2)) == ["a  (params 100M)", "b  (params 200M)"]
    several = rank(RunTable.build([spec] * 2, params=1e8, batch_tokens=1000, optimizer=["adamw", None]), FakeLaw())
    assert [label.partition("  ")[2] for label in plotting.short_labels(several, np.arange(2))] == [
        "(optimizer adamw)",
        "(optimizer -)",
    ]


class TestCharactersWithoutAShape:
    def ranked(self, name):
        return plotting.rank_figure(rank(ranking_of(2).runs, FakeLaw(), names=[name, "b"]))

    @pytest.fixture(autouse=True)
    def fonts_of_matplotlib_alone(self, monkeypatch):
        from matplotlib.font_manager import fontManager

        own = [font for font in fontManager.ttflist if font.name in ("DejaVu Sans", "STIXGeneral")]
        monkeypatch.setattr(fontManager, "ttflist", own)

    def test_those_that_no_font_has_are_told_once_for_a_figure(self, tmp_path):
        figure = self.ranked("日本 語")
        with pytest.warns(OptlawsWarning, match="no font of this machine has '日本語'") as caught:
            plotting.save_figure(figure, tmp_path / "a.png")
        assert len(caught) == 1
        plotting.png_bytes(figure)  # a second warning would be an error
        with pytest.warns(OptlawsWarning, match="'.{12}\\.\\.\\.'"):
            plotting.png_bytes(self.ranked("".join(map(chr, range(0x4E00, 0x4E00 + 30)))))

    def test_another_font_that_has_them_draws_them(self):
        sign = "\N{APL FUNCTIONAL SYMBOL I-BEAM}"  # in STIX, not in DejaVu Sans
        figure = self.ranked(f"a {sign}")
        plotting.png_bytes(figure)  # a warning would be an error
        assert all(label.get_fontfamily()[-1] == "STIXGeneral" for label in figure.axes[1].get_yticklabels())

    @pytest.mark.parametrize("name", ["plain", "é\tü → ≤", "a\u00a0b"])
    def test_usual_names_keep_their_font(self, name):
        figure = self.ranked(name)
        before = figure.axes[1].get_yticklabels()[0].get_fontfamily()
        plotting.png_bytes(figure)
        assert figure.axes[1].get_yticklabels()[0].get_fontfamily() == before


@pytest.mark.parametrize("width", [30, 47, 60, 80, 110])
def test_lines_of_a_title_are_even(width):
    """No word alone in the last line, no number apart from its unit, nothing lost."""
    title = (
        "Law llama-slimpajama on another corpus, 85M parameters, 2.56B tokens, 51.2K tokens a step, weight decay 0.05"
    )
    lines = plotting.wrapped(title, width, 5).split("\n")
    assert " ".join(lines) == title
    assert len(lines) == len(textwrap.wrap(title, width))
    assert max(map(len, lines)) <= width
    assert min(map(len, lines)) > 0.5 * max(map(len, lines))
    if width >= 60:
        assert all(line.endswith(",") for line in lines[:-1])


def test_words_are_broken_only_where_they_must_be():
    assert plotting.wrapped("one two three four", 10).split("\n") == ["one two", "three four"]
    assert plotting.wrapped("y" * 15, 10).split("\n") == ["y" * 10, "y" * 5]
    assert plotting.wrapped("short", 10) == "short"


def test_long_texts_are_cut():
    text = "piecewise:points=" + "/".join(f"{i}:0.001" for i in range(100))
    lines = plotting.wrapped(text, 60).split("\n")
    assert len(lines) == 2
    assert max(map(len, lines)) <= 60
    assert lines[1].endswith(" …")


@pytest.mark.parametrize("steps", [1, 7, 950, 50_000, 9_999_999, 10**9])
@pytest.mark.parametrize("width", [1.6, 3.0, 7.0])
def test_labels_of_steps_do_not_touch(steps, width):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    ax = plotting.plot_schedule(parse(f"cosine:peak=1e-3,steps={steps}"), plotting.new_axes(width, 2.0))[0].axes
    FigureCanvasAgg(ax.figure)
    assert [pair for pair in overlap(ax.figure) if "step" not in pair] == []
    low, high = ax.get_xlim()
    assert any(low <= tick <= high for tick in ax.get_xticks())


@pytest.mark.parametrize("n", [1, 12, 40, 150])
def test_texts_beside_points_cover_nothing(n):
    rng = np.random.default_rng(n)
    points = 10 ** rng.uniform(0, 2, (n, 2))
    ax = plotting.new_axes(4.5, 3.8)
    ax.plot(*points.T, "o", label="points")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.legend(loc="upper left")
    ends = (ax.get_xlim(), ax.get_ylim())
    texts = [[f"{i}, {i + 1}, {i + 2}", f"{i}"] for i in range(n)]
    notes = plotting.beside_points(ax, [tuple(point) for point in points], texts, np.vstack([points, [np.nan, 1.0]]))
    assert len(notes) == n if n < 20 else len(notes) > 15
    for dpi in (100, 150):
        ax.figure.set_dpi(dpi)
        ax.figure.draw_without_rendering()
        boxes = np.array([note.get_window_extent().extents for note in notes])
        dots = ax.transData.transform(points)
        boxes = np.vstack([boxes, ax.get_legend().get_window_extent().extents, np.hstack([dots - 2, dots + 2])])
        apart = (boxes[:, None, :2] >= boxes[None, :, 2:]).any(axis=2)
        apart |= apart.T
        np.fill_diagonal(apart, True)
        assert apart[: len(notes)].all()
        frame = ax.get_window_extent().extents
        assert (boxes[: len(notes), :2] >= frame[:2]).all()
        assert (boxes[: len(notes), 2:] <= frame[2:]).all()
    assert (ax.get_xlim(), ax.get_ylim()) == ends


@pytest.mark.parametrize("decades", [0.4, 0.9, 1.2, 1.8, 2.6, 4.0, 7.0, 15.0, 60.0])
@pytest.mark.parametrize("low", [1e-7, 3.1e-3, 2.0])
def test_labels_of_a_logarithmic_axis_do_not_touch(decades, low):
    ax = plotting.new_axes(4.0, 3.0)
    for axis, scale in ((ax.xaxis, ax.set_xscale), (ax.yaxis, ax.set_yscale)):
        scale("log")
        plotting.log_labels(axis, lambda value: f"{value:g}")
    ax.set_xlim(low, low * 10**decades)
    ax.set_ylim(low, low * 10**decades)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(ax.figure)
    assert overlap(ax.figure) == []
    for axis in (ax.xaxis, ax.yaxis):
        shown = [tick for tick in axis.get_majorticklocs() if low <= tick <= low * 10**decades]
        assert 1 <= len(shown) <= 15
        assert decades < 1 or len(shown) > 1
