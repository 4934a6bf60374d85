"""What a device can do at most, and what share of that a run used, however often it changed devices."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

from tiny_runs import tiny

from optlaws.harness import train
from optlaws.harness.machine import PEAK_FLOPS, peak_flops


@pytest.mark.parametrize(
    ("device", "key"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GB200", "GB200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100 80GB PCIe", "A100"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA L40S", "L40S"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
    ],
)
def test_devices_whose_peak_is_known(device, key):
    assert peak_flops(device) == PEAK_FLOPS[key]


@pytest.mark.parametrize(
    "device",
    [
        "NVIDIA RTX A1000 Laptop GPU",
        "NVIDIA A100X",
        "NVIDIA H20",
        "NVIDIA T400 4GB",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 3090 Ti",
    ],
)
def test_devices_whose_name_only_begins_like_one_that_is_known(device):
    assert peak_flops(device) is None


def resumed(folder, devices):
    """Return the record of a run resumed from a checkpoint that says it took 1,000 seconds for 1e15 tokens."""
    asked = iter(range(100))
    config = tiny(checkpoint={"every": 100})
    assert train(config, folder, stop=lambda: next(asked) == 9).status == "interrupted"
    (path,) = (folder / "checkpoints").iterdir()
    content = torch.load(path, weights_only=True)
    changed = {**content, "clock": [1e3, 9, 1e15], "earlier": 50.0}
    if devices is None:  # as written before this was noted
        del changed["devices"], changed["earlier"]
    else:
        changed["devices"] = devices or content["devices"]
    torch.save(changed, path)
    record = train(config, folder)
    assert record.status == "completed"
    (last,) = (folder / "checkpoints").iterdir()
    return {name: float(record.runs.extra[name][0]) for name in ("tokens_per_second", "seconds")}, torch.load(last)


def test_the_speed_after_a_resume_is_that_of_the_devices_at_work(tmp_path):
    other, last = resumed(tmp_path / "other", "8 NVIDIA H100 80GB HBM3")
    assert other["tokens_per_second"] < 1e9
    assert 1050 < other["seconds"] < 1150
    assert last["earlier"] == 1050
    assert last["clock"][2] < 24 * 32
    for devices, before in (("", 1050), (None, 1000)):
        same, last = resumed(tmp_path / f"same{before}", devices)
        assert same["tokens_per_second"] > 1e11
        assert before < same["seconds"] < before + 100
        assert last["clock"][2] > 1e15
