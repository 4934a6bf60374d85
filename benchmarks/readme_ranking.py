"""Run the ranking at the head of the README again: python benchmarks/readme_ranking.py.

Its output goes between the markers of the README, its picture into docs/ranking.png.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r"(<!-- ranking:begin -->\n```sh\n)(.*?)(\n```\n\n```text\n)(.*?)(```\n<!-- ranking:end -->)", re.DOTALL
)


def command(text: str) -> list[str]:
    """Return the arguments of the README's ranking, its picture in docs/."""
    found = BLOCK.search(text)
    if found is None:
        sys.exit("README.md must have a command and its output between the markers ranking:begin and ranking:end")
    words = shlex.split(found[2].replace("\\\n", " "))
    return [str(ROOT / "docs" / word) if word == "ranking.png" else word for word in words[1:]]


def main() -> None:
    """Rewrite the block between the markers."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    (ROOT / "docs").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "optlaws", *command(text)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    path.write_text(BLOCK.sub(lambda m: m[1] + m[2] + m[3] + done.stdout + m[5], text), encoding="utf-8")
    print(done.stdout)


if __name__ == "__main__":
    main()
