"""The public files behind each folder: which copy is here, and how to get those with an address of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

from optlaws.errors import InputError
from paper_repro.convert import MAKERS
from paper_repro.core import HERE


@dataclass(frozen=True)
class Source:
    """One entry of a folder's sources.json.

    Attributes
    ----------
    folder : the reproduction that reads it.
    name : the file that is read, in the data folder.
    address : where the public file is, or the folder of public files that the table is made of.
    sha256 : of the file at that address; None where it is not known, or where there is no such file.
    sha256_of_table_here : of the file that the expected figures were made with, where that is not the public one.
    fetch : "file" where the address is that of one file, "folder" where it is not.
    paths : the files or folders in the public repository; empty where `address` names the file.
    commit : the commit at which they were seen; None where it could not be checked.
    make : name of the converter of `paper_repro.convert` that turns the public file into `name`; "" for none.
    note : what is in it.
    """

    folder: str
    name: str
    address: str
    sha256: str | None = None
    sha256_of_table_here: str | None = None
    fetch: str = "file"
    paths: Sequence[str] = ()
    commit: str | None = None
    make: str = ""
    note: str = ""

    @property
    def known(self) -> list[str]:
        """The digests of the copies that the expected figures were made with."""
        if self.sha256_of_table_here:
            return [self.sha256_of_table_here]
        return [self.sha256] if self.sha256 and not self.make else []


def sources(folder: str) -> list[Source]:
    """Return the entries of a folder's sources.json."""
    entries: list[dict[str, Any]] = json.loads((HERE / folder / "sources.json").read_text(encoding="utf-8"))["files"]
    return [Source(folder, **entry) for entry in entries]


def digest(path: Path) -> str:
    """Return the sha256 of a file."""
    return sha256(path.read_bytes()).hexdigest()


def other_copies(folder: str, data: Path) -> list[str]:
    """Return a line for every file of a folder that is another copy than the one the expected figures were made with.

    A file that is not there, or whose digest is not on record, has no line.
    """
    lines = []
    for source in sources(folder):
        path = data / source.name
        if not (source.known and path.is_file()):
            continue
        found = digest(path)
        if found not in source.known:
            lines.append(
                f"other copy than the one the expected figures were made with: {source.name} (sha256 {found[:12]}...,"
                f" on record {source.known[0][:12]}...)"
            )
    return lines


def fetch(folders: Sequence[str], data: Path, say: Callable[[str], None] = print) -> list[str]:
    """Get the public files of the folders into `data`; return what could not be had, one sentence each.

    A file whose sha256 is on record is checked against it; of another the sha256 of what came is said. Files that are
    there already are left alone.

    Raises
    ------
    InputError
        pooch is not installed.
    """
    try:
        pooch = import_module("pooch")
    except ImportError:
        raise InputError("--fetch needs pooch, got an environment without it; pip install 'optlaws[repro]'") from None
    gaps: list[str] = []
    for source in {source.name: source for folder in folders for source in sources(folder)}.values():
        target = data / source.name
        if target.is_file():
            continue
        if source.fetch != "file":
            where = f" at {source.commit[:12]}: {', '.join(source.paths)}," if source.commit else ""
            gaps.append(
                f"{source.folder}: {source.name} is a table made of many files and cannot be fetched as one; get them"
                f" from {source.address}{where} and write the table by hand ({source.note})"
            )
            continue
        public = data / (f"public_{source.name}" if source.make else source.name)
        known = f"sha256:{source.sha256}" if source.sha256 else None
        try:
            pooch.retrieve(source.address, known_hash=known, fname=public.name, path=data, progressbar=False)
            if source.make:
                MAKERS[source.make](public, target)
        except (OSError, ValueError) as bad:  # no connection, another file under that address, no such table
            said = " ".join(str(bad).split()).rstrip(".")
            gaps.append(f"{source.folder}: {source.name} not fetched from {source.address} ({said})")
            continue
        finally:
            if source.make:
                public.unlink(missing_ok=True)
        if not source.sha256:
            say(f"{source.name}: fetched; no sha256 is on record to check it against, what came has {digest(target)}")
    return gaps
