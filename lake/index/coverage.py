"""Coverage: what each index of a snapshot covers, misses and carries along in vain."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import lance

from lake.index.choose import settle
from lake.index.plan import live_rows
from lake.index.segments import BuiltIndex, built_indexes, stale_rows
from lake.index.spec import IndexSpec, read_specs
from lake.index.vectors import estimate
from lake.table.snapshot import Snapshot

if TYPE_CHECKING:
    from rich.console import Group

_CACHED = 64


@dataclass(frozen=True)
class IndexCoverage:
    """What one index covers in one version.

    Parameters
    ----------
    name, column : str
    kind, metric : str or None
        As it was built, or as declared if it has not been.
    params : mapping
        As declared.
    why : str
        Why it is of this kind, and how what was built differs from what is declared.
    declared : bool
        False for an index that somebody made without the lake; `build` leaves it alone.
    rows_covered : int
        Live rows in fragments that the index covers. Rows without a value count as covered.
    rows_missing : int
        Live rows that the declared index does not cover: all, where another was built under its name.
    rows_stale : int
        Rows that were deleted after they were indexed: entries that searches mask, and a rebuild drops.
    segments, bytes : int
        Its segments, and the size of their files.
    built_version : int or None
        The newest version that a segment was built from.
    built_at : datetime or None
        When the newest segment was built, in UTC.
    """

    name: str
    column: str
    kind: str
    metric: str | None
    params: Mapping[str, Any] = field(hash=False)
    why: str
    declared: bool
    rows_covered: int
    rows_missing: int
    rows_stale: int
    segments: int
    bytes: int
    built_version: int | None
    built_at: datetime | None

    @property
    def complete(self) -> bool:
        """Whether the index covers every live row, and is the one that is declared."""
        return self.rows_missing == 0

    @property
    def built(self) -> bool:
        """Whether there is anything of it yet."""
        return self.segments > 0

    @property
    def age(self) -> timedelta | None:
        """Time since its newest segment was built."""
        return datetime.now(UTC) - self.built_at if self.built_at else None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data, for JSON."""
        at = self.built_at.isoformat() if self.built_at else None
        return asdict(self) | {"params": dict(self.params), "built_at": at, "complete": self.complete}


@dataclass(frozen=True)
class CoverageTable:
    """The coverage of all indexes of a snapshot.

    Parameters
    ----------
    version : int
    rows : int
        Live rows.
    indexes : tuple of IndexCoverage
    """

    version: int
    rows: int
    indexes: tuple[IndexCoverage, ...]

    def __iter__(self) -> Iterator[IndexCoverage]:
        return iter(self.indexes)

    def __len__(self) -> int:
        return len(self.indexes)

    def __getitem__(self, name: str) -> IndexCoverage:
        for index in self.indexes:
            if index.name == name:
                return index
        raise KeyError(name)

    @property
    def complete(self) -> bool:
        """Whether every declared index covers every live row."""
        return all(index.complete for index in self.indexes if index.declared)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        indexes = [index.to_dict() for index in self.indexes]
        return {"version": self.version, "rows": self.rows, "complete": self.complete, "indexes": indexes}

    def __str__(self) -> str:
        lines = [f"version {self.version}, {self.rows:,} rows"]
        table = [_HEADINGS, *(_cells(index) for index in self.indexes)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for row in table:
            cells = zip(_HEADINGS, row, widths, strict=True)
            padded = (cell.rjust(w) if heading in _NUMBERS else cell.ljust(w) for heading, cell, w in cells)
            lines.append("  " + "  ".join(padded).rstrip())
        return "\n".join(lines)

    def __rich__(self) -> Group:
        from rich.console import Group  # a tenth of a second that searches save
        from rich.table import Table
        from rich.text import Text

        reasons = [Text(f"{index.name}: {index.why}", "dim") for index in self.indexes if index.why]
        title = f"indexes: version {self.version}, {self.rows:,} rows"
        table = Table(title=title, title_justify="left")
        for heading in _HEADINGS:
            table.add_column(heading, justify="right" if heading in _NUMBERS else "left")
        for index in self.indexes:
            table.add_row(*_cells(index), style=None if index.complete else "yellow")
        return Group(table, *reasons)


_HEADINGS = ("index", "kind", "covered", "missing", "stale", "segments", "MiB", "age")
_NUMBERS = {"covered", "missing", "stale", "segments", "MiB"}


def coverage(snapshot: Snapshot) -> CoverageTable:
    """Tell what each index of a snapshot covers, declared or not.

    Only the manifest is read, and a few rows where a product quantizer may have to wait for more. The answer is
    kept: snapshots never change.
    """
    return _coverage(snapshot)


@functools.lru_cache(maxsize=_CACHED)
def _coverage(snapshot: Snapshot) -> CoverageTable:
    dataset = snapshot.dataset
    rows = live_rows(dataset)
    specs, built = read_specs(dataset), built_indexes(dataset)
    names = sorted({*specs, *built})
    stale = stale_rows(dataset, [s for found in built.values() for s in found.segments])
    wrong = {name: _mismatch(dataset, specs[name], built[name], rows) for name in specs.keys() & built.keys()}
    indexes = (_index(specs.get(name), built.get(name), rows, stale, wrong.get(name, "")) for name in names)
    return CoverageTable(snapshot.version, sum(rows.values()), tuple(indexes))


def _mismatch(dataset: lance.LanceDataset, spec: IndexSpec, built: BuiltIndex, rows: Mapping[int, int]) -> str:
    """Say how a built index differs from the declared one, as the next build will see it."""
    wrong = built.mismatch(settle(spec, sum(rows.values()))[0])
    if wrong and spec.traits.pq and spec.column:  # it may be right for as few vectors as there are
        wrong = built.mismatch(settle(spec, estimate(dataset, spec.column))[0])
    return wrong


def _index(
    spec: IndexSpec | None, built: BuiltIndex | None, rows: Mapping[int, int], stale: Mapping[str, int], wrong: str
) -> IndexCoverage:
    segments = built.segments if built else ()
    fragments = {f for segment in segments for f in segment.fragments if f in rows}
    covered = 0 if wrong else sum(rows[f] for f in fragments)
    made = [segment.created for segment in segments if segment.created]
    known = spec or built
    assert known is not None  # noqa: S101  one of the two has the name
    return IndexCoverage(
        known.name,
        known.column,
        (built or known).kind,
        (built or known).metric,
        dict(spec.params) if spec else {},
        (spec.why + (f"; but {wrong}, until the next build" if wrong else "")) if spec else "made without the lake",
        spec is not None,
        covered,
        sum(rows.values()) - covered,
        sum(stale[segment.id] for segment in segments),
        len(segments),
        sum(segment.bytes for segment in segments),
        max((segment.version for segment in segments), default=None),
        max(made, default=None),
    )


def _cells(index: IndexCoverage) -> list[str]:
    age = f"{index.age.total_seconds() / 3600:,.1f} h" if index.age else "not built"
    kind = f"{index.kind} {index.metric}" if index.metric else index.kind
    return [
        index.name,
        kind,
        f"{index.rows_covered:,}",
        f"{index.rows_missing:,}",
        f"{index.rows_stale:,}",
        f"{index.segments}",
        f"{index.bytes / 2**20:,.1f}",
        age,
    ]
