"""The words that commands have for what laws and tables call by short names."""

from pathlib import Path

import pytest

from optlaws.commands.compare import HEAD, LEGEND
from optlaws.commands.words import EFFECTS, QUANTITIES, UNCOMMON, unknown_effects
from optlaws.features import get_basis
from optlaws.law import builtin_names, load_law
from optlaws.law.domain import UNITS

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "my_runs.csv"


def test_every_quantity_of_a_domain_has_words():
    assert set(QUANTITIES) == set(UNITS)
    assert all(set(load_law(name).domain) <= set(QUANTITIES) for name in builtin_names())
    assert set(UNCOMMON) <= set(QUANTITIES)


def test_every_column_but_the_constant_has_words():
    own = [name for name in get_basis(None).names if not name.startswith("variance_") or name in EFFECTS]
    assert set(own) == {*EFFECTS, "constant"}


def test_laws_says_what_quantities_are(run):
    code, out, _ = run("laws")
    assert code == 0
    for name in UNCOMMON:
        assert any(line.split() == [name, *QUANTITIES[name].split()] for line in out.splitlines())
    code, out, _ = run("laws", "llama-slimpajama")
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    for name in load_law("llama-slimpajama").domain:
        assert rows[name].endswith(f"  {QUANTITIES[name]}")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            ["tokens"],
            "The effect of the number of tokens alone is not known from these runs (of the law's columns, tokens)",
        ),
        (["tokens"], "in them it does not vary, or only together with something else. For runs that vary it otherwise"),
        (["size", "bias", "transient"], "The effect of model size and the length of training alone is not known"),
        (["size", "tokens", "peak_time", "peak_fourth"], "model size, the number of tokens and the peak rate alone"),
        (["variance_1", "variance_2"], "The effect of how the rate falls alone"),
        (["mine"], "The effect of mine alone is not known from these runs (of the law's columns, mine)"),
        (["size", "tokens"], "in them they do not vary, or only together with something else. For runs that vary them"),
    ],
)
def test_effects_that_runs_do_not_tell(columns, words):
    text = unknown_effects(columns)
    assert words in text
    assert "predictions rest on the law's priors; a few runs that vary" in text


def test_fit_says_which_effects_its_runs_do_not_tell(run):
    code, out, _ = run("fit", EXAMPLE, "-o", "law.json")  # two sizes, two lengths, one batch
    assert code == 0
    assert unknown_effects(["tokens"]) in out.splitlines()


def test_the_legend_of_compare_explains_what_stands_in_its_tables(run):
    assert {"Spearman", "Top-2"} <= set(HEAD)
    for words in (
        "* lowest error",
        "Spearman: ",
        "Top-2: ",
        "a fraction, like 1.2 of 2",
        "Regret: ",
        " -: the law does not",
    ):
        assert words in LEGEND
    code, out, _ = run("compare", EXAMPLE, "--laws", "chinchilla", "--splits", "horizon", "--seconds", "240")
    assert code == 0
    assert LEGEND in out
