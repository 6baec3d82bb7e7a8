"""Small tables, and what they hold as plain Python."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lake.schema import Column, Embedding, Schema
from lake.storage import Files, Location
from lake.table.snapshot import open_head
from lake.table.write import append, create_table

DIMENSION = 4
SCHEMA = Schema([Column("id", int), Column("n", int)], key="id")
WIDE = Schema(
    [Column("id", int), Column("name", str), Column("v", Embedding(DIMENSION, of="name", metric="cosine"))], key="id"
)


def pairs(ids: Iterable[int], n: int = 0) -> dict[str, list[int]]:
    """Rows of `SCHEMA`."""
    ids = list(ids)
    return {"id": ids, "n": [n] * len(ids)}


def wide(ids: Iterable[int]) -> dict[str, Any]:
    """Rows of `WIDE`."""
    ids = list(ids)
    vectors = np.random.default_rng(0).random((len(ids), DIMENSION), np.float32) + 1
    return {"id": ids, "name": [f"n{i}" for i in ids], "v": vectors}


def make(root: Location, name: str = "t") -> Location:
    """Create a table of `SCHEMA` with ids 0-9 in one fragment and 10-19 in another, all of n = 0."""
    table = root.join(f"{name}.lance")
    create_table(table, SCHEMA, pairs(range(10)))
    append(table, None, pairs(range(10, 20)))
    return table


def content(table: Location, branch: str | None = None, version: int | None = None) -> list[tuple[int, int]]:
    """All rows of a table of `SCHEMA`, sorted."""
    found = open_head(table, branch, version).to_table(columns=["id", "n"])
    return sorted(zip(found["id"].to_pylist(), found["n"].to_pylist(), strict=True))


def download(table: Location, folder: Path) -> Location:
    """Copy a table to this machine's disk, to read it many times."""
    if table.scheme == "file":
        return table
    copy = Location.of(folder / "copy.lance")
    for name in Files(table).names():
        Files(table).copy_to(Files(copy), name)
    return copy


def data_files(table: Location) -> set[str]:
    """Names of the data files that lie in a table's folder, whether or not a version names them."""
    return set(Files(table).names("data"))
