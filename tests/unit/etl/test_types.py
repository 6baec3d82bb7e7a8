"""Names of types."""

from __future__ import annotations

import pyarrow as pa
import pytest

from lake.errors import InvalidInput
from lake.etl.types import as_type

TYPES = {
    "int64": pa.int64(),
    "string": pa.string(),
    "double": pa.float64(),
    "date32": pa.date32(),
    "timestamp[us]": pa.timestamp("us"),
    "timestamp[ms, Europe/Berlin]": pa.timestamp("ms", tz="Europe/Berlin"),
    "decimal(10, 2)": pa.decimal128(10, 2),
    "list<string>": pa.list_(pa.string()),
    "list<list<int8>>": pa.list_(pa.list_(pa.int8())),
    "float32[384]": pa.list_(pa.float32(), 384),
    "json": pa.json_(),
}


@pytest.mark.parametrize("name", TYPES)
def test_a_name_means_a_type(name: str) -> None:
    assert as_type(f" {name} ") == TYPES[name]


@pytest.mark.parametrize(
    "name", ["", "integer", "float32[x]", "list<>", "list<integer>", "timestamp[h, UTC]", "decimal(99, 2)"]
)
def test_what_means_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="no type"):
        as_type(name)
