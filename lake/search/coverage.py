"""Coverage: what an answer was searched from, so that a person can tell what it may have missed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """What one ranking, or a plain filter, covered. ``indexed + scanned + skipped`` are all live rows.

    Parameters
    ----------
    what : {"vector", "text", "filter"}
    column : str
        The searched columns, or those of a filter's indexes, separated by commas.
    rows_indexed, rows_scanned : int
        Rows that an index answered for, and rows that were looked at one by one. A filter's indexes answer
        for the rows that all of them cover: only those that they leave are read.
    rows_skipped : int
        Rows without index that were left out, as the caller demanded by ``indexed_only``.
    index, kind, metric : str or None
    partitions_probed, partitions : int
        Partitions that were read, of how many; in all segments. Of many queries: by each.
    segments : int
    refine : int
        How many times k rows had their true distances computed; 0 where the index's own distances stand.
    exact : bool
        Whether the ranking is the true one: a scan, or every partition of an index of whole vectors; of text,
        whether every word that is near enough to a fuzzy one is looked for.
    recall : float or None
        What to expect, where a recall was asked for; the notes say how it was measured.
    notes : tuple of str
        Why an index was not used, and where the search stopped.
    """

    what: str
    column: str
    rows_indexed: int
    rows_scanned: int
    rows_skipped: int
    exact: bool
    index: str | None = None
    kind: str | None = None
    metric: str | None = None
    partitions_probed: int = 0
    partitions: int = 0
    segments: int = 0
    refine: int = 0
    recall: float | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = []
        if self.rows_indexed:
            how = self.kind or ""
            if self.partitions:
                how += f", {self.partitions_probed:,} of {self.partitions:,} partitions"
                how += f" in {self.segments:,} segments" if self.segments > 1 else ""
            if self.refine:
                how += f", refine {self.refine}"
            parts.append(f"{self.rows_indexed:,} by index {self.index} ({how})")
        if self.rows_scanned or not self.rows_indexed:
            parts.append(f"{self.rows_scanned:,} scanned")
        if self.rows_skipped:
            parts.append(f"{self.rows_skipped:,} skipped")
        return "; ".join((", ".join(parts), *self.notes))


@dataclass(frozen=True)
class Coverage:
    """What an answer covered.

    Parameters
    ----------
    version : int
        The table's version that was searched.
    branch : str or None
    rows : int
        Its live rows.
    parts : tuple of Part
        The vector part, the text part, or both; or the filter.
    where : str or None
        The filter; it was applied before the best rows were taken.
    queries : int
    tier : str
        Where the answer came from.
    seconds : float
        From the call to the answer.
    """

    version: int
    rows: int
    parts: tuple[Part, ...]
    where: str | None
    queries: int
    seconds: float
    branch: str | None = None
    tier: str = "lake"

    @property
    def complete(self) -> bool:
        """Whether every live row was a candidate."""
        return not any(part.rows_skipped for part in self.parts)

    @property
    def exact(self) -> bool:
        """Whether every ranking is the true one."""
        return all(part.exact for part in self.parts)

    @property
    def rows_indexed(self) -> int:
        """Of the first part."""
        return self.parts[0].rows_indexed

    @property
    def rows_scanned(self) -> int:
        """Of the first part."""
        return self.parts[0].rows_scanned

    @property
    def rows_skipped(self) -> int:
        """Of the first part."""
        return self.parts[0].rows_skipped

    @property
    def index(self) -> str | None:
        """Of the first part."""
        return self.parts[0].index

    @property
    def recall(self) -> float | None:
        """Of the first part."""
        return self.parts[0].recall

    def __str__(self) -> str:
        named = len(self.parts) > 1
        parts = " · ".join(f"{part.what}: {part}" if named else str(part) for part in self.parts)
        at = f"version {self.version}" + (f" of {self.branch}" if self.branch else "")
        many = f" · {self.queries:,} queries" if self.queries > 1 else ""
        return f"{at} · {self.rows:,} rows: {parts}{many} · {self.seconds * 1e3:,.1f} ms"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self) | {"complete": self.complete, "exact": self.exact}

    def to_json(self) -> str:
        """Encode, for the metadata of Arrow tables."""
        return json.dumps(self.to_dict())
