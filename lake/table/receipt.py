"""What a write tells its caller."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from lake.table.commit import Commit


@dataclass(frozen=True)
class Receipt:
    """What one commit did.

    Parameters
    ----------
    version : int
        The version that it made (or stood on, when there was nothing to do).
    commit_id : str
        Its id: giving it to the same call again does nothing.
    inserted, updated, deleted : int
        Rows.
    bytes : int
        Bytes of data files written.
    seconds : float
        Wall time of the whole call.
    repeated : bool
        The commit id was in the history already; this call wrote nothing, and its counts are zero.
    """

    version: int
    commit_id: str
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    bytes: int = 0
    seconds: float = 0.0
    repeated: bool = False

    @classmethod
    def of(cls, done: Commit, seconds: float, counts: dict[str, int]) -> Receipt:
        """Combine a commit with what it counted; a repeat counted nothing."""
        return cls(
            done.version,
            done.commit_id,
            seconds=seconds,
            repeated=done.repeated,
            **({} if done.repeated else counts),
        )

    @property
    def rows(self) -> int:
        """Rows that were written: inserted and updated."""
        return self.inserted + self.updated

    def to_dict(self) -> dict[str, int | float | str | bool]:
        """Return the fields as a plain dict, for JSON."""
        return asdict(self)
