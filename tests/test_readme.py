"""What the README and the pages of the manual show is there and works."""

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
MANUAL = (  # pages of docs/ that are written by hand, beside docs/validation.md
    "compare", "decide", "fitting", "formats", "glossary", "limits", "monitoring", "planning_guide", "python",
    "ranking", "risk", "speed", "training",
)  # fmt: skip
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", *(f"docs/{each}.md" for each in MANUAL))
}
TEXT = PAGES["README.md"]
NOT_RUN = re.compile(r"\s+# (your files|writes [\w/]+; needs PyTorch|after the sweep)$")
"""Ends a line of a page whose command needs files that the reader has, or trains for long."""
SPLICED = {  # the blocks that benchmarks write into pages
    "README.md": ("ranking", "accuracy", "extrapolation", "rivals", "risk"),
    "docs/ranking.md": ("transfer",),
    "docs/planning_guide.md": ("design",),
    "docs/speed.md": ("speed",),
}
TEST_COMMAND = (
    "python3 -m venv .venv && .venv/bin/pip install -q -e '.[dev]' && .venv/bin/python -m pytest -n 2 --dist loadfile"
)


def blocks(language, text=TEXT):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def shell_lines():
    """Every line of a command, the README's first; one that several pages show comes once."""
    lines = [
        line
        for text in PAGES.values()
        for block in blocks("sh", text)
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip()
    ]
    return list(dict.fromkeys(lines))


def commands():
    """The arguments of every `optlaws ...` shown, in order; those that need the reader's own files apart."""
    shown = [part for line in shell_lines() for part in line.split(" && ") if "optlaws " in part]
    words = [shlex.split(NOT_RUN.sub("", part)) for part in shown]
    run = [w[1:] for w, part in zip(words, shown, strict=True) if not NOT_RUN.search(part)]
    return run, [w[1:] for w, part in zip(words, shown, strict=True) if NOT_RUN.search(part)]


def test_commands_of_every_page_are_looked_at():
    run, own = (len(each) for each in commands())
    assert run >= 17
    assert own >= 8
    assert all(text.count("```sh") == len(blocks("sh", text)) for text in PAGES.values())
    assert not [name for name in MANUAL if not (ROOT / "docs" / f"{name}.md").is_file()]


def test_a_page_is_of_the_manual_or_says_what_wrote_it():
    for path in (ROOT / "docs").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert "ritten by `python benchmarks/" in text or path.stem in (*MANUAL, "validation"), path.name


def optlaws(folder, *args):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "optlaws", *args],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the examples, in which the pages' commands run one after the other.

    What the pages make and copy there by `mkdir` and `cp` is made first.
    """
    place = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "examples", place / "examples")
    for part in (part for line in shell_lines() for part in line.split(" && ")):
        if part.startswith(("mkdir ", "cp ")):
            subprocess.run(shlex.split(part), cwd=place, check=True)
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
    assert "No such option" not in done.stderr
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


def test_the_odds_on_another_corpus_are_those_of_the_note():
    (odds,) = re.findall(r"1 has a P\(best\) of (\d+) % \(--other-corpus\)", TEXT)
    assert f"P(best) of the first is {odds} % (`--other-corpus`)" in " ".join(TEXT.split())


def shown_outputs(text):
    """Pairs of the arguments of a command and the lines of its output that the page shows under it."""
    for command, output in re.findall(r"^```sh\n([^`]*)^```\n\n```text\n([^`]*)^```$", text, flags=re.MULTILINE):
        line = command.replace("\\\n", " ").strip().splitlines()[-1]
        yield tuple(shlex.split(line)[1:]), output.splitlines()


@pytest.mark.parametrize(
    ("args", "lines"), list(shown_outputs(PAGES["docs/decide.md"])), ids=lambda value: str(value[0])
)
def test_the_lines_shown_on_the_way_to_a_decision_are_printed(done_in_order, args, lines):
    """To .011, as a fit may end a little elsewhere on another machine; words and the order of rows as shown."""

    def apart(line):
        number = r"[-+]?\d+\.\d+"
        return re.sub(r"[<>]? ?\b\d+ %", "P", re.sub(number, "#", line)), list(map(float, re.findall(number, line)))

    printed = dict(map(apart, done_in_order[args].stdout.splitlines()))
    for line in lines:
        words, expected = apart(line)
        assert words in printed, line
        assert printed[words] == pytest.approx(expected, abs=0.011), line


def test_the_decision_page_shows_outputs_of_fit_validate_and_rank():
    shown = [args[0] for args, _ in shown_outputs(PAGES["docs/decide.md"])]
    assert shown == ["fit", "validate", "validate", "rank"]


def test_what_few_runs_are_worth_is_what_the_page_of_them_says():
    """Lowest and highest mean of the tasks of docs/few_runs.md, for every number of runs on the decision page."""
    cells = r"\| (\d+) \| ([\d.]+) \([^)]*\) \| [\d.]+ \| [\d.]+ \| ([\d.]+) \([^)]*\) \| (\d+) \("
    found = re.findall(cells, (ROOT / "docs" / "few_runs.md").read_text(encoding="utf-8"))
    row = r"^\| (\d+)" + r" \| (\S+) to (\S+)" * 3 + r" \|$"
    shown = re.findall(row, PAGES["docs/decide.md"], flags=re.MULTILINE)
    assert [row[0] for row in shown] == ["8", "16", "24", "32", "64"]
    for runs, *ends in shown:
        columns = list(zip(*[row[1:] for row in found if row[0] == runs], strict=True))
        expected = [end(column, key=float) for column in columns for end in (min, max)]
        assert ends == expected, runs
    errors = {row[0]: [f"{float(end):.1f}".lstrip("0") for end in row[1:3]] for row in shown}
    said = "off by {0[0]} to {0[1]} % from 8 runs, by {2[0]} to {1[1]} % from 16 to 24, by {3[0]} to {3[1]} % from 32"
    assert said.format(*(errors[runs] for runs in ("8", "16", "24", "32"))) in " ".join(TEXT.split())


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if "```python" in text])
def test_the_python_examples_run(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    for text in blocks("python", PAGES[page]):
        runner.run(parser.get_doctest(text, {}, page, page, 0))
    assert runner.tries >= 5
    assert runner.failures == 0


def test_the_readme_and_the_page_on_fitting_have_python_examples():
    assert len(blocks("python")) == 1
    assert len(blocks("python", PAGES["docs/fitting.md"])) == 1


def test_the_table_shown_is_one_that_a_fit_accepts(tmp_path):
    from optlaws import read_runs

    path = tmp_path / "runs.csv"
    path.write_text(blocks("csv")[0], encoding="utf-8")
    runs = read_runs(path)
    assert list(runs.run_id) == ["a1", "a2", "a3", "a4", "a5", "a6"]
    assert runs.steps.tolist() == [10_000, 20_000, 10_000, 10_000, 20_000, 10_000]
    assert runs.params.tolist() == [30e6] * 3 + [85e6] * 3
    assert list(runs.status) == ["completed"] * 5 + ["diverged"]
    done = optlaws(tmp_path, "fit", "runs.csv", "-o", "law.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Wrote law.json: law law, basis sde16, 5 runs ")
    assert "(5 completed, 1 diverged)" in done.stdout


def test_the_readme_is_short():
    assert len(TEXT.splitlines()) <= 320
    assert len(TEXT.encode()) <= 24_000


def test_benchmarks_find_their_markers():
    """Every block that a benchmark writes has its markers in the page that it is written to, and in no other."""
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        name = page.relative_to(ROOT).as_posix()
        text = page.read_text(encoding="utf-8")
        assert sorted(re.findall(r"<!-- ([\w-]+):begin -->", text)) == sorted(SPLICED.get(name, ())), name
        assert sorted(re.findall(r"<!-- ([\w-]+):end -->", text)) == sorted(SPLICED.get(name, ())), name
    calls = r'splice\((?:ROOT / "(?:docs" / ")?([\w.]+)"|README), "([\w-]+)"'
    found = {
        (page or "README.md", key)
        for path in (ROOT / "benchmarks").glob("*.py")
        for page, key in re.findall(calls, path.read_text(encoding="utf-8"))
    }
    pages = {(name.split("/")[-1], key) for name, keys in SPLICED.items() for key in keys}
    assert found - {("README.md", "rivals-speed")} == pages - {("README.md", "ranking")}  # that one has its own pattern


def tree():
    """Paths of the commented tree: two spaces more are one folder deeper, names may share a line."""
    stack: list[str] = []
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for line in blocks("text", text.split("\n## Files\n")[1])[0].splitlines():
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


def anchors(path):
    """The names by which GitHub links the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def links(path):
    """What a page links or shows; in formulas and programs brackets may stand beside parentheses, too."""
    text = re.sub(r"^```.*?^```$|\$[^$\n]*\$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


LINKED = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "theory").rglob("*.md"))
)


@pytest.mark.parametrize("page", LINKED)
def test_links_lead_somewhere(page):
    for target in links(ROOT / page):
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), target


def test_the_readme_links_every_page():
    """In the table of pages, straight or by way of the pages on the sweeps and the published tables."""
    table = TEXT.split("\n## Which page answers what\n")[1]
    shown = set(re.findall(r"\]\(docs/([\w/]+)\.md\)", table))
    for path in (ROOT / "docs").glob("*.md"):
        if not path.stem.startswith("validation_") and path.stem != "divergence_labels":
            assert path.stem in shown, path.name
    sweeps = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs").glob("validation_*.md"):
        assert f"({path.name})" in sweeps
    assert "divergence_labels.md" in (ROOT / "docs" / "divergence.md").read_text(encoding="utf-8")


def test_the_basis_of_the_contributing_page_can_be_made():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    program = blocks("python", text)[0]
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nprint('sde16-kappa' in __import__('optlaws').basis_ids())"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
