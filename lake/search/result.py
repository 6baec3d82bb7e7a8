"""The result of a search: an Arrow table with its coverage, and how it looks to a person."""

from __future__ import annotations

import functools
import html
import itertools
import operator
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

import pyarrow as pa

from lake.search.coverage import Coverage
from lake.search.plan import RESULT_COLUMNS

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    from rich.console import Console, ConsoleOptions, Group, RenderResult

METADATA_KEY = b"lake.coverage"
_SHOWN_ROWS = 20
_SHOWN_LETTERS = 60
_SHOWN_ELEMENTS = 3
_SHOWN_WIDTH = 12  # letters that a column needs at most, to be of use in a terminal
_BORDER = 3
_REPR_WIDTH = 160


class Result:
    """Rows, best first, and what they were searched from.

    Prints as a table in a terminal and in a notebook; iterates over rows as dicts; any Arrow library takes it
    as it is (``polars.DataFrame(result)``, ``duckdb.from_arrow(result)``).

    Parameters
    ----------
    table : pa.Table
        The columns that were asked for, then those of the search, which `lake.search` defines.
    coverage : Coverage
    """

    def __init__(self, table: pa.Table, coverage: Coverage) -> None:
        self._table = table
        self.coverage = coverage

    @functools.cached_property
    def _arrow(self) -> pa.Table:
        metadata = dict(self._table.schema.metadata or {})
        return self._table.replace_schema_metadata(metadata | {METADATA_KEY: self.coverage.to_json().encode()})

    def to_arrow(self) -> pa.Table:
        """Give the Arrow table; its metadata ``lake.coverage`` holds the coverage as JSON."""
        return self._arrow

    def to_pandas(self) -> pd.DataFrame:
        """Convert to pandas; ``attrs["lake.coverage"]`` holds the coverage."""
        frame: pd.DataFrame = self._arrow.to_pandas()
        frame.attrs["lake.coverage"] = self.coverage.to_json()
        return frame

    def to_polars(self) -> pl.DataFrame:
        """Convert to polars, which keeps no metadata."""
        import polars  # noqa: ICN001  # an extra

        frame = polars.from_arrow(self._arrow)
        assert isinstance(frame, polars.DataFrame)  # noqa: S101  # a table was given
        return frame

    def to_pylist(self) -> list[dict[str, Any]]:
        """Convert to one dict for each row."""
        return self._table.to_pylist()  # type: ignore[no-any-return]

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._arrow.__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, row: SupportsIndex) -> dict[str, Any]:
        """Give one row, from 0 for the best; negative numbers count from the end."""
        at = operator.index(row)
        if not -len(self) <= at < len(self):
            raise IndexError(f"row {at} of {len(self):,}")
        return self._table.slice(at % len(self), 1).to_pylist()[0]  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._table.to_batches():
            yield from batch.to_pylist()

    def _cells(self) -> list[list[str]]:
        return [[shown(value) for value in row.values()] for row in self._table.slice(0, _SHOWN_ROWS).to_pylist()]

    def _caption(self) -> str:
        hidden = len(self) - _SHOWN_ROWS
        return (f"{hidden:,} more rows · " if hidden > 0 else "") + str(self.coverage)

    def __repr__(self) -> str:
        from rich.console import Console  # only who prints pays for it

        names = self._table.column_names
        width = max(_REPR_WIDTH, (_SHOWN_WIDTH + _BORDER) * len(names) + 1)
        console = Console(width=width, color_system=None, force_terminal=False)
        with console.capture() as capture:
            console.print(self._drawn(range(len(names))))
        return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._drawn(self._fitting(options.max_width))

    def _fitting(self, width: int) -> list[int]:
        """Find the columns to show: the first ones that a console has room for, and those of the search."""
        names, cells = self._table.column_names, self._cells()
        needs = [
            min(max(len(name), *(len(row[i]) for row in cells), 0), _SHOWN_WIDTH) + _BORDER
            for i, name in enumerate(names)
        ]
        if sum(needs) < width:
            return list(range(len(names)))
        measures = [i for i, name in enumerate(names) if name in RESULT_COLUMNS]
        room = width - 1 - sum(needs[i] for i in measures)
        own = [i for i in range(len(names)) if i not in measures]
        ends = list(itertools.accumulate(needs[i] for i in own))
        return sorted([*own[: max(1, sum(end <= room for end in ends))], *measures])

    def _drawn(self, columns: Sequence[int]) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(header_style="bold")
        for i in columns:
            kind = self._table.schema.types[i]
            number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
            name = Text(self._table.column_names[i])
            table.add_column(name, justify="right" if number else "left", overflow="fold")
        for row in self._cells():
            table.add_row(*(Text(row[i]) for i in columns))  # Text: brackets in data are no markup
        hidden = self._table.num_columns - len(columns)
        more = f"… {hidden:,} more column{'s' if hidden > 1 else ''}\n" if hidden else ""
        return Group(table, Text(more + self._caption()))

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self._table.column_names)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self._cells()
        )
        caption = html.escape(self._caption())
        return (
            f"<table><caption style='caption-side:bottom;text-align:left'>{caption}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )


def shown(value: Any) -> str:
    """Write a value in a few letters: vectors abbreviated, long text cut, nothing unprintable."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, list) and len(value) > _SHOWN_ELEMENTS and not isinstance(value[0], str):
        return f"[{', '.join(shown(v) for v in value[:_SHOWN_ELEMENTS])}, … {len(value)}]"
    text = ", ".join(map(shown, value)) if isinstance(value, list) else str(value)
    text = "".join(letter if letter.isprintable() else " " for letter in text[: 2 * _SHOWN_LETTERS])
    return text if len(text) <= _SHOWN_LETTERS else text[: _SHOWN_LETTERS - 1] + "…"
