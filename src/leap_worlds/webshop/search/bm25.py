"""BM25 as Lucene 8 computes it: quantised lengths, and single precision in the same places.

For a term of weight w in a document that has it tf times and whose length is L (as it comes back from one byte):

    w    = boost * ln(1 + (N - df + 0.5) / (df + 0.5))                 boost: how often the query has the term
    norm = 1 / (k1 * ((1 - b) + b * L / average length))
    s    = w - w / (1 + tf * norm)                                      rises with tf, never reaches w

A document's score is the sum of s over the query's terms, summed in double precision and rounded to single. There is no
factor (k1 + 1). N and the average count documents that have at least one term.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

K1 = 0.9
B = 0.4

_EXACT_LENGTHS = 24

Array = np.ndarray[Any, Any]


def encode_lengths(lengths: Array) -> Array:
    """Lengths in terms as Lucene's one byte: exact below 24, then three bits after the leading one.

    Args:
        lengths: Non-negative integers below 2**31, any shape.

    Returns:
        uint8, the same shape.
    """
    value = np.maximum(lengths.astype(np.int64) - _EXACT_LENGTHS, 0)
    bits = np.frexp(value.astype(np.float64))[1]  # bits of the integer; exact, as it is below 2**53
    shift = np.maximum(bits - 4, 0)
    coarse = np.where(bits < 4, value, ((value >> shift) & 7) | ((shift + 1) << 3))
    return np.where(lengths < _EXACT_LENGTHS, lengths, _EXACT_LENGTHS + coarse).astype(np.uint8)


def decoded_lengths() -> Array:
    """Returns what each of the 256 bytes stands for: int64, shape (256,)."""
    code = np.arange(256, dtype=np.int64) - _EXACT_LENGTHS
    shift = np.maximum((code >> 3) - 1, 0)
    value = np.where(code < 8, code, ((code & 7) | 8) << shift)
    return np.where(code < 0, code + _EXACT_LENGTHS, value + _EXACT_LENGTHS)


def length_factors(documents: int, tokens: int) -> Array:
    """norm of the formula for each length byte: float32, shape (256,).

    Args:
        documents: Documents that have a term.
        tokens: Terms in all of them, repeats included.
    """
    average = np.float32(tokens / documents) if documents else np.float32(1)
    k1, b, one = np.float32(K1), np.float32(B), np.float32(1)
    return one / (k1 * ((one - b) + b * decoded_lengths().astype(np.float32) / average))


def weight(documents: int, frequency: int, boost: int) -> np.float32:
    """w of the formula.

    Args:
        documents: Documents that have a term.
        frequency: Documents that have this one.
        boost: How often the query has it.
    """
    return np.float32(boost) * np.float32(math.log(1 + (documents - frequency + 0.5) / (frequency + 0.5)))


def contributions(weight: np.float32, saturation: Array) -> Array:
    """s of the formula.

    Args:
        weight: w.
        saturation: tf * norm, float32.

    Returns:
        float32, the same shape; it rises with `saturation`.
    """
    return weight - weight / (np.float32(1) + saturation)
