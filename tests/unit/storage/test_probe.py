"""The probe for put-if-absent asks the very store that Lance writes to, however its options are spelt."""

from __future__ import annotations

import uuid

import pytest

from lake.storage import Files, Location, probe, require_put_if_absent
from tests.support import s3

pytestmark = pytest.mark.s3

SPELLINGS = [
    ("aws_endpoint", "aws_access_key_id", "aws_secret_access_key", "aws_region"),
    ("endpoint", "access_key_id", "secret_access_key", "region"),
    ("endpoint_url", "access_key_id", "secret_access_key", "default_region"),
    ("aws_endpoint_url", "aws_access_key_id", "aws_secret_access_key", "aws_default_region"),
    ("AWS_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"),
    ("AWS_ENDPOINT_URL", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"),
]
ENVIRONMENT = (
    *("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    *("AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"),
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the options says where the store is, and nothing is proven."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(probe, "_proven", set())


@pytest.mark.parametrize("names", SPELLINGS, ids=lambda names: names[0])
def test_every_spelling_reaches_the_same_store(names: tuple[str, ...], store: str) -> None:
    given = dict(zip(names, (store, "tests", s3.SECRET, s3.REGION), strict=True))
    root = Location.of(f"s3://{s3.BUCKET}/{uuid.uuid4().hex}", {**given, "allow_http": True})
    Files(root).write("x", b"there")
    assert Files(Location.of(root.uri, s3.options(store))).read("x") == b"there"
    require_put_if_absent(root)
    assert probe._proven == {(store, s3.BUCKET)}


@pytest.mark.parametrize("name", ["AWS_ENDPOINT", "AWS_ENDPOINT_URL"])
def test_the_environment_names_the_store_to_both(name: str, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, store)
    options = {key: value for key, value in s3.options(store).items() if key != "aws_endpoint"}
    root = Location.of(f"s3://{s3.BUCKET}/{uuid.uuid4().hex}", options)
    Files(root).write("x", b"there")
    assert Files(Location.of(root.uri, s3.options(store))).read("x") == b"there"
    require_put_if_absent(root)
    assert probe._proven == {(store, s3.BUCKET)}
