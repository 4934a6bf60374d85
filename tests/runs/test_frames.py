"""Run tables from and to data frames and mappings of columns; what is no run table."""

import math
import sys

import numpy as np
import pytest

from optlaws import CurveTable, load_law
from optlaws.errors import InputError, TableError
from optlaws.runs import RunTable, check_runs, read_runs, write_runs
from optlaws.schedules import ScheduleBatch, parse

SHORT = "wsd:peak=1e-3,steps=400,decay=0.2"
COLUMNS = {
    "run_id": ["a", "b"],
    "schedule": [SHORT, parse("cosine:peak=1e-3,steps=100")],
    "params": ["85M", 2e8],
    "batch_tokens": np.array([51200, math.nan]),
    "status": [None, "diverged"],
    "final_loss": [3.1, math.nan],
    "seed": [1, None],
}


class Frame:
    """As little as a data frame has."""

    def __init__(self, columns):
        self.columns, self.held = list(columns), columns

    def __getitem__(self, name):
        return self.held[name]


@pytest.mark.parametrize("kind", [dict, Frame])
def test_columns(kind):
    table = RunTable.from_frame(kind(COLUMNS))
    assert table.run_id == ("a", "b")
    assert table.schedules == (parse(SHORT), parse("cosine:peak=1e-3,steps=100"))
    assert table.params.tolist() == [85e6, 2e8]
    assert table.tokens[0] == 400 * 51200
    assert table.status == (None, "diverged")
    assert np.isnan([table.batch_tokens[1], table.final_loss[1]]).all()
    assert table.extra == {"seed": ("1", "")}


def test_pandas_there_and_back(tmp_path):
    pandas = pytest.importorskip("pandas")
    table = RunTable.from_frame(COLUMNS)
    write_runs(tmp_path / "runs.csv", table)
    frame = pandas.read_csv(tmp_path / "runs.csv")
    again = RunTable.from_frame(frame)
    assert again.digest() == table.digest() == read_runs(tmp_path / "runs.csv").digest()
    frame = table.to_frame()
    assert list(frame.columns) == list(COLUMNS)
    assert frame["params"].tolist() == [85e6, 2e8]
    assert frame["schedule"][0] == SHORT
    back = RunTable.from_frame(frame)
    assert (back.digest(), back.status) == (table.digest(), table.status)
    assert RunTable.from_frame(frame.convert_dtypes()).digest() == table.digest()  # with pandas' own NA


def test_pandas_is_not_needed(monkeypatch):
    table = RunTable.from_frame(COLUMNS)
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert RunTable.from_frame(COLUMNS).digest() == table.digest()
    with pytest.raises(InputError, match="to_frame needs pandas, which is not installed; install it") as error:
        table.to_frame()
    assert "\n" not in str(error.value)


def changed(**changes):
    columns = {**COLUMNS, **changes}
    return {name: cells for name, cells in columns.items() if cells is not ...}


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        ([SHORT], "frame must be a data frame or a mapping of column name to cells, got list; use RunTable.build"),
        ({}, "data frame: no column"),
        ({"run_id": [], "schedule": []}, "data frame: no row"),
        (changed(schedule=...), "data frame: missing column 'schedule'; it has run_id, params"),
        (changed(run_id=["a", "a"]), r"data frame, row 2: run_id 'a' was used before \(data frame, row 1\)"),
        (changed(run_id=["a"]), "column 'run_id' must have 2 cells as the others, got 1"),
        (changed(run_id="ab"), "column 'run_id' must be a list of cells, got 'ab'"),
        (changed(params=["big", 1]), "data frame, row 1: params must be a number, got 'big'"),
        (changed(params=[True, 1]), "data frame, row 1: params must be a number, got True"),
        (changed(schedule=["cosin:peak=1", SHORT]), "data frame, row 1: schedule: .*did you mean 'cosine'"),
        (changed(final_loss=[-1, 3]), "data frame, row 1: final_loss of a completed run must be a finite number"),
        ({3: [1]}, "names of columns must be text, got 3"),
    ],
)
def test_one_sentence_for_what_is_wrong(frame, why):
    with pytest.raises(TableError, match=why) as error:
        RunTable.from_frame(frame)
    assert "\n" not in str(error.value)


def test_a_loss_may_be_needed():
    with pytest.raises(TableError, match="data frame, row 1: final_loss of run 'a' is empty"):
        RunTable.from_frame(changed(final_loss=[None, None]), need_loss=True)


class TestWhatIsNoRunTable:
    def test_check(self):
        table = RunTable.from_frame(COLUMNS)
        assert check_runs(table) is table
        with pytest.raises(InputError, match=r"pool must be a RunTable, got dict; .* RunTable\.build .*\.from_frame"):
            check_runs(COLUMNS, "pool")

    @pytest.mark.parametrize("given", [[SHORT], COLUMNS, "runs.csv", None])
    def test_laws_say_so(self, given):
        law = load_law("llama-slimpajama")
        asked = (
            law.predict,
            law.expected_loss,
            law.complete,
            lambda runs: law.predict_curve(runs, [np.array([1.0])]),
        )
        for ask in asked:
            with pytest.raises(InputError, match=r"runs must be a RunTable, got .*RunTable\.from_frame") as error:
                ask(given)
            assert "\n" not in str(error.value)


class TestShortDescriptions:
    def test_runs(self):
        table = RunTable.from_frame(COLUMNS)
        assert repr(table) == (
            "<RunTable of 2 runs; columns run_id, params, tokens, steps, batch_tokens, schedule, status, final_loss, "
            "seed>"
        )
        assert "1 run;" in repr(table.select([0]))
        many = RunTable.build(ScheduleBatch.grid("cosine", peak=np.linspace(1e-4, 1e-3, 2000), steps=100))
        assert repr(many) == "<RunTable of 2,000 runs; columns run_id, steps, schedule>"

    def test_curves(self):
        curves = CurveTable(("a", "a", "b"), np.arange(3.0), np.ones(3), {"lr": ("", "", "")})
        assert repr(curves) == "<CurveTable of 3 readings of 2 runs; columns run_id, step, loss, lr>"

    def test_laws(self):
        law = load_law("llama-slimpajama")
        text = repr(law)
        assert text.startswith("<Law 'llama-slimpajama', basis sde16, 181 runs; domain peak_lr 0.0001 .. 0.002,")
        assert "warmup_steps 300," in text
        assert len(text) < 400
        assert "\n" not in text


class TestSchedulesAsTheyWereRead:
    SPECS = ("wsd:peak=1e-3, decay=0.2", '{"kind": "cosine", "peak_lr": 1e-3, "total_steps": 100}', " linear:peak=1")
    STEPS = (400, None, 7)

    def table(self):
        return RunTable.from_frame({"run_id": ["a", "b", "c"], "schedule": self.SPECS, "steps": self.STEPS})

    @pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
    def test_texts_are_written_again(self, tmp_path, suffix):
        if suffix == "parquet":
            pytest.importorskip("pyarrow")
        path = tmp_path / f"runs.{suffix}"
        write_runs(path, self.table(), {"predicted_loss": [1.0, 2.0, 3.0]})
        back = read_runs(path)
        assert back.schedule_cells() == self.SPECS
        assert back.schedules == self.table().schedules

    def test_objects_in_json_lines_stay_objects(self, tmp_path):
        text = '{"run_id": "a", "schedule": {"kind": "cosine", "peak": "1e-3", "steps": 9}}\n'
        (tmp_path / "runs.jsonl").write_text(text)
        write_runs(tmp_path / "again.jsonl", read_runs(tmp_path / "runs.jsonl"))
        assert (tmp_path / "again.jsonl").read_text() == text

    def test_they_follow_the_runs(self):
        table = self.table()
        assert table.select([2, 0]).schedule_cells() == (self.SPECS[2], self.SPECS[0])
        made = RunTable.build("cosine:peak=1e-3,steps=5", run_id=["d"])
        joined = RunTable.concat([table, made])
        assert joined.schedule_cells() == (*self.SPECS, made.schedules[0].to_json())
        assert made.schedule_cells() == (made.schedules[0].to_json(),)

    def test_other_schedules_in_their_place_are_written_instead(self):
        from dataclasses import replace

        table = self.table()
        assert replace(table, params=np.ones(3)).schedule_cells() == self.SPECS
        other = tuple(parse(f"constant:peak=1e-3,steps={n}") for n in (400, 100, 7))
        assert replace(table, schedules=other).schedule_cells() == tuple(one.to_json() for one in other)
