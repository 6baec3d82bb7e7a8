"""Vectors in bytes. Compiled.

A vector stands for itself by one byte a dimension and the worth of a byte. What the bytes leave out is short, and its
length is known: so the product of two vectors is known up to a bound that always holds (Cauchy-Schwarz).
"""

from __future__ import annotations

from typing import Final

import numba
import numpy as np

from lake.nearest.tile import STRIP
from lake.nearest.topk import L2

_MOST: Final = np.float32(127)
_OFFSETS: Final = np.uint32(0x80808080)  # added to four bytes at once: modulo 256 it is the same
_OFFSET: Final = 128  # what a row's bytes are more than what they stand for: the instruction wants them unsigned
_SHORT: Final = np.float32(1e-15)  # the squares of what is left out would vanish
_ROUNDING: Final = np.float32(2.4e-7)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def encode_queries(queries, codes, about, first, last):  # type: ignore[no-untyped-def]
    """Write the bytes of the queries from the first to the last, which is excluded, and what is to be known of them.

    Parameters
    ----------
    queries : float32, shape (n, d)
    codes : int8, shape (n, 4 * steps)
        To be written.
    about : float32, shape (n, 4)
        To be written: the worth of a byte, the length of what the bytes leave out, that of the rest, and, as int32,
        128 times the sum of the bytes.
    """
    shifts, bits, top = about.view(np.int32), queries.view(np.int32), np.empty(1, np.int32)
    for i in range(first, last):
        line = codes[i]
        about[i, 0], about[i, 1], about[i, 2], _, _ = _encode(queries[i], bits[i], top, line)
        total = np.int32(0)
        for d in range(line.shape[0]):
            total += np.int32(line[d])
        shifts[i, 3] = _OFFSET * total


@numba.njit(cache=True, nogil=True, error_model="numpy")
def encode_rows(rows, metric, half, strips, terms, first, last):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Write the strips of rows from the first to the last, which is excluded; see `lake.nearest.tile`.

    Parameters
    ----------
    rows : float32, shape (n, d)
    metric : int
    half : float32, shape (n,)
        To be written: what is taken from the products.
    strips : uint32, shape (ceil(n / 16), steps, 16)
        To be written.
    terms : float32, shape (ceil(n / 16), 4, 16)
        To be written.
    """
    line = np.zeros(4 * strips.shape[1], np.int8)
    words, bits, top = line.view(np.uint32), rows.view(np.int32), np.empty(1, np.int32)
    for i in range(first * STRIP, last * STRIP):
        strip, lane = i // STRIP, i % STRIP
        if i < rows.shape[0]:
            step, error, _, length, squared = _encode(rows[i], bits[i], top, line)
            taken = half[i] = squared / np.float32(2) if metric == L2 else np.float32(0)
        else:
            line[:] = 0
            step = error = length = taken = np.float32(0)
        for s in range(strips.shape[1]):
            strips[strip, s, lane] = words[s] ^ _OFFSETS
        terms[strip, 0, lane], terms[strip, 1, lane] = step, length
        terms[strip, 2, lane], terms[strip, 3, lane] = error, taken


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nnan", "nsz"})
def _encode(vector, bits, most, line):  # type: ignore[no-untyped-def]
    """Return a byte's worth; the lengths of what is left out, the rest, and all, none less than it is; all's square."""
    greatest, squared = np.int32(0), np.float32(0)
    for d in range(vector.shape[0]):
        greatest = max(greatest, bits[d] & np.int32(0x7FFFFFFF))  # without a sign, floats rank as their bits do
        squared += vector[d] * vector[d]
    most[0] = greatest
    top = most.view(np.float32)[0]
    root = np.sqrt(np.float32(vector.shape[0]))
    if top < _SHORT:
        line[:] = 0
        return np.float32(0), _SHORT * root, np.float32(0), _SHORT * root, squared
    many, step = _MOST / top, top / _MOST
    error, rest = np.float32(0), np.float32(0)
    for d in range(vector.shape[0]):
        code = np.rint(vector[d] * many)
        gap = vector[d] - code * step
        error += gap * gap
        rest += code * code
        line[d] = np.int8(code)
    slack = 1 + _ROUNDING * root
    error = np.sqrt(error) * slack + _ROUNDING * top * root
    return step, error, np.sqrt(rest) * step * slack, np.sqrt(squared) * slack, squared
