"""Running an analysis of nearest neighbours as a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from lake.analytics.neighbours import Analysis, How
from lake.analytics.told import NeighbourReport
from lake.errors import InvalidInput, LakeError
from lake.index.jobs import job_folder
from lake.join.api import HasSnapshot
from lake.join.folder import ASKED, REPORT, JobFolder, is_there
from lake.run.task import job_name
from lake.table.snapshot import Snapshot

R = TypeVar("R", bound=NeighbourReport)
Tables = HasSnapshot | Snapshot


def analyse(
    kind: str,
    tables: Sequence[Tables],
    asked: Mapping[str, Any],
    report: type[R],
    find: Callable[[Analysis], R],
    *,
    how: How,
    into: str,
    job_id: str | None,
) -> R:
    """Run an analysis: begin it, go on with it, or tell what it told."""
    started = time.monotonic()
    for table in tables:
        if not isinstance(table, HasSnapshot | Snapshot):
            raise InvalidInput(f"{kind}: give a table or a snapshot, not {type(table).__name__}")
    snapshots = [table if isinstance(table, Snapshot) else table.snapshot() for table in tables]
    job = job_name(kind, job_id)
    kept = JobFolder(job, kind, job_folder(snapshots[0].location, job))
    asked = {**asked, "k": how.k, "column": how.column, "metric": how.metric, "recall": how.recall, "into": into}
    work = Analysis(kept, asked, kept.begun(asked, snapshots), how, into)
    told = kept.report()
    if told is not None and is_there(work.place):
        kept.clear(ASKED, REPORT)  # of a driver that died between its report and its end
        return replace(report(**told), seconds=time.monotonic() - started, repeated=True)
    try:
        done = replace(find(work), seconds=time.monotonic() - started)
    except LakeError:
        if job_id is None:  # nobody can go on with it
            kept.clear()
        raise
    kept.close(done.to_dict(), taken_up=job_id is not None)
    return done
