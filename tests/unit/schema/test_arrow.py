import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lake.errors import InvalidInput
from lake.schema import Column, Role, geo_point, points
from lake.schema.arrow import arrow_type


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (str, pa.string()),
        (int, pa.int64()),
        (bool, pa.bool_()),
        (bytes, pa.large_binary()),
        (dict[str, Any], pa.json_()),
        (Mapping[str, int], pa.json_()),
        (dt.datetime, pa.timestamp("us", "UTC")),
        (list[str], pa.list_(pa.string())),
        (Sequence[list[int]], pa.list_(pa.list_(pa.int64()))),
    ],
)
def test_python_types(spec: Any, kind: pa.DataType) -> None:
    assert arrow_type("c", spec) == kind


@pytest.mark.parametrize("spec", [object, list, "string", None, complex, int | str, np.ndarray])
def test_unknown_types(spec: Any) -> None:
    with pytest.raises(InvalidInput, match="column 'c': no Arrow type is known"):
        arrow_type("c", spec)


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (pa.month_day_nano_interval(), "duration"),
        (pa.list_view(pa.int8()), "a list"),
        (pa.decimal32(5, 2), "decimal128"),
        (pa.run_end_encoded(pa.int32(), pa.int8()), "dictionary"),
        (pa.dense_union([pa.field("a", pa.int8())]), "struct"),
        (pa.list_(pa.string(), 2), "list<string>"),
        (pa.struct([("a", pa.list_(pa.binary(), 2))]), "list<binary>"),
        (pa.list_(pa.float32(), 0), "at least one"),
    ],
)
def test_types_that_lance_cannot_store(kind: pa.DataType, remedy: str) -> None:
    with pytest.raises(InvalidInput, match=f"column 'c': .*{remedy}"):
        Column("c", kind)


def test_marks_that_lance_and_geoarrow_leave() -> None:
    lance_json = Column("c", pa.large_binary(), metadata={"ARROW:extension:name": "lance.json"})
    assert (lance_json.type, lance_json.role, lance_json.metadata) == (pa.json_(), Role.JSON, {})
    blob = Column("c", pa.struct([("data", pa.large_binary())]), metadata={"ARROW:extension:name": "lance.blob.v2"})
    assert blob == Column("c", bytes, "blob")
    wkb = Column("c", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})
    assert wkb.role is Role.GEO
    assert wkb == Column("c", pa.binary(), "geo")
    with pytest.raises(InvalidInput, match="blob_handling"):
        Column("c", pa.struct([("position", pa.uint64())]), metadata={"lance-encoding:blob": "true"})


def test_registered_geoarrow_types_are_their_storage() -> None:
    class Point(pa.ExtensionType):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(geo_point(), "geoarrow.point")

        def __arrow_ext_serialize__(self) -> bytes:
            return b"{}"

    column = Column("c", Point())
    assert (column.type, column.role) == (geo_point(), Role.GEO)
    assert column.metadata == {"ARROW:extension:name": "geoarrow.point", "ARROW:extension:metadata": "{}"}


def test_points() -> None:
    array = points([1.0, None, 3.0], np.array([2.0, 4.0, -90.0]))
    assert array.type == geo_point()
    assert array.to_pylist() == [{"x": 1.0, "y": 2.0}, None, {"x": 3.0, "y": -90.0}]
    assert len(points([], [])) == 0
    with pytest.raises(InvalidInput, match="2 longitudes but 1 latitudes"):
        points([1, 2], [1])
    with pytest.raises(InvalidInput, match=r"latitude in row 1 is 91.0; degrees lie within ±90"):
        points([1, 2], [1, 91])
    with pytest.raises(InvalidInput, match="longitude in row 0 is nan"):
        points([float("nan")], [1])
