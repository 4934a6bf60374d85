"""Figures: artists, axes, files, and no global state."""

import subprocess
import sys

import numpy as np
import pytest
from fake_law import FakeLaw

from optlaws import plotting
from optlaws.errors import InputError
from optlaws.ranking import rank
from optlaws.runs import gather_candidates
from optlaws.schedules import parse


def ranking_of(n):
    specs = [
        f"wsd:peak={1e-3 + 1e-5 * i},decay=0.2,warmup={100 + i}" if i % 2 else f"cosine:peak={1e-3 - 1e-5 * i}"
        for i in range(n)
    ]
    return rank(gather_candidates(specs, {}, FakeLaw().defaults).runs, FakeLaw())


def overlap(figure):
    """Pairs of texts on the figure that cover each other."""
    figure.canvas.draw()
    import matplotlib.text

    texts = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text().strip() and t.get_visible()]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts]
    return [
        (a, b)
        for i, (a, x) in enumerate(boxes)
        for b, y in boxes[i + 1 :]
        if x.shrunk(0.9, 0.8).overlaps(y.shrunk(0.9, 0.8))
    ]


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


def test_labels_leave_out_what_all_share():
    ranking = ranking_of(2)
    labels = plotting.short_labels(ranking, ranking.order)
    assert all("steps" not in label for label in labels)
    named = rank(ranking.runs, FakeLaw(), names=["mine", "x" * 200])
    labels = plotting.short_labels(named, np.arange(2))
    assert labels[0] == "mine"
    assert all(len(line) <= 50 for label in labels for line in label.split("\n"))


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


def test_pyplot_stays_out():
    code = (
        "import sys; from optlaws import plotting; from optlaws.schedules import parse\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plotting.png_bytes(plotting.plot_schedule(parse('cosine:peak=1e-3,steps=10'))[0].figure)\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
