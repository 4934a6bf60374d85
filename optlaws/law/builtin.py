"""Built-in laws: files of this package, fitted on public runs that they do not carry."""

from __future__ import annotations

import os
from importlib.resources import files

from optlaws.errors import LawError, nearest
from optlaws.law.model import Law


def builtin_names() -> list[str]:
    """Return the names of the built-in laws."""
    return sorted(
        entry.name.removesuffix(".json") for entry in files("optlaws.laws").iterdir() if entry.name.endswith(".json")
    )


def load_law(law: str | os.PathLike[str]) -> Law:
    """Return a built-in law by name, or the law in a file.

    Raises
    ------
    LawError
        There is neither.
    """
    name = os.fspath(law)
    known = builtin_names()
    if name in known:
        with files("optlaws.laws").joinpath(f"{name}.json").open(encoding="utf-8") as stream:
            from optlaws.law.store import law_from_text

            return law_from_text(stream.read(), name)
    if not os.path.exists(name):
        raise LawError(f"law must be a law file or one of {', '.join(known)}, got {name!r}{nearest(name, known)}")
    return Law.load(name)
