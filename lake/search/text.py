"""Text queries: BM25 over words, phrases, and their combinations.

A plain string means `Match`. Scores are BM25, larger is better; a query over several columns scores the sum
of its columns. A column needs a text index, which says how words are compared: capitals, accents, endings,
stop words. Rows that the index does not cover (yet) are scanned and compared in the same way, so answers are
complete. Their scores use statistics of the index and of the rows that the filter keeps, so scores shift a
little when the index is built anew.

Fuzziness counts letters from the word as it is given: to the stems that the index holds, and in scanned rows
to whole words. An index without stemming makes it exact.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast

from lance.query import BooleanQuery, FullTextOperator, FullTextQuery, MatchQuery, Occur, PhraseQuery

from lake.errors import InvalidInput

_WORD = re.compile(r"\w+")
_MAX_FUZZINESS = 2
_MAX_BOOST = 1e30  # scores are float32: a larger one could make them infinite
_ALL_WORDS = 2**31 - 1
_MAX_CHOICES = 64


def _columns(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def _check_words(words: str, what: str) -> None:
    if not isinstance(words, str) or not words.strip():
        raise InvalidInput(f"{what}: the text is {words!r}; give at least one word")


@dataclass(frozen=True)
class Match:
    """Rows that hold some or all of the words.

    Parameters
    ----------
    words : str
    columns : str or sequence of str, optional
        Where to look; the query's ``text_columns`` when not given.
    operator : {"or", "and"}
        Whether one word suffices, or a column must hold them all.
    fuzziness : int, 0 to 2
        How many letters of a word may be inserted, left out or replaced.
    prefix : int
        How many letters at a word's beginning must be right, however fuzzy the rest.
    boost : float, above 0 to 1e30
        Multiplies the score.
    """

    words: str
    columns: str | Sequence[str] | None = None
    operator: Literal["or", "and"] = field(default="or", kw_only=True)
    fuzziness: int = field(default=0, kw_only=True)
    prefix: int = field(default=0, kw_only=True)
    boost: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        _check_words(self.words, "match")
        object.__setattr__(self, "columns", _columns(self.columns))
        if self.operator not in {"or", "and"}:
            raise InvalidInput(f"match: operator {self.operator!r}; give 'or' or 'and'")
        if self.fuzziness not in range(_MAX_FUZZINESS + 1):
            raise InvalidInput(f"match: fuzziness {self.fuzziness!r}; give 0, 1 or 2")
        if self.prefix < 0 or not 0 < self.boost <= _MAX_BOOST:
            raise InvalidInput(
                f"match: prefix {self.prefix} and boost {self.boost}: give 0 or more, and above 0 to 1e30"
            )


@dataclass(frozen=True)
class Phrase:
    """Rows that hold the words in this order.

    Parameters
    ----------
    words : str
    columns : str or sequence of str, optional
        Where to look; the query's ``text_columns`` when not given.
    slop : int
        How many other words may stand between.
    """

    words: str
    columns: str | Sequence[str] | None = None
    slop: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        _check_words(self.words, "phrase")
        object.__setattr__(self, "columns", _columns(self.columns))
        if self.slop < 0:
            raise InvalidInput(f"phrase: slop {self.slop}; give 0 or more")


@dataclass(frozen=True)
class Boolean:
    """A combination of text queries.

    Parameters
    ----------
    must, should, must_not : text query or sequence of them
        Rows match all of `must`, none of `must_not`, and at least one of `should` if there is no `must`.
        The scores of `must` and `should` add up.
    """

    must: Text | Sequence[Text] = ()
    should: Text | Sequence[Text] = ()
    must_not: Text | Sequence[Text] = ()

    def __post_init__(self) -> None:
        for name in ("must", "should", "must_not"):
            given = getattr(self, name)
            many = (given,) if isinstance(given, str | Match | Phrase | Boolean) else given
            object.__setattr__(self, name, tuple(as_text(one) for one in many))
        if not self.must and not self.should:
            raise InvalidInput("boolean: only must_not; give must= or should= too, to have something to rank")

    @property
    def clauses(self) -> list[tuple[Occur, Node]]:
        """All clauses, each with what it demands."""
        parts = ((Occur.MUST, self.must), (Occur.SHOULD, self.should), (Occur.MUST_NOT, self.must_not))
        return [(occur, as_text(clause)) for occur, clauses in parts for clause in cast("tuple[Node]", clauses)]


Node: TypeAlias = Match | Phrase | Boolean
Text: TypeAlias = str | Node


def as_text(query: Text) -> Node:
    """Take a string as a `Match`."""
    if isinstance(query, str):
        return Match(query)
    if not isinstance(query, Match | Phrase | Boolean):
        raise InvalidInput(f"text={query!r}: give a string, or lake.search's Match, Phrase or Boolean")
    return query


def leaves(node: Node) -> Iterator[Match | Phrase]:
    """Walk the matches and phrases of a query."""
    if isinstance(node, Boolean):
        for _, clause in node.clauses:
            yield from leaves(clause)
    else:
        yield node


def to_lance(node: Node, columns: Sequence[str], words: Mapping[str, Sequence[str]] | None = None) -> FullTextQuery:
    """Translate a query for Lance.

    Parameters
    ----------
    columns : sequence of str
        Where to look for what names no columns of its own.
    words : mapping of str to sequence of str, optional
        The vocabulary of each column. When given, fuzzy words are replaced by the words of the vocabulary
        that are near enough: Lance ignores fuzziness wherever no index holds the words.
    """
    if isinstance(node, Boolean):
        return BooleanQuery([(occur, to_lance(clause, columns, words)) for occur, clause in node.clauses])
    parts = [
        PhraseQuery(node.words, column, slop=node.slop)
        if isinstance(node, Phrase)
        else _match(node, column, words[column] if words is not None and node.fuzziness else None)
        for column in node.columns or columns
    ]
    return parts[0] if len(parts) == 1 else BooleanQuery([(Occur.SHOULD, part) for part in parts])


def _match(node: Match, column: str, vocabulary: Sequence[str] | None) -> FullTextQuery:
    operator = FullTextOperator.AND if node.operator == "and" else FullTextOperator.OR
    if vocabulary is None:
        return MatchQuery(
            node.words,
            column,
            boost=node.boost,
            fuzziness=node.fuzziness,
            max_expansions=_ALL_WORDS,  # Lance's own 50 would leave out rows, and say nothing
            operator=operator,
            prefix_length=node.prefix,
        )
    forms = [_forms(word, vocabulary, node) for word in _words(node)]
    if operator is FullTextOperator.OR:
        alternatives = [" ".join(itertools.chain.from_iterable(forms))]
    else:
        alternatives = [" ".join(choice) for choice in itertools.islice(itertools.product(*forms), _MAX_CHOICES)]
    parts = [MatchQuery(words, column, boost=node.boost, operator=operator) for words in alternatives]
    return parts[0] if len(parts) == 1 else BooleanQuery([(Occur.SHOULD, part) for part in parts])


def capped(node: Node) -> bool:
    """Whether a scan may miss matches: rows that must hold several fuzzy words are tried with so many choices only."""
    return any(
        isinstance(leaf, Match) and leaf.fuzziness and leaf.operator == "and" and len(_words(leaf)) > 1
        for leaf in leaves(node)
    )


def _words(node: Match) -> list[str]:
    return _WORD.findall(node.words.lower())


def _forms(word: str, vocabulary: Sequence[str], node: Match) -> list[str]:
    """Give the words of a vocabulary that are near enough to a word, itself first."""
    start = word[: node.prefix]
    near = (
        other
        for other in vocabulary
        if other != word
        and abs(len(other) - len(word)) <= node.fuzziness
        and other.startswith(start)
        and edits(word, other) <= node.fuzziness
    )
    return [word, *near]


def edits(a: str, b: str) -> int:
    """Count the insertions, deletions and replacements of letters between two words (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        above, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (letter != other))
    return row[-1]
