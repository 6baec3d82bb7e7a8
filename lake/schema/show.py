"""A schema as text, for a terminal and for a notebook."""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from lake.schema.arrow import vector_layout
from lake.schema.column import Column
from lake.schema.roles import Role

if TYPE_CHECKING:
    from rich.table import Table

Row = tuple[str, str, str, str]

HEADER: Row = ("name", "type", "role", "meaning")
_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}


def rows(columns: Sequence[Column], key: tuple[str, ...]) -> list[Row]:
    """Give the name, type, role and meaning of each column, as printable text."""
    table = []
    for column in columns:
        parts = [_key(column.name, key), _embedding(column), _derivation(column), column.description]
        meaning = ", ".join(part for part in parts if part)
        cells = (column.name, short_type(column), column.role.value, meaning)
        name, kind, role, text = (_printable(cell) for cell in cells)
        table.append((name, kind, role, text))
    return table


def short_type(column: Column) -> str:
    """Name a column's type in a few words: ``float32[384]``, ``json``, ``string not null``."""
    layout = vector_layout(column.type) if column.role is Role.VECTOR else None
    if layout:
        element, dimension, many = layout
        text = f"{_FLOATS.get(str(element), element)}[{dimension}]"
        text = f"list<{text}>" if many else text
    elif column.type == pa.json_():
        text = "json"
    else:
        text = _FLOATS.get(str(column.type), str(column.type))
    return text if column.nullable or column.role is Role.KEY else f"{text} not null"


def _key(name: str, key: tuple[str, ...]) -> str:
    if name not in key:
        return ""
    return "entity key" if len(key) == 1 else f"entity key {key.index(name) + 1} of {len(key)}"


def _embedding(column: Column) -> str:
    made = column.embedding
    if made is None:
        return ""
    of, by = (f"of {made.of}" if made.of else ""), (f"by {made.model}" if made.model else "")
    return ", ".join(part for part in (of, by, made.metric, "normalized" if made.normalized else "") if part)


def _derivation(column: Column) -> str:
    made = column.derivation
    return f"{made.function}({', '.join(made.inputs)}) version {made.version}" if made else ""


def _printable(text: str) -> str:
    """Put text on one line, without the control characters by which a table could seize a terminal."""
    return "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))


def plain(table: list[Row]) -> str:
    """Lay a table out in aligned columns."""
    lines = [HEADER, *table]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def rich_table(table: list[Row]) -> "Table":
    """Lay a table out for a terminal."""
    from rich.table import Table  # slow to import, and only printing needs it
    from rich.text import Text

    laid = Table(*HEADER, box=None, header_style="bold", pad_edge=False)
    for row in table:
        laid.add_row(*(Text(cell) for cell in row))  # Text: no markup in what others wrote
    return laid


def html_table(table: list[Row]) -> str:
    """Lay a table out for a notebook."""

    def line(cells: Row, tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in table)
    return f"<table><thead>{line(HEADER, 'th')}</thead><tbody>{body}</tbody></table>"
