"""What pages say beside their figures: commands, commits, targets that are missed, and constants of other laws."""

from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = {
    "cpu_sweep": (30e3, 1024.0),
    "cpu_sweep_long": (50e3, 2048.0),
    "cpu_sweep_rich": (50e3, 2048.0),
    "cpu_sweep_wide": (50e3, 2048.0),
    "cpu_sweep_repeats": (50e3, 2048.0),
    "cpu_sweep_seeds": (40e3, 2048.0),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_pages_of_sweeps_say_the_commands_of_their_script(folder, name):
    from publish_sweep import commits, written_by

    from optlaws.runs import read_runs

    text = (ROOT / "docs" / f"validation_{name}.md").read_text(encoding="utf-8")
    runs = read_runs(ROOT / "optlaws" / "data" / name / "runs.csv", need_loss=True)
    assert f"\n{written_by(Path('runs') / name, name, *SWEEPS[name])} The sweep is `benchmarks/{name}.yaml`" in text
    assert f"lie in `optlaws/data/{name}`.{commits(runs)} " in text
    assert ("was not recorded" in commits(runs)) == (name == "cpu_sweep")


def test_the_command_of_a_sweep_names_its_limits_and_no_machine(folder):
    from publish_sweep import written_by

    said = written_by(Path("/home/me/runs/mine"), "mine", None, 1.5e6)
    assert "publish_sweep.py mine mine --max-steps 1500000 --note NOTE`" in said
    assert "`optlaws validate mine --max-steps 1500000`" in said


def test_the_commit_is_kept_where_it_is_empty(folder):
    from publish_sweep import without_empty

    from optlaws.runs import read_runs

    runs = read_runs(ROOT / "optlaws" / "data" / "cpu_sweep" / "runs.csv", need_loss=True)
    assert set(runs.column("commit")) == {""}
    assert without_empty(runs).columns == runs.columns
    bare = without_empty(runs.select(np.arange(len(runs)) < 3))
    assert "commit" in bare.columns


def test_nested_errors_are_held_against_the_targets_of_the_accuracy_page(folder):
    import nested
    from accuracy import TARGETS

    aim = TARGETS["sizes > 60M"]
    assert nested.target("schaipp", "sizes > 60M") == aim
    assert nested.target("Marin", "300M from 130M") is None
    found = [
        ("schaipp", "sizes > 60M", [(9.0, 90.0), (aim + 0.1, 91.0), (aim, 92.0), (aim - 0.1, 93.0)]),
        ("nqs", "x", [(9.0, 90.0), (3.0, 91.0), (3.0, 92.0), (3.0, 93.0)]),
        ("Multi-Power Law", "25M", [(0.09, 90.0), (0.08, 91.0), (0.08, 92.0), (0.08, 93.0)]),
        ("Marin", "300M from 130M", [(9.0, 90.0)] * 4),
    ]
    lines = nested.error_table(found).splitlines()[2:]
    assert lines[0] == f"| schaipp | sizes > 60M | mean error % | {aim:g} | **9.000** | **{aim + 0.1:.3f}** | {aim:.3f} | {aim - 0.1:.3f} | 91 | 93 |"  # fmt: skip  # noqa: E501
    assert lines[1].startswith("| nqs | x | RMSLE % | 3.5 | **9.000** | 3.000 |")
    assert lines[2].startswith("| Multi-Power Law | 25M | PredE x 100 | 0.07 | **0.090** |")
    assert lines[3] == "| Marin | 300M from 130M | mean error % | - | 9.000 | 9.000 | 9.000 | 9.000 | 90 | 90 |"
    said = nested.missed_targets(found)
    assert (
        "reach 2 of these 3 targets; **of these 2, 1 are missed under the nested choice** (schaipp, sizes > 60M)."
        in said
    )


def test_the_divergence_page_says_how_its_runs_were_warmed_up(folder):
    from divergence import PAGE_TEXT, growth_by_warm_up

    from optlaws.dynamics import Dynamics
    from optlaws.runs import RunTable
    from optlaws.schedules import parse

    two = RunTable.build([parse("wsd:peak=1.5e-2,steps=8000,decay=.2,warmup=60"), parse("constant:peak=1,steps=9")],
                         params=1e8)  # fmt: skip
    assert growth_by_warm_up(two) == pytest.approx([20 * Dynamics().kappa, 0.0])
    text = (ROOT / "docs" / "divergence.md").read_text(encoding="utf-8")
    start = PAGE_TEXT.partition("{scores}")[0]
    assert text.startswith(start.format(short="34 %", least="19"))


def test_the_divergence_page_says_which_constants_its_model_has(folder):
    from divergence import changed_constants

    from optlaws.dynamics import Dynamics
    from optlaws.features import get_basis

    text = (ROOT / "docs" / "divergence.md").read_text(encoding="utf-8")
    assert f"Today's basis `{get_basis().id}` has others: {changed_constants()}." in text
    assert f"kappa {get_basis().dynamics.kappa:g} for {Dynamics().kappa:g}" in changed_constants()
