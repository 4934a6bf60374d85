"""The reproductions: the framework, the folders' files, the quick part on the public data, missing data."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from paper_repro import convert  # noqa: E402
from paper_repro import run as command  # noqa: E402
from paper_repro.core import HERE, Missing, Row, expected, need  # noqa: E402
from paper_repro.noisy_quadratic_system import optimiser  # noqa: E402
from paper_repro.noisy_quadratic_system.reproduce import compute_ratio, half_squares  # noqa: E402
from paper_repro.sources import Source, fetch, sources  # noqa: E402
from paper_repro.sqrt_batch.reproduce import losses  # noqa: E402

from optlaws.baselines.noisy_quadratic import NoisyQuadraticSystem  # noqa: E402
from optlaws.runs import RunTable, read_runs  # noqa: E402
from optlaws.schedules import parse  # noqa: E402

NAMES = command.folders()
ABSENT = "400M"  # the Multi-Power Law's size whose test curves are not in the copy of the data
PLAN = {
    "chinchilla", "convex_bound", "isoflop", "multi_power_law", "noisy_quadratic_system", "opt_laws", "sqrt_batch",
    "step_law",
}  # fmt: skip


def test_rows_know_difference_and_tolerance():
    assert Row("t", "c", 1.0, 1.05, 0.1).ok is True
    assert Row("t", "c", 1.0, 1.2, 0.1).ok is False
    assert Row("t", "c", 1.0, 1.2, None).ok is None
    assert Row("t", "c", None, 1.2, None).difference is None
    assert Row("t", "c", 1.0, None, 0.1).ok is None
    assert Row("t", "c", 1.0, 1.25, 0.1).difference == 0.25
    assert Row("t", "c", 1.0, 1.2, 0.1, reason="known").explained
    assert not Row("t", "c", 1.0, 1.05, 0.1, reason="known").explained
    assert not Row("t", "c", 1.0, 1.2, 0.1).explained


@pytest.mark.parametrize("name", NAMES)
def test_folders_hold_what_they_must(name):
    sources = json.loads((HERE / name / "sources.json").read_text(encoding="utf-8"))
    for entry in sources["files"]:
        source = Source(name, **entry)
        assert source.address.startswith("https://")
        assert source.fetch in ("file", "folder")
        assert len(source.known) == 1
        assert all(len(each) == 64 for each in (*source.known, source.sha256) if each)
    cells = json.loads((HERE / name / "expected.json").read_text(encoding="utf-8"))
    assert cells
    for entry in cells:
        assert {"table", "cell", "published", "tolerance", "unit", "note"} <= set(entry)
        assert entry["tolerance"] is None or entry["published"] is not None
        assert "reason" not in entry or (entry["reason"] and entry["tolerance"] is not None)
    keys = [(entry["table"], entry["cell"]) for entry in cells]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", NAMES)
def test_tolerances_have_a_reason_and_the_pages_are_of_this_plan(name):
    """What the committed report compares with is what expected.json says today."""
    cells = json.loads((HERE / name / "expected.json").read_text(encoding="utf-8"))
    assert all(entry["note"] for entry in cells if entry["tolerance"])
    with (ROOT / "docs" / "paper_repro" / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        there = {(line["table"], line["cell"]): line for line in csv.DictReader(stream)}
    for entry in cells:
        if (entry["table"], entry["cell"]) not in there:
            assert entry["cell"].startswith(ABSENT)
            continue
        line = there[entry["table"], entry["cell"]]
        for key in ("published", "tolerance"):
            assert line[key] == command.number(entry[key]), (entry["cell"], key)
        assert entry["note"] in line["note"]
        assert (line["ok"] == "explained") == ("reason" in entry), entry["cell"]
        assert entry.get("reason", "") in line["note"]
    assert all(line["ok"] in ("", "ok", "explained") for line in there.values())


def test_published_constants_are_typed_once_over():
    """Constants that a law of the package has as published, and those of the reports, are the same numbers."""
    from paper_repro.multi_power_law.reproduce import PUBLISHED
    from paper_repro.noisy_quadratic_system import reproduce as noisy

    from optlaws.baselines.chinchilla import Chinchilla
    from optlaws.baselines.step_law import StepLaw

    book = expected("multi_power_law").cells
    for size, law in PUBLISHED.items():
        for key, value in law.parameters().items():
            assert book["parameters, refitted here", f"{size} {key}"]["published"] == value
    book = expected("noisy_quadratic_system").cells
    for key in ("p", "q", "P"):
        assert book["fit", key]["published"] == pytest.approx(getattr(noisy.PUBLISHED, key), abs=6e-7)
    book = expected("chinchilla").cells
    for key in ("A", "B", "E", "alpha", "beta"):
        assert book["refit, table 1", key]["published"] == getattr(Chinchilla.refit(), key)
    book, law = expected("step_law").cells, StepLaw.published()
    found = [book["eq. 1, fitted exponents", f"{of}"]["published"] for of in (
        "rate: exponent of N", "rate: exponent of D", "batch: exponent of D",
    )]  # fmt: skip
    assert found == [-law.p, law.q, law.s]


def test_all_folders_of_the_plan_are_there():
    assert set(NAMES) >= PLAN


def test_expected_refuses_cells_that_are_not_listed():
    with pytest.raises(ValueError, match="must list"):
        expected("isoflop").row("no table", "no cell", 1.0)


def test_a_report_is_not_replaced_by_one_without_the_data(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    good = "table,cell,published,ours,difference,tolerance,ok,note\nt,c,1,1,0,1,ok,\n"
    (tmp_path / "isoflop.csv").write_text(good)
    assert command.main(["isoflop", "sqrt_batch", "--data", str(tmp_path / "data"), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "isoflop.csv").read_text() == good
    assert not (tmp_path / "isoflop.md").exists()
    assert (tmp_path / "sqrt_batch.md").exists()
    assert "| [isoflop](isoflop.md) | 1 | 1 | 0 | 0 |" in (tmp_path / "README.md").read_text()
    assert f"-- reports with more values kept as they were in {tmp_path}: isoflop" in capsys.readouterr().out


def test_a_report_with_renamed_cells_is_written_again(tmp_path):
    head = "table,cell,published,ours,difference,tolerance,ok,note\n"
    (tmp_path / "x.csv").write_text(head + "t,old name,,1,,,,\nt,another,,2,,,,\nt,never had a value,,,,,,\n")
    rows = [Row("t", "new name", None, 1.0, None), Row("t", "another", None, 2.0, None)]
    gap = [Missing("file", "part of it")]
    assert not command.poorer(command.Result("x", rows, gap), tmp_path)
    assert command.poorer(command.Result("x", rows[:1], gap), tmp_path)
    assert command.poorer(command.Result("x", [*rows[:1], Row("t", "another", None, None, None)], gap), tmp_path)
    assert not command.poorer(command.Result("x", rows[:1], []), tmp_path)  # nothing is missing: the code has fewer
    assert command.poorer(command.Result("x", rows[:1], []), tmp_path, quick=True)  # parts were left out


@pytest.mark.parametrize(
    ("option", "said"), [("--data", "must name a folder"), ("--out", "folder that can be written")]
)
def test_folders_that_cannot_be(tmp_path, capsys, option, said):
    (tmp_path / "file").write_text("")
    assert command.main(["isoflop", option, str(tmp_path / "file")]) == 2
    assert f"{option} must" in (out := capsys.readouterr().out)
    assert said in out


def test_a_report_that_is_kept_keeps_its_figures(monkeypatch, tmp_path, capsys):
    from paper_repro.sqrt_batch import reproduce

    values = [1.0, 2.0]

    def draws(data, quick, figures):
        (figures / "sqrt_batch.png").write_text(f"{len(values)} {quick}")
        yield from (Row("t", f"c{i}", None, value, None) for i, value in enumerate(values))
        if len(values) < 2:
            yield Missing("file", "part of it")

    monkeypatch.setattr(reproduce, "reproduce", draws)
    figure, page = tmp_path / "figures" / "sqrt_batch.png", tmp_path / "sqrt_batch.md"
    again = ["sqrt_batch", "--data", str(tmp_path), "--out", str(tmp_path)]
    assert command.main([*again, "--quick"]) == 0
    assert figure.read_text() == "2 True"
    assert "Written by `python -m paper_repro sqrt_batch --quick`." in page.read_text()
    assert command.main(again) == 0  # a whole report takes the place of a quick one
    assert figure.read_text() == "2 False"
    assert "Written by `python -m paper_repro sqrt_batch`." in page.read_text()
    assert "![sqrt_batch](figures/sqrt_batch.png)" in page.read_text()
    capsys.readouterr()
    assert command.main([*again, "--quick"]) == 0  # as many values, but drawn from less
    assert "kept as they were" in capsys.readouterr().out
    values.pop()
    assert command.main(again) == 0
    assert "kept as they were" in capsys.readouterr().out
    assert figure.read_text() == "2 False"
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["sqrt_batch.png"]


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("chinchilla", "chinchilla_points.csv", "params,flops,loss\n1e8,much,3\n"),
        ("isoflop", "isoflops_curves.json", '[{"parameters": 1e8'),
        ("isoflop", "isoflops_curves.json", '[{"parameters": 1e8}]'),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, capsys, name, file, text):
    (tmp_path / file).write_text(text)
    assert command.main([name, "--quick", "--data", str(tmp_path)]) == 2
    said = capsys.readouterr().out
    assert said.startswith(f"paper_repro: {name}: {file} must ")
    assert said.rstrip().endswith("get it again")


def test_missing_data_is_named_and_no_failure(tmp_path, capsys):
    assert command.main([*sorted(PLAN), "--quick", "--data", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for file in (
        "chinchilla_points.csv", "isoflops_curves.json", "steplaw_runs.csv", "schaipp_runs.csv", "marin_runs.csv",
        "mpl_runs.csv", "nqs_runs.csv",
    ):  # fmt: skip
        assert f"data not found: {file}: " in said
    assert "square-root rule" in said
    with pytest.raises(Missing, match=r"x\.csv: why"):
        need(tmp_path, "x.csv", "why")


def test_a_mismatch_is_exit_code_1(monkeypatch, tmp_path, capsys):
    from paper_repro.sqrt_batch import reproduce

    monkeypatch.setattr(reproduce, "reproduce", lambda data, quick, figures: [Row("t", "c", 1.0, 2.0, 0.1, "note")])
    assert command.main(["sqrt_batch", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().out
    assert "MISMATCH" in said
    assert "1 outside it: sqrt_batch: t, c" in said
    assert "| t | c | 1 | 2 | 1 | 0.1 | MISMATCH | note |" in (tmp_path / "out" / "sqrt_batch.md").read_text()
    assert (tmp_path / "out" / "sqrt_batch.csv").read_text().splitlines()[1] == "t,c,1,2,1,0.1,MISMATCH,note"
    assert "| [sqrt_batch](sqrt_batch.md) | 1 | 0 | 0 | 0 |" in (tmp_path / "out" / "README.md").read_text()


def test_an_unknown_name_is_exit_code_2(capsys):
    assert command.main(["chinchila"]) == 2
    assert "did you mean 'chinchilla'" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(PLAN - {"opt_laws"}))
def test_published_values_come_back(name, data_dir):
    result = command.run_one(name, data_dir, True, None)
    assert not result.wrong
    assert sum(row.ok is True for row in result.rows) >= 4
    listed = json.loads((HERE / name / "expected.json").read_text(encoding="utf-8"))
    found = {(row.table, row.cell) for row in result.rows}
    wanted = {(entry["table"], entry["cell"]) for entry in listed}
    assert not [cell for _, cell in wanted - found if cell[:4] != ABSENT or not result.missing]
    if name in ("chinchilla", "isoflop", "step_law"):  # the others have rows that no paper prints
        assert found == wanted


def test_the_square_root_rule_is_a_limit_of_the_simulation():
    base = losses(1, 0.5, 0, copies=16)
    same = losses(1, 1.0, 0, copies=16)
    assert np.array_equal(base, same)  # a batch of 1 is no change, whatever the rule
    assert np.abs(losses(4, 1.0, 1, copies=16) / base - 1).max() > 0.1


def test_figures_are_written(data_dir, tmp_path):
    assert command.main(["isoflop", "--data", str(data_dir), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "figures" / "isoflop.png").read_bytes().startswith(b"\x89PNG")


def fake_pooch(monkeypatch, store):
    """Put a stand-in for pooch in place that copies local files and checks them."""

    class Pooch:
        @staticmethod
        def retrieve(address, known_hash, fname, path, progressbar):
            if address not in store:
                raise OSError(f"no connection to {address}.")
            content = store[address]
            if known_hash and f"sha256:{hashlib.sha256(content).hexdigest()}" != known_hash:
                raise ValueError(f"SHA256 hash of downloaded file ({fname}) does not match")
            (Path(path) / fname).write_bytes(content)

    monkeypatch.setitem(sys.modules, "pooch", Pooch)


def test_fetch_checks_the_sum_and_names_what_it_could_not_get(monkeypatch, tmp_path, data_dir, capsys):
    source = sources("isoflop")[0]
    good = (data_dir / source.name).read_bytes()
    if hashlib.sha256(good).hexdigest() != source.sha256:
        pytest.skip("the copy here is not the public file")
    fake_pooch(monkeypatch, {source.address: good})
    assert command.main(["isoflop", "--quick", "--fetch", "--data", str(tmp_path / "a")]) == 0
    assert (tmp_path / "a" / source.name).read_bytes() == good
    assert "no sha256 is on record" not in capsys.readouterr().out
    fake_pooch(monkeypatch, {source.address: good + b" "})
    assert command.main(["isoflop", "--quick", "--fetch", "--data", str(tmp_path / "b")]) == 1
    assert "does not match" in capsys.readouterr().out
    fake_pooch(monkeypatch, {})
    assert command.main(["isoflop", "--quick", "--fetch", "--data", str(tmp_path / "c")]) == 1
    assert f"isoflops_curves.json not fetched from {source.address} (no connection to" in capsys.readouterr().out


POINTS = "Model Size,Training FLOP,loss\n" + "".join(f"{n},{6 * n * 20 * n},{2 + 1e3 / n**0.4}\n" for n in (1e8, 1e9))
RUNS = (
    "N,B,K,C,loss,split,type,filtered\n256000000,134,564,1,3.8,train,isoflop,False\n"
    "10000000,24,39,1,5.5,test,isotoken,\n"
)


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert command.main(["isoflop", "--quick", "--fetch", "--data", str(tmp_path / "file" / "data")]) == 2
    assert "--data must be a folder that can be written, got" in capsys.readouterr().out


def test_a_file_without_a_sum_is_fetched_and_its_sum_said(monkeypatch, tmp_path, capsys):
    source = sources("chinchilla")[0]
    fake_pooch(monkeypatch, {source.address: POINTS.encode()})
    assert fetch(["chinchilla"], tmp_path) == []
    said = capsys.readouterr().out
    assert said.startswith("chinchilla_points.csv: fetched; no sha256 is on record to check it against, what came has ")
    assert hashlib.sha256(POINTS.encode()).hexdigest() in said
    assert fetch(["chinchilla"], tmp_path) == []  # it is there now
    assert capsys.readouterr().out == ""


def test_a_file_that_is_no_table_of_ours_is_made_one(monkeypatch, tmp_path, capsys):
    source = sources("noisy_quadratic_system")[0]
    fake_pooch(monkeypatch, {source.address: RUNS.encode()})
    assert fetch(["noisy_quadratic_system"], tmp_path) == []
    runs = read_runs(tmp_path / "nqs_runs.csv")
    assert runs.batch_tokens.tolist() == [134 * 128, 24 * 128]
    assert runs.tokens.tolist() == [564 * 134 * 128, 39 * 24 * 128]
    assert [s.warmup_steps for s in runs.schedule_tuple()] == [6, 1]
    assert list(runs.column("split")) == ["train", "test"]
    assert [path.name for path in tmp_path.iterdir()] == ["nqs_runs.csv"]
    (tmp_path / "nqs_runs.csv").unlink()
    fake_pooch(monkeypatch, {source.address: b"a,b\n1,2\n"})
    assert "(dataset.csv must have the columns N, B, K" in fetch(["noisy_quadratic_system"], tmp_path)[0]
    assert not list(tmp_path.iterdir())


def test_the_converted_table_is_the_one_here(tmp_path, data_dir):
    """What `fetch` makes of the public columns is what the copy here holds, but for the names of the runs."""
    here = list(csv.DictReader((data_dir / "nqs_runs.csv").read_text(encoding="utf-8").splitlines()))
    lines = [
        f"{r['params']},{int(r['batch_tokens']) // 128},{r['steps']},1,{r['final_loss']},{r['split']},{r['kind']},"
        f"{r['filtered']}"
        for r in here
    ]
    (tmp_path / "dataset.csv").write_text("\n".join(["N,B,K,C,loss,split,type,filtered", *lines]) + "\n")
    convert.nqs(tmp_path / "dataset.csv", tmp_path / "made.csv")
    made = list(csv.DictReader((tmp_path / "made.csv").read_text(encoding="utf-8").splitlines()))
    assert made == [{**row, "run_id": f"nqs-{i:03d}"} for i, row in enumerate(here)]


def test_folders_of_files_are_said_to_be_such(monkeypatch, tmp_path, capsys):
    fake_pooch(monkeypatch, {})
    assert command.main(["multi_power_law", "--quick", "--fetch", "--data", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    for name in ("mpl_runs.csv", "mpl_curves.csv"):
        assert (
            f"multi_power_law: {name} is a table made of many files and cannot be fetched as one; get them from"
            " https://github.com/thu-yao-01-luo/MultiPowerLaw and write the table by hand ("
        ) in said


@pytest.mark.parametrize("name", NAMES)
def test_a_commit_stands_in_the_address_that_it_pins(name):
    for source in sources(name):
        if source.commit:
            assert len(source.commit) == 40
            assert source.paths
            assert f"/{source.commit}/" in source.address
        assert source.fetch == "file" or source.paths


def test_paths_and_commit_of_a_folder_are_said(monkeypatch, tmp_path):
    fake_pooch(monkeypatch, {})
    found = fetch(["convex_bound"], tmp_path)
    source = sources("convex_bound")[0]
    assert f"get them from {source.address} at {source.commit[:12]}: data, and write the table by hand (" in found[0]


def test_sets_of_pairs_whose_mean_is_the_printed_value():
    from paper_repro.step_law.reproduce import about_pairs, means_of_sets

    values = np.array([1.0, 2.0, 4.0])
    assert means_of_sets(values, 1.5) == 1
    assert means_of_sets(values, 2.33) == 1  # of all three: 2.3333
    assert means_of_sets(values, 2.34) == 0
    assert means_of_sets(values, 0.9) == 0
    assert about_pairs(values, 3.0).endswith(
        "3 pairs of N and D, 1.00 to 4.00; sets of pairs whose mean rounds to 3.0: 1 of 7"
    )
    assert about_pairs(values, None) == "3 pairs of N and D, 1.00 to 4.00"


def test_fetch_from_a_server(monkeypatch, tmp_path):
    pytest.importorskip("pooch")
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "points.csv").write_text(POINTS)
    (tmp_path / "data").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path / "served"))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/points.csv"
        entries = [
            replace(sources("chinchilla")[0], name=name, address=address, sha256=known)
            for name, known in (
                ("any.csv", None), ("right.csv", hashlib.sha256(POINTS.encode()).hexdigest()), ("wrong.csv", 64 * "0"),
            )
        ]  # fmt: skip
        entries.append(replace(entries[0], name="gone.csv", address=address.replace("points", "gone")))
        monkeypatch.setattr("paper_repro.sources.sources", lambda folder: entries)
        gaps = fetch(["chinchilla"], tmp_path / "data")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["any.csv", "right.csv"]
    assert (tmp_path / "data" / "any.csv").read_text() == POINTS
    assert [gap.split()[1] for gap in gaps] == ["wrong.csv", "gone.csv"]


def test_another_copy_is_named_and_no_failure(tmp_path, data_dir, capsys):
    assert command.main(["isoflop", "--quick", "--data", str(data_dir)]) == 0
    if hashlib.sha256((data_dir / "isoflops_curves.json").read_bytes()).hexdigest() == sources("isoflop")[0].sha256:
        assert "other cop" not in capsys.readouterr().out
    text = (data_dir / "isoflops_curves.json").read_text()
    (tmp_path / "isoflops_curves.json").write_text(text + "\n")
    assert command.main(["isoflop", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    line = "other copy than the one the expected figures were made with: isoflops_curves.json (sha256 "
    assert said.count(line) == 1
    assert "-- other copies of data than the expected figures were made with: isoflops_curves.json\n" in said
    assert "Other copy than the one" in (tmp_path / "out" / "isoflop.md").read_text()


def test_fetch_without_pooch_is_one_sentence(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert command.main(["isoflop", "--fetch", "--data", str(tmp_path)]) == 2
    assert "--fetch needs pooch" in capsys.readouterr().out


def test_as_a_process_without_data(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "paper_repro", "isoflop", "--quick"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OPTLAWS_DATA": str(tmp_path / "none")},
        timeout=240,
    )
    assert done.returncode == 0
    assert "data not found: isoflop (isoflops_curves.json)" in done.stdout


def noisy_runs():
    """Return nine runs of a noisy quadratic system at three sizes and lengths."""
    law = NoisyQuadraticSystem(1.2, 0.7, 3.0, 0.8, 1.0, 500.0, 1.2)
    n, steps = np.array([(size, k) for size in (1e6, 4e6, 1.6e7) for k in (100, 1000, 10_000)]).T
    runs = RunTable.build([parse(f"constant:peak=1e-3,steps={int(k)}") for k in steps], params=n, batch_tokens=12_800.0)
    return replace(runs, final_loss=law.predict_constant(runs), status=("completed",) * len(runs))


def test_the_authors_optimiser_goes_down_and_drops_starts_without_end():
    runs = noisy_runs()
    early, late = (optimiser.ends(runs, starts=60, steps=steps) for steps in (1, 60))
    assert 1 <= len(late) == len(early) < 10  # Q is below 1 in one of twenty
    assert late[0][0] < early[0][0]
    value, theta = late[0]
    law = NoisyQuadraticSystem(*map(float, theta))  # R in tokens
    assert half_squares(law.predict_constant, runs) == pytest.approx(value, rel=1e-9)


def test_compute_is_counted_from_the_largest():
    assert compute_ratio(noisy_runs()).min() == 1.0
    assert compute_ratio(noisy_runs()).max() == pytest.approx(1600.0)
