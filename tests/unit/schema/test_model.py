from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import pyarrow as pa
import pytest
from pydantic import BaseModel, Field

from lake.errors import InvalidInput
from lake.schema import Column, Embedding, Role, Schema


class Product(BaseModel):
    sku: Annotated[str, Role.KEY]
    summary: Annotated[str, Role.DESCRIPTION] = Field(description="what it is", min_length=1)
    price: float | None
    made: datetime
    tags: list[str]
    attributes: dict[str, Any] | None = None
    image: Annotated[bytes, Role.BLOB] | None = None
    emb: Annotated[list[float] | None, Embedding(4, of="summary", metric="cosine")] = None
    tokens: Annotated[list[list[float]], Embedding(8, metric="cosine")]
    half: Annotated[list[float], pa.list_(pa.float16(), 2), Embedding(2, metric="dot")]


EXPECTED = Schema(
    [
        Column("sku", str, nullable=False),
        Column("summary", str, "description", nullable=False, description="what it is"),
        Column("price", float),
        Column("made", datetime, nullable=False),
        Column("tags", list[str], nullable=False),
        Column("attributes", dict),
        Column("image", bytes, "blob"),
        Column("emb", Embedding(4, of="summary", metric="cosine")),
        Column("tokens", pa.list_(pa.list_(pa.float32(), 8)), nullable=False),
        Column("half", pa.list_(pa.float16(), 2), nullable=False, embedding=Embedding(2, metric="dot")),
    ],
    key="sku",
)


def test_pydantic_model() -> None:
    assert Schema.from_model(Product) == EXPECTED


@dataclass
class Clip:
    city: str
    number: int
    vector: Annotated[list[float], Embedding(3)] | None = None


def test_dataclass_and_key() -> None:
    schema = Schema.from_model(Clip, key=["city", "number"])
    assert schema == Schema(
        [Column("city", str), Column("number", int), Column("vector", Embedding(3))], key=["city", "number"]
    )


def test_refusals() -> None:
    class Empty:
        pass

    class Odd(BaseModel):
        either: int | str

    with pytest.raises(InvalidInput, match="no annotated fields"):
        Schema.from_model(Empty)
    with pytest.raises(InvalidInput, match="column 'either': no Arrow type is known"):
        Schema.from_model(Odd)
