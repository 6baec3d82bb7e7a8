"""Rules that write rows: with and without commit ids, whole rows and some of their columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

import lake
from tests.property.model import Done, Model, Row, ids, make_rows, make_vector, seeds

Mode = Literal["upsert", "insert", "update"]


class Writing(Model):
    @rule(keys=ids, seed=seeds, named=st.booleans())
    def append(self, keys: list[int], seed: int, named: bool) -> None:
        new = make_rows(seed, [key for key in keys if key not in self.rows])
        if new:
            data = self.state.columns(new)
            commit_id = self.fresh("append") if named else None
            receipt = self.table.append(data, commit_id=commit_id)
            assert receipt.inserted == len(new)
            self.settle(self.state.with_rows(new))
            self.acknowledged("append", commit_id, receipt, data)

    @rule(keys=ids, seed=seeds, mode=st.sampled_from(["upsert", "insert", "update"]), named=st.booleans())
    def merge(self, keys: list[int], seed: int, mode: Mode, named: bool) -> None:
        given_rows = make_rows(seed, keys)
        here = [row for row in given_rows if row["id"] in self.rows and mode != "insert"]
        new = [row for row in given_rows if row["id"] not in self.rows and mode != "update"]
        data = self.state.columns(given_rows)
        commit_id = self.fresh("merge") if named else None
        receipt = self.table.merge(data, mode=mode, commit_id=commit_id)
        assert (receipt.updated, receipt.inserted) == (len(here), len(new))
        self.settle(self.state.with_rows([*here, *new]))
        if here or new:  # what changes nothing leaves no trace
            self.acknowledged("merge", commit_id, receipt, data)

    @rule(keys=ids, seed=seeds, names=st.sampled_from(["vector", "text", "number text", "extra", "extra vector"]))
    def merge_some_columns(self, keys: list[int], seed: int, names: str) -> None:
        given_rows = make_rows(seed, [key for key in keys if key in self.rows])
        chosen = [n for n in names.split() if n != "extra"]
        if names.startswith("extra"):
            chosen += self.state.extras
            given_rows = [{**row, **dict.fromkeys(self.state.extras, seed % 100)} for row in given_rows]
        if given_rows and chosen:
            self.table.merge(self.state.columns(given_rows, ["id", *chosen]), mode="update")
            self.settle(self.state.with_rows([{n: row[n] for n in ("id", *chosen)} for row in given_rows]))

    @rule(low=st.integers(0, 60), width=st.integers(0, 12), seed=seeds, what=st.sampled_from(["move", "hide", "count"]))
    def update(self, low: int, width: int, seed: int, what: str) -> None:
        hit = [row for key, row in self.rows.items() if low <= key <= low + width]
        vector = None if what == "hide" else make_vector(np.random.default_rng(seed))
        number = self.state.number
        values: dict[str, Any] = {number: lake.sql(f"{number} + 1")} if what == "count" else {"vector": vector}
        assert self.table.update(values, f"id >= {low} AND id <= {low + width}").updated == len(hit)

        def changed(row: Row) -> Row:
            return {**row, **({"number": row["number"] + 1} if what == "count" else {"vector": vector})}

        self.settle(self.state.with_rows(map(changed, hit)))

    @rule(remainder=st.integers(0, 6))
    def delete(self, remainder: int) -> None:
        kept = {key: row for key, row in self.rows.items() if key % 7 != remainder}
        assert self.table.delete(f"id % 7 = {remainder}").deleted == len(self.rows) - len(kept)
        self.settle(replace(self.state, rows=kept))

    @rule(keys=ids, seed=seeds, named=st.booleans())
    def overwrite(self, keys: list[int], seed: int, named: bool) -> None:
        new = make_rows(seed, keys)
        data = self.state.columns(new)
        commit_id = self.fresh("overwrite") if named else None
        receipt = self.table.overwrite(data, commit_id=commit_id)
        assert (receipt.inserted, receipt.deleted) == (len(new), len(self.rows))
        self.settle(replace(self.state, rows={}).with_rows(new))
        self.acknowledged("overwrite", commit_id, receipt, data)

    def acknowledged(self, verb: str, commit_id: str | None, receipt: lake.Receipt, data: dict[str, Any]) -> None:
        assert not receipt.repeated
        assert receipt.version == self.table.version
        if commit_id is not None:
            assert receipt.commit_id == commit_id
            self.line.done[commit_id] = Done(verb, receipt.version, data)

    @precondition(lambda self: self.line.done)
    @rule(choice=seeds)
    def repeat(self, choice: int) -> None:
        """Send a write again, however much came between; the table stays what it is."""
        commit_id = sorted(self.line.done)[choice % len(self.line.done)]
        done, before = self.line.done[commit_id], self.table.version
        receipt = getattr(self.table, done.verb)(done.data, commit_id=commit_id)
        assert receipt.repeated
        assert (receipt.version, receipt.commit_id, receipt.rows) == (done.version, commit_id, 0)
        assert self.table.version == before
        self.checked = None
