"""A table against a plain dict: every write, version, branch, index build and search, interleaved.

The model is a dict of rows; searches are compared with numpy's brute force over it. Whatever the order of
events, no row may appear stale or twice, and none may push a live row out of the top k. The same on a local
folder and on an object store.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import initialize, run_state_machine_as_test

import lake
from lake.storage import Location
from tests.property.checks import Checks
from tests.property.model import DIMENSION, Line, State, make_rows, seeds
from tests.property.upkeep import Branches, Columns, History
from tests.property.writing import Writing


class TableMachine(Writing, Columns, History, Branches, Checks):
    """Real commits; index builds run in this process."""

    @initialize(seed=seeds)
    def create(self, seed: int) -> None:
        schema = lake.Schema(
            [
                lake.Column("id", int),
                lake.Column("text", str),
                lake.Column("number", int),
                lake.Column("vector", lake.Embedding(DIMENSION, metric="l2")),
            ],
            key="id",
        )
        state = State({}).with_rows(make_rows(seed, range(30)))
        self.place = self.root.join(uuid.uuid4().hex)
        lk = lake.connect(self.place.uri, self.place.options)
        table = lk.create_table("model", schema, data=state.columns(list(state.rows.values())))
        table.create_index("vector", self.kind, partitions=2)
        table.create_index("text", "inverted")
        table.create_index("number", "btree")
        table.create_index("id", "btree")
        self.lines[None] = Line(table, state)
        self.build()  # words are not looked for before there is a text index

    def teardown(self) -> None:
        if self.root.scheme == "file" and self.lines:
            shutil.rmtree(Path(self.place.uri), ignore_errors=True)


# A store answers slowly, so it gets fewer and shorter examples; a quantised index is refined: right rows, though not
# always the best; a graph in each partition is searched so broadly that it is exact.
EXAMPLES = {
    "file": {"ivf_flat": (25, 20), "ivf_sq": (8, 20), "ivf_hnsw_flat": (8, 20)},
    "s3": {"ivf_flat": (3, 12), "ivf_sq": (2, 12), "ivf_hnsw_flat": (2, 12)},
}


@pytest.mark.timeout(900)  # a failure is made smaller for some minutes
@pytest.mark.parametrize("kind", ["ivf_flat", "ivf_sq", "ivf_hnsw_flat"])
def test_a_table_is_a_dict_with_searches(root: Location, kind: str) -> None:
    examples, steps = EXAMPLES[root.scheme][kind]
    machine = type(f"{root.scheme}_{kind}", (TableMachine,), {"root": root, "kind": kind})
    # To see a failure of `make fuzz` again: machine = reproduce_failure(…)(machine), with what it printed.
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            report_multiple_bugs=False,
            phases=[p for p in (Phase.generate, Phase.shrink) if p != Phase.shrink or root.scheme == "file"],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
