"""Forms that candidates may have beside a list of them, what they are called, and which options they overrule."""

import json
import os

import pytest

from optlaws.errors import TableError
from optlaws.runs import gather_candidates, parse_quantity, read_candidates
from optlaws.schedules import from_array, parse

COSINE = "cosine:peak=1e-3,steps=1000"
WSD = "wsd:peak=1e-3,steps=1000"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dump(name, document):
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "w", encoding="utf-8") as stream:
        json.dump(document, stream)
    return name


def rates(name, peak=1.0):
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "w", encoding="utf-8") as stream:
        stream.write(f"step,lr\n0,0.5\n1,{peak}\n2,0.25\n")
    return name


class TestJsonArguments:
    def test_a_list_is_a_list_of_candidates(self):
        found = gather_candidates([COSINE, json.dumps([COSINE, {"name": "b", "schedule": WSD, "params": "85M"}]), WSD])
        assert found.runs.schedules == tuple(map(parse, (COSINE, COSINE, WSD, WSD)))
        assert found.named.tolist() == [False, False, True, False]
        assert found.runs.params[2] == 85e6

    def test_so_are_names_and_shared_values(self):
        assert read_candidates([json.dumps({"a": COSINE, "b": WSD})]).run_id == ("a", "b")
        runs = read_candidates([json.dumps({"candidates": [COSINE, WSD], "params": "10M"})])
        assert runs.params.tolist() == [1e7, 1e7]
        runs = read_candidates([json.dumps({"schedule": COSINE, "params": "10M"})])
        assert runs.params.tolist() == [1e7]

    def test_rates_without_a_name(self):
        found = gather_candidates(["[0.0, 0.5, 0.25]"])
        assert found.runs.schedules == (from_array([0.0, 0.5, 0.25]),)
        assert not found.named[0]

    def test_names_may_have_rates(self):
        flat = [1e-3] * 50
        values = {"a": [0.0, 0.5, 0.25], "b": COSINE, "c": {"schedule": [0.5, 0.125], "params": "85M"}, "d": flat}
        document = dump("some.json", values)
        for given in (document, json.dumps(values)):
            runs = read_candidates([given])
            assert runs.run_id == ("a", "b", "c", "d")
            want = (
                from_array(values["a"]),
                parse(COSINE),
                from_array([0.5, 0.125]),
                parse("constant:peak=1e-3,steps=50"),
            )
            assert runs.schedules == want
            assert runs.params[2] == 85e6

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ('{"a": [0.5, -1], "b": [1, 2]}', "entry 1: values must be finite rates from 0"),
            ('{"a": [0.5, "x"]}', "schedule: kind must be given"),
            ('{"lr": [0.5, 0.5]}', "schedule: kind must be given"),
            ('{"a": [0.5], "b": [1, 2]}', "schedule: kind must be given"),
            ('["cosine:peak=1e-3,steps=10"', "candidate 1: not valid JSON .*; check quotes, commas and brackets"),
            ("[]", "candidate 1: a list of schedules or of candidates is needed"),
            ("[[1, 2]]", "candidate 1, entry 1: a schedule or a mapping with the key 'schedule' is needed, got"),
            ('[1, "x"]', "candidate 1, entry 1: a schedule or a mapping"),
            ('["cosin:peak=1,steps=5"]', "candidate 1, entry 1: schedule: kind must be one of .*'cosine'"),
            ('{"peak_lr": 1}', "candidate 1: schedule: kind must be given"),
            ("[a].csv", r"\[a\].csv: no such file"),
        ],
    )
    def test_one_sentence_for_what_is_none(self, text, why):
        with pytest.raises(TableError, match=why) as error:
            gather_candidates([text])
        assert "\n" not in str(error.value)


class TestRatesAlone:
    def test_a_plain_list_is_one_candidate_called_by_its_file(self):
        values = [0.0, 0.001, 5e-4, 0]
        with open("plan.yaml", "w", encoding="utf-8") as stream:
            stream.write("- 0.0\n- 1e-3\n- 5e-4\n- 0\n")
        found = gather_candidates([dump("mine.json", values), "plan.yaml"])
        assert found.runs.run_id == ("mine", "plan")
        assert found.named.all()
        assert [schedule.array().tolist() for schedule in found.runs.schedules] == [values, values]

    @pytest.mark.parametrize(
        ("document", "why"),
        [
            ([0.1, -1], "x.json: values must be finite rates from 0 .* at step 1"),
            ([0.1, float("nan")], "x.json, entry 2: lr must be a number"),
            ([0.1, True], "x.json, entry 1: a schedule or a mapping"),
            ([0.1], "x.json, entry 1: a schedule or a mapping"),
            ([0, 0], "x.json: values must be rates with one above 0"),
            ([1, 10**400], "x.json, entry 2: lr must be a number"),
        ],
    )
    def test_one_sentence_for_what_is_none(self, document, why):
        with pytest.raises(TableError, match=why):
            gather_candidates([dump("x.json", document)])


class TestNamesToSchedules:
    def test_short_forms_mappings_and_candidates(self):
        document = {"A": COSINE, "B": parse(WSD).to_dict(), "C": {"schedule": WSD, "params": "10M"}}
        found = gather_candidates([dump("x.json", document)])
        assert found.runs.run_id == ("A", "B", "C")
        assert found.runs.schedules == (parse(COSINE), parse(WSD), parse(WSD))
        assert found.named.all()
        assert found.runs.params[2] == 1e7

    def test_under_candidates_and_in_yaml(self):
        with open("x.yaml", "w", encoding="utf-8") as stream:
            stream.write(f"params: 20M\ncandidates:\n  A: {COSINE}\n  B: {WSD}\n")
        runs = read_candidates(["x.yaml"])
        assert (runs.run_id, runs.params.tolist()) == (("A", "B"), [2e7, 2e7])

    def test_from_standard_input(self, monkeypatch):
        dump("x.json", {"A": COSINE, "B": WSD})
        with open("x.json", encoding="utf-8") as stream:
            monkeypatch.setattr("sys.stdin", stream)
            assert read_candidates(["-"]).run_id == ("A", "B")

    @pytest.mark.parametrize(
        ("document", "why"),
        [
            ({"shedule": COSINE}, "unknown key 'shedule'; did you mean 'schedule'"),
            ({"A": COSINE, "parms": "85M"}, "unknown key 'A'"),
            ({"A": COSINE, "B": 5}, "unknown key 'A'"),
            ({"A": "85M"}, "entry 1: schedule: kind must be one of"),
            ({"A": {"schedule": COSINE, "name": "B"}}, "must have one name, got 'A' and name 'B'; drop the key 'name'"),
            ({}, "unknown key|a list of schedules|the key 'schedule' is missing"),
        ],
    )
    def test_one_sentence_for_what_is_none(self, document, why):
        with pytest.raises(TableError, match=why):
            gather_candidates([dump("x.json", document)])


class TestNamesOfFiles:
    def test_as_much_of_the_path_as_is_needed(self):
        paths = [rates("d1/s.csv"), rates("d2/s.csv", 2.0), rates("t.csv"), rates("a/d2/s.csv")]
        found = gather_candidates(paths)
        assert found.runs.run_id == ("d1/s", "s", "t", "a/d2/s")
        assert found.named.all()
        assert read_candidates(paths[:2]).run_id == ("d1/s", "d2/s")
        assert read_candidates([paths[0]]).run_id == ("s",)
        assert read_candidates([paths[2], dump("t.json", [0.5, 1.0])]).run_id == ("t.csv", "t.json")

    def test_one_file_twice(self):
        assert read_candidates([rates("s.csv"), "s.csv", "./s.csv"]).run_id == ("s", "s #2", "s #3")

    def test_a_name_that_was_written_is_kept(self):
        named = dump("x.json", {"s": COSINE})
        assert read_candidates([rates("s.csv"), named]).run_id == ("s #2", "s")
        assert read_candidates([named, "s.csv"]).run_id == ("s", "s #2")
        with pytest.raises(TableError, match="the name 's' was used before; give every candidate its own"):
            read_candidates([named, named])


class TestOverruledOptions:
    def test_what_candidates_state_counts_and_is_told(self):
        entries = [
            {"schedule": COSINE, "params": "20M", "optimizer": "SGD"},
            COSINE,
            {"schedule": WSD, "params": "1e7"},
        ]
        options = {"params": 1e7, "optimizer": "AdamW", "tokens": None}
        found = gather_candidates([dump("x.json", entries)], options)
        assert found.runs.params.tolist() == [2e7, 1e7, 1e7]
        assert found.overruled == {"params": 1, "optimizer": 1}
        assert gather_candidates([COSINE, WSD], options).overruled == {}

    def test_what_follows_from_it_counts_too(self):
        path = dump("x.json", {"schedule": COSINE, "batch_tokens": "300K"})
        found = gather_candidates([path], {"tokens": 1e9})
        assert (found.runs.tokens.tolist(), found.overruled) == ([3e8], {"tokens": 1})
        assert gather_candidates([path], {"tokens": 3e8, "batch_tokens": 3e5, "weight_decay": 0.0}).overruled == {}
        path = dump("x.json", {"schedule": COSINE, "weight_decay": 0.1})
        assert gather_candidates([path], {"weight_decay": 0.0}).overruled == {"weight_decay": 1}

    def test_rounding_to_whole_steps_overrules_nothing(self):
        path = dump("x.json", {"schedule": "cosine:peak=1e-3", "batch_tokens": "300K"})
        found = gather_candidates([path], {"tokens": 1e9})
        assert (found.runs.steps.tolist(), found.overruled) == ([3333], {})
        path = dump("x.json", {"schedule": "cosine:peak=1e-3", "tokens": "1M"})
        assert gather_candidates([path], {"batch_tokens": 3e5}).overruled == {}


class TestPointsEndTheRun:
    SPEC = "piecewise:points=0:0/300:0.001/25k:0"

    def test_a_length_that_is_only_assumed_does_not_count(self):
        fallback = {"tokens": 1e9, "batch_tokens": 51200.0}
        assert gather_candidates([self.SPEC], {}, fallback).runs.steps.tolist() == [25000]
        found = gather_candidates([self.SPEC], {"tokens": 2.56e9}, {"batch_tokens": 51200.0})
        assert (found.runs.steps.tolist(), found.runs.batch_tokens.tolist()) == ([25000], [102400])
        text = json.dumps({"kind": "piecewise", "points": [[0, 0], [10, 1e-3]]})
        assert gather_candidates([text], {}, fallback).runs.steps.tolist() == [10]

    def test_one_that_was_given_does(self):
        assert read_candidates([self.SPEC], tokens=2.56e9, batch_tokens=51200).steps.tolist() == [50000]


@pytest.mark.parametrize("text", ["20k", "1M", "64Ki", "2.5K"])
def test_counts_of_steps_are_read_as_counts_of_tokens_are(text):
    assert read_candidates([f"cosine:peak=1e-3,steps={text}"]).steps.tolist() == [parse_quantity(text)]


class TestFamiliesInPlaceOfSchedules:
    """A candidate described key by key is refused with the words for how a schedule is given."""

    @pytest.mark.parametrize(
        ("suffix", "text"),
        [
            ("yaml", "params: 85M\ncandidates:\n  - {family: cosine, peak: 1e-3, warmup: 300}\n"),
            ("yaml", "candidates:\n  a: {family: cosine, peak: 1e-3}\n"),
            ("yaml", 'family: cosine\ncandidates: ["cosine:peak=1e-3,steps=100"]\n'),
            ("json", '[{"peak": 1e-3, "family": "cosine"}]'),
            ("txt", '{"family": "cosine", "peak": 1e-3}\n'),
        ],
    )
    def test_in_documents(self, suffix, text, tmp_path):
        path = tmp_path / f"candidates.{suffix}"
        path.write_text(text)
        with pytest.raises(TableError, match=r"unknown key '(family|peak)'; a schedule is one entry") as bad:
            read_candidates([str(path)], tokens=1e9, batch_tokens=1e5)
        assert "schedule: cosine:peak=1e-3,warmup=300 or schedule: {kind: cosine, peak: 1e-3" in str(bad.value)
        assert "known:" not in str(bad.value)

    def test_the_advice_is_right(self, tmp_path):
        path = tmp_path / "candidates.yaml"
        one, two = "schedule: cosine:peak=1e-3,warmup=300", "schedule: {kind: cosine, peak: 1e-3, warmup: 300}"
        path.write_text(f"candidates:\n  - {one}\n  - {two}\n")
        table = read_candidates([str(path)], tokens=1e9, batch_tokens=1e5)
        assert table.schedules[0] == table.schedules[1]

    def test_in_a_mapping_of_a_schedule(self, tmp_path):
        path = tmp_path / "candidates.yaml"
        path.write_text("candidates: [{schedule: {family: cosine, peak: 1e-3, steps: 20000}}]\n")
        with pytest.raises(TableError, match=r"kind must be given, .* or another family, in place of 'family'$"):
            read_candidates([str(path)])

    @pytest.mark.parametrize(("suffix", "key"), [("csv", "family"), ("csv", "kind"), ("jsonl", "family")])
    def test_in_tables(self, suffix, key, tmp_path):
        path = tmp_path / f"candidates.{suffix}"
        rows = {
            "csv": f"{key},peak,warmup,steps\ncosine,1e-3,300,20000\n",
            "jsonl": f'{{"{key}": "cosine", "peak": 1e-3, "warmup": 300, "steps": 20000}}\n',
        }
        path.write_text(rows[suffix])
        assert read_candidates([str(path)]).schedules == (parse("cosine:peak=1e-3,warmup=300,steps=20000"),)
        path.write_text(rows[suffix].replace(key, "kinds"))
        with pytest.raises(TableError, match=r"missing column 'schedule'; .*; add a column family .* in one cell"):
            read_candidates([str(path)])

    def test_other_unknown_keys_and_columns_are_as_before(self, tmp_path):
        path = tmp_path / "candidates.yaml"
        path.write_text("candidates: [{schedul: 3, params: 85M}]\n")
        with pytest.raises(TableError, match="unknown key 'schedul'; did you mean 'schedule'"):
            read_candidates([str(path)])
        path = tmp_path / "candidates.csv"
        path.write_text("schedul,steps\n3,4\n")
        with pytest.raises(TableError, match="has schedul, steps; say which is which: --columns schedule=schedul"):
            read_candidates([str(path)])
