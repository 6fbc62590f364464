"""Vectors as combinations of known ones, by a compiled loop on the CPU."""

from __future__ import annotations

import math

import numpy as np

from ..jit import compiled_loop

# A combination comes as near to a vector, relative to its size, and none of its parts is so much
# larger that round-off would count.
_SAME, _LARGEST_PART = 1e-9, 10.0


def coefficients(known: np.ndarray, wanted: np.ndarray) -> np.ndarray | None:
    """Those that make the vectors ``wanted``, shape (C, N), of the vectors ``known``, (K, N).

    Returns
    -------
    numpy.ndarray or None, float64, shape (C, K)
        None if some of ``wanted`` are no combination of ``known``.
    """
    parts, largest, rest = np.empty((len(wanted), len(known))), *np.empty((2, len(wanted)))
    combine(known, wanted, parts, largest, rest)
    sizes = np.sqrt((wanted * wanted).sum(axis=1))
    fits = (rest <= _SAME * sizes) & (largest <= _LARGEST_PART * sizes)
    return parts if fits.all() else None


@compiled_loop(fastmath=True)
def _overlap(first, second):
    total = 0.0
    for i in range(first.shape[0]):
        total += first[i] * second[i]
    return total


@compiled_loop(fastmath=True)
def combine(known, wanted, parts, largest, rest):
    """Write the coefficients that make the vectors ``wanted`` of the vectors ``known``.

    By Gram and Schmidt, every projection taken twice; a vector that depends on those before it is
    left out.

    Parameters
    ----------
    known, wanted : numpy.ndarray, float64, shapes (K, N) and (C, N)
    parts : numpy.ndarray, float64, shape (C, K)
        Takes the coefficients.
    largest, rest : numpy.ndarray, float64, shape (C,)
        Take the length of the largest vector that one of them makes, and of what is left over.
    """
    count = known.shape[0]
    basis, change, lengths = known.copy(), np.zeros((count, count)), np.empty(count)
    for m in range(count):
        lengths[m] = math.sqrt(_overlap(known[m], known[m]))
        change[m, m] = 1.0
        for _ in range(2):
            for b in range(m):
                overlap = _overlap(basis[b], basis[m])
                for i in range(known.shape[1]):
                    basis[m, i] -= overlap * basis[b, i]
                for k in range(count):
                    change[m, k] -= overlap * change[b, k]
        left = math.sqrt(_overlap(basis[m], basis[m]))
        scale = 1.0 / left if left > 1e-10 * lengths[m] else 0.0
        for i in range(known.shape[1]):
            basis[m, i] *= scale
        for k in range(count):
            change[m, k] *= scale
    for c in range(wanted.shape[0]):
        gap = wanted[c].copy()
        parts[c] = 0.0
        for _ in range(2):
            for b in range(count):
                overlap = _overlap(basis[b], gap)
                for i in range(known.shape[1]):
                    gap[i] -= overlap * basis[b, i]
                for k in range(count):
                    parts[c, k] += overlap * change[b, k]
        rest[c] = math.sqrt(_overlap(gap, gap))
        largest[c] = 0.0
        for k in range(count):
            largest[c] = max(largest[c], abs(parts[c, k]) * lengths[k])
