"""Figures: artists, axes, files, and no global state."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from fake_law import FakeLaw, FixedLaw
from figures import legend_texts, overlap, ranking_of

from optlaws import load_law, plotting
from optlaws._advice import percent
from optlaws.errors import InputError
from optlaws.ranking import rank
from optlaws.risk.changes import RiskMap
from optlaws.runs import RunTable, gather_candidates
from optlaws.schedules import from_array, parse


@pytest.mark.parametrize("n", [1, 2, 10, 40])
@pytest.mark.parametrize("curves", [False, True])
def test_rank_figure(n, curves, tmp_path):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    ranking = ranking_of(n)
    steps = np.linspace(1, 50000, 50)
    curve = {"step": steps, "loss": 3 + steps**-0.3, "lower": 2.9 + steps**-0.3, "upper": 3.1 + steps**-0.3}
    figure = plotting.rank_figure(ranking, dict.fromkeys(range(n), curve) if curves else None)
    assert len(figure.axes) == 2 + curves
    FigureCanvasAgg(figure)
    assert overlap(figure) == []
    plotting.save_figure(figure, tmp_path / "r.png")
    assert (tmp_path / "r.png").stat().st_size > 10_000


def test_artists_are_returned_and_axes_used():
    axes = plotting.new_axes()
    schedule = parse("wsd:peak=1e-3,steps=1000,decay=0.2,warmup=10")
    artists = plotting.plot_schedule(schedule, axes)
    assert artists[0] in axes.lines
    assert plotting.plot_schedule(schedule)[0].axes is not axes
    assert len(plotting.plot_schedules([schedule] * 12)) == 12
    lines = plotting.plot_curve([1, 2], [3, 2], [2, 1], [4, 3], axes, observed=[3, 2])
    assert len(lines) == 3
    assert plotting.plot_ranking(ranking_of(3), plotting.new_axes())


def test_schedules_are_drawn_with_their_kinks():
    schedule = parse("wsd:peak=1e-3,steps=1000000,decay=0.2,warmup=17")
    steps, rates = plotting.schedule_points(schedule)
    assert {0, 17, 800_000, 799_999, 999_999} <= set(steps)
    np.testing.assert_array_equal(rates, schedule.lr(steps))
    assert len(steps) < 500
    assert plotting.schedule_points(parse("cosine:peak=1e-3,steps=1"))[0].tolist() == [0]


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_formats(tmp_path, suffix):
    path = tmp_path / f"s.{suffix}"
    plotting.save_figure(plotting.plot_schedule(parse("cosine:peak=1e-3,steps=10"))[0].figure, path)
    assert path.stat().st_size > 1000


def test_unknown_format(tmp_path):
    with pytest.raises(InputError, match="did you mean 'png'"):
        plotting.check_suffix("x.pngg")
    with pytest.raises(InputError, match="got 'none'"):
        plotting.check_suffix("x")


@pytest.mark.parametrize("suffix", ["eps", "ps", "gif", "tiff", "x"])
def test_another_format_gets_the_list_and_no_wrong_guess(suffix):
    with pytest.raises(InputError, match=r"must be one of png, pdf, svg, .* got") as caught:
        plotting.check_suffix(f"x.{suffix}")
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("suffix", plotting.FORMATS)
def test_the_same_figure_is_the_same_bytes(tmp_path, suffix, monkeypatch):
    for place, name in enumerate("ab"):
        monkeypatch.setattr("time.time", lambda now=1e9 * (place + 1): now)
        plotting.save_figure(plotting.rank_figure(ranking_of(4)), tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_a_pdf_has_letters_and_no_type_3_fonts(tmp_path):
    plotting.save_figure(plotting.rank_figure(ranking_of(4)), tmp_path / "r.pdf")
    written = (tmp_path / "r.pdf").read_bytes()
    assert b"/Type3" not in written
    assert b"/CIDFontType2" in written
    assert b"CreationDate" not in written


def test_pyplot_stays_out():
    code = (
        "import sys; from optlaws import plotting; from optlaws.schedules import parse\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plotting.png_bytes(plotting.plot_schedule(parse('cosine:peak=1e-3,steps=10'))[0].figure)\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_ranking_on_axes_of_ones_own_stays_inside_them():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ranking = ranking_of(3)
    figure = Figure(figsize=(8, 3))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    plotting.plot_ranking(ranking, left)
    figure.draw_without_rendering()
    assert left.get_tightbbox().x1 < right.bbox.x0
    chances = [percent(float(ranking.p_best[row])) for row in ranking.order]
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert all(label.endswith(f", P(best) {odd}") for label, odd in zip(labels, chances, strict=True))
    assert len(left.texts) == 0
    # where a layout makes room, it stands beside the axes
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    plotting.plot_ranking(ranking, left)
    figure.draw_without_rendering()
    assert [text.get_text() for text in left.texts] == [*chances, "P(best)"]
    assert max(text.get_window_extent().x1 for text in left.texts) < right.bbox.x0


@pytest.mark.parametrize("name", ["a$b", r"$\foo{$ x", "$x^2$", "two\nlines"])
def test_names_are_shown_as_they_are(name, tmp_path):
    ranking = rank(ranking_of(2).runs, FakeLaw(), names=[name, "b"])
    figure = plotting.rank_figure(ranking)
    figure.suptitle(plotting.wrapped(name, 80))
    plotting.save_figure(figure, tmp_path / "r.png")  # a formula that is none would raise
    shown = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert shown[int(np.flatnonzero(ranking.order == 0)[0])].endswith(plotting.plain_text(name))


@pytest.mark.parametrize("whole", [True, False])
def test_nothing_beside_a_ranking_touches_the_edge(whole):
    ranking = ranking_of(2)
    ranking = replace(ranking, p_best=np.array([0.999, 0.001]))
    figure = plotting.rank_figure(ranking) if whole else plotting.plot_ranking(ranking)[0].figure
    figure.draw_without_rendering()
    axes = figure.axes[-1]
    right = max(text.get_window_extent().x1 for text in axes.texts)
    left = min(label.get_window_extent().x0 for label in axes.get_yticklabels())
    assert "> 99 %" in [text.get_text() for text in axes.texts]
    assert right <= figure.bbox.x1 - 0.1 * figure.dpi
    assert left >= 0.1 * figure.dpi


def test_waves_faster_than_the_points_keep_their_height():
    """Every n-th step of a fast wave would show a slow one that is not there."""
    for text in ("cyclic:peak=1e-3,steps=20000,period=10", "cyclic:peak=1e-3,steps=39990,period=10"):
        schedule = parse(text)
        for one in (schedule, from_array(schedule.array())):
            steps, rates = plotting.schedule_points(one)
            assert len(steps) < 2000
            np.testing.assert_array_equal(rates, one.lr(steps))
            assert (steps[0], steps[-1]) == (0, one.total_steps - 1)
            for part in np.array_split(np.arange(len(steps)), 20):
                assert (rates[part].min(), rates[part].max()) == (0.0, 1e-3)


def test_a_spike_of_one_step_is_drawn():
    rates = np.full(100_000, 1e-3)
    rates[54_321] = 7e-3
    steps, drawn = plotting.schedule_points(from_array(rates))
    assert steps[np.argmax(drawn)] == 54_321


def test_a_single_step_can_be_seen():
    line = plotting.plot_schedule(parse("constant:peak=1e-3,steps=1"))[0]
    assert line.get_marker() == "o"
    labels = [line.axes.xaxis.get_major_formatter()(tick) for tick in line.axes.get_xticks()]
    assert len(set(labels)) == len(labels)
    assert plotting.plot_curve([1], [3.0])[0].get_marker() == "o"


def test_labels_of_long_runs_are_short():
    ax = plotting.plot_schedule(parse("cosine:peak=1e-3,steps=1000000000000"))[0].axes
    assert max(len(ax.xaxis.get_major_formatter()(tick)) for tick in ax.get_xticks()) <= 6
    ax = plotting.plot_schedule(parse("cosine:peak=1e-3,steps=50000"))[0].axes
    assert "10,000" in [ax.xaxis.get_major_formatter()(tick) for tick in (10_000.0,)]


def test_curves_end_inside_the_figure():
    ranking = ranking_of(1)
    curve = {"step": [1.0, 4.0], "loss": [4.0, 3.0], "lower": [3.9, 2.9], "upper": [4.1, 3.1]}
    short = rank(gather_candidates(["cosine:peak=1e-3,steps=4"], {}, FakeLaw().defaults).runs, FakeLaw())
    figure = plotting.rank_figure(short, {0: curve})
    assert figure.axes[1].get_xlim()[1] > 4
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    # with a single candidate the table says nothing of P(best), and so does the figure
    texts = [text.get_text() for text in plotting.plot_ranking(ranking)[0].axes.texts]
    assert texts == []


def test_one_absurd_candidate_leaves_the_others_readable():
    losses = [3.0, 3.01, 3.02, 3.03, 4e5]
    runs = RunTable.build([f"cosine:peak={n}e-4,steps=100" for n in range(1, 6)], params=1e8)
    ranking = rank(runs, FixedLaw(losses, np.diag([1e-4] * 4 + [1e9])))
    ax = plotting.plot_ranking(ranking)[0].axes
    assert 3.03 < ax.get_xlim()[1] < 3.2
    texts = [text.get_text() for text in ax.texts]
    assert sum(text.endswith("\N{RIGHTWARDS ARROW}") for text in texts) == 1
    assert any(text.startswith("4e+05 ") for text in texts)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    curves = {
        row: {"step": [1.0, 100.0], "loss": [9.0, end], "lower": [8, 2], "upper": [9, 5]}
        for row, end in enumerate(losses)
    }
    figure = plotting.rank_figure(ranking, curves)
    FigureCanvasAgg(figure)
    assert overlap(figure) == []
    assert figure.axes[1].get_ylim()[1] < 10
    # two candidates far apart are both drawn: there is nothing that they would squeeze
    pair = rank(runs.select([0, 1]), FixedLaw([3.0, 9.0], np.diag([1e-4, 1e-4])))
    assert plotting.plot_ranking(pair)[0].axes.get_xlim()[1] > 9


def test_differences_are_not_hidden_by_the_intervals_of_losses():
    runs = RunTable.build([f"{kind}:peak=1e-3,steps=20000,warmup=300" for kind in ("cosine", "linear")], params=85e6)
    law = load_law("llama-slimpajama")
    for there, beyond in ((law, False), (law.on_other_corpus(), True)):
        ranking = rank(runs, there)
        ax = plotting.new_axes()
        plotting.plot_ranking(ranking, ax)
        low, high = ax.get_xlim()
        row = ranking.order[1]
        best = ranking.loss[ranking.best]
        assert low < best + ranking.difference_lower[row] < best + ranking.difference_upper[row] < high
        assert (ranking.upper[row] > high) == beyond
        assert ("beyond the axis" in ax.get_xlabel()) == beyond


@pytest.mark.parametrize(("n", "last"), [(2, "2"), (8, "8"), (9, "9"), (12, "9 to 12"), (40, "9 to 20")])
def test_the_schedules_of_a_ranking_are_numbered_as_below(n, last):
    ax = plotting.rank_figure(ranking_of(n)).axes[0]
    texts = legend_texts(ax)
    assert texts == [*map(str, range(1, min(n, 9))), last]
    colours = [line.get_color() for line in ax.get_legend().get_lines()]
    assert colours == [plotting.colour_of(place) for place in range(len(texts))]


def test_lines_differ_without_their_colours():
    ax = plotting.rank_figure(ranking_of(8)).axes[0]
    drawn = {(str(line._dash_pattern), line.get_linewidth()) for line in ax.lines}
    named = {(str(line._dash_pattern), line.get_linewidth()) for line in ax.get_legend().get_lines()}
    assert len(named) == 8
    assert drawn == named
    curve = {"step": [1.0, 4.0], "loss": [4.0, 3.0], "lower": [3.9, 2.9], "upper": [4.1, 3.1]}
    figure = plotting.rank_figure(ranking_of(8), dict.fromkeys(range(8), curve))
    of_curves = {line.get_color(): line.get_linestyle() for line in figure.axes[1].lines}
    assert of_curves == {line.get_color(): line.get_linestyle() for line in ax.lines}
    assert len({plotting.dashes_of(place) for place in range(8)}) == 8


def test_equal_schedules_stand_at_one_line_of_the_legend():
    texts = ["cosine:peak=1e-3,steps=50", "linear:peak=1e-3,steps=50"]
    runs = RunTable.build([texts[i] for i in (0, 1, 0, 0, 1, *[0] * 5)], params=1e8)
    ranking = rank(runs, FixedLaw(np.arange(10.0) / 100 + 3, np.diag([1e-4] * 10)))
    ax = plotting.rank_figure(ranking).axes[0]
    assert legend_texts(ax) == ["1, 3, 4, 6 to 10", "2, 5"]
    shown = {line.get_color(): line for line in ax.lines}
    assert shown[plotting.colour_of(2)].get_linestyle() == shown[plotting.colour_of(0)].get_linestyle()


@pytest.mark.parametrize(
    ("peaks", "top", "said"),
    [
        ([1e-3, 1e-3, 5.0], 1e-3, "3 (peak 5)"),
        ([1e-3, 1e-5, 3e-2, 2e-3, 0.5, 1e-3], 2e-3, "3, 5 (peaks 0.03 to 0.5)"),
        ([1e-3, 5.0], 1e-3, "2 (peak 5)"),
        ([5.0, 1e-3, 1e-3], 5.0, None),  # the first is the best: all of it is seen
        ([1e-4, 3e-4, 1e-3, 3e-3], 1e-3, "4 (peak 0.003)"),
        ([1e-3, 2e-3, 4e-3], 4e-3, None),
    ],
)
def test_a_far_peak_leaves_the_other_schedules_readable(peaks, top, said):
    schedules = [from_array(np.full(5, peak)) for peak in peaks]
    ax = plotting.plot_schedules(schedules)[0].axes
    assert ax.get_ylim() == pytest.approx((0.0, 1.05 * top), rel=0.1, abs=0.0)
    assert ax.get_xlabel() == ("step" if said is None else f"step; beyond the axis: {said}")


def test_a_single_schedule_has_no_number():
    assert plotting.rank_figure(ranking_of(1)).axes[0].get_legend() is None


def test_the_bands_of_the_legend_have_the_colours_of_the_bands():
    legend = plotting.plot_ranking(ranking_of(4))[0].axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["loss, 90 %", "difference to 1, 90 %"]
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    shown = [patch.get_facecolor()[:3] for patch in legend.findobj(Rectangle)]
    assert shown == [to_rgb(colour) for colour in plotting.COLOURS[1:4]]


class TestRiskMap:
    def drawn(self, others=(), apart=0, here=(1e-3, 100.0)):
        axis = np.geomspace(1e-4, 1e-2, 5)
        risk = RiskMap("warmup_steps", axis, axis * 1e5, np.tile(np.linspace(0, 1, 5), (5, 1)))
        artists = plotting.plot_risk_map(risk, 0.05, here, others, apart=apart)
        return artists[0].axes

    def test_the_legend_names_what_is_drawn_and_counts_what_is_not(self):
        assert legend_texts(self.drawn()) == ["the first run"]
        ax = self.drawn([(1e-3, 100.0), (2e-3, 200.0), (1.0, 100.0)], apart=2)
        assert legend_texts(ax) == [
            "the first run",
            "others, alike but for these axes",
            "not drawn: 2 unlike in other settings, 1 beyond the axes",
        ]
        assert legend_texts(self.drawn(apart=1))[1:] == ["not drawn: 1 unlike in other settings"]
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        FigureCanvasAgg(ax.figure)
        assert overlap(ax.figure) == []

    def test_a_run_without_warm_up_is_marked_at_the_foot_and_the_mark_is_explained(self):
        ax = self.drawn([(2e-3, 0.0), (3e-3, 50.0), (1.0, 0.0)], here=(1e-3, 0.0))
        assert legend_texts(ax) == ["the first run", "others, alike but for these axes", "not drawn: 1 beyond the axes"]
        marks = [(line.get_label(), *line.get_data()) for line in ax.lines]
        foot = 10.0
        assert [(label, list(x), list(y)) for label, x, y in marks] == [
            ("the first run", [1e-3], [foot]),
            ("others, alike but for these axes", [3e-3], [50.0]),
            ("others, alike but for these axes", [2e-3], [foot]),
        ]
        shapes = [line.get_marker() for line in ax.lines]
        assert shapes[0] == shapes[2] != shapes[1]
        assert ax.texts[-1].get_text().endswith(", triangle: no warm-up")
        assert "triangle" not in self.drawn().texts[-1].get_text()

    @pytest.mark.parametrize("reach", [8.0, 80.0, 500.0, 3000.0, 16000.0])
    @pytest.mark.parametrize("peak", [1e-7, 1e-3, 0.5, 5.0])
    def test_labels_of_wide_maps_do_not_touch_and_start_at_one_step(self, reach, peak):
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        axis = np.geomspace(1 / reach, reach, 21)
        risk = RiskMap("warmup_steps", peak * axis, 300 * axis, np.tile(np.linspace(0, 1, 21), (21, 1)))
        ax = plotting.plot_risk_map(risk, 0.05, (peak, 300.0))[0].axes
        FigureCanvasAgg(ax.figure)
        assert overlap(ax.figure) == []
        assert ax.get_ylim()[0] > 0.5
