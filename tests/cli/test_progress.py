"""Signs of progress on standard error: lines where there is no terminal, a line that moves on one, nothing at once."""

import io
import re
import time

import pytest

from optlaws.commands import shared
from optlaws.commands.lines import Lines


class Terminal(io.StringIO):
    def isatty(self):
        return True


def wait_for(pattern, text):
    """Wait until a text that another thread writes has the pattern, at most some minutes."""
    until = time.monotonic() + 240
    while not re.search(pattern, text()) and time.monotonic() < until:
        time.sleep(0.002)
    assert re.search(pattern, text()), text()


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.delenv("OPTLAWS_PROGRESS")
    monkeypatch.setattr(shared, "DELAY", 0.0)
    monkeypatch.setattr(shared, "SHOWN_EVERY", 0.002)
    monkeypatch.setattr(shared, "Lines", lambda: Lines(first=0, every=0))


def test_short_work_says_nothing(capsys, monkeypatch):
    monkeypatch.setattr(shared, "DELAY", 3600.0)  # short beside it, on any machine
    monkeypatch.setattr(shared, "Lines", lambda: Lines(first=3600.0))
    with shared.ticking("fit") as tick:
        tick("trial")
    assert list(shared.progress(range(3), "curves")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_lines_without_a_terminal(at_once, monkeypatch):
    heard = io.StringIO()
    monkeypatch.setattr("sys.stderr", heard)
    with shared.ticking("reading") as tick:
        wait_for("^optlaws: reading\n", heard.getvalue)  # no step has been taken
        tick("first")
        wait_for("\noptlaws: reading: 1 step, first\n", heard.getvalue)
        tick("second")
        wait_for("\noptlaws: reading: 2 steps, second\n", heard.getvalue)
    said = heard.getvalue()
    time.sleep(0.02)
    assert heard.getvalue() == said
    for item in shared.progress("abc", "curves"):
        assert item in "abc"
    assert heard.getvalue() == said + "".join(f"optlaws: curves, {i} of 3\n" for i in range(3))


def test_a_line_that_moves_and_goes_on_a_terminal(at_once, monkeypatch):
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    with shared.ticking("reading") as tick:
        wait_for(r"\rreading \[\d\d:\d\d\]", shown.getvalue)
        tick("first")
        wait_for(r"\rreading: 1 step, first \[\d\d:\d\d\]", shown.getvalue)
    assert "optlaws:" not in shown.getvalue()
    assert shown.getvalue().endswith("\r")
    assert not shown.getvalue().rstrip("\r").rpartition("\r")[2].strip()  # it is wiped out


def test_errors_and_interrupts_pass(at_once, capsys):
    for kind in (ValueError, KeyboardInterrupt):
        with pytest.raises(kind), shared.ticking("fit"):
            raise kind
