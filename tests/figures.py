"""What tests of figures share."""

from fake_law import FakeLaw

from optlaws.ranking import rank
from optlaws.runs import gather_candidates


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


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]
