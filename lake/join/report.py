"""What a join did, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lake.join.plan import Plan
from lake.join.recall import Recall

if TYPE_CHECKING:
    from rich.text import Text

# Measured on joins of 5,000 to 100,000 rows with 200,000 and 500,000. Kernel: the share of its best that is left where
# few queries meet many rows, and where all meet all. Bytes a second: of this machine's files, of a store's (reckoned,
# not measured), and of what is sorted, which is written too.
_SOME, _ALL = 0.6, 1.5
_READ, _READ_AFAR, _SORTED = 2e9, 3e8, 1e8
_BEGIN = 0.5  # seconds


@dataclass(frozen=True)
class JoinReport:
    """What a join did.

    Parameters
    ----------
    job : str
    table : str
        Where the rows are.
    version : int
    left_rows, right_rows : int
        Rows that passed the filters.
    without_vector : int
        Rows of the left side that have none: they have no neighbours.
    pairs : int
        Rows of the result.
    compared : int
        Pairs whose distance was computed.
    recall : Recall or None
        ``None`` for an exact join.
    partitions, probes : int
        0 for an exact join.
    source : str
        Where the partitions came from, and why.
    tasks, resumed : int
        Tasks that compared rows, and those of them that an earlier run of the job had done.
    flop : float
        Floating-point operations of the comparisons.
    seconds : mapping of str to float
        Wall time by stage (``total`` is all), and for the tasks' own stages the sum over tasks.
    repeated : bool
        The job was done before.
    device : str
        Where rows were compared: "cpu", or the name of the GPU.
    regions : int
        Groups of neighbouring partitions that rows of the left side were sent to; 1 if each task read what it needed.
    met : float
        Regions that a row was sent to, mean.
    read_bytes : int
        Bytes of vectors, as float32, that tasks have read of both sides, those that were sent to regions once more;
        sorting and the sample are left out.
    metric : str
    k : int
    without_value : int
        Rows of the left side that passed its filter, and in which a column of the conditions is null.
    """

    job: str
    table: str
    version: int
    left_rows: int
    right_rows: int
    without_vector: int
    pairs: int
    compared: int
    recall: Recall | None
    partitions: int
    probes: int
    source: str
    tasks: int
    resumed: int
    flop: float
    seconds: Mapping[str, float] = field(hash=False)
    repeated: bool = False
    device: str = "cpu"
    regions: int = 1
    met: float = 1.0
    read_bytes: int = 0
    metric: str = ""
    k: int = 0
    without_value: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(replace(self, seconds=dict(self.seconds)))

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> JoinReport:
        """Make the report of a join that was done before, out of what `to_dict` gave then."""
        recall = told["recall"] and Recall(**told["recall"])
        return cls(**{**told, "recall": recall, "repeated": True})

    def __rich__(self) -> Text:
        from rich.text import Text  # who prints nothing need not load it

        return Text(f"{self.job}: {self}" if self.repeated else f"{self.job}: {self}\nresults: {self.table}")

    def __str__(self) -> str:
        if self.repeated:
            return f"{self.table} version {self.version}: done before by job {self.job}"
        how = f"{self.recall}, {self.probes} of {self.partitions:,} partitions" if self.recall else "exact"
        where = "" if self.device == "cpu" else f" on {self.device}"
        lacking = f", {self.without_vector:,} without a vector" if self.without_vector else ""
        lacking += f", {self.without_value:,} left out for null in a condition" if self.without_value else ""
        return (
            f"{self.left_rows:,} x {self.right_rows:,} rows{lacking}, {self.metric}, k={self.k}: {self.pairs:,} pairs "
            f"in {self.seconds.get('total', 0.0):.1f} s{where}, {self.read_bytes / 2**20:,.0f} MiB of vectors read, "
            f"{self.flop / 1e9:,.1f} GFLOP; "
            f"{how}; {self.source}"
        )


@dataclass(frozen=True)
class Forecast:
    """What a join would do, before anything runs.

    Parameters
    ----------
    plan : Plan
    gflops : float
        What a core of this machine, or its GPU, compares in a second, measured just now; others may differ.
    cores : int
        That compare at a time.
    """

    plan: Plan
    gflops: float
    cores: int

    @property
    def repeated(self) -> bool:
        """Never: nothing was done."""
        return False

    @property
    def core_seconds(self) -> float:
        """What the join costs: seconds that one core would take."""
        plan = self.plan
        share = _ALL if plan.source.how == "all" else _SOME
        computed = plan.flop / share + plan.training / _SOME
        read = plan.read_bytes / (_READ if plan.here else _READ_AFAR)
        loose = 4 * plan.right.dimension * sum(plan.source.loose.values())
        return _BEGIN + computed / (self.gflops * 1e9) + read + loose / _SORTED

    @property
    def seconds(self) -> float:
        """The expected time."""
        return self.core_seconds / self.cores

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        plan = self.plan
        left, right = plan.rows
        return {
            "left_rows": left,
            "right_rows": right,
            "how": plan.source.how,
            "why": plan.source.why,
            "partitions": plan.source.partitions,
            "visited": plan.visited,
            "regions": plan.regions,
            "tasks": plan.tasks,
            "workers": plan.workers,
            "memory_bytes": plan.memory,
            "read_bytes": plan.read_bytes,
            "flop": plan.flop,
            "cores": self.cores,
            "core_seconds": self.core_seconds,
            "seconds": self.seconds,
        }

    def __rich__(self) -> Text:
        from rich.text import Text  # who prints nothing need not load it

        return Text(str(self))

    def __str__(self) -> str:
        plan = self.plan
        left, right = plan.rows
        asked = f"nprobe={plan.probes}" if plan.probes else f"recall={plan.recall}"
        return "\n".join(
            [
                f"join {left:,} x {right:,} rows, {plan.left.dimension} dimensions, {plan.metric}, k={plan.k}, {asked}",
                f"  partitions  {plan.source.partitions or 'none'}: {plan.source.why}",
                f"  visits      {plan.visited:.1%} of the right side for each row"
                + ("" if plan.source.how == "all" or plan.probes else " (a guess; a sample will tell)"),
                f"  regions     {plan.regions}: {_told(plan)}",
                f"  tasks       {plan.tasks} on {plan.workers} workers, {plan.memory / 2**20:,.0f} MiB each",
                f"  reads       {plan.read_bytes / 2**20:,.0f} MiB of vectors",
                f"  computes    {plan.flop / 1e9:,.0f} GFLOP, at {self.gflops:,.0f} a second",
                f"  takes       about {self.seconds:,.1f} s on {self.cores} cores, {self.core_seconds:,.1f} s of one",
            ]
        )


def _told(plan: Plan) -> str:
    if plan.regions == 1:
        return f"the right side is read {plan.blocks} times" if plan.blocks > 1 else "one task reads all"
    return f"a row of the left side is sent to {plan.met(plan.regions):.1f} of them (a guess)"
