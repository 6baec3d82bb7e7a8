"""Files of a table that are missing, torn or changed: a clear error, never a wrong answer, never a panic."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lake.errors import CorruptTable, NotFound, StorageError
from lake.storage import Location
from lake.table import compact, history, merge, rows, snapshot, write
from lake.table.changes import compare
from lake.table.snapshot import Snapshot, open_head
from lake.table.sql import sql_errors
from tests.support.tables import content, make, pairs

DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda _: None,
    "empty": lambda _: b"",
    "half": lambda data: data[: len(data) // 2],
    "without its end": lambda data: data[:-8],
    "zeros": lambda data: bytes(len(data)),
    "garbage": lambda data: b"\xff" * len(data),
}


def read(table: Location) -> object:
    with sql_errors(None):  # as `Table.to_arrow` does
        return content(table)


ACTS: dict[str, Callable[[Location], object]] = {
    "read": read,
    "delete": lambda t: rows.delete(t, None, "n = 0"),
    "update": lambda t: rows.update(t, None, {"n": 1}),
    "merge": lambda t: merge.merge(t, None, pairs([1, 12, 99], 7)),
    "append": lambda t: write.append(t, None, pairs([77]), commit_id="job"),
    "overwrite": lambda t: write.overwrite(t, None, pairs([77])),
    "compact": compact.compact,
    "versions": lambda t: history.versions(t, None),
    "changes": lambda t: compare(Snapshot(t, 1), Snapshot(t, 4)).to_arrow(),
}
BLIND = {"append", "overwrite", "versions"}  # these do not look at data


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Location:
    table = make(Location.of(tmp_path_factory.mktemp("original")))
    rows.delete(table, None, "id in (3, 12)")
    write.append(table, None, pairs([30]))
    return table


def damaged(original: Location, copy: Path, kind: str, how: Callable[[bytes], bytes | None]) -> Location:
    """Copy a table with one file damaged, and let this process forget what it knows of tables."""
    shutil.copytree(original.uri, copy)
    path = {
        "manifest": lambda: min((copy / "_versions").glob("*.manifest")),  # the newest one
        "data": lambda: max((copy / "data").iterdir(), key=lambda p: p.stat().st_size),
        "deletion": lambda: max((copy / "_deletions").iterdir()),
    }[kind]()
    data = how(path.read_bytes())
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    snapshot._session.cache_clear()
    snapshot._handles._kept.clear()
    return Location.of(copy)


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("kind", ["manifest", "data", "deletion"])
def test_damage_is_told(kind: str, how: str, original: Location, tmp_path: Path) -> None:
    if (kind, how) == ("manifest", "missing"):
        pytest.skip("without its newest manifest a table is what it was before; nothing can tell")
    for name, act in ACTS.items():
        table = damaged(original, tmp_path / f"{name}.lance", kind, DAMAGE[how])
        if kind != "manifest" and name in BLIND:
            act(table)
        else:
            # A manifest of zeros has no number either, so that a call for its version may not find it.
            with pytest.raises((CorruptTable, NotFound) if how == "zeros" and name == "changes" else CorruptTable):
                act(table)


@pytest.mark.parametrize("kind", ["manifest", "deletion"])
def test_a_changed_byte_is_told_or_changes_nothing(kind: str, original: Location, tmp_path: Path) -> None:
    """Lance has no checksums: what a changed byte in data does cannot be told, so values are not looked at here."""
    expected = len(content(original))
    for at in range(0, 1500, 131):

        def flip(data: bytes, at: int = at) -> bytes:
            i = at % len(data)
            return data[:i] + bytes([data[i] ^ 0xFF]) + data[i + 1 :]

        table = damaged(original, tmp_path / f"{at}.lance", kind, flip)
        try:
            with sql_errors(None):
                assert open_head(table).to_table().num_rows == expected
        except (StorageError, NotFound):
            pass
        shutil.rmtree(table.uri)


def test_an_older_version_is_readable_when_the_newest_is_not(original: Location, tmp_path: Path) -> None:
    before = content(original, version=2)
    table = damaged(original, tmp_path / "t.lance", "manifest", lambda _: b"torn")
    assert content(table, version=2) == before
