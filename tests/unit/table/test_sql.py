"""Predicates and expressions: all of one is read, or it is refused."""

from __future__ import annotations

import pytest

from lake.errors import InvalidInput
from lake.storage import Location
from lake.table import columns, rows
from lake.table.snapshot import open_head
from lake.table.sql import Sql, quote, whole
from tests.support.tables import content, make

HOSTILE = [
    "id = 1 adn n = 0",
    "id = 1 garbage",
    "id = 1; drop table t",
    "id = 1;",
    "id = 1 -- all",
    "id = 1 /* all */",
    "id = 1) or (id > 0",
    "(id = 1",
    "id = 1)",
    ")(",
    "id = 'a",
    'id = "a',
    "id = `a",
    "id = 1 'a",
    "'",
    "",
    "   ",
    "nope = 1",
    "id = 1, n = 2",
    "id = 1 union select 1",
    "select 1",
    "id = (select max(id) from t)",
    "id = 1 limit 1",
    "read_csv('/etc/passwd')",
    "id = $1",
    "id = ?",
    ":name",
    "b'01' = 1",
    "n'a' = 'a'",
    "$$a$$ = 'a'",
    "\x00",
    "id = 1\x00",
    "((((((((((id = 1)",
]


@pytest.fixture
def table(root: Location) -> Location:
    return make(root)


@pytest.mark.parametrize("where", HOSTILE)
def test_a_hostile_predicate_changes_nothing(tmp_path_factory: pytest.TempPathFactory, where: str) -> None:
    table = make(Location.of(tmp_path_factory.mktemp("lake")))
    before, version = content(table), open_head(table).version
    with pytest.raises(InvalidInput, match="not a legal expression"):
        rows.delete(table, None, where)
    with pytest.raises(InvalidInput, match="not a legal expression"):
        rows.update(table, None, {"n": 1}, where)
    with pytest.raises(InvalidInput, match="not a legal expression"):
        rows.update(table, None, {"n": Sql(where)})
    with pytest.raises(InvalidInput, match="not a legal expression"):
        columns.add_columns(table, None, {"c": Sql(where)})
    assert (content(table), open_head(table).version) == (before, version)


@pytest.mark.parametrize("where", [None, 1, True, b"id = 1", ["id = 1"]])
def test_a_predicate_is_text(where: object) -> None:
    with pytest.raises(InvalidInput, match="not a legal expression"):
        whole(where)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("where", "gone"),
    [
        ("id = 1", {1}),
        ("id IN (1, 2) AND (n = 0)", {1, 2}),
        ("cast(id as string) = '1'", {1}),
        ("concat('(', cast(id as string)) = '(1'", {1}),
        ("concat(';--', cast(id as string)) = ';--1'", {1}),
        ("concat('''', cast(id as string)) = '''1'", {1}),
        ("id between 1 and 3", {1, 2, 3}),
        ("not (id < 18)", {18, 19}),
    ],
)
def test_a_legal_predicate_is_read_whole(tmp_path_factory: pytest.TempPathFactory, where: str, gone: set[int]) -> None:
    table = make(Location.of(tmp_path_factory.mktemp("lake")))
    assert rows.delete(table, None, where).deleted == len(gone)
    assert {key for key, _ in content(table)} == set(range(20)) - gone


def test_an_update_computes_from_old_values_and_selects_by_them(table: Location) -> None:
    receipt = rows.update(table, None, {"n": Sql("id + n")}, "id < 3 or id = 15")
    assert receipt.updated == 4
    assert dict(content(table)) == {i: i if i in (1, 2, 15) else 0 for i in range(20)}


def test_a_plain_string_is_a_value_and_never_computed(table: Location) -> None:
    columns.add_columns(table, None, {"text": Sql("''")})
    rows.update(table, None, {"text": "concat('a', 'b'); --"}, "id = 1")
    found = open_head(table).to_table(columns=["text"], filter="id = 1")
    assert found["text"].to_pylist() == ["concat('a', 'b'); --"]


def test_nothing_selected_makes_no_version(table: Location) -> None:
    before = open_head(table).version
    assert rows.delete(table, None, "id > 100").deleted == 0
    assert rows.update(table, None, {"n": 1}, "id > 100").updated == 0
    assert open_head(table).version == before


@pytest.mark.parametrize(("name", "quoted"), [("a", "`a`"), ("a b", "`a b`"), ("a`b", "`a``b`")])
def test_names_are_quoted(name: str, quoted: str) -> None:
    assert quote(name) == quoted
