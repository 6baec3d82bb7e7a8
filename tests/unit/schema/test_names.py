import pytest

from lake.errors import InvalidInput
from lake.schema import check_names


@pytest.mark.parametrize(
    "name", ["a", "a b", "été", "名前", "a-b", "1a", "select", 'a"b', "a'b", "a/b", "a[0]", "query"]
)
def test_good_names(name: str) -> None:
    check_names([name])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        (" a", "blank"),
        ("a ", "blank"),
        ("_rowid", "underscore"),
        ("_distance", "underscore"),
        ("__index_level_0__", "underscore"),
        ("query_index", "batch searches"),
        ("Query_Index", "batch searches"),
        ("*", "all columns"),
        ("a.b", "dot"),
        ("a`b", "backtick"),
        ("a\nb", "control"),
        ("a\0b", "control"),
        ("a\x1b[31mb", "control"),
        ("a\u200bb", "invisible"),
        ("a\u202eb", "invisible"),
        ("a\u2028b", "control"),
        ("a\ud800", "control"),
    ],
)
def test_bad_names(name: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=f"{why}.*; rename the column"):
        check_names(["fine", name])


def test_names_that_are_too_alike() -> None:
    with pytest.raises(InvalidInput, match="'a' is there twice"):
        check_names(["a", "b", "a"])
    with pytest.raises(InvalidInput, match="'Name' and 'name' differ only in case"):
        check_names(["Name", "name"])
    with pytest.raises(InvalidInput, match="only in case or form"):
        check_names(["\u00e9", "e\u0301"])
