"""What holds after every step: rows, history, and each kind of search against brute force."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis.stateful import invariant

from tests.property.model import DIMENSION, INDEXES, Model, Row, State, Vector

EXACT = ("ivf_flat", "ivf_hnsw_flat")
GENEROUS: dict[str, Any] = {"nprobe": 64, "ef": 200}


def distances(query: Vector, rows: Mapping[int, Row]) -> dict[int, float]:
    """Brute force; a row without a vector is nowhere."""
    return {k: float(((r["vector"] - query) ** 2).sum()) for k, r in rows.items() if r["vector"] is not None}


def at_least_five(state: State) -> Mapping[int, Row]:
    return {key: row for key, row in state.rows.items() if row["number"] >= 5}


class Checks(Model):
    @invariant()
    def the_table_is_the_model(self) -> None:
        now = (self.current, self.table.version)
        if now == self.checked:  # the last step wrote nothing
            return
        self.check_rows()
        self.check_history()
        queries = np.random.default_rng([len(self.rows), self.table.version]).integers(-3, 4, (3, DIMENSION))
        self.check_nearest(queries[0].astype(np.float32))
        self.check_many(queries.astype(np.float32))
        self.check_groups(queries[0].astype(np.float32))
        self.check_text(queries[0].astype(np.float32))
        self.checked = now

    def check_rows(self) -> None:
        found = {row["id"]: row for row in self.table.to_arrow().to_pylist()}
        assert set(self.table.schema.names) == self.state.names
        assert self.table.schema.key == ("id",)
        assert len(self.table) == len(self.rows) == len(found)
        for key, row in self.rows.items():
            assert found[key]["text"] == row["text"]
            assert found[key][self.state.number] == row["number"]
            assert {n: found[key][n] for n in self.state.extras} == {n: row.get(n) for n in self.state.extras}
            assert (found[key]["vector"] is None) == (row["vector"] is None)
            if row["vector"] is not None:
                np.testing.assert_array_equal(np.float32(found[key]["vector"]), row["vector"])

    def check_history(self) -> None:
        """Tell that versions, tags and the other lines are what they were, and what is declared stays so."""
        past, step = self.line.past, self.table.version
        version = sorted(past)[step % len(past)]
        assert set(self.table.at(version).to_arrow(["id"])["id"].to_pylist()) == set(past[version].rows)
        assert set(self.table.tags()) == set(self.tags)
        if self.tags:
            name = sorted(self.tags)[step % len(self.tags)]
            tag = self.tags[name]
            tagged = self.table.at(name)
            assert (tagged.version, tagged.branch_name) == (tag.version, tag.line)
            assert dict(numbers(tagged.to_arrow(["id", tag.state.number]).to_pydict())) == numbers_of(tag.state)
        for line in self.lines.values():
            found = line.table.to_arrow(["id", line.state.number]).to_pydict()
            assert dict(numbers(found)) == numbers_of(line.state)
        assert set(self.table.branches()) == {name for name in self.lines if name is not None}
        assert {spec.name for spec in self.table.indexes()} == INDEXES

    def check_nearest(self, query: Vector) -> None:
        for where, rows in ((None, self.rows), (f"{self.state.number} >= 5", at_least_five(self.state))):
            result = self.table.search(vector=query, where=where, k=5, columns=["id", "vector"], **GENEROUS)
            assert result.coverage.version == self.table.version
            assert result.coverage.rows == len(self.rows)
            found = result.to_arrow()
            self.check_best(found["id"].to_pylist(), found["_distance"].to_pylist(), distances(query, rows), 5)

    def check_many(self, queries: Vector) -> None:
        found = self.table.search(vector=queries, k=4, offset=1, columns=["id"], **GENEROUS).to_pylist()
        assert [row["_query"] for row in found] == sorted(row["_query"] for row in found)
        for number, query in enumerate(queries):
            mine = [row for row in found if row["_query"] == number]
            true = distances(query, self.rows)
            self.check_best([row["id"] for row in mine], [row["_distance"] for row in mine], true, 4, offset=1)

    def check_best(self, got: list[int], told: list[float], true: dict[int, float], k: int, offset: int = 0) -> None:
        assert len(got) == len(set(got)) == max(0, min(k, len(true) - offset))
        assert set(got) <= true.keys()
        np.testing.assert_allclose(told, [true[key] for key in got], rtol=1e-4, atol=1e-4)
        assert told == sorted(told)
        if self.kind in EXACT:
            np.testing.assert_allclose(told, sorted(true.values())[offset : offset + k], rtol=1e-4, atol=1e-4)

    def check_groups(self, query: Vector) -> None:
        """Equal distances make the order of rows and groups a matter of taste, so distances are compared."""
        column = self.state.number
        found = self.table.search(
            vector=query, k=3, group_by=column, per_group=2, columns=["id", column], **GENEROUS
        ).to_pylist()
        true = distances(query, self.rows)
        groups: dict[int, list[float]] = {}
        for key, distance in sorted(true.items(), key=lambda item: item[1]):
            groups.setdefault(self.rows[key]["number"], []).append(distance)
        assert len({row["id"] for row in found}) == len(found)
        told: dict[int, list[float]] = {}
        for row in found:
            assert self.rows[row["id"]]["number"] == row[column]
            np.testing.assert_allclose(row["_distance"], true[row["id"]], rtol=1e-4, atol=1e-4)
            told.setdefault(row[column], []).append(row["_distance"])
        assert len(told) == min(3, len(groups))
        assert all(len(best) == min(2, len(groups[group])) for group, best in told.items())
        if self.kind in EXACT:
            first = [best[0] for best in told.values()]
            np.testing.assert_allclose(first, [best[0] for best in groups.values()][:3], rtol=1e-4, atol=1e-4)
            for group, best in told.items():
                np.testing.assert_allclose(best, groups[group][:2], rtol=1e-4, atol=1e-4)

    def check_text(self, query: Vector) -> None:
        if not any(index.name == "text_idx" for index in self.table.dataset.describe_indices()):
            return  # after an overwrite words are not looked for before the next build
        found = self.table.search(text="cedar", k=1000, columns=["id"]).to_arrow()["id"].to_pylist()
        assert sorted(found) == sorted(key for key, row in self.rows.items() if "cedar" in row["text"])
        where, rows = f"{self.state.number} >= 5", at_least_five(self.state)
        both = self.table.search(vector=query, text="cedar", where=where, k=1000, columns=["id"], **GENEROUS).to_arrow()
        found = both["id"].to_pylist()
        near, worded = distances(query, rows), {key for key, row in rows.items() if "cedar" in row["text"]}
        assert len(found) == len(set(found))
        assert set(found) == near.keys() | worded
        for key, distance, score in zip(found, both["_distance"].to_pylist(), both["_score"].to_pylist(), strict=True):
            assert (score is not None) == (key in worded)
            assert (distance is not None) == (key in near)
        fused = both["_relevance_score"].to_pylist()
        assert fused == sorted(fused, reverse=True)


def numbers(found: Mapping[str, list[int]]) -> zip[tuple[int, int]]:
    key, number = found.values()
    return zip(key, number, strict=True)


def numbers_of(state: State) -> dict[int, int]:
    return {key: row["number"] for key, row in state.rows.items()}
