"""Every command, in process, with a stand-in for the law."""

import csv
import io
import json
import re
import sys
import types

import numpy as np
import pytest
from fake_law import FakeLaw

import optlaws.law as real_law
from optlaws.errors import ExtrapolationWarning, FitError, LawError, OptlawsWarning
from optlaws.runs import RunTable, read_runs, write_runs
from optlaws.schedules import parse

SPECS = ["cosine:peak=1e-3", "wsd:peak=1e-3,decay=0.2"]
SIZES = ["--params", "85M", "--tokens", "2.56B", "--batch-tokens", "51200"]


@pytest.fixture(autouse=True)
def laws(monkeypatch):
    """Put a module with made-up laws in the place of the real one."""
    module = types.ModuleType("optlaws.law")
    module.__path__ = real_law.__path__  # its modules are the real ones
    fitted = {}

    def load_law(name):
        if name not in ("llama-slimpajama", "other"):
            raise LawError(
                f"law {name!r} is not built in and no such file exists; optlaws laws lists the built-in ones"
            )
        return FakeLaw(name=name)

    def fit_law(runs, curves=None, group=None, basis=None, calibrate=(), name=None, progress=None):
        fitted.update(runs=runs, curves=curves, group=group, basis=basis, name=name)
        return FakeLaw(name=name)

    module.load_law, module.fit_law = load_law, fit_law
    module.load_any_law = lambda name: module.load_law(name)
    module.with_risk = lambda law, runs: law
    module.builtin_names = lambda: ["llama-slimpajama", "other"]
    module.fitted = fitted
    monkeypatch.setitem(sys.modules, "optlaws.law", module)
    return module


@pytest.fixture
def table(tmp_path):
    runs = RunTable.build(
        [parse("cosine:peak=1e-3,steps=1000"), parse("wsd:peak=5e-3,steps=2000,decay=0.2")],
        run_id=["a", "b"],
        params=1e8,
        batch_tokens=5e5,
        source=["x", "y"],
        final_loss=[3.1, 3.2],
        extra={"seed": ["1", "2"]},
    )
    write_runs(tmp_path / "runs.csv", runs)
    return tmp_path / "runs.csv"


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_rank_prints_a_table_and_advice(run):
    code, out, err = run("rank", *SPECS, *SIZES)
    assert (code, err) == (0, "")
    assert "85M parameters, 2.56B tokens, 51.2K tokens a step; assumed: weight decay 0.1" in out.splitlines()[0]
    assert "wsd:peak=0.001,steps=50000,decay=0.2" in out
    assert out.splitlines()[-1].endswith(".")


def test_rank_says_what_it_assumed(run):
    code, out, _ = run("rank", *SPECS)
    assert code == 0
    assert "; assumed: 100M parameters, 2.56B tokens, 51.2K tokens a step, weight decay 0.1 (say otherwise" in out
    assert "--params, --tokens, --batch-tokens, --weight-decay)" in out
    _, out, _ = run("rank", *SPECS, "--format", "json")
    assert json.loads(out)["assumed"] == {
        "params": 10**8,
        "tokens": 2560000000,
        "batch_tokens": 51200,
        "weight_decay": 0.1,
    }


def test_rank_formats_agree(run):
    _, text, err = run("rank", *SPECS, *SIZES, "--format", "json")
    document = json.loads(text)
    assert err == ""
    _, text, err = run("rank", *SPECS, *SIZES, "--format", "csv")
    assert err == ""
    rows = read(text)
    assert [float(row["predicted_loss"]) for row in rows] == [c["predicted_loss"] for c in document["candidates"]]


def test_rank_writes_files(run, tmp_path):
    figure, page, out = tmp_path / "r.png", tmp_path / "r.html", tmp_path / "r.json"
    args = ["--plot", figure, "--html", page, "--curves", "--format", "json", "-o", out]
    code, text, _ = run("rank", *SPECS, *SIZES, *args)
    assert (code, text) == (0, "")
    assert figure.read_bytes()[:4] == b"\x89PNG"
    assert "data:image/png" in page.read_text()
    curve = json.loads(out.read_text())["candidates"][0]["curve"]
    assert curve["step"][-1] == 50000
    assert len(curve["loss"]) == len(curve["lower"]) == len(curve["step"])


def test_rank_reads_standard_input(run, monkeypatch):
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(b"- cosine:peak=1e-3\n- {name: b, schedule: 'linear:peak=1e-3'}\n"))
    )
    code, out, _ = run("rank", "-", *SIZES)
    assert code == 0
    assert "linear:peak=0.001,steps=50000" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["rank"], "Missing argument 'CANDIDATES...'"),
        (["rank", "cosin:peak=1e-3"], "did you mean 'cosine'"),
        (["rank", "cosine:peak=1e-3", "--parms", "5"], "Did you mean '--params'?"),
        (["rank", "cosine:peak=1e-3", "--params", "big"], "--params must be a finite number above 0, got 'big'"),
        (["rank", "cosine:peak=1e-3", "--params", "-5"], "--params must be a finite number above 0, got '-5'"),
        (["rank", "cosine:peak=1e-3", "--law", "nothing"], "law 'nothing' is not built in"),
        (["rank", "cosine:peak=1e-3", "--plot", "x.gif2"], "a figure's suffix must be one of"),
        (["rank", "cosine:peak=1e-3", "--plot", "no/such/x.png"], "does not exist; make it first"),
        (["rank", "cosine:peak=1e-3", "--curves"], "--curves adds loss curves to"),
        (["rank", "cosine:peak=1e-3", "--format", "xml"], "'xml' is not one of"),
        (["rank", "nothing.csv"], "nothing.csv: no such file"),
        (["rank", "nothing"], "must be a schedule like cosine:peak=1e-3,steps=25000 or a file of schedules"),
        (["rank", "."], "got '.', which is a folder"),
        (["rank", "-", "-"], "standard input ('-') can be read only once"),
        (["rank", "cosine:peak=1e-3", "-o", ""], "the name of an output"),
        (["rank", "cosine:peak=1e-3", "-o", "."], "this is a folder"),
        (["rank", "cosine:peak=1e-3", "--html", "."], "this is a folder"),
        (["rank", "cosine:peak=1e-3", "--html", "-"], "every output must have its own place, got standard output"),
        (["rank", "cosine:peak=1e-3", "--html", "x.png", "--plot", "x.png"], "got x.png twice"),
        (["rank", '{"kind": "cosine",'], "not valid JSON"),
        (["predict", "other", "x.csv", "-o", "x.xls"], "the suffix must be .csv, .tsv, .jsonl or .parquet"),
        (["predict", "other", "x.csv", "-o", "no/such/x.csv"], "does not exist; make it first"),
        (["predict", "other", "-", "--curves", "-", "-o", "-"], "can be read only once"),
        (["fit", "x.csv", "-o", "."], "this is a folder"),
        (["schedule", "cosine:peak=1e-3,steps=9", "-o", "."], "this is a folder"),
        (["schedule", "cosine:peak=1e-3,steps=9", "linear:peak=1,steps=3"], "unexpected extra argument"),
        (["rank", "cosine:peak=1e-3", "-o", "no/such/x"], "does not exist; make it first"),
        (["rnk"], "no command 'rnk'; did you mean 'rank'"),
        (["predict", "other", "nothing.csv", "-o", "x.csv"], "nothing.csv: no such file"),
        (["predict", "other"], "Missing argument 'RUNS'"),
        (["predict", "other", "x.csv"], "Missing option '-o'"),
        (["fit", "nothing.csv", "-o", "x.json"], "nothing.csv: no such file"),
        (["fit", "-", "--curves", "-", "-o", "x.json"], "can be read only once"),
        (["schedule", "cosine:peak=1e-3"], "steps of cosine must be given"),
        (["schedule", "cosine:peak=1e-3,steps=0"], "steps"),
        (["schedule", "cosine:peak=nan,steps=5"], "peak"),
        (["features", "cosine:peak=1e-3,steps=5", "--basis", "nothing"], "nothing"),
        (["laws", "nothing"], "law 'nothing' is not built in"),
        (["--nothing"], "--nothing"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(run, args, message):
    code, out, err = run(*args)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.startswith("optlaws: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_a_failure_is_one_line_and_code_1(run, laws, monkeypatch):
    def broken(name):
        raise RuntimeError("wires\ncrossed")

    laws.load_law = broken
    code, _, err = run("rank", *SPECS)
    assert code == 1
    assert err == "optlaws: unexpected failure, RuntimeError: wires crossed; set OPTLAWS_DEBUG=1 to see the traceback\n"
    monkeypatch.setenv("OPTLAWS_DEBUG", "1")
    with pytest.raises(RuntimeError):
        run("rank", *SPECS)


def test_interrupt_and_closed_pipe(run, laws):
    def interrupted(name):
        raise KeyboardInterrupt

    laws.load_law = interrupted
    assert run("rank", *SPECS)[0] == 130

    def closed(name):
        raise BrokenPipeError

    laws.load_law = closed
    assert run("rank", *SPECS)[0] == 0


def test_warnings_are_one_line_each(run, laws, table, tmp_path):
    def warns(runs, curves=None, **options):
        import warnings

        warnings.simplefilter("default")
        warnings.warn("only 3 runs\nfor 16 columns", OptlawsWarning, stacklevel=2)
        warnings.warn("somebody else's", RuntimeWarning, stacklevel=2)
        return FakeLaw()

    laws.fit_law = warns
    code, _, err = run("fit", table, "-o", tmp_path / "law.json")
    assert (code, err) == (0, "optlaws: warning: only 3 runs for 16 columns\n")


def test_rank_is_quiet_about_what_its_table_says(run, monkeypatch):
    import warnings

    predict = FakeLaw.predict

    def warns(self, runs):
        warnings.warn("far out", ExtrapolationWarning, stacklevel=2)
        return predict(self, runs)

    monkeypatch.setattr(FakeLaw, "predict", warns)
    code, _, err = run("rank", *SPECS, *SIZES)
    assert (code, err) == (0, "")


def test_fit(run, laws, table, tmp_path):
    curves = tmp_path / "curves.csv"
    curves.write_text("run_id,step,loss\na,10,4.0\na,20,3.9\n")
    out = tmp_path / "law.json"
    code, text, err = run("fit", table, "--curves", curves, "--group", "source", "--basis", "b16", "-o", out)
    assert (code, err) == (0, "")
    assert out.exists()
    assert "horizon left out: mean error % 0.12" in text
    assert laws.fitted["group"] == "source"
    assert laws.fitted["basis"] == "b16"
    assert laws.fitted["name"] == "law"
    assert len(laws.fitted["runs"]) == 2
    assert len(laws.fitted["curves"]) == 2


def test_fit_refuses_what_cannot_be_fitted(run, laws, table, tmp_path):
    out = tmp_path / "law.json"
    out.write_text("good")
    code, _, err = run("fit", table, "--group", "sauce", "-o", out)
    assert code == 2
    assert "did you mean 'source'" in err
    curves = tmp_path / "curves.csv"
    curves.write_text("run_id,step,loss\nc,10,4.0\n")
    code, _, err = run("fit", table, "--curves", curves, "-o", out)
    assert code == 2
    assert "run_id 'c' is not in the run table" in err
    code, _, err = run("fit", table, table, "-o", out)
    assert code == 2
    assert "occurs in two" in err

    def refuses(*args, **options):
        raise FitError("two runs cannot determine a law")

    laws.fit_law = refuses
    code, _, err = run("fit", table, "-o", out)
    assert (code, err) == (2, "optlaws: two runs cannot determine a law\n")
    assert out.read_text() == "good"


def test_predict_adds_columns(run, table, tmp_path):
    out = tmp_path / "out.csv"
    code, text, _ = run("predict", "other", table, "-o", out)
    assert code == 0
    assert text.startswith("On 2 finished runs law 'other' is off by ")
    before, after = read(table.read_text()), read(out.read_text())
    assert list(after[0]) == [*before[0], "predicted_loss", "lower", "upper", "divergence_risk", "in_domain"]
    for old, new in zip(before, after, strict=True):
        assert {key: new[key] for key in old} == old
        assert float(new["lower"]) < float(new["predicted_loss"]) < float(new["upper"])
        assert new["divergence_risk"] == ""
    assert [row["in_domain"] for row in after] == ["true", "false"]
    _, text, _ = run("predict", "other", table, "-o", "-")
    assert text == out.read_text()


def test_predict_takes_runs_without_losses(run, tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('run_id,schedule,params,batch_tokens,status,final_loss\na,"cosine:peak=1e-3,steps=100",1e8,5e5,,\n')
    code, out, _ = run("predict", "other", path, "-o", "-")
    assert code == 0
    assert float(read(out)[0]["predicted_loss"]) > 0


def test_predict_along_curves(run, table, tmp_path):
    asked = tmp_path / "asked.csv"
    asked.write_text("run_id,step\nb,2000\na,10\nb,500\n")
    code, out, _ = run("predict", "other", table, "--curves", asked, "-o", "-")
    rows = read(out)
    assert code == 0
    assert [(row["run_id"], row["step"]) for row in rows] == [("b", "2000"), ("a", "10"), ("b", "500")]
    law = FakeLaw()
    want = law.predict_curve(read_runs(table).select([1]), np.array([500, 2000])).loss
    assert [float(rows[2]["predicted_loss"]), float(rows[0]["predicted_loss"])] == want.tolist()
    code, out, _ = run("predict", "other", table, "-o", "-", "--curves")
    rows = read(out)
    assert code == 0
    assert {row["run_id"] for row in rows} == {"a", "b"}
    assert rows[-1]["step"] == "2000"
    asked.write_text("run_id,step\na,1001\n")
    code, _, err = run("predict", "other", table, "--curves", asked, "-o", "-")
    assert code == 2
    assert "step must be 0 to 1000, the updates done, got 1001" in err


def test_features(run):
    code, out, _ = run(
        "features", "cosine:peak=1e-3,steps=1000", "wsd:peak=1e-3,steps=1000,decay=0.2", "--format", "csv"
    )
    rows = read(out)
    assert code == 0
    assert len(rows) == 32
    assert len({row["column"] for row in rows}) == 16
    code, out, _ = run("features", "cosine:peak=1e-3,steps=1000", "--params", "85M", "--format", "json")
    document = json.loads(out)
    assert len(document["schedules"][0]["values"]) == 16
    assert [float(r["value"]) for r in rows[:16]] != list(document["schedules"][0]["values"].values())
    code, out, _ = run("features", "cosine:peak=1e-3,steps=1000")
    assert code == 0
    assert all(name in out for name in document["schedules"][0]["values"])


def test_schedule(run, tmp_path):
    code, out, _ = run("schedule", "wsd:peak=1e-3,steps=1000,warmup=300,decay=0.2")
    rows = read(out)
    schedule = parse("wsd:peak=1e-3,steps=1000,warmup=300,decay=0.2")
    assert code == 0
    assert [int(row["step"]) for row in rows] == list(range(1000))
    assert [float(row["lr"]) for row in rows] == schedule.array().tolist()
    assert rows[7]["lr"] == f"{schedule.lr(7):.17g}"
    figure = tmp_path / "s.svg"
    code, out, _ = run("schedule", schedule.to_json(), "--format", "json", "--plot", figure)
    assert [entry["lr"] for entry in json.loads(out)] == schedule.array().tolist()
    assert figure.exists()


def test_long_schedules_are_written_in_pieces(run, tmp_path):
    out = tmp_path / "s.csv"
    assert run("schedule", "cosine:peak=1e-3,steps=200000", "-o", out)[0] == 0
    lines = out.read_text().splitlines()
    assert len(lines) == 200_001
    assert lines[131_073].startswith("131072,")
    out = tmp_path / "s.json"
    assert run("schedule", "cosine:peak=1e-3,steps=131072", "--format", "json", "-o", out)[0] == 0
    assert len(json.loads(out.read_text())) == 131_072


def test_laws(run):
    code, out, _ = run("laws")
    assert code == 0
    assert "llama-slimpajama" in out
    assert "horizon 0.12 %" in out
    code, out, _ = run("laws", "other")
    assert code == 0
    assert "Rebuild: python benchmarks/build_laws.py fake" in out
    assert "7M .. 170M" in out
    assert re.search(r"^left out +mean error % +Spearman over all +within pools +90 % covers", out, re.MULTILINE)
    assert re.search(r"^horizon +0.12 +0.98 +0.95 +91 %", out, re.MULTILINE)
    assert re.search(r"^size +0.24 +0.97 +- +90 %", out, re.MULTILINE)
    assert "equal size and length" in out
    code, out, _ = run("laws", "--format", "json")
    assert [law["name"] for law in json.loads(out)] == ["llama-slimpajama", "other"]


def test_help(run):
    for command in ("rank", "fit", "predict", "features", "schedule", "laws"):
        code, out, _ = run(command, "--help")
        assert code == 0
        assert "--help" in out
    code, out, err = run()
    assert "rank" in out + err


def test_fit_leaves_out_the_curves_of_other_runs_and_says_so(run, laws, table, tmp_path):
    out, curves = tmp_path / "law.json", tmp_path / "curves.csv"
    name = table.read_text().splitlines()[1].split(",")[0]
    curves.write_text(f"run_id,step,loss\n{name},10,4.0\nstranger,10,4.0\n")
    code, _, err = run("fit", table, "--curves", curves, "-o", out)
    assert code == 0
    assert "stranger" in err
    assert set(laws.fitted["curves"].run_id) == {name}
