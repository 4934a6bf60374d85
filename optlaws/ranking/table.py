"""A ranking as a table for people, and the words that its other forms share."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence

from optlaws._advice import number_text, one_line, percent
from optlaws.errors import ScheduleError
from optlaws.ranking import Ranking
from optlaws.runs import RunTable, format_quantity
from optlaws.schedules import Schedule, ScheduleBatch

TABLE_ROWS = 40
"""Candidates that the text table and the page show; CSV and JSON hold all."""

WIDEST = 120
"""Characters of a name or a schedule that a text table shows; CSV and JSON hold them whole."""

SIZES = (
    ("params", "params", "parameters"),
    ("tokens", "tokens", "tokens"),
    ("batch_tokens", "batch", "tokens a step"),
    ("weight_decay", "decay", "weight decay"),
)


def schedule_text(runs: RunTable, row: int, full: bool = False) -> str:
    """Return a schedule's short form; one too long for it by its size, or with `full` as JSON."""
    schedules = runs.schedules
    if isinstance(schedules, ScheduleBatch):
        return f"schedule {row + 1 if runs.numbered is None else runs.run_id[row]}"
    schedule: Schedule = schedules[row]
    if not full:
        return str(schedule)
    try:
        return schedule.short()
    except ScheduleError:
        return schedule.to_json()


def rank_header(ranking: Ranking, assumed: Mapping[str, float] | None = None) -> str:
    """Return one line: the law, the sizes that all candidates share, and what was assumed where they say nothing."""
    given = assumed or {}
    parts = [f"Law {one_line(ranking.law)}{' on another corpus' if ranking.other_corpus else ''}"]
    for name, _, words in SIZES:
        if not _varies(ranking, name) and name not in given:
            parts.append(_size_text(name, words, float(getattr(ranking.runs, name)[0])))
    named = set(ranking.runs.optimizer)
    if len(named) == 1 and None not in named:
        parts.append(f"optimizer {one_line(str(*named))}")
    text = ", ".join(parts)
    guesses = [(name, _size_text(name, words, given[name])) for name, _, words in SIZES if name in given]
    if guesses:
        options = ", ".join("--" + name.replace("_", "-") for name, _ in guesses)
        text += f"; assumed: {', '.join(guess for _, guess in guesses)} (say otherwise with {options})"
    return text


def _size_text(name: str, words: str, value: float) -> str:
    if math.isnan(value):
        return f"{words} unknown"
    return f"{words} {value:g}" if name == "weight_decay" else f"{format_quantity(value)} {words}"


def differing(ranking: Ranking, rows: Sequence[int]) -> list[dict[str, str]]:
    """Return, for some candidates, optimizer and sizes that differ among all, by the table's headings; "-": unknown."""
    several = len(set(ranking.runs.optimizer)) > 1
    sizes = [(name, short) for name, short, _ in SIZES if _varies(ranking, name)]
    out = []
    for row in rows:
        cells = {"optimizer": ranking.runs.optimizer[row] or "-"} if several else {}
        for name, short in sizes:
            value = float(getattr(ranking.runs, name)[row])
            known = f"{value:g}" if name == "weight_decay" else format_quantity(value)
            cells[short] = "-" if math.isnan(value) else known
        out.append(cells)
    return out


def elsewhere_note(ranking: Ranking, first: str = "1", way: str = " (--other-corpus)") -> str:
    """Return a sentence on what the first candidate is worth on another corpus, "" where that was not asked for."""
    if ranking.p_best_elsewhere is None:
        return ""
    odds = percent(float(ranking.p_best_elsewhere[ranking.best]))
    return f"Note: on another corpus or kind of network than the law's, {first} has a P(best) of {odds}{way}."


def rank_table(
    ranking: Ranking, assumed: Mapping[str, float] | None = None, limit: int = TABLE_ROWS, last: str = ""
) -> str:
    """Return the ranking as text: header line, table, footnotes on the domain, notes, the advice, and a `last` line."""
    header, rows, notes = table_cells(ranking, limit)
    whole, rows = rows, [[clipped(cell) for cell in row] for row in rows]
    lines = [rank_header(ranking, assumed), "", *text_table(header, rows, right=flush_right(header)).split("\n")]
    if len(ranking) > limit:
        lines.append(f"... and {len(ranking) - limit:,} more; --format csv or json lists them all")
    if rows != whole:
        lines.append(f"...: cut at {WIDEST} characters; --format csv or json has all of it")
    lines += [f"[{mark}] {words}" for mark, words in notes]
    lines += ["", elsewhere_note(ranking)] if ranking.p_best_elsewhere is not None else []
    return "\n".join([*lines, "", ranking.advice, *([last] if last else [])]) + "\n"


def clipped(text: str, width: int = WIDEST) -> str:
    """Return a cell of a text table, cut where it is too long to be read there.

    >>> clipped("abcdef", 4)
    'a...'
    """
    return text if len(text) <= width else text[: width - 3] + "..."


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """Return columns two blanks apart, each as wide as its widest cell, with a line under the header.

    >>> print(text_table(["a", "n"], [["x", "1"], ["yy", "10"]], [False, True]))
    a    n
    --  --
    x    1
    yy  10
    """
    table = [[one_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(_columns(row[i]) for row in table) for i in range(len(header))]
    table.insert(1, ["-" * width for width in widths])
    lines = []
    for row in table:
        blanks = [" " * (width - _columns(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [space + cell if flush else cell + space for cell, space, flush in zip(row, blanks, right, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _columns(text: str) -> int:
    """Return the columns that a text takes on a terminal: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


_LEFT = ("name", "schedule", "optimizer", "in domain")


def flush_right(header: Sequence[str]) -> list[bool]:
    """Return which columns of a table are flush with their right edge: numbers are."""
    return [name not in _LEFT for name in header]


def table_cells(ranking: Ranking, limit: int) -> tuple[list[str], list[list[str]], list[tuple[str, str]]]:
    """Return the header, the rows and the footnotes (mark, text) of the table for people."""
    shown = ranking.order[:limit].tolist()
    texts = {row: schedule_text(ranking.runs, row) for row in shown}
    named = any(not _is_default(ranking.names[row], texts[row]) for row in shown)
    header = ["rank", *(["name"] if named else []), "schedule", *differing(ranking, [0])[0]]
    header += ["loss", "90 % interval", "vs best", "90 % interval", "P(best)"]
    header += ["in domain"] if ranking.risk is None else ["risk", "in domain"]
    digits = ranking.decimals
    marks: dict[str, str] = {}
    rows = []
    for place, (row, apart) in enumerate(zip(shown, differing(ranking, shown), strict=True)):
        name = ranking.names[row]
        cells = [str(place + 1), *(["-" if _is_default(name, texts[row]) else name] if named else []), texts[row]]
        cells += apart.values()
        cells += [number_text(ranking.loss[row], digits), _interval(ranking.lower[row], ranking.upper[row], digits)]
        if place == 0:
            cells += ["-", "-"]
        else:
            low, high = ranking.difference_lower[row], ranking.difference_upper[row]
            cells += [number_text(ranking.difference[row], digits, sign=True), _interval(low, high, digits, sign=True)]
        cells.append(percent(ranking.p_best[row]) if len(ranking) > 1 else "-")
        if ranking.risk is not None:
            cells.append(risk_text(float(ranking.risk[row])))
        if ranking.in_domain[row]:
            cells.append("yes")
        else:
            reason = ranking.reasons[row] or "outside the law's training domain"
            mark = marks.setdefault(reason, str(len(marks) + 1))
            cells.append(f"no [{mark}]")
        rows.append(cells)
    return header, rows, [(mark, reason) for reason, mark in marks.items()]


def risk_text(p: float) -> str:
    """Return a divergence risk for people.

    >>> risk_text(0.31), risk_text(float("nan"))
    ('31 %', 'unknown')
    """
    return "unknown" if math.isnan(p) else percent(p)


def _is_default(name: str, text: str) -> bool:
    return name == text or name.startswith(f"{text} #")


def _interval(low: float, high: float, digits: int, sign: bool = False) -> str:
    return f"{number_text(low, digits, sign)} .. {number_text(high, digits, sign)}"


def _varies(ranking: Ranking, name: str) -> bool:
    values = getattr(ranking.runs, name)
    first = values[0]
    same = (values == first) | ((values != values) & (first != first))
    return not bool(same.all())
