"""Ranges of ids against a set."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lake.join.living import among, ranges_of

_ids = st.sets(st.one_of(st.integers(0, 60), st.integers(1 << 40, (1 << 40) + 20)))


@given(_ids, _ids, st.randoms(use_true_random=False), st.integers(1, 5))
def test_ids_are_among_their_ranges(known: set[int], others: set[int], random: object, cuts: int) -> None:
    shuffled = sorted(known)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    ranges = ranges_of(np.array_split(np.array(shuffled, np.int64), cuts))
    asked = np.array([*others, *known], np.int64)
    assert among(ranges, asked).tolist() == [int(i) in known for i in asked]
    counted = [i for first, last in ranges.tolist() for i in range(first, last)]
    assert counted == sorted(known)
    assert (ranges[1:, 0] > ranges[:-1, 1]).all(), "no two that touch"


def test_a_table_without_deletions_has_a_range_for_each_fragment() -> None:
    fragments = [np.arange(first, first + 1000) for first in (0, 1 << 32, 1000)]
    assert ranges_of(fragments).tolist() == [[0, 2000], [1 << 32, (1 << 32) + 1000]]
