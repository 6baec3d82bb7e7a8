"""Which column names are safe, and what was probably meant by a name that is not there."""

import difflib
import unicodedata
from collections.abc import Collection, Iterable

from lake.errors import InvalidInput, NotFound

# Refused by Lance's batch search, which puts its own column of that name into the result.
_TAKEN = frozenset({"query_index"})


def check_names(names: Iterable[str]) -> None:
    """Refuse the names that Lance, SQL or a reader would misunderstand.

    Lance itself refuses a dot, exact duplicates and `_rowid`, `_rowaddr`, `_rowoffset`,
    `_row_created_at_version`, `_row_last_updated_at_version`. It accepts these, and then:

    - empty, or with a backtick: no filter, projection or rename reaches the column again;
    - `_distance`: every vector search of the table fails; `_score` and `_relevance_score`: the search's own
      column is mistaken for the user's. Any leading underscore may be the next of these;
    - `query_index`: batch searches fail;
    - names equal but for case: filters match without case, projections with it;
    - NUL: the name is cut off there in results; other control and invisible characters cannot be typed;
    - `*`: a projection of it returns all columns.
    """
    seen: dict[str, str] = {}
    for name in names:
        problem = _problem(name)
        if problem:
            raise InvalidInput(f"column name {name!r} {problem}; rename the column")
        folded = unicodedata.normalize("NFKC", name).casefold()
        if folded in seen:
            raise InvalidInput(
                f"column {name!r} is there twice"
                if name == seen[folded]
                else f"columns {seen[folded]!r} and {name!r} differ only in case or form, and filters would "
                f"confuse them; rename one"
            )
        seen[folded] = name


def _problem(name: str) -> str:
    if not isinstance(name, str) or not name:
        return "is empty"
    if name != name.strip():
        return "begins or ends with a blank"
    if name.startswith("_"):
        return "begins with an underscore, as the columns that Lance adds to results do (_rowid, _distance, …)"
    if name.casefold() in _TAKEN:
        return "is taken by the results of batch searches"
    if name == "*":
        return "stands for all columns"
    for bad, why in ((".", "a dot, which reaches into structs"), ("`", "a backtick, which quotes names")):
        if bad in name:
            return f"contains {why}"
    if any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in name):
        return "contains a control or invisible character"
    return ""


def find(name: str, names: Collection[str], what: str = "column") -> str:
    """Return `name` if it is among `names`, or raise `NotFound` with the nearest."""
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    near = near or [n for n in names if n.casefold() == name.casefold()]
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(list(names)[:20])}"
    raise NotFound(f"no {what} {name!r}; {hint}")
