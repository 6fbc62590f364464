"""Distributions of the charges of each element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..checks import as_numbers
from ..errors import InputError, describe


@dataclass(frozen=True)
class ChargeDistributions:
    """Histograms of the charges of E elements with B bins each.

    Parameters
    ----------
    elements : tuple of str, length E
        In alphabetical order.
    edges : numpy.ndarray, float64, shape (E, B + 1), e
        Edges of the bins, from the smallest to the largest charge of each element.
    density : numpy.ndarray, float64, shape (E, B), 1/e
        Probability density, normalised for each element.
    mean, deviation : numpy.ndarray, float64, shape (E,), e
        Mean and standard deviation over atoms and frames.
    """

    elements: tuple[str, ...]
    edges: np.ndarray
    density: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


def charge_distributions(
    charges: np.ndarray, symbols: Sequence[str], bins: int = 60
) -> ChargeDistributions:
    """Compute the distributions of charges by element.

    Parameters
    ----------
    charges : numpy.ndarray, shape (F, N), e
        Charges of F frames, recomputed or recorded during the run.
    symbols : sequence of str, length N
    bins : int

    Raises
    ------
    InputError
        If the shapes do not match, or there are no charges or no bins.
    """
    values = as_numbers("charges", charges)
    if values.ndim != 2 or values.shape[1] != len(symbols) or values.size == 0:
        expected = f"shape (F, {len(symbols)}) with at least one frame"
        raise InputError(describe("charges", f"shape {values.shape}", expected))
    if bins < 1:
        raise InputError(describe("bins", bins, "at least 1"))
    elements = tuple(sorted(set(symbols)))
    names = np.array(symbols)
    edges, density = np.empty((len(elements), bins + 1)), np.empty((len(elements), bins))
    mean, deviation = np.empty(len(elements)), np.empty(len(elements))
    for k, element in enumerate(elements):
        chosen = values[:, names == element]
        low, high = chosen.min(), chosen.max()
        margin = max(0.0, 1e-6 - 0.5 * (high - low))  # bins of a single value need a width
        limits = (low - margin, high + margin)
        density[k], edges[k] = np.histogram(chosen, bins, limits, density=True)
        mean[k], deviation[k] = chosen.mean(), chosen.std()
    return ChargeDistributions(elements, edges, density, mean, deviation)


def save_charge_distributions(distributions: ChargeDistributions, path: str | Path) -> None:
    """Write a CSV table with the columns element, charge (e, middle of a bin) and density (1/e)."""
    with open(path, "w", encoding="utf-8") as handle:
        handle.write("element,charge,density\n")
        for element, edges, density in zip(
            distributions.elements, distributions.edges, distributions.density, strict=True
        ):
            middles = 0.5 * (edges[1:] + edges[:-1])
            for charge, value in zip(middles, density, strict=True):
                handle.write(f"{element},{charge:.8f},{value:.6g}\n")
