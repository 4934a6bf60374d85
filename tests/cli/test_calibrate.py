"""`optlaws fit --calibrate` recovers the exponents of a world that is known, and predicts far beyond its runs."""

import json

import numpy as np
import pytest

from optlaws.cli import run as main
from optlaws.errors import FitError, InputError
from optlaws.law import fit_law
from optlaws.runs import read_runs, write_runs

world = pytest.importorskip("theory.world", reason="theory/ is not beside the package")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tables of the standard model world: 150 noise-free runs of at most 100M parameters, and two far beyond."""
    place = tmp_path_factory.mktemp("world")
    standard = world.World()
    write_runs(str(place / "runs.csv"), world.training_runs(standard))
    write_runs(str(place / "far.csv"), world.target_runs(standard, [1000.0]))
    return place


def test_the_command_recovers_the_world(folder, capsys):
    law, out = folder / "law.json", folder / "far_predicted.csv"
    assert (
        main(["fit", str(folder / "runs.csv"), "--basis", "sde16-plain", "--calibrate", "aN,aT,r,lc", "-o", str(law)])
        == 0
    )
    assert "Calibrated: aN 0.29" in capsys.readouterr().out
    exponents = json.loads(law.read_text())["exponents"]
    for name, true in world.World().exponents.items():
        if name in ("aN", "aT", "r"):
            assert exponents[name] == pytest.approx(true, rel=0.02), name
    assert main(["predict", str(law), str(folder / "far.csv"), "-o", str(out)]) == 0
    table = read_runs(str(out))
    predicted = np.array([float(x) for x in table.extra["predicted_loss"]])
    assert np.abs(predicted / table.final_loss - 1).max() < 0.01


def test_an_unknown_exponent_is_refused(folder):
    runs = read_runs(str(folder / "runs.csv"))
    with pytest.raises(InputError, match=r"exponents to calibrate must be of aN, aT, .*got 'aNN'.*did you mean 'aN'"):
        fit_law(runs, calibrate=["aNN"])


def test_names_are_needed(folder, capsys):
    assert main(["fit", str(folder / "runs.csv"), "--calibrate", " ,", "-o", str(folder / "none.json")]) == 2
    assert "--calibrate must name exponents, got ' ,'" in capsys.readouterr().err


def test_a_few_runs_calibrate_nothing(folder):
    runs = read_runs(str(folder / "runs.csv")).select(np.arange(12))
    with pytest.raises(FitError, match="calibrate must have at least 30 completed runs, got 12"):
        fit_law(runs, calibrate=["aN"])
