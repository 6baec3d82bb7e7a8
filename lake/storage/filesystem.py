"""Arrow's file systems, for reading what is not Lance: they list, and read parts of files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lake.errors import InvalidInput, StorageError
from lake.storage.location import Location

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


def filesystem(location: Location) -> tuple[FileSystem, str]:
    """Return the file system of a location, and the location's path in it.

    The options are those that Lance takes; where they say nothing, the environment does.

    Raises
    ------
    InvalidInput
        Arrow has no file system of that scheme.
    StorageError
        The store's own client refuses the options.
    """
    from pyarrow import fs  # who opens only tables does not need it

    if location.scheme == "file":
        return fs.LocalFileSystem(), location.uri
    try:
        if location.scheme in {"s3", "s3a"}:
            return _s3(location), location.uri.split("://", 1)[1]
        found: tuple[FileSystem, str] = fs.FileSystem.from_uri(location.uri)
    except (OSError, ValueError, TypeError, NotImplementedError) as error:
        kind = StorageError if isinstance(error, OSError) else InvalidInput
        raise kind(f"cannot read files at {location.uri}: {error}") from error
    return found


def _s3(location: Location) -> FileSystem:
    from pyarrow.fs import S3FileSystem

    options = location.options
    endpoint = options.get("aws_endpoint") or os.environ.get("AWS_ENDPOINT") or os.environ.get("AWS_ENDPOINT_URL")
    parts = urlsplit(endpoint or "")
    key = options.get("aws_access_key_id")
    return S3FileSystem(
        access_key=key,
        secret_key=options.get("aws_secret_access_key") if key else None,
        session_token=options.get("aws_session_token") if key else None,
        anonymous=options.get("aws_skip_signature") == "true",
        region=options.get("aws_region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        endpoint_override=parts.netloc or None,
        scheme=parts.scheme or "https",
        force_virtual_addressing=options.get("aws_virtual_hosted_style_request") == "true",
    )
