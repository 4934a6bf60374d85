"""Curve tables."""

import numpy as np
import pytest

from optlaws.errors import TableError
from optlaws.runs import CurveTable, _cells, read_curves, write_curves


def write(path, text):
    path.write_text(text)
    return path


def test_reads_either_name_of_the_loss(tmp_path):
    table = read_curves(write(tmp_path / "c.csv", "run_id,step,lr,loss\na,10,0.1,3.5\nb,5,0.1,3.6\na,5,0.1,3.7\n"))
    assert table.loss.tolist() == [3.5, 3.6, 3.7]
    assert table.extra == {"lr": ("0.1",) * 3}
    assert {name: rows.tolist() for name, rows in table.runs().items()} == {"a": [2, 0], "b": [1]}
    other = read_curves(write(tmp_path / "v.csv", "run_id,step,val_loss\na,10,3.5\n"))
    assert other.loss.tolist() == [3.5]


def test_the_last_reading_of_a_step_counts(tmp_path):
    table = read_curves(write(tmp_path / "c.csv", "run_id,step,loss\na,10,3.5\na,20,3.4\na,10,3.6\n"))
    assert table.step.tolist() == [20, 10]
    assert table.loss.tolist() == [3.4, 3.6]


def test_readings_are_kept_and_ordered_as_one_by_one(tmp_path):
    """The twin keeps the last reading of a (run, step) by a dict, and orders a run's rows by sorting them."""
    random = np.random.default_rng(1)
    names = [f"r{i}" for i in random.integers(0, 7, 400)]
    steps, losses = random.integers(0, 30, 400).tolist(), random.uniform(2, 4, 400).tolist()
    lines = [f"{n},{k},{y!r}\n" for n, k, y in zip(names, steps, losses, strict=True)]
    table = read_curves(write(tmp_path / "c.csv", "run_id,step,loss\n" + "".join(lines)))
    last = {(n, k): row for row, (n, k) in enumerate(zip(names, steps, strict=True))}
    kept = sorted(last.values())
    assert table.run_id == tuple(names[row] for row in kept)
    assert table.step.tolist() == [steps[row] for row in kept]
    assert table.loss.tolist() == [losses[row] for row in kept]
    whole = CurveTable(tuple(names), np.array(steps), np.array(losses))
    for one in (table, whole):
        rows = {name: [i for i, other in enumerate(one.run_id) if other == name] for name in dict.fromkeys(one.run_id)}
        want = [(name, sorted(here, key=lambda row: one.step[row])) for name, here in rows.items()]
        assert [(name, found.tolist()) for name, found in one.runs().items()] == want
    assert CurveTable((), np.empty(0), np.empty(0)).runs() == {}


def _messy(blocks, end):
    """Return a CSV text of that many blocks of rows, some blank, some with a quoted cell of two lines; its lines."""
    lines, at, line = ["run_id,step,loss,note"], [], 2
    for row in range(blocks * _cells._BLOCK):
        if row % 5 == 3:
            lines.append("")
            line += 1
        note = f'"two{end}lines"' if row % 7 == 2 else "é"
        lines.append(f"a,{row},3,{note}")
        at.append(line)
        line += 2 if row % 7 == 2 else 1
    return end.join(lines) + end, at


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_in_messages_are_those_of_the_file(end, monkeypatch):
    """Whatever the parts in which a text is read."""
    monkeypatch.setattr(_cells, "_BLOCK", 16)
    monkeypatch.setattr(_cells, "_PART", 40)
    monkeypatch.setattr(_cells, "_VALUES", 20)
    text, at = _messy(5, end)
    raw = _cells.raw_from_csv(text, "c.csv")
    assert list(raw.places) == at
    assert raw.columns["step"] == [str(row) for row in range(len(at))]
    assert {*raw.columns["note"]} == {"é", f"two{end}lines"}
    for row in (0, 15, 16, 60):
        cut = text.replace(f"a,{row},3,", f"a,{row},3{end}b,", 1)
        with pytest.raises(TableError, match=f"line {at[row]}: 3 cells where the header has 4"):
            _cells.raw_from_csv(cut, "c.csv")
    with pytest.raises(TableError, match=rf"line {len(text.split(end))}: not a CSV table"):
        _cells.raw_from_csv(text + '"a"b,1,2,3' + end, "c.csv")


def test_steps_may_be_asked_for_without_losses(tmp_path):
    path = write(tmp_path / "c.csv", "run_id,step\na,10\na,20\n")
    assert np.isnan(read_curves(path, need_loss=False).loss).all()
    with pytest.raises(TableError, match="missing column 'loss'"):
        read_curves(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_round_trip(tmp_path, suffix):
    table = CurveTable(("a", "a"), np.array([1.0, 2.0]), np.array([0.1 + 0.2, np.nan]), {"lr": ("x", "y")})
    write_curves(tmp_path / f"c{suffix}", table)
    back = read_curves(tmp_path / f"c{suffix}", need_loss=False)
    assert back.run_id == table.run_id
    assert back.extra == table.extra
    np.testing.assert_array_equal(back.loss, table.loss)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("run_id,loss\na,3\n", "missing column 'step'"),
        ("run_id,step,loss\na,-1,3\n", "line 2: step must be a whole number of at least 0, got '-1'"),
        ("run_id,step,loss\na,1.5,3\n", "step must be a whole number"),
        ("run_id,step,loss\na,1,3\na,x,3\n", "line 3: step must be a number, got 'x'"),
        ("run_id,step,loss\na,1,nan\n", "line 2: loss must be a number, got nan"),
        ("run_id,step,loss\na,1,inf\n", "line 2: loss must be a finite number of nats per token above 0, got 'inf'"),
        ("run_id,step,loss\na,1,\n", "line 2: loss must be a finite number"),
        ("run_id,step,loss\n,1,3\n", "line 2: run_id is empty"),
    ],
)
def test_bad_curves(tmp_path, text, message):
    with pytest.raises(TableError, match=message):
        read_curves(write(tmp_path / "c.csv", text))


@pytest.mark.parametrize("cell", ["nan", "abc", "inf", "-1", ""])
def test_a_reading_without_a_loss_is_dropped_or_corrected(cell, tmp_path):
    """An empty cell is none either, so that no message says to leave it empty."""
    path = write(tmp_path / "c.csv", f"run_id,step,loss\na,10,3.5\na,20,{cell}\n")
    with pytest.raises(TableError, match=r"line 3: loss must be .*; drop the row or correct it$"):
        read_curves(path)


def test_concat():
    one = CurveTable(("a",), np.array([1.0]), np.array([3.0]))
    two = CurveTable(("b",), np.array([1.0]), np.array([3.0]), {"lr": ("1",)})
    assert CurveTable.concat([one, two]).extra == {"lr": ("", "1")}
    with pytest.raises(TableError, match="occurs in two"):
        CurveTable.concat([one, one])


def test_public_curves(data_dir):
    sizes = {"mpl_curves.csv": 4613, "schaipp_curves.csv": 20051}
    for name in sizes:
        if (data_dir / name).exists():
            table = read_curves(data_dir / name)
            assert len(set(zip(table.run_id, table.step.tolist(), strict=True))) == len(table)


FRAME = {"run_id": [1, 1, 2, 1], "step": [100, 200, 100, 200], "loss": [4.1, 3.8, 4.0, 3.7], "seed": [7, None, 8, 7]}


def test_curves_of_columns():
    table = CurveTable.from_frame(FRAME)
    assert table.run_id == ("1", "2", "1")
    assert (table.step.tolist(), table.loss.tolist()) == ([100, 100, 200], [4.1, 4.0, 3.7])  # the last reading counts
    assert table.extra == {"seed": ("7", "8", "7")}


def test_curves_of_pandas_there_and_back():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(FRAME, index=[5, 5, 3, 9]).iloc[[0, 2, 3]]
    table = CurveTable.from_frame(frame)
    again = CurveTable.from_frame(table.to_frame())
    by_hand = CurveTable(frame["run_id"], frame["step"], frame["loss"], {"seed": ("7", "8", "7")})
    for other in (again, by_hand):
        assert (other.run_id, other.extra) == (table.run_id, table.extra)
        assert (other.step.tolist(), other.loss.tolist()) == (table.step.tolist(), table.loss.tolist())
    assert list(by_hand.runs()) == ["1", "2"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"step": [-1, 2, 3, 4]}, "row 1: step must be a whole number of at least 0, got -1"),
        ({"loss": [3.0, -2.0, 3.0, 3.0]}, "row 2: loss must be a finite number of nats per token above 0, got -2"),
        ({"loss": [3.0, None, 3.0, 3.0]}, "row 2: loss must be a finite number"),
        ({"step": ["x", 2, 3, 4]}, "row 1: step must be a number, got 'x'"),
        ({"run_id": [None, 1, 1, 2]}, "row 1: run_id is empty"),
    ],
)
def test_columns_that_are_no_curves(columns, message):
    with pytest.raises(TableError, match=message):
        CurveTable.from_frame({**FRAME, **columns})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((["a", "a"], [1, -2], [3.0, 2.9]), "reading 2: step must be a whole number of at least 0, got -2"),
        ((["a", "a"], [1, 2.5], [3.0, 2.9]), "reading 2: step must be a whole number of at least 0, got 2.5"),
        (
            (["a", "a"], [1, 2], [3.0, -2.9]),
            "reading 2: loss must be a finite number of nats per token above 0, got -2.9",
        ),
        ((["a", ""], [1, 2], [3.0, 2.9]), "reading 2: run_id is empty"),
        ((["a"], ["x"], [3.0]), r"column 'step' must be 1 numbers, got \['x'\]"),
    ],
)
def test_readings_that_are_none(columns, message):
    with pytest.raises(TableError, match=message):
        CurveTable(*columns)
