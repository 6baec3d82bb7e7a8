"""AUTO: which kind of index a column should have, how many partitions, and why."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import lance
import numpy as np
import pyarrow.compute as pc

from lake.errors import InvalidInput
from lake.index.kinds import Kind, fitting
from lake.index.spec import IndexSpec
from lake.schema import Column, Role
from lake.schema.arrow import vector_layout

_SAMPLE = 10_000
_FEW_VALUES = 1_000
_SCAN_IS_FAST = 10_000
_LARGE_BYTES = 16 << 30
_HNSW_ROWS = 1 << 20
_POINTS = 64  # rows of a partition, at least, where the lake chooses
_CODEBOOK_POINTS = 2  # vectors for each entry of a codebook, at least: Lance's own bound


def choose(dataset: lance.LanceDataset, column: Column) -> tuple[str, dict[str, Any], str]:
    """Choose a kind for a column.

    Returns
    -------
    tuple of (kind, parameters, why)

    Raises
    ------
    InvalidInput
        No kind fits the column.
    """
    fits = fitting(column)
    if not fits:
        raise InvalidInput(
            f"column {column.name!r} of type {column.type} and role {column.role.value!r} cannot be indexed; "
            "a search or filter scans it"
        )
    if column.role is Role.VECTOR:
        return _choose_vector(dataset.count_rows(), column, fits)
    if column.role is Role.CATEGORY and "BITMAP" in fits:
        return _choose_category(dataset, column)
    for role, kind, why in _BY_ROLE:
        if column.role is role and kind in fits:
            return kind, {}, why
    return fits[0], {}, f"the usual kind for {column.type}"


_BY_ROLE = (
    (Role.TEXT, "INVERTED", "text is searched by words: BM25"),
    (Role.DESCRIPTION, "INVERTED", "text is searched by words: BM25"),
    (Role.JSON, "INVERTED", "JSON is searched by its paths and values"),
    (Role.TAGS, "LABEL_LIST", "tags are filtered by which they hold"),
    (Role.BOOLEAN, "BITMAP", "two values: one bitmap each"),
    (Role.KEY, "BTREE", "keys are looked up one by one"),
    (Role.NUMBER, "BTREE", "numbers are filtered by ranges and values"),
    (Role.TIME, "BTREE", "times are filtered by ranges"),
    (Role.GEO, "RTREE", "places are filtered by areas"),
    (Role.CATEGORY, "ZONEMAP", "a dictionary column takes no other kind"),
)


def _choose_vector(rows: int, column: Column, fits: tuple[str, ...]) -> tuple[str, dict[str, Any], str]:
    layout = vector_layout(column.type)
    assert layout is not None  # noqa: S101  its role says so
    element, dimension, _ = layout
    size = rows * dimension * element.bit_width // 8
    if size > _LARGE_BYTES and "IVF_PQ" in fits:
        return "IVF_PQ", {}, f"{size / 2**30:,.0f} GiB of vectors: codes of one byte for 8 dimensions stay searchable"
    if rows < _SCAN_IS_FAST:
        return "IVF_FLAT", {}, f"{rows:,} rows: a scan is fast too; the index will matter when the table grows"
    return "IVF_FLAT", {}, f"{size / 2**20:,.0f} MiB of vectors: whole vectors in partitions give exact distances"


def _choose_category(dataset: lance.LanceDataset, column: Column) -> tuple[str, dict[str, Any], str]:
    rows = dataset.count_rows()
    chosen = np.random.default_rng(0).choice(rows, min(rows, _SAMPLE), replace=False)
    values = dataset.take(np.sort(chosen), columns=[column.name])[column.name] if rows else []
    distinct = len(pc.unique(values)) if rows else 0
    if distinct <= _FEW_VALUES:
        return "BITMAP", {}, f"{distinct:,} values among {len(values):,} sampled rows: one bitmap each"
    return "BTREE", {}, f"{distinct:,} values among {len(values):,} sampled rows: too many for bitmaps"


def partitions_for(kind: Kind, rows: int) -> int:
    """Choose a number of partitions.

    Twice the square root of the rows lies in the flat middle of what was measured: fewer make each probe
    dear, more make routing dear. A graph searches a partition itself, so it wants few and large ones.
    """
    if kind.hnsw:
        return max(1, rows // _HNSW_ROWS)
    return max(1, min(round(2 * math.sqrt(rows)), rows // _POINTS))


def settle(spec: IndexSpec, rows: int) -> tuple[IndexSpec, str]:
    """Make a spec definite for a number of rows.

    Returns
    -------
    tuple of (spec, note)
        With ``partitions`` given; the note says what had to give way, or is empty.
    """
    if not spec.traits.vector:
        return spec, ""
    params, kind, note = dict(spec.params), spec.kind, ""
    needed = _CODEBOOK_POINTS * 2 ** params["num_bits"] if spec.traits.pq else 0
    if rows < needed:
        kind = kind.replace("PQ", "FLAT")
        note = f"{kind} for now: {rows:,} vectors are too few for a codebook, which needs {needed:,}"
        params = {name: value for name, value in params.items() if name not in {"sub_vectors", "num_bits"}}
    wanted = params.get("partitions")
    params["partitions"] = min(wanted, max(1, rows)) if wanted else partitions_for(spec.traits, rows)
    if wanted and params["partitions"] < wanted:
        note = (note + "; " if note else "") + f"{params['partitions']:,} partitions, for there are no more vectors"
    return replace(spec, kind=kind, params=params), note
