"""`optlaws features` from the outside: what it prints is all that a reader needs for its values."""

import json
import math
import re

import pytest
from scipy.special import gammaincc

FUNCTIONS = {"sqrt": math.sqrt, "max": max, "Q": gammaincc, "__builtins__": {}}


def code(text):
    """Return a printed formula as Python: a power, a space that multiplies, a derivative by its own name."""
    text = re.sub(r"(\w)'", r"\1_prime", text).replace("^", "**")
    return compile(re.sub(r"(?<=[\w)]) +(?=[\w(])", " * ", text), "formula", "eval")


def rate(schedule, k):
    """Return the rate of update k of a cosine or a WSD with a linear end."""
    peak, total, warm = schedule["peak_lr"], schedule["total_steps"], schedule["warmup_steps"]
    if k < warm:
        return peak * k / warm
    end = schedule["final_lr"]
    if schedule["kind"] == "cosine":
        return end + (peak - end) * (1 + math.cos(math.pi * (k - warm) / (total - warm))) / 2
    return end + (peak - end) * min(1.0, (total - k) / schedule["decay_steps"])


def integrated(document, place=0):
    """Return every symbol's value at the end of a run, from the printed equations and constants alone."""
    run = document["schedules"][place]
    known = {entry["symbol"]: entry["value"] for entry in document["constants"]} | run["inputs"]
    modes = [name.removeprefix("l_") for name in known if re.fullmatch(r"l_\d+", name)]
    rules, states, highest = [], {}, {}
    for entry in document["symbols"]:
        copies = modes if entry["symbol"].endswith("_k") else [""]
        for text in (re.sub(r"_k\b", f"_{mode}", entry["equation"]) for mode in copies):
            left, _, right = text.partition(" = ")
            if not right or entry["symbol"] in known:
                continue
            if left.endswith("'"):
                states[left.strip("()'")] = 0.0
                rules.append((left, code(right)))
            elif right.startswith("max "):
                highest[left] = right.removeprefix("max ")
                rules.append((left, None))
            else:
                rules.append((left, code(right)))
    states["R^2"] = 1.0
    if not run["inputs"]["batch_stated"]:  # "without end where no run states its batch"
        rules = [rule for rule in rules if rule[0] != "bc"]
        known["bc"] = math.inf

    def slopes(at, top):
        """Return (c0, c1) of each state's derivative c0 + c1 state; all printed equations are linear in their own."""
        values = known | at | top
        values["R"] = math.sqrt(at["R^2"])
        out = {}
        for left, right in rules:
            if right is None:
                top[left] = values[left] = max(top[left], values[highest[left]])
            elif left.endswith("'"):
                state = left.strip("()'")
                name = "R" if state == "R^2" else state
                zero, one = (eval(right, FUNCTIONS, values | {name: x}) for x in (0.0, 1.0))
                out[state] = (zero, one - zero)
                values[f"{state}_prime"] = zero
            else:
                values[left] = eval(right, FUNCTIONS, values)
        return out, values

    def moved(at, slope, time):
        new = {}
        for name, (c0, c1) in slope.items():
            z = c1 * time
            new[name] = at[name] * math.exp(z) + c0 * (math.expm1(z) / c1 if z else time)
        return new

    top = dict.fromkeys(highest, 0.0)
    for k in range(run["schedule"]["total_steps"]):
        known |= {"eta": max(rate(run["schedule"], k), 1e-300), "steps": k + 0.5}
        half = moved(states, slopes(states, dict(top))[0], 0.5)
        states = moved(states, slopes(half, top)[0], 1.0)
    known["steps"] = run["schedule"]["total_steps"]
    return slopes(states, top)[1]


COSINE, WSD = "cosine:peak=1e-3,steps=6000,final=2e-4", "wsd:peak=1e-3,steps=6000,warmup=300,decay=0.3,final=2e-4"
CASES = {
    "cosine": [COSINE, "--params", "85M", "--batch-tokens", "1M", "--weight-decay", "0.2"],
    "wsd": [f"{WSD},shape=linear", "--params", "20M"],
}


@pytest.fixture(params=CASES)
def document(run, request):
    status, out, _ = run("features", *CASES[request.param], "--format", "json")
    assert status == 0
    return json.loads(out)


def test_values_follow_from_what_is_printed(document):
    values, printed = integrated(document), document["schedules"][0]["values"]
    assert len(document["columns"]) == len(printed) == 16
    for column in document["columns"]:
        found = eval(code(column["formula"].split(",  ")[0]), FUNCTIONS, values)
        assert found == pytest.approx(printed[column["name"]], rel=1e-3), column["name"]


def test_the_pace_of_the_variances_is_printed_with_its_factor(document):
    """Without (u / u_max)^(s - 1) the values would be others, and the printed equation is the one of the column."""
    printed = document["schedules"][0]["values"]
    constants = [{**c, "value": 1.0} if c["symbol"] == "s" else c for c in document["constants"]]
    plain = integrated({**document, "constants": constants})
    assert plain["v_3"] * (plain["tau"] / 1000) ** -plain["gv"] < 0.97 * printed["variance_3"]
    law = next(entry["equation"] for entry in document["symbols"] if entry["symbol"] == "v_k")
    for column in document["columns"]:
        if re.fullmatch(r"variance_\d", column["name"]):
            assert column["formula"].endswith(law.replace("_k", f"_{column['name'][-1]}"))
            assert "(u / u_max)^(s - 1)" in column["assumed"]


def test_every_symbol_of_a_formula_is_explained(document):
    symbols = {re.sub(r"\(.*", "", entry["symbol"]) for entry in document["symbols"]}
    constants = {entry["symbol"] for entry in document["constants"]}
    texts = [column["formula"] for column in document["columns"]] + [entry["equation"] for entry in document["symbols"]]
    for text in texts:
        for word in re.findall(r"[A-Za-z]\w*", text):
            place = re.sub(r"_\d+$", "_k", word)
            known = {word, place} & (symbols | constants) or place == "l_k" or word in ("sqrt", "max")
            assert known or word in ("params", "batch_tokens", "steps"), (word, text)
    assert all(entry["meaning"] and entry["unit"] for entry in document["symbols"])
    assert len(constants) == len(document["constants"])


def test_the_table_lists_symbols_constants_and_what_is_assumed(run):
    status, out, _ = run("features", "cosine:peak=1e-3,steps=1000", "--params", "85M", "--weight-decay", "0.05")
    assert status == 0
    assert "weight_decay 0.05" in out
    for line in (r"u +u = x / R +felt rate", r"aN +0\.13 ", r"s +1\.3 +1 +relaxation", r"l_5 +4\.5 "):
        assert re.search(rf"^{line}", out, re.MULTILINE), line
    assert re.search(r"^  variance_0, .*variance_5: \(u / u_max\)\^\(s - 1\)", out, re.MULTILINE)


def test_csv_has_the_columns_that_it_had(run):
    status, out, _ = run("features", "cosine:peak=1e-3,steps=1000", "--format", "csv")
    assert status == 0
    assert out.splitlines()[0] == "candidate,column,group,value,formula,unit,rescaling,derivation"
