"""Summary of the data of a training: elements, cells, labels, charges, distances, sizes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..data.keys import FoundKeys
from ..data.quantities import LABELS
from ..data.structure import Structure
from ..describe import counted
from ..neighbors import cell_heights
from .preparation import place_of
from .statistics import (
    elements_of,
    fit_energy_scales,
    fit_energy_shifts,
    mean_num_neighbors,
    shortest_distances,
)

#: Number of structures used for distances, evenly spaced over the data.
_SAMPLE = 200
#: Cutoff of the search for pairs, Å.
_FAR = 5.0
#: Smallest gap between atoms along a cell vector that counts as vacuum, Å.
_VACUUM = 6.0
_SHOWN = 12


@dataclass(frozen=True)
class DataSummary:
    """Summary of a data set.

    Parameters
    ----------
    structures : tuple of Structure
        One or more.
    keys : FoundKeys
        Keys found in extended XYZ files.
    """

    structures: tuple[Structure, ...]
    keys: FoundKeys = field(default_factory=FoundKeys)

    @cached_property
    def sample(self) -> tuple[Structure, ...]:
        """Structures evenly spaced over the data."""
        return self.structures[:: -(-len(self.structures) // _SAMPLE)]

    @cached_property
    def elements(self) -> tuple[str, ...]:
        """Symbols, in order of atomic number."""
        return elements_of(self.structures)

    @cached_property
    def num_atoms(self) -> int:
        """Total number of atoms."""
        return sum(structure.num_atoms for structure in self.structures)

    @cached_property
    def num_periodic(self) -> int:
        """Number of periodic structures."""
        return sum(bool(structure.pbc) for structure in self.structures)

    @cached_property
    def labels(self) -> dict[str, int]:
        """Number of structures with each label that a training can use.

        Dipoles of periodic structures and stresses of isolated ones cannot be used.
        """
        counts = Counter(name for s in self.structures for name in LABELS if s.has_label(name))
        return {name: counts[name] for name in LABELS if counts[name]}

    @cached_property
    def unlabelled(self) -> list[int]:
        """Indices of the structures without usable labels."""
        return [
            index
            for index, structure in enumerate(self.structures)
            if not any(structure.has_label(name) for name in LABELS)
        ]

    @cached_property
    def total_charges(self) -> dict[float, int]:
        """Number of structures with each total charge (e), in ascending order."""
        return dict(sorted(Counter(s.total_charge for s in self.structures).items()))

    @cached_property
    def charges(self) -> dict[str, np.ndarray]:
        """Reference charges by element, e; elements without such charges are omitted."""
        labelled = [s for s in self.structures if s.charges is not None]
        if not labelled:
            return {}
        symbols = np.concatenate([np.array(s.symbols) for s in labelled])
        values = np.concatenate([s.charges for s in labelled if s.charges is not None])
        found = {name: values[symbols == name] for name in self.elements}
        return {name: own for name, own in found.items() if len(own)}

    @cached_property
    def rms_force(self) -> float:
        """Root mean square of the force components, eV/Å; 1 without forces."""
        return float(fit_energy_scales(self.structures, self.elements)[0])

    @cached_property
    def copies(self) -> int:
        """Number of structures whose atoms, positions, cell and charge repeat an earlier one."""
        return len(self.structures) - len(set(map(place_of, self.structures)))

    @cached_property
    def distances(self) -> np.ndarray:
        """Shortest distance of each pair of elements in the sample, Å; infinite beyond 5 Å."""
        table = shortest_distances(self.sample, self.elements, _FAR)
        return np.where(table < _FAR, table, np.inf)

    @cached_property
    def vacuum(self) -> tuple[float, ...]:
        """Smallest width of the vacuum along each cell vector in all periodic structures, Å."""
        gaps = [_gaps(s) for s in self.sample if s.pbc]
        return tuple(np.min(gaps, axis=0).tolist()) if gaps else (0.0, 0.0, 0.0)

    @property
    def open_axes(self) -> tuple[int, ...]:
        """Indices of the cell vectors along which there is vacuum."""
        return tuple(axis for axis, width in enumerate(self.vacuum) if width > _VACUUM)

    def num_neighbors(self, cutoff: float) -> float:
        """Mean number of neighbours of an atom within a cutoff (Å), in the sample."""
        return mean_num_neighbors(self.sample, cutoff)

    def lines(self) -> list[str]:
        """Lines of text that report the summary."""
        rows = {
            "structures": self._contents(),
            "cells": self._cells(),
            "labels": self._labels(),
            "total charge": _counted({f"{q:+g}" if q else "0": n for q, n in
                                      self.total_charges.items()}),
            "distances": self._distances(),
            "forces": self._forces(),
            "energies": self._energies(),
            "charges": self._charges(),
            "fields": self._fields(),
            "repeated": counted(self.copies, "structure") if self.copies else "",
        }  # fmt: skip
        return [f"{name + ':':14}{text}" for name, text in rows.items() if text]

    def _contents(self) -> str:
        from ase.formula import Formula

        sizes = [s.num_atoms for s in self.structures]
        kinds = Counter(Formula.from_list(list(s.symbols)).format("hill") for s in self.structures)
        atoms = _range(min(sizes), max(sizes), "{:d}")
        text = f"{len(sizes)} of {atoms} {'atom' if atoms == '1' else 'atoms'}, elements"
        often = ", ".join(f"{name} ({count})" for name, count in kinds.most_common(3))
        more = f" and {len(kinds) - 3} more compositions" if len(kinds) > 3 else ""
        return f"{text} {' '.join(self.elements)}: {often}{more}"

    def _cells(self) -> str:
        count, periodic = len(self.structures), self.num_periodic
        if not periodic:
            return "none, not periodic"
        cells = [s.cell for s in self.structures if s.cell is not None]
        edges = np.array([np.linalg.norm(cell, axis=1) for cell in cells])
        volumes = [
            abs(np.linalg.det(s.cell)) / s.num_atoms for s in self.structures if s.cell is not None
        ]
        text = "periodic" if periodic == count else f"{periodic} of {count} periodic"
        text += f", edges {_range(edges.min(), edges.max(), '{:.2f}')} Å, "
        text += f"{_range(min(volumes), max(volumes), '{:.1f}')} Å³ per atom"
        widths = ", ".join(f"{self.vacuum[axis]:.1f} Å along {'abc'[axis]}" for axis in
                           self.open_axes)  # fmt: skip
        return f"{text}; vacuum of {widths}" if widths else text

    def _labels(self) -> str:
        found = []
        for name, count in self.labels.items():
            names = sorted(self.keys.used.get(name, ()))
            keys = f" ({', '.join(names)})" if names else ""
            found.append(f"{name}{keys} in {count}")
        missing = [name for name in LABELS if name not in self.labels]
        return (", ".join(found) or "none") + (f"; no {', '.join(missing)}" if missing else "")

    def _distances(self) -> str:
        names, table = self.elements, self.distances
        pairs = [
            (table[i, j], f"{names[i]}–{names[j]} {table[i, j]:.2f}")
            for i in range(len(names))
            for j in range(i, len(names))
            if np.isfinite(table[i, j])
        ]
        if not pairs:
            return ""
        pairs.sort()
        text = ", ".join(each for _, each in pairs[:_SHOWN])
        return f"shortest {text}{' …' if len(pairs) > _SHOWN else ''} Å"

    def _forces(self) -> str:
        known = [(i, s.forces) for i, s in enumerate(self.structures) if s.forces is not None]
        if not known:
            return ""
        index, forces = max(known, key=lambda each: float(np.abs(each[1]).max()))
        return (
            f"rms {self.rms_force:.3g} eV/Å, largest {np.abs(forces).max():.3g} (structure {index})"
        )

    def _energies(self) -> str:
        if "energy" not in self.labels:
            return ""
        shifts = dict(zip(self.elements, fit_energy_shifts(self.structures, self.elements),
                          strict=True))  # fmt: skip
        rest = [
            (s.energy - sum(shifts[symbol] for symbol in s.symbols)) / s.num_atoms
            for s in self.structures
            if s.energy is not None
        ]
        rms = 1000.0 * float(np.sqrt(np.mean(np.square(rest))))
        return f"{rms:.3g} meV/atom (rms) about a sum over elements"

    def _fields(self) -> str:
        known = [s.electric_field for s in self.structures if s.electric_field is not None]
        largest = max((float(np.linalg.norm(each)) for each in known), default=0.0)
        among = sum(s.outside_potential is not None for s in self.structures)
        found = [f"in {len(known)}, up to {largest:.3g} V/Å"] if known else []
        return "; ".join([*found, *([f"charges outside of {among}"] if among else [])])

    def _charges(self) -> str:
        found = [
            f"{name} {own.mean():+.2f} ({own.min():+.2f} to {own.max():+.2f})"
            for name, own in self.charges.items()
        ]
        return f"{', '.join(found)} e" if found else ""


def _gaps(structure: Structure) -> np.ndarray:
    """Largest gap between atoms along each cell vector, shape (3,), Å."""
    assert structure.cell is not None
    fractions = np.sort((structure.positions @ np.linalg.inv(structure.cell)) % 1.0, axis=0)
    around = np.concatenate([fractions, fractions[:1] + 1.0])
    return np.diff(around, axis=0).max(axis=0) * cell_heights(structure.cell)


def _range(low: float, high: float, form: str) -> str:
    first, last = form.format(low), form.format(high)
    return first if first == last else f"{first}–{last}"


def _counted(counts: dict[str, int]) -> str:
    """Values with their counts as text; a single value has no count."""
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} in {count}" for name, count in counts.items())
