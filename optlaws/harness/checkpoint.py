"""Checkpoints: one file each, tensors and plain values only, written whole or not at all."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from optlaws.errors import InputError, OptlawsError
from optlaws.runs import atomic_write

_NAME = re.compile(r"step-(\d+)\.pt")
FORMAT = 1


class CheckpointError(OptlawsError):
    """A checkpoint could not be written; the command line turns it into exit code 1."""


class _Writer:
    """A file to write to that remembers why a write failed."""

    stream: IO[bytes]
    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write bytes; return how many."""
        try:
            return self.stream.write(data)
        except OSError as bad:
            self.failure = bad
            raise

    def flush(self) -> None:
        """Hand over what is buffered."""
        self.stream.flush()


def pack(content: Any, stream: Any) -> None:
    """Write tensors, numbers, texts, and lists and dicts of them to a stream of bytes."""
    torch.save(content, stream)


def unpack(source: Any) -> Any:
    """Read what `pack` has written, from a file or a stream, onto the CPU; nothing in it is run as code."""
    return torch.load(source, map_location="cpu", weights_only=True)


def save_checkpoint(folder: Path, step: int, content: dict[str, Any], keep: int | None) -> Path:
    """Write the checkpoint after `step` updates and remove all but the newest `keep`.

    Parameters
    ----------
    folder
        Made if it is not there.
    step
        Updates done.
    content
        Tensors, numbers, texts, and lists and dicts of them.
    keep
        At least 1; None keeps all.

    Raises
    ------
    CheckpointError
        If the disk is full or does not take the file for another reason; older checkpoints stay as they are.
    InputError
        If the folder cannot be written.
    """
    path = folder / f"step-{step:09d}.pt"
    writer = _Writer()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "wb") as writer.stream:
            pack({"format": FORMAT, "step": step, **content}, writer)
    except (OSError, RuntimeError) as bad:  # torch tells of a failing write in words of its own
        cause = writer.failure or bad
        reason = getattr(cause, "strerror", None) or (str(cause).splitlines() or [type(cause).__name__])[0]
        raise CheckpointError(
            f"{path}: the checkpoint could not be written ({reason:.100}); make room there and give the same command "
            "again, which goes on from the newest whole checkpoint"
        ) from None
    for left in folder.glob(".step-*.part"):  # of a process that was killed while it wrote
        left.unlink(missing_ok=True)
    if keep is not None:
        for old in list_checkpoints(folder)[:-keep]:
            old.unlink(missing_ok=True)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def step_of(path: Path) -> int | None:
    """Return the updates done at a checkpoint, by its name; None if the name is not that of one."""
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else None


def load_checkpoint(path: Path, fits: Callable[[str], bool]) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in it is run as code.

    Parameters
    ----------
    path
        The file.
    fits
        Tells whether a checkpoint of runs with that digest may be taken up.

    Raises
    ------
    InputError
        If it is damaged, of another version, or of a run with other settings.
    """
    try:
        content = unpack(path)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as bad:
        reason = str(bad).splitlines()[0] if str(bad) else type(bad).__name__
        raise InputError(
            f"{path}: not a whole checkpoint ({reason:.100}); remove it to resume from an older one"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: not a checkpoint of this version of optlaws; remove it or use the version it is of")
    if not fits(content["digest"]):
        raise InputError(f"{path}: this checkpoint is of a run with other settings; use another folder or --restart")
    return content
