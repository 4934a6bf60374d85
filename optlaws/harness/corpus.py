"""A corpus that every machine with this package has: source and documentation of the packages that it needs.

The text never leaves the machine. It is split into a training and a validation part by whole files, tokenised by a
byte-pair encoding trained on it (one token a byte without the library tokenizers), and kept as two flat files of 16-bit
token ids beside `corpus.json`, which records what it was made of and its digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.errors import InputError
from optlaws.harness._fields import wrong
from optlaws.harness.sections import CorpusData
from optlaws.harness.tokens import Streams

ROOTS = ("numpy", "scipy", "scikit-learn", "matplotlib", "click", "pyyaml", "tqdm", "threadpoolctl")
"""Packages that this one needs; those that they need are read too."""

SUFFIXES = frozenset({".py", ".pyi", ".md", ".rst", ".txt"})
BYTE_VOCAB = 257
END_OF_TEXT = "<|end|>"
HELD_OUT = 32  # one file in so many is for validation
TRAINED_ON = 8_000_000  # characters that the byte pairs are counted on
CACHE = "OPTLAWS_CACHE"
FORMAT = 1


def cache_folder() -> Path:
    """Return the folder for what can be made again: OPTLAWS_CACHE, or optlaws in the user's cache folder."""
    chosen = os.environ.get(CACHE)
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "optlaws"


def open_corpus(data: CorpusData) -> Streams:
    """Return the corpus, built first if it is not there.

    Raises
    ------
    InputError
        If the folder holds a corpus with other settings or a damaged one, or there is no text to build one from.
    """
    packages = _packages()
    recipe = {"format": FORMAT, "vocab": data.vocab, "megabytes": data.megabytes, "tokenizer": _tokenizer_name(data)}
    key = hashlib.sha256(json.dumps([recipe, packages], sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(data.folder).expanduser() if data.folder else cache_folder() / f"corpus-{key}"
    if not folder.exists():
        build_corpus(data, folder)
    return _open(folder, data)


def build_corpus(data: CorpusData, folder: Path) -> dict[str, Any]:
    """Build the corpus into a folder that is not there yet, and return what `corpus.json` says.

    The same installed packages give the same corpus and digest.

    Raises
    ------
    InputError
        `data.megabytes` does not hold two files of text.
    """
    packages = _packages()
    train, held_out, size, files = _texts(packages, data.megabytes * 1e6)
    if not train or not held_out:
        raise InputError(
            f"data.megabytes must be enough for at least two files of text, got {data.megabytes:g}; raise it"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        if _tokenizer_name(data) == "bpe":
            encode, vocab = _byte_pairs(train, data.vocab, made)
        else:
            encode, vocab = _bytes, BYTE_VOCAB
        streams = {"train": encode(train), "val": encode(held_out)}
        for name, tokens in streams.items():
            tokens.tofile(made / f"{name}.bin")
        facts = {
            "format": FORMAT,
            "tokenizer": _tokenizer_name(data),
            "vocab": vocab,
            "wanted_vocab": data.vocab,
            "megabytes": data.megabytes,
            "packages": packages,
            "files": files,
            "bytes": size,
            "train_tokens": len(streams["train"]),
            "val_tokens": len(streams["val"]),
            "digest": _digest(streams["train"], streams["val"]),
        }
        (made / "corpus.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        try:
            os.replace(made, folder)
        except OSError:  # somebody else built the same in the meantime
            if not (folder / "corpus.json").is_file():
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return facts


def _open(folder: Path, data: CorpusData) -> Streams:
    try:
        facts = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        streams = [np.memmap(folder / f"{name}.bin", dtype=np.uint16, mode="r") for name in ("train", "val")]
    except (OSError, ValueError) as bad:
        raise InputError(
            f"data.folder: {folder} holds no whole corpus ({bad}); remove it or name another one"
        ) from None
    wanted = (data.vocab, data.megabytes)
    if (facts.get("wanted_vocab"), facts.get("megabytes")) != wanted:
        rule = f"a folder whose corpus has vocab {data.vocab} and megabytes {data.megabytes:g}"
        raise wrong("data.folder", rule, str(folder), "name another one or change the settings")
    if [len(s) for s in streams] != [facts["train_tokens"], facts["val_tokens"]]:
        raise InputError(f"data.folder: the token files in {folder} are cut off; remove it, and it is built again")
    return Streams(streams[0], streams[1], int(facts["vocab"]), str(facts["digest"]))


def _tokenizer_name(data: CorpusData) -> str:
    if data.vocab <= BYTE_VOCAB:
        return "bytes"
    try:
        import_module("tokenizers")
    except ImportError:
        return "bytes"
    return "bpe"


def _digest(*streams: npt.NDArray[np.uint16]) -> str:
    digest = hashlib.sha256()
    for tokens in streams:
        digest.update(str(len(tokens)).encode())
        digest.update(tokens.tobytes())
    return digest.hexdigest()


def _packages() -> dict[str, str]:
    """Return the versions of all installed packages reached from the roots, by name."""
    found: dict[str, str] = {}
    waiting = list(ROOTS)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found[name] = package.version
        for line in package.requires or ():
            requirement, _, marker = line.partition(";")
            word = re.match(r"[A-Za-z0-9._-]+", requirement)
            if word and "extra" not in marker:
                waiting.append(word.group())
    return dict(sorted(found.items()))


def _texts(packages: Iterable[str], most: float) -> tuple[list[str], list[str], int, int]:
    """Return training texts, validation texts, bytes and files; a text that occurs twice counts once."""
    files: dict[str, Path] = {}
    for name in packages:
        for entry in metadata.distribution(name).files or ():
            if entry.suffix in SUFFIXES:
                files[f"{name}/{entry.as_posix()}"] = Path(str(entry.locate()))
    order = sorted(files, key=lambda name: hashlib.sha256(name.encode()).digest())
    train: list[str] = []
    held_out: list[str] = []
    size = count = 0
    seen: set[bytes] = set()
    for name in order:
        try:
            raw = files[name].read_bytes()
            text = raw.decode("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        digest = hashlib.sha256(raw).digest()
        if digest in seen or not text.strip():
            continue
        if size + len(raw) > most:
            break
        seen.add(digest)
        size, count = size + len(raw), count + 1
        (held_out if digest[0] % HELD_OUT == 0 else train).append(text)
    if not held_out and len(train) > 1:  # few files, none of them chosen
        held_out.append(train.pop())
    return train, held_out, size, count


def _bytes(texts: Iterable[str]) -> npt.NDArray[np.uint16]:
    """Return one token a byte, and token 256 after each text."""
    parts = []
    for text in texts:
        parts.append(np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.uint16))
        parts.append(np.array([BYTE_VOCAB - 1], dtype=np.uint16))
    return np.concatenate(parts)


def _byte_pairs(texts: list[str], vocab: int, folder: Path) -> tuple[Any, int]:
    """Train byte pairs on the texts, keep them as tokenizer.json; return what encodes texts, and its vocabulary."""
    library = import_module("tokenizers")
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_some(texts), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    end = np.array([tokenizer.token_to_id(END_OF_TEXT)], dtype=np.uint16)

    def encode(several: list[str]) -> npt.NDArray[np.uint16]:
        parts = []
        for begin in range(0, len(several), 256):
            for coded in tokenizer.encode_batch_fast(several[begin : begin + 256], add_special_tokens=False):
                parts += [np.array(coded.ids, dtype=np.uint16), end]
        return np.concatenate(parts)

    return encode, int(tokenizer.get_vocab_size())


def _some(texts: Iterable[str]) -> Iterator[str]:
    """Yield texts until enough characters were seen."""
    seen = 0
    for text in texts:
        yield text
        seen += len(text)
        if seen > TRAINED_ON:
            return
