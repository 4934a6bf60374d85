"""What the README shows is there and works."""

import doctest
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
OWN_FILES = "# your files"  # ends a line of the README whose command needs files that the reader has
TEST_COMMAND = (
    "python3 -m venv .venv && .venv/bin/pip install -q -e '.[dev]' && .venv/bin/python -m pytest -n 2 --dist loadfile"
)


def blocks(language, text=TEXT):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def shell_lines():
    return [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def commands():
    """The arguments of every `optlaws ...` shown, in order; those that need the reader's own files apart."""
    shown = [part for line in shell_lines() for part in line.split(" && ") if "optlaws " in part]
    words = [shlex.split(part.removesuffix(OWN_FILES)) for part in shown]
    run = [w[1:] for w, part in zip(words, shown, strict=True) if not part.endswith(OWN_FILES)]
    return run, [w[1:] for w, part in zip(words, shown, strict=True) if part.endswith(OWN_FILES)]


def optlaws(folder, *args):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "optlaws", *args],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the examples, in which the page's commands run one after the other."""
    place = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "examples", place / "examples")
    return place


class TestSetUp:
    def test_two_commands(self):
        section = TEXT.split("\n## Set-up\n")[1].split("\n## ")[0]
        assert len(blocks("sh", section)) == 2
        lines = [line for block in blocks("sh", section) for line in block.replace("\\\n", " ").splitlines()]
        assert len(lines) == 2
        assert all(line.startswith("python3 -m venv .venv && .venv/bin/pip install ") for line in lines)
        assert "torch" not in "".join(lines)
        assert ".venv/bin/optlaws rank " in lines[0]
        assert lines[1] == TEST_COMMAND

    def test_the_ci_runs_the_test_command(self):
        text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
        assert f'step "tests" {TEST_COMMAND.split("/")[-1]}\n' in text
        assert os.access(ROOT / ".ci" / "run", os.X_OK)

    def test_the_core_needs_no_torch(self):
        import tomllib

        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        needed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
        assert not [name for name in needed if name.startswith("torch")]


@pytest.fixture(scope="module")
def done_in_order(folder):
    """Results of all commands by their arguments: later ones read what earlier ones wrote."""
    return {tuple(args): optlaws(folder, *args) for args in commands()[0]}


@pytest.mark.parametrize("args", commands()[0], ids=" ".join)
def test_commands_run(folder, done_in_order, args):
    done = done_in_order[tuple(args)]
    assert (done.returncode, done.stderr) == (0, "")
    for flag in ("-o", "--plot"):
        if flag in args:
            assert (folder / args[args.index(flag) + 1]).stat().st_size > 0


@pytest.mark.parametrize("args", commands()[1], ids=" ".join)
def test_commands_on_own_files_have_known_options(folder, args):
    """They fail for want of the file, or of torch, not of an option."""
    training = args[0] in ("train", "sweep")
    if training and importlib.util.find_spec("torch"):
        pytest.skip("torch is here: the command would train for minutes (tests/cli does so for less)")
    done = optlaws(folder, *args)
    assert done.returncode == 2
    missing = "runs/cpu" if args[0] == "validate" else r"\b\w+\.csv: "
    assert re.search("needs torch" if training else missing, done.stderr)


def numbers_apart(text):
    """The text without numbers, probabilities and spacing, and its numbers."""
    text = re.sub(r"[<>]? ?\d+ %(?! interval)", "P", text)
    number = r"[-+]?\d+\.\d+"
    return " ".join(re.sub(r"-{2,}", "-", re.sub(number, "#", text)).split()), [
        float(value) for value in re.findall(number, text)
    ]


def test_the_ranking_is_what_the_command_prints(done_in_order):
    """To one unit of the last digit: `python benchmarks/readme_ranking.py` pastes it anew."""
    block = TEXT.split("<!-- ranking:begin -->")[1].split("<!-- ranking:end -->")[0]
    words = shlex.split(blocks("sh", block)[0].replace("\\\n", " "))
    done = done_in_order[tuple(words[1:])]
    (shown, expected), (printed, found) = numbers_apart(blocks("text", block)[0]), numbers_apart(done.stdout)
    assert printed == shown, "run benchmarks/readme_ranking.py"
    assert found == pytest.approx(expected, abs=1.5e-4), "run benchmarks/readme_ranking.py"


def test_the_python_example_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    examples = blocks("python")
    assert examples
    for text in examples:
        runner.run(parser.get_doctest(text, {}, "README.md", "README.md", 0))
    assert runner.tries > 5
    assert runner.failures == 0


def tree():
    """Paths of the commented tree: two spaces more are one folder deeper, names may share a line."""
    stack: list[str] = []
    for line in blocks("text", TEXT.split("\n## Files\n")[1])[0].splitlines():
        names = re.split(r"\s{2,}", line.strip())[0].split(", ")
        depth = (len(line) - len(line.lstrip())) // 2
        stack = [*stack[:depth], names[-1].rstrip("/")]
        yield from ("/".join([*stack[:-1], name.rstrip("/")]) for name in names)


@pytest.mark.parametrize("path", list(tree()))
def test_the_tree_is_there(path):
    assert (ROOT / path).exists()


def test_the_tree_leaves_out_no_layer():
    shown = set(tree())
    for part in (ROOT / "optlaws").iterdir():
        if not part.name.startswith(("_", "py.typed")) and part.suffix in ("", ".py"):
            assert f"optlaws/{part.name}" in shown


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_the_basis_of_the_contributing_page_can_be_made():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    program = blocks("python", text)[0]
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nprint('sde16-kappa' in __import__('optlaws').basis_ids())"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
