"""Run tables with other headers, with schedules key by key, and with statuses of trackers."""

import csv
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from optlaws import parse
from optlaws.errors import InputError, ReadingNote, TableError
from optlaws.runs import gather_candidates, parse_columns, read_runs

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SAID = (
    "run_id=Run name", "params=Non-emb params (M)*1e6", "tokens=Tokens (B)*1e9", "batch_tokens=Batch (seqs)*seq len",
    "seq_len=seq len", "optimizer=Optim", "weight_decay=WD", "family=Schedule", "peak_lr=LR",
    "warmup_steps=Warmup steps", "decay=Decay", "final_loss=eval loss", "status=state",
)  # fmt: skip


def table(tmp_path, header, *rows):
    path = tmp_path / "runs.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def optlaws(*args):
    return subprocess.run([sys.executable, "-m", "optlaws", *args], capture_output=True, text=True, check=False)


class TestTheExample:
    def test_is_the_other_one_in_other_words(self):
        ours = read_runs(EXAMPLES / "my_runs.csv")
        with pytest.warns(ReadingNote, match=r"'finished' as 'completed' \(36 runs\)$"):
            theirs = read_runs(EXAMPLES / "experiments.csv", True, parse_columns(SAID))
        assert theirs.run_id == ours.run_id
        assert theirs.schedules == ours.schedules
        assert theirs.status == ours.status
        assert theirs.optimizer == ours.optimizer
        for name in ("params", "tokens", "steps", "batch_tokens", "weight_decay", "final_loss"):
            assert np.array_equal(getattr(theirs, name), getattr(ours, name)), name
        assert set(theirs.seq_len) == {1024.0}

    def test_without_columns_the_error_proposes_what_then_works(self):
        done = optlaws("fit", str(EXAMPLES / "experiments.csv"), "-o", "-")
        assert done.returncode == 2
        assert "missing columns 'run_id', 'schedule', 'final_loss'; the file has Run name, " in done.stderr
        asked = done.stderr.partition("; say which is which: ")[2]
        for text in SAID:
            name, _, header = text.partition("=")
            assert f"--columns {name}={header}" in asked.replace('"', ""), text

    def test_ranks_and_says_how_the_status_was_read(self):
        said = [word for text in SAID for word in ("--columns", text)]
        done = optlaws("rank", str(EXAMPLES / "experiments.csv"), *said, "--format", "csv")
        assert done.returncode == 0
        assert len(list(csv.reader(done.stdout.splitlines()))) == 37
        assert "optlaws: note: " in done.stderr
        assert "status is read as ours: 'finished' as 'completed' (36 runs)" in done.stderr


class TestColumns:
    @pytest.mark.parametrize(("size", "factor"), [("124", "1e6"), ("3.1", "1e9"), ("1.1", "1000000"), ("0.7", "2.5B")])
    def test_products_are_rounded_once(self, size, factor, tmp_path):
        path = table(tmp_path, "run_id,schedule,size", f"a,cosine:peak=1e-3,{size}".replace("1e-3", '"1e-3'))
        path = table(tmp_path, "run_id,schedule,size", f'a,"cosine:peak=1e-3,steps=100",{size}')
        number = Fraction(factor.replace("B", "e9"))
        runs = read_runs(path, columns={"params": f"size * {factor}"})
        assert runs.params.tolist() == [float(Fraction(size) * number)]

    def test_empty_cells_stay_empty_and_others_keep_their_names(self, tmp_path):
        path = table(
            tmp_path, "n,s,size,seqs", 'a,"cosine:peak=1e-3,steps=100",,8', 'b,"cosine:peak=1e-3,steps=100",5M,4'
        )
        columns = {"run_id": "n", "schedule": "s", "params": "size*2", "batch_tokens": "seqs*1024"}
        runs = read_runs(path, columns=columns)
        assert np.isnan(runs.params[0])
        assert runs.params[1] == 1e7
        assert runs.batch_tokens.tolist() == [8192.0, 4096.0]
        assert runs.extra == {"size": ("", "5M"), "seqs": ("8", "4")}
        assert runs.columns == ("run_id", "schedule", "size", "seqs", "params", "batch_tokens")

    def test_a_header_that_looks_like_a_product(self, tmp_path):
        path = table(tmp_path, "run_id,schedule,a*b,a,b", 'x,"cosine:peak=1e-3,steps=100",7,2,3')
        assert read_runs(path, columns={"params": "a*b"}).params.tolist() == [7.0]

    def test_a_column_of_ours_that_is_overruled_is_named(self, tmp_path):
        path = table(tmp_path, "run_id,schedule,params,own", 'x,"cosine:peak=1e-3,steps=100",7,9')
        with pytest.warns(ReadingNote, match="column 'params' is not read, since --columns takes 'own'"):
            assert read_runs(path, columns={"params": "own"}).params.tolist() == [9.0]
        assert read_runs(path, columns={"params": "params*1e6"}).params.tolist() == [7e6]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("params", "--columns must be NAME=HEADER, got 'params'"),
            ("=x", "--columns must be NAME=HEADER"),
            ("parms=x", "must name a column of a run table .* got 'parms' .*; did you mean 'params'"),
        ],
    )
    def test_bad_texts(self, text, message):
        with pytest.raises(InputError, match=message):
            parse_columns([text])

    def test_twice(self):
        with pytest.raises(InputError, match="must say once what 'params' is, got 'a' and 'b'"):
            parse_columns(["params=a", "params=b"])

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"params": "Sise"}, "--columns params must name columns of the file .* got 'Sise'; .*did you mean 'Size'"),
            ({"params": "Size*-1"}, "numbers above 0, joined by .*, got '-1'"),
            ({"params": "Size*__import__('os')"}, "must name columns of the file and numbers above 0"),
            ({"params": "Name*2"}, "line 2: Name must be a number, as it is a factor of params, got 'x'"),
            ({"params": "Size*1e500"}, "must name columns of the file and numbers"),
        ],
    )
    def test_bad_headers(self, columns, message, tmp_path):
        path = table(tmp_path, "run_id,schedule,Size,Name", 'a,"cosine:peak=1e-3,steps=100",5,x')
        with pytest.raises(TableError, match=message):
            read_runs(path, columns=columns)

    def test_without_a_table(self):
        with pytest.raises(TableError, match="--columns names headers of a table, got no table"):
            gather_candidates(["cosine:peak=1e-3,steps=9"], columns={"params": "x"})
        law = "llama-slimpajama"
        for args in (["recommend", "--params", "1B", "--tokens", "1B"], ["design", "cosine:peak=1e-3,steps=9"]):
            done = optlaws(*args, "--columns", "params=x")
            assert (done.returncode, "--columns names headers of the table of --" in done.stderr) == (2, True), law


class TestKeyByKey:
    @pytest.mark.parametrize(
        ("header", "cells", "short"),
        [
            ("family,peak,warmup,steps", "cosine,1e-3,300,20K", "cosine:peak=1e-3,warmup=300,steps=20000"),
            ("schedule,peak_lr,warmup_steps,min_lr,steps", "Cosine,1e-3,300,1e-4,20000",
             "cosine:peak=1e-3,warmup=300,final=1e-4,steps=20000"),
            ("family,peak_lr,decay,steps", "WSD,1e-3,0.1,20000", "wsd:peak=1e-3,decay=0.1,steps=20000"),
            ("family,peak_lr,decay_steps,decay,steps", "wsd,1e-3,500,sqrt,20000",
             "wsd:peak=1e-3,decay=500,shape=sqrt,steps=20000"),
            ("family,peak_lr,final,tokens,batch_tokens", "linear,1e-3,10%,1B,100K",
             "linear:peak=1e-3,final=10%,steps=10000"),
            ("family,peak_lr,total_steps", "constant,1e-3,70", "constant:peak=1e-3,steps=70"),
        ],
    )  # fmt: skip
    def test_is_the_short_form(self, header, cells, short, tmp_path):
        runs = read_runs(table(tmp_path, f"run_id,{header}", f"a,{cells}"))
        assert runs.schedules == (parse(short),)

    def test_rows_of_both_kinds(self, tmp_path):
        path = table(
            tmp_path, "run_id,schedule,peak_lr,decay,steps", "a,wsd,1e-3,0.1,100", 'b,"cosine:peak=2e-3,steps=50",,,'
        )
        runs = read_runs(path)
        assert runs.schedules == (parse("wsd:peak=1e-3,decay=0.1,steps=100"), parse("cosine:peak=2e-3,steps=50"))

    @pytest.mark.parametrize(
        ("header", "cells", "message"),
        [
            ("family,peak_lr,decay", "cosine,1e-3,0.1", "schedule: key of cosine must be one of .* got 'decay'"),
            ("family,warmup", "cosine,300", "schedule: peak of cosine must be given"),
            ("family,peak_lr", "cosin,1e-3", "schedule: .*did you mean 'cosine'"),
            ("family,peak_lr", 'cosine,"0,001"', "peak_lr must be one value without a comma, got '0,001'"),
            ("family,peak,peak_lr", "cosine,1e-3,2e-3", "given once"),
            ("family,peak_lr", ",1e-3", "schedule: empty"),
            ("peak_lr,warmup", "1e-3,5", "missing column 'schedule'; .*; add a column family"),
        ],
    )
    def test_bad_ones(self, header, cells, message, tmp_path):
        path = table(tmp_path, f"run_id,steps,{header}", f"a,900,{cells}", f"b,900,{cells}".replace(",,", ",cosine,"))
        with pytest.raises(TableError, match=message):
            read_runs(path)

    def test_a_column_family_beside_whole_schedules_is_only_kept(self, tmp_path):
        path = table(tmp_path, "run_id,schedule,family,peak", 'a,"cosine:peak=1e-3,steps=100",mine,7')
        runs = read_runs(path)
        assert (runs.schedules, runs.extra["family"]) == ((parse("cosine:peak=1e-3,steps=100"),), ("mine",))


class TestStatuses:
    @pytest.mark.parametrize(
        ("word", "meant"),
        [
            ("finished", "completed"), ("Success", "completed"), ("DONE", "completed"), ("Completed", "completed"),
            ("crashed", "interrupted"), ("killed", "interrupted"), ("Failed", "interrupted"),
            ("NaN", "nonfinite"), ("Diverged", "diverged"),
        ],
    )  # fmt: skip
    def test_read_as_ours(self, word, meant, tmp_path):
        path = table(tmp_path, "run_id,schedule,status", f'a,"cosine:peak=1e-3,steps=100",{word}')
        with pytest.warns(ReadingNote, match=f"{word!r} as {meant!r} .1 run.$"):
            assert read_runs(path).status == (meant,)

    @pytest.mark.parametrize("word", ["running", "stopped", "early stop"])
    def test_refused(self, word, tmp_path):
        path = table(tmp_path, "run_id,schedule,status", f'a,"cosine:peak=1e-3,steps=100",{word}')
        with pytest.raises(TableError, match=f"status must be one of .*, got {word!r}"):
            read_runs(path)
