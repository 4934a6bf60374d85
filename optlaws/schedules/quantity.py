"""Numbers as people write them: 85M, 10B, 1e9, 2.56B, 512Ki, 5%."""

from __future__ import annotations

import math
import re
from numbers import Real
from typing import Any

from optlaws.errors import InputError

_DECIMAL = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_BINARY = {"ki": 2.0**10, "mi": 2.0**20, "gi": 2.0**30, "ti": 2.0**40}
_SCALE = _DECIMAL | _BINARY
_PATTERN = re.compile(
    r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([kmgt]i|[kmbgt]?)\s*", re.IGNORECASE | re.ASCII
)
_PERCENT = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*%\s*", re.ASCII)


def parse_quantity(text: str | int | float, name: str = "value", zero: bool = False) -> float:
    """Return the number written in `text`, with the suffixes K, M, B (or G) and T for 1e3, 1e6, 1e9 and 1e12.

    The binary suffixes Ki, Mi, Gi and Ti are the powers of 1024.

    Parameters
    ----------
    text
        For example "85M", "1.5e9", "2.56B" or a number.
    name
        What to call it in the message.
    zero
        Whether 0 is allowed (for a weight decay).

    Raises
    ------
    InputError
        If it is not a finite number above 0 (or at least 0).

    Examples
    --------
    >>> parse_quantity("2.5B")
    2500000000.0
    >>> parse_quantity("51200"), parse_quantity("512K"), parse_quantity("512Ki")
    (51200.0, 512000.0, 524288.0)
    """
    value = math.nan
    text = _scalar(text)
    if isinstance(text, str):
        found = _PATTERN.fullmatch(text)
        if found:
            mantissa, suffix = found.groups()
            exact = float(mantissa.replace("_", ""))
            value = exact * _SCALE[suffix.lower()]
            if suffix and math.isfinite(value) and abs(value - round(value)) < 1e-6 * value:
                value = float(round(value))
    elif isinstance(text, Real) and not isinstance(text, bool):
        try:
            value = float(text)
        except OverflowError:  # an integer may be too large for a float
            value = math.inf
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        least = "of at least 0" if zero else "above 0"
        raise InputError(f"{name} must be a finite number {least}, got {text!r:.60}; write it like 85M, 2.56B or 1e9")
    return value


def _scalar(value: Any) -> Any:
    """Return the number in an array of no dimension; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def as_number(value: Any, name: str, zero: bool = False) -> float | None:
    """Return a number that may be written as text, like 85M, or stand in an array of no dimension; None stays None.

    Whether it is in range is for the caller to say of what is no text.

    Raises
    ------
    InputError
        It is none of these, or a text that `parse_quantity` refuses.

    Examples
    --------
    >>> as_number("85M", "params"), as_number(-1, "params"), as_number(None, "params")
    (85000000.0, -1, None)
    """
    value = _scalar(value)
    if isinstance(value, str) or not (value is None or (isinstance(value, Real) and not isinstance(value, bool))):
        return parse_quantity(value, name, zero)
    return value  # type: ignore[return-value]  # a Real counts as float


def as_numbers(value: Any, name: str) -> list[float] | None:
    """Return one number, or several, as a list of `as_number`, 0 allowed; None stays None.

    Raises
    ------
    InputError
        As there, or one is missing.

    Examples
    --------
    >>> as_numbers(300, "warmup"), as_numbers(["1K", 0], "warmup")
    ([300], [1000.0, 0])
    """
    if value is None:
        return None
    alone = isinstance(value, str) or not hasattr(value, "__iter__") or getattr(value, "ndim", 1) == 0
    found = [as_number(one, name, zero=True) for one in ([value] if alone else value)]
    return [parse_quantity(one, name) if one is None else one for one in found]  # type: ignore[arg-type]


def parse_percent(text: str, name: str = "value") -> float:
    """Return the share, 0 to 1, that is written as a percentage.

    Parameters
    ----------
    text
        For example "5%" or "12.5 %".
    name
        What to call it in the message.

    Raises
    ------
    InputError
        If it is not a percentage from 0 to 100 %.

    Examples
    --------
    >>> parse_percent("12.5%")
    0.125
    """
    found = _PERCENT.fullmatch(text)
    share = float(f"{found[1]}e-2") if found else math.nan  # rounded once: 7 % is the number 0.07
    if not 0.0 <= share <= 1.0:
        raise InputError(f"{name} must be a percentage from 0 to 100 %, got {text!r:.60}; write it like 5%")
    return share


def format_quantity(value: float, digits: int = 4) -> str:
    """Return a short text for a count, the inverse of `parse_quantity` to `digits` digits.

    >>> format_quantity(85_000_000), format_quantity(51200), format_quantity(300)
    ('85M', '51.2K', '300')
    """
    if not math.isfinite(value):
        return "unknown"
    if abs(value) >= 1e18:
        return f"{value:.{digits}g}"
    for scale, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= scale * (1 - 0.5 * 10**-digits):
            return f"{value / scale:.{digits}g}{suffix}"
    return f"{value:.{digits}g}"
