"""From numbers and positions to an AtomicGraph: types, neighbours, lattice sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols

from ..electrostatics import EwaldGeometry, ewald_geometry, published_geometry
from ..errors import InputError, UnknownElementError, describe
from ..graph import AtomicGraph
from ..verlet import VerletList
from .config import ModelConfig


def type_indices(
    config: ModelConfig, numbers: Sequence[int] | Sequence[str] | np.ndarray
) -> np.ndarray:
    """Type index of each atom, int64, shape (N,).

    Parameters
    ----------
    config : ModelConfig
    numbers : sequence of int or str
        Atomic numbers or element symbols.

    Raises
    ------
    UnknownElementError
        If the model does not know an element.
    """
    type_of_number = {number: k for k, number in enumerate(config.numbers)}
    known: list[int | None] = []
    for value in numbers:
        number = atomic_numbers.get(value) if isinstance(value, str) else int(value)
        known.append(None if number is None else type_of_number.get(number))
    strangers = {
        value if isinstance(value, str) else chemical_symbols[int(value)]
        for value, index in zip(numbers, known, strict=True)
        if index is None
    }
    if strangers:
        expected = f"those of the model {config.type_names}"
        raise UnknownElementError(describe("elements", sorted(strangers), expected))
    return np.array(known, dtype=np.int64)


def build_graph(
    config: ModelConfig,
    numbers: Sequence[int] | Sequence[str] | np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray | None = None,
    pbc: bool | Sequence[bool] = False,
    total_charge: float = 0.0,
    lattice_sum: bool = True,
) -> AtomicGraph:
    """Make the graph of one structure, on the CPU.

    Parameters
    ----------
    config : ModelConfig
    numbers : sequence of int or str, length N
        Atomic numbers or element symbols.
    positions : array, shape (N, 3), Å
    cell : array, shape (3, 3), optional, Å
        Rows are lattice vectors; needed when periodic.
    pbc : bool or three bool
        Periodic in all directions or in none.
    total_charge : float, e
    lattice_sum : bool
        Whether to collect the pairs of the dense Coulomb sum, which a mesh does without.

    Raises
    ------
    InputError, UnknownElementError, BoxError
        If an argument is of the wrong shape or not finite, an element unknown, or the cell flat.
    """
    builder = GraphBuilder(config, numbers, pbc, total_charge, lattice_sum=lattice_sum)
    return builder(positions, cell)


def with_lattice_sum(config: ModelConfig, graph: AtomicGraph) -> AtomicGraph:
    """The graph of one structure with the pairs of the dense Coulomb sum, if it lacks them."""
    if not graph.periodic[0] or graph.ewald[0] is not None or config.legacy_periodic:
        return graph
    if not config.equilibration:
        return graph
    points, box = graph.positions.cpu().numpy(), graph.cell[0].cpu().numpy()
    if config.legacy_ewald_cutoff:
        geometry = published_geometry(points, box)
    else:
        widest = max(config.widths[k] for k in set(graph.types.tolist()))
        geometry = ewald_geometry(points, box, widest)
    return replace(graph, ewald=(geometry.to(graph.positions.device),))


class GraphBuilder:
    """Makes graphs of the same atoms at one geometry after another.

    What does not change is made once; neighbours come from lists that may be kept for a while.

    Parameters
    ----------
    config : ModelConfig
    numbers : sequence of int or str, length N
        Atomic numbers or element symbols.
    pbc : bool or three bool
        Periodic in all directions or in none.
    total_charge : float, e
    skin : float, Å
        How much farther than needed neighbours are searched, so that the list can be kept while
        atoms move (:class:`openmm_nequiplr.verlet.VerletList`); it changes no result. By default
        nothing is kept.
    device : torch.device or str
        Where the graphs will be.
    lattice_sum : bool
        Whether to collect the pairs of the dense Coulomb sum, which a mesh does without.

    Raises
    ------
    InputError, UnknownElementError
        If an argument has a wrong value, or an element is unknown.
    """

    def __init__(
        self,
        config: ModelConfig,
        numbers: Sequence[int] | Sequence[str] | np.ndarray,
        pbc: bool | Sequence[bool] = False,
        total_charge: float = 0.0,
        *,
        skin: float = 0.0,
        device: torch.device | str = "cpu",
        lattice_sum: bool = True,
    ) -> None:
        self.config = config
        self.lattice_sum = lattice_sum
        self.periodic = config.sees_images(_all_or_none(pbc))
        self.device = device
        #: The lists behind the edges and behind the pairs of a lattice sum.
        self.neighbors = VerletList(skin, device=device)
        self.pairs = VerletList(skin, full=False, device=device)
        types = type_indices(config, numbers)
        self._count = len(types)
        self._cutoff = max(config.r_max, config.charge_cutoff)
        self._widest = max((config.widths[k] for k in set(types.tolist())), default=0.0)
        if not math.isfinite(total_charge):
            raise InputError(describe("total_charge", total_charge, "a finite number"))
        charge = torch.tensor([float(total_charge)], dtype=torch.float64)
        self._types, self._charge = torch.from_numpy(types).to(device), charge.to(device)
        self._batch = torch.zeros_like(self._types)

    def __call__(self, positions: np.ndarray, cell: np.ndarray | None = None) -> AtomicGraph:
        """The graph of one geometry.

        Parameters
        ----------
        positions : array, shape (N, 3), Å
        cell : array, shape (3, 3), optional, Å
            Rows are lattice vectors; needed when periodic.

        Raises
        ------
        InputError, BoxError
            If an argument is of the wrong shape or not finite, or the cell flat.
        """
        points = np.asarray(positions, dtype=np.float64)
        _check_geometry(self._count, points, cell, self.periodic)
        box = np.asarray(cell, dtype=np.float64) if self.periodic else np.zeros((3, 3))
        edge_index, edge_shift = self.neighbors(points, box, self.periodic, self._cutoff)
        graph = AtomicGraph(
            positions=torch.from_numpy(points.copy()),
            types=self._types,
            batch=self._batch,
            cell=torch.from_numpy(box.copy()).unsqueeze(0),
            periodic=(self.periodic,),
            total_charge=self._charge,
            edge_index=edge_index,
            edge_shift=edge_shift,
            counts=(self._count,),
            ewald=(self._lattice_sum(points, box) if self.periodic else None,),
        )
        return graph.to(self.device)

    def _lattice_sum(self, points: np.ndarray, box: np.ndarray) -> EwaldGeometry | None:
        if self.config.legacy_periodic or not self.config.equilibration or not self.lattice_sum:
            return None
        if self.config.legacy_ewald_cutoff:
            return published_geometry(points, box)
        return ewald_geometry(points, box, self._widest, search=self.pairs)


def _all_or_none(pbc: bool | Sequence[bool] | np.ndarray) -> bool:
    flags = np.atleast_1d(np.asarray(pbc, dtype=bool))
    if flags.all() or not flags.any():
        return bool(flags.all())
    expected = "periodic in all three directions or in none (pad slabs with vacuum)"
    raise InputError(describe("pbc", flags.tolist(), expected))


def _check_geometry(
    count: int, positions: np.ndarray, cell: np.ndarray | None, periodic: bool
) -> None:
    if positions.shape != (count, 3) or count == 0:
        expected = f"shape ({count}, 3) with at least one atom"
        raise InputError(describe("positions", positions.shape, expected))
    if not np.isfinite(positions).all():
        row = int(np.argwhere(~np.isfinite(positions))[0, 0])
        raise InputError(describe("positions", f"{positions[row]} of atom {row}", "finite numbers"))
    if periodic and (cell is None or np.shape(cell) != (3, 3)):
        got = None if cell is None else np.shape(cell)
        raise InputError(describe("cell", got, "shape (3, 3) for a periodic structure"))
