"""Radial distribution functions and coordination numbers by element."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, describe
from ..neighbors import pairs_within
from .trajectories import Frame, TrajectoryLike, open_trajectory


@dataclass(frozen=True)
class RadialDistributions:
    """Radial distributions of E elements in R bins, averaged over frames.

    Parameters
    ----------
    elements : tuple of str, length E
        In alphabetical order.
    edges : numpy.ndarray, float64, shape (R + 1,), Å
        Edges of the bins.
    g : numpy.ndarray, float64, shape (E, E, R)
        Radial distribution functions: density of the second element around atoms of the first,
        divided by its mean density in the cell (vacuum included). The array is symmetric. All
        images of pairs of different atoms count, but not an atom's own images. Uncorrelated
        positions therefore give 1 at any distance, even beyond half the cell. NaN without a cell,
        and for a single atom with itself.
    coordination : numpy.ndarray, float64, shape (E, E, R)
        Mean number of atoms of the second element around an atom of the first, up to the outer edge
        of each bin; an atom's own images are included.
    num_frames : int
    """

    elements: tuple[str, ...]
    edges: np.ndarray
    g: np.ndarray
    coordination: np.ndarray
    num_frames: int

    @property
    def r(self) -> np.ndarray:
        """Centres of the bins, shape (R,), Å."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All pairs of elements, each once."""
        return tuple(combinations_with_replacement(self.elements, 2))

    def between(self, first: str, second: str) -> np.ndarray:
        """Radial distribution function g(r) of two elements, shape (R,)."""
        return self.g[self._index(first), self._index(second)]

    def coordination_number(self, center: str, neighbor: str, radius: float) -> float:
        """Mean number of neighbours of an element within a radius (Å) of an atom.

        Raises
        ------
        InputError
            If an element is absent, or the radius is beyond the bins.
        """
        if not 0.0 < radius <= self.edges[-1]:
            expected = f"a distance up to {self.edges[-1]:g} Å, the end of the last bin"
            raise InputError(describe("radius", radius, expected))
        counts = self.coordination[self._index(center), self._index(neighbor)]
        return float(np.interp(radius, self.edges, np.concatenate(([0.0], counts))))

    def _index(self, element: str) -> int:
        if element not in self.elements:
            raise InputError(describe("element", element, f"one of {', '.join(self.elements)}"))
        return self.elements.index(element)


def radial_distributions(
    trajectory: TrajectoryLike,
    topology: Any = None,
    *,
    stride: int = 1,
    r_max: float = 10.0,
    bin_width: float = 0.05,
) -> RadialDistributions:
    """Compute radial distributions and coordination numbers by element along a trajectory.

    Triclinic cells are supported, and ``r_max`` may exceed half the cell. Where
    ``mdtraj.compute_rdf`` is applicable, g agrees with it.

    Parameters
    ----------
    trajectory, topology, stride
        See :func:`open_trajectory`.
    r_max : float, Å
        Largest distance; rounded to a multiple of ``bin_width``.
    bin_width : float, Å

    Raises
    ------
    InputError
        If the trajectory cannot be read, or a length is invalid.
    """
    for name, value in (("r_max", r_max), ("bin_width", bin_width)):
        if not (np.isfinite(value) and value > 0.0):
            raise InputError(describe(name, value, "a length (Å) above 0"))
    if bin_width > r_max:
        raise InputError(describe("bin_width", bin_width, f"at most r_max, {r_max:g} Å"))
    source = open_trajectory(trajectory, topology, stride)
    counts = _PairCounts(source.symbols, round(r_max / bin_width), bin_width)
    for frame in source.frames():
        counts.add(frame)
    if counts.num_frames == 0:
        raise InputError(describe("trajectory", f"no frames in {source.source}", "at least one"))
    return counts.finished()


class _PairCounts:
    """Numbers of pairs by element and distance."""

    def __init__(self, symbols: tuple[str, ...], bins: int, bin_width: float) -> None:
        self.elements = tuple(sorted(set(symbols)))
        self.kinds = np.array([self.elements.index(symbol) for symbol in symbols])
        self.edges = bin_width * np.arange(bins + 1)
        self.num_frames = 0
        count = len(self.elements)
        self._between = np.zeros((count, count, bins))  # each pair of atoms once
        self._own = np.zeros((count, bins))  # both directions
        self._inverse_volume = 0.0
        self._periodic = True

    def add(self, frame: Frame) -> None:
        """Count the pairs of one frame."""
        first, second, vectors = pairs_within(frame.positions, frame.cell, float(self.edges[-1]))
        bins = len(self.edges) - 1
        places = np.searchsorted(self.edges, np.linalg.norm(vectors, axis=1), side="right") - 1
        inside = places < bins
        first, second, places = first[inside], second[inside], places[inside]
        size = len(self.elements)
        own = first == second
        apart = ~own
        key = (self.kinds[first] * size + self.kinds[second]) * bins + places
        found = np.bincount(key[apart], minlength=size * size * bins)
        self._between += found.reshape(size, size, bins)
        key = self.kinds[first] * bins + places
        self._own += 2 * np.bincount(key[own], minlength=size * bins).reshape(size, bins)
        self._periodic &= frame.cell is not None
        if frame.cell is not None:
            self._inverse_volume += 1.0 / abs(np.linalg.det(frame.cell))
        self.num_frames += 1

    def finished(self) -> RadialDistributions:
        """Averages over the frames."""
        numbers = np.bincount(self.kinds).astype(float)
        directed = self._between + self._between.swapaxes(0, 1)  # pairs of one element twice
        around = directed.copy()
        same = np.arange(len(numbers))
        around[same, same] += self._own
        coordination = np.cumsum(around, axis=-1) / (self.num_frames * numbers[:, None, None])
        pairs = np.outer(numbers, numbers) - np.diag(numbers)  # directed pairs
        shells = 4.0 / 3.0 * np.pi * np.diff(self.edges**3)
        uniform = pairs[:, :, None] * self._inverse_volume * shells
        g = np.full_like(directed, np.nan)
        if self._periodic:
            np.divide(directed, uniform, out=g, where=uniform > 0.0)
        return RadialDistributions(self.elements, self.edges, g, coordination, self.num_frames)


def save_radial(distributions: RadialDistributions, path: str | Path) -> None:
    """Write a CSV table of r (Å), g of each pair of elements, and coordination numbers.

    Columns ``g_A-B`` belong to the centre ``r`` of a bin, columns ``n_A-B`` (B around A) to its
    outer edge ``r_outer``.
    """
    names, columns = ["r", "r_outer"], [distributions.r, distributions.edges[1:]]
    for first, second in distributions.pairs:
        names.append(f"g_{first}-{second}")
        columns.append(distributions.between(first, second))
    for i, center in enumerate(distributions.elements):
        for j, neighbor in enumerate(distributions.elements):
            names.append(f"n_{center}-{neighbor}")
            columns.append(distributions.coordination[i, j])
    table = np.stack(columns, axis=1)
    np.savetxt(path, table, "%.6g", ",", header=",".join(names), comments="", encoding="utf-8")
