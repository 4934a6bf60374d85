"""A basis of one's own, in a file that OPTLAWS_BASES names, in every command that takes one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from optlaws.errors import InputError
from optlaws.features import basis, get_basis

ROOT = Path(__file__).resolve().parents[2]
RUNS = str(ROOT / "examples" / "my_runs.csv")
OWN = """
from dataclasses import replace
from optlaws import get_basis, register_basis

slow = get_basis("sde16").with_constants(dynamics={"kappa": 0.8})
register_basis(replace(slow, id="mine", note="a weight norm that grows faster"))
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "bases.py"
    path.write_text(OWN)
    return path


def command(folder, *args, bases=""):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPTLAWS_BASES": str(bases)}
    return subprocess.run(
        [sys.executable, "-m", "optlaws", *map(str, args)],
        capture_output=True, text=True, check=False, timeout=240, cwd=folder, env=environment,
    )  # fmt: skip


def test_a_law_of_it_is_fitted_read_and_compared(own, tmp_path):
    assert command(tmp_path, "fit", RUNS, "--basis", "mine", "-o", "law.json", bases=own).returncode == 0
    candidate = ["cosine:peak=1e-3,steps=9000,warmup=300", "--law", "law.json", "--format", "json"]
    told = command(tmp_path, "rank", *candidate, bases=own)
    assert json.loads(told.stdout)["candidates"][0]["predicted_loss"] > 1
    refused = command(tmp_path, "rank", *candidate)
    assert refused.returncode == 2
    assert "got 'mine'; one of your own is found where OPTLAWS_BASES names the Python file" in refused.stderr
    rows = command(
        tmp_path, "compare", RUNS, "--basis", "mine", "--basis", "sde16", "--laws", "chinchilla", "--splits", "horizon",
        "--format", "csv", bases=own,
    )  # fmt: skip
    assert rows.returncode == 0, rows.stderr
    lines = [line.split(",") for line in rows.stdout.splitlines()]
    found = {row[lines[0].index("law")]: dict(zip(lines[0], row, strict=True)) for row in lines[1:]}
    assert set(found) >= {"optlaws", "mine", "sde16", "chinchilla"}
    assert found["sde16"]["mean_error_pct"] == found["optlaws"]["mean_error_pct"] != found["mine"]["mean_error_pct"]
    assert found["sde16"]["coverage"] == found["optlaws"]["coverage"] != ""


def test_a_file_that_failed_is_read_again(tmp_path, monkeypatch):
    path = tmp_path / "later.py"
    monkeypatch.setenv("OPTLAWS_BASES", str(path))
    for _ in range(2):
        with pytest.raises(InputError, match="which fails with FileNotFoundError"):
            get_basis("later")
    path.write_text(OWN.replace('"mine"', '"later"'))
    monkeypatch.setattr(basis, "_REGISTER", dict(basis._REGISTER))
    assert get_basis("later").dynamics.kappa == 0.8


def test_a_file_that_fails_is_one_sentence(tmp_path):
    (tmp_path / "bad.py").write_text("1 / 0\n")
    for path, what in ((tmp_path / "bad.py", "ZeroDivisionError"), (tmp_path / "none.py", "FileNotFoundError")):
        done = command(tmp_path, "fit", RUNS, "--basis", "mine", "-o", "law.json", bases=path)
        assert done.returncode == 2
        assert f"OPTLAWS_BASES must name Python files that register bases, got {str(path)!r}" in done.stderr
        assert what in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
