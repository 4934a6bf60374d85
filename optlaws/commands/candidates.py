"""What commands that gather candidates say of them on standard error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from optlaws.commands.shared import amount
from optlaws.runs import Candidates


def tell_overruled(found: Candidates, options: Mapping[str, Any], what: str = "candidates") -> None:
    """Say which options were not used, since candidates (`what`) state the value themselves, and for how many."""
    if not found.overruled:
        return
    parts = []
    for name, count in found.overruled.items():
        value = options[name]
        text = value if isinstance(value, str) else amount(name, value)
        share = f" for {count} of {len(found.runs)} {what}" if len(found.runs) > 1 else ""
        parts.append(f"--{name.replace('_', '-')} {text}{share}")
    click.echo(f"optlaws: note: a value that is stated counts, not the option's: {', '.join(parts)}", err=True)
