"""The NequIP-LR potential: electronegativities, charges and energy (arXiv 2503.17949)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..boundaries import SLAB
from ..electrostatics import (
    CoulombOperator,
    EwaldCoulomb,
    FreeSpaceCoulomb,
    LegacyFreeCoulomb,
    LegacyPeriodicCoulomb,
    MatrixCoulomb,
    SlabCoulomb,
    linearized_ewald,
)
from ..electrostatics.slab import bounded
from ..equilibration import effective_chi, group_means, group_sizes, solve_batch
from ..errors import InputError, describe
from ..graph import AtomicGraph
from .building import build_graph, lattice_splitting
from .dipole_response import differentiable_field, dipole_response
from .geometry_checks import check_graph, graph_key
from .networks import Networks
from .output import PotentialOutput
from .strain import strained, stress_from_strain


class NequIPLRPotential(Networks):
    """NequIP-LR potential: NequIP network, global charge equilibration, charge-dependent energy.

    The network runs in the dtype of its parameters (float32 unless ``.double()`` was called).
    Geometry, equilibration, Coulomb sums and energies are always float64.

    Parameters
    ----------
    config : ModelConfig
    """

    def build_graph(
        self,
        numbers: Sequence[int] | Sequence[str] | np.ndarray,
        positions: np.ndarray,
        cell: np.ndarray | None = None,
        pbc: bool | Sequence[bool] = False,
        total_charge: float = 0.0,
        lattice_sum: bool = True,
        **conditions: Any,
    ) -> AtomicGraph:
        """Build the graph of one structure, on the device of the model.

        Arguments and errors are those of :func:`openmm_nequiplr.model.building.build_graph`.
        """
        arguments = numbers, positions, cell, pbc, total_charge, lattice_sum
        graph = build_graph(self.config, *arguments, **conditions)
        return graph.to(self.device)

    def separate_hardness(self, graph: AtomicGraph) -> torch.Tensor:
        """Hardness to add to the diagonal of the Coulomb operator, float64, shape (N,), eV/e².

        It is :meth:`hardness`, or zero if the operator of a converted model already contains it.
        """
        hardness = self.hardness(graph.types)
        if not self.config.legacy_nonperiodic:
            return hardness
        periodic = torch.tensor(graph.periodic, device=hardness.device)
        return hardness * periodic[graph.batch]

    def offsets(self, graph: AtomicGraph) -> torch.Tensor:
        """Offset Z that the Coulomb sums add to the charge of each atom, float64, shape (N,), e.

        It is zero without ``effective_charges``. The mean over a structure, or over a group with a
        constrained charge, is subtracted, so that the total charge is unchanged.
        """
        if self.charge_offset is None:
            return graph.positions.new_zeros(graph.num_atoms)
        own = self.charge_offset.to(torch.float64)[graph.types]
        holders = graph.holders
        return own - group_means(own, holders, group_sizes(holders))

    def reference_energy(self, graph: AtomicGraph) -> torch.Tensor:
        """Sum of the energy shifts of each structure, float64, shape (B,), eV.

        The shifts of all-electron energies are so large (1e6 eV) that sums with them have rounding
        errors of 1e-10 eV. As they depend only on the composition, they are added last.
        """
        shifts = self.energy_shifts[graph.types]
        if graph.num_graphs == 1:
            return shifts.sum().reshape(1)
        return shifts.new_zeros(graph.num_graphs).index_add(0, graph.batch, shifts)

    def coulomb_operator(
        self, graph: AtomicGraph, index: int, positions: torch.Tensor, cell: torch.Tensor
    ) -> CoulombOperator:
        """Coulomb operator of one structure of a graph.

        Parameters
        ----------
        graph : AtomicGraph
        index : int
            Index of the structure.
        positions, cell : torch.Tensor, float64, shapes (N, 3) and (B, 3, 3), Å
            Positions and cells of all structures.
        """
        constant = self.config.coulomb_constant
        start = sum(graph.counts[:index])
        own = slice(start, start + graph.counts[index])
        points, widths = positions[own], self.widths[graph.types[own]]
        geometry = graph.ewald[index]
        if geometry is not None:
            operator = EwaldCoulomb(points, cell[index], widths, geometry, constant, graph.replicas)
            return bounded(graph.pbc[index], operator, points, cell[index], constant)
        if graph.periodic[index]:
            if not self.config.legacy_periodic:
                expected = "one with a lattice sum (the default of build_graph)"
                raise InputError(describe("graph", "one without", expected))
            return LegacyPeriodicCoulomb(points, cell[index], widths, constant)
        if self.config.legacy_nonperiodic:
            first = self.hardness(graph.types[own][:1])[0]
            return LegacyFreeCoulomb(points, widths, first, constant)
        return FreeSpaceCoulomb(points, widths, constant, replicas=graph.replicas)

    def coulomb_matrices(
        self, graph: AtomicGraph, positions: torch.Tensor, cell: torch.Tensor
    ) -> list[torch.Tensor]:
        """K of each structure, eV/e²; a first-order expansion if the graph contains one."""
        matrices = []
        for index, own in enumerate(positions.split(graph.counts)):
            known, box = graph.linearized[index], None if cell is graph.cell else cell[index]
            if known is None or (box is not None and known.strain is None):
                matrices.append(self.coulomb_operator(graph, index, positions, cell).matrix())
            else:
                matrices.append(known.matrix(own, box))
        return matrices

    def with_linearized(self, graph: AtomicGraph, strain: bool = False) -> AtomicGraph:
        """Add K and its derivatives to the graph of one structure if it is periodic.

        :meth:`forward` then uses them instead of computing them at every call. Stresses require the
        derivative by the ``strain``. The graph needs no lattice sum.
        """
        if not (self.config.equilibration and graph.periodic[0]) or self.config.legacy_periodic:
            return graph
        points, box, constant = graph.positions, graph.cell[0], self.config.coulomb_constant
        splitting = lattice_splitting(self.config, graph.types.tolist(), box.cpu().numpy())
        widths = self.widths[graph.types]
        known = linearized_ewald(points, box, widths, splitting, constant, strain)
        if graph.pbc[0] == SLAB:
            bulk = MatrixCoulomb(known.constant)
            known = SlabCoulomb(bulk, points, box, constant).linearized(known)
        return replace(graph, linearized=(known,))

    @torch.jit.unused
    def forward(
        self,
        graph: AtomicGraph,
        compute_forces: bool = True,
        compute_stress: bool = False,
        compute_response: bool = False,
    ) -> PotentialOutput:
        """Evaluate a batch by differentiating through the dense charge solver.

        In training mode forces and response are differentiable again, for losses that depend on
        them.

        Parameters
        ----------
        graph : AtomicGraph
        compute_forces, compute_stress : bool
        compute_response : bool
            Whether to compute Born charges and polarisabilities, if the model has charges.
        """
        check_graph(graph_key(self.config), graph)
        compute_response &= self.config.equilibration
        if not (compute_forces or compute_stress or compute_response):
            return self._energies(graph, graph.positions, graph.cell)
        with torch.enable_grad():
            if compute_response:
                graph = replace(graph, electric_field=differentiable_field(graph))
            positions = graph.positions.detach().requires_grad_()
            strain = graph.cell.new_zeros(graph.num_graphs, 3, 3).requires_grad_(compute_stress)
            moved, cell = (
                strained(positions, graph.cell, strain, graph.batch)
                if compute_stress
                else (positions, graph.cell)
            )
            output = self._energies(graph, moved, cell)
            results = dict(vars(output))
            if compute_response:
                results |= self._response(graph, positions, output.charges)
            if compute_forces or compute_stress:
                wanted = [positions] + ([strain] if compute_stress else [])
                total, again = output.energy.sum(), self.training
                gradients = torch.autograd.grad(total, wanted, create_graph=again)
                results["forces"] = -gradients[0]
        if compute_stress:
            results["stress"] = stress_from_strain(gradients[1], graph.cell, graph.periodic)
        if not self.training:
            results = {k: v.detach() if v is not None else None for k, v in results.items()}
        return PotentialOutput(**results)

    def _response(
        self, graph: AtomicGraph, positions: torch.Tensor, charges: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Born charges and polarisabilities, by differentiation of the charges."""
        field = graph.electric_field
        assert field is not None

        def respond(slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            by_positions, by_field = torch.autograd.grad(
                (charges * slope).sum(),
                [positions, field],
                retain_graph=True,
                create_graph=self.training,
            )
            return by_positions, by_field

        born, polarizability = dipole_response(graph, charges, respond)
        return {"born_charges": born, "polarizability": polarizability}

    def _energies(
        self, graph: AtomicGraph, positions: torch.Tensor, cell: torch.Tensor
    ) -> PotentialOutput:
        length, harmonics = self.edge_features(graph.edge_vectors(positions, cell))
        edges = graph.edge_index, length, harmonics
        chi, features = self.first_stage(graph.types, *edges)
        charges, electrostatic = chi, chi.new_zeros(graph.num_graphs)  # zero without equilibration
        if self.config.equilibration:
            charges, electrostatic = self._equilibrated(graph, positions, cell, chi)
        atomic = self.atomic_energies(graph.types, charges, *edges, features)
        short_range = atomic.new_zeros(graph.num_graphs).index_add(0, graph.batch, atomic)
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

    def _equilibrated(
        self, graph: AtomicGraph, positions: torch.Tensor, cell: torch.Tensor, chi: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Charges, shape (N,), e, and the electrostatic energy of each structure, (B,), eV."""
        hardness = self.separate_hardness(graph)
        coulomb = self.coulomb_matrices(graph, positions, cell)
        split = list(hardness.split(graph.counts))
        matrices = [k + torch.diag(j) for k, j in zip(coulomb, split, strict=True)]
        offsets = self.offsets(graph)
        known = None
        if self.charge_offset is not None:
            parts = zip(coulomb, offsets.split(graph.counts), strict=True)
            known = torch.cat([k @ z for k, z in parts])
        outside = graph.outside(positions)
        pushed = effective_chi(chi, known, outside)
        held, groups = graph.held_charges, graph.charge_groups
        charges = solve_batch(matrices, pushed, held, graph.counts, groups).charges
        electrostatic = self._electrostatic_energy(graph, charges, offsets, chi, hardness, coulomb)
        if outside is not None:
            energies = (charges + offsets) * outside
            electrostatic = electrostatic.index_add(0, graph.batch, energies)
        return charges, electrostatic

    def _electrostatic_energy(
        self,
        graph: AtomicGraph,
        charges: torch.Tensor,
        offsets: torch.Tensor,
        chi: torch.Tensor,
        hardness: torch.Tensor,
        coulomb: list[torch.Tensor],
    ) -> torch.Tensor:
        energies = []
        parts = zip(
            charges.split(graph.counts),
            (charges + offsets).split(graph.counts),
            chi.split(graph.counts),
            hardness.split(graph.counts),
            coulomb,
            graph.periodic,
            strict=True,
        )
        for q, u, x, j, k, periodic in parts:
            energy = 0.5 * u @ k @ u
            if self.config.electrostatic_energy == "qeq":
                # the published periodic code multiplies all charges by the χ of the first atom
                linear = x[0] * q if periodic and self.config.legacy_periodic else x * q
                energy = energy + linear.sum() + 0.5 * (j * q * q).sum()
            energies.append(energy)
        return torch.stack(energies)
