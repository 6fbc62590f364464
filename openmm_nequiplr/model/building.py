"""Construction of an AtomicGraph from atoms and positions: types, neighbours, lattice sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols

from ..boundaries import FREE, SLAB, as_pbc, check_slab, whole_slab
from ..checks import as_numbers
from ..conditions import UNCONDITIONED, ChargeConditions, check_voltage
from ..electrostatics import (
    EwaldGeometry,
    EwaldSplitting,
    ewald_splitting,
    geometry_of,
    published_splitting,
)
from ..electrostatics.external import applied_potential
from ..errors import InputError, UnknownElementError, describe, notify
from ..graph import AtomicGraph
from ..lattice import check_cell, reduced
from ..verlet import VerletList
from ..whole import WholeGroups, WholeMolecules
from .config import ModelConfig
from .geometry_checks import (
    check_charge,
    check_distances,
    check_electrodes,
    check_field,
    check_positions,
    graph_key,
)

# Tensors of a graph that rarely change.
_CONSTANTS = ("cell", "total_charge", "electric_field", "group_charges", "applied_potential")
#: Vacuum as a fraction of the height of a slab's cell below which a note is issued.
THINNEST = 1.0 / 3.0


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
    InputError
        If a value is neither an atomic number nor a symbol.
    UnknownElementError
        If an element is unknown to the model.
    """
    type_of_number = {number: k for k, number in enumerate(config.numbers)}
    known = [type_of_number.get(_atomic_number(value)) for value in numbers]
    strangers = {
        value if isinstance(value, str) else chemical_symbols[int(value)]
        for value, index in zip(numbers, known, strict=True)
        if index is None
    }
    if strangers:
        expected = f"those of the model {config.type_names}"
        raise UnknownElementError(describe("elements", sorted(strangers), expected))
    return np.array(known, dtype=np.int64)


def _atomic_number(value: int | str | float) -> int:
    """Atomic number of a symbol or a number; 0 for an unknown symbol."""
    if isinstance(value, str):
        return atomic_numbers.get(value, 0)
    try:
        number = int(value)
        good = number == value and 0 <= number < len(chemical_symbols)
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good or isinstance(value, bool):
        raise InputError(describe("numbers", value, "atomic numbers or element symbols"))
    return number


def build_graph(
    config: ModelConfig,
    numbers: Sequence[int] | Sequence[str] | np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray | None = None,
    pbc: bool | Sequence[bool] = False,
    total_charge: float = 0.0,
    lattice_sum: bool = True,
    **conditions: Any,
) -> AtomicGraph:
    """Build the graph of one structure, on the CPU.

    Parameters
    ----------
    config : ModelConfig
    numbers : sequence of int or str, length N
        Atomic numbers or element symbols.
    positions : numpy.ndarray, shape (N, 3), Å
    cell : numpy.ndarray, shape (3, 3), optional, Å
        Rows are lattice vectors, of any basis and handedness; required if periodic.
    pbc : bool or three bool
        Periodic in all directions, in none, or (true, true, false) for a slab.
    total_charge : float, e
    lattice_sum : bool
        Whether to collect the pairs of the dense Coulomb sum, which a mesh does not need.
    **conditions
        ``electric_field``, ``charge_groups``, ``group_charges``, ``electrodes`` and
        ``electrode_voltage`` of :class:`.conditions.ChargeConditions`.

    Raises
    ------
    InputError, UnknownElementError, BoxError
        If an argument has the wrong shape, or is not finite or out of range, an element is unknown,
        the cell is flat, or two atoms overlap.
    """
    given, atoms = ChargeConditions(**conditions), (config, numbers, pbc, total_charge)
    builder = GraphBuilder(*atoms, lattice_sum=lattice_sum, conditions=given)
    return builder(positions, cell, given.electric_field, given.electrode_voltage)


def with_lattice_sum(config: ModelConfig, graph: AtomicGraph) -> AtomicGraph:
    """Add the pairs of the dense Coulomb sum to the graph of one structure if they are missing."""
    if not graph.periodic[0] or graph.ewald[0] is not None or config.legacy_periodic:
        return graph
    if not config.equilibration:
        return graph
    points, box = graph.positions.cpu().numpy(), graph.cell[0].cpu().numpy()
    splitting = lattice_splitting(config, graph.types.tolist(), box)
    geometry = geometry_of(splitting, points, box)
    return replace(graph, ewald=(geometry.to(graph.positions.device),))


def lattice_splitting(
    config: ModelConfig, types: Sequence[int], cell: np.ndarray
) -> EwaldSplitting:
    """Ewald width and cutoffs of the dense Coulomb sum of atoms in a cell, (3, 3), Å."""
    if config.legacy_ewald_cutoff:
        return published_splitting(cell, len(types))
    widest = max(config.widths[k] for k in set(types))
    return ewald_splitting(cell, len(types), widest)


class GraphBuilder:
    """Builder of graphs of the same atoms at different geometries.

    Constant data are prepared once, and neighbour lists may be reused. The cell of a graph is the
    reduced cell of the given lattice (:func:`openmm_nequiplr.lattice.reduced`). It is the cheapest
    to evaluate, and the results do not depend on the basis.

    Parameters
    ----------
    config : ModelConfig
    numbers : sequence of int or str, length N
        Atomic numbers or element symbols.
    pbc : bool or three bool
        Periodic in all directions, in none, or (true, true, false) for a slab. A model of isolated
        molecules uses the cell only to unwrap molecules.
    total_charge : float, e
    skin : float, Å
        Search distance beyond the cutoff, which allows reuse of the list while atoms move
        (:class:`openmm_nequiplr.verlet.VerletList`). It does not affect the results. With the
        default of 0, each geometry is searched.
    device : torch.device or str
        Device of the graphs.
    lattice_sum : bool
        Whether to collect the pairs of the dense Coulomb sum, which a mesh does not need.
    conditions : ChargeConditions
        Charge groups and electrodes; field and voltage are given with each geometry.
    replicas : int
        Number R of non-interacting copies of a system. The N/R atoms of each copy are contiguous,
        and each copy is a charge group.

    Raises
    ------
    InputError, UnknownElementError
        If an argument is invalid, or an element is unknown.
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
        conditions: ChargeConditions = UNCONDITIONED,
        replicas: int = 1,
    ) -> None:
        self.config = config
        self.lattice_sum, self.replicas = lattice_sum, replicas
        given = as_pbc(pbc)
        self.pbc = given if config.sees_images(bool(given)) else FREE
        self.periodic = bool(self.pbc)
        if config.legacy_periodic and self.pbc == SLAB:
            expected = (
                "True or False for a model of the published code, whose charges do not interact"
            )
            raise InputError(describe("pbc", list(self.pbc), expected))
        self.device = device
        self._whole = WholeMolecules() if config.isolated and given else None
        self._thin = False
        self._inside: tuple[torch.Tensor, ...] | None = None
        #: Verlet lists of the edges and of the pairs of a lattice sum.
        self.neighbors = VerletList(skin, device=device, replicas=replicas)
        self.pairs = VerletList(skin, full=False, device=device, replicas=replicas)
        types = type_indices(config, numbers)
        self._count, self._kinds = len(types), types[: len(types) // replicas].tolist()
        self._cutoff, self._key = max(config.r_max, config.charge_cutoff), graph_key(config)
        self._given: np.ndarray | None = None
        self._numbers = [config.numbers[k] for k in types.tolist()]
        check_charge(total_charge, self._numbers)
        charge = torch.tensor([float(total_charge)], dtype=torch.float64)
        self._types, self._charge = torch.from_numpy(types).to(device), charge
        self._batch = torch.zeros_like(self._types)
        self._sides = check_electrodes(config, self._count, conditions.electrodes)
        held = conditions.held(self._count, total_charge)
        if held is not None and not config.equilibration and replicas == 1:
            got = f"{len(held.charges)} groups"
            raise InputError(describe("charge_groups", got, "None for a model without charges"))
        self._whole_groups: WholeGroups | None = None
        self._groups: torch.Tensor | None = None
        self._group_charges: torch.Tensor | None = None
        if held is not None:
            self._whole_groups = WholeGroups(held.groups) if replicas == 1 else None
            self._groups, self._group_charges = (torch.from_numpy(x) for x in held)
            self._groups = self._groups.to(device)
        self._moved: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(
        self,
        positions: np.ndarray,
        cell: np.ndarray | None = None,
        electric_field: Sequence[float] | np.ndarray | None = None,
        electrode_voltage: float = 0.0,
        total_charge: float | None = None,
    ) -> AtomicGraph:
        """Build the graph of one geometry.

        Parameters
        ----------
        positions : numpy.ndarray, shape (N, 3), Å
        cell : numpy.ndarray, shape (3, 3), optional, Å
            Rows are lattice vectors; required if periodic.
        electric_field : sequence of 3 float, optional, V/Å
        electrode_voltage : float, V
        total_charge : float, e, optional
            In place of that of the builder.

        Raises
        ------
        InputError, BoxError
            If an argument has the wrong shape or is not finite, the cell is flat, or the field is
            not supported for this structure.
        """
        points = as_numbers("positions", positions)
        check_positions(self._count, points)
        if self._whole is not None and cell is not None:
            points = self._whole(points, as_numbers("cell", cell))
        voltage = check_voltage(electrode_voltage, self._sides)
        box = self._reduced(cell) if self.periodic else np.zeros((3, 3))
        slab = self.pbc == SLAB
        field = None
        if electric_field is not None:
            groups, normal = self._whole_groups, box[2] if slab else None
            across = self.periodic and groups is None
            field = check_field(self.config, across, electric_field, normal)
            if self.periodic and groups is not None and field.any():
                points = groups(points, box)
        points = self._slab(points, box) if slab else points
        charge, searches = self._charge, self.neighbors.searches
        if total_charge is not None:
            check_charge(total_charge, self._numbers)
            charge = torch.full_like(charge, total_charge)
        edge_index, edge_shift = self.neighbors(points, box, self.periodic, self._cutoff)
        if slab:
            edge_index, edge_shift = self._within_slab(edge_index, edge_shift)
        if self.neighbors.searches != searches:
            check_distances(points, box, edge_index, edge_shift)
        graph = AtomicGraph(
            positions=torch.from_numpy(points.copy()),
            types=self._types,
            batch=self._batch,
            cell=torch.from_numpy(box.copy()).unsqueeze(0),
            pbc=(self.pbc,),
            total_charge=charge,
            edge_index=edge_index,
            edge_shift=edge_shift,
            counts=(self._count,),
            ewald=(self._lattice_sum(points, box) if self.periodic else None,),
            electric_field=None if field is None else torch.from_numpy(field).unsqueeze(0),
            charge_groups=self._groups,
            group_charges=self._group_charges,
            applied_potential=applied_potential(self._sides, voltage),
            replicas=self.replicas,
            key=self._key,
        )
        if torch.device(self.device).type == "cpu":
            return graph
        constants: dict[str, Any] = {
            name: self._on_device(name, getattr(graph, name)) for name in _CONSTANTS
        }
        reach = self.neighbors.reach(box, self._cutoff)
        return replace(graph, host=graph, reach=reach, **constants).to(self.device)

    def _within_slab(
        self, index: torch.Tensor, shift: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Edges that do not cross the vacuum; the same tensors as before for the same list."""
        known = self._inside
        if known is None or known[0] is not index or known[1] is not shift:
            inside = shift[:, 2] == 0.0
            self._inside = known = index, shift, index[:, inside], shift[inside]
        return known[2], known[3]

    def _on_device(self, name: str, value: torch.Tensor | None) -> torch.Tensor | None:
        """Cached copy on the device of a tensor that rarely changes."""
        if value is None:
            return None
        known = self._moved.get(name)
        if known is None or not torch.equal(known[0], value):
            self._moved[name] = known = value, value.to(self.device)
        return known[1]

    def _reduced(self, cell: np.ndarray | None) -> np.ndarray:
        """Reduced cell, cached for the last given cell."""
        box = as_numbers("cell", cell)
        if self._given is None or not np.array_equal(box, self._given):
            if self.pbc == SLAB:
                check_slab(box)
            check_cell(box)
            self._given, self._box = box.copy(), reduced(box)
        return self._box

    def _slab(self, points: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Unwrapped positions of a slab; a note is issued once if the vacuum is too thin."""
        whole, gap = whole_slab(torch.from_numpy(points), torch.from_numpy(box))
        lengths = np.linalg.norm(box, axis=1)
        width = gap * lengths[2]
        if not self._thin and (gap < THINNEST or width < 0.5 * lengths[:2].max()):
            self._thin = True
            notify(
                f"cell of a slab: {width:.1f} Å of vacuum are less than a third of the cell "
                f"({lengths[2]:.1f} Å) or half of the longest lateral period "
                f"({lengths[:2].max():.1f} Å), so that images along the normal interact"
            )
        return whole.numpy()

    def _lattice_sum(self, points: np.ndarray, box: np.ndarray) -> EwaldGeometry | None:
        if self.config.legacy_periodic or not self.config.equilibration or not self.lattice_sum:
            return None
        splitting = lattice_splitting(self.config, self._kinds, box)
        return geometry_of(splitting, points, box, self.pairs)
