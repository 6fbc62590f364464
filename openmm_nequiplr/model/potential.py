"""The NequIP-LR potential: electronegativities, charges, energy (arXiv 2503.17949)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols

from ..electrostatics import (
    CoulombOperator,
    EwaldCoulomb,
    FreeSpaceCoulomb,
    LegacyFreeCoulomb,
    LegacyPeriodicCoulomb,
    ewald_geometry,
    published_geometry,
)
from ..equilibration import solve_batch
from ..errors import InputError, UnknownElementError, describe
from ..graph import AtomicGraph
from ..neighbors import neighbor_list
from .config import ModelConfig
from .stages import EdgeHarmonics, ElectronegativityStage, EnergyStage


@dataclass(frozen=True)
class PotentialOutput:
    """What the model says of a batch of B structures with N atoms.

    Parameters
    ----------
    energy : torch.Tensor, float64, shape (B,), eV
    forces : torch.Tensor or None, float64, shape (N, 3), eV/Å
    stress : torch.Tensor or None, float64, shape (B, 3, 3), eV/Å³
        dE/dε / V, zero for non-periodic structures.
    charges : torch.Tensor, float64, shape (N,), e
    electronegativity : torch.Tensor, float64, shape (N,), eV/e
    hardness : torch.Tensor, float64, shape (N,), eV/e²
    energy_short_range, energy_electrostatic : torch.Tensor, float64, shape (B,), eV
    dipole : torch.Tensor, float64, shape (B, 3), e Å
        Σ q r with the positions as given.
    """

    energy: torch.Tensor
    forces: torch.Tensor | None
    stress: torch.Tensor | None
    charges: torch.Tensor
    electronegativity: torch.Tensor
    hardness: torch.Tensor
    energy_short_range: torch.Tensor
    energy_electrostatic: torch.Tensor
    dipole: torch.Tensor


class NequIPLRPotential(torch.nn.Module):
    """NequIP network, charge equilibration over the whole system, charge-aware energy.

    The network runs in the dtype of its parameters (float32 unless ``.double()`` was called);
    geometry, equilibration, Coulomb sums and energies are float64 always.

    Parameters
    ----------
    config : ModelConfig
    """

    energy_shifts: torch.Tensor
    energy_scales: torch.Tensor
    widths: torch.Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if not isinstance(config, ModelConfig):
            raise InputError(describe("config", config, "a ModelConfig"))
        self.config = config
        #: Free text that is saved with the model (what it was trained on, how good it is).
        self.metadata: dict[str, str] = {}
        count = len(config.type_names)
        self.harmonics = EdgeHarmonics(config)
        self.electronegativity_stage = ElectronegativityStage(config)
        self.energy_stage = EnergyStage(config)
        self.hardness_parameter = torch.nn.Parameter(torch.ones(count))
        self.register_buffer("energy_shifts", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("energy_scales", torch.ones(count, dtype=torch.float64))
        widths = torch.tensor(config.widths, dtype=torch.float64)
        self.register_buffer("widths", widths, persistent=False)
        self._type_of_number = {number: k for k, number in enumerate(config.numbers)}
        self.to(torch.float32)

    def _apply(self, fn, recurse=True):
        """Move and cast as torch does, but keep shifts, scales and widths in float64."""
        names = ("energy_shifts", "energy_scales", "widths")
        exact = {name: getattr(self, name) for name in names}
        super()._apply(fn, recurse)
        for name, value in exact.items():
            setattr(self, name, value.to(getattr(self, name).device))
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the network."""
        return self.hardness_parameter.dtype

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.hardness_parameter.device

    # ---------------------------------------------------------------- graphs

    def type_indices(self, numbers: Sequence[int] | Sequence[str] | np.ndarray) -> np.ndarray:
        """Type index of each atom, int64, shape (N,).

        Parameters
        ----------
        numbers : sequence of int or str
            Atomic numbers or element symbols.

        Raises
        ------
        UnknownElementError
            If the model does not know an element.
        """
        known: list[int | None] = []
        for value in numbers:
            number = atomic_numbers.get(value) if isinstance(value, str) else int(value)
            known.append(None if number is None else self._type_of_number.get(number))
        strangers = {
            value if isinstance(value, str) else chemical_symbols[int(value)]
            for value, index in zip(numbers, known, strict=True)
            if index is None
        }
        if strangers:
            expected = f"those of the model {self.config.type_names}"
            raise UnknownElementError(describe("elements", sorted(strangers), expected))
        return np.array(known, dtype=np.int64)

    def build_graph(
        self,
        numbers: Sequence[int] | Sequence[str] | np.ndarray,
        positions: np.ndarray,
        cell: np.ndarray | None = None,
        pbc: bool | Sequence[bool] = False,
        total_charge: float = 0.0,
    ) -> AtomicGraph:
        """Make the graph of one structure: types, neighbours, lattice sums.

        Parameters
        ----------
        numbers : sequence of int or str, length N
            Atomic numbers or element symbols.
        positions : array, shape (N, 3), Å
        cell : array, shape (3, 3), optional, Å
            Rows are lattice vectors; needed when periodic.
        pbc : bool or three bool
            Periodic in all directions or in none.
        total_charge : float, e

        Raises
        ------
        InputError, UnknownElementError, BoxError
        """
        points = np.asarray(positions, dtype=np.float64)
        types = self.type_indices(numbers)
        periodic = _all_or_none(pbc)
        _check_structure(types, points, cell, periodic, total_charge)
        box = np.zeros((3, 3)) if not periodic else np.asarray(cell, dtype=np.float64)
        cutoff = max(self.config.r_max, self.config.charge_cutoff)
        edge_index, edge_shift = neighbor_list(points, box, periodic, cutoff)
        ewald = None
        if periodic and not self.config.legacy_periodic:
            widest = max(self.config.widths[k] for k in set(types.tolist()))
            legacy = self.config.legacy_ewald_cutoff
            ewald = (
                published_geometry(points, box) if legacy else ewald_geometry(points, box, widest)
            )
        graph = AtomicGraph(
            positions=torch.from_numpy(points.copy()),
            types=torch.from_numpy(types),
            batch=torch.zeros(len(types), dtype=torch.int64),
            cell=torch.from_numpy(box.copy()).unsqueeze(0),
            periodic=(periodic,),
            total_charge=torch.tensor([float(total_charge)], dtype=torch.float64),
            edge_index=edge_index,
            edge_shift=edge_shift,
            counts=(len(types),),
            ewald=(ewald,),
        )
        return graph.to(self.device)

    # ---------------------------------------------------------------- pieces

    def hardness(self, types: torch.Tensor) -> torch.Tensor:
        """J of each atom, float64, shape (N,), eV/e²."""
        root = self.hardness_parameter.to(torch.float64)
        return (self.config.hardness_min + root * root)[types]

    def separate_hardness(self, graph: AtomicGraph) -> torch.Tensor:
        """The J that is added to the Coulomb operator's diagonal, float64, shape (N,), eV/e².

        It is :meth:`hardness`, but zero where the operator of a converted model contains it.
        """
        hardness = self.hardness(graph.types)
        if not self.config.legacy_nonperiodic:
            return hardness
        periodic = torch.tensor(graph.periodic, device=hardness.device)
        return hardness * periodic[graph.batch]

    def edge_features(
        self, graph: AtomicGraph, vectors: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Length, shape (E,), and harmonics, shape (E, (l_max + 1)²), in the network's dtype."""
        length = torch.linalg.vector_norm(vectors, dim=-1).to(self.dtype)
        return length, self.harmonics(vectors.to(self.dtype))

    def _edges_within(
        self, graph: AtomicGraph, length: torch.Tensor, harmonics: torch.Tensor, cutoff: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if cutoff >= max(self.config.r_max, self.config.charge_cutoff):
            return graph.edge_index, length, harmonics
        inside = torch.nonzero(length < cutoff).squeeze(-1)
        return graph.edge_index[:, inside], length[inside], harmonics[inside]

    def electronegativity(
        self, graph: AtomicGraph, length: torch.Tensor, harmonics: torch.Tensor
    ) -> torch.Tensor:
        """χ of each atom, float64, shape (N,), eV/e."""
        edges = self._edges_within(graph, length, harmonics, self.config.r_max)
        return self.electronegativity_stage(graph.types, *edges).to(torch.float64)

    def short_range_energy(
        self,
        graph: AtomicGraph,
        charges: torch.Tensor,
        length: torch.Tensor,
        harmonics: torch.Tensor,
    ) -> torch.Tensor:
        """Σ (scale e + shift) of each structure, float64, shape (B,), eV."""
        edges = self._edges_within(graph, length, harmonics, self.config.charge_cutoff)
        atomic = self.energy_stage(graph.types, charges.to(self.dtype), *edges)
        types = graph.types
        atomic = self.energy_scales[types] * atomic.to(torch.float64) + self.energy_shifts[types]
        return atomic.new_zeros(graph.num_graphs).index_add(0, graph.batch, atomic)

    def coulomb_operators(
        self, graph: AtomicGraph, positions: torch.Tensor, cell: torch.Tensor
    ) -> list[CoulombOperator]:
        """The Coulomb operator of each structure."""
        constant = self.config.coulomb_constant
        widths = self.widths[graph.types]
        operators: list[CoulombOperator] = []
        start = 0
        for index, count in enumerate(graph.counts):
            own = slice(start, start + count)
            start += count
            geometry = graph.ewald[index]
            if geometry is not None:
                operators.append(
                    EwaldCoulomb(positions[own], cell[index], widths[own], geometry, constant)
                )
            elif graph.periodic[index]:
                operators.append(
                    LegacyPeriodicCoulomb(positions[own], cell[index], widths[own], constant)
                )
            elif self.config.legacy_nonperiodic:
                first = self.hardness(graph.types[own][:1])[0]
                operators.append(LegacyFreeCoulomb(positions[own], widths[own], first, constant))
            else:
                operators.append(FreeSpaceCoulomb(positions[own], widths[own], constant))
        return operators

    # --------------------------------------------------------------- forward

    def forward(
        self, graph: AtomicGraph, compute_forces: bool = True, compute_stress: bool = False
    ) -> PotentialOutput:
        """Evaluate a batch by differentiating through the dense solve.

        In training mode the forces carry a graph, so losses on them can be differentiated again.

        Parameters
        ----------
        graph : AtomicGraph
        compute_forces, compute_stress : bool
        """
        if not (compute_forces or compute_stress):
            return self._energies(graph, graph.positions, graph.cell)
        with torch.enable_grad():
            positions = graph.positions.detach().requires_grad_()
            strain = graph.cell.new_zeros(graph.num_graphs, 3, 3).requires_grad_(compute_stress)
            moved, cell = (
                strained(positions, graph.cell, strain, graph.batch)
                if compute_stress
                else (positions, graph.cell)
            )
            output = self._energies(graph, moved, cell)
            wanted = [positions] + ([strain] if compute_stress else [])
            gradients = torch.autograd.grad(output.energy.sum(), wanted, create_graph=self.training)
        stress = None
        if compute_stress:
            stress = stress_from_strain(gradients[1], graph.cell, graph.periodic)
        results = {**vars(output), "forces": -gradients[0], "stress": stress}
        if not self.training:
            results = {k: v.detach() if v is not None else None for k, v in results.items()}
        return PotentialOutput(**results)

    def _energies(
        self, graph: AtomicGraph, positions: torch.Tensor, cell: torch.Tensor
    ) -> PotentialOutput:
        length, harmonics = self.edge_features(graph, graph.edge_vectors(positions, cell))
        chi = self.electronegativity(graph, length, harmonics)
        hardness = self.separate_hardness(graph)
        operators = self.coulomb_operators(graph, positions, cell)
        coulomb = [operator.matrix() for operator in operators]
        split = list(hardness.split(graph.counts))
        matrices = [k + torch.diag(j) for k, j in zip(coulomb, split, strict=True)]
        charges = solve_batch(matrices, chi, graph.total_charge, graph.counts).charges
        electrostatic = self._electrostatic_energy(graph, charges, chi, hardness, coulomb)
        short_range = self.short_range_energy(graph, charges, length, harmonics)
        moment = charges.unsqueeze(-1) * positions
        dipole = moment.new_zeros(graph.num_graphs, 3).index_add(0, graph.batch, moment)
        return PotentialOutput(
            energy=short_range + electrostatic,
            forces=None,
            stress=None,
            charges=charges,
            electronegativity=chi,
            hardness=self.hardness(graph.types),
            energy_short_range=short_range,
            energy_electrostatic=electrostatic,
            dipole=dipole,
        )

    def _electrostatic_energy(
        self,
        graph: AtomicGraph,
        charges: torch.Tensor,
        chi: torch.Tensor,
        hardness: torch.Tensor,
        coulomb: list[torch.Tensor],
    ) -> torch.Tensor:
        energies = []
        parts = zip(
            charges.split(graph.counts),
            chi.split(graph.counts),
            hardness.split(graph.counts),
            coulomb,
            graph.periodic,
            strict=True,
        )
        for q, x, j, k, periodic in parts:
            energy = 0.5 * q @ k @ q
            if self.config.electrostatic_energy == "qeq":
                # the published periodic code multiplies every charge with the first atom's χ
                linear = x[0] * q if periodic and self.config.legacy_periodic else x * q
                energy = energy + linear.sum() + 0.5 * (j * q * q).sum()
            energies.append(energy)
        return torch.stack(energies)


def strained(
    positions: torch.Tensor, cell: torch.Tensor, strain: torch.Tensor, batch: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply a symmetrised strain of shape (B, 3, 3) to positions and cells."""
    symmetric = 0.5 * (strain + strain.transpose(-1, -2))
    moved = positions + torch.einsum("ni,nij->nj", positions, symmetric[batch])
    return moved, cell + cell @ symmetric


def stress_from_strain(
    gradient: torch.Tensor, cell: torch.Tensor, periodic: Sequence[bool]
) -> torch.Tensor:
    """dE/dε of shape (B, 3, 3) in eV to stress in eV/Å³; zeros for non-periodic structures."""
    volume = torch.linalg.det(cell).abs()
    inside = torch.tensor(list(periodic), device=cell.device)
    volume = torch.where(inside, volume, torch.full_like(volume, math.inf))
    return gradient / volume.view(-1, 1, 1)


def _all_or_none(pbc: bool | Sequence[bool] | np.ndarray) -> bool:
    flags = np.atleast_1d(np.asarray(pbc, dtype=bool))
    if flags.all() or not flags.any():
        return bool(flags.all())
    expected = "periodic in all three directions or in none (pad slabs with vacuum)"
    raise InputError(describe("pbc", flags.tolist(), expected))


def _check_structure(
    types: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray | None,
    periodic: bool,
    total_charge: float,
) -> None:
    if positions.shape != (len(types), 3) or len(types) == 0:
        expected = f"shape ({len(types)}, 3) with at least one atom"
        raise InputError(describe("positions", positions.shape, expected))
    if not np.isfinite(positions).all():
        row = int(np.argwhere(~np.isfinite(positions))[0, 0])
        raise InputError(describe("positions", f"{positions[row]} of atom {row}", "finite numbers"))
    if periodic and (cell is None or np.shape(cell) != (3, 3)):
        got = None if cell is None else np.shape(cell)
        raise InputError(describe("cell", got, "shape (3, 3) for a periodic structure"))
    if not math.isfinite(total_charge):
        raise InputError(describe("total_charge", total_charge, "a finite number"))
