"""Changes between versions, against a plain dict that knows what each version held."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from lake.errors import InvalidInput, NotFound
from lake.storage import Location
from lake.table import columns as column_changes
from lake.table import compact, history, merge, rows, write
from lake.table.changes import compare
from lake.table.snapshot import Snapshot, open_head
from tests.support.tables import content, make, pairs

State = dict[int, int]


@dataclass
class Model:
    """A table, what its versions hold, and which keys each step touched (all: a restore or an overwrite)."""

    table: Location
    states: dict[int, State] = field(default_factory=dict)
    touched: dict[int, set[int]] = field(default_factory=dict)
    now: State = field(default_factory=lambda: dict.fromkeys(range(20), 0))
    fresh: int = 100

    def __post_init__(self) -> None:
        self.states = {1: dict.fromkeys(range(10), 0), 2: dict(self.now)}
        self.touched = {2: set(range(10, 20))}

    def step(self, chance: random.Random, n: int) -> None:
        table, ids = self.table, chance.sample(range(40), 5)
        where = f"id in ({','.join(map(str, ids))})"
        touched = set(ids)
        match chance.choice(["append", "merge", "update", "delete", "compact", "restore", "overwrite"]):
            case "append":
                ids = [self.fresh, self.fresh + 1]
                self.fresh += 2
                touched = set(ids)
                write.append(table, None, pairs(ids, n), commit_id=f"job-{n}" if n % 2 else None)
                self.now |= dict.fromkeys(ids, n)
            case "merge":
                merge.merge(table, None, pairs(ids, n))
                self.now |= dict.fromkeys(ids, n)
            case "update":
                rows.update(table, None, {"n": n}, where)
                self.now |= {i: n for i in ids if i in self.now}
            case "delete":
                rows.delete(table, None, where)
                self.now = {k: v for k, v in self.now.items() if k not in ids}
            case "compact":
                touched = set()
                compact.compact(table)
            case "restore":
                old = chance.choice(sorted(self.states))
                touched = set(range(200))
                history.restore(table, None, Snapshot(table, old))
                self.now = dict(self.states[old])
            case "overwrite":
                touched = set(range(200))
                write.overwrite(table, None, pairs(ids, n))
                self.now = dict.fromkeys(ids, n)
        version = open_head(table).version
        self.states[version] = dict(self.now)
        self.touched[version] = self.touched.get(version, set()) | touched

    def check(self, before: int, after: int) -> None:
        changes = compare(Snapshot(self.table, before), Snapshot(self.table, after))
        found: dict[str, dict[int, int]] = {"insert": {}, "update": {}, "delete": {}}
        for row in changes.to_arrow().to_pylist():
            assert row["id"] not in found[row["_change"]], "told twice"
            found[row["_change"]][row["id"]] = row["n"]
        assert changes.counts() == {kind: len(rows) for kind, rows in found.items()}
        old, new = self.states[before], self.states[after]
        assert found["delete"].items() <= old.items(), "deleted rows have the values that they had"
        assert found["update"].keys() <= old.keys() & new.keys()
        left = {k: v for k, v in old.items() if k not in found["delete"]}
        assert not left.keys() & found["insert"].keys()
        assert {**left, **found["insert"], **found["update"]} == new
        between = set[int]().union(*(ids for v, ids in self.touched.items() if before < v <= after))
        assert {key for rows in found.values() for key in rows} <= between, "what nobody touched did not change"


@pytest.mark.parametrize("seed", range(12))
def test_changes_lead_from_each_version_to_each_later_one(tmp_path: Any, seed: int) -> None:
    chance = random.Random(seed)
    model = Model(make(Location.of(tmp_path)))
    for n in range(1, 11):
        model.step(chance, n)
        assert dict(content(model.table)) == model.now
    for before in model.states:
        for after in model.states:
            if before <= after:
                model.check(before, after)


def test_versions_stay_as_they_were(tmp_path: Any) -> None:
    model = Model(make(Location.of(tmp_path)))
    chance = random.Random(99)
    for n in range(1, 16):
        model.step(chance, n)
    for version, state in model.states.items():
        assert dict(content(model.table, version=version)) == state


def test_changes_on_a_branch_and_of_some_columns(root: Location) -> None:
    table = make(root)
    history.create_branch(Snapshot(table, 1), "try")
    start = open_head(table, "try").version
    merge.merge(table, "try", pairs([1, 50], 5))
    end = open_head(table, "try").version
    changes = compare(Snapshot(table, start, "try"), Snapshot(table, end, "try"), ["id"])
    assert changes.counts() == {"insert": 1, "update": 1, "delete": 0}
    found = changes.to_arrow().to_pylist()
    assert found == [{"_change": "insert", "id": 50}, {"_change": "update", "id": 1}]


@pytest.mark.parametrize("columns", [None, ["m", "id"], ["m"]])
def test_deleted_rows_are_null_in_columns_that_are_newer(root: Location, columns: list[str] | None) -> None:
    table = make(root)
    old = open_head(table).version
    column_changes.rename_columns(table, None, {"n": "m"})
    rows.delete(table, None, "id = 3")
    found = compare(Snapshot(table, old), Snapshot(table, open_head(table).version), columns).to_arrow()
    names = columns or ["id", "m"]
    assert found.schema.names == ["_change", *names]
    assert found.to_pylist() == [{"_change": "delete"} | {name: {"id": 3, "m": None}[name] for name in names}]


def test_no_change_is_an_empty_table(root: Location) -> None:
    snapshot = Snapshot(make(root), 1)
    found = compare(snapshot, snapshot).to_arrow()
    assert (found.num_rows, found.schema.names) == (0, ["_change", "id", "n"])


def test_comparisons_that_make_no_sense_are_refused(root: Location) -> None:
    table = make(root)
    with pytest.raises(InvalidInput, match="before it"):
        compare(Snapshot(table, 2), Snapshot(table, 1))
    with pytest.raises(InvalidInput, match="one table"):
        compare(Snapshot(table, 1), Snapshot(make(root, "other"), 2))
    with pytest.raises(NotFound):
        compare(Snapshot(table, 1), Snapshot(table, 2), ["nope"])
