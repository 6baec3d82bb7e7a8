"""The query: one object for vector, text, hybrid, filter, range and group-by searches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lake.errors import InvalidInput
from lake.schema import Metric
from lake.search.text import Text, as_text


@dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    """What to look for. Give at least one of `vector`, `like`, `text` and `where`.

    `vector` (or `like`) and `text` together make a hybrid search. Distances and scores are defined in
    `lake.search`.

    Parameters
    ----------
    vector : array-like, shape (d,) or (queries, d), optional
        One query or many. Floats for float columns; whole numbers for int8 and uint8 (d bytes) columns. For
        a multi-vector column one query is a set of vectors of shape (vectors, d) or (d,), and many queries
        are a list of such sets or shape (queries, vectors, d).
    like : mapping or scalar, optional
        Instead of a vector: the row whose vector to search with, as ``{column: value}`` or as the value of
        the entity key. That row itself is left out of the answer.
    text : str, Match, Phrase or Boolean, optional
        What to look for in text columns by BM25; a string is a `Match`.
    where : str, optional
        A SQL filter, applied before the top k are taken. See `lake.table.sql`.
    k : int or None
        How many rows (groups, with `group_by`) for each query; ``None`` for all.
    offset : int
        How many of the best rows (groups) to leave out.
    columns : sequence of str, optional
        What to return; all but vectors and blobs when not given.
    vector_column, text_columns : str; str or sequence of str, optional
        Where to look. Needed when there are several vector columns; text is looked for in all columns that
        have a text index.
    metric : {"l2", "cosine", "dot", "hamming"}, optional
        The column's own when not given. An index serves one metric only; for others the rows are scanned.
    within : float or tuple of (float or None, float or None), optional
        Only rows with ``distance < within``, or ``within[0] <= distance < within[1]``. With ``k=None`` every
        such row, by an exact scan.
    group_by : str, optional
        A column. The answer holds the best `per_group` rows of each of the `k` best groups, groups in the
        order of their best row, and always the column itself.
    per_group : int
    fusion : "rrf" or tuple of (float, float)
        How a hybrid search joins its two rankings, see `lake.search.fusion`: reciprocal rank fusion, or the
        weights of vector and text.
    candidates : int, optional
        How many rows of each ranking a hybrid search joins; ``max(4 (k + offset), 100)`` when not given.
    nprobe : int, optional
        How many partitions of the index to read at least; ``max(16, sqrt(partitions))`` when not given. More
        are read while fewer than k rows were found.
    refine : int, optional
        Of a quantised index take ``refine * k`` rows and compute their true distances; 10 when not given. 0
        leaves the distances as approximate as the index has them.
    ef : int, optional
        Breadth of an HNSW search.
    use_index : bool
        ``False`` scans all vectors: exact.
    indexed_only : bool
        Leave out the rows that the index does not cover yet. They are searched by default.
    recall : float, optional
        The share of the true nearest rows to find, instead of `nprobe`, `refine` and `ef`: as many partitions are
        read as that took when the index was calibrated (`lake.Table.calibrate`). 1.0 compares every row.

    Raises
    ------
    InvalidInput
        An argument is out of its range, or does not go with another.
    """

    vector: Any = None
    like: Mapping[str, Any] | Any = None
    text: Text | None = None
    where: str | None = None
    k: int | None = 10
    offset: int = 0
    columns: Sequence[str] | None = None
    vector_column: str | None = None
    text_columns: str | Sequence[str] | None = None
    metric: Metric | None = None
    within: float | tuple[float | None, float | None] | None = None
    group_by: str | None = None
    per_group: int = 1
    fusion: Literal["rrf"] | tuple[float, float] = "rrf"
    candidates: int | None = None
    nprobe: int | None = None
    refine: int | None = None
    ef: int | None = None
    use_index: bool = True
    indexed_only: bool = False
    recall: float | None = None

    def __post_init__(self) -> None:
        self._check_numbers()
        if self.text is not None:
            object.__setattr__(self, "text", as_text(self.text))
        if isinstance(self.text_columns, str):
            object.__setattr__(self, "text_columns", (self.text_columns,))
        if isinstance(self.columns, str):
            raise InvalidInput(f"columns={self.columns!r}: give a list, [{self.columns!r}]")
        self._check_together()
        _bounds(self.within)

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """The least distance, and the one that distances stay below."""
        return _bounds(self.within)

    @property
    def near(self) -> bool:
        """Whether vectors are searched."""
        return self.vector is not None or self.like is not None

    @property
    def hybrid(self) -> bool:
        """Whether vectors and text are searched together."""
        return self.near and self.text is not None

    def _check_numbers(self) -> None:
        least = {"k": 1, "offset": 0, "per_group": 1, "candidates": 1, "nprobe": 1, "refine": 0, "ef": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if value is None and name not in {"offset", "per_group"}:
                continue
            try:
                whole = value.__index__()
            except AttributeError:
                raise InvalidInput(f"{name}={value!r}: give a whole number") from None
            if isinstance(value, bool) or whole < low:
                raise InvalidInput(f"{name}={value!r}: give a whole number of {low} or more")
            object.__setattr__(self, name, whole)
        share: Any = self.recall
        if share is not None and (isinstance(share, bool | str) or not 0 < share <= 1):
            raise InvalidInput(f"recall={share!r}: give a share above 0; 1.0 compares every row")

    def _check_together(self) -> None:
        if not self.near and self.text is None and self.where is None:
            raise InvalidInput("nothing to look for: give vector=, like=, text= or where=")
        grouped, exclusive = self.group_by is not None, self.vector is not None and self.like is not None
        unranked = not self.near and self.text is None
        rules = [
            (exclusive, "vector= and like= are two ways to give one thing: leave one out"),
            (
                self.within is not None and not self.near,
                "within= is a distance, so it needs vector= or like=",
            ),
            (self.recall is not None and not self.near, "recall= is of vectors, so it needs vector= or like="),
            (
                self.recall is not None and {self.nprobe, self.refine, self.ef} != {None},
                "recall= says how an index is searched: leave out nprobe=, refine= and ef=",
            ),
            (grouped and unranked, "group_by= needs a ranking: give vector=, like= or text="),
            (grouped and self.hybrid, "group_by= takes one ranking: give vector= or text=, not both"),
            (grouped and self.k is None, "group_by= needs a number of groups, k="),
            (not grouped and self.per_group != 1, "per_group= needs group_by="),
            (self.hybrid and self.k is None, "a hybrid search needs k="),
            (
                self.indexed_only and unranked,
                "indexed_only=True needs a ranking: give vector=, like= or text=",
            ),
            (self.indexed_only and not self.use_index, "indexed_only=True and use_index=False leave no rows"),
            (
                not _fits(self.fusion),
                f"fusion={self.fusion!r}: give 'rrf', or weights (vector, text), finite and not both 0",
            ),
        ]
        for broken, message in rules:
            if broken:
                raise InvalidInput(message)


def _fits(fusion: object) -> bool:
    if isinstance(fusion, tuple) and len(fusion) == 2:  # noqa: PLR2004
        return all(isinstance(w, int | float) and w >= 0 for w in fusion) and 0 < sum(fusion) < math.inf
    return fusion == "rrf"


def _bounds(within: Any) -> tuple[float | None, float | None]:
    if within is None:
        return None, None
    low, high = within if isinstance(within, tuple) and len(within) == 2 else (None, within)  # noqa: PLR2004
    numbers = [b for b in (low, high) if b is not None]
    legal = numbers and all(isinstance(b, int | float) and not math.isnan(b) for b in numbers)
    if not legal or (low is not None and high is not None and low >= high):
        raise InvalidInput(f"within={within!r}: give a distance, or (low, high) with low < high; either may be None")
    return low, high
