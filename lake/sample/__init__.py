"""A small lake's worth of real data: 8,000 Debian packages, and twelve questions to ask of them.

The texts and vectors are real: each package's short description, and each question, embedded by
all-MiniLM-L6-v2. `LICENSE.md` beside this file says where everything comes from.
"""

from importlib import resources

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["packages", "queries"]


def packages() -> pa.Table:
    """Read the packages, one row each, in the order of their names.

    Returns
    -------
    pyarrow.Table
        8,000 rows. No value is null but some of ``homepage``.

        ===================  ====================================  ==========================================
        column               type                                  what it is
        ===================  ====================================  ==========================================
        ``name``             string                                the package; unique, so the entity key
        ``version``          string                                Debian's version
        ``section``          string                                category, one of some 55
        ``tags``             list<string>                          ``facet::tag``; empty for one row in five
        ``summary``          string                                one line; what the embedding embeds
        ``description``      string                                paragraphs, of 1,000 characters at most
        ``maintainer``       string                                person or team
        ``homepage``         string, nullable                      URL
        ``download_bytes``   int64                                 size of the package's file, bytes
        ``installed_bytes``  int64                                 size when installed, bytes
        ``dependents``       int32                                 packages of all Debian that depend on it
        ``control``          string                                JSON object: ``source``, ``architecture``,
                                                                   ``priority``, ``depends`` (array of names)
        ``embedding``        fixed_size_list<float32>[384]         of ``summary``; length 1
        ===================  ====================================  ==========================================
    """
    return _read("packages.parquet")


def queries() -> pa.Table:
    """Read questions that a person might ask of the packages.

    Returns
    -------
    pyarrow.Table
        12 rows: ``text``, string; ``embedding``, fixed_size_list<float32>[384] of length 1, by the model that
        embedded the packages. So the dot product is the cosine similarity: larger is more similar.
    """
    return _read("queries.parquet")


def _read(file: str) -> pa.Table:
    """Read one of this package's files, with its embedding as float32 rows of unit length."""
    with resources.as_file(resources.files(__name__) / file) as path:
        table = pq.read_table(path).combine_chunks()
    position = table.schema.get_field_index("embedding")
    stored = table.column(position).chunk(0)
    # float16 on disk: half the size, and a unit length only to three digits.
    vectors = stored.flatten().to_numpy(zero_copy_only=False).reshape(-1, stored.type.list_size).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), stored.type.list_size)
    return table.set_column(position, "embedding", embedding)
