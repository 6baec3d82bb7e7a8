"""The folders of index jobs, beside the table: ``_jobs/<job>/<table>``."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from lake.errors import LakeError
from lake.index.coverage import coverage
from lake.storage import Files, Location
from lake.table import pins
from lake.table.commit import pinned
from lake.table.snapshot import Snapshot, open_head, store_errors

PLAN = "plan.json"
_PLAN_OF = "build indexes of"


def job_folder(location: Location, job: str) -> Location:
    """Return where a job keeps what it knows of a table: beside the table."""
    jobs, table = _places(location)
    return jobs.join(job, table)


def table_of(snapshot: Snapshot) -> str:
    """Say in a job's files which table, on which branch, they are about."""
    return f"{snapshot.location.uri}@{snapshot.branch or ''}"


def write_plan(files: Files, snapshot: Snapshot, plan: dict[str, Any]) -> None:
    """Save what a job works on, along with what `sweep` needs to know."""
    signed = {_PLAN_OF: table_of(snapshot), "begun": datetime.now(UTC).isoformat()}
    files.write(PLAN, json.dumps(plan | signed).encode())


def sweep(snapshot: Snapshot, job: str) -> None:
    """Remove what builds of a table that failed have left, once nobody needs it.

    A folder goes when its plan names this table and branch, its job has no live pin, and either all indexes are
    complete or it is older than a lease. Builds pin before they make a folder, and those that died stay
    pinned for the lease, so whatever has no pin does not run. A store that fails here fails no build.

    Parameters
    ----------
    job : str
        The one that sweeps; it sees to its own folder.
    """
    jobs, table = _places(snapshot.location)
    files = Files(jobs)
    with suppress(LakeError), store_errors(snapshot.location, snapshot.branch):
        names = list(files.names())
        plans = {name.split("/")[0]: name for name in names if name.split("/")[1:] == [table, PLAN]}
        # In this order: a pin that is made later than this look belongs to a folder that was not there yet.
        begun = {j: when for j, name in plans.items() if j != job and (when := _begun(files, name, snapshot))}
        if not begun:
            return
        held = {pin.job for pin in pins.pins(open_head(snapshot.location))}
        done = coverage(pinned(snapshot.location, snapshot.branch)).complete
        for left, when in begun.items():
            if left not in held and (done or datetime.now(UTC) - when > pins.LEASE):
                for name in names:
                    if name.startswith(f"{left}/{table}/"):
                        files.delete(name)


def _begun(files: Files, name: str, snapshot: Snapshot) -> datetime | None:
    """Return when an index job of this very table began; of what is not one, nothing."""
    try:
        plan = json.loads(files.read(name))
        return datetime.fromisoformat(plan["begun"]) if plan[_PLAN_OF] == table_of(snapshot) else None
    except (ValueError, TypeError, KeyError):
        return None


def _places(location: Location) -> tuple[Location, str]:
    return location.lake.join("_jobs"), location.uri.rpartition("/")[2].removesuffix(".lance")
