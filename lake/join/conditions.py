"""Conditions on pairs: no row with itself, and comparisons of a column of the left with one of the right.

Values of both sides are turned into one order-preserving numbering before the join starts, so that the kernel
compares whole numbers, whatever the type.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import NDArray

from lake.errors import InvalidInput
from lake.join.runs import load, save
from lake.join.side import Side
from lake.nearest.kernel import OPERATORS, Ids, Pairs
from lake.storage import Location

Values = tuple[Ids, NDArray[np.int64]]
"""Row ids in ascending order, and the numbers of each, shape (n, conditions)."""

_CONDITION = re.compile(r"\s*left\.(\w+|`[^`]+`)\s*(==|!=|<>|<=|>=|<|>|=)\s*right\.(\w+|`[^`]+`)\s*")


@dataclass(frozen=True)
class Condition:
    """``left.<left> <operator> right.<right>``."""

    left: str
    operator: str
    right: str


def parse(text: str) -> Condition:
    """Read a condition as people write it, such as ``"left.time > right.time"``.

    Raises
    ------
    InvalidInput
        It is not of that form.
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise InvalidInput(
            f"on={text!r}: write 'left.<column> <operator> right.<column>', with one of {', '.join(OPERATORS)}"
        )
    left, operator, right = found.groups()
    operator = {"=": "==", "<>": "!="}.get(operator, operator)  # as SQL has them
    return Condition(left.strip("`"), operator, right.strip("`"))


@dataclass(frozen=True)
class Conditions:
    """What pairs must fulfil, as tasks carry it.

    Parameters
    ----------
    apart : bool
        No row meets itself: both sides are rows of one table.
    names : tuple of str
        The operators.
    folder : Location or None
        Where the numbered values of each side lie.
    """

    apart: bool = False
    names: tuple[str, ...] = ()
    folder: Location | None = None

    def load(self) -> Checks:
        """Bring the values into memory."""
        operators = np.array([OPERATORS.index(name) for name in self.names], np.int64)
        if self.folder is None:
            return Checks(self.apart, operators, None, None)
        return Checks(self.apart, operators, _load(self.folder, "left"), _load(self.folder, "right"))


class Checks:
    """Conditions in memory."""

    def __init__(self, apart: bool, operators: Ids, left: Values | None, right: Values | None) -> None:  # noqa: FBT001
        self._apart, self._operators, self._left, self._right = apart, operators, left, right
        self._own: Ids = operators[:0]
        self._codes = _of(left, self._own)

    def begin(self, queries: Ids) -> None:
        """Say which rows of the left side the queries are."""
        self._own = queries if self._apart else queries[:0]
        self._codes = _of(self._left, queries)

    def against(self, rows: Ids) -> Pairs | None:
        """Return what the kernel needs to check the queries against some rows."""
        if not self._apart and self._left is None:
            return None
        return Pairs(self._own, self._operators, self._codes, _of(self._right, rows))


def _of(values: Values | None, ids: Ids) -> NDArray[np.int64]:
    if values is None:
        return np.empty((len(ids), 0), np.int64)
    known, codes = values
    found: NDArray[np.int64] = codes[np.searchsorted(known, ids)]
    return found


def number(left: Side, right: Side, conditions: Sequence[Condition], folder: Location, *, apart: bool) -> Conditions:
    """Give the values that conditions compare their numbers, and leave them for the tasks.

    Raises
    ------
    InvalidInput
        Columns that do not compare.
    """
    if not conditions:
        return Conditions(apart)
    sides = [
        (
            side,
            side.snapshot.dataset.scanner(
                columns=list(dict.fromkeys(names)), filter=side.where, with_row_id=True
            ).to_table(),
        )
        for side, names in ((left, [c.left for c in conditions]), (right, [c.right for c in conditions]))
    ]
    numbered: list[list[NDArray[np.int64]]] = [[], []]
    for condition in conditions:
        a, b = sides[0][1][condition.left], sides[1][1][condition.right]
        for values, codes in zip(_ranks(condition, a, b), numbered, strict=True):
            codes.append(values)
    for name, (_, table), codes in zip(("left", "right"), sides, numbered, strict=True):
        ids = table["_rowid"].to_numpy().astype(np.int64)
        order = np.argsort(ids)
        save(folder, f"{name}-ids.npy", ids[order])
        save(folder, f"{name}-values.npy", np.stack(codes, axis=1)[order])
    return Conditions(apart, tuple(c.operator for c in conditions), folder)


def _ranks(
    condition: Condition, left: pa.ChunkedArray, right: pa.ChunkedArray
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rank the values of two columns in their common order; none of them is null."""
    pair = f"left.{condition.left} {condition.operator} right.{condition.right}"
    kind = _common(left.type, right.type)
    if kind is None:
        raise InvalidInput(f"on={pair!r}: {left.type} and {right.type} do not compare")
    try:
        both = pa.chunked_array([*left.cast(kind).chunks, *right.cast(kind).chunks], kind)
        ranks = pc.rank(both, sort_keys="ascending", tiebreaker="dense").to_numpy().astype(np.int64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise InvalidInput(f"on={pair!r}: {left.type} and {right.type} do not compare: {error}") from error
    return ranks[: len(left)], ranks[len(left) :]


def _common(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """Choose a type in which values of two types compare as they are."""
    left, right = (t.value_type if pt.is_dictionary(t) else t for t in (left, right))
    if left == right:
        return left
    both = left, right
    if all(pt.is_integer(t) for t in both):
        return pa.int64()
    if all(pt.is_integer(t) or pt.is_floating(t) for t in both):
        return pa.float64()
    if all(pt.is_integer(t) or pt.is_decimal(t) for t in both):
        return pa.decimal256(76, max(t.scale if pt.is_decimal(t) else 0 for t in both))
    if all(pt.is_string(t) or pt.is_large_string(t) for t in both):
        return pa.large_string()
    if all(pt.is_timestamp(t) for t in both) and (left.tz is None) == (right.tz is None):
        return pa.timestamp("us", left.tz)
    return None


def _load(folder: Location, side: str) -> Values:
    return load(folder, f"{side}-ids.npy"), load(folder, f"{side}-values.npy")
