"""The semantic schema of a table."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from lake.errors import InvalidInput, NotSupported
from lake.schema import codec, model, show
from lake.schema.column import Column, Embedding, check_texts
from lake.schema.names import check_names, find
from lake.schema.roles import Role, as_role

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, init=False, repr=False)
class Schema:
    """What a table's columns mean: its entity key, roles, embeddings and derivations.

    Parameters
    ----------
    columns : iterable of Column
    key : str or iterable of str, optional
        The columns that identify an entity, in order; they become non-nullable and get the role ``key``.
        When not given, the columns that have that role.
    metadata : mapping of str to str, optional
        The user's own schema metadata. Read only.

    Raises
    ------
    InvalidInput
        A name is unsafe (see `lake.schema.names.check_names`), a role is impossible for its type, or an
        embedding or derivation names a column that is not there.

    Examples
    --------
    >>> Schema(
    ...     [
    ...         Column("id", int),
    ...         Column("summary", str, "description"),
    ...         Column("emb", Embedding(384, of="summary", model="minilm", metric="cosine")),
    ...     ],
    ...     key="id",
    ... )
    name     type          role         meaning
    id       int64         key          entity key
    summary  string        description
    emb      float32[384]  vector       of summary, by minilm, cosine
    """

    columns: tuple[Column, ...]
    key: tuple[str, ...]
    metadata: Mapping[str, str] = field(hash=False)

    def __init__(
        self,
        columns: Iterable[Column],
        key: str | Iterable[str] | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        columns = tuple(columns)
        if not columns:
            raise InvalidInput("a schema needs at least one column")
        check_names(column.name for column in columns)
        _check_sources(columns)
        self._fill(columns, key, metadata or {})

    def _fill(self, columns: tuple[Column, ...], key: str | Iterable[str] | None, metadata: Mapping[str, str]) -> None:
        names = [column.name for column in columns]
        if key is None:
            key = [column.name for column in columns if column.role is Role.KEY]
        key = (key,) if isinstance(key, str) else tuple(key)
        if len(set(key)) < len(key):
            raise InvalidInput(f"the key {list(key)} names a column twice")
        for name in key:
            find(name, names)
        for column in columns:
            if column.role is Role.KEY and column.name not in key:
                raise InvalidInput(f"column {column.name!r} has the role 'key' but is not in the key {list(key)}")
        taken = {codec.VERSION, codec.KEY} & metadata.keys()
        if taken:
            raise InvalidInput(f"the schema metadata {', '.join(sorted(taken))} is the lake's own")
        check_texts("the schema", metadata)
        settled = (_as_key(column) if column.name in key else column for column in columns)
        object.__setattr__(self, "columns", tuple(settled))
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "metadata", dict(metadata))

    @classmethod
    def from_arrow(
        cls,
        schema: pa.Schema,
        *,
        key: str | Iterable[str] | None = None,
        roles: Mapping[str, Role | str] | None = None,
        embeddings: Mapping[str, Embedding] | None = None,
    ) -> "Schema":
        """Describe data that is to be written.

        Parameters
        ----------
        schema : pa.Schema
            With or without the lake's metadata, which holds where the arguments say nothing.
        key : str or iterable of str, optional
        roles : mapping of column to Role or str, optional
        embeddings : mapping of column to Embedding, optional

        Raises
        ------
        InvalidInput
            As the class says.
        NotFound
            An argument names a column that is not there.
        """
        roles, embeddings = roles or {}, embeddings or {}
        for name in (*roles, *embeddings):
            find(name, schema.names)
        metadata, marked = codec.decode_schema_metadata(schema)
        if key is None:
            key = marked or [name for name, role in roles.items() if as_role(name, role) is Role.KEY] or None
        columns = [codec.decode_field(f, role=roles.get(f.name), embedding=embeddings.get(f.name)) for f in schema]
        return cls(columns, key, metadata=metadata)

    @classmethod
    def decode(cls, schema: pa.Schema) -> "Schema":
        """Read the schema of a Lance dataset, whoever wrote it.

        Unlike `from_arrow` it accepts what Lance already holds: any column name, and an embedding's source or
        a derivation's input that was since renamed or dropped.

        Raises
        ------
        NotSupported
            A newer lake wrote the table, or its key is of a type without exact equality.
        CorruptTable
            The lake's metadata is damaged or contradicts the columns.
        """
        metadata, key = codec.decode_schema_metadata(schema)
        columns = tuple(codec.decode_field(f) for f in schema)
        decoded = cls.__new__(cls)
        try:
            decoded._fill(columns, key, metadata)  # noqa: SLF001
        except InvalidInput as error:  # such as floats, which Lance allows
            raise NotSupported(f"the table has a key that the lake cannot use: {error}") from error
        return decoded

    @classmethod
    def from_model(cls, entity: type, *, key: str | Iterable[str] | None = None) -> "Schema":
        """Describe a table by an annotated class, such as a pydantic model; see `lake.schema.model`."""
        return cls(model.columns(entity), key)

    def to_arrow(self) -> pa.Schema:
        """Encode everything; ``table.cast(schema.to_arrow())`` is what Lance should be given."""
        positions = {name: i for i, name in enumerate(self.key, 1)}
        fields = [codec.encode_field(column, positions.get(column.name, 0)) for column in self.columns]
        return pa.schema(fields, codec.encode_schema_metadata(self.key, self.metadata))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def vectors(self) -> tuple[Column, ...]:
        """The vector columns."""
        return self._of(Role.VECTOR)

    @property
    def text_columns(self) -> tuple[Column, ...]:
        """The columns of words: the roles text and description."""
        return self._of(Role.TEXT, Role.DESCRIPTION)

    def _of(self, *roles: Role) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.role in roles)

    def column(self, name: str) -> Column:
        """Return a column, or raise `NotFound` with the nearest name."""
        return self.columns[self.names.index(find(name, self.names))]

    __getitem__ = column

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Give the name, type, role and meaning of each column, as printable text."""
        return show.rows(self.columns, self.key)

    def __repr__(self) -> str:
        return show.plain(self.rows())

    def __rich__(self) -> "Table":
        return show.rich_table(self.rows())

    def _repr_html_(self) -> str:
        return show.html_table(self.rows())


def _as_key(column: Column) -> Column:
    try:
        return replace(column, role=Role.KEY, nullable=False, embedding=None)
    except InvalidInput as error:
        raise InvalidInput(f"the key: {error}") from error


def _check_sources(columns: tuple[Column, ...]) -> None:
    names = [column.name for column in columns]
    for column in columns:
        sources = list(column.derivation.inputs) if column.derivation else []
        if column.embedding and column.embedding.of:
            sources.append(column.embedding.of)
        for source in sources:
            find(source, names, f"source of {column.name!r}, column")
            if source == column.name:
                raise InvalidInput(f"column {column.name!r} is made from itself; name another source")
