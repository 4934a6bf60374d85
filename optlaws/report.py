"""A ranking as text for people, as CSV and JSON for machines, and as one self-contained HTML page."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from optlaws._accepted import TINY_RISK
from optlaws._advice import one_line
from optlaws.errors import RiskError
from optlaws.ranking import Ranking
from optlaws.ranking.table import (
    SIZES,
    TABLE_ROWS,
    WIDEST,
    clipped,
    differing,
    elsewhere_note,
    flush_right,
    rank_header,
    rank_table,
    risk_text,
    schedule_text,
    table_cells,
    text_table,
)
from optlaws.schedules import ScheduleBatch


def rank_records(ranking: Ranking) -> list[dict[str, Any]]:
    """Return one record a candidate, best first: rank, name, sizes, loss, interval, difference, P(best), risk, domain.

    `divergence_risk` is a number from 0 to 1, NaN where it is not known; below 1e-6 it is 0, see `risk_numbers`.
    `p_best_other_corpus` is NaN where it was not asked for, see `optlaws.ranking.with_elsewhere`.
    """
    runs = ranking.runs
    columns = {
        "params": runs.params,
        "tokens": runs.tokens,
        "steps": runs.steps,
        "batch_tokens": runs.batch_tokens,
        "weight_decay": runs.weight_decay,
        "optimizer": np.array(runs.optimizer, dtype=object),
        "predicted_loss": ranking.loss,
        "lower": ranking.lower,
        "upper": ranking.upper,
        "difference": ranking.difference,
        "difference_lower": ranking.difference_lower,
        "difference_upper": ranking.difference_upper,
        "p_best": ranking.p_best,
        "divergence_risk": np.full(len(ranking), np.nan) if ranking.risk is None else risk_numbers(ranking.risk),
        "in_domain": ranking.in_domain,
    }
    elsewhere = np.full(len(ranking), np.nan) if ranking.p_best_elsewhere is None else ranking.p_best_elsewhere
    values = {name: array[ranking.order].tolist() for name, array in columns.items()}
    records = []
    for place, row in enumerate(ranking.order.tolist()):
        record: dict[str, Any] = {"rank": place + 1, "name": ranking.names[row]}
        record.update((name, cells[place]) for name, cells in values.items())
        record["reasons"] = ranking.reasons[row]
        record["p_best_other_corpus"] = float(elsewhere[row])
        records.append(record)
    return records


def rank_csv(ranking: Ranking) -> str:
    """Return the ranking as CSV, all candidates, best first; numbers in full, unknown ones empty."""
    records = rank_records(ranking)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    fields = list(records[0])
    fields.insert(2, "schedule")
    writer.writerow(fields)
    for record, row in zip(records, ranking.order.tolist(), strict=True):
        cells = [_csv_cell(value) for value in record.values()]
        cells.insert(2, schedule_text(ranking.runs, row, full=True))
        writer.writerow(cells)
    return stream.getvalue()


def write_csv(stream: IO[str], columns: Mapping[str, Any]) -> None:
    """Write columns of equal length as CSV; numbers in full, NaN and None are empty cells."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    plain = [values.tolist() if hasattr(values, "tolist") else values for values in columns.values()]
    writer.writerows([_csv_cell(value) for value in row] for row in zip(*plain, strict=True))


def rank_json(
    ranking: Ranking,
    assumed: Mapping[str, float] | None = None,
    curves: Mapping[int, Mapping[str, Sequence[float]]] | None = None,
) -> str:
    """Return the ranking as one JSON object: law, assumed, advice, candidates (best first); unknown numbers are null.

    `other_corpus` says whether intervals and odds are those of another corpus than the law's own. `preferred` is the
    name of the candidate that the advice names (null: none), `left_out` holds names and risks of those above the
    accepted risk, where one was asked for. `curves` maps a candidate's index to its predicted curve (step, loss,
    lower, upper).
    """
    candidates = []
    for record, row in zip(rank_records(ranking), ranking.order.tolist(), strict=True):
        schedules = ranking.runs.schedules
        if not isinstance(schedules, ScheduleBatch):
            record["schedule"] = schedules[row].to_dict()
            record["short"] = str(schedules[row])
        if curves and row in curves:
            record["curve"] = {name: list(values) for name, values in curves[row].items()}
        candidates.append(record)
    preferred = None if ranking.preferred is None else ranking.names[ranking.preferred]
    return _rank_document(
        ranking.law, ranking.other_corpus, assumed, ranking.advice, preferred, ranking.left_out, candidates
    )


def refused_json(law: str, other_corpus: bool, assumed: Mapping[str, float], refusal: RiskError) -> str:
    """Return the JSON object of a ranking that no candidate is left in, all risks being above the accepted one."""
    return _rank_document(law, other_corpus, assumed, str(refusal), None, refusal.left_out, [])


def _rank_document(
    law: str,
    other_corpus: bool,
    assumed: Mapping[str, float] | None,
    advice: str,
    preferred: str | None,
    left_out: Sequence[tuple[str, float]],
    candidates: Sequence[Mapping[str, Any]],
) -> str:
    risk = risk_numbers([value for _, value in left_out]).tolist()
    document = {
        "law": law,
        "other_corpus": other_corpus,
        "assumed": dict(assumed or {}),
        "advice": advice,
        "preferred": preferred,
        "left_out": [{"name": name, "divergence_risk": value} for (name, _), value in zip(left_out, risk, strict=True)],
        "candidates": list(candidates),
    }
    return to_json(document)


def to_json(document: Any) -> str:
    """Return JSON text with a newline at its end; NaN and infinity are null, whole floats from
    1e3 to below 1e16 in size are written as integers, all others to the last digit."""
    return json.dumps(_clean(document), indent=1) + "\n"


def rank_html(
    ranking: Ranking, png: bytes | None = None, assumed: Mapping[str, float] | None = None, last: str = ""
) -> str:
    """Return one HTML page that needs no other file: advice, figure, table and footnotes; all text is escaped."""
    header, rows, notes = table_cells(ranking, TABLE_ROWS)
    right = flush_right(header)
    head = "".join(f"<th{_side(r)}>{html.escape(c)}</th>" for c, r in zip(header, right, strict=True))
    body = "\n".join(
        "<tr>" + "".join(_html_cell(name, c, r) for name, c, r in zip(header, row, right, strict=True)) + "</tr>"
        for row in rows
    )
    more = len(ranking) - TABLE_ROWS
    tail = [f"<p>... and {more:,} more candidates.</p>"] if more > 0 else []
    tail += [f"<p class=note>[{mark}] {html.escape(note)}</p>" for mark, note in notes]
    tail += [f"<p class=note>{html.escape(note)}</p>" for note in (elsewhere_note(ranking), last) if note]
    picture = ""
    if png is not None:
        data = base64.b64encode(png).decode("ascii")
        picture = f'<img alt="candidate schedules and their ranking" src="data:image/png;base64,{data}">'
    title = f"Ranking of {len(ranking):,} candidate{'s' if len(ranking) > 1 else ''}"
    return _PAGE.format(
        title=html.escape(title),
        header=html.escape(rank_header(ranking, assumed)),
        advice=html.escape(ranking.advice),
        picture=picture,
        head=head,
        body=body,
        tail="\n".join(tail),
    )


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 84rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }}
h1 {{ font-size: 1.5rem; }}
.advice {{ font-size: 1.1rem; border-left: 4px solid #0072b2; padding: .3rem .8rem; background: #f2f7fb; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }}
th, td {{ padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }}
th.r, td.r {{ text-align: right; }}
td.w {{ white-space: normal; overflow-wrap: anywhere; min-width: 12rem; }}
img {{ max-width: 100%; height: auto; }}
.note, .header {{ color: #555; font-size: .9rem; margin: .2rem 0; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class=header>{header}</p>
<p class=advice>{advice}</p>
{picture}
<div class=table><table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>
{tail}
</body>
</html>
"""


def _html_cell(name: str, text: str, right: bool) -> str:
    """Return a cell of the page; schedules and long names may go on in the next line, best after a comma."""
    if name != "schedule" and (name != "name" or len(text) <= _LONG_NAME):
        return f"<td{_side(right)}>{html.escape(one_line(text))}</td>"
    return f"<td class=w>{html.escape(one_line(text)).replace(',', ',<wbr>')}</td>"


def _side(right: bool) -> str:
    return " class=r" if right else ""


_LONG_NAME = 24


def risk_numbers(risk: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return divergence risks for machines: 0 below 1e-6, where a model's number says no more than "very small".

    Numbers stay numbers, so that a script may compare them; NaN (not known) stays NaN.

    >>> risk_numbers([0.31, 2e-6, 1e-47, float("nan")]).tolist()
    [0.31, 2e-06, 0.0, nan]
    """
    values = np.asarray(risk, dtype=np.float64)
    return np.where(values < TINY_RISK, 0.0, values)


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 1e16 else repr(value)
    return str(value)


def _clean(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if hasattr(value, "tolist"):
        return _clean(value.tolist())
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 1e16 and value != 0 and abs(value) >= 1e3 else value
    return value


__all__ = [
    "SIZES",
    "TABLE_ROWS",
    "WIDEST",
    "clipped",
    "differing",
    "elsewhere_note",
    "flush_right",
    "rank_csv",
    "rank_header",
    "rank_html",
    "rank_json",
    "rank_records",
    "rank_table",
    "refused_json",
    "risk_numbers",
    "risk_text",
    "schedule_text",
    "table_cells",
    "text_table",
    "to_json",
    "write_csv",
]
