"""Token streams on disk: files of the user, data sets of Hugging Face."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from optlaws.errors import InputError
from optlaws.harness._fields import wrong
from optlaws.harness.sections import HubData, TokenData

SAMPLE = 1 << 20  # tokens at both ends of a file that its digest is made of, beside its length
MAGIC, HEADER = 20240520, 1024  # first number, and bytes, of the header that llm.c and its followers write
WIDE_FROM = 64  # tokens from which it can be told that a file has wider ones


class Tokens(Protocol):
    """A flat array of token ids that may lie on disk."""

    def __len__(self) -> int:
        """Return the number of tokens."""
        ...

    def __getitem__(self, where: slice) -> npt.NDArray[Any]:
        """Return tokens begin .. end - 1, which must exist."""
        ...


@dataclass(frozen=True)
class Streams:
    """A training and a validation stream, with their vocabulary and digest."""

    train: Tokens
    validation: Tokens
    vocab: int
    digest: str


class Pieces:
    """Arrays laid end to end without being joined in memory."""

    def __init__(self, parts: Sequence[npt.NDArray[Any]]) -> None:
        """Take the arrays; empty ones are dropped."""
        self._parts = [part for part in parts if len(part)]
        self._ends = np.cumsum([len(part) for part in self._parts], dtype=np.int64)

    def __len__(self) -> int:
        """Return the number of tokens."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, where: slice) -> npt.NDArray[Any]:
        """Return tokens begin .. end - 1."""
        begin, end, _ = where.indices(len(self))
        found = []
        at = int(np.searchsorted(self._ends, begin, side="right"))
        while begin < end:
            start = int(self._ends[at]) - len(self._parts[at])
            stop = min(end, int(self._ends[at]))
            found.append(self._parts[at][begin - start : stop - start])
            begin, at = stop, at + 1
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


class Part:
    """A stretch of a token stream."""

    def __init__(self, tokens: Tokens, begin: int, end: int) -> None:
        """Take tokens begin .. end - 1."""
        self._tokens, self._begin, self._end = tokens, begin, end

    def __len__(self) -> int:
        """Return the number of tokens."""
        return self._end - self._begin

    def __getitem__(self, where: slice) -> npt.NDArray[Any]:
        """Return tokens begin .. end - 1."""
        begin, end, _ = where.indices(len(self))
        return self._tokens[self._begin + begin : self._begin + end]


def open_tokens(data: TokenData) -> Streams:
    """Return the user's token files, mapped into memory.

    Raises
    ------
    InputError
        If a file is missing, empty, or no flat array of whole numbers.
    """
    train = _map_file(data.train, data.dtype, "data.train")
    if data.val is None:
        streams = hold_out(train, data.val_fraction)
    else:
        streams = train, _map_file(data.val, data.dtype, "data.val")
    return Streams(*streams, data.vocab, digest_of(*streams))


def hold_out(tokens: Tokens, fraction: float) -> tuple[Tokens, Tokens]:
    """Return the stream without its last part, and that part: a fraction (0 .. 1) of it, at least one token."""
    edge = len(tokens) - max(1, round(fraction * len(tokens)))
    return Part(tokens, 0, edge), Part(tokens, edge, len(tokens))


def digest_of(*streams: Tokens) -> str:
    """Return a sha256 of the lengths of the streams and of up to a million tokens at both ends of each."""
    digest = hashlib.sha256()
    for tokens in streams:
        n = len(tokens)
        digest.update(str(n).encode())
        for begin, end in ((0, min(n, SAMPLE)), (max(0, n - SAMPLE), n)):
            digest.update(np.ascontiguousarray(tokens[begin:end], dtype=np.int64).tobytes())
    return digest.hexdigest()


def _header(place: Path) -> int:
    """Return how many bytes come before the tokens of a flat file: 0, or those of the header that llm.c writes."""
    with open(place, "rb") as stream:
        first = stream.read(HEADER)
    return HEADER if len(first) == HEADER and int.from_bytes(first[:4], "little") == MAGIC else 0


def _is_wider(tokens: npt.NDArray[Any]) -> bool:
    """Return whether numbers of 16 bits look like halves of numbers of 32 bits, all small."""
    return len(tokens) >= WIDE_FROM and not tokens[1::2].any() and bool(tokens[::2].any())


def _map_file(path: str, dtype: str, name: str) -> npt.NDArray[Any]:
    place = Path(os.path.expanduser(path))
    if not place.is_file():
        raise wrong(name, "a file of token ids", path, "check the name and the folder")
    try:
        if place.suffix == ".npy":
            array: npt.NDArray[Any] = np.load(place, mmap_mode="r", allow_pickle=False)
        else:
            array = np.memmap(place, dtype=dtype, mode="r", offset=_header(place))
    except (OSError, ValueError) as bad:
        raise InputError(f"{name}: {path} cannot be read as {dtype} tokens ({bad}); check the file") from None
    if array.dtype == np.uint16 and _is_wider(array[:SAMPLE]):
        raise wrong(
            "data.dtype", f"uint32 for {path}, in which every second number of 16 bits is 0", dtype, "change it"
        )
    if array.ndim != 1 or array.dtype.kind not in "iu" or not len(array):
        rule = "one flat array of whole numbers"
        raise wrong(name, rule, f"{path} with shape {array.shape} of {array.dtype}", "write it anew")
    return array


def open_hub(data: HubData) -> Streams:
    """Return the token ids in a column of a Hugging Face data set; its files are mapped into memory, not read.

    Raises
    ------
    InputError
        If the library is missing, the data set cannot be opened, or the column holds no token ids.
    """
    try:
        library = import_module("datasets")
    except ImportError:
        raise InputError(
            "data.kind huggingface needs the library datasets, which is not installed; install it (pip install "
            "datasets) or write the tokens to a file and use kind: tokens"
        ) from None
    train, ends = _column(_load(library, data, data.split), data.column)
    if data.val_split is None:
        streams = hold_out_rows(train, ends, data.val_fraction)
    else:
        streams = train, _column(_load(library, data, data.val_split), data.column)[0]
    return Streams(*streams, data.vocab, digest_of(*streams))


def hold_out_rows(tokens: Tokens, ends: npt.NDArray[np.int64], fraction: float) -> tuple[Tokens, Tokens]:
    """Return the stream without its last rows, and these: a fraction (0 .. 1) of all rows, at least one.

    Parameters
    ----------
    tokens
        The rows laid end to end.
    ends
        Where each row ends, (rows,).
    fraction
        Of the rows.

    Raises
    ------
    InputError
        No row is left to train on.
    """
    first = len(ends) - max(1, round(fraction * len(ends)))
    if first < 1:
        rule = f"a split, or val_fraction so small that of the {len(ends)} rows one is left to train on"
        raise wrong("data.val_split", rule, None, "name a split, or cut the text into more rows")
    edge = int(ends[first - 1])
    return Part(tokens, 0, edge), Part(tokens, edge, len(tokens))


def _load(library: Any, data: HubData, split: str) -> Any:
    local = os.path.expanduser(data.path)
    if (data.path.startswith((".", "/", "~")) or data.path.count("/") > 1) and not os.path.isdir(local):
        raise wrong("data.path", "a folder that is there, or the name of a data set", data.path, "check it")
    try:
        if os.path.isdir(local):
            found = library.load_from_disk(local)
            return found[split] if hasattr(found, "keys") else found
        return library.load_dataset(data.path, data.name, split=split)
    except Exception as bad:  # the library raises errors of many kinds
        reason = str(bad).splitlines()[0] if str(bad) else type(bad).__name__
        raise InputError(
            f"data.path: {data.path!r}, split {split!r}, cannot be opened ({reason:.160}); check them"
        ) from None


def _column(rows: Any, column: str) -> tuple[Tokens, npt.NDArray[np.int64]]:
    """Return the tokens of all rows, and where each row ends, (rows,)."""
    if column not in rows.column_names:
        raise wrong("data.column", f"one of {', '.join(rows.column_names)}", column, "choose one of them")
    if getattr(rows, "_indices", None) is not None:
        rows = rows.flatten_indices()
    parts, lengths = [], []
    for chunk in rows.data.column(column).chunks:
        flat = chunk.flatten() if hasattr(chunk, "flatten") else chunk
        values = flat.to_numpy(zero_copy_only=False)
        if values.dtype.kind not in "iu":
            raise wrong("data.column", "a column with lists of token ids", column, "tokenise the text first")
        parts.append(values)
        lengths.append(_lengths(chunk))
    tokens = Pieces(parts)
    if not len(tokens):
        raise wrong("data.column", "a column that holds tokens", column, "choose another one")
    return tokens, np.cumsum(np.concatenate(lengths), dtype=np.int64)


def _lengths(chunk: Any) -> npt.NDArray[np.int64]:
    """Return the number of tokens of each row of a chunk, (rows,): 0 where it is empty, 1 in a column of single ids."""
    if not hasattr(chunk, "value_lengths"):
        return np.ones(len(chunk), dtype=np.int64)
    found: npt.NDArray[np.int64] = chunk.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return found
