"""Run tables: reading, checking, writing, selecting."""

import json
import math

import numpy as np
import pytest

from optlaws.errors import InputError, OptlawsWarning, ScheduleError, TableError
from optlaws.runs import RUN_COLUMNS, RunTable, read_runs, write_runs
from optlaws.schedules import ScheduleBatch, parse

COSINE = '{"kind": "cosine", "peak_lr": 0.001, "total_steps": 1000, "warmup_steps": 100, "final_lr": 0.0}'
HEADER = "run_id,params,tokens,steps,batch_tokens,schedule,status,final_loss"


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def row(
    run_id="a", params="1e8", tokens="", steps="1000", batch="5e5", schedule=COSINE, status="completed", loss="3.1"
):
    return ",".join([run_id, params, tokens, steps, batch, quoted(schedule), status, loss])


def write(path, *rows, header=HEADER):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_reads_a_csv_and_fills_what_follows(tmp_path):
    table = read_runs(write(tmp_path / "runs.csv", row("a"), row("b", tokens="5e8", batch="", status="", loss="")))
    assert table.run_id == ("a", "b")
    assert table.schedules[0] == parse(COSINE)
    assert table.tokens.tolist() == [5e8, 5e8]
    assert table.batch_tokens.tolist() == [5e5, 5e5]
    assert table.steps.tolist() == [1000, 1000]
    assert table.status == ("completed", None)
    assert math.isnan(table.final_loss[1])
    assert math.isnan(table.beta1[0])
    assert table.optimizer == (None, None)


def test_short_forms_take_their_length_from_the_column(tmp_path):
    table = read_runs(write(tmp_path / "runs.csv", row("a", schedule="wsd:peak=1e-3,decay=0.2", steps="400")))
    assert table.schedules[0] == parse("wsd:peak=1e-3,decay=0.2,steps=400")


def test_keeps_unknown_columns_and_their_order(tmp_path):
    path = write(
        tmp_path / "runs.csv", f"x,{quoted(COSINE)},7,2.5,run-1", header="colour,schedule,seed,final_loss,run_id"
    )
    table = read_runs(path)
    assert table.extra == {"colour": ("x",), "seed": ("7",)}
    out = tmp_path / "out.csv"
    write_runs(out, table, {"predicted_loss": [2.4], "seed": [8]})
    lines = out.read_text().splitlines()
    assert lines[0] == "colour,schedule,final_loss,run_id,predicted_loss,seed"
    assert lines[1].endswith(",2.5,run-1,2.4,8")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_round_trip(tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    table = RunTable.build(
        [parse("cosine:peak=1e-3,steps=1000"), parse("wsd:peak=0.1,steps=333,decay=0.2,warmup=7")],
        run_id=["a", 'b "quoted", with comma'],
        params=[1e8 / 3, math.nan],
        batch_tokens=524288,
        optimizer="adamw",
        beta1=0.9,
        weight_decay=0.1,
        status=["completed", "diverged"],
        final_loss=[0.1 + 0.2, None],
        extra={"seed": ["1", ""]},
    )
    path = tmp_path / f"runs{suffix}"
    write_runs(path, table)
    back = read_runs(path)
    assert back.digest() == table.digest()
    assert back.columns == table.columns == (*RUN_COLUMNS, "seed")
    assert back.final_loss[0] == 0.1 + 0.2
    write_runs(tmp_path / f"again{suffix}", back)
    if suffix != ".parquet":
        assert path.read_bytes() == (tmp_path / f"again{suffix}").read_bytes()


def test_digest_ignores_order_and_sees_content(tmp_path):
    first = write(tmp_path / "a.csv", row("a"), row("b", loss="3.2"))
    second = write(tmp_path / "b.csv", row("b", loss="3.2"), row("a"))
    third = write(tmp_path / "c.csv", row("a"), row("b", loss="3.3"))
    assert read_runs(first).digest() == read_runs(second).digest() != read_runs(third).digest()
    assert len(read_runs(first).digest()) == 64


def test_json_lines_with_objects(tmp_path):
    path = tmp_path / "runs.jsonl"
    record = {"run_id": "a", "schedule": json.loads(COSINE), "params": 10**8, "batch_tokens": None, "tags": ["x", 1]}
    path.write_text(json.dumps(record) + "\n\n" + json.dumps({**record, "run_id": "b", "final_loss": 2.0}) + "\n")
    table = read_runs(path)
    assert table.params.tolist() == [1e8, 1e8]
    assert np.isnan(table.batch_tokens).all()
    assert table.extra["tags"] == ('["x", 1]',) * 2


BAD_ROWS = {
    "text in a number": (row(params="big"), "line 3: params must be a number, got 'big'"),
    "written nan": (row(params="nan"), "line 3: params must be a number, got nan"),
    "negative size": (row(params="-5"), "line 3: params must be a finite number above 0, got -5"),
    "infinite size": (row(params="inf"), "params must be a finite number above 0, got inf"),
    "zero tokens": (row(tokens="0"), "tokens must be a finite number above 0, got 0"),
    "nan loss": (row(loss="nan"), "line 3: final_loss must be a number, got nan"),
    "infinite loss": (row(loss="inf"), "final_loss of a completed run must be a finite number"),
    "negative loss": (row(loss="-1"), "final_loss of a completed run must be a finite number"),
    "infinite loss, no status": (row(status="", loss="inf"), "final_loss of a completed run must be a finite number"),
    "unknown status": (row(status="over"), "status must be one of completed, diverged, nonfinite, interrupted"),
    "cut-off JSON": (row(schedule=COSINE[:40]), "line 3: schedule: not valid JSON"),
    "unknown schedule": (row(schedule=COSINE.replace("cosine", "cosin")), "did you mean 'cosine'"),
    "unknown key": (row(schedule=COSINE.replace("peak_lr", "peek_lr")), "did you mean 'peak_lr'"),
    "schedule a list": (row(schedule="[1, 2]"), "schedule: "),
    "no schedule": (row(schedule=""), "line 3: schedule: empty"),
    "negative rate": (row(schedule=COSINE.replace("0.001", "-0.001")), "line 3: schedule: "),
    "nan rate": (
        row(schedule=COSINE.replace("0.001", "NaN")),
        "got nan; give the absolute learning rate, as in peak=0.001",
    ),
    "infinite steps": (row(schedule="cosine:peak=1e-3", steps="inf"), "line 3: schedule: steps"),
    "other length": (row(steps="999"), "steps is 999 but the schedule has 1000 steps"),
    "tokens beyond numbers": (row(tokens="", batch="1e308"), "must be a finite number, got 1000 * 1e+308"),
    "tokens do not fit": (row(tokens="1e9"), "tokens is 1000000000 but steps * batch_tokens is 1000 * 500000"),
    "twice": (row("first"), "run_id 'first' was used before"),
    "no name": (row(""), "run_id is empty"),
    "too few cells": ("a,b", "line 3: 2 cells where the header has 8"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_are_refused_in_one_sentence(tmp_path, case):
    bad, message = BAD_ROWS[case]
    path = write(tmp_path / "runs.csv", row("first"), bad)
    with pytest.raises(TableError) as error:
        read_runs(path)
    text = str(error.value)
    assert message in text
    assert str(path) in text
    assert "line 3" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "nothing in it"),
        ("  \n\n", "nothing in it"),
        (HEADER + "\n", "only a header and no row"),
        ("run_id,params\na,1\n", "missing column 'schedule'"),
        (
            "run,shedule\na,1\n",
            "missing columns 'run_id', 'schedule'; the file has run, shedule; say which is which: --columns run_id=run"
            " --columns schedule=shedule",
        ),
        (f"{HEADER},run_id\n{row()},x\n", "column 'run_id' occurs twice"),
        (f"{HEADER},\n{row()},x\n", "column 9 of the header has no name"),
        (f'{HEADER}\n"a', "not a CSV table"),
    ],
)
def test_bad_files_are_refused(tmp_path, content, message):
    path = tmp_path / "runs.csv"
    path.write_text(content)
    with pytest.raises(TableError, match=message.replace("*", r"\*")) as error:
        read_runs(path)
    assert str(path) in str(error.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(TableError, match="no such file"):
        read_runs(tmp_path / "nothing.csv")
    with pytest.raises(TableError, match="suffix must be"):
        read_runs(tmp_path / "runs.xlsx")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(TableError, match="this is a folder"):
        read_runs(tmp_path / "folder.csv")
    (tmp_path / "latin.csv").write_bytes(HEADER.encode() + b"\n\xff\xfe")
    with pytest.raises(TableError, match="not UTF-8"):
        read_runs(tmp_path / "latin.csv")
    (tmp_path / "runs.parquet").write_bytes(b"PAR1 cut off")
    pytest.importorskip("pyarrow")
    with pytest.raises(TableError, match="not a Parquet file"):
        read_runs(tmp_path / "runs.parquet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"run_id": "a", "schedule": {"kind": "cos', "line 1: not valid JSON"),
        ('"text"\n', "line 1: a JSON object"),
        (
            '{"run_id": "a", "schedule": "cosine:peak=1e-3,steps=10", "params": true}',
            "params must be a number, got True",
        ),
        ('{"run_id": "a", "schedule": "cosine:peak=1e-3,steps=10", "params": NaN}', "params must be a number, got nan"),
        (
            '{"run_id": "a", "schedule": "cosine:peak=1e-3,steps=10", "params": [1]}',
            r"params must be a number, got \[1\]",
        ),
        ('{"run_id": "a", "schedule": 5}', "schedule: a short form or a JSON object is needed, got 5"),
    ],
)
def test_bad_json_lines(tmp_path, content, message):
    path = tmp_path / "runs.jsonl"
    path.write_text(content)
    with pytest.raises(TableError, match=message):
        read_runs(path)


def test_losses_may_be_missing_or_odd_where_the_run_failed(tmp_path):
    rows = [
        row("a", status="diverged", loss=""),
        row("b", status="nonfinite", loss="nan"),
        row("c", status="diverged", loss="inf"),
    ]
    table = read_runs(write(tmp_path / "runs.csv", *rows, row("d", status="interrupted", loss="9.5")), need_loss=True)
    assert np.isnan(table.final_loss[:3]).all()
    assert table.final_loss[3] == 9.5


def test_need_loss(tmp_path):
    path = write(tmp_path / "runs.csv", row("a"), row("b", loss="", status=""))
    assert len(read_runs(path)) == 2
    with pytest.raises(TableError, match="line 3: final_loss of run 'b' is empty"):
        read_runs(path, need_loss=True)
    bare = write(tmp_path / "bare.csv", "a,cosine:peak=1e-3", header="run_id,schedule")
    with pytest.raises(TableError, match="missing column 'final_loss'"):
        read_runs(bare, need_loss=True)


def test_misspelled_columns_are_pointed_out(tmp_path):
    path = write(tmp_path / "runs.csv", f"a,{quoted(COSINE)},0.1", header="run_id,schedule,weigth_decay")
    with pytest.warns(OptlawsWarning, match="did you mean 'weight_decay'"):
        table = read_runs(path)
    assert "weigth_decay" in table.extra


@pytest.mark.parametrize(
    ("column", "meant"), [("Params", "params"), ("STATUS", "status"), ("Batch Tokens", "batch_tokens")]
)
def test_columns_in_other_letters_are_pointed_out(tmp_path, column, meant):
    path = write(tmp_path / "runs.csv", f"a,{quoted(COSINE)},7", header=f"run_id,schedule,{column}")
    with pytest.warns(OptlawsWarning, match=f"column '{column}' is not known and only kept; did you mean '{meant}'"):
        read_runs(path)
    path = write(tmp_path / "runs.csv", f"a,{quoted(COSINE)}", header="RUN_ID,Schedule")
    with pytest.raises(TableError, match="names are in lower case: rename 'RUN_ID', 'Schedule'"):
        read_runs(path)


def test_counts_may_be_written_short(tmp_path):
    table = read_runs(write(tmp_path / "runs.csv", row(params="60M", batch="0.5M", steps="1K")))
    assert (table.params[0], table.batch_tokens[0], table.tokens[0]) == (6e7, 5e5, 5e8)
    for bad in ({"params": "60X"}, {"loss": "3K"}):
        with pytest.raises(TableError, match=r"line 2: (params|final_loss) must be a number, got"):
            read_runs(write(tmp_path / "runs.csv", row(**bad)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"run_id": "a", "run_id": "b", "schedule": "x"}\n', "line 1: not valid JSON .key 'run_id' occurs twice"),
        ('[{"run_id": "a", "params": 1, "params": 2}]', "not valid JSON .key 'params' occurs twice"),
        ('{"run_id": ' + "[" * 100_000 + "]" * 100_000 + "}\n", "line 1: not valid JSON .maximum recursion depth"),
        ("[" * 100_000 + "]" * 100_000, "not valid JSON .maximum recursion depth"),
    ],
)
def test_json_that_says_two_things_or_has_no_end(tmp_path, text, message):
    (tmp_path / "runs.jsonl").write_text(text)
    with pytest.raises(TableError, match=message):
        read_runs(tmp_path / "runs.jsonl")


def test_select_concat_column():
    table = RunTable.build([parse(f"cosine:peak=1e-3,steps={n}") for n in (10, 20, 30)], params=[1.0, 2.0, 3.0])
    assert table.select([2, 0]).run_id == ("3", "1")
    assert table.select(table.params > 1).steps.tolist() == [20, 30]
    assert table.select(slice(0, 1)).schedules == table.schedules[:1]
    assert len(table.select([])) == 0
    joined = RunTable.concat([table.select([0]), table.select([1, 2])])
    assert joined.digest() == table.digest()
    assert table.column("schedule")[0] == table.schedules[0].to_json()
    assert table.column("status").tolist() == ["", "", ""]
    with pytest.raises(TableError, match="did you mean 'params'"):
        table.column("param")
    with pytest.raises(TableError, match="run_id '1' occurs in two"):
        RunTable.concat([table, table])
    with pytest.raises(ValueError, match="read-only"):
        table.params[0] = 5


def test_build_checks_what_a_file_would():
    schedule = parse("cosine:peak=1e-3,steps=10")
    with pytest.raises(TableError, match=r"run 'a'.*run_id 'a' was used before"):
        RunTable.build([schedule, schedule], run_id=["a", "a"])
    with pytest.raises(TableError, match="beta1 must be at least 0 and below 1, got 1"):
        RunTable.build(schedule, beta1=1.0)
    with pytest.raises(TableError, match="must be one number or 1 numbers"):
        RunTable.build(schedule, params=[1.0, 2.0])
    with pytest.raises(InputError, match="status must be one of"):
        RunTable.build(schedule, status="done")


def test_a_batch_of_schedules_needs_no_objects():
    batch = ScheduleBatch.grid("cosine", peak=np.geomspace(1e-4, 1e-2, 1000), steps=10**6)
    table = RunTable.build(batch, params=1e8, batch_tokens=5e5)
    assert table.tokens[0] == 5e11
    assert len(table.select(slice(10)).batch()) == 10
    with pytest.raises(TableError, match="has no Schedule objects"):
        table.schedule_tuple()


def test_a_long_written_out_schedule_fits_in_a_cell(tmp_path):
    table = RunTable.build([parse({"kind": "array", "values": np.linspace(1e-3, 1e-5, 20000).tolist()})])
    write_runs(tmp_path / "runs.csv", table)
    assert read_runs(tmp_path / "runs.csv").schedules == table.schedules


def test_ten_thousand_rows(tmp_path):
    rows = [
        row(f"run-{i}", schedule=COSINE.replace("0.001", repr(1e-3 + i * 1e-7)), loss=repr(3 + i * 1e-5))
        for i in range(10_000)
    ]
    table = read_runs(write(tmp_path / "runs.csv", *rows), need_loss=True)
    assert len(table) == 10_000
    assert table.final_loss[-1] == 3 + 9999 * 1e-5
    assert table.schedule_tuple()[-1].peak == pytest.approx(1e-3 + 9999 * 1e-7, rel=1e-12)


@pytest.mark.parametrize("name", ["marin", "mpl", "nqs", "schaipp", "steplaw"])
def test_public_tables(data_dir, name, tmp_path):
    path = data_dir / f"{name}_runs.csv"
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    table = read_runs(path, need_loss=True)
    assert (table.steps > 0).all()
    assert set(table.status) <= {"completed", "diverged"}
    write_runs(tmp_path / "copy.csv", table)
    assert read_runs(tmp_path / "copy.csv").digest() == table.digest()


def test_a_table_is_built_from_short_forms():
    text = "cosine:peak=1e-3,steps=1000,warmup=100"
    runs = RunTable.build([text, "wsd:peak=1e-3,steps=500,decay=0.2"], params=1e7)
    assert runs.steps.tolist() == [1000.0, 500.0]
    assert RunTable.build(text).schedule_tuple() == (runs.schedule_tuple()[0],)
    with pytest.raises(ScheduleError, match="did you mean 'cosine'"):
        RunTable.build("cosin:peak=1e-3,steps=1000")


def test_names_given_in_python():
    schedule = parse("cosine:peak=1e-3,steps=10")
    table = RunTable.build([schedule] * 2, run_id=[7, 8])
    assert table.run_id == ("7", "8")
    assert repr(table) == "<RunTable of 2 runs; columns run_id, steps, schedule>"
    assert RunTable.build(schedule, run_id="mine").run_id == ("mine",)
    with pytest.raises(TableError, match="run_id must have 1 entries, one a schedule, got 2; name every run once"):
        RunTable.build(schedule, run_id=["a", "b"])


class TestLengths:
    """A schedule without a length has as many steps as its tokens and batch say."""

    def test_in_python(self):
        runs = RunTable.build(
            ["cosine:peak=1e-3,warmup=100", "cosine:peak=1e-3,steps=500"], tokens=[1e8, None], batch_tokens=30_000
        )
        assert runs.steps.tolist() == [3333.0, 500.0]
        assert runs.tokens.tolist() == [1e8, 500 * 30_000]
        with pytest.raises(ScheduleError, match="steps of cosine must be given"):
            RunTable.build("cosine:peak=1e-3", tokens=1e8)

    def test_in_a_file(self, tmp_path):
        path = tmp_path / "runs.csv"
        path.write_text('run_id,tokens,batch_tokens,schedule\na,100M,30K,"cosine:peak=1e-3"\n')
        assert read_runs(path).steps.tolist() == [3333.0]


@pytest.mark.parametrize(
    ("word", "meant"), [("finished", "completed"), ("Crashed", "interrupted"), ("nan", "nonfinite")]
)
def test_the_states_of_trackers(word, meant):
    with pytest.raises(TableError, match=f"status must be one of .* or empty, got {word!r}; write {meant!r} for it"):
        RunTable.build("cosine:peak=1e-3,steps=500", status=word)
