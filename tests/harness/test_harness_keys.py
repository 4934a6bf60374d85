"""The settings of a configuration are listed as they are declared, without torch."""

from dataclasses import fields

import pytest

from optlaws.errors import InputError
from optlaws.harness.config import KEYS, TrainConfig, read_config
from optlaws.harness.keys import REQUIRED, settings_of_a_run
from optlaws.harness.sections import DATA, MODELS, SECTIONS

GROUPS = settings_of_a_run()
ALL = [one for group in GROUPS for one in group.settings]


def test_no_key_is_left_out():
    listed = {one.key for one in ALL}
    declared = {
        f"{name}.{field.name}"
        for name, kinds in (
            ("model", MODELS.values()),
            ("data", DATA.values()),
            *((n, [c]) for n, c in SECTIONS.items()),
        )
        for cls in kinds
        for field in fields(cls)
    }
    sections = {"model", "data", *SECTIONS}
    assert listed == declared | (set(KEYS) - sections)
    assert {key.partition(".")[0] for key in listed} == set(KEYS)
    assert {field.name for field in fields(TrainConfig)} <= set(KEYS)


def test_every_setting_says_what_it_is():
    for one in ALL:
        assert all(text and "\n" not in text for text in one), one
    assert len({group.heading for group in GROUPS}) == len(GROUPS)


def test_defaults_are_those_of_a_configuration():
    config = read_config({"schedule": "cosine:peak=1e-3,steps=10"}).to_dict()
    texts = {one.key: one.default for group in GROUPS[:3] + GROUPS[-4:] for one in group.settings}
    assert float(texts["optimizer.clip"]) == config["optimizer"]["clip"] == 1.0
    assert (int(texts["batch"]), int(texts["model.width"])) == (config["batch"], config["model"]["width"])
    assert texts["model.kind"] == config["model"]["kind"]
    assert [one.key for one in ALL if one.default == REQUIRED] == ["schedule", "data.train", "data.path"]


@pytest.mark.parametrize("key", ["batch", "micro_batch", "eval.every", "data.zipf", "compile", "dtype", "data.weights"])
def test_the_rule_is_that_of_the_error(key):
    rule = next(one.rule for one in ALL if one.key == key).removesuffix(", or null")
    section, _, name = key.rpartition(".")
    given = {section: {name: {}}} if section else {name: {}}
    with pytest.raises(InputError) as error:
        read_config({"schedule": "cosine:peak=1e-3,steps=10", **given})
    assert f"{key} must be {rule}, got {{}}" in str(error.value)
