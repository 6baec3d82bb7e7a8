"""Partitions out of runs against the arrays that were written."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.join import partitions, runs
from lake.join.inplace import InPlace
from lake.join.partitions import Partitions
from lake.join.runs import Run, RunReader, write_run
from lake.storage import Location

DIMENSION, ROW_BYTES = 96, 4 * 96
LENGTHS = np.array([300, 0, 7, 2000, 1, 0, 400, 292])
ROWS = int(LENGTHS.sum())
HOMES = np.repeat(np.arange(len(LENGTHS)), LENGTHS)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Run], np.ndarray, np.ndarray]:
    """Two runs; their ids, and their vectors."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("runs")
    ids = rng.permutation(2 * ROWS).reshape(2, ROWS)
    vectors = rng.standard_normal((2, ROWS, DIMENSION), np.float32)
    files = [Location.of(folder / f"{at}.lance") for at in range(2)]
    for at, file in enumerate(files):
        write_run(file, ids[at], vectors[at], LENGTHS)
    return [Run(file, "vector") for file in files], ids, vectors


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("hands", [1, 3])
@pytest.mark.parametrize("near", [True, False])
def test_all_rows_of_what_is_wanted_come_in_groups_of_neighbours(
    written: tuple[list[Run], np.ndarray, np.ndarray], tmp_path: Path, count: int, hands: int, near: bool
) -> None:
    some, ids, vectors = written
    wanted = np.array([0, 2, 3, 4, 7])
    at_hand, group = 100 * ROW_BYTES, 250 * ROW_BYTES
    most = min(group, hands * at_hand) if near else group
    found = InPlace.find if near else lambda *_: None
    with (
        patch.multiple(partitions, _NEAR_BYTES=at_hand, _GROUP_BYTES=group),
        patch.object(InPlace, "find", found),
    ):
        opened = Partitions(some[:count], Location.of(tmp_path), normalise=False)
        # Held all at once: the memory of one serves no other as long as it is held.
        groups = list(opened.read(wanted, hands))
    for one in groups:
        assert one.vectors.nbytes <= most or len(np.unique(one.homes)) == 1
        assert (np.diff(one.homes) >= 0).all()
    of = {
        int(row): (int(home), vector)
        for at in range(count)
        for row, home, vector in zip(ids[at], HOMES, vectors[at], strict=True)
    }
    seen = np.concatenate([one.ids for one in groups])
    assert sorted(seen) == sorted(row for row, (home, _) in of.items() if home in wanted)
    np.testing.assert_array_equal(np.concatenate([one.homes for one in groups]), [of[row][0] for row in seen])
    np.testing.assert_array_equal(np.concatenate([one.vectors for one in groups]), [of[row][1] for row in seen])
    assert opened.read_bytes == len(seen) * ROW_BYTES


@given(reads=st.lists(st.tuples(st.integers(0, ROWS - 1), st.integers(1, 700)), min_size=1, max_size=8))
def test_ids_are_right_whatever_was_read_before(
    written: tuple[list[Run], np.ndarray, np.ndarray], reads: list[tuple[int, int]]
) -> None:
    some, ids, vectors = written
    reader = RunReader(some[1])
    with patch.object(runs, "_IDS", 500):
        for first, count in reads:
            last = min(ROWS, first + count)
            rows, found = reader.read(first, last - first)
            np.testing.assert_array_equal(rows, ids[1, first:last])
            np.testing.assert_array_equal(found, vectors[1, first:last])
