"""Plain files in a location, through the very object store that Lance uses for tables."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lance.file import LanceFileSession

from lake.errors import StorageError
from lake.storage.location import Location

# What Lance raises when a store fails; which of them, differs from call to call.
_FAILURES = (OSError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Files:
    """Read, write, list and delete small files under one location.

    Lance's own sessions do the work, so that every store that can hold a table works here with the
    same options. Names are relative to the location, with ``/`` between parts.
    """

    location: Location

    @functools.cached_property
    def _session(self) -> LanceFileSession:
        return LanceFileSession(self.location.uri, storage_options=dict(self.location.options))

    def names(self, folder: str | None = None) -> Iterator[str]:
        """Yield the names of all files below ``folder``, relative to the location."""
        try:
            yield from sorted(self._session.list(folder))
        except _FAILURES as error:
            if not self._absent(error):
                raise self._failed("list", folder or "", error) from error

    def folders(self, folder: str | None = None) -> list[str]:
        """Return the names of the folders directly in the location, or in a folder of it."""
        try:
            found = self._session.list_with_delimiter(folder)
        except _FAILURES as error:
            if self._absent(error):
                return []
            raise self._failed("list", folder or "", error) from error
        return sorted(prefix.rstrip("/").rsplit("/", 1)[-1] for prefix in found.common_prefixes)

    def exists(self, name: str) -> bool:
        """Tell whether a file of that name is there."""
        try:
            return bool(self._session.contains(name))
        except _FAILURES as error:
            raise self._failed("look for", name, error) from error

    def read(self, name: str) -> bytes:
        """Return a whole file."""
        if self.location.scheme == "file":  # where sessions copy 2 KiB at a time
            try:
                return Path(self.location.uri, name).read_bytes()
            except OSError as error:
                raise self._failed("read", name, error) from error
        with tempfile.TemporaryDirectory(prefix="lake-") as folder:
            return self.download(name, Path(folder) / "copy").read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file, replacing what was there."""
        with tempfile.TemporaryDirectory(prefix="lake-") as folder:
            copy = Path(folder) / "copy"
            copy.write_bytes(data)
            self.upload(copy, name)

    def delete(self, name: str) -> None:
        """Delete a file; one that is not there is no error."""
        try:
            self._session.delete_file(name)
        except _FAILURES as error:
            if self.exists(name):
                raise self._failed("delete", name, error) from error

    def copy_to(self, other: Files, name: str) -> None:
        """Copy one file into another location, through this machine's disk."""
        with tempfile.TemporaryDirectory(prefix="lake-") as folder:
            other.upload(self.download(name, Path(folder) / "copy"), name)

    def download(self, name: str, copy: Path) -> Path:
        """Copy a file to this machine's disk; return where it is."""
        try:
            self._session.download_file(name, str(copy))
        except _FAILURES as error:
            raise self._failed("read", name, error) from error
        return copy

    def upload(self, copy: Path, name: str) -> None:
        """Copy a file from this machine's disk, replacing what was there."""
        try:
            self._session.upload_file(str(copy), name)
        except _FAILURES as error:
            raise self._failed("write", name, error) from error

    def _absent(self, error: Exception) -> bool:
        # An object store lists nothing where no folder is; what it does not find then is the bucket.
        return self.location.scheme == "file" and "not found" in str(error).lower()

    def _failed(self, verb: str, name: str, error: Exception) -> StorageError:
        return StorageError(f"cannot {verb} {self.location.uri}/{name}: {error}")
