"""Figures of rankings: schedules, predicted curves, losses with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from optlaws._advice import number_text, percent
from optlaws.plotting.axes import ALERT, COLOURS, THIN, colour_of, dashes_of, new_axes, open_frame, plain_text, wrapped
from optlaws.plotting.curves import plot_curve, plot_schedules, zoom_late
from optlaws.plotting.labels import places_text, told_apart
from optlaws.ranking import Ranking
from optlaws.report import differing, rank_header, schedule_text
from optlaws.schedules import ScheduleBatch

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 20
SLIVERS = 6.0  # times the span of the differences: wider intervals of losses than that are cut at the axis
FAR = 25.0  # times the usual distance from the best, from where on a candidate is only named
MARGIN = 0.12  # inches at the left and the right edge of a ranking's figure
SWATCHES = 3  # colours in the legend's sample of the bands
_LABEL = 48  # characters in a line of a candidate's label


def plot_ranking(ranking: Ranking, ax: Axes | None = None, limit: int = SHOWN) -> list[Artist]:
    """Draw predicted losses, best on top, with two 90 % intervals each.

    The thin line is the interval of the loss itself. The thick line is the interval of the difference to the best,
    drawn at the loss: candidates share most of their error, so it is the one to compare them by. Of a candidate so bad
    that the others could not be told apart beside it, only the number is written, at the right.

    P(best) stands to the right of the axes where a layout makes room for it (`layout="constrained"` of the figure, or
    its `tight_layout`), else in the labels, since whatever stands there would be written over.
    """
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    shown = ranking.order[:limit]
    if ax is None:
        ax = new_axes(8.0, 1.3 + 0.3 * len(shown))
        _margin(ax.figure)
    roomy = ax.figure.get_layout_engine() is not None
    artists: list[Artist] = []
    far = _far_off(ranking, shown)
    for place, row in enumerate(shown.tolist()):
        colour = colour_of(place)
        if len(ranking) > 1 and roomy:
            artists.append(_beside(ax, percent(float(ranking.p_best[row])), place))
        if far[place]:
            text = f"{number_text(float(ranking.loss[row]), ranking.decimals)} \N{RIGHTWARDS ARROW}"
            artists.append(_beside(ax, text, place, right=-4, ha="right", color=THIN))
            continue
        artists += ax.plot([ranking.lower[row], ranking.upper[row]], [place, place], color=THIN, linewidth=1.0)
        if place > 0:
            ends = ranking.loss[ranking.best] + np.array([ranking.difference_lower[row], ranking.difference_upper[row]])
            artists += ax.plot(ends, [place, place], color=colour, linewidth=9, alpha=0.4, solid_capstyle="butt")
        face = colour if ranking.in_domain[row] else "white"
        artists += ax.plot(ranking.loss[row], place, "o", markersize=5, color=colour, markerfacecolor=face)
    ax.axvline(ranking.loss[ranking.best], color=COLOURS[0], linewidth=0.8, linestyle=":", zorder=0)
    names = short_labels(ranking, shown)
    if len(ranking) > 1 and not roomy:
        odds = [percent(float(ranking.p_best[row])) for row in shown]
        names = [f"{name}, P(best) {odd}" for name, odd in zip(names, odds, strict=True)]
    risky = [] if ranking.risk is None else np.flatnonzero(ranking.risk[shown] > ranking.max_risk).tolist()
    for place in risky:
        names[place] += f"  (divergence risk {percent(float(ranking.risk[shown[place]]))})"  # type: ignore[index]
    ax.set_yticks(range(len(shown)), [f"{place + 1}.  {name}" for place, name in enumerate(names)], fontsize=8.5)
    for place in risky:
        ax.get_yticklabels()[place].set_color(ALERT)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlabel("predicted final loss (nats per token)")
    if len(ranking) > 1 and roomy:
        artists.append(_beside(ax, "P(best)", -0.6, above=7))
    handles: list[Any] = [Line2D([], [], color=THIN, linewidth=1.0)]
    labels = ["loss, 90 %"]
    if len(shown) > 1:
        some = dict.fromkeys(colour_of(place) for place in range(1, len(shown)))
        handles.append(tuple(Patch(facecolor=colour, alpha=0.4, linewidth=0) for colour in list(some)[:SWATCHES]))
        labels.append("difference to 1, 90 %")
    if not ranking.in_domain[shown].all():
        handles.append(Line2D([], [], color=THIN, marker="o", linestyle="", markerfacecolor="white"))
        labels.append("outside the domain")
    above: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": 3, "frameon": False}
    ax.legend(
        handles=handles,
        labels=labels,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.0)},
        borderaxespad=0.2,
        borderpad=0.2,
        handlelength=1.6,
        columnspacing=1.4,
        fontsize=8.5,
        **above if roomy else {"loc": "best", "framealpha": 0.8, "edgecolor": "none"},
    )
    open_frame(ax)
    ax.grid(False, axis="y")
    near = _differences(ranking, shown[~far])
    if near is not None:
        ax.set_xlim(*near)
        ax.set_xlabel("predicted final loss (nats per token);\nits interval reaches beyond the axis")
    return artists


def _differences(ranking: Ranking, rows: npt.NDArray[np.intp]) -> tuple[float, float] | None:
    """Return the ends of an axis of losses and differences where the losses' intervals would hide these, else None."""
    best = ranking.loss[ranking.best]
    ends = np.concatenate([best + ranking.difference_lower[rows], best + ranking.difference_upper[rows]])
    low, high = float(ends.min()), float(ends.max())
    if not 0.0 < SLIVERS * (high - low) < float(np.median((ranking.upper - ranking.lower)[rows])):
        return None
    return low - 0.15 * (high - low), high + 0.15 * (high - low)


def _far_off(ranking: Ranking, shown: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Return which of the candidates shown lie so far above the rest that they would squeeze it into a line."""
    more = ranking.difference[shown]
    width = float(ranking.upper[ranking.best] - ranking.lower[ranking.best])
    reach = FAR * max(float(np.median(more)), width)
    return np.asarray((more > reach) & np.isfinite(reach), dtype=np.bool_)


def _margin(figure: Any) -> None:
    """Keep what stands beside the axes of a ranking off the figure's edges."""
    figure.get_layout_engine().set(w_pad=MARGIN)


def _beside(ax: Axes, text: str, place: float, above: float = 0.0, right: float = 6.0, **style: Any) -> Artist:
    """Write at the right end of the axes, level with a row, `right` and `above` points from there."""
    return ax.annotate(
        text,
        (1.0, place),
        xycoords=("axes fraction", "data"),
        xytext=(right, above),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        annotation_clip=False,
        **style,
    )


def short_labels(ranking: Ranking, rows: npt.NDArray[np.intp]) -> list[str]:
    """Return a label a candidate: its name if it has one, else its short form without the items that all share.

    Optimizer and sizes stand behind it where candidates differ in them. Different names have different labels.
    """
    texts = [schedule_text(ranking.runs, int(row)) for row in rows]
    items = [set(text.partition(":")[2].split(",")) for text in texts if " then " not in text]
    shared = set.intersection(*items) if len(items) > 1 else set()
    labels = []
    for row, text in zip(rows.tolist(), texts, strict=True):
        name = ranking.names[row]
        if name != text and not name.startswith(f"{text} #"):
            label = name
        elif " then " in text:
            label = text
        else:
            kind, _, rest = text.partition(":")
            kept = ", ".join(item for item in rest.split(",") if item not in shared)
            label = f"{kind}  {kept}" if kept else kind
        labels.append(label)
    apart = differing(ranking, rows.tolist())
    beside = [", ".join(f"{name} {cell}" for name, cell in cells.items()) for cells in apart]
    if not any(beside):
        return told_apart(labels, _LABEL)
    beside = [plain_text(text) for text in beside]
    joined = [f"{plain_text(label)}  ({text})" for label, text in zip(labels, beside, strict=True)]
    if max(map(len, joined)) <= _LABEL:
        return joined
    return [f"{label}\n({text})" for label, text in zip(told_apart(labels, _LABEL, 1), beside, strict=True)]


def rank_figure(
    ranking: Ranking, curves: Mapping[int, Mapping[str, Sequence[float]]] | None = None, limit: int = SHOWN
) -> Figure:
    """Return the figure of a ranking: schedules above, predicted curves if given, the ranking with intervals below.

    `curves` maps a candidate's index to step, loss, lower and upper.
    """
    from matplotlib.figure import Figure

    shown = ranking.order[:limit]
    heights = [2.7, *([2.9] if curves else []), 1.2 + 0.31 * len(shown)]
    figure = Figure(figsize=(9.0, sum(heights) + 0.5), layout="constrained")
    _margin(figure)
    parts = figure.subfigures(len(heights), 1, height_ratios=heights)
    panels: list[Axes] = [part.subplots() for part in np.atleast_1d(np.asarray(parts, dtype=object))]
    schedules = ranking.runs.schedules
    if not isinstance(schedules, ScheduleBatch):
        _numbers(panels[0], plot_schedules([schedules[row] for row in shown.tolist()], panels[0]))
    if curves:
        _plot_best_curves(curves, shown, panels[1], _far_off(ranking, shown))
        ends = np.array([panel.get_xlim() for panel in panels[:2]])  # a curve ends at T, its schedule at T - 1
        for panel in panels[:2]:
            panel.set_xlim(ends[:, 0].min(), ends[:, 1].max())
    plot_ranking(ranking, panels[-1], limit)
    title = rank_header(ranking)
    if len(ranking) > limit:
        title += f" - best {limit} of {len(ranking):,} candidates"
    figure.suptitle(wrapped(title, 110, 3), fontsize=10)
    return figure


def _numbers(ax: Axes, lines: Sequence[Any]) -> None:
    """Write above the schedules which line is which place of the ranking below; nothing where there is but one.

    Schedules that are alike, of which only the first can be seen, stand at one line.
    """
    from matplotlib.lines import Line2D

    if len(lines) < 2:
        return
    alike: dict[tuple[bytes, ...], list[int]] = {}
    for place, line in enumerate(lines):
        alike.setdefault(tuple(values.tobytes() for values in line.get_data()), []).append(place)
    entries = [places for places in alike.values() if places[0] < len(COLOURS)]
    grey = sorted(place for places in alike.values() if places[0] >= len(COLOURS) for place in places)
    entries += [grey] if grey else []
    styles = [lines[places[0]] for places in entries]
    handles = [
        Line2D([], [], color=line.get_color(), linestyle=dashes_of(places[0]), linewidth=line.get_linewidth())
        for line, places in zip(styles, entries, strict=True)
    ]
    labels = [places_text([place + 1 for place in places]) for places in entries]
    ax.legend(
        handles=handles,
        labels=labels,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        borderaxespad=0.2,
        borderpad=0.2,
        handlelength=3.0,
        handletextpad=0.4,
        columnspacing=1.2,
        ncols=len(handles),
        fontsize=8.5,
        frameon=False,
    )


def _plot_best_curves(
    curves: Mapping[int, Mapping[str, Sequence[float]]],
    shown: npt.NDArray[np.intp],
    ax: Axes,
    far: npt.NDArray[np.bool_],
) -> None:
    """Draw the curves of the best candidates in their colours, with the band of the very best.

    The loss axis need not reach those that are `far` off.
    """
    drawn = []
    for place in reversed(range(min(len(shown), len(COLOURS)))):
        curve = curves.get(int(shown[place]))
        if curve is not None:
            lower, upper = (curve["lower"], curve["upper"]) if place == 0 else (None, None)
            plot_curve(curve["step"], curve["loss"], lower, upper, ax, colour_of(place), linestyle=dashes_of(place))
            if not far[place]:
                drawn.append((curve["step"], curve["loss"]))
    zoom_late(ax, drawn[::-1])
    ax.text(
        0.99, 0.96, "band: 90 % interval of 1", transform=ax.transAxes, ha="right", va="top", fontsize=8.5,
        bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0.0, "pad": 1.0},
    )  # fmt: skip
