import json
import math
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

from tiny_runs import tiny

from optlaws.errors import InputError
from optlaws.harness import read_config
from optlaws.schedules import parse

WSD = "wsd:peak=1e-3,steps=10"


def test_round_trip_through_files(tmp_path):
    config = tiny(model={"qk_norm": True}, name="a", micro_batch=2, data_seed=5)
    assert read_config(config) is config
    assert read_config(config.to_dict()) == config
    path = tmp_path / "run.json"
    path.write_text(json.dumps(config.to_dict()))
    assert read_config(path) == config
    path = tmp_path / "run.yaml"
    path.write_text("model: {width: 64, depth: 2}\nschedule: cosine:peak=1e-3,warmup=10\ntokens: 1.28M\nbatch: 100\n")
    read = read_config(path)
    assert (read.steps, read.batch_tokens, read.model.heads, read.model.hidden) == (100, 12_800, 1, 176)


def test_the_length_may_stand_beside_the_schedule():
    given = {"seq_len": 10, "batch": 10}
    assert read_config({**given, "schedule": "cosine:peak=1", "steps": 7}).steps == 7
    assert read_config({**given, "schedule": "cosine:peak=1", "tokens": "1K"}).steps == 10
    assert read_config({**given, "schedule": {"kind": "cosine", "peak": 1}, "steps": 7}).steps == 7
    assert read_config({**given, "schedule": "cosine:peak=1,steps=7", "steps": 7}).steps == 7
    with pytest.raises(InputError, match="steps must fit the schedule, which has 8 steps"):
        read_config({"schedule": "cosine:peak=1,steps=8", "steps": 7})
    with pytest.raises(InputError, match="must not both be given"):
        read_config({"schedule": "cosine:peak=1", "steps": 7, "tokens": 8})
    with pytest.raises(InputError, match="every part of a chain"):
        read_config({"schedule": "cosine:peak=1 then cosine:peak=1", "steps": 7})


def test_digest_knows_what_changes_the_run():
    config = tiny()
    same = [
        config.with_(name="other"),
        config.with_(device="cuda"),
        config.with_(log_every=7),
        config.with_(threads=2),
        config.with_(data_seed=0),
    ]
    assert {other.digest() for other in same} == {config.digest()}
    others = [
        tiny(seed=1),
        tiny(data_seed=1),
        tiny("wsd:peak=3e-3,steps=24,warmup=5,decay=0.25"),
        tiny(model={"width": 32}),
        tiny(optimizer={"weight_decay": 0.0}),
        tiny(optimizer={"settings": {"amsgrad": True}}),
    ]
    assert len({config.digest(), *(other.digest() for other in others)}) == len(others) + 1
    assert config.run_id == f"run-{config.digest()[:12]}"
    assert tiny(seed=1).digest("seed", "data_seed") == config.digest("seed", "data_seed")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({}, "schedule must be given"),
        ({"schedule": WSD, "modle": {}}, "did you mean 'model'"),
        ({"schedule": WSD, "model": {"widht": 3}}, "model: key must be one of .* did you mean 'width'"),
        ({"schedule": WSD, "model": {"kind": "rnn"}}, "model.kind must be one of transformer, mlp, quadratic"),
        ({"schedule": WSD, "model": {"width": 65}}, "model.heads must be a divisor of width 65"),
        ({"schedule": WSD, "model": {"width": 64, "heads": 4, "kv_heads": 3}}, "model.kv_heads must be a divisor of"),
        ({"schedule": WSD, "model": {"experts": 1}}, "model.experts must be 0 for a dense layer"),
        ({"schedule": WSD, "model": {"experts": 2, "experts_per_token": 3}}, "at least experts_per_token, 3"),
        ({"schedule": WSD, "model": {"depth": 0}}, "model.depth must be a whole number of at least 1, got 0"),
        ({"schedule": WSD, "model": {"depth": 1.5}}, "model.depth must be a whole number"),
        ({"schedule": WSD, "model": {"tied": 1}}, "model.tied must be true or false, got 1"),
        ({"schedule": WSD, "model": []}, "model must be a mapping"),
        (
            {"schedule": WSD, "model": {"kind": "quadratic"}, "data": {"kind": "corpus"}},
            "data.kind must be noise for a quadratic",
        ),
        ({"schedule": WSD, "model": {"kind": "quadratic"}, "seq_len": 2}, "seq_len must be 1 for a quadratic"),
        ({"schedule": WSD, "data": {"weights": [0.5, 0.6]}}, "data.weights must be two or three numbers"),
        ({"schedule": WSD, "data": {"vocab": "many"}}, "data.vocab must be a whole number from 2 to 65536"),
        ({"schedule": WSD, "data": {"kind": "tokens"}}, "data.train must be given"),
        ({"schedule": WSD, "data": {"kind": "huggingface"}}, "data.path must be given"),
        ({"schedule": WSD, "batch": 4, "micro_batch": 3}, "micro_batch must be a divisor of batch, 4"),
        ({"schedule": WSD, "seed": -1}, "seed must be a whole number from 0 to 9007199254740991, got -1"),
        ({"schedule": WSD, "seed": 2**53}, "seed must be a whole number from 0 to 9007199254740991"),
        ({"schedule": WSD, "batch": math.nan}, "batch must be a whole number of at least 1, got nan"),
        ({"schedule": WSD, "batch": math.inf}, "batch must be a whole number of at least 1, got inf"),
        ({"schedule": WSD, "model": {"width": 10**400}}, "model.width must be a whole number of at least 2, got 1000"),
        ({"schedule": WSD, "data": {"weights": [math.nan, 1]}}, "data.weights must be two or three numbers"),
        ({"schedule": WSD, "threads": 10**9}, "threads must be a whole number from 1 to 1024"),
        ({"schedule": WSD, "name": "a/b"}, "name must be at most"),
        ({"schedule": WSD, "dtype": "float16"}, "dtype must be one of auto, float32, bfloat16"),
        ({"schedule": WSD, "optimizer": {"clip": 0}}, "optimizer.clip must be a finite number above 0"),
        ({"schedule": WSD, "optimizer": {"settings": 3}}, "optimizer.settings must be a mapping"),
        ({"schedule": WSD, "divergence": {"factor": 1}}, "divergence.factor must be a finite number above 1"),
        ({"schedule": "wsd:peak=1e-3"}, "steps of wsd must be given"),
        (
            {"schedule": "constant:peak=0.1,steps=200", "optimizer": "adafactor"},
            r"the rate of schedule must be at most 1 / sqrt\(update\) with adafactor, 0.0995 at update 101, got 0.1",
        ),
    ],
)
def test_bad_settings_are_one_sentence(given, match):
    with pytest.raises(InputError, match=match) as caught:
        read_config(given)
    assert "\n" not in str(caught.value)


def test_the_example():
    config = read_config(Path(__file__).resolve().parents[2] / "examples" / "train_tiny.yaml")
    assert (config.run_id, config.steps, config.model.kv_heads) == ("tiny", 300, 1)
    assert config.schedule == parse("wsd:peak=5e-3,steps=300,warmup=20,decay=0.2")


def test_bad_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_config(tmp_path / "none.yaml")
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    with pytest.raises(InputError, match="must be a mapping"):
        read_config(path)
