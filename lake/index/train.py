"""Training: one model for all segments of a vector index."""

from __future__ import annotations

from typing import Any

import lance
import numpy as np
import pyarrow as pa
from lance.indices import IndicesBuilder, IvfModel
from lance.lance import indices as native
from numpy.typing import NDArray

from lake.errors import InvalidInput
from lake.index.kmeans import BUDGET_FLOP, kmeans, sample_points
from lake.index.locality import order
from lake.index.model import Model, matrix_of
from lake.index.spec import IndexSpec
from lake.index.vectors import sample
from lake.schema.arrow import numpy_dtype, vector_layout

SAMPLE_BYTES = 512 << 20
_EQUAL = 0.01
# As many iterations and points again give no better recall, and take ten times as long.
_PQ_POINTS, _PQ_ITERATIONS = 64, 10
_HAMMING_POINTS, _HAMMING_ITERATIONS = 64, 10
_SEED = 20


def train(dataset: lance.LanceDataset, spec: IndexSpec, flop: float = BUDGET_FLOP) -> Model:
    """Train the model of a vector index on a sample of all rows.

    Parameters
    ----------
    spec : IndexSpec
        Definite: with ``partitions``.
    flop : float
        What training the centroids may cost, floating-point operations.

    Raises
    ------
    InvalidInput
        There are no vectors to learn from.
    """
    column = dataset.schema.field(spec.column)
    layout = vector_layout(column.type)
    assert layout is not None  # noqa: S101  the declaration was checked
    element, dimension, _ = layout
    binary = spec.metric == "hamming"
    centroids = _train_hamming(dataset, spec) if binary else _train_ivf(dataset, spec, dimension, flop)
    centroids = centroids.astype(numpy_dtype(element), copy=False)
    codebook = _train_pq(dataset, spec, centroids) if spec.traits.pq else None
    rotation = None
    if spec.kind == "IVF_RQ":
        rotation = native.build_rq_model(dimension, num_bits=spec.params["num_bits"], dtype=_DTYPES[str(element)])
    return Model(centroids, codebook, rotation)


_DTYPES = {"halffloat": "float16", "float": "float32", "double": "float64"}


def _train_ivf(dataset: lance.LanceDataset, spec: IndexSpec, dimension: int, flop: float) -> NDArray[Any]:
    partitions = spec.params["partitions"]
    rng = np.random.default_rng(_SEED)
    affordable = max(partitions, SAMPLE_BYTES // (4 * dimension))
    wanted = min(partitions * sample_points(partitions, dimension, flop), affordable)
    points = sample(dataset, spec.column, spec.metric, wanted, rng)
    if not len(points):
        raise InvalidInput(f"index {spec.name!r}: column {spec.column!r} holds no vector to learn from")
    partitions = min(partitions, len(points))
    # Not where residuals to the centroids are quantised: means keep those short.
    means = spec.traits.residuals and spec.metric != "dot"
    length = None if means else common_length(spec.metric, np.sqrt(np.einsum("nd,nd->n", points, points)))
    found = kmeans(points, partitions, rng, spherical=length is not None, flop=flop) * np.float32(length or 1)
    return found[order(found)]


def common_length(metric: str | None, lengths: NDArray[np.floating[Any]]) -> float | None:
    """Return the length of the centroids where angles are what to cluster by, else None.

    Under dot always, for else long vectors draw all queries to a few partitions. Under the others if the vectors are
    of one length.
    """
    if metric == "dot":
        return 1.0
    mean = float(lengths.mean())
    return None if np.ptp(lengths) > _EQUAL * mean else mean


def _train_hamming(dataset: lance.LanceDataset, spec: IndexSpec) -> NDArray[Any]:
    # Majorities of bits, which Lance computes; they are no matrix product.
    partitions = spec.params["partitions"]
    model = IndicesBuilder(dataset, spec.column).train_ivf(
        partitions,
        distance_type="hamming",
        sample_rate=max(2, min(_HAMMING_POINTS, dataset.count_rows() // partitions)),
        max_iters=_HAMMING_ITERATIONS,
    )
    return matrix_of(model.centroids)


def _train_pq(dataset: lance.LanceDataset, spec: IndexSpec, centroids: NDArray[Any]) -> NDArray[Any]:
    codes = 2 ** spec.params["num_bits"]
    metric = spec.metric
    if metric == "dot":
        # Under dot Lance encodes whole vectors, and yet would learn from residuals: give it none to subtract.
        centroids, metric = np.zeros_like(centroids[:1]), "l2"
    given = pa.FixedSizeListArray.from_arrays(pa.array(centroids.reshape(-1)), centroids.shape[1])
    model = IndicesBuilder(dataset, spec.column).train_pq(
        IvfModel(given, metric),
        spec.params["sub_vectors"],
        sample_rate=max(2, min(_PQ_POINTS, dataset.count_rows() // codes)),
        max_iters=_PQ_ITERATIONS,
        num_bits=spec.params["num_bits"],
    )
    return matrix_of(model.codebook)
