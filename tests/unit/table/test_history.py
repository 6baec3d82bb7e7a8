"""Versions, time travel, tags, branches, restore."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lake.errors import AlreadyExists, InvalidInput, NotFound
from lake.storage import Location
from lake.table import compact, history, merge, rows, write
from lake.table.snapshot import Snapshot, open_head
from tests.support.tables import content, make, pairs


@pytest.fixture
def table(root: Location) -> Location:
    return make(root)


def test_the_history_says_what_each_version_did(table: Location) -> None:
    merge.merge(table, None, pairs([1], 5), commit_id="mine")
    rows.update(table, None, {"n": 6}, "id = 2")
    rows.delete(table, None, "id = 3")
    history.restore(table, None, Snapshot(table, 2))
    write.overwrite(table, None, pairs([1]))
    found = history.versions(table, None)
    assert [v.version for v in found] == [7, 6, 5, 4, 3, 2, 1]
    assert [v.verb for v in found] == ["overwrite", "restore", "delete", "update", "merge", "append", "create"]
    assert [v.rows for v in found] == [1, 20, 19, 20, 20, 20, 10]
    assert found[4].commit_id == "mine"
    assert all(v.commit_id for v in found)
    assert [v.version for v in history.versions(table, None, limit=2)] == [7, 6]
    assert found == sorted(found, key=lambda v: v.time, reverse=True)


def test_versions_are_found_by_number_tag_and_time(table: Location) -> None:
    history.tag(history.resolve(table, None, 1), "first")
    times = {v.version: v.time for v in history.versions(table, None)}
    at = history.resolve
    assert at(table, None, 1).version == at(table, None, "first").version == 1
    assert at(table, None, times[1]).version == 1
    assert at(table, None, times[2] - timedelta(microseconds=1)).version == 1
    assert at(table, None, times[2].isoformat()).version == 2
    assert at(table, None, times[1].replace(tzinfo=None)).version == 1
    assert at(table, None, datetime.now(UTC) + timedelta(days=1)).version == 2
    assert content(table, version=at(table, None, "first").version) == [(i, 0) for i in range(10)]


@pytest.mark.parametrize(
    ("when", "error"),
    [
        (99, NotFound),
        (0, NotFound),
        (-1, NotFound),
        ("nope", NotFound),
        ("2001-01-01", NotFound),
        (datetime(2001, 1, 1, tzinfo=UTC), NotFound),
        (True, InvalidInput),
        (1.5, InvalidInput),
        (None, InvalidInput),
    ],
)
def test_what_is_not_there_is_not_found(table: Location, when: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        history.resolve(table, None, when)


def test_tags(table: Location) -> None:
    snapshot = history.resolve(table, None, 1)
    history.tag(snapshot, "a.b-c_1")
    with pytest.raises(AlreadyExists):
        history.tag(snapshot, "a.b-c_1")
    assert history.versions(table, None)[-1].tags == ("a.b-c_1",)
    history.delete_tag(table, "a.b-c_1")
    with pytest.raises(NotFound):
        history.delete_tag(table, "a.b-c_1")
    assert history.tags(open_head(table)) == {}


@pytest.mark.parametrize("name", ["", ".a", "a/b", "a b", "../a", "a\0", "x" * 101, "a.lock", "lake.pin.x", None, 3])
def test_hostile_tags_and_branches_are_refused(table: Location, name: Any) -> None:
    snapshot = Snapshot(table, 1)
    with pytest.raises(InvalidInput, match="cannot name a tag or branch"):
        history.tag(snapshot, name)
    with pytest.raises(InvalidInput, match="cannot name a tag or branch"):
        history.create_branch(snapshot, name)


def test_an_expired_or_unwritten_version_cannot_be_tagged(table: Location) -> None:
    with pytest.raises(NotFound):
        history.tag(Snapshot(table, 99), "x")
    assert history.tags(open_head(table)) == {}


def test_a_branch_goes_its_own_way(table: Location) -> None:
    history.create_branch(history.resolve(table, None, 1), "try")
    with pytest.raises(AlreadyExists):
        history.create_branch(history.resolve(table, None, 1), "try")
    write.append(table, "try", pairs([50]))
    merge.merge(table, "try", pairs([1, 60], 5))
    rows.update(table, "try", {"n": 6}, "id = 2")
    rows.delete(table, "try", "id = 3")
    expected = {**dict.fromkeys([*range(10), 50], 0), 1: 5, 60: 5, 2: 6}
    del expected[3]
    assert dict(content(table, "try")) == expected
    assert dict(content(table)) == dict.fromkeys(range(20), 0)
    compact.compact(table, "try")
    assert dict(content(table, "try")) == expected
    with pytest.raises(NotFound):
        write.append(table, "nope", pairs([1]))


def test_a_commit_id_is_looked_for_on_its_branch(table: Location) -> None:
    history.create_branch(history.resolve(table, None, 1), "try")
    assert not write.append(table, "try", pairs([50]), commit_id="job").repeated
    assert write.append(table, "try", pairs([50]), commit_id="job").repeated
    assert content(table, "try").count((50, 0)) == 1


def test_a_tag_can_name_a_version_of_a_branch(table: Location) -> None:
    history.create_branch(history.resolve(table, None, 1), "try")
    done = write.append(table, "try", pairs([50]))
    history.tag(Snapshot(table, done.version, "try"), "tried")
    found = history.resolve(table, None, "tried")
    assert (50, 0) in content(table, found.branch, found.version)


def test_restore_brings_back_rows_and_what_came_between_stays(table: Location) -> None:
    rows.delete(table, None, "id > 3")
    rows.update(table, None, {"n": 9})
    receipt = history.restore(table, None, history.resolve(table, None, 2))
    assert content(table) == [(i, 0) for i in range(20)]
    assert content(table, version=receipt.version - 1) == [(i, 9) for i in range(4)]
    merge.merge(table, None, pairs([1, 50], 7))  # row ids are given out again after a restore
    rows.update(table, None, {"n": 8}, "id = 50")
    assert dict(content(table)) == {**dict.fromkeys(range(20), 0), 1: 7, 50: 8}
