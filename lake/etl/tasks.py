"""The tasks of a load. Each writes files of its own, and returns counts and what it wrote."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from lance.fragment import FragmentMetadata

from lake.errors import InvalidInput
from lake.etl.partition import hash_keys, winners
from lake.etl.read import Reader
from lake.etl.refused import RefusedFile
from lake.etl.slices import Slice
from lake.etl.spec import Load
from lake.etl.transform import Steps
from lake.storage import Files, Location
from lake.table.parts import PartedWrite
from lake.table.snapshot import Snapshot
from lake.table.validate import Problem

ORDER = "lake.order"  # legal names have no dots, so no column of a user's is called so
ROW = "lake.row"
_SHIFT = 40  # rows of one slice, at most 2**40


@dataclass(frozen=True)
class Work:
    """What all tasks of a load share.

    Parameters
    ----------
    job : str
    spec : Load
    reader : Reader
    types : pyarrow.Schema
        What the columns are cast to.
    target : Snapshot
        The table as it was when the job began.
    folder : Location
        The job's own.
    columns : tuple of str
        The table's columns that are written.
    key : tuple of str
        What rows are compared by.
    partitions : int
        By hash of the key; 0 where rows are not compared.
    """

    job: str
    spec: Load
    reader: Reader
    types: pa.Schema
    target: Snapshot
    folder: Location
    columns: tuple[str, ...]
    key: tuple[str, ...] = ()
    partitions: int = 0

    @property
    def schema(self) -> pa.Schema:
        """What is written: the table's columns, or some of them, which a merge takes."""
        arrow = self.target.schema.to_arrow()
        return pa.schema([field for field in arrow if field.name in self.columns], arrow.metadata)


@dataclass(frozen=True)
class Done:
    """The receipt of a task.

    Parameters
    ----------
    read, written, filtered, duplicates, refused : int
        Rows.
    partitions : tuple of int
        Those that got rows.
    fragments : tuple of str
        Data files of the table that no version names yet, as Lance's JSON.
    """

    read: int = 0
    written: int = 0
    filtered: int = 0
    duplicates: int = 0
    refused: int = 0
    partitions: tuple[int, ...] = ()
    fragments: tuple[str, ...] = field(default=(), repr=False)

    @property
    def rows(self) -> int:
        """Rows that were read."""
        return self.read

    @classmethod
    def decode(cls, stored: Any) -> Done:
        """Read what a ledger holds."""
        counts = {name: int(stored[name]) for name in ("read", "written", "filtered", "duplicates", "refused")}
        fragments = tuple(str(f) for f in stored["fragments"])
        for fragment in fragments:
            FragmentMetadata.from_json(fragment)
        return cls(**counts, partitions=tuple(map(int, stored["partitions"])), fragments=fragments)

    def encode(self) -> dict[str, Any]:
        """Return what a ledger can hold."""
        return asdict(self)


@dataclass(frozen=True)
class ReadSlice:
    """Read a slice, and write its rows into files of the table, or apart by the hash of their key.

    Parameters
    ----------
    work : Work
    part : Slice
    """

    work: Work
    part: Slice

    @property
    def key(self) -> str:
        """The slice's number and the file's name."""
        return f"{self.part.number:06d} {self.part.name.rpartition('/')[2]}"

    def run(self) -> Done:
        """Do it."""
        work, number = self.work, self.part.number
        counts = {"read": 0, "written": 0, "filtered": 0}
        with tempfile.TemporaryDirectory(prefix="lake-load-") as folder:
            here = Path(folder)
            with RefusedFile(here / "refused.arrow", work.job, self.part.name) as refused:
                rows = self._rows(refused, counts)
                if work.partitions:
                    found, fragments = _scatter(rows, work, number, here), []
                else:
                    found, fragments = (), _fragments((batch for batch, _, _ in rows), work.target)
            if refused.rows:
                Files(work.folder).upload(refused.path, f"refused/{number:06d}.arrow")
            return Done(**counts, refused=refused.rows, partitions=found, fragments=tuple(fragments))

    def _rows(self, refused: RefusedFile, counts: dict[str, int]) -> Iterator[_Batch]:
        """Yield rows of the table; count the others, and keep those that are refused."""
        work = self.work
        steps = Steps(work.spec.transform, work.types, work.target.schema, work.schema)
        for chunk in work.reader.read(self.part):
            first = counts["read"]
            counts["read"] += chunk.rows.num_rows + len(chunk.malformed)
            refused.add_malformed(chunk.malformed)
            try:
                kept = steps.apply(chunk.rows)
            except InvalidInput as error:
                raise InvalidInput(f"{self.part.name}: {error}") from error
            refused.add(kept.refused, chunk.rows, chunk.at)  # type: ignore[arg-type]
            counts["filtered"] += kept.filtered
            counts["written"] += kept.rows.num_rows
            yield kept.rows, first + kept.numbers, chunk.at[kept.numbers]


_Numbers = npt.NDArray[np.int64]
_Batch = tuple[pa.RecordBatch, _Numbers, _Numbers]


@dataclass(frozen=True)
class Deduplicate:
    """Bring together the rows of one partition, and keep one of each key.

    Parameters
    ----------
    work : Work
    partition : int
    slices : tuple of Slice
        Those that have rows in it.
    """

    work: Work
    partition: int
    slices: tuple[Slice, ...]

    @property
    def key(self) -> str:
        """The partition's number."""
        return f"{self.partition:04d}"

    def run(self) -> Done:
        """Do it."""
        work = self.work
        with tempfile.TemporaryDirectory(prefix="lake-load-") as folder:
            here = Path(folder)
            store, numbers = Files(work.folder), [part.number for part in self.slices]
            files = [store.download(_staged(number, self.partition), here / str(number)) for number in numbers]
            keep = self._winners(files)
            fragments: list[str] = []
            if work.spec.into.mode == "merge":
                unique = here / "unique.arrow"
                with pa.OSFile(str(unique), "wb") as sink, pa.ipc.new_file(sink, work.schema) as writer:
                    for batch in self._kept(files, keep):
                        writer.write_batch(batch)
                store.upload(unique, unique_file(self.partition))
            else:
                fragments = _fragments(self._kept(files, keep), work.target)
            written, left = int(keep.sum()), int((~keep).sum())
            if work.spec.deduplicate is not None:
                return Done(written=written, duplicates=left, fragments=tuple(fragments))
            self._refuse(files, keep, here)
            return Done(written=written, refused=left, fragments=tuple(fragments))

    def _winners(self, files: list[Path]) -> npt.NDArray[np.bool_]:
        """Tell for each row, in the order of the files, whether it stays. Memory holds the keys only."""
        rule = self.work.spec.deduplicate
        columns = list(dict.fromkeys([*self.work.key, *([rule.order_by] if rule and rule.order_by else []), ORDER]))
        keys = pa.concat_tables([pa.Table.from_batches([b.select(columns)]) for file in files for b in _batches(file)])
        keep = np.zeros(len(keys), bool)
        keep[winners(keys, self.work.key, ORDER, rule)] = True
        return keep

    def _kept(self, files: list[Path], keep: npt.NDArray[np.bool_]) -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in chain.from_iterable(map(_batches, files)):
            mask = keep[start : start + batch.num_rows]
            start += batch.num_rows
            rows = batch.select(list(self.work.columns)).filter(pa.array(mask))
            yield rows.cast(self.work.schema)

    def _refuse(self, files: list[Path], keep: npt.NDArray[np.bool_], here: Path) -> None:
        why = "several rows of the source have this key, and nothing says which is to win: give deduplicate"
        start = 0
        for part, file in zip(self.slices, files, strict=True):
            name = f"{part.number:06d}-{self.partition:04d}.arrow"
            with RefusedFile(here / name, self.work.job, part.name) as refused:
                for batch in _batches(file):
                    lost = np.flatnonzero(~keep[start : start + batch.num_rows])
                    start += batch.num_rows
                    at = batch.column(ROW).to_numpy()
                    problem = [Problem(", ".join(self.work.key), lost, why)] if len(lost) else []
                    refused.add(problem, batch.drop_columns([ORDER, ROW]), at)
            if refused.rows:
                Files(self.work.folder).upload(refused.path, f"refused/{name}")


def unique_file(partition: int) -> str:
    """Name the file of a partition's rows that are to be merged."""
    return f"unique/{partition:04d}.arrow"


def read_file(files: Files, name: str) -> Iterator[pa.RecordBatch]:
    """Yield the batches of an Arrow file of the job's."""
    with tempfile.TemporaryDirectory(prefix="lake-load-") as folder:
        yield from _batches(files.download(name, Path(folder) / "copy"))


def _staged(number: int, partition: int) -> str:
    return f"staged/{number:06d}/{partition:04d}.arrow"


def _scatter(rows: Iterator[_Batch], work: Work, number: int, here: Path) -> tuple[int, ...]:
    """Write rows apart by partition, with their places; return the partitions that got some."""
    places = [pa.field(ORDER, pa.int64()), pa.field(ROW, pa.int64())]
    schema = pa.schema([*work.schema, *places])
    writers: dict[int, Any] = {}
    with ExitStack() as stack:
        for batch, order, at in rows:
            full = [*batch.columns, pa.array((number << _SHIFT) + order), pa.array(at)]
            placed = pa.RecordBatch.from_arrays(full, schema=schema)
            home = hash_keys(batch, work.key) % np.uint64(work.partitions)
            for partition in np.unique(home).tolist():
                if partition not in writers:
                    sink = stack.enter_context(pa.OSFile(str(here / f"{partition}"), "wb"))
                    writers[partition] = stack.enter_context(pa.ipc.new_file(sink, schema))
                writers[partition].write_batch(placed.filter(pa.array(home == partition)))
    for partition in writers:
        Files(work.folder).upload(here / f"{partition}", _staged(number, partition))
    return tuple(sorted(writers))


def _fragments(rows: Iterator[pa.RecordBatch], target: Snapshot) -> list[str]:
    """Write rows into data files of the table that no version names yet."""
    first = next((batch for batch in rows if batch.num_rows), None)
    if first is None:
        return []
    part = PartedWrite(target.location, None, "append", target.schema, target).part(chain([first], rows), _quiet)
    return [json.dumps(fragment.to_json()) for fragment in part.fragments]


def _quiet(rows: int, size: int) -> None:
    """Draw nothing: a task's process may share the driver's terminal."""


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(file)) as source:
        reader = pa.ipc.open_file(source)
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)
