"""Layers point down only, and cheap commands load nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "optlaws"

LAYERS = [
    {"__main__"},
    {"cli", "commands"},
    {"report", "plotting", "integrations"},
    {"recommend", "design", "compare"},
    {"optimize", "_flat"},
    {"ranking", "monitor"},
    {"_advice"},
    {"law"},
    {"regression", "intervals", "validation"},
    {"baselines"},
    {"features", "risk"},
    {"dynamics"},
    {"sweeps"},
    {"runs"},
    {"schedules", "_accepted"},
    {"errors", "_content", "_entries", "_normal", "_ranges", "_version", "laws"},
]
DEPTH = {name: depth for depth, layer in enumerate(reversed(LAYERS)) for name in layer}
HEAVY = {"numpy", "scipy", "sklearn", "matplotlib", "torch", "pandas", "pyarrow", "yaml", "tqdm"}


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def layer_of(path):
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(path):
    """Yield (layer, line) for each import from this package, those inside functions included."""
    package = ["optlaws", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [] if node.level == 0 else package[: len(package) - node.level + 1]
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names] if stem == "optlaws" else [stem]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "optlaws" and len(parts) > 1:
                yield parts[1], node.lineno


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    layer = layer_of(path)
    if layer == "harness":
        allowed = {"harness", "runs", "schedules", "errors", "_version"}
    else:
        assert layer in DEPTH, f"{path.name} belongs to no layer; add it to LAYERS"
        allowed = {layer} | {other for other, depth in DEPTH.items() if depth < DEPTH[layer]}
        if layer in ("cli", "commands", "report", "plotting"):
            allowed |= next(names for names in LAYERS if layer in names)
        if layer == "commands":
            allowed.add("harness")
        if layer in ("regression", "intervals", "validation"):
            allowed |= {"regression", "intervals", "validation"}
    for target, line in imported(path):
        assert target in allowed or target.startswith("__"), (
            f"{path.name}:{line} imports {target}, which is not below {layer}"
        )


def loaded(code):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(' '.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded("import optlaws") & HEAVY
    assert not loaded("import optlaws.cli") & HEAVY


def test_version_loads_nothing_heavy():
    assert not loaded("from optlaws import cli\ncli.run(['--version'])") & HEAVY


def test_schedule_and_tables_need_only_numpy():
    assert loaded("import optlaws.runs") & HEAVY == {"numpy"}
    assert loaded("import optlaws.ranking") & HEAVY == {"numpy"}
    assert loaded("import optlaws.report, optlaws.plotting") & HEAVY == {"numpy"}


def test_ranking_and_fitting_load_no_part_of_scipy_that_takes_long():
    """scipy.stats alone costs half a second at each start."""
    whole = "print(*(name.replace('.', '/') for name in sys.modules))"
    found = loaded(f"import optlaws.law, optlaws.ranking, optlaws.law.fitting; {whole}")
    assert "optlaws/law" in found
    assert not {"scipy/stats", "sklearn", "matplotlib"} & found
