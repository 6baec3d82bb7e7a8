"""Whether a store honours put-if-absent.

Every commit is a put that must fail when the version exists already. A store that ignores the
condition acknowledges both of two racing commits and keeps one (s3rver and ``rclone serve s3`` lose
half of the rows of four concurrent writers), so the first write to a root tries it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid

from lake.errors import StorageError, UnsafeStore
from lake.storage.location import Location

_proven: set[tuple[str, str]] = set()
_lock = threading.Lock()


def require_put_if_absent(root: Location) -> None:
    """Refuse a store on which concurrent commits would lose rows.

    Local file systems link atomically, and Google's and Azure's stores have no mode without the
    condition; only S3 has imitations that accept and ignore it. One try a bucket and process.

    Raises
    ------
    UnsafeStore
        The second of two conditional puts of one object succeeded.
    """
    if not root.scheme.startswith("s3"):
        return
    store = (_endpoint(root) or "", root.uri.split("/", 3)[2])
    with _lock:
        if store not in _proven:
            _probe_s3(root)
            _proven.add(store)


def _endpoint(root: Location) -> str | None:
    """Return where Lance would go: botocore does not know the first of the environment's names."""
    named = (root.options.get("aws_endpoint"), os.environ.get("AWS_ENDPOINT"), os.environ.get("AWS_ENDPOINT_URL"))
    return next((endpoint for endpoint in named if endpoint), None)


def _probe_s3(root: Location) -> None:
    import s3fs  # half a second that only the first write to S3 should pay
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    options = root.options
    store = s3fs.S3FileSystem(
        key=options.get("aws_access_key_id"),
        secret=options.get("aws_secret_access_key"),
        token=options.get("aws_session_token"),
        endpoint_url=_endpoint(root),
        client_kwargs={"region_name": options["aws_region"]} if options.get("aws_region") else {},
        anon=options.get("aws_skip_signature") == "true",
        skip_instance_cache=True,
    )
    path = f"{root.uri.split('://', 1)[1]}/_jobs/.probe-{uuid.uuid4().hex}"
    try:
        store.pipe_file(path, b"first", mode="create")
        try:
            store.pipe_file(path, b"second", mode="create")
        except FileExistsError:
            return
        raise UnsafeStore(
            f"{root.uri}: this store ignores put-if-absent (If-None-Match), so concurrent commits would "
            "lose acknowledged rows. Nothing was written. Use a store that honours it: AWS S3, MinIO, "
            "Ceph, Cloudflare R2, Google Cloud Storage, Azure, or a local folder"
        )
    except (OSError, BotoCoreError, ClientError) as error:
        raise StorageError(f"{root.uri}: cannot write: {error}") from error
    finally:
        with contextlib.suppress(OSError, BotoCoreError, ClientError):  # the probe's verdict matters, not its litter
            store.rm_file(path)
