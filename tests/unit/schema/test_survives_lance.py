"""The schema survives whatever Lance does to a table; each fact of `lake.schema.codec` is held here."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from lake.errors import CorruptTable, InvalidInput
from lake.schema import Column, Derivation, Embedding, Role, Schema, check_names, geo_point, points
from lake.schema.column import EMBEDDING

N = 4

SCHEMA = Schema(
    [
        Column("region", str, description="where it is sold"),
        Column("sku", pa.int64()),
        Column("summary", str, "description"),
        Column("emb", Embedding(3, of="summary", model="minilm", metric="cosine", normalized=True)),
        Column("label", str, "category", derivation=Derivation(("summary",), "classify", "2", {"k": "é\n"})),
        Column("image", bytes, "blob"),
        Column("attributes", dict),
        Column("place", geo_point(), "geo"),
        Column("tags", list[str]),
        Column("tokens", pa.list_(pa.list_(pa.float16(), 2))),
        Column("code", pa.list_(pa.uint8(), 2), embedding=Embedding(2, metric="hamming")),
        Column("kind", pa.dictionary(pa.int8(), pa.string())),
        Column("price", pa.decimal128(9, 2), nullable=False, metadata={"unit": "€", "empty": ""}),
        Column("made", pa.timestamp("us", "UTC")),
    ],
    key=["sku", "region"],
    metadata={"owner": "shop"},
)


def rows(start: int = 0) -> pa.Table:
    """Plain Arrow data, as a user has it; the schema's cast gives it its types."""
    ids = range(start, start + N)
    vectors = [np.full(3, i, "f4") for i in ids]
    data: dict[str, Any] = {
        "region": ["eu"] * N,
        "sku": list(ids),
        "summary": [f"thing {i}" for i in ids],
        "emb": pa.array(vectors, pa.list_(pa.float32(), 3)),
        "label": ["a", None] * (N // 2),
        "image": [b"x" * i for i in ids],
        "attributes": [f'{{"n":{i}}}' for i in ids],
        "place": points([float(i) for i in ids], [1.0] * N),
        "tags": [["a", "b"]] * N,
        "tokens": pa.array([[[1.0, 2.0]]] * N, pa.list_(pa.list_(pa.float16(), 2))),
        "code": pa.array([[1, 2]] * N, pa.list_(pa.uint8(), 2)),
        "kind": pa.array(["k"] * N).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string())),
        "price": pa.array([None] * N, pa.decimal128(9, 2)).fill_null(1),
        "made": pa.array([0] * N, pa.timestamp("us", "UTC")),
    }
    return pa.table(data).cast(SCHEMA.to_arrow())


@pytest.fixture
def dataset(tmp_path: Path) -> Any:
    return lance.write_dataset(rows(), tmp_path / "t.lance", enable_stable_row_ids=True)


def decoded(dataset: Any) -> Schema:
    return Schema.decode(lance.dataset(dataset.uri).schema)


def merge(dataset: Any) -> None:
    upsert = dataset.merge_insert(["sku", "region"]).when_matched_update_all().when_not_matched_insert_all()
    upsert.execute(rows(2))


def compact(dataset: Any) -> None:
    lance.write_dataset(rows(N), dataset.uri, mode="append")
    appended = lance.dataset(dataset.uri)
    appended.delete("sku = 1")
    assert appended.optimize.compact_files().fragments_removed


CHANGES: dict[str, Callable[[Any], object]] = {
    "nothing": lambda ds: None,
    "append": lambda ds: lance.write_dataset(rows(N), ds.uri, mode="append"),
    "append of data with other metadata": lambda ds: lance.write_dataset(
        rows(N).replace_schema_metadata({"lake.key": "[]"}), ds.uri, mode="append"
    ),
    "merge": merge,
    "delete": lambda ds: ds.delete("sku = 1"),
    "update": lambda ds: ds.update({"summary": "'x'"}),
    "config": lambda ds: ds.update_config({"lake.index.x": "{}"}),
    "compaction": compact,
    "restore": lambda ds: (ds.delete("true"), lance.dataset(ds.uri, version=1).restore()),
    "scalar index": lambda ds: ds.create_scalar_index("sku", "BTREE"),
    "shallow clone": lambda ds: ds.shallow_clone(f"{ds.uri}.clone", 1),
    "adding and dropping": lambda ds: (ds.add_columns({"up": "upper(summary)"}), ds.drop_columns(["up"])),
}


@pytest.mark.parametrize("change", CHANGES)
def test_unchanged_after(dataset: Any, change: str) -> None:
    CHANGES[change](dataset)
    assert decoded(dataset) == SCHEMA


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
def test_file_versions(tmp_path: Path, version: str) -> None:
    dataset = lance.write_dataset(rows(), tmp_path / "t.lance", data_storage_version=version)
    assert decoded(dataset) == SCHEMA


def test_empty_table(tmp_path: Path) -> None:
    dataset = lance.write_dataset(SCHEMA.to_arrow().empty_table(), tmp_path / "t.lance")
    assert decoded(dataset) == SCHEMA


def test_added_columns_bring_their_metadata(dataset: Any) -> None:
    embedding = Embedding(5, of="summary", model="e5", metric="dot")
    wider = Schema([*SCHEMA, Column("emb2", embedding)], SCHEMA.key, metadata=SCHEMA.metadata)
    dataset.add_columns(wider.to_arrow().field("emb2"))
    assert decoded(dataset) == wider


def test_drop(dataset: Any) -> None:
    dataset.drop_columns(["tags", "made"])
    assert decoded(dataset).columns == tuple(c for c in SCHEMA if c.name not in {"tags", "made"})
    assert decoded(dataset).key == SCHEMA.key


def test_renamed_key_is_still_the_key(dataset: Any) -> None:
    dataset.alter_columns({"path": "sku", "name": "number"})
    assert decoded(dataset).key == ("number", "region")
    assert decoded(dataset)["number"] == replace(SCHEMA["sku"], name="number")


def test_renamed_source_leaves_its_old_name(dataset: Any) -> None:
    dataset.alter_columns({"path": "summary", "name": "abstract"})
    renamed = decoded(dataset)
    assert renamed["abstract"].role is Role.DESCRIPTION
    assert renamed["emb"] == SCHEMA["emb"]
    # The remedy, for whoever renames: encode the field again.
    metadata = SCHEMA.to_arrow().field("emb").metadata[EMBEDDING.encode()].decode()
    dataset.update_field_metadata({"emb": {EMBEDDING: metadata.replace("summary", "abstract")}})
    embedding = decoded(dataset)["emb"].embedding
    assert embedding is not None
    assert embedding.of == "abstract"


def test_cast_loses_field_metadata_and_writing_it_again_restores_it(dataset: Any) -> None:
    dataset.alter_columns({"path": "emb", "data_type": pa.list_(pa.float16(), 3)})
    assert decoded(dataset)["emb"].embedding == Embedding(3)
    metadata = SCHEMA.to_arrow().field("emb").metadata
    dataset.update_field_metadata({"emb": {k.decode(): v.decode() for k, v in metadata.items()}})
    assert decoded(dataset)["emb"].embedding == SCHEMA["emb"].embedding


def test_cast_of_a_key_column_keeps_the_key(dataset: Any) -> None:
    dataset.alter_columns({"path": "region", "data_type": pa.large_string()})
    assert decoded(dataset).key == SCHEMA.key
    assert decoded(dataset)["region"].type == pa.large_string()
    dataset.alter_columns({"path": "sku", "name": "number"})
    assert decoded(dataset).key == ("number", "region")


def test_a_key_that_is_gone_is_said_to_be(dataset: Any) -> None:
    dataset.drop_columns(["region"])
    with pytest.raises(CorruptTable, match=r"has lost .'region'."):
        decoded(dataset)
    dataset.update_schema_metadata({"lake.key": '["sku"]'})
    assert decoded(dataset).key == ("sku",)


def test_the_values_too(dataset: Any) -> None:
    merge(dataset)
    dataset = lance.dataset(dataset.uri)
    assert dataset.count_rows() == N + 2
    found = dataset.to_table(columns=["sku", "attributes", "place"], filter="sku = 3").to_pylist()
    assert found == [{"sku": 3, "attributes": '{"n":3}', "place": {"x": 3.0, "y": 1.0}}]
    skus = dataset.to_table(columns=["sku"])["sku"].to_pylist()
    blobs = dataset.take_blobs("image", indices=list(range(len(skus))))
    assert [blob.read() for blob in blobs] == [b"x" * i for i in skus]
    assert dataset.count_rows(filter="json_get_int(attributes, 'n') = 3") == 1


def test_table_read_back_can_be_described(dataset: Any) -> None:
    table = dataset.scanner(blob_handling="all_binary").to_table()
    assert Schema.from_arrow(table.schema).key == SCHEMA.key
    with pytest.raises(InvalidInput, match="blob_handling='all_binary'"):
        Schema.from_arrow(dataset.to_table().schema)


BOX = "st_intersects(place, st_geomfromtext('POLYGON((-1 0, 1.5 0, 1.5 2, -1 2, -1 0))'))"


def test_points_take_an_rtree(dataset: Any) -> None:
    dataset.create_scalar_index("place", "RTREE")
    indexed = lance.dataset(dataset.uri)
    assert "ScalarIndexQuery" in indexed.scanner(filter=BOX).explain_plan()
    assert indexed.count_rows(filter=BOX) == 2


def test_points_with_a_reference_system_take_none(tmp_path: Path) -> None:
    """Lance 14's limit; when this fails, `geo_point` may carry a reference system."""
    column = Column("place", geo_point(), "geo", metadata={"ARROW:extension:metadata": '{"crs":"OGC:CRS84"}'})
    table = pa.table({"place": points([1.0], [2.0])}).cast(Schema([column]).to_arrow())
    dataset = lance.write_dataset(table, tmp_path / "t.lance")
    with pytest.raises(ValueError, match="bbox"):
        dataset.create_scalar_index("place", "RTREE")


def test_the_names_that_check_names_refuses_are_traps(tmp_path: Path) -> None:
    def search(name: str, queries: Any) -> pa.Table:
        vectors = pa.array([np.ones(2, "f4")] * 3, pa.list_(pa.float32(), 2))
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        dataset = lance.write_dataset(pa.table({name: [1, 2, 3], "v": vectors}), path)
        return dataset.to_table(nearest={"column": "v", "q": queries, "k": 1})

    with pytest.raises(ValueError, match="query_index"):
        search("query_index", np.ones((2, 2), "f4"))
    with pytest.raises(ValueError, match="incompatible fields"):
        search("_distance", np.ones(2, "f4"))
    with pytest.raises(ValueError, match="No field named"):
        search("a`b", np.ones(2, "f4"))
    assert search("a\0b", np.ones(2, "f4")).column_names[0] == "a"
    with pytest.raises(OSError, match="reserved name"):
        search("_rowid", np.ones(2, "f4"))
    check_names(search("fine", np.ones(2, "f4")).column_names[:2])


@pytest.mark.parametrize(
    "kind",
    [
        pa.string_view(),
        pa.binary_view(),
        pa.json_(pa.large_string()),
        pa.dictionary(pa.int8(), pa.string(), ordered=True),
        pa.list_(pa.field("element", pa.string_view(), nullable=False)),
        pa.list_(pa.field("element", pa.float32(), nullable=False), 2),
        pa.list_(pa.field("item", pa.list_(pa.float32(), 2), nullable=False)),
        pa.list_(pa.field("item", pa.struct([pa.field("a", pa.int8(), nullable=False)]), nullable=False), 2),
        pa.list_(pa.field("item", pa.list_(pa.field("x", pa.int8(), nullable=False), 2), nullable=False), 2),
        pa.list_(pa.binary(4), 2),
        pa.list_(pa.decimal128(9, 2), 2),
        pa.list_(pa.timestamp("us"), 2),
        pa.map_(pa.string(), pa.string_view(), keys_sorted=True),
        pa.map_(pa.string(), pa.field("v", pa.int8(), nullable=False)),
        pa.struct([("a", pa.json_()), ("b", pa.list_(pa.list_(pa.binary_view())))]),
        pa.large_list(pa.uuid()),
        pa.fixed_shape_tensor(pa.float32(), [2, 2]),
        pa.decimal256(40, 2),
        pa.null(),
    ],
)
def test_stored_types(tmp_path: Path, kind: pa.DataType) -> None:
    schema = Schema([Column("c", kind), Column("d", int)])
    dataset = lance.write_dataset(
        pa.Table.from_batches([], schema.to_arrow()), tmp_path / "t.lance", data_storage_version="2.2"
    )
    assert decoded(dataset) == schema
