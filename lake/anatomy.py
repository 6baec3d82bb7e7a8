"""What a version is made of: manifest, fragments and their files, index segments and what they cover."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import lance

from lake.index import IndexCoverage, coverage
from lake.schema import Schema
from lake.table.snapshot import Snapshot

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as Grid

_LAST_MANIFEST = 2**64 - 1
_SHOWN = 20
_WIDTH = 160


@dataclass(frozen=True)
class DataFile:
    """A Lance file: some columns of one fragment.

    Parameters
    ----------
    path : str
        Below the table's folder; the whole address where a clone shares another table's file.
    bytes : int
        Its size.
    columns : tuple of str
        What it holds.
    """

    path: str
    bytes: int
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Fragment:
    """A horizontal slice of the table; immutable, but for a deletion file that masks rows.

    Parameters
    ----------
    id, rows, deleted : int
        Its number, its live rows, and the rows that the deletion file masks.
    files : tuple of DataFile
        The data.
    deletion_file : str or None
        Its path, as `DataFile.path`.
    """

    id: int
    rows: int
    deleted: int
    files: tuple[DataFile, ...]
    deletion_file: str | None = None


@dataclass(frozen=True)
class Segment:
    """A part of an index: bound to the fragments whose rows it holds."""

    index: str
    kind: str
    column: str
    uuid: str
    fragments: tuple[int, ...]
    bytes: int
    built: datetime | None
    path: str = ""
    """Its folder, as `DataFile.path`."""


@dataclass(frozen=True)
class Anatomy:
    """One version of a table, taken apart. Prints well in a terminal.

    Parameters
    ----------
    uri : str
        The table's folder.
    version : int
        The version.
    manifest : str
        The manifest's path below the folder: it alone names everything else.
    schema : Schema
        What the columns mean.
    fragments, segments : tuple
        The data and the indexes.
    unbuilt : tuple of IndexCoverage
        Indexes that are declared, of which nothing is built.
    """

    uri: str
    version: int
    manifest: str
    schema: Schema
    fragments: tuple[Fragment, ...]
    segments: tuple[Segment, ...]
    unbuilt: tuple[IndexCoverage, ...] = ()

    @property
    def rows(self) -> int:
        """Live rows."""
        return sum(f.rows for f in self.fragments)

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain JSON values."""
        return {
            "uri": self.uri,
            "version": self.version,
            "rows": self.rows,
            "manifest": self.manifest,
            "key": list(self.schema.key),
            "columns": [dict(zip(("name", "type", "role", "meaning"), row, strict=True)) for row in self.schema.rows()],
            "fragments": [asdict(f) for f in self.fragments],
            "segments": [{**asdict(s), "built": s.built.isoformat() if s.built else None} for s in self.segments],
            "unbuilt": [{"index": i.name, "kind": i.kind, "column": i.column} for i in self.unbuilt],
        }

    def __repr__(self) -> str:
        from rich.console import Console  # only who prints pays for it

        console = Console(width=_WIDTH, color_system=None, force_terminal=False)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())

    def __rich__(self) -> Group:
        from rich.console import Group  # only who prints pays for it
        from rich.text import Text

        parts: list[object] = [
            Text(f"{self.uri}\nversion {self.version} · {self.rows:,} rows · {self.manifest}", style="bold"),
            self.schema.__rich__(),
            self._data(),
        ]
        if self.segments or self.unbuilt:
            parts.append(self._indexes())
        return Group(*parts)  # type: ignore[arg-type]

    def _data(self) -> Grid:
        from rich.table import Table as Grid

        total = sum(file.bytes for f in self.fragments for file in f.files)
        grid = Grid(title=f"data: {len(self.fragments)} fragments, {human(total)}", title_justify="left")
        for heading in ("fragment", "rows", "deleted", "file", "size", "columns"):
            grid.add_column(heading, justify="right" if heading in {"fragment", "rows", "deleted", "size"} else "left")
        for fragment in self.fragments[:_SHOWN]:
            for at, file in enumerate(fragment.files):
                first = (str(fragment.id), f"{fragment.rows:,}", f"{fragment.deleted:,}") if at == 0 else ("", "", "")
                grid.add_row(*first, file.path, human(file.bytes), _short(file.columns))
            if fragment.deletion_file is not None:
                grid.add_row("", "", "", fragment.deletion_file, "", "(deleted rows)")
        if len(self.fragments) > _SHOWN:
            grid.add_row("…", "", "", f"{len(self.fragments) - _SHOWN} more fragments", "", "")
        return grid

    def _indexes(self) -> Grid:
        from rich.table import Table as Grid

        total = sum(s.bytes for s in self.segments)
        grid = Grid(title=f"indexes: {len(self.segments)} segments, {human(total)}", title_justify="left")
        for heading in ("index", "kind", "column", "segment", "covers fragments", "size"):
            grid.add_column(heading, justify="right" if heading == "size" else "left")
        for s in self.segments[:_SHOWN]:
            short = s.path.removesuffix(s.uuid) + f"{s.uuid[:8]}…"
            grid.add_row(s.index, s.kind, s.column, short, ranges(s.fragments), human(s.bytes))
        if len(self.segments) > _SHOWN:
            grid.add_row("…", "", "", f"{len(self.segments) - _SHOWN} more segments", "", "")
        for index in self.unbuilt:
            grid.add_row(index.name, index.kind, index.column, "not built", "none", "")
        return grid


def dissect(snapshot: Snapshot) -> Anatomy:
    """Take a version apart, from its manifest alone."""
    dataset = snapshot.dataset
    names = dict(_names(dataset.lance_schema.fields()))
    folders = _Folders(snapshot)
    segments = tuple(
        Segment(
            index.name,
            index.index_type,
            ".".join(index.field_names),
            str(segment.uuid),
            tuple(sorted(segment.fragment_ids)),
            segment.size_bytes or 0,
            segment.created_at,
            folders.path(f"_indices/{segment.uuid}", segment.base_id),
        )
        for index in dataset.describe_indices()
        for segment in index.segments
    )
    manifest = folders.path(f"_versions/{_LAST_MANIFEST - snapshot.version}.manifest")  # newest first in a listing
    fragments = tuple(_fragment(fragment, names, folders) for fragment in dataset.get_fragments())
    unbuilt = tuple(index for index in coverage(snapshot) if not index.built)
    return Anatomy(snapshot.location.uri, snapshot.version, manifest, snapshot.schema, fragments, segments, unbuilt)


class _Folders:
    """Where a version's files lie: in the table's folder, its branch's, or that of the base that they came from."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._uri = snapshot.location.uri
        self._own = f"{snapshot.folder.uri}/".removeprefix(f"{snapshot.location.uri}/")
        self._bases = snapshot.dataset.base_paths()

    def path(self, path: str, base: int | None = None) -> str:
        """Return the path below the table's folder of a file in a version's own folder or in a base."""
        if base is None:
            return self._own + path
        found = self._bases[base]
        if not found.is_dataset_root:  # then it is a folder of data files
            path = path.removeprefix("data/")
        return f"{found.path.rstrip('/')}/{path}".removeprefix(f"{self._uri}/")


def _fragment(fragment: lance.LanceFragment, names: dict[int, str], folders: _Folders) -> Fragment:
    metadata = fragment.metadata
    files = tuple(
        DataFile(
            folders.path(f"data/{file.path}", file.base_id),
            file.file_size_bytes or 0,
            tuple(dict.fromkeys(names[i] for i in file.fields if i in names)),
        )
        for file in metadata.files
    )
    masked = fragment.deletion_file()
    masks = folders.path(masked, metadata.deletion_file.base_id) if masked else None
    return Fragment(fragment.fragment_id, metadata.num_rows, metadata.num_deletions, files, masks)


def _names(fields: list[object], top: str = "") -> Iterator[tuple[int, str]]:
    for field in fields:
        name = top or field.name()  # type: ignore[attr-defined]
        yield field.id(), name  # type: ignore[attr-defined]
        yield from _names(field.children(), name)  # type: ignore[attr-defined]


def human(size: float) -> str:
    """Write bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:  # noqa: PLR2004
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def ranges(numbers: tuple[int, ...]) -> str:
    """Write sorted numbers as ranges: ``0-3, 7``."""
    out: list[str] = []
    start = None
    for at, number in enumerate(numbers):
        start = number if start is None else start
        if at + 1 == len(numbers) or numbers[at + 1] != number + 1:
            out.append(str(start) if start == number else f"{start}-{number}")
            start = None
    return ", ".join(out) or "none"


def _short(names: tuple[str, ...], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" … {len(names) - most} more" if len(names) > most else "")
