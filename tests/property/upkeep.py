"""Rules that change no rows, or bring old ones back: columns, index builds, history, branches."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

import lake
from lake.run import LocalExecutor
from lake.table import commit as committing
from tests.property.model import EXTRAS, INDEXES, Line, Model, Tag, seeds


class Columns(Model):
    @rule(name=st.sampled_from(EXTRAS), computed=st.booleans())
    def add_or_drop_column(self, name: str, computed: bool) -> None:
        if name in self.state.extras:
            self.table.drop_columns([name])
            kept = {key: {n: v for n, v in row.items() if n != name} for key, row in self.rows.items()}
            extras = tuple(n for n in self.state.extras if n != name)
            self.settle(replace(self.state, rows=kept, extras=extras))
            return
        self.table.add_columns({name: lake.sql(f"{self.state.number} * 2") if computed else pa.int64()})
        added = {key: {**row, **({name: row["number"] * 2} if computed else {})} for key, row in self.rows.items()}
        self.settle(replace(self.state, rows=added, extras=(*self.state.extras, name)))

    @rule()
    def rename_column(self) -> None:
        name = "amount" if self.state.number == "number" else "number"
        self.table.rename_columns({self.state.number: name})
        self.settle(replace(self.state, number=name))


class History(Model):
    @rule()
    def build(self) -> None:
        with LocalExecutor(workers=1) as executor:
            self.table.build(executor=executor)
        self.settle(self.state)

    @rule(size=st.sampled_from([20, 1000]))
    def compact(self, size: int) -> None:
        if self.table.branch_name is not None and self.table.dataset.describe_indices():
            return  # refused: Lance would lose a branch's indexes
        self.table.compact(target_rows=size, deleted=0.0)
        self.settle(self.state)

    @precondition(lambda self: len(self.line.past) > 2)
    @rule(choice=seeds)
    def restore(self, choice: int) -> None:
        version = sorted(self.line.past)[choice % len(self.line.past)]
        self.table.restore(version)
        self.settle(self.line.past[version])
        assert {spec.name for spec in self.table.indexes()} == INDEXES

    @rule(choice=seeds, some=st.booleans())
    def follow_changes(self, choice: int, some: bool) -> None:
        since = sorted(self.line.past)[choice % len(self.line.past)]
        names = ["id", self.state.number]
        numbers = {key: row["number"] for key, row in self.line.past[since].rows.items()}
        changes = self.table.changes(since=since, columns=names if some else None)
        found = changes.to_arrow().select(["_change", *names]).to_pylist()
        for change in sorted(found, key=lambda c: c["_change"] != "delete"):
            if change["_change"] == "delete":
                del numbers[change["id"]]
            else:
                assert (change["id"] in numbers) == (change["_change"] == "update")
                numbers[change["id"]] = change[self.state.number]
        assert numbers == {key: row["number"] for key, row in self.rows.items()}
        counts = {kind: sum(c["_change"] == kind for c in found) for kind in ("insert", "update", "delete")}
        assert changes.counts() == counts

    @rule(choice=seeds)
    def tag(self, choice: int) -> None:
        version = sorted(self.line.past)[choice % len(self.line.past)]
        name = self.fresh("tag")
        self.table.tag(name, version)
        self.tags[name] = Tag(self.current, version, self.line.past[version])

    @precondition(lambda self: self.tags)
    @rule(choice=seeds)
    def delete_tag(self, choice: int) -> None:
        name = sorted(self.tags)[choice % len(self.tags)]
        self.table.delete_tag(name)
        del self.tags[name]

    @precondition(lambda self: self.current is None)
    @rule(keep=st.integers(1, 5))
    def expire(self, keep: int) -> None:
        """Remove what may go; all that is left is checked again."""
        there = sorted(v.version for v in self.table.versions())
        held = self.bases | {tag.version for tag in self.tags.values() if tag.line is None}
        going = tuple(v for v in there[:-keep] if v not in held)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(committing, "GRACE", timedelta(0))
            told = self.table.expire(timedelta(0), keep=keep)
            done = self.table.expire(timedelta(0), keep=keep, dry_run=False)
        assert told.versions == done.versions == going
        assert sorted(v.version for v in self.table.versions()) == sorted(set(there) - set(going))
        for version in going:
            self.line.past.pop(version, None)
        self.line.done = {name: done for name, done in self.line.done.items() if done.version not in going}
        if going:
            with pytest.raises(lake.NotFound):
                self.table.at(going[-1]).count_rows()
        self.checked = None


class Branches(Model):
    @precondition(lambda self: len(self.lines) < 3)
    @rule()
    def branch(self) -> None:
        name = self.fresh("branch")
        table = self.table.branch(name)
        if self.current is None:
            self.bases.add(self.table.version)
        self.lines[name] = Line(table, self.state, {table.version: self.state})
        self.current = name

    @precondition(lambda self: len(self.lines) > 1)
    @rule(choice=seeds)
    def switch(self, choice: int) -> None:
        others = [name for name in self.lines if name != self.current]
        self.current = others[choice % len(others)]
