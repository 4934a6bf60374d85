"""What a run is run on: device, number format, versions, commit."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import torch

from optlaws._version import __version__
from optlaws.errors import InputError
from optlaws.harness._fields import wrong
from optlaws.harness.config import TrainConfig

PEAK_FLOPS = {
    "GH200": 989e12,
    "GB200": 2500e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H800": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "V100": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "T4": 65e12,
}
"""Dense 16-bit operations a second by the maker's data sheets; the first name that is words of the device's counts."""

OTHERS = r"(?! (?:Ti|D|SUPER|Laptop)\b)"
"""What does not follow the name of a device with these figures: the names of slower or faster ones go on so."""


def peak_flops(device: str) -> float | None:
    """Return the operations a second at most in 16 bits of a device by its name, None where it is not known."""
    words = ((flops, rf"\b{re.escape(name)}\b{OTHERS}") for name, flops in PEAK_FLOPS.items())
    return next((flops for flops, pattern in words if re.search(pattern, device)), None)


@dataclass(frozen=True)
class Machine:
    """Where and how a run computes.

    Attributes
    ----------
    device, dtype
        Device, and the number format of the products (parameters are always float32).
    name
        Of the device, for the record.
    peak_flops
        Operations a second at most in that format, None where not known.
    """

    device: torch.device
    dtype: torch.dtype
    name: str
    peak_flops: float | None

    @classmethod
    def of(cls, config: TrainConfig) -> Machine:
        """Return the machine that a configuration asks for.

        Raises
        ------
        InputError
            If there is no such device here, or it cannot compute in the format asked for.
        """
        wanted = config.device
        if wanted == "auto":
            wanted = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(wanted)
        except RuntimeError:
            raise wrong("device", "auto, cpu, cuda or cuda:0, cuda:1, ...", config.device) from None
        if device.type not in ("cpu", "cuda"):
            raise wrong("device", "auto, cpu, cuda or cuda:0, cuda:1, ...", config.device)
        if device.type == "cpu":
            dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
            return cls(device, dtype, f"cpu {platform.machine()}", None)
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InputError(
                f"device must be one of the {count} CUDA devices that torch sees here, or cpu, got {config.device!r}; "
                "choose another one or install torch for CUDA"
            )
        dtype = torch.float32 if config.dtype == "float32" else torch.bfloat16
        if dtype is torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
            if config.dtype == "bfloat16":
                raise wrong("dtype", "float32 on this device", config.dtype)
            dtype = torch.float32
        name = torch.cuda.get_device_name(device)
        peak = peak_flops(name)
        return cls(device, dtype, name, peak if dtype is torch.bfloat16 else None)

    @property
    def dtype_name(self) -> str:
        """The number format as configurations write it."""
        return str(self.dtype).removeprefix("torch.")

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which losses are computed."""
        if self.dtype is torch.float32:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[object] = torch.autocast(self.device.type, dtype=self.dtype)
        return context

    def wait(self) -> None:
        """Wait until the device has done all its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @contextmanager
    def set_up(self, threads: int | None) -> Iterator[None]:
        """Set torch's number of threads and, on CUDA, its fast products, and restore both at the end."""
        before = torch.get_num_threads(), torch.get_float32_matmul_precision()
        if threads is not None:
            torch.set_num_threads(threads)
        if self.device.type == "cuda" and self.dtype is torch.bfloat16:
            torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.set_float32_matmul_precision(before[1])


@lru_cache(maxsize=1)
def versions() -> str:
    """Return the versions that a result depends on, as one text."""
    parts = [f"optlaws {__version__}", f"python {platform.python_version()}", f"torch {torch.__version__}"]
    for name in ("numpy", "pytorch_optimizer", "tokenizers"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            parts.append(f"{name} {metadata.version(name)}")
    return "; ".join(parts)


@lru_cache(maxsize=1)
def commit() -> str:
    """Return the commit of this package's source, with "-dirty" if it was changed since.

    Outside a repository, as where the source was copied without one, the environment variable OPTLAWS_COMMIT gives it;
    "" if that is not set either.

    Raises
    ------
    InputError
        OPTLAWS_COMMIT is no commit.
    """
    folder = Path(__file__).resolve().parents[2]
    if (folder / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            head, status = (
                subprocess.run(
                    ["git", *args], cwd=folder, capture_output=True, text=True, timeout=10, check=True
                ).stdout
                for args in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
            )
            return head.strip() + ("-dirty" if status.strip() else "")
    given = os.environ.get("OPTLAWS_COMMIT", "")
    if given and not re.fullmatch(r"[0-9a-f]{7,64}(-dirty)?", given):
        rule = "7 to 64 hexadecimal digits, with -dirty behind them if the source was changed since"
        raise wrong("OPTLAWS_COMMIT", rule, given, "take what git rev-parse HEAD prints, or unset it")
    return given
