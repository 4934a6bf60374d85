"""What the tests of the commands share."""

import pytest

from optlaws import cli


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run the command line in this process, in an empty folder; return exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        code = cli.run([str(arg) for arg in args])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
