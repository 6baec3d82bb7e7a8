"""Equal keys meet in one partition, and one row of each stays."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.errors import InvalidInput
from lake.etl.partition import check_key, hash_keys, winners
from lake.etl.spec import Deduplicate

KEYS: dict[str, list[Any]] = {
    "int64": [0, 1, -1, 2**62, None],
    "uint64": [0, 1, 2**64 - 1],
    "int8": [0, 1, -128],
    "string": ["", "a", "aa", "b", "ab", "ba", None, "é" * 50],
    "large_string": ["", "a", "aa"],
    "binary": [b"", b"\0", b"\0\0", b"a"],
    "date32": [dt.date(2020, 1, 1), dt.date(1969, 1, 1)],
    "timestamp[us]": [dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(1969, 1, 1, tzinfo=dt.UTC)],
    "bool": [True, False],
}


def batch(**columns: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


@pytest.mark.parametrize("kind", KEYS)
def test_a_hash_depends_on_the_value_alone(kind: str) -> None:
    values = pa.array(KEYS[kind], pa.type_for_alias(kind))
    found = hash_keys(batch(k=values), ["k"])
    known = [h for h, v in zip(found.tolist(), KEYS[kind], strict=True) if v is not None]
    assert len(set(known)) == len(known)
    padded = pa.concat_arrays([values.slice(1), values]).slice(len(values) - 1)  # offsets that do not begin at 0
    assert hash_keys(batch(k=padded), ["k"]).tolist() == found.tolist()


def test_other_types() -> None:
    decimals = pa.array([Decimal("1.50"), Decimal("2.50")], pa.decimal128(10, 2))
    words = pa.array(["a", "b", "a"]).dictionary_encode()
    assert len(set(hash_keys(batch(k=decimals), ["k"]).tolist())) == 2
    plain = hash_keys(batch(k=["a", "b", "a"]), ["k"])
    assert hash_keys(batch(k=words), ["k"]).tolist() == plain.tolist()
    assert plain[0] == plain[2]


def test_several_columns_do_not_run_together_and_the_order_counts() -> None:
    found = hash_keys(batch(a=["x", "xy", "y", "x"], b=["yz", "z", "x", "y"]), ["a", "b"])
    assert len(set(found.tolist())) == 4


def test_another_process_finds_the_same() -> None:
    code = (
        "import pyarrow as pa; from lake.etl.partition import hash_keys;"
        "print(hash_keys(pa.RecordBatch.from_pydict({'a': ['x', 'é'], 'b': [1, 2]}), ['a', 'b']).tolist())"
    )
    there = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert there.strip() == str(hash_keys(batch(a=["x", "é"], b=[1, 2]), ["a", "b"]).tolist())


@pytest.mark.parametrize("kind", ["ints", "strings"])
def test_partitions_are_of_similar_size(kind: str) -> None:
    keys = list(range(10_000)) if kind == "ints" else [f"sku-{n:08d}" for n in range(10_000)]
    counts = np.bincount((hash_keys(batch(k=keys), ["k"]) % np.uint64(16)).astype(int), minlength=16)
    assert counts.min() > 500
    assert counts.max() < 750


Rows = list[tuple[int, float | None]]
ROWS = st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 3).map(float))), max_size=30)


@given(ROWS, st.sampled_from(["first", "last"]), st.booleans())
def test_which_row_stays(rows: Rows, keep: Any, by_column: bool) -> None:
    """Against a dict, filled row by row."""
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    table = pa.table(
        {
            "k": pa.array([k for k, _ in rows], pa.int64()),
            "v": pa.array([v for _, v in rows], pa.float64()),
            "at": pa.array(order, pa.int64()),
        }
    )
    rule = Deduplicate(keep=keep, order_by="v" if by_column else None)
    best: dict[int, tuple[Any, int]] = {}
    for n, (key, value) in enumerate(rows):
        rank = ((-1.0 if value is None else value) if by_column else 0, int(order[n]))
        if key not in best or (rank > best[key][0]) == (keep == "last"):
            best[key] = (rank, n)
    assert winners(table, ["k"], "at", rule).tolist() == sorted(n for _, n in best.values())
    alone = [n for n, (key, _) in enumerate(rows) if [k for k, _ in rows].count(key) == 1]
    assert winners(table, ["k"], "at", None).tolist() == alone


def test_what_cannot_be_a_key() -> None:
    schema = pa.schema({"f": pa.float64(), "l": pa.list_(pa.int64()), "i": pa.int64()})
    check_key(schema, ["i"])
    for name in ("f", "l"):
        with pytest.raises(InvalidInput, match="no exact equality"):
            check_key(schema, [name])
    with pytest.raises(InvalidInput, match="'x' is not written"):
        check_key(schema, ["x"])
