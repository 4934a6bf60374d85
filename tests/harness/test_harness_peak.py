"""What a device can do at most, and what share of that a run used, however often it changed devices."""

import pytest

pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

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
