"""What all figures share: colours, empty axes, texts as they are written, files."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from optlaws._advice import even_lines, one_line
from optlaws.errors import InputError, nearest
from optlaws.plotting.fonts import have_fonts
from optlaws.plotting.room import step_labels
from optlaws.runs import atomic_write, format_quantity

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float64]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#4d4d4d")
"""Of lines: the first six after Okabe and Ito, then two more, which some kinds of colour vision may take for others.

In a ranking the best candidate has the first."""

_DASHES = (
    (),
    (4.5, 1.6),
    (1.7, 1.2),
    (7, 1.8, 1.5, 1.8),
    (4, 1.3, 1.3, 1.3, 1.3, 1.3),
    (8, 4),
    (1, 2.2),
    (3, 1, 3, 4.5),
)
"""Points on and off, for each of `COLOURS`: lines are told apart in a print without colours, too."""

GREY = "#b5b5b5"
ALERT = "#b2182b"  # of what is likely to go wrong
THIN = "#7d7d7d"
FORMATS = ("png", "pdf", "svg", "jpg", "jpeg", "webp")

_UNDATED = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}  # the same figure is the same bytes


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
        _write(figure, stream, Path(path).suffix[1:].lower(), dpi)


def _write(figure: Figure, stream: IO[bytes], form: str, dpi: int) -> None:
    """Write a figure in one of `FORMATS`: the same figure gives the same bytes.

    Letters of a PDF are TrueType, which can be searched and copied. Texts of an SVG stay outlines: as text they would
    be drawn in another font wherever this one is not installed, and no longer fit the room left for them.
    """
    import matplotlib

    have_fonts(figure)
    files = matplotlib.rc_context({"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "optlaws"})
    with files, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # one for each, which have_fonts has said in one
        figure.savefig(stream, format=form, dpi=dpi, metadata=_UNDATED.get(form))


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Raise an `InputError` unless a figure can be written under that name."""
    suffix = Path(path).suffix[1:].lower()
    if suffix not in FORMATS:
        hint = nearest(suffix, [known for known in FORMATS if known[0] == suffix[0]]) if suffix else ""  # a slip alone
        raise InputError(
            f"{path}: a figure's suffix must be one of {', '.join(FORMATS)}, got {suffix or 'none'!r}{hint}"
        )


def png_bytes(figure: Figure, dpi: int = 120) -> bytes:
    """Return a figure as PNG."""
    stream = io.BytesIO()
    _write(figure, stream, "png", dpi)
    return stream.getvalue()


def colour_of(place: int) -> str:
    """Return the colour of the candidate at a place from 0; grey past the palette."""
    return COLOURS[place] if place < len(COLOURS) else GREY


def dashes_of(place: int) -> Any:
    """Return the line style of the candidate at a place from 0; solid for the first and past the palette."""
    dashes = _DASHES[place] if place < len(_DASHES) else ()
    return (0, dashes) if dashes else "-"


def plain_text(text: str) -> str:
    """Return text for a figure: shown as it is, not read as a formula where it has dollar signs."""
    return one_line(text).replace("$", r"\$")


def wrapped(text: str, width: int, lines: int = 2) -> str:
    """Return text for a figure in at most `lines` lines about as long as each other, cut where it is longer."""
    parts = even_lines(one_line(text), width, lines)
    if len(parts) > lines:
        parts = [*parts[: lines - 1], parts[lines - 1][: width - 2] + " …"]
    return "\n".join(map(plain_text, parts))


def drawn(ax: Axes, x: FloatArray, y: FloatArray, **style: Any) -> list[Artist]:
    """Draw a line, a single point as a dot since a line through it cannot be seen."""
    dot: dict[str, Any] = {"marker": "o", "markersize": 4} if len(x) == 1 else {}
    return list(ax.plot(x, y, **{**dot, **style}))


def thousands(ax: Axes) -> None:
    """Label the axis of steps in whole numbers, like 50,000 or 20M."""
    # from ten millions on written like 20M, since labels in full would run into each other
    far = max(map(abs, ax.dataLim.intervalx)) >= 1e7 if np.isfinite(ax.dataLim.intervalx).all() else False
    step_labels(ax.xaxis, lambda value: format_quantity(value) if far else f"{value + 0.0:,.0f}")
    if ax.dataLim.intervalx[0] == ax.dataLim.intervalx[1]:  # a single step
        middle = float(ax.dataLim.intervalx[0])
        ax.set_xlim(middle - 1, middle + 1)


def open_frame(ax: Axes) -> None:
    """Draw a faint grid and no frame at the top and the right."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="#e6e6e6", linewidth=0.6)
    ax.set_axisbelow(True)
