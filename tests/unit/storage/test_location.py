"""Locations, names of tables, and secrets that never print."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from lake.errors import InvalidInput
from lake.storage import Location, StorageOptions, table_name

SECRETS = {
    "aws_secret_access_key": "CANARY-1",
    "aws_session_token": "CANARY-2",
    "azure_storage_sas_key": "CANARY-3",
    "a_key_of_tomorrow": "CANARY-4",
    "AZURE_STORAGE_ACCOUNT_KEY": "CANARY-5",
}


@pytest.mark.parametrize("name", ["t", "T1", "a.b", "a-b_c", "0", "x" * 127])
def test_good_names(name: str) -> None:
    assert table_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            "..",
            "a/b",
            "../a",
            "a..b",
            "/a",
            "a\\b",
            "-a",
            "_jobs",
            ".a",
            "a.",
            "a.lance",
            "a b",
            "a\n",
            "a\0",
        ),
        *("ä", "a%2fb", "a:b", "a*", "a?", "x" * 128, None, 1, b"a"),
    ],
)
def test_hostile_names_are_refused(name: Any) -> None:
    with pytest.raises(InvalidInput, match="table name"):
        table_name(name)


def test_secrets_never_print_and_always_travel() -> None:
    options = StorageOptions({**SECRETS, "aws_region": "here"})
    location = Location.of("s3://bucket/lake", options)
    shown = f"{options!r} {options} {location!r} {location} {location.join('t')} {[options]} {vars(location)}"
    assert "CANARY" not in shown
    assert "'aws_region': 'here'" in repr(options)
    assert pickle.loads(pickle.dumps(location)).options == options  # workers need them


def test_a_url_with_a_password_does_not_show_it() -> None:
    options = StorageOptions({"aws_endpoint": "http://user:CANARY@store"})
    assert "CANARY" not in repr(options)


def test_options_are_text() -> None:
    assert StorageOptions({"allow_http": True, "timeout": 3}) == {"allow_http": "true", "timeout": "3"}
    with pytest.raises(InvalidInput, match="'aws_region'"):
        StorageOptions({"aws_region": None})


@pytest.mark.parametrize("uri", ["", "a\0b"])
def test_what_is_no_location_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInput, match="not a location"):
        Location.of(uri)


def test_local_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Location.of("x/").uri == str(tmp_path / "x")
    assert Location.of(Path("x")).uri == str(tmp_path / "x")
    assert Location.of(f"file://{tmp_path}/x").uri == str(tmp_path / "x")
    assert Location.of("~/x").uri == str(Path("~/x").expanduser())


@pytest.mark.parametrize(("uri", "scheme"), [("/x", "file"), ("s3://b/x", "s3"), ("gs://b", "gs")])
def test_schemes(uri: str, scheme: str) -> None:
    assert Location.of(uri).scheme == scheme


@pytest.mark.parametrize(
    "uri",
    [
        "s3://key:CANARY@bucket/x",
        "s3://key:CAN/ARY@bucket",
        "S3://key:CANARY@b",
        "http://:CANARY@b",
        "file://a:CANARY@b",
    ],
)
def test_a_location_with_a_password_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(InvalidInput, match="a user and a password") as told:
        Location.of(uri)
    assert "CANARY" not in str(told.value)
    assert "key" not in str(told.value)


@pytest.mark.parametrize("uri", ["abfss://box@account.dfs.core.windows.net/x", "s3://b/a:b@c", "http://h:9000/a@b"])
def test_an_at_sign_is_no_password(uri: str) -> None:
    assert Location.of(uri).uri == uri


def test_s3_options_have_one_name_each() -> None:
    given = {
        "AWS_Endpoint_URL": "http://s",
        "Access_Key_Id": "k",
        "secret_access_key": "s",
        "token": "t",
        "default_region": "there",
        "AWS_REGION": "here",
        "aws_allow_http": True,
        "skip_signature": False,
    }
    assert Location.of("s3://b", given).options == {
        "aws_endpoint": "http://s",
        "aws_access_key_id": "k",
        "aws_secret_access_key": "s",
        "aws_session_token": "t",
        "aws_region": "here",
        "allow_http": "true",
        "aws_skip_signature": "false",
    }
    assert StorageOptions({"AWS_DEFAULT_REGION": "there"}) == {"aws_region": "there"}


def test_other_stores_keep_their_names() -> None:
    assert Location.of("az://box/x", {"ENDPOINT": "e", "token": "t"}).options == {"endpoint": "e", "token": "t"}


def test_one_option_with_two_values_is_refused_without_repeating_them() -> None:
    assert StorageOptions({"endpoint": "x", "aws_endpoint": "x"}) == {"aws_endpoint": "x"}
    with pytest.raises(InvalidInput, match="'session_token' and 'AWS_TOKEN' mean the same") as told:
        StorageOptions({"session_token": "CANARY-1", "AWS_TOKEN": "CANARY-2"})
    assert "CANARY" not in str(told.value)
