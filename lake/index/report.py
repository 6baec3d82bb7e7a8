"""What a build did, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lake.index.calibration import Calibration

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True)
class IndexReport:
    """What a build did for one index.

    Parameters
    ----------
    name, column, kind : str
        `kind` as it was built.
    done : {"built", "extended", "rebuilt", "up to date", "empty", "failed"}
        What was done.
    note : str
        Why something had to give way, or the error.
    partitions : int or None
        Of vector indexes.
    segments, rows, bytes : int
        New segments, the rows that they cover, and the size of their files.
    resumed : int
        How many of them an earlier run of the job had built.
    seconds : mapping of str to float
        Task time by stage: ``model``, ``segments``.
    """

    name: str
    column: str
    kind: str
    done: str
    note: str = ""
    partitions: int | None = None
    segments: int = 0
    rows: int = 0
    bytes: int = 0
    resumed: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Parameters
    ----------
    job : str
        The job's id, which is the commit's id too.
    version : int
        The version that the build made, or found if there was nothing to do.
    indexes : tuple of IndexReport
    seconds : float
        Wall time of the whole.
    repeated : bool
        The job was done before; nothing was built now.
    calibrations : tuple of Calibration
        What was measured afterwards, if that was asked for.
    """

    job: str
    version: int
    indexes: tuple[IndexReport, ...]
    seconds: float
    repeated: bool = field(default=False, kw_only=True)
    calibrations: tuple[Calibration, ...] = field(default=(), kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        if self.repeated:
            return "\n".join([f"job {self.job} was done before: version {self.version}", *map(str, self.calibrations)])
        lines = [f"version {self.version}, {self.seconds:.1f} s, job {self.job}"]
        lines += [
            f"  {i.name}: {i.done}, {i.kind} on {i.column}, {i.segments} segments, {i.rows:,} rows"
            + (f" ({i.note})" if i.note else "")
            for i in self.indexes
        ]
        return "\n".join([*lines, *map(str, self.calibrations)])

    def __rich__(self) -> Group:
        from rich.console import Group  # a tenth of a second that quiet jobs save
        from rich.table import Table
        from rich.text import Text

        state = "done before" if self.repeated else f"{self.seconds:.1f} s"
        notes = [Text(f"{i.name}: {i.note}", "dim") for i in self.indexes if i.note]
        notes += [Text(str(measured)) for measured in self.calibrations]
        title = f"build: version {self.version}, {state}"
        table = Table(title=title, title_justify="left")
        for heading in ("index", "kind", "done", "segments", "rows", "MiB", "model s", "segments s"):
            table.add_column(heading, justify="left" if heading in {"index", "kind", "done"} else "right")
        for i in self.indexes:
            partitions = f" x {i.partitions:,}" if i.partitions else ""
            resumed = f" ({i.resumed} resumed)" if i.resumed else ""
            table.add_row(
                i.name,
                i.kind + partitions,
                i.done,
                f"{i.segments}{resumed}",
                f"{i.rows:,}",
                f"{i.bytes / 2**20:,.1f}",
                f"{i.seconds.get('model', 0):.1f}",
                f"{i.seconds.get('segments', 0):.1f}",
            )
        return Group(table, *notes)


def add(first: IndexReport | None, second: IndexReport) -> IndexReport:
    """Join what two rounds of a build did for an index."""
    if first is None:
        return second
    stages = {*first.seconds, *second.seconds}
    return replace(
        second,
        done=first.done if second.done == "up to date" else second.done,
        note="; ".join(dict.fromkeys(filter(None, [first.note, second.note]))),
        partitions=second.partitions or first.partitions,
        segments=first.segments + second.segments,
        rows=first.rows + second.rows,
        bytes=first.bytes + second.bytes,
        resumed=first.resumed + second.resumed,
        seconds={stage: first.seconds.get(stage, 0.0) + second.seconds.get(stage, 0.0) for stage in stages},
    )
