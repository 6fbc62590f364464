"""The NequIP-LR potential: electronegativities, charges, energy (arXiv 2503.17949)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..electrostatics import (
    CoulombOperator,
    EwaldCoulomb,
    FreeSpaceCoulomb,
    LegacyFreeCoulomb,
    LegacyPeriodicCoulomb,
)
from ..equilibration import solve_batch
from ..errors import InputError, describe
from ..graph import AtomicGraph
from ..nn import ZBLRepulsion
from .building import build_graph
from .config import ModelConfig
from .stages import EdgeHarmonics, ElectronegativityStage, EnergyStage
from .strain import strained, stress_from_strain


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
    numbers: torch.Tensor

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
        self.repulsion = ZBLRepulsion(config.charge_cutoff) if config.zbl else None
        numbers = torch.tensor(config.numbers, dtype=torch.float64)
        self.register_buffer("numbers", numbers, persistent=False)
        widths = torch.tensor(config.widths, dtype=torch.float64)
        self.register_buffer("widths", widths, persistent=False)
        self.to(torch.float32)

    def _apply(self, fn, recurse=True):
        """Move and cast as torch does, but keep the float64 buffers what they are."""
        names = ("energy_shifts", "energy_scales", "widths", "numbers")
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

    def build_graph(
        self,
        numbers: Sequence[int] | Sequence[str] | np.ndarray,
        positions: np.ndarray,
        cell: np.ndarray | None = None,
        pbc: bool | Sequence[bool] = False,
        total_charge: float = 0.0,
    ) -> AtomicGraph:
        """Make the graph of one structure, on the model's device.

        Arguments and errors as those of :func:`openmm_nequiplr.model.building.build_graph`.
        """
        graph = build_graph(self.config, numbers, positions, cell, pbc, total_charge)
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

    def edge_features(self, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
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
        """Σ scale e (and the ZBL repulsion) of each structure, float64, shape (B,), eV.

        The shifts come in last: see :meth:`reference_energy`.
        """
        edges = self._edges_within(graph, length, harmonics, self.config.charge_cutoff)
        atomic = self.energy_stage(graph.types, charges.to(self.dtype), *edges)
        atomic = self.energy_scales[graph.types] * atomic.to(torch.float64)
        if self.repulsion is not None:
            index, distance = edges[0], edges[1].to(torch.float64)
            pairs = self.repulsion(self.numbers[graph.types], index, distance)
            atomic = atomic.index_add(0, index[0], pairs)
        return atomic.new_zeros(graph.num_graphs).index_add(0, graph.batch, atomic)

    def reference_energy(self, graph: AtomicGraph) -> torch.Tensor:
        """Σ shift of each structure, float64, shape (B,), eV.

        All-electron shifts are so large (1e6 eV) that every sum they take part in rounds at 1e-10
        eV: they are a constant of the composition and come in last.
        """
        shifts = self.energy_shifts[graph.types]
        return shifts.new_zeros(graph.num_graphs).index_add(0, graph.batch, shifts)

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
        length, harmonics = self.edge_features(graph.edge_vectors(positions, cell))
        chi = self.electronegativity(graph, length, harmonics)
        hardness = self.separate_hardness(graph)
        operators = self.coulomb_operators(graph, positions, cell)
        coulomb = [operator.matrix() for operator in operators]
        split = list(hardness.split(graph.counts))
        matrices = [k + torch.diag(j) for k, j in zip(coulomb, split, strict=True)]
        charges = solve_batch(matrices, chi, graph.total_charge, graph.counts).charges
        electrostatic = self._electrostatic_energy(graph, charges, chi, hardness, coulomb)
        short_range = self.short_range_energy(graph, charges, length, harmonics)
        reference = self.reference_energy(graph)
        moment = charges.unsqueeze(-1) * positions
        dipole = moment.new_zeros(graph.num_graphs, 3).index_add(0, graph.batch, moment)
        return PotentialOutput(
            energy=(short_range + electrostatic) + reference,
            forces=None,
            stress=None,
            charges=charges,
            electronegativity=chi,
            hardness=self.hardness(graph.types),
            energy_short_range=short_range + reference,
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
