"""A deduplication at work, and what it keeps in its folder ``_jobs/<job>/<table>``.

What a job finds it finds in one version of the table, and keeps; a dry run is thus followed by the deletion of exactly
what it told of. A row is deleted from the newest version only if it, and the row that is kept in its place, are as they
were in the version that was read.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import numpy as np

from lake.analytics import groups as grouping
from lake.analytics.groups import Groups
from lake.analytics.joined import ByRow
from lake.analytics.keep import arrange, order
from lake.analytics.near import Search, link, plan_round
from lake.analytics.report import DedupReport
from lake.errors import InvalidInput
from lake.index.jobs import job_folder
from lake.join import knn
from lake.join.folder import ASKED, REPORT, JobFolder, is_there
from lake.join.runs import load, save
from lake.storage import Location, table_name
from lake.table import pins
from lake.table.parts import PartedWrite, begin
from lake.table.snapshot import Snapshot
from lake.table.unchanged import delete_unchanged

_MEMBERS = "members.npy"


@dataclass(frozen=True)
class Asked:
    """What decides what is found; see `lake.analytics.dedup`."""

    within: float
    k: int
    column: str | None
    where: str | None
    keep: str
    metric: str | None
    recall: float
    into: str | None


@dataclass(frozen=True)
class Work:
    """A deduplication.

    Parameters
    ----------
    kept : JobFolder
    snapshot : Snapshot
        The version that it reads.
    asked : Asked
    """

    kept: JobFolder
    snapshot: Snapshot
    asked: Asked

    @classmethod
    def of(cls, job: str, snapshot: Snapshot, asked: Asked) -> Work:
        """Begin a job, or go on with one: it then reads the version that it read before.

        Raises
        ------
        InvalidInput
            A job of this id was begun, and is another.
        NotFound
            The version that it read has expired.
        """
        kept = JobFolder(job, "dedup", job_folder(snapshot.location, job))
        [begun] = kept.begun(asdict(asked), [snapshot])
        return cls(kept, begun, asked)

    @property
    def folder(self) -> Location:
        """The job's folder."""
        return self.kept.location

    def report(self) -> DedupReport | None:
        """Return what the job has found and done, if it has come to an end."""
        told = self.kept.report()
        return None if told is None else DedupReport(**told)

    @property
    def written(self) -> bool:
        """Whether the table of groups is there, if one was asked for."""
        return self.asked.into is None or is_there(self._place(self.asked.into))

    def finish(self, report: DedupReport) -> None:
        """Keep a report."""
        self.kept.finish(report.to_dict())

    def find(self, search: Search) -> DedupReport:
        """Find groups, keep them for a deletion, and write their table."""
        side, search, target = self._check(search)
        snapshot = self.snapshot
        self.kept.note(asdict(self.asked), [snapshot])
        with pins.pin(snapshot, job=self.kept.job):
            linked = link(side, search)
            places = arrange(snapshot, linked.ids, linked.groups, self.asked.keep)
            groups = Groups.of(linked.ids[places], linked.groups[places])
            distances = groups.distances(side, search.metric or "")
            save(self.folder, _MEMBERS, np.stack([groups.rows, groups.kept]))
            if target is not None:
                grouping.write(target, snapshot, groups, distances)
        duplicates = int(groups.duplicates.sum())
        return DedupReport(
            self.kept.job,
            snapshot.location.uri,
            snapshot.version,
            linked.rows,
            linked.rows - linked.without_vector - duplicates,
            duplicates,
            linked.without_vector,
            len(groups.sizes),
            int(groups.sizes.max(initial=0)),
            float(distances.max(where=groups.duplicates, initial=0.0)),
            search.within,
            search.k,
            linked.crowded,
            linked.rounds,
            linked.recall,
            linked.source,
            None if target is None else target.location.uri,
        )

    def delete(self, report: DedupReport) -> DedupReport:
        """Delete the duplicates that a report tells of."""
        rows, kept = load(self.folder, _MEMBERS)
        going = rows != kept
        with pins.pin(self.snapshot, job=self.kept.job):
            done = delete_unchanged(self.snapshot, rows[going], kept[going], commit_id=f"{self.kept.job}.delete")
        return replace(report, deleted=done.rows, spared=report.duplicates - done.rows, deleted_version=done.version)

    def clear(self, *, all_of_it: bool, deleted: bool) -> None:
        """Remove what nobody needs any more; the report stays, and what a deletion would need."""
        self.kept.clear(*(() if all_of_it else (ASKED, REPORT, *(() if deleted else (_MEMBERS,)))))

    def _check(self, search: Search) -> tuple[ByRow, Search, PartedWrite | None]:
        """Refuse what makes no sense before anything is done; return what is compared, and where groups go."""
        snapshot, asked = self.snapshot, self.asked
        if not isinstance(asked.within, int | float) or not math.isfinite(asked.within):
            raise InvalidInput(f"within={asked.within!r}: give a distance, a finite number")
        given = knn.side(snapshot, asked.column, asked.where, (), "")
        side = ByRow(given.snapshot, given.column, given.where)
        order(asked.keep, snapshot.schema)
        plan, _ = plan_round(side, search)
        if plan.metric != "dot" and asked.within <= 0:
            raise InvalidInput(f"within={asked.within}: no {plan.metric} distance is less; give a radius above 0")
        target = None
        if asked.into is not None:
            schema = grouping.table_schema(snapshot)
            target = begin(self._place(asked.into), None, "create", schema, commit_id=self.kept.job)
        return side, replace(search, metric=plan.metric), target

    def _place(self, into: str) -> Location:
        return self.snapshot.location.lake.join(f"{table_name(into)}.lance")
