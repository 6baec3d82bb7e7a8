"""Output: tables for people, JSON for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

Shown = Any
_WIDE = 240


def emit(value: Shown, *, as_json: bool, data: Any = None) -> None:
    """Print something that rich can print, or its data as one JSON document."""
    if as_json:
        typer.echo(json.dumps(plain(value if data is None else data), allow_nan=False, ensure_ascii=False))
    else:
        # In a file or a pipe no line is broken at the width of some terminal.
        Console(width=None if sys.stdout.isatty() else _WIDE).print(value)


def grid(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Grid:
    """Make a table; numbers are set to the right."""
    table = Grid(title=title, title_justify="left", title_style="bold")
    lines = [list(row) for row in rows]
    for at, heading in enumerate(headings):
        right = bool(lines) and isinstance(lines[0][at], int | float)
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for line in lines:
        table.add_row(*(Text(f"{v:,}" if isinstance(v, int) else str(v)) for v in line))
    return table


def plain(value: Any) -> Any:
    """Turn a value into what strict JSON can hold; it has no NaN and no infinity: they become null."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(held) for name, held in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(held) for held in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, datetime):
        return value.isoformat()
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)
