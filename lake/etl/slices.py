"""Cutting a source into slices, each for one task."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from lake.errors import InvalidInput, NotFound, StorageError
from lake.etl.spec import Format, Source
from lake.storage import Location, filesystem
from lake.table.snapshot import Snapshot

_SLICE_BYTES = 128 << 20
_ENDINGS: dict[str, Format] = {
    "parquet": "parquet",
    "pq": "parquet",
    "csv": "csv",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "jsonl",
}
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Slice:
    """A part of a source.

    Parameters
    ----------
    number : int
        Its place in the order of the source.
    kind : {"parquet", "csv", "jsonl", "table"}
    name : str
        The file, or the table and its version: what messages and refused rows show.
    groups : tuple of int
        Row groups that follow each other, or fragments.
    first_row : int
        Of the file's rows, the number of the first.
    bytes : int
        Stored size.
    """

    number: int
    kind: Literal["parquet", "csv", "jsonl", "table"]
    name: str
    groups: tuple[int, ...] = ()
    first_row: int = 0
    bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the fields, for the job's plan."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Slice:
        """Read what `to_json` gave."""
        return cls(**fields | {"groups": tuple(fields["groups"])})


def of_files(source: Source, location: Location) -> list[Slice]:
    """Cut files into slices: Parquet by row groups, text by files, since only reading it shows where a row ends.

    Parameters
    ----------
    location : Location
        Whose options reach the files.

    Raises
    ------
    NotFound
        A pattern or a folder matches no file.
    InvalidInput
        The format cannot be told, or a file is not of it.
    """
    found = [file for pattern in source.files for file in sorted(_match(pattern, location))]
    slices: list[Slice] = []
    for name, size in dict(found).items():
        kind = source.format or _format(name)
        if not size and kind != "parquet":
            continue
        parts = _row_groups(name, location) if kind == "parquet" else iter([((), 0, size)])
        for groups, first_row, part in parts:
            slices.append(Slice(len(slices), kind, name, groups, first_row, part))
    return slices


def of_table(snapshot: Snapshot) -> list[Slice]:
    """Cut a version of a table into groups of fragments."""
    name = f"{snapshot.location.uri} version {snapshot.version}"
    sized = [
        (fragment.fragment_id, sum(file.file_size_bytes or 0 for file in fragment.metadata.files))
        for fragment in snapshot.dataset.get_fragments()
    ]
    return [Slice(i, "table", name, ids, 0, size) for i, (ids, _, size) in enumerate(_grouped(sized))]


def _match(pattern: str, base: Location) -> Iterator[tuple[str, int]]:
    """Yield path and size of the files that a pattern means; hidden ones and markers only if they are named."""
    location = Location.of(pattern, base.options)
    system, path = filesystem(location)
    prefix = location.uri.removesuffix(path)
    try:
        if not _WILD.search(path):
            [info] = system.get_file_info([path])
            if info.type == fs.FileType.File:
                yield prefix + path, info.size
                return
            folder, test = path, re.compile("")
        else:
            folder = path[: _WILD.search(path).start()].rpartition("/")[0]  # type: ignore[union-attr]
            test = re.compile(_regex(path))
        selector = fs.FileSelector(folder or "/", recursive=True, allow_not_found=True)
        names = [(i.path, i.size) for i in system.get_file_info(selector) if i.type == fs.FileType.File]
    except OSError as error:
        raise StorageError(f"cannot list {location.uri}: {error}") from error
    shown = [(name, size) for name, size in names if test.match(name) and not _hidden(name[len(folder) :])]
    if not shown:
        raise NotFound(f"no file matches {location.uri}")
    yield from ((prefix + name, size) for name, size in shown)


def _regex(pattern: str) -> str:
    """Translate a pattern in which ``*`` stops at slashes and ``**/`` does not."""
    parts = pattern.split("**/")
    single = [fnmatch.translate(part).removesuffix(r"\Z").removesuffix(r"\z").replace(".*", "[^/]*") for part in parts]
    return "(?:.*/)?".join(single) + r"\Z"


def _hidden(name: str) -> bool:
    return any(part.startswith(("_", ".")) for part in name.split("/"))


def _format(name: str) -> Format:
    ending = name.removesuffix(".gz").rpartition(".")[2].lower()
    if ending not in _ENDINGS:
        raise InvalidInput(f"cannot tell the format of {name}: say format: parquet, csv or jsonl")
    return _ENDINGS[ending]


def _row_groups(name: str, base: Location) -> Iterator[tuple[tuple[int, ...], int, int]]:
    system, path = filesystem(Location.of(name, base.options))
    try:
        meta = pq.read_metadata(path, filesystem=system)
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"cannot read {name} as Parquet: {error}") from error
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    first = [0]
    for group in groups:
        first.append(first[-1] + group.num_rows)
    for ids, start, size in _grouped([(i, group.total_byte_size) for i, group in enumerate(groups)]):
        yield ids, first[start], size


def _grouped(sized: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """Put neighbours together up to the size of a slice; yield ids, where they begin, and their size."""
    begin = 0
    while begin < len(sized):
        end, total = begin, 0
        while end < len(sized) and (end == begin or total + sized[end][1] <= _SLICE_BYTES):
            total += sized[end][1]
            end += 1
        yield tuple(i for i, _ in sized[begin:end]), begin, total
        begin = end
