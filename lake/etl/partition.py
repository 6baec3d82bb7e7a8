"""Rows of one key in one place: a hash of the key, and which row of each key stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import InvalidInput
from lake.etl.spec import Deduplicate

Hashes = npt.NDArray[np.uint64]

_ODD = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio
_MIX = np.uint64(0xBF58476D1CE4E5B9)  # of splitmix64
_BASE = np.uint64(0x100000001B3)


def hash_keys(rows: pa.RecordBatch, key: Sequence[str]) -> Hashes:
    """Hash the key of each row; the same on every machine and in every run.

    Returns
    -------
    numpy.ndarray, shape (n,), uint64
    """
    found: Hashes = np.zeros(rows.num_rows, np.uint64)
    with np.errstate(over="ignore"):
        for name in key:
            found = _mixed(found * _ODD + _hash(rows.column(name)))
    return found


def check_key(schema: pa.Schema, key: Sequence[str]) -> None:
    """Refuse to compare rows by what has no exact equality, or by columns that are not written.

    Raises
    ------
    InvalidInput
    """
    for name in key:
        if name not in schema.names:
            raise InvalidInput(f"deduplicate: column {name!r} is not written; there are {schema.names}")
        kind = schema.field(name).type
        if pa.types.is_nested(kind) or pa.types.is_floating(kind):
            raise InvalidInput(
                f"deduplicate: {name!r} is {kind}, which has no exact equality; cast it, or choose others"
            )


def winners(keys: pa.Table, key: Sequence[str], order: str, rule: Deduplicate | None) -> npt.NDArray[np.int64]:
    """Choose the row of each key that stays.

    Parameters
    ----------
    keys : pyarrow.Table
        The key's columns, the column `order`, which no two rows share, and that of ``rule.order_by``.
    rule : Deduplicate, optional
        Without one, no row stays of a key that has several.

    Returns
    -------
    numpy.ndarray
        Numbers of rows, ascending.
    """
    by = [(order, "ascending")]
    if rule is not None and rule.order_by is not None:
        by.insert(0, (rule.order_by, "ascending"))
    ranked = pc.sort_indices(keys, sort_keys=[(*each, "at_start") for each in by])
    place: Any = np.empty(len(keys), np.int64)
    place[ranked.to_numpy()] = np.arange(len(keys))
    named = keys.select(list(key)).append_column("place", pa.array(place))
    pick = "min" if rule is not None and rule.keep == "first" else "max"
    groups = named.group_by(list(key)).aggregate([("place", pick), ("place", "count")])
    if rule is None:
        groups = groups.filter(pc.equal(groups["place_count"], 1))
    chosen: npt.NDArray[np.int64] = np.sort(ranked.to_numpy()[groups[f"place_{pick}"].to_numpy()].astype(np.int64))
    return chosen


def _hash(array: pa.Array) -> Hashes:
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_decimal(kind):
        array = array.cast(pa.string())
    elif pa.types.is_temporal(kind):
        array = array.cast(pa.int32() if kind.bit_width == 32 else pa.int64())  # noqa: PLR2004
    if pa.types.is_integer(array.type) or pa.types.is_boolean(array.type):
        wide = pa.int64() if not pa.types.is_uint64(array.type) else pa.uint64()
        numbers = array.cast(wide).fill_null(0).to_numpy(zero_copy_only=False)
        return _mixed(numbers.astype(np.uint64, copy=False) if wide == pa.uint64() else numbers.view(np.uint64))
    return _hash_bytes(array.cast(pa.large_binary()).fill_null(b""))


def _hash_bytes(array: pa.Array) -> Hashes:
    """Hash each value as a polynomial of its bytes, all of them at once."""
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    lengths = np.diff(offsets)
    if not len(lengths) or offsets[-1] == offsets[0]:
        return np.zeros(len(array), np.uint64)
    data = np.frombuffer(array.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].astype(np.uint64)
    powers = np.cumprod(np.full(int(lengths.max()), _BASE), dtype=np.uint64)
    inside = np.arange(len(data)) - np.repeat(offsets[:-1] - offsets[0], lengths)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum((data + np.uint64(1)) * powers[inside], dtype=np.uint64)])
    return _mixed(sums[offsets[1:] - offsets[0]] - sums[offsets[:-1] - offsets[0]])


def _mixed(values: Hashes) -> Hashes:
    """Let all bits of a number depend on all others, as splitmix64 does."""
    values = (values ^ (values >> np.uint64(30))) * _MIX
    return values ^ (values >> np.uint64(31))
