"""The reproductions: the framework, the folders' files, the quick part on the public data, missing data."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from paper_repro import run as command  # noqa: E402
from paper_repro.core import HERE, Missing, Row, expected, need  # noqa: E402
from paper_repro.sqrt_batch.reproduce import losses  # noqa: E402

NAMES = command.folders()
MINE = ("chinchilla", "isoflop", "opt_laws", "sqrt_batch", "step_law")


def test_rows_know_difference_and_tolerance():
    assert Row("t", "c", 1.0, 1.05, 0.1).ok is True
    assert Row("t", "c", 1.0, 1.2, 0.1).ok is False
    assert Row("t", "c", 1.0, 1.2, None).ok is None
    assert Row("t", "c", None, 1.2, None).difference is None
    assert Row("t", "c", 1.0, None, 0.1).ok is None
    assert Row("t", "c", 1.0, 1.25, 0.1).difference == 0.25


@pytest.mark.parametrize("name", NAMES)
def test_folders_hold_what_they_must(name):
    sources = json.loads((HERE / name / "sources.json").read_text(encoding="utf-8"))
    for entry in sources["files"]:
        assert {"name", "address", "sha256"} <= set(entry)
        assert entry["address"].startswith("https://")
        assert entry["sha256"] is None or len(entry["sha256"]) == 64
    cells = json.loads((HERE / name / "expected.json").read_text(encoding="utf-8"))
    assert cells
    for entry in cells:
        assert {"table", "cell", "published", "tolerance", "unit", "note"} <= set(entry)
        assert entry["tolerance"] is None or entry["published"] is not None
    keys = [(entry["table"], entry["cell"]) for entry in cells]
    assert len(set(keys)) == len(keys)


def test_all_folders_of_the_plan_are_there():
    assert set(MINE) <= set(NAMES)


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
    assert "| [isoflop](isoflop.md) | 1 | 1 | 0 |" in (tmp_path / "README.md").read_text()
    assert f"-- reports with more values kept as they were in {tmp_path}: isoflop" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "said"), [("--data", "must name a folder"), ("--out", "folder that can be written")]
)
def test_folders_that_cannot_be(tmp_path, capsys, option, said):
    (tmp_path / "file").write_text("")
    assert command.main(["isoflop", option, str(tmp_path / "file")]) == 2
    assert f"{option} must" in (out := capsys.readouterr().out)
    assert said in out


def test_missing_data_is_named_and_no_failure(tmp_path, capsys):
    assert command.main([*MINE, "--quick", "--data", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for file in ("chinchilla_points.csv", "isoflops_curves.json", "steplaw_runs.csv", "schaipp_runs.csv"):
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
    assert "| [sqrt_batch](sqrt_batch.md) | 1 | 0 | 0 |" in (tmp_path / "out" / "README.md").read_text()


def test_an_unknown_name_is_exit_code_2(capsys):
    assert command.main(["chinchila"]) == 2
    assert "did you mean 'chinchilla'" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["chinchilla", "isoflop", "step_law"])
def test_published_values_come_back(name, data_dir):
    result = command.run_one(name, data_dir, True, None)
    assert not result.wrong
    assert sum(row.ok is True for row in result.rows) >= 4
    listed = json.loads((HERE / name / "expected.json").read_text(encoding="utf-8"))
    assert {(row.table, row.cell) for row in result.rows} == {(entry["table"], entry["cell"]) for entry in listed}


def test_the_headline_protocol_runs_and_says_that_these_are_other_runs(data_dir):
    result = command.run_one("opt_laws", data_dir, True, None)
    assert not result.wrong
    rows = {row.cell: row for row in result.rows}
    assert "OTHER RUNS" in rows["Top-2 hit rate on held-out configurations"].note
    assert rows["relative loss error"].ours < 0.5
    assert "divergence F1" in rows


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
        def retrieve(address, known_hash, fname, path):
            content = store[address]
            if f"sha256:{hashlib.sha256(content).hexdigest()}" != known_hash:
                raise ValueError(f"SHA256 hash of downloaded file ({fname}) does not match")
            (Path(path) / fname).write_bytes(content)

    monkeypatch.setitem(sys.modules, "pooch", Pooch)


def test_fetch_checks_the_sum_and_names_what_it_could_not_get(monkeypatch, tmp_path, data_dir, capsys):
    source = json.loads((HERE / "isoflop" / "sources.json").read_text(encoding="utf-8"))["files"][0]
    good = (data_dir / source["name"]).read_bytes()
    fake_pooch(monkeypatch, {source["address"]: good})
    assert command.main(["isoflop", "--quick", "--fetch", "--data", str(tmp_path / "a")]) == 0
    assert (tmp_path / "a" / source["name"]).read_bytes() == good
    fake_pooch(monkeypatch, {source["address"]: good + b" "})
    assert command.main(["isoflop", "--quick", "--fetch", "--data", str(tmp_path / "b")]) == 1
    assert "does not match" in capsys.readouterr().out
    assert command.main(["chinchilla", "--quick", "--fetch", "--data", str(tmp_path / "c")]) == 1
    assert "has no checksum on record; get it by hand from https://" in capsys.readouterr().out


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
        timeout=120,
    )
    assert done.returncode == 0
    assert "data not found: isoflop (isoflops_curves.json)" in done.stdout
