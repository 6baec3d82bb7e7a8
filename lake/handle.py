"""A table as its users hold it: every method is a call into a room below."""

from __future__ import annotations

import html
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from difflib import get_close_matches
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import lance
import pyarrow as pa

from lake import analytics, index, join, search
from lake.anatomy import Anatomy, dissect
from lake.errors import InvalidInput, NotSupported
from lake.run import Callback, Executor
from lake.schema import Schema
from lake.storage import Location
from lake.table import changes, columns, compact, expire, history, merge, pins, rows, write
from lake.table.inputs import Data
from lake.table.progress import Progress
from lake.table.receipt import Receipt
from lake.table.snapshot import Snapshot, open_head, store_errors
from lake.table.sql import sql_errors, whole

if TYPE_CHECKING:
    import pandas as pd

    from lake.index import Calibration
    from lake.search import Explanation


P = ParamSpec("P")
R = TypeVar("R")


def _writing(
    act: Callable[Concatenate[Table, P], R], when: Callable[[Mapping[str, object]], object] = lambda _: True
) -> Callable[Concatenate[Table, P], R]:
    """Make a function of a table that writes to it, with some options, a method, which a pinned table refuses then."""

    @wraps(act)
    def method(self: Table, /, *arguments: P.args, **options: P.kwargs) -> R:
        if when(options):
            self._target()
        return act(self, *arguments, **options)

    return method


class Table:
    """A semantic wide table.

    It follows the newest version of its branch: each call sees what was committed before it. A table from
    `at`, or opened with ``version=``, is pinned to its version and read-only.

    Use `lake.Lake.open_table` or `lake.Lake.create_table`.
    """

    def __init__(self, location: Location, branch: str | None = None, pinned: Snapshot | None = None) -> None:
        self._location = location
        self._branch = branch
        self._pinned = pinned
        self._head: lance.LanceDataset = pinned.dataset if pinned else open_head(location, branch)
        self._moving = threading.Lock()

    # -- what it is ------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The table's name."""
        return self.uri.rsplit("/", 1)[-1].removesuffix(".lance")

    @property
    def uri(self) -> str:
        """Where the Lance dataset lies."""
        return self._location.uri

    @property
    def branch_name(self) -> str | None:
        """The branch that it follows; ``None`` is the main line."""
        return self._branch

    @property
    def version(self) -> int:
        """The newest version, or the pinned one."""
        return self.snapshot().version

    @property
    def schema(self) -> Schema:
        """What the columns mean."""
        return self.snapshot().schema

    def snapshot(self) -> Snapshot:
        """Pin the version of this moment: picklable, for tasks and for several reads that must agree."""
        if self._pinned is not None:
            return self._pinned
        with self._moving, store_errors(self._location, self._branch):
            self._head.checkout_latest()
            return Snapshot.of(self._head, self._location, self._branch)

    @contextmanager
    def pin(self, lease: timedelta = timedelta(hours=12)) -> Iterator[Table]:
        """Keep this version from expiring while the block runs, whoever expires; give the table pinned to it.

        Parameters
        ----------
        lease : timedelta
            When the pin ends by itself, should this process die.
        """
        snapshot = self.snapshot()
        with pins.pin(snapshot, job=f"user-{uuid.uuid4().hex}", lease=lease):
            yield Table(self._location, self._branch, snapshot)

    @property
    def dataset(self) -> lance.LanceDataset:
        """The Lance dataset at this moment, for whatever the lake does not wrap. Read only."""
        return self.snapshot().dataset

    def describe(self) -> Anatomy:
        """Take the version apart: schema, manifest, fragments and files, index segments; prints well."""
        return dissect(self.snapshot())

    # -- reading ---------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.count_rows()

    def count_rows(self, where: str | None = None) -> int:
        """Count the live rows, or those that a SQL predicate selects."""
        dataset = self.dataset
        with sql_errors(where):
            count: int = dataset.count_rows(filter=None if where is None else whole(where, dataset.schema.names))
        return count

    def to_batches(self, columns: Sequence[str] | None = None, where: str | None = None) -> Iterator[pa.RecordBatch]:
        """Yield rows, in bounded memory; blobs as bytes."""
        with sql_errors(where):
            yield from self._scan(columns, where).to_batches()

    def to_arrow(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """Return rows as an Arrow table."""
        with sql_errors(where):
            return self._scan(columns, where).to_table()

    def _scan(self, columns: Sequence[str] | None, where: str | None) -> lance.LanceScanner:
        snapshot = self.snapshot()
        for name in columns or ():
            snapshot.schema.column(name)
        return snapshot.dataset.scanner(
            columns=list(columns) if columns is not None else None,
            filter=None if where is None else whole(where, snapshot.schema.names),
            blob_handling="all_binary",
        )

    def to_pandas(self, columns: Sequence[str] | None = None, where: str | None = None) -> pd.DataFrame:
        """Return rows as a pandas frame."""
        frame: pd.DataFrame = self.to_arrow(columns, where).to_pandas()
        return frame

    # -- writing ---------------------------------------------------------------------------------------

    def append(self, data: Data, *, commit_id: str | None = None, progress: Progress | None = None) -> Receipt:
        """Append rows; memory stays bounded whatever their number.

        The entity key is not looked up: a row whose key is there already becomes a second row of that key. `merge`
        is the write that looks.

        Parameters
        ----------
        data
            An Arrow table, reader or dataset, a pandas or polars frame, a dict of columns, a list of dicts, Parquet
            paths, or a generator of Arrow batches.
        commit_id : str, optional
            Repeating the call with the same id does nothing.
        progress : callable, optional
            Called with rows and bytes so far; on a terminal a line is drawn by default.

        Returns
        -------
        Receipt
            Version, rows, bytes, commit id.

        Raises
        ------
        InvalidInput
            A row is not legal; the message names column, row and remedy, and nothing is written.
        """
        return write.append(*self._target(), data, commit_id=commit_id, progress=progress)

    def merge(
        self,
        data: Data,
        *,
        mode: merge.Mode = "upsert",
        commit_id: str | None = None,
        progress: Progress | None = None,
    ) -> Receipt:
        """Bring rows in by entity key, whole rows or some of their columns.

        Parameters
        ----------
        data
            As `append` takes it: all columns of the key, and any of the others. Columns that are left out keep
            their values in rows that are there, and are null in new rows.
        mode : {"upsert", "insert", "update"}
            Update and insert; only insert keys that are new; only update keys that are there.
        commit_id : str, optional
            Repeating the call with the same id does nothing.

        Returns
        -------
        Receipt
            With the rows ``inserted`` and ``updated``.

        Raises
        ------
        InvalidInput
            The table has no key, a key appears twice in the data, or a row is not legal.
        Conflict
            Other writers kept preempting this one.
        """
        return merge.merge(*self._target(), data, mode=mode, commit_id=commit_id, progress=progress)

    def update(self, values: Mapping[str, Any], where: str | None = None, *, commit_id: str | None = None) -> Receipt:
        """Set columns of the rows that a predicate selects.

        Parameters
        ----------
        values : mapping
            Column to value; ``lake.sql("price * 2")`` computes one from the row's old values.
        where : str, optional
            A SQL predicate; all rows without one.

        Returns
        -------
        Receipt
            With the rows ``updated``.
        """
        return rows.update(*self._target(), values, where, commit_id=commit_id)

    def delete(self, where: str, *, commit_id: str | None = None) -> Receipt:
        """Delete the rows that a SQL predicate selects."""
        return rows.delete(*self._target(), where, commit_id=commit_id)

    def overwrite(
        self,
        data: Data,
        schema: Schema | None = None,
        *,
        commit_id: str | None = None,
        progress: Progress | None = None,
    ) -> Receipt:
        """Replace all rows; earlier versions stay readable."""
        return write.overwrite(*self._target(), data, schema, commit_id=commit_id, progress=progress)

    def add_columns(self, new: Mapping[str, columns.NewColumn]) -> int:
        """Add columns (null, or computed by SQL) without rewriting the others; returns the version."""
        return columns.add_columns(*self._target(), new)

    def drop_columns(self, names: Sequence[str]) -> int:
        """Drop columns; returns the version."""
        target = self._target()
        index.require_unindexed(self.snapshot(), names)
        return columns.drop_columns(*target, list(names))

    def rename_columns(self, names: Mapping[str, str]) -> int:
        """Rename columns, old name to new; returns the version."""
        return columns.rename_columns(*self._target(), names)

    # -- indexes ---------------------------------------------------------------------------------------

    def create_index(
        self,
        column: str,
        kind: str = "auto",
        *,
        metric: str | None = None,
        name: str | None = None,
        **parameters: Any,
    ) -> index.IndexSpec:
        """Declare an index; `build` brings it about. Nothing waits for it: searches scan until it is there.

        Parameters
        ----------
        column : str
            What to index.
        kind : str
            ``"auto"`` chooses and says why; or any kind of `lake.index.spec`.
        metric : str, optional
            Of vector indexes; the column's own by default.
        name : str, optional
            The index's name; ``<column>_idx`` by default.
        **parameters
            Of the kind, such as ``partitions=256``.
        """
        self._target()
        return index.declare(self.snapshot(), column, kind, metric=metric, name=name, **parameters)

    def drop_index(self, name: str) -> int:
        """Take back the declaration of an index and drop what was built; returns the version."""
        self._target()
        return index.undeclare(self.snapshot(), name)

    def indexes(self) -> list[index.IndexSpec]:
        """Return the declared indexes."""
        return index.declared(self.snapshot())

    def build(
        self,
        names: Sequence[str] | None = None,
        *,
        executor: str | Executor = "local",
        job_id: str | None = None,
        on_event: Callback | None = None,
    ) -> index.BuildReport:
        """Bring the declared indexes up to date: one job, one commit, resumable.

        Parameters
        ----------
        names : sequence of str, optional
            Only these indexes.
        executor : str or Executor
            Where the tasks run: ``"local"`` (processes of this machine), a plug-in's name, or an executor.
        job_id : str, optional
            The same id resumes a job that was interrupted, and does nothing after it was done.
        on_event : callable, optional
            Gets progress events; a live view is shown on a terminal by default.
        """
        self._target()
        return index.build(self.snapshot(), names, executor=executor, job_id=job_id, on_event=on_event)

    def coverage(self) -> index.CoverageTable:
        """Tell for each index what it covers, what is missing and stale, its size and age."""
        return index.coverage(self.snapshot())

    def calibrate(
        self,
        index: str | None = None,
        *,
        k: int = 10,
        sample: int = 256,
        refine: int | None = None,
        executor: str | Executor = "local",
        memory: int | str = "1GiB",
        on_event: Callback | None = None,
    ) -> Calibration:
        """Measure how the recall of a built vector index depends on nprobe, so that searches can ask for a recall.

        Rows of the table are the queries, the same each time. They are compared with every row, and searched for at
        nprobe 1, 2, 4 … until recall no longer grows. The curve is kept in the table, in one commit; where it would
        be the same again nothing is committed. It stays while rows come and go, and ends with the index, or when
        that is trained anew.

        Parameters
        ----------
        index : str, optional
            Which, where there are several.
        k : int
            Recall is of the k nearest.
        sample : int
            How many rows.
        refine : int, optional
            Of a quantised index, as `search` takes it; searches by recall then have the same.
        executor, memory, on_event
            As `lake.knn_join` takes them.

        Returns
        -------
        Calibration
            For each nprobe the recall, with its 95% confidence interval, and where it was measured.

        Raises
        ------
        NotFound
            No such index is built.
        InvalidInput
            A number that makes no sense, or an index of other than float vectors, one a row.
        Conflict
            The index was dropped or trained anew meanwhile.
        """
        self._target()
        return analytics.calibrate(
            self.snapshot(),
            index,
            k=k,
            sample=sample,
            refine=refine,
            executor=executor,
            memory=memory,
            on_event=on_event,
        )

    # -- searching -------------------------------------------------------------------------------------

    def search(
        self,
        vector: Any = None,
        *,
        text: search.Text | None = None,
        like: Any = None,
        where: str | None = None,
        k: int | None = 10,
        columns: Sequence[str] | None = None,
        offset: int = 0,
        within: float | tuple[float | None, float | None] | None = None,
        group_by: str | None = None,
        per_group: int = 1,
        **more: Any,
    ) -> search.Result:
        """Search by vector, by text, by both, by a filter; complete by default.

        Parameters
        ----------
        vector : array-like, shape (d,) or (queries, d), optional
            One query or many.
        text : str, Match, Phrase or Boolean, optional
            Words to look for by BM25. With a vector: a hybrid search.
        like : scalar or mapping, optional
            Instead of a vector: the key of the row whose vector to search with.
        where : str, optional
            A SQL filter, applied before the best rows are taken.
        k : int or None
            How many rows for each query; ``None`` for all.
        columns : sequence of str, optional
            What to return; all but vectors and blobs by default.
        offset : int
            How many of the best rows to leave out.
        within : float or tuple, optional
            Only rows with ``distance < within``, or in ``[low, high)``.
        group_by, per_group : str, int
            The best ``per_group`` rows of each of the ``k`` best groups.
        **more
            ``vector_column``, ``text_columns``, ``metric``, ``fusion``, ``candidates``, ``nprobe``, ``refine``, ``ef``,
            ``use_index``, ``indexed_only``, ``recall``: see `lake.search.Query`.

        Returns
        -------
        Result
            Best rows first; ``.to_arrow()``, ``.to_pandas()``, and ``.coverage``, which says what was searched.
            ``_distance``: smaller is more similar; ``_score``: larger is better; see `lake.search`.

        Raises
        ------
        InvalidInput, NotFound, NotSupported
            The query does not fit the table; the message names the argument and the remedy.
        """
        query = {
            "vector": vector,
            "text": text,
            "like": like,
            "where": where,
            "k": k,
            "columns": columns,
            "offset": offset,
            "within": within,
            "group_by": group_by,
            "per_group": per_group,
        }
        return search.search(self.snapshot(), _query(**query, **more))

    def explain(self, vector: Any = None, **query: Any) -> Explanation:
        """Tell what `search` with the same arguments would do: steps for people, and Lance's plan."""
        return search.explain(self.snapshot(), _query(vector=vector, **query))

    # -- joins and analyses: each takes what the function of that name takes, after the table itself ----

    knn_join = join.knn_join
    dedup = _writing(analytics.dedup, lambda options: options.get("delete") and not options.get("dry_run", True))
    outliers = analytics.outliers
    classify = analytics.classify
    mine = analytics.mine
    cluster = _writing(analytics.cluster)

    def drift(self, before: Table | Snapshot | int | str | datetime, **options: Any) -> analytics.DriftReport:
        """Tell whether the vectors differ from those of another table, or of a version, tag or time of this one.

        Takes the keyword arguments of `lake.drift`.
        """
        earlier = self.at(before) if isinstance(before, int | str | datetime) else before
        return analytics.drift(earlier, self, **options)

    # -- history and upkeep ----------------------------------------------------------------------------

    def versions(self, limit: int | None = None) -> list[history.Version]:
        """Return the retained versions, newest first."""
        return history.versions(self._location, self._branch, limit)

    def at(self, at: int | str | datetime) -> Table:
        """Return the table pinned at a version, a tag, or a time, read-only.

        Parameters
        ----------
        at : int, str or datetime
            A version number; a tag, or a time in ISO 8601; a time (a naive one is in UTC), which means the newest
            version that had been committed by then.

        Raises
        ------
        NotFound
            There is no such version or tag, or the table did not exist at that time.
        """
        found = history.resolve(self._location, self._branch, at)
        return Table(self._location, found.branch, found)

    def tag(self, name: str, version: int | None = None) -> None:
        """Name a version (this one by default), which then never expires."""
        history.tag(self.snapshot() if version is None else self.at(version).snapshot(), name)

    def tags(self) -> dict[str, history.Reference]:
        """Return the tags."""
        return history.tags(open_head(self._location))

    def delete_tag(self, name: str) -> None:
        """Remove a tag."""
        history.delete_tag(self._location, name)

    def branch(self, name: str) -> Table:
        """Begin a branch at this version, and open it; it shares the data and goes its own way."""
        history.create_branch(self.snapshot(), name)
        return Table(self._location, name)

    def branches(self) -> list[str]:
        """Return the names of the branches."""
        return sorted(open_head(self._location).branches.list())

    def restore(self, at: int | str | datetime, *, commit_id: str | None = None) -> Receipt:
        """Make an old version the newest again; what came between stays in the history.

        Indexes that are declared now stay declared, as far as their columns are there: what should be does not
        depend on which rows the table holds.

        Parameters
        ----------
        at : int, str or datetime
            A version, a tag or a time.

        Raises
        ------
        NotFound
            There is no such version.
        """
        location, branch = self._target()
        before = self.snapshot()
        receipt = history.restore(location, branch, self.at(at).snapshot(), commit_id=commit_id)
        index.redeclare(before, self.snapshot())
        return receipt

    def changes(self, since: int | str | datetime, columns: Sequence[str] | None = None) -> changes.Changes:
        """Tell which rows were inserted, updated and deleted since a version, tag or time.

        Parameters
        ----------
        since : int, str or datetime
            As `at` takes it; not counted itself.
        columns : sequence of str, optional
            What to give of the changed rows; all by default.

        Returns
        -------
        Changes
            ``.to_arrow()`` or ``.to_batches()`` with a column ``_change``; ``.counts()``.
        """
        before = history.resolve(self._location, self._branch, since)
        return changes.compare(before, self.snapshot(), list(columns) if columns else None)

    def expire(
        self, older_than: timedelta = timedelta(days=14), *, keep: int = 1, dry_run: bool = True
    ) -> expire.Expiry:
        """Remove old versions and what only they name; by default it only tells what would go.

        Tagged and pinned versions stay, those of running jobs among them, and those that branches began at.

        Parameters
        ----------
        older_than : timedelta
            The youngest age that may go, at least ten minutes.
        keep : int
            The newest so many stay, whatever their age.
        dry_run : bool
            Only tell; give ``False`` to do it.

        Returns
        -------
        Expiry
        """
        location, branch = self._target()
        if branch is not None:
            raise NotSupported(f"expire works on the main line, and this table is on branch {branch!r}")
        return expire.expire(location, older_than=older_than, keep=keep, dry_run=dry_run)

    def compact(
        self,
        *,
        target_rows: int = 1 << 20,
        deleted: float = 0.1,
        memory_bytes: int = 1 << 30,
        executor: str | Executor = "local",
        job_id: str | None = None,
        on_event: Callback | None = None,
    ) -> compact.Compacted:
        """Rewrite small and much-deleted fragments.

        Indexes go on covering the rows, except zone maps and bloom filters, which are to be built again. What is done
        is committed about every minute, and what other writers change meanwhile is planned again: a compaction that is
        killed loses about a minute, and holds nobody up.

        Parameters
        ----------
        target_rows : int
            Rows that a fragment should have.
        deleted : float
            Share of deleted rows from which on a fragment is rewritten.
        memory_bytes : int
            What each worker may hold of rows in flight.
        executor : str or Executor
            Where fragments are rewritten: ``"local"``, ``"ray"``, ``"spark"``.
        job_id : str, optional
            Names the pin on the version that is read: one that was killed leaves it to the same job's next run.
        on_event : callable, optional
            Gets progress events; by default a live view is drawn on a terminal.

        Raises
        ------
        InvalidInput
            A number that makes no sense.
        NotSupported
            A branch that has indexes.
        Conflict
            Other writers changed fragments again and again while they were rewritten; the others are compacted.
        """
        return compact.compact(
            *self._target(),
            target_rows=target_rows,
            deleted=deleted,
            memory_bytes=memory_bytes,
            executor=executor,
            job_id=job_id,
            on_event=on_event,
        )

    # -- the rest --------------------------------------------------------------------------------------

    def _target(self) -> tuple[Location, str | None]:
        if self._pinned is not None:
            raise InvalidInput(
                f"{self.name} is pinned at version {self.version}, which never changes; open the table without a "
                "version to write to it"
            )
        return self._location, self._branch

    def __repr__(self) -> str:
        on = f" on {self._branch}" if self._branch else ""
        return f"Table({self.name!r}, version {self.version}{on}, {len(self):,} rows)\n{self.schema!r}"

    def _repr_html_(self) -> str:
        title = html.escape(f"{self.name} · version {self.version} · {len(self):,} rows")
        return f"<b>{title}</b>{self.schema._repr_html_()}"

    def __reduce__(self) -> tuple[Callable[..., Table], tuple[object, ...]]:
        return Table, (self._location, self._branch, self._pinned)


def _query(**given: Any) -> search.Query:
    known = search.Query.__dataclass_fields__
    for name in given:
        if name not in known:
            near = get_close_matches({"limit": "k", "filter": "where", "top_k": "k"}.get(name, name), known, 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InvalidInput(f"search has no argument {name!r}{hint} It takes {', '.join(known)}")
    return search.Query(**given)
