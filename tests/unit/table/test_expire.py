"""Expiry, pins and compaction: nothing that somebody uses is taken away."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from lake.errors import InvalidInput, NotFound
from lake.storage import Location
from lake.table import commit, compact, expire, history, pins, rows, write
from lake.table.snapshot import Snapshot, open_head
from tests.support.tables import content, make, pairs

NOW = timedelta(0)


@pytest.fixture
def table(root: Location) -> Location:
    """Versions 1 to 5."""
    there = make(root)
    for i in range(50, 53):
        write.append(there, None, pairs([i]))
    return there


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "GRACE", NOW)


def retained(table: Location) -> list[int]:
    return sorted(v.version for v in history.versions(table, None))


@pytest.mark.parametrize(
    "call",
    [
        lambda t: expire.expire(t, older_than=commit.GRACE - timedelta(seconds=1)),
        lambda t: expire.expire(t, older_than=NOW, dry_run=False),
        lambda t: expire.expire(t, keep=0),
        lambda t: expire.expire(t, keep=-1),
    ],
)
def test_what_would_be_unsafe_is_refused(table: Location, call: Callable[[Location], object]) -> None:
    with pytest.raises(InvalidInput, match="expire"):
        call(table)
    assert retained(table) == [1, 2, 3, 4, 5]


def test_young_versions_stay(table: Location) -> None:
    assert expire.expire(table, dry_run=False).versions == ()
    assert retained(table) == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("no_grace")
def test_a_dry_run_only_tells(table: Location) -> None:
    told = expire.expire(table, older_than=NOW, keep=2)
    assert (told.dry_run, told.versions, told.kept) == (True, (1, 2, 3), 2)
    assert retained(table) == [1, 2, 3, 4, 5]
    done = expire.expire(table, older_than=NOW, keep=2, dry_run=False)
    assert (done.versions, done.files, done.bytes) == (told.versions, told.files, told.bytes)
    assert retained(table) == [4, 5]


@pytest.mark.usefixtures("no_grace")
def test_expiry_keeps_every_row_of_what_stays(table: Location) -> None:
    rows.delete(table, None, "id < 3")
    compact.compact(table)
    before = content(table)
    expire.expire(table, older_than=NOW, dry_run=False)
    assert content(table) == before
    write.append(table, None, pairs([60]))
    with pytest.raises(NotFound):
        history.resolve(table, None, 1)


@pytest.mark.usefixtures("no_grace")
def test_tags_pins_and_bases_of_branches_are_kept(table: Location) -> None:
    history.tag(Snapshot(table, 1), "release")
    history.create_branch(Snapshot(table, 2), "try")
    with pins.pin(Snapshot(table, 3), job="job"):
        done = expire.expire(table, older_than=NOW, dry_run=False)
        assert (done.versions, done.protected) == ((4,), (1, 2, 3))
        assert len(content(table, version=3)) == 21
    assert len(content(table, "try")) == 20
    assert expire.expire(table, older_than=NOW, dry_run=False).versions == (3,)
    history.delete_tag(table, "release")
    assert expire.expire(table, older_than=NOW, dry_run=False).versions == (1,)
    assert len(content(table, "try")) == 20


@pytest.mark.usefixtures("no_grace")
def test_a_dead_pin_no_longer_keeps(table: Location) -> None:
    with pins.pin(Snapshot(table, 1), job="dead", lease=NOW), pins.pin(Snapshot(table, 2), job="alive"):
        assert [p.job for p in pins.pins(open_head(table))] == ["alive"]
        assert expire.expire(table, older_than=NOW, dry_run=False).versions == (1, 3, 4)
    assert pins.pins(open_head(table)) == []


def test_a_dry_run_leaves_dead_pins(table: Location) -> None:
    with pins.pin(Snapshot(table, 1), job="dead", lease=NOW):
        expire.expire(table)
        assert list(open_head(table).tags.list()) == ["lake.pin.dead"]


def test_a_pin_says_who_and_what(table: Location) -> None:
    with pins.pin(Snapshot(table, 2), job="a/b c", fragments=[1, 0]) as held:
        assert pins.pins(open_head(table)) == [held] or pins.pins(open_head(table))[0].job == "a-b-c"
        (found,) = pins.pins(open_head(table))
        assert (found.version, found.fragments, found.expires) == (2, frozenset({0, 1}), held.expires)
        assert history.tags(open_head(table)) == {}
    assert open_head(table).tags.list() == {}


def test_a_pin_goes_when_its_block_fails(table: Location) -> None:
    with pytest.raises(ZeroDivisionError), pins.pin(Snapshot(table, 2), job="job"):
        _ = 1 / 0
    assert pins.pins(open_head(table)) == []


def test_a_job_that_comes_again_takes_over_its_pin(table: Location) -> None:
    with pins.pin(Snapshot(table, 1), job="job", fragments=[0]):
        with pins.pin(Snapshot(table, 2), job="job", fragments=[1]):
            (found,) = pins.pins(open_head(table))
            assert (found.version, found.fragments) == (2, frozenset({1}))
        assert pins.pins(open_head(table)) == []


def test_a_pin_without_its_second_write_still_keeps(table: Location) -> None:
    open_head(table).tags.create("lake.pin.killed", 1)
    (found,) = pins.pins(open_head(table))
    assert (found.job, found.version, found.fragments) == ("killed", 1, frozenset())


def test_compaction_keeps_rows_and_ids(table: Location) -> None:
    rows.delete(table, None, "id = 3")
    before = open_head(table).to_table(with_row_id=True).sort_by("id")
    done = compact.compact(table)
    after = open_head(table).to_table(with_row_id=True).sort_by("id")
    assert after.equals(before)
    assert (done.fragments_removed, done.fragments_added, done.fenced) == (5, 1, 0)
    assert done.version == open_head(table).version
    again = compact.compact(table)
    assert (again.version, again.fragments_removed) == (done.version, 0)


def test_compaction_leaves_fenced_fragments_alone(table: Location) -> None:
    with pins.pin(Snapshot(table, 5), job="index", fragments=[0, 1]):
        done = compact.compact(table)
        assert done.fenced == 2
        assert {f.fragment_id for f in open_head(table).get_fragments()} >= {0, 1}
    compact.compact(table)
    assert len(open_head(table).get_fragments()) == 1
    assert len(content(table)) == 23


@pytest.mark.parametrize("options", [{"target_rows": 0}, {"deleted": -0.1}, {"deleted": 1.1}])
def test_compactions_that_make_no_sense_are_refused(table: Location, options: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match="compact"):
        compact.compact(table, **options)  # type: ignore[arg-type]
