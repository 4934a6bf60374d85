"""Candidates from short forms and files."""

import io
import json
import sys

import numpy as np
import pytest

from optlaws.errors import InputError, OptlawsError, TableError
from optlaws.runs import format_quantity, gather_candidates, parse_quantity, read_candidates, read_runs
from optlaws.schedules import from_array, parse

SHORT = "cosine:peak=1e-3,steps=1000,warmup=10"


def write(path, text):
    path.write_text(text)
    return str(path)


def stdin(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_short_forms_get_their_length_from_the_tokens():
    table = read_candidates(
        ["cosine:peak=1e-3", "wsd:peak=1e-3,decay=0.2"], params=85e6, tokens=2.56e9, batch_tokens=51200
    )
    assert table.steps.tolist() == [50000, 50000]
    assert table.schedules[1] == parse("wsd:peak=1e-3,decay=0.2,steps=50000")
    assert table.tokens.tolist() == [2.56e9] * 2
    assert table.params.tolist() == [85e6] * 2
    assert np.isnan(table.final_loss).all()


def test_rounded_lengths_keep_the_tokens_asked_for():
    table = read_candidates(["cosine:peak=1e-3"], tokens=1e9, batch_tokens=3e5)
    assert table.steps[0] == 3333
    assert table.tokens[0] == 1e9
    assert table.batch_tokens[0] == 3e5


def test_a_stated_length_decides():
    table = read_candidates([SHORT], tokens=1e9, fallback={"batch_tokens": 51200})
    assert table.batch_tokens[0] == 1e6
    table = read_candidates([SHORT], batch_tokens=1e5)
    assert table.tokens[0] == 1e8
    with pytest.raises(TableError, match="command line, candidate 1: tokens is 1000000000 but steps"):
        read_candidates([SHORT], tokens=1e9, batch_tokens=51200)


def test_fallbacks_are_used_and_told():
    found = gather_candidates([SHORT], {"params": 1e8}, {"params": 5e7, "batch_tokens": 51200.0, "weight_decay": 0.1})
    assert found.assumed == {"batch_tokens": 51200.0, "weight_decay": 0.1}
    assert found.runs.tokens[0] == 51200 * 1000
    assert found.runs.weight_decay[0] == 0.1
    found = gather_candidates(["cosine:peak=1e-3"], {}, {"tokens": 1e9, "batch_tokens": 1e5})
    assert found.assumed == {"tokens": 1e9, "batch_tokens": 1e5}
    assert found.runs.steps[0] == 10000


def test_defaults_do_not_contradict_what_is_known(tmp_path):
    entries = [{"optimizer": "sgd", "active_params": 1e8, "schedule": SHORT}, SHORT]
    path = write(tmp_path / "c.json", json.dumps(entries))
    table = read_candidates([path], fallback={"params": 5e7, "weight_decay": 0.1})
    np.testing.assert_array_equal(table.weight_decay, [0.0, 0.1])  # plain SGD has none unless it says so
    np.testing.assert_array_equal(table.params, [np.nan, 5e7])
    assert read_candidates([path], weight_decay=0.2).weight_decay.tolist() == [0.2, 0.2]


def test_without_any_length_the_message_says_so():
    with pytest.raises(OptlawsError, match=r"must be given.*or give the number of tokens and the tokens a step"):
        read_candidates(["cosine:peak=1e-3"])


def test_names(tmp_path):
    path = write(tmp_path / "c.json", json.dumps([{"name": "mine", "schedule": SHORT}, SHORT]))
    found = gather_candidates([SHORT, path, SHORT])
    text = parse(SHORT).short()
    assert found.runs.run_id == (text, "mine", f"{text} #2", f"{text} #3")
    assert found.named.tolist() == [False, True, False, False]
    with pytest.raises(TableError, match="'mine' was used before"):
        gather_candidates([path, path])


YAML = """
# numbers as people write them
params: 85M
candidates:
  - cosine:peak=1e-3
  - {kind: wsd, peak_lr: 1e-3, total_steps: 2000, warmup_steps: 100, decay_steps: 400}
  - name: big
    params: 1.5B
    batch_tokens: 1M
    schedule: {kind: cosine, peak: 1e-3}
"""


def test_many_equal_candidates_are_numbered_one_after_the_other():
    """Twenty thousand equal ones: trying every number anew for each would be two hundred million look-ups."""
    text = "cosine:peak=0.001,steps=1000"
    entries = [text] * 20_000
    entries[5] = {"name": f"{text} #3", "schedule": text}  # the user's, further on: the number is passed over
    found = gather_candidates([json.dumps(entries)]).runs.run_id
    numbers = [i for i in range(1, 20_001) if i != 3]
    others = [text if i == 1 else f"{text} #{i}" for i in numbers]
    assert found == (*others[:5], f"{text} #3", *others[5:])


def test_yaml(tmp_path):
    table = read_candidates([write(tmp_path / "c.yaml", YAML)], tokens=1e9, batch_tokens=5e5)
    assert table.params.tolist() == [85e6, 85e6, 1.5e9]
    assert table.steps.tolist() == [2000, 2000, 1000]
    assert table.schedules[1].peak == 1e-3
    assert table.run_id[2] == "big"


def test_json_schedule_alone_and_from_standard_input(tmp_path, monkeypatch):
    text = parse(SHORT).to_json()
    assert read_candidates([write(tmp_path / "s.json", text)]).schedules == (parse(SHORT),)
    assert read_candidates([text]).schedules == (parse(SHORT),)
    for source in (
        text,
        f"[{text}]",
        f"- {SHORT}\n",
        f"schedule\n{SHORT.replace(',', ';')}\n".replace(";", ",")[:9] + f'"{SHORT}"\n',
    ):
        stdin(monkeypatch, source)
        assert read_candidates(["-"]).schedules == (parse(SHORT),), source
    stdin(monkeypatch, json.dumps({"run_id": "x", "schedule": SHORT}) + "\n")
    assert read_candidates(["-"]).run_id == ("x",)


def test_csv_may_lack_names_and_keeps_its_columns(tmp_path):
    path = write(tmp_path / "c.csv", f'params,schedule,team\n85M,"{SHORT}",red\n,"{SHORT}",blue\n')
    table = read_candidates([path], params=1e7)
    assert table.params.tolist() == [85e6, 1e7]
    assert table.extra["team"] == ("red", "blue")


def test_run_tables_are_candidates_too(data_dir):
    path = data_dir / "schaipp_runs.csv"
    if not path.exists():
        pytest.skip("schaipp_runs.csv is not there")
    assert len(read_candidates([str(path)])) > 100


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.yaml", "", "nothing in it"),
        ("c.yaml", "[]", "a list of schedules or of candidates is needed"),
        ("c.yaml", "5", "a list of schedules"),
        ("c.yaml", "- 5", "entry 1: a schedule or a mapping"),
        ("c.yaml", "- {name: a}", "entry 1: the key 'schedule' is missing"),
        ("c.yaml", "- {name: a, shedule: x}", "unknown key 'shedule'; did you mean 'schedule'"),
        ("c.yaml", f"- {{schedule: '{SHORT}', parms: 1}}", "unknown key 'parms'; did you mean 'params'"),
        (
            "c.yaml",
            f"- {{schedule: '{SHORT}', params: big}}",
            "entry 1: params must be a finite number above 0, got 'big'",
        ),
        ("c.yaml", f"- {{schedule: '{SHORT}', params: -1}}", "params must be a finite number above 0, got -1"),
        ("c.yaml", f"- {{schedule: '{SHORT}', params: yes}}", "params must be a finite number above 0, got True"),
        ("c.yaml", "- cosine:peek=1e-3,steps=10", "entry 1: schedule: .*did you mean 'peak'"),
        ("c.yaml", "- {kind: cosine, peak: 1e-3, peak: 2e-3, total_steps: 9}", "line 1: not valid YAML .*occurs twice"),
        ("c.yaml", "a: [", "line [12]: not valid YAML"),
        ("c.yaml", "tokns: 5\ncandidates: []", "unknown key 'tokns'; did you mean 'tokens'"),
        ("c.json", "{", "not valid JSON"),
        ("c.json", '{"kind": "cosine", "kind": "wsd"}', "occurs twice"),
        ("c.csv", "name\na\n", "missing column 'schedule'"),
        ("c.ini", SHORT, "the suffix of a candidate file must be one of"),
        ("c.txt", "# a comment\n\ncosin:peak=1", "line 3: schedule: kind must be one of .*did you mean 'cosine'"),
        ("c.txt", "# a comment", "only comments"),
        ("c.txt", '{"kind": "cosine"', "line 1: not valid JSON"),
        ("c.jsonl", f'"{SHORT}"\n5', "line 2: schedule"),
    ],
)
def test_bad_files(tmp_path, name, text, message):
    path = write(tmp_path / name, text)
    with pytest.raises(TableError, match=message) as error:
        read_candidates([path])
    assert path in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arg", ["cosin:peak=1,steps=5", "nothing.yaml", "{", "cosine", "", "wsd:peak=1e-3,steps=0"])
def test_bad_arguments(arg):
    with pytest.raises(InputError):
        read_candidates([arg])


def test_no_candidate():
    with pytest.raises(TableError, match="no candidate given"):
        read_candidates([])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("85M", 85e6),
        ("2.56B", 2.56e9),
        ("1e9", 1e9),
        ("51_200", 51200),
        (" 3k ", 3000),
        ("1T", 1e12),
        (7, 7),
        (1e300, 1e300),  # as its text
        ("1e300", 1e300),
        ("0.1", 0.1),
    ],
)
def test_quantities(text, value):
    assert parse_quantity(text) == value


@pytest.mark.parametrize(
    "text", ["", "M", "-1", "0", "nan", "inf", "1e999", "ten", "1 000", True, None, "1MM", "0x10", 10**400]
)
def test_bad_quantities(text):
    with pytest.raises(InputError, match="--params must be a finite number above 0"):
        parse_quantity(text, "--params")


def test_zero_where_allowed():
    assert parse_quantity("0", zero=True) == 0


@pytest.mark.parametrize("value", [85e6, 2.56e9, 999.0, 51200.0, 1e12, 123456.0])
def test_format_is_inverse(value):
    assert parse_quantity(format_quantity(value, 6)) == value


def test_a_document_on_one_line_from_standard_input(monkeypatch):
    document = {"params": "60M", "candidates": [SHORT, {"name": "b", "schedule": SHORT}]}
    stdin(monkeypatch, json.dumps(document))
    table = read_candidates(["-"])
    assert table.run_id[1] == "b"
    assert table.params.tolist() == [6e7, 6e7]


def test_numbers_beyond_floats_are_refused(tmp_path):
    huge = "1" + "0" * 400
    path = write(tmp_path / "c.json", f'{{"params": {huge}, "candidates": ["{SHORT}"]}}')
    with pytest.raises(TableError, match=r"entry 1: params must be a finite number above 0, got 10{59}; write it"):
        read_candidates([path])
    with pytest.raises(InputError, match="must be a finite number"):
        parse_quantity(int(huge))
    path = write(tmp_path / "c.jsonl", '{"kind": ' + "[" * 100_000 + "\n")
    with pytest.raises(TableError, match="not valid JSON"):
        read_candidates([path])


def test_candidates_given_in_python(tmp_path):
    assert read_candidates(SHORT).schedules == (parse(SHORT),)
    assert parse_quantity(np.int64(3)) == 3.0
    for wrong in (None, parse(SHORT), tmp_path / "c.yaml"):
        with pytest.raises(TableError, match=r"candidate 2 must be text, got .*; write str"):
            read_candidates([SHORT, wrong])


class TestRatesOfEveryStep:
    """What `optlaws schedule` writes is a candidate."""

    def write(self, path, schedule):
        rates = enumerate(parse(schedule).array().tolist())
        path.write_text("".join(["step,lr\n", *(f"{step},{rate:.17g}\n" for step, rate in rates)]))
        return str(path)

    def test_a_family_is_found_where_all_rates_are_its_own(self, tmp_path):
        spec = "wsd:peak=1e-3,steps=5000,warmup=300,shape=sqrt"
        found = gather_candidates([self.write(tmp_path / "my plan.csv", spec), "cosine:peak=1e-3,steps=100"])
        assert (found.runs.run_id[0], found.named.tolist()) == ("my plan", [True, False])
        assert found.runs.schedules[0] == parse(spec)

    def test_others_are_arrays(self, tmp_path):
        spec = parse("inverse_sqrt:peak=1e-3,steps=500,warmup=30")
        runs = gather_candidates([self.write(tmp_path / "x.csv", str(spec))], {"batch_tokens": 1e3}).runs
        assert runs.schedules[0] == from_array(spec.array())
        assert (runs.run_id, runs.tokens.tolist()) == (("x",), [5e5])

    def test_json_too(self, tmp_path):
        rates = [{"step": 0, "lr": 0.5}, {"step": 1, "lr": 0.25}, {"step": 2, "lr": 0.5}]
        (tmp_path / "x.json").write_text(json.dumps(rates))
        assert read_candidates([str(tmp_path / "x.json")]).schedules[0].array().tolist() == [0.5, 0.25, 0.5]

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("step,lr\n1,1e-3\n", "line 2: step must be 0, as a schedule has one row a step, from step 0 on, got '1'"),
            ("step,lr\n0,1e-3\n2,1e-3\n", "line 3: step must be 1, .* got '2'; add the rows that are missing"),
            ("step,lr\n0,1e-3\n1,x\n", "line 3: lr must be a number, got 'x'"),
            ("step,lr\n0,1e-3\n1,\n", "line 3: lr is empty"),
            ("step,lr\n0,1e-3\n1,-1e-3\n", "values must be finite rates from 0"),
            ("step,lr\n0,0\n1,0\n", "values must be rates with one above 0"),
            ("step,lr\n", "only a header"),
            ("step,rate\n0,1e-3\n", "missing column 'schedule'; the file has step, rate"),
            ("step,lr,loss\n0,1e-3,3\n", "missing column 'schedule'; the file has step, lr, loss"),
        ],
    )
    def test_one_sentence_for_what_is_none(self, tmp_path, text, why):
        path = tmp_path / "lr.csv"
        path.write_text(text)
        with pytest.raises(InputError, match=why) as error:
            gather_candidates([str(path)])
        assert "lr.csv" in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("512K", 512_000), ("512Ki", 524_288), ("512ki", 524_288), ("1Mi", 2**20), ("2Gi", 2**31), ("1.5Ti", 1.5 * 2**40)],
)
def test_binary_quantities(tmp_path, text, value):
    assert parse_quantity(text) == value
    path = tmp_path / "runs.csv"
    path.write_text(f'run_id,schedule,batch_tokens\na,"cosine:peak=1e-3,steps=10",{text}\n')
    assert read_runs(path).batch_tokens.tolist() == [value]
    assert read_candidates([str(path)]).batch_tokens.tolist() == [value]


@pytest.mark.parametrize("text", ["512i", "1Bi", "1 K i", "1Kib", "Ki", "1ſ"])
def test_what_is_no_binary_quantity(text):
    with pytest.raises(InputError, match="write it like 85M"):
        parse_quantity(text)
