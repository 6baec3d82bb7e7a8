"""Locations: a URI and how to reach it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lake.errors import InvalidInput

# What may be shown of a store's options. Everything else (keys, tokens, SAS strings, whatever a
# provider invents next) is masked: a list of secrets would always be one name short.
_PUBLIC = frozenset(
    {
        "account_name",
        "allow_http",
        "aws_endpoint",
        "aws_region",
        "aws_virtual_hosted_style_request",
        "client_max_retries",
        "client_retry_timeout",
        "connect_timeout",
        "download_retry_count",
        "endpoint",
        "endpoint_url",
        "google_bucket",
        "region",
        "timeout",
        "virtual_hosted_style_request",
    }
)
# Lance takes each S3 option under several names, in any case; one name each, or who asks for one misses the others.
_S3_NAMES = {
    "access_key_id": "aws_access_key_id",
    "secret_access_key": "aws_secret_access_key",
    "aws_token": "aws_session_token",
    "session_token": "aws_session_token",
    "token": "aws_session_token",
    "aws_endpoint_url": "aws_endpoint",
    "aws_endpoint_url_s3": "aws_endpoint",
    "endpoint": "aws_endpoint",
    "endpoint_url": "aws_endpoint",
    "region": "aws_region",
    "virtual_hosted_style_request": "aws_virtual_hosted_style_request",
    "skip_signature": "aws_skip_signature",
    "aws_allow_http": "allow_http",
}
_DEFAULT_REGION = ("aws_default_region", "default_region")  # gives way to a region
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,126}")
_USER = re.compile(r"//[^/]*@")
_SCHEME = re.compile(r"[a-z][a-z0-9+.\-]+://")
# user:password@, where a secret may hold a slash; host:9000/x@y has a port, and container@account no password.
_PASSWORD = re.compile(r"[a-z][a-z0-9+.\-]*://[^/@:]*:(?!\d+/)[^@]*@", re.IGNORECASE)


class StorageOptions(dict[str, str]):
    """Options of an object store as Lance takes them (``aws_access_key_id`` …).

    A plain ``dict[str, str]`` to code, but ``repr``, ``str`` and logs show only what is not secret. Names are in
    lower case, and those that S3 has under several spellings (``endpoint``, ``AWS_ENDPOINT_URL`` …) under one.

    Parameters
    ----------
    options : mapping, optional
        Names and values, in any of the spellings.
    scheme : str
        Of the URL: only S3's names are changed, since other stores mean other things by ``endpoint`` and ``token``.

    Raises
    ------
    InvalidInput
        A value is no text, or an option is given twice with different values; no value is repeated.
    """

    def __init__(self, options: Mapping[str, object] | None = None, scheme: str = "s3") -> None:
        bad = [k for k, v in (options or {}).items() if not isinstance(v, str | bool | int)]
        if bad:
            raise InvalidInput(f"storage_options {bad}: give every value as a string")
        super().__init__()
        given: dict[str, str] = {}
        for name, value in (options or {}).items():
            low = name.lower()
            known = _S3_NAMES.get(low, low) if scheme.startswith("s3") else low
            text = str(value).lower() if isinstance(value, bool) else str(value)
            if self.setdefault(known, text) != text:
                raise InvalidInput(f"storage_options: {given[known]!r} and {name!r} mean the same and differ; give one")
            given[known] = name
        if scheme.startswith("s3"):
            for region in [self.pop(name) for name in _DEFAULT_REGION if name in self]:
                self.setdefault("aws_region", region)

    def __repr__(self) -> str:
        # A URL may hold a password.
        shown = {k: _USER.sub("//***@", v) if k.lower() in _PUBLIC else "***" for k, v in sorted(self.items())}
        return f"StorageOptions({shown})"


@dataclass(frozen=True)
class Location:
    """A folder on a file system or an object store, and how to reach it.

    Parameters
    ----------
    uri : str
        A local path (made absolute) or a URL such as ``s3://bucket/lake``.
    options : StorageOptions
        Options of the store. They travel in pickles (workers need them) and never print.
    """

    uri: str
    options: StorageOptions = field(default_factory=StorageOptions, repr=False, hash=False)

    @classmethod
    def of(cls, uri: str | os.PathLike[str], options: Mapping[str, object] | None = None) -> Location:
        """Normalise what a person writes: ``~``, relative paths, ``file://``, trailing slashes."""
        text = os.fspath(uri)
        if _PASSWORD.match(text):
            raise InvalidInput(
                "the location holds a user and a password, which errors would print: give a URL without them, and "
                "credentials as storage options or in the environment"
            )
        if not text or "\0" in text:
            raise InvalidInput(f"not a location: {text!r}; give a folder or a URL such as s3://bucket/lake")
        if text.startswith("file://"):
            text = text.removeprefix("file://")
        if not _SCHEME.match(text):
            text = str(Path(text).expanduser().absolute())
        scheme = text.split("://", 1)[0] if _SCHEME.match(text) else "file"
        return cls(text.rstrip("/") or "/", StorageOptions(options, scheme))

    @property
    def scheme(self) -> str:
        """``"file"`` for local paths, else the URL's scheme."""
        return self.uri.split("://", 1)[0] if _SCHEME.match(self.uri) else "file"

    @property
    def lake(self) -> Location:
        """The lake that a table here lies in, or that a job's own table here was made for."""
        root, jobs, _ = self.uri.partition("/_jobs/")
        return Location(root if jobs else self.uri.rpartition("/")[0], self.options)

    def join(self, *parts: str) -> Location:
        """Return a location below this one."""
        return Location("/".join([self.uri, *parts]), self.options)


def table_name(name: str) -> str:
    """Check the name of a table; it becomes a folder, and LanceDB must accept it too."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name or name.endswith((".lance", ".")):
        raise InvalidInput(
            f"table name {name!r}: use 1 to 127 letters, digits, '_', '-' or '.', beginning with a letter "
            "or digit, without '..' and not ending in '.' or '.lance'"
        )
    return name
