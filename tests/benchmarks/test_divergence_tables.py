"""The tables of labels and the decision rules of the divergence benchmark."""

from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PAGE = BENCHMARKS.parent / "docs" / "divergence_labels.md"


@pytest.fixture(scope="module")
def reads(folder, data_dir):
    """They read the tables where the tests found them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPTLAWS_DATA", str(data_dir))
        yield


def test_every_run_with_a_curve_has_a_verdict(reads):
    from divergence_labels import CURVES, labels_page, verdicts
    from public import load, load_curves

    found = verdicts()
    text = labels_page(found)
    for source in CURVES:
        names = set(load_curves(source).runs())
        assert names
        assert set(found[source]) == names
        assert all(text.count(f"| {name} |") == 1 for name in names)
        status = dict(zip(load(source).run_id, load(source).status, strict=True))
        assert all((o.status == "completed") == (status[name] == "completed") for name, o in found[source].items())


def test_the_committed_table_has_these_verdicts(reads):
    from divergence_labels import labels_page, verdicts

    found = verdicts()
    if sum(map(len, found.values())) != 202:
        pytest.skip("the table was written from 202 curves, found another number")
    assert PAGE.read_text(encoding="utf-8") == labels_page(found)


def test_widths_give_the_sizes(folder):
    from divergence_runs import STRUCTURES

    for params, (width, hidden, layers) in STRUCTURES["steplaw-dense"].items():
        assert layers * (4 * width**2 + 3 * width * hidden) == params
    for params, (width, hidden, layers) in STRUCTURES["marin2025-adamw"].items():
        assert layers * (4 * width**2 + 3 * width * hidden) == pytest.approx(params, rel=0.04)


def test_other_widths(reads):
    from divergence_runs import load_wide, other_widths

    from optlaws.risk.quantities import relative_width

    runs = load_wide("marin")
    n = runs.size / 1e8
    known = relative_width(runs, n)
    assert (known < 0.7).all()
    for power in (0.0, 0.5, 1.0):
        assert relative_width(other_widths(runs, power), n) == pytest.approx(known**power)


def test_the_plug_in_threshold_is_the_best_of_right_probabilities(folder):
    from divergence_scores import plug_in_threshold

    p = np.random.default_rng(0).beta(0.3, 1.0, 400)

    def expected(t):
        """Expected F1, hits over the expected half sum of decisions and labels."""
        chosen = p > t
        return 2 * p[chosen].sum() / (chosen.sum() + p.sum())

    best = expected(plug_in_threshold(p))
    assert best >= max(expected(t) for t in np.linspace(0.0, 0.99, 400)) - 1e-12
    assert plug_in_threshold(p) == pytest.approx(best / 2)


def test_how_gentle_the_public_warm_ups_are(reads):
    """The two numbers of the page's first section, whose text tests/benchmarks/test_pages.py compares."""
    from divergence import growth_by_warm_up
    from divergence_runs import load_wide

    from optlaws.risk import run_labels

    runs = [load_wide(name) for name in ("steplaw", "marin")]
    grown = [growth_by_warm_up(some) for some in runs]
    assert f"{(grown[0] < 2).mean():.0%}" == "34%"
    assert f"{min(c[run_labels(some) == 1].min() for c, some in zip(grown, runs, strict=True)):.0f}" == "19"
