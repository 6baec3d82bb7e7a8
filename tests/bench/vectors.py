"""Realistic vectors in any number: resampled from the neighbourhoods of the real ones that the project ships.

Gaussian mixtures flatter an IVF index and plain noise is absurdly hard; a point drawn from the local Gaussian
around a real vector keeps the local dimension, and so the recall, of real data.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from lake import sample

Matrix = npt.NDArray[np.float32]
_NEIGHBOURS = 32
_MIXED = 32
_ALPHA = 1.2
_HELD_OUT = 1000


@functools.cache
def _seeds() -> tuple[Matrix, Matrix, npt.NDArray[np.int64]]:
    rows = sample.packages()["embedding"].combine_chunks()
    vectors = rows.flatten().to_numpy().reshape(len(rows), -1)
    order = np.random.default_rng(0).permutation(len(vectors))
    queries, seeds = vectors[order[:_HELD_OUT]], vectors[order[_HELD_OUT:]]
    near = np.argpartition(-(seeds @ seeds.T), _NEIGHBOURS + 1, axis=1)[:, : _NEIGHBOURS + 1]
    return seeds, queries, near


def queries() -> Matrix:
    """Return real vectors that no generated one is made from, shape (1000, 384)."""
    return _seeds()[1]


def vectors(count: int, seed: int = 0) -> Matrix:
    """Return ``count`` unit vectors, shape (count, 384)."""
    seeds, _, near = _seeds()
    rng = np.random.default_rng(seed)
    made = np.empty((count, seeds.shape[1]), np.float32)
    for start in range(0, count, 4096):
        some = rng.integers(0, len(seeds), min(4096, count - start))
        mixed = np.take_along_axis(near[some], rng.integers(0, near.shape[1], (len(some), _MIXED)), 1)
        weights = rng.standard_normal((len(some), _MIXED), dtype=np.float32) * (_ALPHA / np.sqrt(_MIXED))
        base = seeds[some] * (1 - weights.sum(1, keepdims=True))
        made[start : start + len(some)] = base + np.matmul(weights[:, None, :], seeds[mixed])[:, 0]
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made
