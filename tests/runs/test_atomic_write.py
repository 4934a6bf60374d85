"""A half-written file never replaces a good one."""

import os

import pytest

from optlaws.errors import InputError
from optlaws.runs import RunTable, atomic_write, write_runs
from optlaws.schedules import parse


def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("good\n")

    def half_way():
        with atomic_write(path) as stream:
            stream.write("half")
            stream.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_way()
    assert path.read_text() == "good\n"
    assert os.listdir(tmp_path) == ["out.csv"]


class Broken:
    def __str__(self):
        raise RuntimeError("cannot be written")


def test_write_runs_is_atomic(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("good\n")
    table = RunTable.build(parse("cosine:peak=1e-3,steps=10"))
    with pytest.raises(RuntimeError):
        write_runs(path, table, {"bad": [Broken()]})
    assert path.read_text() == "good\n"
    assert os.listdir(tmp_path) == ["out.csv"]


def test_success_replaces_and_keeps_permissions(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    path.chmod(0o640)
    with atomic_write(path) as stream:
        stream.write("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with atomic_write(link) as stream:
        stream.write("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_bad_places(tmp_path):
    with (
        pytest.raises(InputError, match="does not exist; make it first"),
        atomic_write(tmp_path / "no" / "out") as stream,
    ):
        stream.write("x")
    with pytest.raises(InputError, match="this is a folder"), atomic_write(tmp_path) as stream:
        stream.write("x")
    with atomic_write(os.devnull) as stream:
        stream.write("x")


def test_dash_is_standard_output(capsys):
    with atomic_write("-") as stream:
        stream.write("x\n")
    assert capsys.readouterr().out == "x\n"
