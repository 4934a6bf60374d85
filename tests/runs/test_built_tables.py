"""What `RunTable.build` takes: one value or one a run, numbers as texts and texts as numbers, missing cells."""

import math

import numpy as np
import pytest

from optlaws import fit_law, load_law, rank
from optlaws.errors import FitError, TableError
from optlaws.runs import RunTable, read_runs, write_runs

SHORT = "cosine:peak=1e-3,steps=50000,warmup=300"
SIZES = {"params": 85e6, "batch_tokens": 51200}
NAN = math.nan


@pytest.mark.parametrize(
    ("given", "held"),
    [
        ([768, 0.1], ("768", "0.1")),
        (np.array([1.0, NAN]), ("1", "")),
        ([np.float64(0.1) + 0.2, None], ("0.30000000000000004", "")),
        ([" a ", "b"], ("a", "b")),
        ("ab", ("ab", "ab")),
        (7, ("7", "7")),
        (np.array(7.5), ("7.5", "7.5")),
        (None, ("", "")),
        ([1e300, True], ("1e+300", "true")),
    ],
)
def test_extra_columns_are_texts(given, held, tmp_path):
    table = RunTable.build([SHORT] * 2, extra={"g": given})
    assert table.extra == {"g": held}
    assert table.column("g").tolist() == list(held)
    write_runs(tmp_path / "runs.csv", table)
    assert read_runs(tmp_path / "runs.csv").digest() == table.digest()


@pytest.mark.parametrize("kind", [list, np.array, lambda values: list(map(str, values))])
def test_a_width_may_be_a_number(kind):
    law = load_law("llama-slimpajama")
    table = RunTable.build([SHORT] * 2, extra={"width": kind([768, 2048])}, **SIZES)
    texts = RunTable.build([SHORT] * 2, extra={"width": ["768", "2048"]}, **SIZES)
    assert rank(table, law).risk.tolist() == rank(texts, law).risk.tolist()


@pytest.mark.parametrize("missing", [None, NAN, np.float64("nan")])
def test_missing_texts(missing):
    table = RunTable.build(
        [SHORT] * 2, optimizer=[missing, "adamw"], source=[missing, "a"], status=[missing, "diverged"]
    )
    assert (table.optimizer, table.source, table.status) == ((None, "adamw"), ("", "a"), (None, "diverged"))
    whole = RunTable.build([SHORT] * 2, optimizer=missing, source=missing, status=missing)
    assert (whole.optimizer, whole.source, whole.status) == ((None,) * 2, ("",) * 2, (None,) * 2)
    with pytest.raises(TableError, match="run_id is empty; give every run a unique name"):
        RunTable.build([SHORT] * 2, run_id=["a", missing])


def test_columns_of_pandas():
    pandas = pytest.importorskip("pandas")
    index = [7, 3]
    table = RunTable.build(
        pandas.Series([SHORT] * 2, index=index),
        run_id=pandas.Series([1, 2], index=index),
        params=pandas.Series([85_000_000, None], index=index, dtype="Int64"),
        optimizer=pandas.Series([None, None], index=index, dtype="object"),
        status=pandas.Series(["completed", None], index=index, dtype="str"),
        extra={"width": pandas.Series([768, None], index=index)},
    )
    assert (table.run_id, table.status, table.extra) == (("1", "2"), ("completed", None), {"width": ("768", "")})
    assert table.params[0] == 85e6
    assert math.isnan(table.params[1])


@pytest.mark.filterwarnings("ignore::optlaws.errors.OptlawsWarning")
def test_missing_texts_fit_and_are_saved(tmp_path):
    specs = ["cosine:peak=1e-3,steps=5000", "wsd:peak=1e-3,steps=5000"] * 3
    losses = [3.1, 3.0, 3.2, 3.1, 3.05, 3.1]
    runs = RunTable.build(specs, source=[NAN] * 6, extra={"g": ["a", None, "b"] * 2}, final_loss=losses)
    law = fit_law(runs)
    law.save(tmp_path / "law.json")
    assert load_law(tmp_path / "law.json") == law
    with pytest.raises(FitError, match="group column 'g' must be filled in every run, got an empty cell in 2 of 6"):
        fit_law(runs, group="g")


def test_counts_as_text():
    table = RunTable.build([SHORT] * 2, params="85M", batch_tokens=["51.2K", None])
    assert table.params.tolist() == [85e6] * 2
    assert table.batch_tokens[0] == 51200
    assert math.isnan(table.batch_tokens[1])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"source": ["a"]}, "column 'source' must have 2 entries, one a run, got 1"),
        ({"status": ["completed"]}, "column 'status' must have 2 entries, one a run, got 1"),
        ({"extra": {"g": [1, 2, 3]}}, "column 'g' must have 2 entries, one a run, got 3"),
        ({"params": "85 apples"}, "column 'params' must be one number or 2 numbers, got '85 apples'"),
        ({"beta1": ["90%", 0.9]}, "column 'beta1' must be one number or 2 numbers"),
    ],
)
def test_bad_columns(more, message):
    with pytest.raises(TableError, match=message):
        RunTable.build([SHORT] * 2, **more)
