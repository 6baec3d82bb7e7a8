"""Built segments: what the manifest says of them, and their receipts as JSON."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import lance
from lance.dataset import Index, IndexFile

from lake.index.spec import IndexSpec
from lake.storage import Location
from lake.table.snapshot import Snapshot


@dataclass(frozen=True)
class Segment:
    """One segment of a built index.

    Parameters
    ----------
    id : str
        Lance's UUID of it.
    fragments : frozenset of int
        What it covers.
    version : int
        The table's version that it was built from, or that last renewed it.
    bytes : int
        Size of its files.
    created : datetime or None
        When it was built, in UTC.
    """

    id: str
    fragments: frozenset[int]
    version: int
    bytes: int
    created: datetime | None


@dataclass(frozen=True)
class BuiltIndex:
    """A Lance index as one version of the table has it.

    Parameters
    ----------
    name, kind : str
        `kind` as `lake.index.kinds.KINDS` spells it.
    column : str
        What it indexes.
    field_ids : tuple of int
    details : dict
        Lance's: metric, compression, graph, tokenizer.
    segments : tuple of Segment
    """

    name: str
    kind: str
    column: str
    field_ids: tuple[int, ...]
    details: dict[str, Any]
    segments: tuple[Segment, ...]

    @property
    def metric(self) -> str | None:
        """The metric of a vector index."""
        metric = self.details.get("metric_type")
        return metric.lower() if metric else None

    def mismatch(self, spec: IndexSpec) -> str:
        """Say how it differs from what a definite spec asks for, or return the empty string."""
        if (self.field_ids, self.kind, self.metric) != ((spec.field_id,), spec.kind, spec.metric):
            return f"it is {self.kind} {self.metric or ''} of {self.column}".replace("  ", " ")
        built = self._params()
        differs = [name for name, value in spec.params.items() if built.get(name, value) != value]
        return f"it was built with other {', '.join(differs)}" if differs else ""

    def _params(self) -> dict[str, Any]:
        compression, graph = self.details.get("compression") or {}, self.details.get("hnsw") or {}
        built = {name: value for name, value in self.details.items() if not isinstance(value, dict)}
        if "num_sub_vectors" in compression:
            built["sub_vectors"] = compression["num_sub_vectors"]
        if "num_bits" in compression:
            built["num_bits"] = compression["num_bits"]
        if graph:
            built |= {"m": graph["max_connections"], "ef_construction": graph["construction_ef"]}
        return built


def built_indexes(dataset: lance.LanceDataset) -> dict[str, BuiltIndex]:
    """Read the built indexes of a dataset's version, by name; only its manifest is read."""
    found = {}
    for described in dataset.describe_indices():
        details = described.details if isinstance(described.details, dict) else {}
        segments = tuple(
            Segment(
                str(s.uuid),
                frozenset(s.fragment_ids),
                s.dataset_version_at_last_update,
                s.size_bytes or 0,
                s.created_at,
            )
            for s in described.segments
        )
        found[described.name] = BuiltIndex(
            described.name,
            _KINDS.get(described.index_type, described.index_type.upper()),
            ".".join(described.field_names),
            tuple(described.fields),
            details,
            segments,
        )
    return found


# Lance describes scalar kinds in other words than it builds them by.
_KINDS = {"LabelList": "LABEL_LIST", "NGram": "NGRAM", "ZoneMap": "ZONEMAP", "RTree": "RTREE", "BTree": "BTREE"}


def stale_rows(dataset: lance.LanceDataset, segments: Iterable[Segment]) -> dict[str, int]:
    """Count, for each segment, the rows that were deleted after it was built: entries that searches mask.

    Only the manifest is read. Of a fragment with deletions before and after, all count; and rows that
    compaction has removed since do not.
    """
    deleted = {
        f.fragment_id: (f.metadata.deletion_file.read_version, f.metadata.num_deletions)
        for f in dataset.get_fragments()
        if f.metadata.deletion_file is not None
    }
    found = {}
    for segment in segments:
        held = (deleted.get(f, (0, 0)) for f in segment.fragments)
        found[segment.id] = sum(count for version, count in held if version >= segment.version)
    return found


def segment_folder(snapshot: Snapshot, uuid: str, base: int | None = None) -> Location:
    """Find the folder of a segment: under the table, its branch, or the base that it came from."""
    if base is None:
        return snapshot.folder.join("_indices", uuid)
    return Location(str(snapshot.dataset.base_paths()[base].path), snapshot.location.options).join("_indices", uuid)


def removal(index: BuiltIndex, segment: Segment) -> Index:
    """Return what `LanceOperation.CreateIndex` needs to remove a segment."""
    return Index(
        uuid=segment.id,
        name=index.name,
        fields=list(index.field_ids),
        dataset_version=segment.version,
        fragment_ids=segment.fragments,
        index_version=0,
    )


def encode(index: Index) -> dict[str, Any]:
    """Turn a segment's receipt into what JSON can hold."""
    data = {name: value for name, value in vars(index).items() if name != "files"}
    data["fragment_ids"] = sorted(index.fragment_ids)
    data["created_at"] = index.created_at.isoformat() if index.created_at else None
    data["files"] = None if index.files is None else [asdict(file) for file in index.files]
    if index.index_details is not None:
        url, value = index.index_details
        data["index_details"] = [url, base64.b64encode(value).decode()]
    return data


def decode(data: dict[str, Any]) -> Index:
    """Turn what `encode` made back into the receipt."""
    fields = dict(data)
    fields["fragment_ids"] = set(data["fragment_ids"])
    fields["created_at"] = datetime.fromisoformat(data["created_at"]) if data["created_at"] else None
    fields["files"] = None if data["files"] is None else [IndexFile(**file) for file in data["files"]]
    if data["index_details"] is not None:
        url, value = data["index_details"]
        fields["index_details"] = (url, base64.b64decode(value))
    return Index(**fields)
