"""Command line: `python -m theory` writes the index, `--check` compares it, `--build DIR` writes the page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m theory", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if theory/README.md is not what would be written"
    )
    parser.add_argument(
        "--build", metavar="DIR", type=Path, help="write DIR/theory.html with all derivations and figures"
    )
    given = parser.parse_args(arguments)
    if given.build:
        from theory.page import html  # matplotlib and latex2mathml are needed here only

        try:
            given.build.mkdir(parents=True, exist_ok=True)
        except OSError as bad:
            parser.error(f"--build must be a folder that can be written, got {str(given.build)!r} ({bad.strerror})")
        target = given.build / "theory.html"
        target.write_text(html(), encoding="utf-8")
        print(target)
        return 0
    from theory.index import FOLDER, markdown

    target, text = FOLDER / "README.md", markdown()
    if given.check:
        same = target.is_file() and target.read_text(encoding="utf-8") == text
        print(f"{target.name} is {'as written' if same else 'out of date: run python -m theory'}")
        return 0 if same else 1
    target.write_text(text, encoding="utf-8")
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
