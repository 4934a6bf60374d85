"""Figures: schedules, rankings and predicted loss curves.

Every `plot_*` function draws on the axes given (`ax=None`: on a new figure, reachable as `artists[0].figure`) and
returns the artists that it made. Figures are made without pyplot, so that no global state and no window is touched.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from optlaws._advice import even_lines, number_text, one_line, percent
from optlaws.errors import InputError, nearest
from optlaws.ranking import Ranking
from optlaws.report import rank_header, schedule_text
from optlaws.runs import atomic_write, format_quantity
from optlaws.schedules import Schedule, ScheduleBatch

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from optlaws.risk.changes import RiskMap

FloatArray = npt.NDArray[np.float64]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#4d4d4d")
"""Told apart with every kind of colour vision (after Okabe and Ito); the best candidate has the first."""

GREY = "#b5b5b5"
ALERT = "#b2182b"  # of what is likely to go wrong
_THIN = "#7d7d7d"
SHOWN = 20
SLIVERS = 6.0  # times the span of the differences: wider intervals of losses than that are cut at the axis
FAR = 25.0  # times the usual distance from the best, from where on a candidate is only named
MARGIN = 0.12  # inches at the left and the right edge of a ranking's figure
FORMATS = ("png", "pdf", "svg", "jpg", "jpeg", "webp")
_LABEL = 48  # characters in a line of a candidate's label
_POINTS = 400  # points drawn of a schedule


def new_axes(width: float = 7.0, height: float = 4.0) -> Axes:
    """Return the axes of a new figure of that size in inches, without pyplot."""
    from matplotlib.figure import Figure

    axes: Axes = Figure(figsize=(width, height), layout="constrained").subplots()
    return axes


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = 150) -> None:
    """Write a figure by its suffix (.png, .pdf, .svg, ...); an older file is replaced only by a complete one.

    Raises
    ------
    InputError
        If the suffix is not one of `FORMATS`.
    """
    check_suffix(path)
    with atomic_write(path, "wb") as stream:
        figure.savefig(stream, format=Path(path).suffix[1:].lower(), dpi=dpi)


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Raise an `InputError` unless a figure can be written under that name."""
    suffix = Path(path).suffix[1:].lower()
    if suffix not in FORMATS:
        hint = nearest(suffix, FORMATS) if suffix else ""
        raise InputError(
            f"{path}: a figure's suffix must be one of {', '.join(FORMATS)}, got {suffix or 'none'!r}{hint}"
        )


def png_bytes(figure: Figure, dpi: int = 120) -> bytes:
    """Return a figure as PNG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    return stream.getvalue()


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


def plain_text(text: str) -> str:
    """Return text for a figure: shown as it is, not read as a formula where it has dollar signs."""
    return one_line(text).replace("$", r"\$")


def wrapped(text: str, width: int, lines: int = 2) -> str:
    """Return text for a figure in at most `lines` lines about as long as each other, cut where it is longer."""
    parts = even_lines(one_line(text), width, lines)
    if len(parts) > lines:
        parts = [*parts[: lines - 1], parts[lines - 1][: width - 2] + " …"]
    return "\n".join(map(plain_text, parts))


def _drawn(ax: Axes, x: FloatArray, y: FloatArray, **style: Any) -> list[Artist]:
    """Draw a line, a single point as a dot since a line through it cannot be seen."""
    dot: dict[str, Any] = {"marker": "o", "markersize": 4} if len(x) == 1 else {}
    return list(ax.plot(x, y, **{**dot, **style}))


def plot_schedule(schedule: Schedule, ax: Axes | None = None, **style: Any) -> list[Artist]:
    """Draw the learning rate of one schedule against its steps."""
    ax = new_axes(7.0, 3.2) if ax is None else ax
    steps, rates = schedule_points(schedule)
    artists = _drawn(ax, steps, rates, **{"color": COLOURS[0], "linewidth": 1.8, **style})
    _schedule_axes(ax)
    return artists


def plot_schedules(
    schedules: Sequence[Schedule], ax: Axes | None = None, colours: Sequence[str] | None = None
) -> list[Artist]:
    """Draw several schedules, the first on top; those past the palette are grey."""
    ax = new_axes(7.0, 3.2) if ax is None else ax
    chosen = colours or [colour_of(place) for place in range(len(schedules))]
    artists: list[Artist] = []
    for place in reversed(range(len(schedules))):
        steps, rates = schedule_points(schedules[place])
        main = chosen[place] != GREY
        width = 1.9 if main else 0.8
        artists += _drawn(ax, steps, rates, color=chosen[place], linewidth=width, alpha=0.95 if main else 0.7)
    _schedule_axes(ax)
    return artists[::-1]


def _schedule_axes(ax: Axes) -> None:
    ax.set_xlabel("step")
    ax.set_ylabel("learning rate")
    ax.set_ylim(bottom=0)
    ax.margins(x=0.01)
    ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    _thousands(ax)
    _open_frame(ax)


def _thousands(ax: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    # from ten millions on written like 20M, since labels in full would run into each other
    far = max(map(abs, ax.dataLim.intervalx)) >= 1e7 if np.isfinite(ax.dataLim.intervalx).all() else False
    ax.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: format_quantity(value) if far else f"{value + 0.0:,.0f}")
    )
    if ax.dataLim.intervalx[0] == ax.dataLim.intervalx[1]:  # a single step
        middle = float(ax.dataLim.intervalx[0])
        ax.set_xlim(middle - 1, middle + 1)


def _open_frame(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="#e6e6e6", linewidth=0.6)
    ax.set_axisbelow(True)


def colour_of(place: int) -> str:
    """Return the colour of the candidate at a place from 0; grey past the palette."""
    return COLOURS[place] if place < len(COLOURS) else GREY


def plot_ranking(ranking: Ranking, ax: Axes | None = None, limit: int = SHOWN) -> list[Artist]:
    """Draw predicted losses, best on top, with two 90 % intervals each.

    The thin line is the interval of the loss itself. The thick line is the interval of the difference to the best,
    drawn at the loss: candidates share most of their error, so it is the one to compare them by. Of a candidate so bad
    that the others could not be told apart beside it, only the number is written, at the right.
    """
    from matplotlib.lines import Line2D

    shown = ranking.order[:limit]
    if ax is None:
        ax = new_axes(8.0, 1.3 + 0.3 * len(shown))
        _margin(ax.figure)
    artists: list[Artist] = []
    far = _far_off(ranking, shown)
    for place, row in enumerate(shown.tolist()):
        colour = colour_of(place)
        if len(ranking) > 1:
            artists.append(_beside(ax, percent(float(ranking.p_best[row])), place))
        if far[place]:
            text = f"{number_text(float(ranking.loss[row]), ranking.decimals)} \N{RIGHTWARDS ARROW}"
            artists.append(_beside(ax, text, place, right=-4, ha="right", color=_THIN))
            continue
        artists += ax.plot([ranking.lower[row], ranking.upper[row]], [place, place], color=_THIN, linewidth=1.0)
        if place > 0:
            ends = ranking.loss[ranking.best] + np.array([ranking.difference_lower[row], ranking.difference_upper[row]])
            artists += ax.plot(ends, [place, place], color=colour, linewidth=9, alpha=0.4, solid_capstyle="butt")
        face = colour if ranking.in_domain[row] else "white"
        artists += ax.plot(ranking.loss[row], place, "o", markersize=5, color=colour, markerfacecolor=face)
    ax.axvline(ranking.loss[ranking.best], color=COLOURS[0], linewidth=0.8, linestyle=":", zorder=0)
    labels = short_labels(ranking, shown)
    risky = [] if ranking.risk is None else np.flatnonzero(ranking.risk[shown] > ranking.max_risk).tolist()
    for place in risky:
        labels[place] += f"  (divergence risk {percent(float(ranking.risk[shown[place]]))})"  # type: ignore[index]
    ax.set_yticks(range(len(shown)), [f"{place + 1}.  {label}" for place, label in enumerate(labels)], fontsize=8.5)
    for place in risky:
        ax.get_yticklabels()[place].set_color(ALERT)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlabel("predicted final loss (nats per token)")
    if len(ranking) > 1:
        artists.append(_beside(ax, "P(best)", -0.6, above=7))
    handles = [Line2D([], [], color=_THIN, linewidth=1.0, label="loss, 90 %")]
    if len(shown) > 1:
        label = "difference to 1, 90 %"
        handles.append(Line2D([], [], color=_THIN, linewidth=9, alpha=0.4, label=label))
    if not ranking.in_domain[shown].all():
        label = "outside the domain"
        handles.append(Line2D([], [], color=_THIN, marker="o", linestyle="", markerfacecolor="white", label=label))
    ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        borderaxespad=0.2,
        borderpad=0.2,
        handlelength=1.6,
        columnspacing=1.4,
        ncols=3,
        fontsize=8.5,
        frameon=False,
    )
    _open_frame(ax)
    ax.grid(False, axis="y")
    near = _differences(ranking, shown[~far])
    if near is not None:
        ax.set_xlim(*near)
        ax.set_xlabel("predicted final loss (nats per token); its interval reaches beyond the axis")
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
    """Return a label a candidate: its name if it has one, else its short form without the items that all share."""
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
        labels.append(wrapped(label, _LABEL))
    return labels


def plot_curve(
    steps: npt.ArrayLike,
    loss: npt.ArrayLike,
    lower: npt.ArrayLike | None = None,
    upper: npt.ArrayLike | None = None,
    ax: Axes | None = None,
    colour: str = COLOURS[0],
    label: str | None = None,
    observed: npt.ArrayLike | None = None,
) -> list[Artist]:
    """Draw a predicted loss curve against its steps, with its 90 % band and the observed losses where given."""
    ax = new_axes() if ax is None else ax
    x = np.asarray(steps, dtype=np.float64)
    artists: list[Artist] = []
    if lower is not None and upper is not None:
        artists.append(ax.fill_between(x, np.asarray(lower), np.asarray(upper), color=colour, alpha=0.15, linewidth=0))
    artists = [*_drawn(ax, x, np.asarray(loss), color=colour, linewidth=1.7, label=label), *artists]
    if observed is not None:
        artists += ax.plot(x, np.asarray(observed), ".", color="#4d4d4d", markersize=3, label="observed")
    ax.set_xlabel("step")
    ax.set_ylabel("predicted loss (nats per token)")
    _thousands(ax)
    _open_frame(ax)
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
        plot_schedules([schedules[row] for row in shown.tolist()], panels[0])
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
            plot_curve(curve["step"], curve["loss"], lower, upper, ax, colour_of(place))
            if not far[place]:
                drawn.append((curve["step"], curve["loss"]))
    zoom_late(ax, drawn[::-1])
    ax.text(
        0.99, 0.96, "band: 90 % interval of 1", transform=ax.transAxes, ha="right", va="top", fontsize=8.5,
        bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0.0, "pad": 1.0},
    )  # fmt: skip


def _few_ticks(ax: Axes) -> None:
    """Label logarithmic axes at 1, 2 and 5 times powers of ten: rates as they are, counts like 2K."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis, text in ((ax.xaxis, lambda v, _: f"{v:g}"), (ax.yaxis, lambda v, _: format_quantity(v))):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(text))
        axis.set_minor_formatter(NullFormatter())


RISK_AXES = {"warmup_steps": "warm-up (steps)", "batch_tokens": "batch (tokens a step), tokens of the run kept"}


def plot_risk_map(
    risk: RiskMap,
    accepted: float,
    here: tuple[float, float],
    others: Sequence[tuple[float, float]] = (),
    ax: Axes | None = None,
) -> list[Artist]:
    """Draw the divergence risk over peak rate and one other quantity, with the region of accepted risk outlined.

    `here` is the run that the map was made for, `others` are runs that differ from it on the axes only, both as
    (peak rate, other quantity).
    """
    ax = new_axes(7.4, 5.0) if ax is None else ax
    mesh = ax.pcolormesh(
        risk.peak, risk.other, risk.probability, vmin=0.0, vmax=1.0, cmap="YlOrRd", shading="nearest", rasterized=True
    )
    artists: list[Artist] = [mesh]
    ax.set_xscale("log")
    ax.set_yscale("log")
    values = risk.probability[np.isfinite(risk.probability)]
    if len(values) and values.min() <= accepted:
        safe = ax.contourf(
            risk.peak, risk.other, risk.probability, levels=[-1.0, accepted], colors="none", hatches=["//"]
        )
        safe.set(edgecolor="#4d9a6a", linewidth=0.0)
        artists.append(safe)
    for level, style, colour, width in ((accepted, "-", "#1b6e3c", 2.0), (0.5, "--", "#4d4d4d", 1.2)):
        if len(values) and values.min() < level < values.max():
            lines = ax.contour(
                risk.peak,
                risk.other,
                risk.probability,
                levels=[level],
                colors=colour,
                linestyles=style,
                linewidths=width,
            )
            ax.clabel(lines, fmt={level: f"{100 * level:g} %"}, fontsize=8.5)
            artists.append(lines)
    inside = [
        (x, y)
        for x, y in others
        if risk.peak[0] <= x <= risk.peak[-1] and risk.other[0] <= y <= risk.other[-1] and (x, y) != here
    ]
    if inside:
        artists += ax.plot(*zip(*inside, strict=True), "o", color="#4d4d4d", markerfacecolor="white", markersize=5)
    if here[1] > 0:
        artists += ax.plot(*here, "o", color="black", markersize=8, markeredgecolor="white", clip_on=False)
    ax.set_xlabel("peak learning rate")
    ax.set_ylabel(RISK_AXES[risk.over])
    _few_ticks(ax)
    ax.figure.colorbar(mesh, ax=ax, label="probability of divergence")
    some = len(values) and values.min() <= accepted
    words = [f"hatched: at most {100 * accepted:g} %" if some else f"nowhere at most {100 * accepted:g} %"]
    words += ["white: impossible"] if len(values) < risk.probability.size else []
    artists.append(
        ax.text(
            0.02, 0.98, ", ".join(words), transform=ax.transAxes, va="top", fontsize=8.5,
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0.0},
        )
    )  # fmt: skip
    return artists
