"""Which sizes of candidates count as assumed, however the others are given."""

import pytest

from optlaws.runs import gather_candidates

USUAL = {"tokens": 1e9, "batch_tokens": 1e5}
OPEN, STATED = "cosine:peak=1e-3,warmup=10", "cosine:peak=1e-3,warmup=10,steps=20000"
FORMS = ["options", "yaml", "csv"]


def assumed(form, tmp_path, schedule, fallback=USUAL, **given):
    """Return what was assumed of one candidate, whose sizes are given as options, in YAML or in CSV."""
    if form == "options":
        return gather_candidates([schedule], given, fallback).assumed
    path = tmp_path / f"candidates.{form}"
    if form == "yaml":
        shared = "".join(f"{key}: {value:.0f}\n" for key, value in given.items())
        path.write_text(f'{shared}candidates: ["{schedule}"]\n')
    else:
        values = [f"{value:.0f}" for value in given.values()]
        path.write_text(",".join(["schedule", *given]) + "\n" + ",".join([f'"{schedule}"', *values]) + "\n")
    return gather_candidates([str(path)], {}, fallback).assumed


@pytest.mark.parametrize("form", FORMS)
class TestOfOneCandidate:
    @pytest.mark.parametrize("tokens", [2e9, 2.00004e9])  # the second is not a whole number of steps
    def test_a_length_from_an_assumed_batch(self, form, tokens, tmp_path):
        assert assumed(form, tmp_path, OPEN, tokens=tokens) == {"batch_tokens": 1e5}

    def test_a_length_from_assumed_tokens(self, form, tmp_path):
        assert assumed(form, tmp_path, OPEN, batch_tokens=2e5) == {"tokens": 1e9}

    def test_both(self, form, tmp_path):
        assert assumed(form, tmp_path, OPEN) == USUAL

    def test_a_stated_length_needs_the_batch_alone(self, form, tmp_path):
        assert assumed(form, tmp_path, STATED) == {"batch_tokens": 1e5}
        assert assumed(form, tmp_path, STATED, {"tokens": 1e9}) == {"tokens": 1e9}

    @pytest.mark.parametrize("given", [{"tokens": 2e9}, {"batch_tokens": 1e5}])
    def test_what_a_stated_length_gives_is_not_assumed_though_it_equals_the_usual(self, form, given, tmp_path):
        assert assumed(form, tmp_path, STATED, **given) == {}

    def test_where_a_piecewise_schedule_ends_is_its_length(self, form, tmp_path):
        spec = "piecewise:points=0:0/20000:1e-3"
        assert assumed(form, tmp_path, spec, tokens=2e9) == {}
        assert assumed(form, tmp_path, spec) == {"batch_tokens": 1e5}


def test_a_file_beside_an_option(tmp_path):
    path = tmp_path / "candidates.csv"
    path.write_text(f'schedule,tokens\n"{OPEN}",2e9\n"{STATED}",2e9\n')
    assert gather_candidates([str(path)], {}, USUAL).assumed == {"batch_tokens": 1e5}
    assert gather_candidates([str(path)], {"batch_tokens": 1e5}, USUAL).assumed == {}
