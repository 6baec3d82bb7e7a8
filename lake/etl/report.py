"""What a load did, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True)
class LoadReport:
    """What a load read, wrote and refused: ``read = written + filtered + duplicates + refused``.

    Parameters
    ----------
    job : str
        The job's id.
    table : str
        Where the rows went.
    version : int
        The version that holds them.
    read : int
        Rows of the source, and what stood between them and was no row.
    written : int
        Rows that the table got.
    filtered : int
        Rows that did not match the filter.
    duplicates : int
        Rows that gave way to another of their key.
    refused : int
        Rows that could not be rows of the table; they are in the dead-letter table.
    refused_table : str
        The dead-letter table.
    slices : int
        Parts that the source was cut into.
    resumed : int
        Tasks that an earlier run of the job had done.
    bytes : int
        Data files that the table got; 0 for a merge, which rewrites.
    seconds : float
        Wall time of this run.
    repeated : bool
        The job was done before; nothing was done now, and the counts are what it did then.
    """

    job: str
    table: str
    version: int
    read: int
    written: int
    filtered: int
    duplicates: int
    refused: int
    refused_table: str
    slices: int
    resumed: int
    bytes: int
    seconds: float
    repeated: bool = False

    @classmethod
    def forgotten(cls, job: str, table: str, version: int, refused_table: str, seconds: float) -> LoadReport:
        """Tell of a job that the table's history knows, and whose folder is gone: nobody knows its counts."""
        return cls(job, table, version, 0, 0, 0, 0, 0, refused_table, 0, 0, 0, seconds, repeated=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dict, for JSON."""
        return asdict(self)

    def __rich__(self) -> Group:
        from rich.console import Group  # who prints nothing need not load it
        from rich.table import Table

        grid = Table()
        for name in ("read", "written", "filtered", "duplicates", "refused"):
            grid.add_column(name, justify="right")
        counts = (self.read, self.written, self.filtered, self.duplicates, self.refused)
        grid.add_row(*(f"{count:,}" for count in counts))
        if self.repeated and not self.slices:
            return Group(self._title(), "its folder under _jobs was removed, and its counts with it")
        return Group(self._title(), grid, self._caption())

    def _title(self) -> str:
        if self.repeated:
            return f"{self.job} is done already: {self.table} has its rows since version {self.version}"
        return f"{self.job}: {self.table} version {self.version}"

    def _caption(self) -> str:
        parts = [f"{self.slices:,} slices"]
        if self.resumed:
            parts.append(f"{self.resumed:,} tasks taken over from an earlier run")
        parts.append(f"{self.seconds:.1f} s")
        if self.refused:
            parts.append(f"see {self.refused_table} for what was refused, and why")
        return ", ".join(parts)
