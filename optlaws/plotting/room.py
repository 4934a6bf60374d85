"""Texts that need room: numbers beside points, labels of logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.text import Annotation

FloatArray = npt.NDArray[np.float64]

_NEAR, _AWAY = 5.0, 14.0  # points from a point to its text
_DOT = 3.5  # points about the middle of a point that no text covers
_SLACK = 0.2  # of the width and height of a text
_LETTER, _GAP = 0.62, 0.7  # width of a letter and the least gap between two labels, in font sizes


def beside_points(
    ax: Axes,
    places: Sequence[tuple[float, float]],
    texts: Sequence[Sequence[str]],
    free: FloatArray,
    fontsize: float = 7.5,
) -> list[Annotation]:
    """Write a text beside each point, inside the axes, where it covers no other text and no point.

    Parameters
    ----------
    ax : Axes
        Finished but for these texts: its limits and its legend stay as they are.
    places : sequence of n pairs
        The points, in the data's units.
    texts : sequence of n sequences
        For each point its texts, the best first: the next is taken where no side has room for one. Where there is none
        for the last, nothing is written.
    free : (m, 2) array
        Points that no text may cover, in the data's units; points not finite are passed over.
    fontsize : float
        In points.
    """
    figure: Any = ax.figure
    figure.draw_without_rendering()
    dot = _DOT * figure.dpi / 72.0
    middles = ax.transData.transform(free[np.isfinite(free).all(axis=1)])
    taken = [np.hstack([middles - dot, middles + dot])]
    legend = ax.get_legend()
    if legend is not None:
        taken.append(_box(legend)[None])
    frame = _box(ax)
    written: list[Annotation] = []
    for place, choices in zip(places, texts, strict=True):
        for text, (x, y) in ((text, side) for text in choices for side in _sides()):
            note = ax.annotate(
                text, place, (x, y), textcoords="offset points", fontsize=fontsize,
                ha="left" if x > 0 else "right" if x < 0 else "center",
                va="bottom" if y > 0 else "top" if y < 0 else "center",
            )  # fmt: skip
            box = _box(note)
            wide, high = _SLACK * (box[2:] - box[:2])  # letters are larger in a file of more dots an inch
            box += [-wide * (x <= 0), -high * (y <= 0), wide * (x >= 0), high * (y >= 0)]
            inside = (box[:2] >= frame[:2]).all() and (box[2:] <= frame[2:]).all()
            others = np.concatenate(taken)
            if inside and not ((box[:2] < others[:, 2:]) & (box[2:] > others[:, :2])).all(axis=1).any():
                taken.append(box[None])
                note.set_in_layout(False)
                written.append(note)
                break
            note.remove()
    return written


def _box(artist: Any) -> FloatArray:
    """Return left, bottom, right and top of what is drawn, in pixels."""
    return np.asarray(artist.get_window_extent().extents, dtype=np.float64)


def _sides() -> list[tuple[float, float]]:
    """Return offsets from a point to its text, the best first, in points."""
    near = [(x, y) for y in (0.8 * _NEAR, -0.8 * _NEAR) for x in (_NEAR, -_NEAR)]
    level = [(1.4 * _NEAR, 0.0), (-1.4 * _NEAR, 0.0), (0.0, 1.4 * _NEAR), (0.0, -1.4 * _NEAR)]
    return near + level + [(x, y) for y in (_AWAY, -_AWAY) for x in (_NEAR, -_NEAR)]


def step_labels(axis: Axis, text: Callable[[float], str]) -> None:
    """Label an axis at up to nine round whole numbers, or at fewer where labels would touch."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    class Apart(MaxNLocator):
        """Ticks whose labels do not touch at the length that the axis has when it is drawn."""

        def tick_values(self, vmin: float, vmax: float) -> Any:
            low, high = sorted((vmin, vmax))
            if not low < high:
                return super().tick_values(vmin, vmax)
            shown = np.zeros(0)
            for bins in range(8, 0, -1):
                self.set_params(nbins=bins)
                ticks = np.asarray(super().tick_values(vmin, vmax), dtype=np.float64)
                shown = ticks[(ticks >= low) & (ticks <= high)]
                if _apart(axis, shown, (shown - low) / (high - low), text):
                    break
            return shown

    axis.set_major_locator(Apart(integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))


def log_labels(axis: Axis, text: Callable[[float], str], finest: Sequence[float] = (1.0, 2.0, 5.0)) -> None:
    """Label a logarithmic axis at such multiples of powers of ten, or at fewer where labels would touch."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    class Apart(LogLocator):
        """Ticks whose labels do not touch at the length that the axis has when it is drawn."""

        def tick_values(self, vmin: float, vmax: float) -> Any:
            low, high = sorted((vmin, vmax))
            if not 0.0 < low < high < math.inf:
                return super().tick_values(vmin, vmax)
            ticks = np.zeros(0)
            for ticks in _log_ticks(low, high, finest):
                if _apart(axis, ticks, np.log(ticks / low) / math.log(high / low), text):
                    break
            return ticks

    axis.set_major_locator(Apart())
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_formatter(NullFormatter())


def _apart(axis: Axis, ticks: FloatArray, at: FloatArray, text: Callable[[float], str]) -> bool:
    """Return whether the labels of ticks, `at` which parts of the axis from 0 to 1, have a gap between them."""
    import matplotlib

    box, dpi, size = axis.axes.bbox, float(axis.axes.figure.dpi), float(matplotlib.rcParams["font.size"])
    across = axis is axis.axes.xaxis
    length = (box.width if across else box.height) * 72.0 / dpi
    half = 0.5 * size * np.array([_LETTER * len(text(float(tick))) if across else 1.0 for tick in ticks])
    return bool((np.diff(at * length) >= half[1:] + half[:-1] + _GAP * size).all())


def _log_ticks(low: float, high: float, finest: Sequence[float]) -> list[FloatArray]:
    """Return ticks from `low` to `high`, ever fewer."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ways = [(tuple(finest), 1), ((1.0, 3.0), 1), *(((1.0,), stride) for stride in range(1, last - first + 1))]
    out = []
    for multiples, stride in ways:
        # powers are counted from 1, so that it is labelled wherever it is on the axis
        powers = [10.0**power for power in range(first, last + 1) if power % stride == 0]
        ticks = np.array(sorted(factor * power for power in powers for factor in multiples))
        out.append(ticks[(ticks >= low * (1 - 1e-12)) & (ticks <= high * (1 + 1e-12))])
    return out
