"""What upkeep did, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lake.table.compact import Compacted
from lake.table.expire import Expiry

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class UpkeepReport:
    """What was compacted and what expired.

    Parameters
    ----------
    job : str
        The job's id.
    tables : mapping of str to tuple of Compacted and Expiry
        By table; no `Expiry` where nothing was to expire.
    """

    job: str
    tables: Mapping[str, tuple[Compacted, Expiry | None]]

    @property
    def repeated(self) -> bool:
        """Never: upkeep looks at the tables anew each time."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        tables = {
            name: {"compacted": compacted.to_dict(), "expired": None if expiry is None else expiry.to_dict()}
            for name, (compacted, expiry) in self.tables.items()
        }
        return {"job": self.job, "tables": tables}

    def __rich__(self) -> Table:
        from rich.table import Table  # who prints nothing need not load it

        grid = Table(title=self.job, title_justify="left", title_style="bold")
        grid.add_column("table")
        for heading in (
            "version",
            "fragments before",
            "after",
            "left alone",
            "planned again",
            "versions expired",
            "files removed",
        ):
            grid.add_column(heading, justify="right")
        for name, (compacted, expiry) in self.tables.items():
            counts = [compacted.version, compacted.fragments_removed, compacted.fragments_added, compacted.fenced]
            counts.append(compacted.conflicts)
            gone = ["", ""] if expiry is None else [f"{len(expiry.versions):,}", f"{expiry.files:,}"]
            grid.add_row(name, *(f"{count:,}" for count in counts), *gone)
        return grid
