"""Characters that a figure's font lacks: drawn by another font that is installed, or told."""

from __future__ import annotations

import warnings
import weakref
from typing import TYPE_CHECKING, Any

from optlaws.errors import OptlawsWarning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOLD = 12  # characters named in the warning
_NO_TEXT = ("lastresort", "cm", "stixnon", "stixsize")  # fonts of boxes, and of formulas in codes of their own

_told: weakref.WeakSet[Any] = weakref.WeakSet()  # figures of which that was said


def have_fonts(figure: Figure) -> None:
    """Let installed fonts draw the characters that a figure's own font lacks, and warn once of those in none.

    Warns
    -----
    OptlawsWarning
        Some characters are in no font of this machine; they are drawn as boxes.
    """
    from matplotlib.font_manager import findfont
    from matplotlib.text import Text

    for ax in figure.axes:  # labels of ticks have their texts from then on
        ax.get_xticklabels()
        ax.get_yticklabels()
    texts: list[Any] = figure.findobj(Text)
    missing: set[str] = set()
    for text in texts:
        if not text.get_text().isascii():
            missing |= _lacking(findfont(text.get_fontname()), text.get_text())
    if not missing:
        return
    more = []
    for name, path in _upright():
        left = _lacking(path, missing)
        if left != missing:
            more.append(name)
            missing = left
        if not missing:
            break
    for text in texts:
        text.set_fontfamily([*text.get_fontfamily(), *more])
    if missing and figure not in _told:
        _told.add(figure)
        some = "".join(sorted(missing)[:TOLD]) + "..." * (len(missing) > TOLD)
        warnings.warn(
            f"no font of this machine has {some!r}, which the figure shows as boxes; install one that has, such as Noto"
            " Sans CJK, or give plain names",
            OptlawsWarning,
            stacklevel=3,
        )


def _lacking(path: Any, characters: str | set[str]) -> set[str]:
    """Return which of the characters the font in a file has no shape for."""
    from matplotlib.font_manager import get_font

    font = get_font(path)
    return {one for one in characters if one.isprintable() and not one.isspace() and not font.get_char_index(ord(one))}


def _upright() -> list[tuple[str, Any]]:
    """Return name and file of the installed fonts for texts, upright and of usual weight, by name."""
    from matplotlib.font_manager import fontManager

    usual = [font for font in fontManager.ttflist if font.style == "normal" and font.weight in (400, "normal")]
    names = [(font.name, font.fname) for font in usual]
    return sorted(pair for pair in names if not pair[0].lower().replace(" ", "").lstrip(".").startswith(_NO_TEXT))
