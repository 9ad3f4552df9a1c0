"""What a command prints: data on stdout as a table, JSON or names; talk on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]


def talk(text: str, *, quiet: bool = False) -> None:
    """A line for a person."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def show_json(value: Any) -> None:
    """JSON for a program."""
    print(json.dumps(value, indent=2, sort_keys=True))


def show_table(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    """Aligned columns; on a terminal with a heading in bold, elsewhere plain lines."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, _ in columns:
        table.add_column(title, no_wrap=True)
    for row in rows:
        table.add_row(*(cell(row) for _, cell in columns))
    width = None if sys.stdout.isatty() else 10_000
    Console(width=width, highlight=False, markup=False, soft_wrap=True).print(table)


def ago(at: float | None) -> str:
    """How long ago a moment (unix seconds) was."""
    if not at:
        return "-"
    return span(max(0.0, time.time() - at))


def span(seconds: float) -> str:
    """A duration in its largest unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:.0f}s"


def size(value: float | None) -> str:
    """Bytes in binary units, as they are written on the command line."""
    if value is None:
        return "-"
    for unit in ("", "k", "m", "g"):
        if value < 1024:
            return f"{value:.0f}{unit}"
        value /= 1024
    return f"{value:.1f}t"


def moment(at: float | None) -> str:
    """A moment as RFC 3339 in UTC."""
    if at is None:
        return "-"
    millis = round(at * 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(millis // 1000)) + f".{millis % 1000:03d}Z"


def show(rows: Iterable[Row], output: str, columns: Sequence[Column], *, name: str = "tenant") -> None:
    """Rows in the form that was asked for."""
    found = list(rows)
    if output == "json":
        show_json(found)
    elif output == "name":
        for row in found:
            print(row[name])
    else:
        show_table(found, columns)
