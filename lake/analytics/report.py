"""What a deduplication found and did, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True)
class DedupReport:
    """What was found and done: ``rows = kept + duplicates + without_vector``.

    Parameters
    ----------
    job : str
        The job's id.
    table : str
    version : int
        The version that was read.
    rows : int
        Rows that passed the filter.
    kept : int
        Rows that are near no other, and one of each group.
    duplicates : int
        The other rows of the groups.
    without_vector : int
        Rows that cannot be compared; they stay.
    groups, largest : int
        Groups of two rows or more, and the rows of the largest.
    farthest : float
        The largest distance of a duplicate from the row that its group keeps: more than `within` if rows are linked
        by others between them.
    within : float
    k : int
    crowded, rounds : int
        Rows that had k others within the radius, and joins that it took to find the links that they may have lacked.
    recall : mapping or None
        What a sample says about the share of the k nearest that the join found; ``None`` if every pair was compared.
    source : str
        How pairs were found.
    into : str or None
        The table of groups.
    deleted : int or None
        Duplicates deleted; ``None`` if nothing was to be, or yet.
    spared : int
        Duplicates that stay because they, or the row that is kept in their place, have changed since.
    deleted_version : int or None
        The table's version without them.
    seconds : float
        Wall time of this run.
    repeated : bool
        The job was done before; nothing was done now, and the counts are what it did then.
    """

    job: str
    table: str
    version: int
    rows: int
    kept: int
    duplicates: int
    without_vector: int
    groups: int
    largest: int
    farthest: float
    within: float
    k: int
    crowded: int
    rounds: int
    recall: Mapping[str, Any] | None = field(hash=False)
    source: str
    into: str | None
    deleted: int | None = None
    spared: int = 0
    deleted_version: int | None = None
    seconds: float = 0.0
    repeated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        counts = f"{self.rows:,} rows = {self.kept:,} kept + {self.duplicates:,} duplicates"
        return f"{self._title()}\n{counts} + {self.without_vector:,} without a vector\n" + "\n".join(self._lines())

    def __rich__(self) -> Group:
        from rich.console import Group  # who prints nothing need not load it
        from rich.table import Table

        grid = Table()
        for name in ("rows", "kept", "duplicates", "without a vector"):
            grid.add_column(name, justify="right")
        grid.add_row(*(f"{n:,}" for n in (self.rows, self.kept, self.duplicates, self.without_vector)))
        return Group(self._title(), grid, *self._lines())

    def _title(self) -> str:
        done = " is done already" if self.repeated else ""
        return f"{self.job}{done}: {self.table} version {self.version}"

    def _lines(self) -> list[str]:
        largest = f"the largest of {self.largest:,} rows; farthest from the row kept: {self.farthest:g}"
        lines = [f"{self.groups:,} groups within {self.within:g}, {largest}"]
        if self.recall is None:
            lines.append(f"every pair was compared; {self.seconds:.1f} s")
        else:
            measured, low, high, sample = (self.recall[name] for name in ("measured", "low", "high", "sample"))
            lines.append(
                f"recall {measured:.3f} ({low:.3f} to {high:.3f}, {sample:,} rows compared with all); {self.source}; "
                f"{self.seconds:.1f} s"
            )
        if self.crowded:
            lines.append(f"{self.crowded:,} rows have {self.k} near ones or more; joins: {self.rounds}")
        if self.into is not None:
            lines.append(f"groups: {self.into}")
        if self.deleted is None:
            lines.append("nothing was deleted")
        else:
            spared = f"; {self.spared:,} have changed since they were read, and stay" if self.spared else ""
            lines.append(f"deleted: {self.deleted:,}, version {self.deleted_version}{spared}")
        return lines
