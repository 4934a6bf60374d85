"""Reading whole text files and replacing files in one step."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from optlaws.errors import InputError, TableError

PACKED = {"gzip": b"\x1f\x8b", "zip, as of a spreadsheet": b"PK\x03\x04", "zstd": b"\x28\xb5\x2f\xfd", "bzip2": b"BZh"}
"""How compressed files begin, by kind."""


def read_text(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Return the text of a UTF-8 file (or of standard input for "-") and the name to call it in messages.

    Raises
    ------
    TableError
        If the file is missing, a folder, unreadable, empty, compressed, or not UTF-8.
    """
    if str(path) == "-":
        if sys.stdin is None:
            raise TableError("standard input: it is closed; name a file instead of '-'")
        name, data = "standard input", sys.stdin.buffer.read()
    else:
        name, data = str(path), read_bytes(path)
    packed = next((kind for kind, start in PACKED.items() if data.startswith(start)), None)
    if packed is not None:
        way = "save the sheet as CSV, or unpack it first" if "spreadsheet" in packed else "unpack it first"
        raise TableError(f"{name}: a text file is needed, got a compressed one ({packed}); {way}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as bad:
        raise TableError(f"{name}: not UTF-8 text (byte {bad.start}); save the file as UTF-8") from None
    if not text.strip():
        raise TableError(f"{name}: nothing in it; at least one row or schedule is needed")
    return text, name


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a file, with every way of failing told as a `TableError`."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise TableError(f"{path}: no such file; check the name and the folder") from None
    except IsADirectoryError:
        raise TableError(f"{path}: this is a folder, a file is needed; name the file inside it") from None
    except (OSError, ValueError) as bad:
        reason = getattr(bad, "strerror", None) or str(bad)
        raise TableError(f"{path}: cannot be read ({reason}); check its permissions") from None


def check_target(path: str | os.PathLike[str]) -> None:
    """Raise an `InputError` unless a file can be written there: tell it before the work is done, not after.

    Parameters
    ----------
    path
        The file that is going to be written, or "-".

    Raises
    ------
    InputError
        If the name is empty or a folder, its folder does not exist or cannot be written, or the file is read-only.
    """
    if str(path) == "-":
        if sys.stdout is None:
            raise InputError("standard output is closed; name a file to write to with -o")
        return
    if not str(path):
        raise InputError("the name of an output must be a file or '-' for standard output, got ''; name one")
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise InputError(f"{path}: this is a folder, a file name is needed to write to")
    if not target.parent.is_dir():
        raise InputError(f"{path}: the folder {str(target.parent)!r} does not exist; make it first")
    if target.exists() and not os.access(target, os.W_OK):
        raise InputError(f"{path}: the file is read-only; allow writing to it or choose another name")
    if (target.is_file() or not target.exists()) and not os.access(target.parent, os.W_OK):
        raise InputError(f"{path}: the folder {str(target.parent)!r} cannot be written; choose another one")


def check_folder(path: str | os.PathLike[str], name: str = "the folder") -> None:
    """Raise an `InputError` unless files can be written into that folder, or it can be made.

    Parameters
    ----------
    path
        The folder, which need not be there.
    name
        What to call it in the message.

    Raises
    ------
    InputError
        If the name is empty, it or what is to hold it is a file, or that cannot be written.
    """
    if not str(path):
        raise InputError(f"{name} must be a folder, got ''; name one")
    place = Path(os.path.realpath(path))
    there = next(one for one in (place, *place.parents) if one.exists())
    if not there.is_dir():
        what = "which is a file" if there == place else f"but {str(there)!r} is a file"
        raise InputError(f"{name} must be a folder, got {str(path)!r}, {what}; name another one")
    if not os.access(there, os.W_OK):
        raise InputError(f"{name} must be a folder that can be written, got {str(path)!r}; name another one")


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that takes its name only when it is complete.

    The text goes to a temporary file in the same folder, which replaces `path` in one step at the end of the block.
    If the block raises, the temporary file is removed and an older file at `path` stays as it was. "-" writes to
    standard output (not atomic, of course). A link is followed, so that its target is replaced and not the link.

    Parameters
    ----------
    path
        The file to write, or "-".
    mode
        "w" (UTF-8 text, newlines as given) or "wb".

    Raises
    ------
    InputError
        As for `check_target`.
    """
    check_target(path)
    if str(path) == "-":
        yield sys.stdout if mode == "w" else sys.stdout.buffer
        sys.stdout.flush()
        return
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():  # a pipe or a device such as /dev/null cannot be replaced
        with open(target, mode, **_text(mode)) as stream:
            yield stream
        return
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    except OSError as bad:
        reason = bad.strerror or str(bad)
        raise InputError(f"{path}: cannot write into folder {str(target.parent)!r} ({reason})") from None
    try:
        with os.fdopen(handle, mode, **_text(mode)) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, _permissions(target))
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _text(mode: str) -> dict[str, Any]:
    return {} if "b" in mode else {"encoding": "utf-8", "newline": ""}


def _permissions(target: Path) -> int:
    """Permissions of the file being replaced, or those that the process gives to new files."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
