"""What a load reads, makes of it, and writes: plain data, checked as it is made.

The steps have one order, whatever the order in which they are written: flatten, rename, cast, filter, select,
check, deduplicate. So a filter sees columns that are not kept, under their new names and types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from lake.schema import Embedding, Role

Format = Literal["parquet", "csv", "jsonl"]


def _listed(given: Any) -> Any:
    """Let one thing stand for a list of it."""
    return (given,) if isinstance(given, str) else given


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class Spec(BaseModel):
    """Base of all: immutable, no unknown names, and no value in an error's text."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Source(Spec):
    """Where rows come from: files, or a table of a lake.

    Parameters
    ----------
    files : str or list of str
        Paths, folders or patterns with ``*``, ``?`` and ``**``; local, or URLs such as ``s3://bucket/in/*.parquet``.
    format : {"parquet", "csv", "jsonl"}, optional
        By the files' endings where it is not given; ``.gz`` is unpacked.
    delimiter : str
        Between the fields of CSV.
    nulls : list of str
        What a field of CSV reads when it has no value.
    types : mapping of column to type
        Of CSV and JSON lines, where the first rows do not show them; see `lake.etl.types`.
    table : str
        Instead of files: a table of the lake, or the URL of one elsewhere.
    version : int or str, optional
        Of the table: a version, a tag, or a time in ISO 8601; the newest by default.
    where : str, optional
        Of the table: rows that do not match are not read at all.
    columns : list of str, optional
        Of Parquet files and tables: read only these.
    spark : str, optional
        Instead of both: a query in Spark SQL. Its result is kept in the job's folder until the job is done.
    ray : mapping, optional
        Instead of all: a dataset of Ray's. ``read`` names the reader, such as ``webdataset``, the rest are its
        arguments, such as ``paths``. Its rows are kept as those of a query are.
    storage_options : mapping, optional
        Of the files' or the other table's store; the lake's own by default. They never print.
    """

    files: Names = ()
    format: Format | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    nulls: Names = ("",)
    types: Mapping[str, str] = Field(default_factory=dict)
    table: str | None = None
    version: int | str | None = None
    where: str | None = None
    columns: Names | None = None
    spark: str | None = None
    ray: Mapping[str, Any] | None = Field(default=None, repr=False)
    storage_options: Mapping[str, Any] | None = Field(default=None, repr=False)

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("files", "table", "spark", "ray") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give one of files, table, spark and ray, not {given or 'none'}")
        if (self.spark or self.ray) and self.storage_options is not None:
            raise ValueError("storage_options belongs to files or table: engines have stores of their own")
        if self.ray is not None and not isinstance(self.ray.get("read"), str):
            raise ValueError("ray: give read, one of Ray's readers, such as read: avro")
        of = {"version": "table", "where": "table", "format": "files", "types": "files"}
        for name, kind in of.items():
            if getattr(self, name) and kind not in given:
                raise ValueError(f"{name} belongs to {kind}")
        return self


class Transform(Spec):
    """What is made of the rows.

    Parameters
    ----------
    flatten : bool or list of str
        Make columns of the fields of struct columns, at any depth: all of them, or those of some columns.
    separator : str
        Between the names of a column and of its field.
    rename : mapping of str to str
        Old name to new.
    cast : mapping of column to type
        By new names. A value that cannot be cast without loss refuses its row.
    filter : str, optional
        SQL, as everywhere in the lake; it sees all columns but vectors. Rows that do not match are counted.
    select : list of str, optional
        The columns to keep, by new names; all by default.
    """

    flatten: bool | Names = False
    separator: str = "_"
    rename: Mapping[str, str] = Field(default_factory=dict)
    cast: Mapping[str, str] = Field(default_factory=dict)
    filter: str | None = None
    select: Names | None = None


class Deduplicate(Spec):
    """Which of several rows of one key is kept, across the whole load.

    Parameters
    ----------
    keep : {"last", "first"}
        By the order of the source, or of `order_by`.
    order_by : str, optional
        A column that is written. Among equals the order of the source decides; null and NaN come before all values.
    key : list of str, optional
        By the table's entity key where it is not given.
    """

    keep: Literal["last", "first"] = "last"
    order_by: str | None = None
    key: Names | None = None


class Vector(Spec):
    """An embedding column of a table that is to be made; see `lake.Embedding`."""

    dimension: Annotated[int, Field(ge=1)]
    of: str | None = None
    model: str | None = None
    metric: Literal["l2", "cosine", "dot", "hamming"] = "l2"
    normalized: bool = False

    def embedding(self) -> Embedding:
        """Return it as the schema has it."""
        return Embedding(self.dimension, of=self.of, model=self.model, metric=self.metric, normalized=self.normalized)


class Into(Spec):
    """Where the rows go.

    Parameters
    ----------
    table : str
        Made if it is not there, with the key, the roles and the embeddings that are given here.
    mode : {"append", "merge"}
        Add rows, or update and insert by entity key.
    key : list of str, optional
        The entity key; of a table that is there it must be the same.
    """

    table: str
    mode: Literal["append", "merge"] = "append"
    key: Names = ()
    roles: Mapping[str, Role] = Field(default_factory=dict)
    embeddings: Mapping[str, Vector] = Field(default_factory=dict)


class Refused(Spec):
    """What becomes of rows that are refused.

    Parameters
    ----------
    table : str, optional
        Where they go, with the reason; ``<table>__refused`` by default.
    at_most : int, optional
        More than these, and nothing is written to the table; the refused rows are kept nevertheless.
    """

    table: str | None = None
    at_most: Annotated[int, Field(ge=0)] | None = None


class Load(Spec):
    """A whole load.

    Parameters
    ----------
    source : Source
    into : Into
    transform : Transform
    deduplicate : Deduplicate, optional
    refused : Refused
    """

    source: Source
    into: Into
    transform: Transform = Transform()
    deduplicate: Deduplicate | None = None
    refused: Refused = Refused()

    @property
    def dead_letters(self) -> str:
        """The name of the table of refused rows."""
        return self.refused.table or f"{self.into.table}__refused"
