"""Vectors in bytes. Compiled.

A vector stands for itself by one byte a dimension and the worth of a byte. What the bytes leave out is short, and its
length is known: so the product of two vectors is known up to a bound that always holds (Cauchy-Schwarz).
"""

from __future__ import annotations

from typing import Final

import numba
import numpy as np

from lake.nearest.tile import STRIP
from lake.nearest.topk import L2, UNCOUNTED

_MOST: Final = np.float32(127)
_OFFSETS: Final = np.uint32(0x80808080)  # added to four bytes at once: modulo 256 it is the same
_OFFSET: Final = 128  # what a row's bytes are more than what they stand for: the instruction wants them unsigned
_SHORT: Final = np.float32(1e-15)  # the squares of what is left out would vanish
_ROUNDING: Final = np.float32(2.4e-7)
_FULL: Final = np.float32(128)  # worths of a byte: no number of the vector is greater
_UNSIGNED: Final = np.int32(0x7FFFFFFF)
_WHOLE: Final = np.float32(1.5 * 2**23)  # so great that what is added to it becomes a whole number, in the last bits
_FAST: Final = {"contract", "reassoc", "nnan", "nsz"}


@numba.njit(cache=True, nogil=True, error_model="numpy")
def encode_queries(queries, codes, about, first, last):  # type: ignore[no-untyped-def]
    """Write the bytes of the queries from the first to the last, which is excluded, and what is to be known of them.

    Parameters
    ----------
    queries : float32, shape (n, d)
    codes : int8, shape (n, 4 * steps)
        To be written; zero beyond the dimensions.
    about : float32, shape (n, 4)
        To be written: the worth of a byte, the length of what the bytes leave out, that of the rest, and, as int32,
        128 times the sum of the bytes.
    """
    shifts, bits = about.view(np.int32), queries.view(np.int32)
    for i in range(first, last):
        step, error, rest, _ = _encode(queries, bits, i, codes, i)
        about[i, 0] = step
        about[i, 1] = _left_out(error, step, queries.shape[1])
        about[i, 2] = _length(rest, queries.shape[1]) * step
        total = np.int32(0)
        for d in range(codes.shape[1]):
            total = np.int32(total + codes[i, d])
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
    lines, bits = np.zeros((STRIP, 4 * strips.shape[1]), np.int8), rows.view(np.int32)
    words = lines.view(np.uint32)
    for strip in range(first, last):
        for lane in range(STRIP):
            i = strip * STRIP + lane
            if i < rows.shape[0]:
                step, error, _, squared = _encode(rows, bits, i, lines, lane)
                taken = half[i] = squared / np.float32(2) if metric == L2 else np.float32(0)
            else:
                lines[lane, :] = 0
                step = error = squared = taken = np.float32(0)
            terms[strip, 0, lane], terms[strip, 1, lane] = step, squared
            terms[strip, 2, lane], terms[strip, 3, lane] = error, taken
        for s in range(strips.shape[1]):
            for lane in range(STRIP):
                strips[strip, s, lane] = words[lane, s] ^ _OFFSETS
        for lane in range(STRIP):  # roots of all rows at once
            terms[strip, 1, lane] = _length(terms[strip, 1, lane], rows.shape[1])
            terms[strip, 2, lane] = _left_out(terms[strip, 2, lane], terms[strip, 0, lane], rows.shape[1])


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST, **UNCOUNTED)
def _encode(vectors, bits, i, lines, at):  # type: ignore[no-untyped-def]
    """Write a vector's bytes; return one's worth; the squares of what is left out, of the bytes, and of the vector."""
    # Positions without a sign need no look at what a negative one means.
    i, at, dimension = np.uintp(i), np.uintp(at), np.uintp(vectors.shape[1])
    greatest, squared = np.int32(0), np.float32(0)
    for d in range(dimension):
        greatest = max(greatest, np.int32(bits[i, d] & _UNSIGNED))  # without a sign, floats rank as their bits do
        squared += vectors[i, d] * vectors[i, d]
    top = np.int32(greatest).view(np.float32)
    if top < _SHORT:
        for d in range(dimension):
            lines[at, d] = np.int8(0)
        return np.float32(0), np.float32(0), np.float32(0), squared
    many, step = _MOST / top, top / _MOST
    error, rest = np.float32(0), np.float32(0)
    for d in range(dimension):
        lines[at, d], code = _rounded(vectors[i, d], many)
        gap = vectors[i, d] - code * step
        error += gap * gap
        rest += code * code
    return step, error, rest, squared


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"}, **UNCOUNTED)
def _rounded(value, many):  # type: ignore[no-untyped-def]
    """Round a product of at most 127; return a byte and a number."""
    # Sums may not be reordered here, or nothing would be left of what rounds.
    shifted = np.float32(value * many + _WHOLE)
    return np.int8(np.float32(shifted).view(np.int32)), shifted - _WHOLE


@numba.njit(cache=True, nogil=True, error_model="numpy", **UNCOUNTED)
def _length(squared, dimension):  # type: ignore[no-untyped-def]
    """Return a length that is none less than it is."""
    root = np.sqrt(np.float32(dimension))
    return np.sqrt(squared) * (np.float32(1) + _ROUNDING * root) + _SHORT * root


@numba.njit(cache=True, nogil=True, error_model="numpy", **UNCOUNTED)
def _left_out(squared, step, dimension):  # type: ignore[no-untyped-def]
    """Return the length of what bytes leave out, not less than it is."""
    return _length(squared, dimension) + _ROUNDING * _FULL * step * np.sqrt(np.float32(dimension))
