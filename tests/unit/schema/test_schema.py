from dataclasses import FrozenInstanceError, replace
from typing import Any

import pyarrow as pa
import pytest

from lake.errors import CorruptTable, InvalidInput, NotFound, NotSupported
from lake.schema import Column, Derivation, Embedding, Role, Schema, geo_point
from lake.schema.codec import KEY, VERSION
from lake.schema.column import EMBEDDING, KEY_MARK, KEY_POSITION, ROLE

MINILM = Embedding(4, of="summary", model="minilm", metric="cosine", normalized=True)


def products() -> Schema:
    return Schema(
        [
            Column("sku", str, description="stock keeping unit"),
            Column("summary", str, "description"),
            Column("emb", MINILM),
            Column("label", str, derivation=Derivation(("summary",), "classify", "2", {"model": "m"})),
            Column("image", bytes, "blob"),
            Column("attributes", dict),
            Column("place", geo_point(), "geo"),
            Column("tags", list[str]),
        ],
        key="sku",
        metadata={"owner": "shop"},
    )


def test_lookups() -> None:
    schema = products()
    assert schema["emb"].embedding == MINILM
    assert schema["sku"].role is Role.KEY
    assert not schema["sku"].nullable
    assert [c.name for c in schema.vectors] == ["emb"]
    assert [c.name for c in schema.text_columns] == ["summary", "label"]
    assert "emb" in schema
    assert "x" not in schema
    assert [c.name for c in schema] == list(schema.names)
    with pytest.raises(NotFound, match="no column 'sumary'; did you mean 'summary'"):
        schema["sumary"]
    with pytest.raises(NotFound, match="did you mean 'tags'"):
        schema["TAGS"]
    with pytest.raises(NotFound, match="there are sku, summary"):
        schema["zzzz"]


def test_frozen_and_equal_by_value() -> None:
    schema = products()
    assert schema == products()
    assert hash(schema) == hash(products())
    assert schema != replace(schema, metadata={})
    with pytest.raises(FrozenInstanceError):
        schema.key = ()  # type: ignore[misc]


def test_what_is_encoded() -> None:
    arrow = products().to_arrow()
    assert arrow.metadata == {b"owner": b"shop", b"lake.format_version": b"1", b"lake.key": b'["sku"]'}
    sku = arrow.field("sku")
    assert not sku.nullable
    assert sku.metadata == {
        b"lake.role": b"key",
        b"lake.description": b"stock keeping unit",
        b"lance-schema:unenforced-primary-key": b"true",
        b"lance-schema:unenforced-primary-key:position": b"1",
    }
    assert arrow.field("image").metadata[b"lance-encoding:blob"] == b"true"
    assert arrow.field("place").metadata[b"ARROW:extension:name"] == b"geoarrow.point"
    assert arrow.field("attributes").type == pa.json_()


def test_key_by_role_or_by_name_and_in_the_order_given() -> None:
    a, b = Column("a", int), Column("b", int)
    assert Schema([a, replace(b, role=Role.KEY)]).key == ("b",)
    schema = Schema([a, b], key=["b", "a"])
    assert schema.key == ("b", "a")
    assert Schema.decode(schema.to_arrow()) == schema
    assert Schema([a, b]).key == ()


@pytest.mark.parametrize(
    ("kind", "role"),
    [
        (pa.string(), "text"),
        (pa.large_string(), "text"),
        (pa.string_view(), "text"),
        (pa.dictionary(pa.int8(), pa.string()), "category"),
        (pa.list_(pa.string()), "tags"),
        (pa.int64(), "number"),
        (pa.decimal128(9, 2), "number"),
        (pa.bool_(), "boolean"),
        (pa.date32(), "time"),
        (pa.timestamp("us", "UTC"), "time"),
        (pa.json_(), "json"),
        (pa.json_(pa.large_string()), "json"),
        (pa.list_(pa.float16(), 8), "vector"),
        (pa.list_(pa.uint8(), 8), "vector"),
        (pa.list_(pa.int8(), 8), "vector"),
        (pa.list_(pa.list_(pa.float32(), 8)), "vector"),
        (pa.list_(pa.float32()), "other"),
        (pa.list_(pa.int32(), 8), "other"),
        (pa.list_(pa.list_(pa.uint8(), 8)), "other"),
        (pa.large_list(pa.list_(pa.float32(), 8)), "other"),
        (pa.binary(), "other"),
        (pa.large_binary(), "other"),
        (pa.struct([("x", pa.float64()), ("y", pa.float64())]), "other"),
    ],
)
def test_inferred_roles(kind: pa.DataType, role: str) -> None:
    assert Column("c", kind).role == role


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        (pa.list_(pa.float32(), 2), "l2"),
        (pa.list_(pa.uint8(), 2), "hamming"),
        (pa.list_(pa.list_(pa.float32(), 2)), "cosine"),
    ],
)
def test_every_vector_has_an_embedding(kind: pa.DataType, metric: str) -> None:
    embedding = Column("v", kind).embedding
    assert embedding is not None
    assert (embedding.dimension, embedding.metric) == (2, metric)


@pytest.mark.parametrize(
    ("kind", "role", "message"),
    [
        (pa.list_(pa.float32()), "vector", r"'c' of type list<item: float>.*'vector'.*fixed-size list"),
        (pa.int64(), "text", "cast it to string"),
        (pa.string(), "number", "integer, float or decimal"),
        (pa.string(), "tags", "list<string>"),
        (pa.float64(), "category", "dictionary"),
        (pa.float64(), "key", "one equality"),
        (pa.bool_(), "key", "one equality"),
        (pa.list_(pa.float32(), 2), "geo", "geo_point"),
        (pa.int64(), "json", "pa.json_"),
        (pa.string(), "blob", "large_binary"),
        (pa.int64(), "boolean", "bool"),
        (pa.int64(), "time", "timestamp"),
        (pa.int64(), "colour", "no role 'colour'; there are key, text"),
    ],
)
def test_impossible_roles(kind: pa.DataType, role: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Column("c", kind, role)


def test_embeddings_are_checked() -> None:
    with pytest.raises(InvalidInput, match="holds 3 elements, its embedding says 4"):
        Column("v", pa.list_(pa.float32(), 3), embedding=Embedding(4))
    with pytest.raises(InvalidInput, match="by hamming, not l2"):
        Column("v", pa.list_(pa.uint8(), 3), embedding=Embedding(3))
    with pytest.raises(InvalidInput, match="hamming needs uint8"):
        Column("v", Embedding(3, metric="hamming"))
    with pytest.raises(InvalidInput, match="fixed-size list"):
        Column("v", pa.list_(pa.float32()), embedding=Embedding(3))
    with pytest.raises(InvalidInput, match="leave out one"):
        Column("v", str, "text", embedding=Embedding(3))
    with pytest.raises(NotFound, match="source of 'v', column 'sumary'; did you mean 'summary'"):
        Schema([Column("summary", str), Column("v", Embedding(3, of="sumary"))])
    with pytest.raises(InvalidInput, match="made from itself"):
        Schema([Column("v", Embedding(3, of="v"))])


@pytest.mark.parametrize(
    "bad",
    [
        {"dimension": 0},
        {"dimension": True},
        {"dimension": "3"},
        {"dimension": 3, "metric": "L2"},
        {"dimension": 3, "of": ""},
        {"dimension": 3, "model": 7},
        {"dimension": 3, "normalized": 1},
    ],
)
def test_embedding_refuses(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Embedding(**bad)


def test_derivation_refuses() -> None:
    with pytest.raises(InvalidInput, match=r"write \('summary',\)"):
        Derivation("summary", "f", "1")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="name of its function"):
        Derivation((), "", "1")
    with pytest.raises(InvalidInput, match="text only, not 3"):
        Derivation(("a",), "f", "1", {"k": 3})  # type: ignore[dict-item]
    with pytest.raises(NotFound, match="source of 'a', column 'b'"):
        Schema([Column("a", str, derivation=Derivation(("b",), "f", "1"))])


def test_schema_refuses() -> None:
    a, b = Column("a", int), Column("b", int)
    with pytest.raises(InvalidInput, match="at least one column"):
        Schema([])
    with pytest.raises(NotFound, match="no column 'c'"):
        Schema([a], key="c")
    with pytest.raises(InvalidInput, match="names a column twice"):
        Schema([a], key=["a", "a"])
    with pytest.raises(InvalidInput, match="'b' has the role 'key' but is not in the key"):
        Schema([a, replace(b, role=Role.KEY)], key="a")
    with pytest.raises(InvalidInput, match=r"the key: column 'v' of type fixed_size_list"):
        Schema([Column("v", Embedding(3))], key="v")
    with pytest.raises(InvalidInput, match=r"the key: column 'image'"):
        Schema([Column("image", bytes, "blob")], key="image")
    with pytest.raises(InvalidInput, match="lake's own"):
        Schema([a], metadata={VERSION: "1"})
    with pytest.raises(InvalidInput, match="lake's own"):
        Column("a", int, metadata={ROLE: "text"})
    with pytest.raises(InvalidInput, match="the schema: 3 in its metadata is not text"):
        Schema([a], metadata={"k": 3})  # type: ignore[dict-item]
    with pytest.raises(InvalidInput, match="not text in UTF-8"):
        Column("a", int, description="\ud800")


def test_from_arrow() -> None:
    arrow = pa.schema(
        [
            ("id", pa.int64()),
            ("body", pa.string()),
            ("v", pa.list_(pa.float32(), 4)),
            ("raw", pa.binary()),
            pa.field("kept", pa.int8(), False, {"unit": "kg"}),
        ],
        {"owner": "shop"},
    )
    schema = Schema.from_arrow(
        arrow,
        key="id",
        roles={"body": "description", "raw": Role.BLOB},
        embeddings={"v": Embedding(4, of="body", metric="dot")},
    )
    assert schema.key == ("id",)
    assert schema["body"].role is Role.DESCRIPTION
    assert schema["raw"].type == pa.large_binary()
    assert schema["v"].embedding == Embedding(4, of="body", metric="dot")
    assert schema["kept"].metadata == {"unit": "kg"}
    assert not schema["kept"].nullable
    assert schema.metadata == {"owner": "shop"}
    assert Schema.from_arrow(arrow, roles={"id": "key"}).key == ("id",)
    with pytest.raises(NotFound, match="did you mean 'body'"):
        Schema.from_arrow(arrow, roles={"boddy": "text"})
    with pytest.raises(NotFound, match="no column 'w'"):
        Schema.from_arrow(arrow, embeddings={"w": Embedding(4)})
    with pytest.raises(InvalidInput, match="not UTF-8"):
        Schema.from_arrow(arrow.with_metadata({b"x": b"\xff"}))
    with pytest.raises(InvalidInput, match="not UTF-8"):
        Schema.from_arrow(pa.schema([pa.field("a", pa.int8(), metadata={b"x": b"\xff"})]))


def test_arguments_replace_what_the_metadata_says() -> None:
    arrow = products().to_arrow()
    assert Schema.from_arrow(arrow, key=()).key == ()
    assert Schema.from_arrow(arrow, key="label").key == ("label",)
    assert Schema.from_arrow(arrow, key="label")["sku"].role is Role.TEXT
    assert Schema.from_arrow(arrow, roles={"emb": "other"})["emb"].embedding is None
    assert Schema.from_arrow(arrow, embeddings={"emb": Embedding(4)})["emb"].embedding == Embedding(4)
    assert Schema.from_arrow(arrow, roles={"emb": "vector"}) == products()


def with_field(arrow: pa.Schema, name: str, **metadata: str) -> pa.Schema:
    index = arrow.get_field_index(name)
    field = arrow.field(index)
    changed = {k.encode(): v.encode() for k, v in metadata.items()}
    return arrow.set(index, field.with_metadata(field.metadata | changed))


@pytest.mark.parametrize(
    ("name", "metadata", "message"),
    [
        ("emb", {EMBEDDING: "{"}, "'emb': lake.embedding is not JSON"),
        ("emb", {EMBEDDING: "[" * 100_000}, "not JSON"),
        ("emb", {EMBEDDING: "[]"}, "not a JSON object"),
        ("emb", {EMBEDDING: "{}"}, "dimension"),
        ("emb", {EMBEDDING: '{"dimension": 4, "metric": "__import__"}'}, "no metric"),
        ("emb", {EMBEDDING: '{"dimension": 5}'}, "holds 4 elements"),
        ("emb", {ROLE: "text"}, "contradicts"),
        ("sku", {ROLE: "vector"}, "fixed-size"),
        ("summary", {ROLE: "nonsense"}, "no role"),
        ("label", {"lake.derivation": '{"inputs": 3, "function": "f", "version": "1"}'}, "not valid"),
        ("sku", {KEY_POSITION: "first"}, "not a position"),
    ],
)
def test_corrupt_fields(name: str, metadata: dict[str, str], message: str) -> None:
    with pytest.raises(CorruptTable, match=message):
        Schema.decode(with_field(products().to_arrow(), name, **metadata))


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        ({VERSION: "2"}, NotSupported, "lake format 2, this library reads up to 1"),
        ({VERSION: "9" * 5_000}, NotSupported, "newer semlake"),
        ({VERSION: "one"}, CorruptTable, "not a number"),
        ({KEY: "sku"}, CorruptTable, "not JSON"),
        ({KEY: '{"sku": 1}'}, CorruptTable, "not a list of names"),
        ({KEY: '["sku", "sku"]'}, CorruptTable, "entity key"),
        ({KEY: '["sku", "gone"]'}, CorruptTable, "has lost .'gone'."),
    ],
)
def test_corrupt_schemas(metadata: dict[str, str], error: type[Exception], message: str) -> None:
    arrow = products().to_arrow()
    with pytest.raises(error, match=message):
        Schema.decode(arrow.with_metadata(arrow.metadata | {k.encode(): v for k, v in metadata.items()}))


def test_unknown_members_of_a_record_are_left_out() -> None:
    arrow = with_field(products().to_arrow(), "emb", **{EMBEDDING: '{"dimension": 4, "later": 1}'})
    assert Schema.decode(arrow)["emb"].embedding == Embedding(4)


def test_decode_accepts_what_lance_already_holds() -> None:
    foreign = Schema.decode(pa.schema([("_id", pa.string()), ("a", pa.int8()), ("A", pa.int8())]))
    assert foreign.names == ("_id", "a", "A")
    renamed = products().to_arrow().remove(1)
    assert Schema.decode(renamed)["emb"].embedding == MINILM
    with pytest.raises(InvalidInput, match="begins with an underscore"):
        Schema.from_arrow(foreign.to_arrow())
    with pytest.raises(NotFound, match="source of 'emb'"):
        Schema.from_arrow(renamed)


@pytest.mark.parametrize("mark", [{KEY_MARK: "true"}, {KEY_MARK: "True"}, {KEY_POSITION: "1"}])
def test_keys_that_others_marked(mark: dict[str, str]) -> None:
    arrow = pa.schema([pa.field("a", pa.int64(), False, mark), pa.field("b", pa.int64())])
    assert Schema.decode(arrow).key == ("a",)


def test_keys_that_others_marked_on_floats() -> None:
    arrow = pa.schema([pa.field("a", pa.float64(), False, {KEY_MARK: "true"})])
    with pytest.raises(NotSupported, match="one equality"):
        Schema.decode(arrow)
