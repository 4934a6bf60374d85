"""Reports of a ranking."""

import base64
import csv
import html.parser
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from fake_law import FakeLaw, FixedLaw

from optlaws import report
from optlaws.plotting import png_bytes, rank_figure
from optlaws.ranking import rank
from optlaws.runs import RunTable, gather_candidates
from optlaws.schedules import parse

HEADER = ["rank", "schedule", "loss", "90 % interval", "vs best", "90 % interval", "P(best)", "in domain"]
SPECS = ["cosine:peak=1e-3", "wsd:peak=1e-3,decay=0.2,warmup=300", "wsd:peak=1e-2,decay=0.2"]


@pytest.fixture
def ranking():
    return rank(gather_candidates(SPECS, {"tokens": 1e9}, FakeLaw().defaults).runs, FakeLaw())


def test_the_table_says_everything(ranking):
    text = report.rank_table(ranking, {"params": 1e8})
    lines = text.splitlines()
    assert lines[0] == (
        "Law fake, 1B tokens, 51.2K tokens a step, weight decay 0.1; assumed: 100M parameters (say otherwise with "
        "--params)"
    )
    assert re.split(" {2,}", lines[2]) == HEADER
    assert lines[4].lstrip().startswith("1  cosine:peak=0.001,steps=19531 ")
    assert "no [1]" in lines[6]
    assert lines[7].startswith("[1] peak rate 0.01 is outside")
    assert lines[-1] == ranking.advice
    assert "nan" not in text


def test_absurd_losses_do_not_widen_the_table():
    runs = RunTable.build([parse("cosine:peak=1e-3,steps=100"), parse("cosine:peak=1e5,steps=100")], params=1e300)
    text = report.rank_table(rank(runs, FixedLaw([3.0, 4e123], [[0.01], [4e122]])))
    assert max(map(len, text.splitlines()[2:6])) < 170
    assert "1e+300 parameters" in text
    assert "4e+123" in text


def test_unnamed_candidates_beside_named_ones_are_not_written_twice():
    runs = gather_candidates([SPECS[0]], {"tokens": 1e9}, FakeLaw().defaults).runs
    named = RunTable.build([parse("linear:peak=1e-3,steps=100")], run_id=["mine"])
    text = report.rank_table(rank(RunTable.concat([runs, named]), FakeLaw()))
    assert text.count(runs.run_id[0]) == 1
    assert re.search(r"\d  mine +linear", text)


def test_sizes_that_differ_become_columns_and_names_are_shown():
    runs = RunTable.build(
        [parse("cosine:peak=1e-3,steps=100")] * 2, run_id=["small", "big"], params=[1e7, 1e9], tokens=1e8
    )
    text = report.rank_table(rank(runs, FakeLaw()))
    assert re.search(r"rank +name +schedule +params +loss", text)
    assert re.search(r"1 +big +cosine:peak=0.001,steps=100 +1B", text)
    assert "weight decay unknown" in text


def test_long_tables_are_cut():
    n = 100
    runs = RunTable.build([parse(f"cosine:peak=1e-3,steps={i + 10}") for i in range(n)])
    ranking = rank(runs, FixedLaw(3 + 0.01 * np.arange(n), 0.001 * np.eye(n)))
    assert "... and 60 more" in report.rank_table(ranking)
    assert len(report.rank_csv(ranking).splitlines()) == 101
    assert len(json.loads(report.rank_json(ranking))["candidates"]) == 100


def test_csv_reads_back_exactly(ranking):
    rows = list(csv.DictReader(io.StringIO(report.rank_csv(ranking))))
    assert [int(row["rank"]) for row in rows] == [1, 2, 3]
    assert [float(row["predicted_loss"]) for row in rows] == ranking.loss[ranking.order].tolist()
    assert [row["in_domain"] for row in rows] == ["true", "true", "false"]
    assert parse(rows[1]["schedule"]) == ranking.runs.schedules[1]


def test_json_reads_back_exactly(ranking):
    document = json.loads(report.rank_json(ranking, {"params": 1e8}, {0: {"step": [1], "loss": [3.0]}}))
    best = document["candidates"][0]
    assert document["law"] == "fake"
    assert document["assumed"] == {"params": 100000000}
    assert document["advice"] == ranking.advice
    assert best["predicted_loss"] == ranking.loss[0]
    assert best["curve"] == {"step": [1], "loss": [3.0]}
    assert parse(best["schedule"]) == ranking.runs.schedules[0]
    assert sum(entry["p_best"] for entry in document["candidates"]) == pytest.approx(1)


def test_json_has_no_nan():
    runs = RunTable.build(parse("cosine:peak=1e-3,steps=10"))
    text = report.rank_json(rank(runs, FixedLaw([3.0], [[0.1]])))
    assert "NaN" not in text
    assert json.loads(text)["candidates"][0]["params"] is None


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href")]


def test_the_page_is_self_contained_and_escaped():
    runs = RunTable.build([parse("cosine:peak=1e-3,steps=100")] * 2, run_id=["<script>alert(1)</script>", "a & b"])
    ranking = rank(runs, FixedLaw([3.0, 3.1], [[0.1], [0.1]], out=(1,)))
    page = report.rank_html(ranking, png_bytes(rank_figure(ranking)))
    parser = Page()
    parser.feed(page)
    assert "script" not in parser.tags
    assert "&lt;script&gt;" in page
    assert "a &amp; b" in page
    assert [link[:22] for link in parser.links] == ["data:image/png;base64,"]
    assert base64.b64decode(parser.links[0][22:])[:4] == b"\x89PNG"
    assert "http" not in page


def test_text_table_cells_line_up():
    table = report.text_table(["a", "bb"], [["xxx", "1"], ["y", "22"]], [False, True])
    assert table.splitlines() == ["a    bb", "---  --", "xxx   1", "y    22"]


def test_names_cannot_break_the_table():
    names = ["two\nlines", "a\ttab", "bell\x07", "中文"]
    runs = RunTable.build([parse(f"cosine:peak={n}e-4,steps=100") for n in range(1, 5)], run_id=names, params=1e8)
    ranking = rank(runs, FakeLaw())
    lines = report.rank_table(ranking).split("\n")
    table = lines[2 : 4 + len(names)]
    assert all(text in "\n".join(table) for text in ("two\\nlines", "a\\ttab", "bell\\x07", "中文"))
    starts = {line.index("cosine:") + ("中文" in line) * 2 for line in table[2:]}
    assert starts == {lines[2].index("schedule")}  # columns line up; each of the two wide characters takes two
    assert "<td>two\\nlines</td>" in report.rank_html(ranking)
    assert [json.loads(report.rank_json(ranking))["candidates"][i]["name"] for i in range(4)] == [
        names[row] for row in ranking.order
    ]


def test_long_schedules_are_cut_in_the_table_only():
    points = "/".join(f"{100 * i}:{1e-3 + 1e-6 * i:.6f}" for i in range(60))
    text = f"piecewise:steps=6000,points={points}"
    ranking = rank(RunTable.build([parse(text), parse("cosine:peak=1e-3,steps=6000")], params=1e8), FakeLaw())
    table = report.rank_table(ranking)
    assert max(map(len, table.splitlines()[2:6])) < 240
    assert "...: cut at 120 characters; --format csv or json has all of it" in table
    assert str(parse(text)) in report.rank_csv(ranking)
    assert str(parse(text)) in report.rank_html(ranking).replace("<wbr>", "")


def test_long_cells_of_the_page_may_be_broken_the_others_not():
    specs = ["wsd:peak=1e-3,steps=6000,decay=0.2,shape=sqrt", "cosine:peak=1e-3,steps=6000"]
    runs = RunTable.build([parse(spec) for spec in specs], run_id=["short", "a,long,name,of,a,candidate,from,a,grid"])
    page = report.rank_html(rank(runs, FakeLaw()))
    assert "<td class=w>wsd:peak=0.001,<wbr>steps=6000,<wbr>decay=0.2,<wbr>shape=sqrt</td>" in page
    assert "<td>short</td>" in page
    assert "<td class=w>a,<wbr>long,<wbr>" in page
    assert "td.w { white-space: normal; overflow-wrap: anywhere;" in page


def test_risks_for_machines_are_0_where_they_say_no_more_than_very_small():
    runs = RunTable.build([parse(f"cosine:peak={n}e-4,steps=100") for n in (1, 2, 3, 4)])
    ranking = replace(rank(runs, FakeLaw()), risk=np.array([1e-47, 9e-7, 2e-6, np.nan]))
    expected = [0.0, 0.0, 2e-6, None]
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(report.rank_csv(ranking)))}
    assert [rows[name]["divergence_risk"] for name in ranking.names] == ["0", "0", "2e-06", ""]
    entries = {entry["name"]: entry for entry in json.loads(report.rank_json(ranking))["candidates"]}
    assert [entries[name]["divergence_risk"] for name in ranking.names] == expected
