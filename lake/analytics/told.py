"""What every analysis of nearest neighbours tells, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text


@dataclass(frozen=True, kw_only=True)
class NeighbourReport:
    """What was read, and how neighbours were found.

    Parameters
    ----------
    job : str
        The job's id.
    table : str
    version : int
        The version that was read.
    rows : int
        Rows that passed the filter.
    without_vector : int
        Those among them that have none; nothing is found of them.
    k : int
    recall : mapping or None
        What a sample says about the share of the k nearest that the join found; ``None`` if every pair was compared.
    source : str
        How neighbours were found.
    into : str
        The table of results.
    seconds : float
        Wall time of this run.
    repeated : bool
        The job was done before; nothing was done now, and the counts are what it did then.
    """

    job: str
    table: str
    version: int
    rows: int
    without_vector: int
    k: int
    recall: Mapping[str, Any] | None = field(hash=False)
    source: str
    into: str
    seconds: float = 0.0
    repeated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)

    def found(self) -> list[str]:
        """Say what was found, in lines."""
        return []

    def __str__(self) -> str:
        done = " is done already" if self.repeated else ""
        how = "every pair was compared"
        if self.recall is not None:
            measured, low, high, sample = (self.recall[name] for name in ("measured", "low", "high", "sample"))
            how = f"recall {measured:.3f} ({low:.3f} to {high:.3f}, {sample:,} rows compared with all); {self.source}"
        return "\n".join(
            [
                f"{self.job}{done}: {self.table} version {self.version}",
                *self.found(),
                f"k={self.k}; {how}; {self.seconds:.1f} s",
                f"results: {self.into}",
            ]
        )

    def __rich__(self) -> Text:
        from rich.text import Text  # who prints nothing need not load it

        return Text(str(self))
