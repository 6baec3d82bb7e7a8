"""Text search against a plain BM25."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from lake.errors import InvalidInput, NotFound
from lake.schema import Column, Schema
from lake.search import Boolean, Match, Phrase, Query, Text, search
from lake.search.text import edits
from lake.table.snapshot import Snapshot
from tests.unit.search.conftest import ROWS, snapshot, write

TABLES = ["plain", "indexed", "partial"]


def texts(snap: Snapshot) -> dict[int, list[str]]:
    table = snap.dataset.to_table(columns=["id", "text"])
    return {i: t.split() for i, t in zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True)}


def bm25(documents: dict[int, list[str]], words: list[str]) -> dict[int, float]:
    mean = sum(map(len, documents.values())) / len(documents)
    scores: dict[int, float] = {}
    for word in words:
        having = {i: Counter(d)[word] for i, d in documents.items() if word in d}
        idf = math.log(1 + (len(documents) - len(having) + 0.5) / (len(having) + 0.5))
        for i, tf in having.items():
            scores[i] = scores.get(i, 0) + idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * len(documents[i]) / mean))
    return scores


def found(snap: Snapshot, text: Text, where: str | None = None) -> set[int]:
    ids = search(snap, Query(text=text, where=where, k=None)).to_arrow()["id"].to_pylist()
    assert len(set(ids)) == len(ids)
    return set(ids)


@pytest.mark.parametrize("table", TABLES)
def test_scores_are_bm25(table: str, request: pytest.FixtureRequest) -> None:
    snap = request.getfixturevalue(table)
    expected = bm25(texts(snap), ["kernel", "zeppelin"])
    result = search(snap, Query(text="kernel zeppelin", k=None)).to_arrow()
    scores = dict(zip(result["id"].to_pylist(), result["_score"].to_pylist(), strict=True))
    assert scores.keys() == expected.keys()
    assert (np.diff(result["_score"].to_numpy()) <= 0).all()
    # Stale statistics of the indexed part may shift scores a little; see `lake.search.text`.
    tolerance = 1e-3 if table != "partial" else 0.1
    for i, score in scores.items():
        assert score == pytest.approx(expected[i], rel=tolerance)
    for k, offset in ((1, 0), (5, 2), (100, 3), (4000, 0)):  # many scores are equal
        page = search(snap, Query(text="kernel zeppelin", k=k, offset=offset)).to_arrow()
        assert page["id"].to_pylist() == result["id"].to_pylist()[offset : offset + k]


@pytest.mark.parametrize("table", TABLES)
def test_queries(table: str, request: pytest.FixtureRequest) -> None:
    snap = request.getfixturevalue(table)
    documents = texts(snap)

    def those(condition: Callable[[list[str]], bool]) -> set[int]:
        return {i for i, d in documents.items() if condition(d)}

    def adjacent(d: list[str]) -> bool:
        return any(pair == ("game", "music") for pair in itertools.pairwise(d))

    assert found(snap, "game music") == those(lambda d: "game" in d or "music" in d)
    assert found(snap, Match("game music", operator="and")) == those(lambda d: "game" in d and "music" in d)
    assert found(snap, Phrase("game music")) == those(adjacent)
    assert found(snap, "GAME") == those(lambda d: "game" in d)
    combined = Boolean(must=["game"], must_not=[Phrase("game music"), "kernel"])
    assert found(snap, combined) == those(lambda d: "game" in d and not adjacent(d) and "kernel" not in d)
    either = Boolean(should=["zeppelin", Match("game font", operator="and")])
    assert found(snap, either) == those(lambda d: "zeppelin" in d or ("game" in d and "font" in d))
    assert found(snap, "kernel", where="id % 500 = 3") == {i for i in those(lambda d: "kernel" in d) if i % 500 == 3}
    assert found(snap, "nosuchword") == set()


@pytest.mark.parametrize("table", TABLES)
def test_fuzzy_reaches_every_row(table: str, request: pytest.FixtureRequest) -> None:
    snap = request.getfixturevalue(table)
    documents = texts(snap)
    having = {i for i, d in documents.items() if "zeppelin" in d}
    assert found(snap, Match("zepelin", fuzziness=1)) == having
    assert found(snap, Match("zeppelni", fuzziness=2)) == having
    assert found(snap, Match("yeppelin", fuzziness=1, prefix=1)) == set()
    assert found(snap, Match("zepelin", fuzziness=1), where="id < 1600") == {i for i in having if i < 1600}
    both = {i for i in having if "kernel" in documents[i]}
    assert found(snap, Match("zepelin kernl", fuzziness=1, operator="and")) == both
    assert found(snap, Boolean(must=[Match("zepelin", fuzziness=1), "kernel"])) == both
    whole = search(snap, Query(text=Match("kernl", fuzziness=1), k=20)).to_pylist()
    assert search(snap, Query(text=Match("kernl", fuzziness=1), k=5, offset=7)).to_pylist() == whole[7:12]


def test_edits() -> None:
    assert [edits(*p) for p in [("", "abc"), ("kitten", "sitting"), ("a", "a"), ("ab", "ba")]] == [3, 3, 0, 2]


def test_coverage_and_indexed_only(plain: Snapshot, partial: Snapshot, indexed: Snapshot) -> None:
    for snap, count in ((plain, 0), (indexed, ROWS), (partial, 1900)):
        covered = search(snap, Query(text="kernel")).coverage
        assert covered.rows_indexed == count
        assert covered.rows_indexed + covered.rows_scanned == covered.rows
        assert covered.complete
    only = search(partial, Query(text="kernel", k=None, indexed_only=True))
    assert only.coverage.rows_skipped == only.coverage.rows - 1900
    assert max(only.to_arrow()["id"].to_pylist()) < 2000
    with pytest.raises(InvalidInput, match="not built"):
        search(plain, Query(text="kernel", indexed_only=True))


def test_several_columns(tmp_path: Path) -> None:
    schema = Schema([Column("id", int), Column("name", str), Column("summary", str), Column("tags", list[str])])
    data = pa.table(
        {
            "id": [0, 1, 2, 3],
            "name": ["vim", "emacs", "nano", None],
            "summary": ["text editor", "an editor like vim", "vim vim vim", "a pager"],
            "tags": [["tool", "red apple"], [], None, ["pager"]],
        }
    ).cast(schema.to_arrow())
    dataset = write(tmp_path / "t.lance", data)
    for train in (False, True):
        for name in ("name", "summary", "tags"):
            dataset.create_scalar_index(name, "INVERTED", train=train, replace=True)
        snap = snapshot(dataset)
        result = search(snap, Query(text="vim", text_columns=["name", "summary"])).to_arrow()
        total: dict[int, float] = {}
        for column in ("name", "summary"):
            for row in search(snap, Query(text=Match("vim", column))):
                total[row["id"]] = total.get(row["id"], 0) + row["_score"]
        assert dict(zip(result["id"].to_pylist(), result["_score"].to_pylist(), strict=True)) == pytest.approx(total)
        boosted = Boolean(should=[Match("vim", "name", boost=50.0), Match("vim", "summary")])
        assert search(snap, Query(text=boosted)).to_pylist()[0]["id"] == 0
        assert found(snap, Match("pager", columns="tags")) == {3}
        assert found(snap, Match("aple", columns="tags", fuzziness=1 + train)) == {0}
        assert found(snap, "EDITORS") == {0, 1}
        with pytest.raises(InvalidInput, match="positions"):
            search(snap, Query(text=Phrase("vim editor", "name")))
    dataset.drop_index("name_idx")
    assert found(snapshot(dataset), "vim") == {1, 2}
    with pytest.raises(NotFound, match="'name' has no text index"):
        search(snapshot(dataset), Query(text=Match("vim", "name")))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Query(text="  "), "at least one word"),
        (lambda: Query(text=Match("")), "at least one word"),
        (lambda: Query(text=3), "give a string"),  # type: ignore[arg-type]
        (lambda: Query(text=Boolean(must_not="x")), "only must_not"),
        (lambda: Match("x", fuzziness=3), "fuzziness"),
        (lambda: Match("x", operator="xor"), "operator"),  # type: ignore[arg-type]
        (lambda: Match("x", boost=0.0), "boost"),
        (lambda: Phrase("x", slop=-1), "slop"),
    ],
)
def test_refusals(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        make()


def test_refused_columns(indexed: Snapshot) -> None:
    with pytest.raises(InvalidInput, match="not text"):
        search(indexed, Query(text="x", text_columns="rank"))
    with pytest.raises(LookupError, match="did you mean 'text'"):
        search(indexed, Query(text="x", text_columns=["txt"]))


@pytest.mark.parametrize("covered", [0, 1, 2], ids=["scanned", "half", "indexed"])
def test_more_near_words_than_lance_would_try(tmp_path: Path, covered: int) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    base = "quintle"
    near = {base[:i] + c + base[i + 1 :] for i in range(len(base)) for c in letters} | {base}
    far = {word[::-1] for word in near} | {f"{word}zzz" for word in near}
    words = sorted(near | far)
    np.random.default_rng(3).shuffle(words)
    lines = [f"{word} {'' if i % 3 else 'kernal'} {i % 7}" for i, word in enumerate(words)]
    data = pa.table({"id": np.arange(len(words)), "text": lines})
    cut = len(words) * covered // 2
    dataset = write(tmp_path / "t.lance", data.slice(0, cut))
    dataset.create_scalar_index("text", "INVERTED", stem=False, remove_stop_words=False, train=covered > 0)
    if cut < len(words):
        dataset = lance.write_dataset(data.slice(cut), dataset.uri, mode="append")
    snap = snapshot(dataset)
    for fuzziness in (1, 2):
        expected = {i for i, word in enumerate(words) if plain_edits(word, base) <= fuzziness}
        assert len(expected) > 64
        result = search(snap, Query(text=Match(base, fuzziness=fuzziness), k=None))
        assert set(result.to_arrow()["id"].to_pylist()) == expected
        assert result.coverage.exact
        every = Match(f"{base} kernel", fuzziness=fuzziness, operator="and")
        result = search(snap, Query(text=every, k=None))
        both = {i for i in expected if i % 3 == 0}
        # A scan tries some choices of the words only, and says so.
        assert result.coverage.exact == (covered == 2)
        assert ("not every choice" in str(result.coverage)) == (covered < 2)
        found = set(result.to_arrow()["id"].to_pylist())
        assert found == both if covered == 2 else found <= both


@functools.cache
def plain_edits(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(plain_edits(a[1:], b) + 1, plain_edits(a, b[1:]) + 1, plain_edits(a[1:], b[1:]) + (a[0] != b[0]))


def test_boosted_scores_are_finite(indexed: Snapshot) -> None:
    scores = search(indexed, Query(text=Match("kernel game", boost=1e30))).to_arrow()["_score"].to_numpy()
    assert np.isfinite(scores).all()
    for boost in (1e31, math.inf, math.nan, -1.0):
        with pytest.raises(InvalidInput, match="boost"):
            Match("x", boost=boost)
