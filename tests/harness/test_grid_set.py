"""The settings that a block of a grid adds to the base's."""

import pytest

from optlaws.harness.grid import read_grid

BASE = {
    "seq_len": 16,
    "optimizer": {"name": "lion", "weight_decay": 0.1, "clip": 0.5, "settings": {"cautious": True}},
    "data": {"vocab": 64, "branching": 4},
    "eval": {"sequences": 8},
}


def config_of(further, base=None):
    blocks = {"a": {"set": further}} if further is not None else {"a": {}}
    (one,) = read_grid(
        {
            "base": BASE if base is None else base,
            "sizes": {"S": {"depth": 1, "width": 16, "heads": 2}},
            "schedules": {"w": "wsd:decay=0.2"},
            "peaks": [1e-3],
            "horizons": [100],
            "blocks": blocks,
        }
    )
    return one.config


@pytest.mark.parametrize(
    ("further", "expected"),
    [
        ({"optimizer": {"weight_decay": 0.3}}, {**BASE, "optimizer": {**BASE["optimizer"], "weight_decay": 0.3}}),
        (
            {"optimizer": {"name": "Lion", "clip": None}},
            {**BASE, "optimizer": {**BASE["optimizer"], "clip": None}},
        ),
        ({"optimizer": "lion"}, BASE),
        ({"data": {"zipf": 0.5}}, {**BASE, "data": {**BASE["data"], "zipf": 0.5}}),
        ({"data": {"kind": "synthetic", "zipf": 0.5}}, {**BASE, "data": {**BASE["data"], "zipf": 0.5}}),
        ({"eval": {"every": 5}}, {**BASE, "eval": {"sequences": 8, "every": 5}}),
        ({"seq_len": 8, "checkpoint": {"every": 3}}, {**BASE, "seq_len": 8, "checkpoint": {"every": 3}}),
        # Another optimizer, or another kind of data, has nothing of the base's.
        ({"optimizer": {"name": "soap", "eps": 1e-9}}, {**BASE, "optimizer": {"name": "soap", "eps": 1e-9}}),
        ({"optimizer": "soap"}, {**BASE, "optimizer": {"name": "soap"}}),
        ({"data": {"kind": "corpus"}}, {**BASE, "data": {"kind": "corpus"}}),
    ],
    ids=str,
)
def test_a_block_changes_what_it_says_and_nothing_else(further, expected):
    assert config_of(further).digest() == config_of(None, expected).digest()


def test_a_base_that_names_its_optimizer_alone_or_not_at_all():
    by_name = config_of({"optimizer": {"clip": 0.2}}, {**BASE, "optimizer": "lion"})
    assert (by_name.optimizer.name, by_name.optimizer.clip) == ("lion", 0.2)
    unsaid = config_of({"optimizer": {"name": "adamw", "clip": 0.2}}, {"optimizer": {"weight_decay": 0.1}})
    assert (unsaid.optimizer.weight_decay, unsaid.optimizer.clip) == (0.1, 0.2)
    absent = config_of({"optimizer": {"clip": 0.2}}, {})
    assert (absent.optimizer.name, absent.optimizer.clip) == ("adamw", 0.2)


def test_a_section_that_is_none_is_told_as_before():
    with pytest.raises(ValueError, match="optimizer must be a mapping of setting to value, got None"):
        config_of({"optimizer": None})
