"""Figures of schedules and of loss curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from optlaws.plotting.axes import (
    COLOURS,
    GREY,
    FloatArray,
    colour_of,
    dashes_of,
    drawn,
    new_axes,
    open_frame,
    thousands,
)
from optlaws.plotting.labels import places_text
from optlaws.schedules import Schedule

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_POINTS = 400  # points drawn of a schedule
FAR_PEAK = 8.0  # times the usual peak, from where on a schedule is left to run out of the axis


def schedule_points(
    schedule: Schedule, points: int = _POINTS
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return steps and rates that show a schedule: its kinks exactly and about `points` steps in between."""
    total = schedule.total_steps
    kinks = np.asarray(schedule.breakpoints, dtype=np.int64)
    single = [np.arange(phase.begin, phase.end) for phase in schedule.phases if phase.table is not None]
    steps = np.concatenate([np.linspace(0, total - 1, min(points, total)).astype(np.int64), kinks, kinks - 1, *single])
    steps = np.unique(np.clip(steps, 0, total - 1))
    rates = np.asarray(schedule.lr(steps), dtype=np.float64)
    if len(steps) > 4 * points:
        kept = _outline(steps, rates, 2 * points)
        steps, rates = steps[kept], rates[kept]
    return steps.astype(np.float64), rates


def _outline(steps: npt.NDArray[np.int64], rates: FloatArray, bins: int) -> npt.NDArray[np.intp]:
    """Return the indices of the lowest and the highest rate in each of `bins` equal stretches, and of both ends.

    A picture of them looks like one of all steps; every n-th step would show waves that are not there.
    """
    place = (steps - steps[0]) * bins // max(int(steps[-1] - steps[0]) + 1, 1)
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    kept = {0, len(steps) - 1}
    for begin, end in zip(starts.tolist(), [*starts[1:].tolist(), len(steps)], strict=True):
        kept |= {begin + int(np.argmin(rates[begin:end])), begin + int(np.argmax(rates[begin:end]))}
    return np.array(sorted(kept), dtype=np.intp)


def plot_schedule(schedule: Schedule, ax: Axes | None = None, **style: Any) -> list[Artist]:
    """Draw the learning rate of one schedule against its steps."""
    ax = new_axes(7.0, 3.2) if ax is None else ax
    steps, rates = schedule_points(schedule)
    artists = drawn(ax, steps, rates, **{"color": COLOURS[0], "linewidth": 1.8, **style})
    _schedule_axes(ax)
    return artists


def plot_schedules(
    schedules: Sequence[Schedule], ax: Axes | None = None, colours: Sequence[str] | None = None
) -> list[Artist]:
    """Draw several schedules, the first on top; those past the palette are grey.

    Equal ones have the dashes of the first of them, which covers the others. Those with a peak more than `FAR_PEAK`
    times the usual one and the first's, beside which the others would lie on the axis, run out of it at the top; its
    label names them by their places from 1.
    """
    ax = new_axes(7.0, 3.2) if ax is None else ax
    chosen = colours or [colour_of(place) for place in range(len(schedules))]
    artists: list[Artist] = []
    points = [schedule_points(schedule) for schedule in schedules]
    peaks = np.array([rates.max() for _, rates in points])
    first: dict[tuple[bytes, ...], int] = {}
    alike = [first.setdefault(tuple(values.tobytes() for values in pair), place) for place, pair in enumerate(points)]
    for place in reversed(range(len(schedules))):
        steps, rates = points[place]
        main = chosen[place] != GREY
        style: dict[str, Any] = {"linewidth": 1.9, "linestyle": dashes_of(alike[place])} if main else {"linewidth": 0.8}
        artists += drawn(ax, steps, rates, color=chosen[place], alpha=0.95 if main else 0.7, **style)
    _schedule_axes(ax)
    far = _far_peaks(peaks)
    if far.any():
        ax.set_ylim(0.0, 1.05 * float(peaks[~far].max()))
        said = " to ".join(f"{peak:g}" for peak in dict.fromkeys([peaks[far].min(), peaks[far].max()]))
        several = "s" * (int(far.sum()) > 1)
        ax.set_xlabel(
            f"step; beyond the axis: {places_text((np.flatnonzero(far) + 1).tolist())} (peak{several} {said})"
        )
    return artists[::-1]


def _far_peaks(peaks: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which peaks are so far above the lower median, and above the first, that those could not be seen."""
    if not len(peaks):
        return np.zeros(0, dtype=np.bool_)
    reach = FAR_PEAK * max(float(np.quantile(peaks, 0.5, method="lower")), float(peaks[0]))
    return np.asarray(peaks > reach, dtype=np.bool_)


def _schedule_axes(ax: Axes) -> None:
    ax.set_xlabel("step")
    ax.set_ylabel("learning rate")
    ax.set_ylim(bottom=0)
    ax.margins(x=0.01)
    ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    thousands(ax)
    open_frame(ax)


def plot_curve(
    steps: npt.ArrayLike,
    loss: npt.ArrayLike,
    lower: npt.ArrayLike | None = None,
    upper: npt.ArrayLike | None = None,
    ax: Axes | None = None,
    colour: str = COLOURS[0],
    label: str | None = None,
    observed: npt.ArrayLike | None = None,
    linestyle: Any = "-",
) -> list[Artist]:
    """Draw a predicted loss curve against its steps, with its 90 % band and the observed losses where given."""
    ax = new_axes() if ax is None else ax
    x = np.asarray(steps, dtype=np.float64)
    artists: list[Artist] = []
    if lower is not None and upper is not None:
        artists.append(ax.fill_between(x, np.asarray(lower), np.asarray(upper), color=colour, alpha=0.15, linewidth=0))
    style: dict[str, Any] = {"color": colour, "linewidth": 1.7, "linestyle": linestyle, "label": label}
    artists = [*drawn(ax, x, np.asarray(loss), **style), *artists]
    if observed is not None:
        artists += ax.plot(x, np.asarray(observed), ".", color="#4d4d4d", markersize=3, label="observed")
    ax.set_xlabel("step")
    ax.set_ylabel("predicted loss (nats per token)")
    thousands(ax)
    open_frame(ax)
    return artists


def zoom_late(ax: Axes, curves: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]], skip: float = 0.1) -> None:
    """Set the loss axis to where curves can be told apart.

    It reaches from the lowest loss to the first curve's loss after `skip` of its steps, or to the highest end of all.
    """
    first, low, high = -np.inf, np.inf, -np.inf
    for place, (steps, loss) in enumerate(curves):
        x, y = np.asarray(steps, dtype=np.float64), np.asarray(loss, dtype=np.float64)
        if place == 0:
            first = float(y[x >= skip * x[-1]].max())
        low, high = min(low, float(y.min())), max(high, float(y[-1]))
    high = max(first, high)
    if np.isfinite(low) and np.isfinite(high) and high > low:
        pad = 0.06 * (high - low)
        ax.set_ylim(low - pad, high + pad)
