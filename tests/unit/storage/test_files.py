"""Plain files beside the tables, on every store."""

from __future__ import annotations

import pytest

from lake.errors import StorageError
from lake.storage import Files, Location
from tests.support import s3


def test_a_file_comes_back_as_it_was_written(root: Location) -> None:
    files = Files(root)
    for data in (b"", b"one", b"two" * 1000):
        files.write("_jobs/a/x", data)
        assert files.read("_jobs/a/x") == data
    assert files.exists("_jobs/a/x")
    assert not files.exists("_jobs/a/y")


def test_names_and_folders(root: Location) -> None:
    files = Files(root)
    assert (list(files.names()), files.folders()) == ([], [])
    for name in ("b/2", "a/1", "a/c/3", "top"):
        files.write(name, b".")
    assert list(files.names()) == ["a/1", "a/c/3", "b/2", "top"]
    assert [name.rsplit("/", 1)[-1] for name in files.names("a")] == ["1", "3"]
    assert files.folders() == ["a", "b"]


def test_deleting_twice_is_no_error(root: Location) -> None:
    files = Files(root)
    files.write("x", b".")
    files.delete("x")
    files.delete("x")
    assert not files.exists("x")


def test_a_missing_file_is_a_storage_error(root: Location) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*/nope"):
        Files(root).read("nope")


def test_copies_go_between_stores(root: Location, bucket: Location) -> None:
    Files(root).write("a/x", b"data")
    Files(root).copy_to(Files(bucket), "a/x")
    assert Files(bucket).read("a/x") == b"data"


def test_folders_of_a_folder(root: Location) -> None:
    files = Files(root)
    for name in ("a/c/3", "a/d/e/4", "a/5"):
        files.write(name, b".")
    assert (files.folders("a"), files.folders("nope")) == (["c", "d"], [])


@pytest.mark.s3
def test_a_wrong_bucket_is_no_empty_folder(store: str) -> None:
    files = Files(Location.of("s3://no-such-bucket/lake", s3.options(store)))
    with pytest.raises(StorageError, match="NoSuchBucket"):
        files.folders()
    with pytest.raises(StorageError, match="NoSuchBucket"):
        list(files.names())
