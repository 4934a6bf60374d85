"""Figures: schedules, rankings and predicted loss curves.

Every `plot_*` function draws on the axes given (`ax=None`: on a new figure, reachable as `artists[0].figure`) and
returns the artists that it made. Figures are made without pyplot, so that no global state and no window is touched.
"""

from optlaws.plotting.axes import (
    ALERT,
    COLOURS,
    FORMATS,
    GREY,
    check_suffix,
    colour_of,
    dashes_of,
    new_axes,
    plain_text,
    png_bytes,
    save_figure,
    wrapped,
)
from optlaws.plotting.curves import plot_curve, plot_schedule, plot_schedules, schedule_points, zoom_late
from optlaws.plotting.labels import told_apart
from optlaws.plotting.ranking import SHOWN, plot_ranking, rank_figure, short_labels
from optlaws.plotting.risk import RISK_AXES, plot_risk_map
from optlaws.plotting.room import beside_points, log_labels

__all__ = [
    "ALERT",
    "COLOURS",
    "FORMATS",
    "GREY",
    "RISK_AXES",
    "SHOWN",
    "beside_points",
    "check_suffix",
    "colour_of",
    "dashes_of",
    "log_labels",
    "new_axes",
    "plain_text",
    "plot_curve",
    "plot_ranking",
    "plot_risk_map",
    "plot_schedule",
    "plot_schedules",
    "png_bytes",
    "rank_figure",
    "save_figure",
    "schedule_points",
    "short_labels",
    "told_apart",
    "wrapped",
    "zoom_late",
]
