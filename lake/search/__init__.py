"""Search: vectors, text, both, filters, ranges and groups over one pinned version of a table.

Distances and scores, for all of the lake
-----------------------------------------
``_distance``, float32: smaller is more similar.

==========  =======================================  ===========================
metric      ``_distance`` of query q and row x       range
==========  =======================================  ===========================
l2          sum of ``(q - x)²``: squared, no root    from 0
cosine      ``1 - q·x / (|q| |x|)``                  0 to 2
dot         ``1 - q·x``                              any number, often negative
hamming     number of bits that differ               0 to 8 d (d bytes)
==========  =======================================  ===========================

For multi-vector columns it is the sum, over the query's vectors, of the smallest distance to one of the row's
vectors (MaxSim in terms of distances). A row whose vector is null has no distance and is never found.
``within=r`` keeps ``distance < r``. Float rounding may put a distance of nothing slightly below 0.

``_score``, float32: BM25, larger is better. ``_relevance_score``, float64: of hybrid searches, larger is
better; see `lake.search.fusion`. ``_query``, int32: which of many queries a row answers, from 0. A table's
own columns never begin with an underscore, so these names are free.

Rows of equal distance or score come in the order of their row ids.

Completeness
------------
By default every live row is a candidate: indexed rows through the index, all others by scan; deleted and
superseded rows, and rows that `where` rules out, are left out before the best k are taken. An index of
partitions may still miss near rows (recall). `Coverage` says what was read.
"""

from lake.search.coverage import Coverage, Part
from lake.search.execute import batches, search
from lake.search.explain import Explanation, explain
from lake.search.query import Query
from lake.search.result import Result
from lake.search.text import Boolean, Match, Phrase, Text

__all__ = [
    "search",
    "explain",
    "batches",
    "Query",
    "Match",
    "Phrase",
    "Boolean",
    "Text",
    "Result",
    "Coverage",
    "Part",
    "Explanation",
]
