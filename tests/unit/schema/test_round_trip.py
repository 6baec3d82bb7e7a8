"""Random schemas survive Arrow, and random damage is refused by type."""

import contextlib
import json
import pickle

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.errors import InvalidInput, LakeError
from lake.schema import Column, Derivation, Embedding, Role, Schema, check_names, geo_point
from lake.schema.codec import KEY, VERSION
from lake.schema.column import DERIVATION, EMBEDDING, KEY_MARK, KEY_POSITION, ROLE

words = st.text(max_size=12)
names = st.text(st.characters(categories=["L", "Nd", "Zs", "Pd", "Po", "S"]), min_size=1, max_size=8)
metadata = st.dictionaries(st.text(min_size=1, max_size=6).map("user.".__add__), words, max_size=3)

leaves = st.sampled_from(
    [
        pa.string(),
        pa.large_string(),
        pa.int8(),
        pa.uint64(),
        pa.float16(),
        pa.float64(),
        pa.bool_(),
        pa.binary(),
        pa.binary(4),
        pa.large_binary(),
        pa.date32(),
        pa.timestamp("ms"),
        pa.timestamp("us", "Europe/Berlin"),
        pa.duration("s"),
        pa.decimal128(12, 3),
        pa.json_(),
        pa.uuid(),
        pa.dictionary(pa.int16(), pa.string()),
    ]
)
types = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(pa.list_, inner),
        st.builds(pa.large_list, inner),
        st.builds(lambda t, n: pa.struct([pa.field("a", t, n), ("b", pa.int64())]), inner, st.booleans()),
    ),
    max_leaves=3,
)
key_types = st.sampled_from([pa.string(), pa.int64(), pa.binary(8), pa.date32(), pa.uuid()])


def _safe(found: list[str]) -> bool:
    try:
        check_names(found)
    except InvalidInput:
        return False
    return True


@st.composite
def _vectors(draw: st.DrawFn, name: str, sources: list[str]) -> Column:
    dimension = draw(st.integers(1, 2000))
    element = draw(st.sampled_from([pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.uint8()]))
    kind = pa.list_(element, dimension)
    binary = element == pa.uint8()
    if element == pa.float32() and draw(st.booleans()):
        kind = pa.list_(kind)
    embedding = Embedding(
        dimension,
        of=draw(st.none() | st.sampled_from(sources)),
        model=draw(st.none() | st.text(min_size=1, max_size=9)),
        metric="hamming" if binary else draw(st.sampled_from(["l2", "cosine", "dot"])),
        normalized=draw(st.booleans()),
    )
    return Column(name, kind, embedding=draw(st.sampled_from([embedding, None])), metadata=draw(metadata))


@st.composite
def _columns(draw: st.DrawFn, name: str, others: list[str]) -> Column:
    if others and draw(st.integers(0, 3)) == 0:
        return draw(_vectors(name, others))
    kind, role = draw(
        st.one_of(
            st.tuples(types, st.none()),
            st.tuples(types, st.just(Role.OTHER)),
            st.sampled_from(
                [
                    (pa.string(), Role.DESCRIPTION),
                    (pa.string(), Role.JSON),
                    (pa.binary(), Role.BLOB),
                    (pa.int32(), Role.CATEGORY),
                    (geo_point(), Role.GEO),
                    (pa.string(), Role.GEO),
                ]
            ),
        )
    )
    derivations = st.builds(
        Derivation,
        st.lists(st.sampled_from(others), max_size=2).map(tuple) if others else st.just(()),
        st.text(min_size=1, max_size=9),
        words,
        st.dictionaries(words, words, max_size=2),
    )
    return Column(
        name,
        kind,
        role,
        nullable=draw(st.booleans()),
        derivation=draw(st.none() | derivations),
        description=draw(words),
        metadata=draw(metadata),
    )


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """Any schema that the lake accepts."""
    found = draw(st.lists(names, min_size=1, max_size=6).filter(_safe))
    key = draw(st.lists(st.sampled_from(found), max_size=3, unique=True))
    columns = []
    for name in found:
        others = [n for n in found if n != name]
        columns.append(
            Column(name, draw(key_types), description=draw(words)) if name in key else draw(_columns(name, others))
        )
    return Schema(columns, key, metadata=draw(metadata))


@given(schemas())
@settings(max_examples=150)
def test_round_trip(schema: Schema) -> None:
    arrow = schema.to_arrow()
    assert Schema.decode(arrow) == schema
    assert Schema.from_arrow(arrow) == schema
    assert hash(Schema.decode(arrow)) == hash(schema)
    assert Schema.decode(arrow).to_arrow().equals(arrow, check_metadata=True)
    assert Schema(schema.columns, schema.key, metadata=schema.metadata) == schema
    assert pickle.loads(pickle.dumps(schema)) == schema
    assert len(schema.rows()) == len(schema) == len(repr(schema).splitlines()) - 1


@given(schemas())
@settings(max_examples=50)
def test_survives_serialized_arrow(schema: Schema) -> None:
    arrow = pa.ipc.read_schema(schema.to_arrow().serialize())
    assert Schema.decode(arrow) == schema


@given(schemas(), st.data())
@settings(max_examples=150)
def test_damage_is_refused_by_type(schema: Schema, data: st.DataObject) -> None:
    hostile = st.one_of(
        st.text(max_size=9),
        st.sampled_from(["[" * 100_000, "9" * 5_000, "-1", "{}", "null", "true", '{"dimension": true}']),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=5) | st.floats(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["dimension", "of", "metric", "inputs", "function", "parameters", "version"]),
                    inner,
                )
            ),
        ).map(json.dumps),
    )
    arrow = schema.to_arrow()
    index = data.draw(st.integers(0, len(arrow) - 1))
    where = data.draw(st.sampled_from([ROLE, EMBEDDING, DERIVATION, KEY_MARK, KEY_POSITION, KEY, VERSION]))
    value = data.draw(hostile)
    if where in {KEY, VERSION}:
        arrow = arrow.with_metadata({**arrow.metadata, where.encode(): value})
    else:
        field = arrow.field(index)
        arrow = arrow.set(index, field.with_metadata({**field.metadata, where.encode(): value}))
    with contextlib.suppress(LakeError):
        Schema.decode(arrow)
