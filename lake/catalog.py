"""A lake: a root folder or bucket with tables in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from lake.errors import AlreadyExists, CorruptTable, InvalidInput, NotFound
from lake.handle import Table
from lake.schema import Embedding, Role, Schema
from lake.storage import Files, Location, require_put_if_absent, table_name
from lake.table.inputs import Data, infer
from lake.table.progress import Progress
from lake.table.snapshot import Snapshot, drop, move, open_head
from lake.table.write import create_table

_SUFFIX = ".lance"
_VERSIONS = "_versions"
_REQUESTS = 16  # at a time, while tables are listed


def connect(root: str | os.PathLike[str], storage_options: Mapping[str, object] | None = None) -> Lake:
    """Open a lake. Nothing is created until the first table is.

    Parameters
    ----------
    root : str or path
        A local folder, ``s3://bucket/folder``, or whatever else Lance's object store takes (``gs://``, ``az://``).
    storage_options : mapping, optional
        Options of the object store, such as ``aws_access_key_id`` and ``aws_endpoint``; the environment's
        credentials hold where nothing is given. They are never printed.

    Examples
    --------
    >>> import lake
    >>> lk = lake.connect("./demo-lake")
    """
    return Lake(Location.of(root, storage_options))


class Lake:
    """The tables under one root; at the same time a LanceDB database folder.

    Use `connect`.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._files = Files(location)

    @property
    def uri(self) -> str:
        """Where the lake lies."""
        return self._location.uri

    def create_table(
        self,
        name: str,
        data_or_schema: Data | Schema | pa.Schema | type | None = None,
        *,
        key: str | list[str] | tuple[str, ...] | None = None,
        roles: Mapping[str, Role | str] | None = None,
        embeddings: Mapping[str, Embedding] | None = None,
        data: Data | None = None,
        exist_ok: bool = False,
        commit_id: str | None = None,
        progress: Progress | None = None,
    ) -> Table:
        """Create a table, from rows, from a schema, or from both.

        Parameters
        ----------
        name : str
            Letters, digits, ``_``, ``-`` and ``.``.
        data_or_schema
            A `Schema`, an Arrow schema or a pydantic-like class; or rows, as `Table.append` takes them, whose
            columns make the schema.
        key : str or list of str, optional
            The entity key.
        roles, embeddings : mapping, optional
            Column to role or `Embedding`, where the types do not say enough.
        data : optional
            Rows, when the schema is given as well.
        exist_ok : bool
            Open the table if there is one of that name; its schema is not compared.
        commit_id : str, optional
            Creating again with the same id does nothing.

        Raises
        ------
        AlreadyExists
            There is a table of that name.
        InvalidInput
            The name, the schema or a row is not legal, or rows are given twice; nothing is left behind.
        """
        location = self._location.join(table_name(name) + _SUFFIX)
        if exist_ok and name in self:
            return self.open_table(name)
        if data is not None and not _is_schema(data_or_schema):
            raise InvalidInput(
                f"create_table({name!r}): rows are given twice; with data= the second argument is a schema"
            )
        rows = data
        if isinstance(data_or_schema, Schema):
            arrow = data_or_schema.to_arrow()
        elif isinstance(data_or_schema, pa.Schema):
            arrow = data_or_schema
        elif isinstance(data_or_schema, type):
            arrow = Schema.from_model(data_or_schema, key=key).to_arrow()
        else:
            arrow, rows = infer(data_or_schema if data_or_schema is not None else data)
        schema = Schema.from_arrow(arrow, key=key, roles=roles, embeddings=embeddings)
        require_put_if_absent(self._location)
        try:
            create_table(location, schema, rows, commit_id=commit_id, progress=progress)
        except AlreadyExists:
            if not exist_ok:  # else another creator was faster
                raise
        return Table(location)

    def open_table(self, name: str, version: int | None = None, branch: str | None = None) -> Table:
        """Open a table at its newest version, which it then follows, or at a given one, which is pinned.

        Raises
        ------
        NotFound
            There is no such table or version.
        """
        location = self._location.join(table_name(name) + _SUFFIX)
        try:
            pinned = Snapshot(location, version, branch) if version is not None else None
            return Table(location, branch, pinned)
        except NotFound as error:
            if version is None and branch is None:
                raise self._no_table(name) from error
            raise

    def list_tables(self) -> list[str]:
        """Return the names of all tables, sorted.

        A folder is a table from its first manifest on: what a killed creator or an interrupted renaming left is
        none. One request, and one for each table.
        """
        found = [f.removesuffix(_SUFFIX) for f in self._files.folders() if f.endswith(_SUFFIX)]
        names = [name for name in found if _legal(name)]
        with ThreadPoolExecutor(_REQUESTS) as pool:
            return [name for name, made in zip(names, pool.map(self._made, names), strict=True) if made]

    def _made(self, name: str) -> bool:
        folder = table_name(name) + _SUFFIX
        if _VERSIONS not in self._files.folders(folder):
            return False
        if self._location.scheme != "file":  # an object store has no empty folders
            return True
        return any(file.endswith(".manifest") for file in self._files.names(f"{folder}/{_VERSIONS}"))

    def drop_table(self, name: str) -> None:
        """Delete a table with all its versions, tags and indexes. There is no way back.

        One whose manifests cannot be read any more goes as well.

        Raises
        ------
        NotFound
            There is no such table.
        """
        if not self._made(name):
            raise self._no_table(name)
        location = self._location.join(table_name(name) + _SUFFIX)
        try:
            open_head(location)
        except CorruptTable:  # Lance refuses to drop what it cannot read
            _sweep(location)
        else:
            drop(location)

    def _no_table(self, name: str) -> NotFound:
        return NotFound(f"{self.uri} has no table {name!r}; it has {self.list_tables() or 'none'}")

    def rename_table(self, old: str, new: str) -> Table:
        """Give a table another name. Nobody may write to it meanwhile.

        A folder is renamed at once; on an object store every file is copied, the manifests last, so that the
        table appears under its new name only when it is whole.

        Raises
        ------
        NotFound, AlreadyExists
            There is no table ``old``, or there is a table ``new``.
        """
        self.open_table(old)
        target = self._location.join(table_name(new) + _SUFFIX)
        if new in self:
            raise AlreadyExists(f"{self.uri} has a table {new!r} already")
        move(self._location.join(table_name(old) + _SUFFIX), target)
        return Table(target)

    def __getitem__(self, name: str) -> Table:
        return self.open_table(name)

    def __contains__(self, name: object) -> bool:
        return self._made(str(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.list_tables())

    def __len__(self) -> int:
        return len(self.list_tables())

    def __repr__(self) -> str:
        return f"Lake({self.uri!r}, tables={self.list_tables()})"

    def __reduce__(self) -> tuple[type[Lake], tuple[Location]]:
        return Lake, (self._location,)


def _sweep(location: Location) -> None:
    """Delete the files of a folder; manifests last, so that what an interruption leaves can be dropped again."""
    if location.scheme == "file":
        shutil.rmtree(location.uri)
        return
    files = Files(location)
    for name in sorted(files.names(), key=lambda name: (name.startswith(f"{_VERSIONS}/"), name)):
        files.delete(name)


def _is_schema(given: object) -> bool:
    return given is None or isinstance(given, Schema | pa.Schema | type)


def _legal(name: str) -> bool:
    try:
        table_name(name)
    except InvalidInput:
        return False
    return True
