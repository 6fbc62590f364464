"""The NequIP-LR potential: electronegativities, charges, energy (arXiv 2503.17949)."""

# TorchScript compiles the networks' part and reads annotations: no postponed ones here
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ..boundaries import SLAB
from ..buffers import ExactBuffers
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
from ..electrostatics.external import field_potential
from ..electrostatics.slab import bounded
from ..equilibration import effective_chi, group_means, group_sizes, solve_batch
from ..errors import InputError, describe
from ..fragments import Groups
from ..graph import AtomicGraph
from ..nn import DistanceFloor, ZBLRepulsion, saturate
from .building import build_graph, lattice_splitting
from .config import ModelConfig
from .output import PotentialOutput
from .stages import EdgeHarmonics, ElectronegativityStage, EnergyStage
from .strain import strained, stress_from_strain

#: Buffers that stay float64 whatever the network is cast to; the first four are in model files.
_EXACT = (
    "energy_shifts",
    "energy_scales",
    "electronegativity_shifts",
    "electronegativity_scales",
    "widths",
)


class NequIPLRPotential(ExactBuffers):
    """NequIP network, charge equilibration over the whole system, charge-aware energy.

    The network runs in the dtype of its parameters (float32 unless ``.double()`` was called);
    geometry, equilibration, Coulomb sums and energies are float64 always.

    Parameters
    ----------
    config : ModelConfig
    """

    __jit_unused_properties__ = ("dtype", "device")

    energy_shifts: torch.Tensor
    energy_scales: torch.Tensor
    electronegativity_shifts: torch.Tensor
    electronegativity_scales: torch.Tensor
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
        #: None without equilibration.
        self.electronegativity_stage = (
            ElectronegativityStage(config) if config.equilibration else None
        )
        first = self.electronegativity_stage
        self.energy_stage = EnergyStage(
            config,
            first.convolutions.irreps_out if first and config.shared_features else None,
        )
        self.hardness_parameter = torch.nn.Parameter(
            torch.ones(count), requires_grad=config.equilibration
        )
        self.charge_offset = (
            torch.nn.Parameter(torch.zeros(count)) if config.effective_charges else None
        )
        for name in _EXACT[:4]:
            start = torch.zeros if name.endswith("shifts") else torch.ones
            self.register_buffer(name, start(count, dtype=torch.float64))
        self.repulsion = (
            ZBLRepulsion(config.numbers, config.repulsion_cutoffs) if config.zbl else None
        )
        self.bound = config.electronegativity_bound or 0.0
        self.r_max, self.r_max_charge = config.r_max, config.charge_cutoff
        self.shared_features = config.equilibration and config.shared_features
        floors = config.distance_floors
        self.distance_floor = None if floors is None else DistanceFloor(floors)
        widths = torch.tensor(config.widths, dtype=torch.float64)
        self.register_buffer("widths", widths, persistent=False)
        self.to(torch.float32)

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
        lattice_sum: bool = True,
        electric_field: Sequence[float] | np.ndarray | None = None,
        charge_groups: Groups = None,
        group_charges: Sequence[float] | np.ndarray | None = None,
    ) -> AtomicGraph:
        """Make the graph of one structure, on the model's device.

        Arguments and errors as those of :func:`openmm_nequiplr.model.building.build_graph`.
        """
        held = charge_groups, group_charges
        arguments = numbers, positions, cell, pbc, total_charge, lattice_sum, electric_field, *held
        graph = build_graph(self.config, *arguments)
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
        dtype = self.hardness_parameter.dtype
        length = torch.linalg.vector_norm(vectors, dim=-1).to(dtype)
        return length, self.harmonics(vectors.to(dtype))

    def _edges_within(
        self,
        cutoff: float,
        types: torch.Tensor,
        index: torch.Tensor,
        length: torch.Tensor,
        harmonics: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Edges of a stage: atoms, lengths as the network sees them, harmonics."""
        if cutoff < max(self.r_max, self.r_max_charge) and not length.is_cuda:
            inside = torch.nonzero(length < cutoff).squeeze(-1)
            index, length = index.index_select(1, inside), length.index_select(0, inside)
            harmonics = harmonics.index_select(0, inside)
        if self.distance_floor is not None:
            length = self.distance_floor(types, index[0], index[1], length)
        return index, length, harmonics

    def first_stage(
        self,
        types: torch.Tensor,
        edge_index: torch.Tensor,
        length: torch.Tensor,
        harmonics: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Electronegativities, and the features that the energy stage shares.

        Parameters
        ----------
        types : torch.Tensor, int64, shape (N,)
        edge_index : torch.Tensor, int64, shape (2, E)
        length, harmonics : torch.Tensor
            Of :meth:`edge_features`.

        Returns
        -------
        chi : torch.Tensor, float64, shape (N,), eV/e
            Zero without equilibration.
        features : torch.Tensor, shape (N, dim)
            In the network's dtype; of dimension 0 where none are shared.
        """
        shifts = self.electronegativity_shifts.index_select(0, types)
        none = harmonics.new_zeros([types.shape[0], 0])
        if self.electronegativity_stage is None:
            return torch.zeros_like(shifts), none
        edges, length, harmonics = self._edges_within(
            self.r_max, types, edge_index, length, harmonics
        )
        raw, features = self.electronegativity_stage(types, edges, length, harmonics)
        raw = saturate(raw.to(torch.float64), self.bound)
        chi = self.electronegativity_scales.index_select(0, types) * raw + shifts
        return chi, features if self.shared_features else none

    def atomic_energies(
        self,
        types: torch.Tensor,
        charges: torch.Tensor,
        edge_index: torch.Tensor,
        length: torch.Tensor,
        harmonics: torch.Tensor,
        features: torch.Tensor,
    ) -> torch.Tensor:
        """Short-range energy of each atom with its half of the ZBL repulsion, float64, (N,), eV.

        The shifts are left out: see :meth:`reference_energy`.

        Parameters
        ----------
        charges : torch.Tensor, float64, shape (N,), e
        features : torch.Tensor
            Of :meth:`first_stage`.
        types, edge_index, length, harmonics
            As there.
        """
        edges, seen, directions = self._edges_within(
            self.r_max_charge, types, edge_index, length, harmonics
        )
        own = charges.to(harmonics.dtype)
        atomic = self.energy_stage(types, own, edges, seen, directions, features)
        atomic = self.energy_scales.index_select(0, types) * atomic.to(torch.float64)
        if self.repulsion is not None:
            first, second = edge_index[0], edge_index[1]
            near, pairs = self.repulsion(types, first, second, length.to(torch.float64))
            atomic = atomic.index_add(0, first.index_select(0, near), 0.5 * pairs)
        return atomic

    def offsets(self, graph: AtomicGraph) -> torch.Tensor:
        """Z of each atom, which the Coulomb sums see on top of its charge, float64, shape (N,), e.

        Zero without ``effective_charges``; the mean over a structure, or over a group whose charge
        is held, is taken off, so that its charge stays what it is.
        """
        if self.charge_offset is None:
            return graph.positions.new_zeros(graph.num_atoms)
        own = self.charge_offset.to(torch.float64)[graph.types]
        holders = graph.holders
        return own - group_means(own, holders, group_sizes(holders))

    def reference_energy(self, graph: AtomicGraph) -> torch.Tensor:
        """Σ shift of each structure, float64, shape (B,), eV.

        All-electron shifts are so large (1e6 eV) that every sum they take part in rounds at 1e-10
        eV: they are a constant of the composition and come in last.
        """
        shifts = self.energy_shifts[graph.types]
        return shifts.new_zeros(graph.num_graphs).index_add(0, graph.batch, shifts)

    def coulomb_operator(
        self, graph: AtomicGraph, index: int, positions: torch.Tensor, cell: torch.Tensor
    ) -> CoulombOperator:
        """The Coulomb operator of one structure of a graph.

        Parameters
        ----------
        graph : AtomicGraph
        index : int
            Which of its structures.
        positions, cell : torch.Tensor, float64, shapes (N, 3) and (B, 3, 3), Å
            Of all structures.
        """
        constant = self.config.coulomb_constant
        start = sum(graph.counts[:index])
        own = slice(start, start + graph.counts[index])
        points, widths = positions[own], self.widths[graph.types[own]]
        geometry = graph.ewald[index]
        if geometry is not None:
            operator = EwaldCoulomb(points, cell[index], widths, geometry, constant)
            return bounded(graph.pbc[index], operator, points, cell[index], constant)
        if graph.periodic[index]:
            if not self.config.legacy_periodic:
                expected = "one with a lattice sum (build_graph makes it by default)"
                raise InputError(describe("graph", "one without", expected))
            return LegacyPeriodicCoulomb(points, cell[index], widths, constant)
        if self.config.legacy_nonperiodic:
            first = self.hardness(graph.types[own][:1])[0]
            return LegacyFreeCoulomb(points, widths, first, constant)
        return FreeSpaceCoulomb(points, widths, constant)

    def coulomb_matrices(
        self, graph: AtomicGraph, positions: torch.Tensor, cell: torch.Tensor
    ) -> list[torch.Tensor]:
        """K of each structure, eV/e²: to first order in the geometry where the graph has it so."""
        matrices = []
        for index, own in enumerate(positions.split(graph.counts)):
            known, box = graph.linearized[index], None if cell is graph.cell else cell[index]
            if known is None or (box is not None and known.strain is None):
                matrices.append(self.coulomb_operator(graph, index, positions, cell).matrix())
            else:
                matrices.append(known.matrix(own, box))
        return matrices

    def with_linearized(self, graph: AtomicGraph, strain: bool = False) -> AtomicGraph:
        """The graph of one structure with K and its derivatives, where it is periodic.

        :meth:`forward` then takes them from there instead of computing them at every call; for
        stresses too with the derivative by the ``strain``. The graph needs no lattice sum.
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

    # --------------------------------------------------------------- forward

    @torch.jit.unused
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
        edges = graph.edge_index, length, harmonics
        chi, features = self.first_stage(graph.types, *edges)
        if not self.config.equilibration:
            return self._without_charges(graph, chi, self._short_range(graph, chi, edges, features))
        hardness = self.separate_hardness(graph)
        coulomb = self.coulomb_matrices(graph, positions, cell)
        split = list(hardness.split(graph.counts))
        matrices = [k + torch.diag(j) for k, j in zip(coulomb, split, strict=True)]
        offsets = self.offsets(graph)
        known = None
        if self.charge_offset is not None:
            parts = zip(coulomb, offsets.split(graph.counts), strict=True)
            known = torch.cat([k @ z for k, z in parts])
        outside = None
        if graph.electric_field is not None:
            outside = field_potential(positions, graph.electric_field, graph.batch)
        pushed = effective_chi(chi, known, outside)
        held, groups = graph.held_charges, graph.charge_groups
        charges = solve_batch(matrices, pushed, held, graph.counts, groups).charges
        electrostatic = self._electrostatic_energy(graph, charges, offsets, chi, hardness, coulomb)
        if outside is not None:
            energies = (charges + offsets) * outside
            electrostatic = electrostatic.index_add(0, graph.batch, energies)
        short_range = self._short_range(graph, charges, edges, features)
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

    def _short_range(
        self,
        graph: AtomicGraph,
        charges: torch.Tensor,
        edges: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        features: torch.Tensor,
    ) -> torch.Tensor:
        """Sum of the atomic energies of each structure, float64, shape (B,), eV."""
        atomic = self.atomic_energies(graph.types, charges, *edges, features)
        return atomic.new_zeros(graph.num_graphs).index_add(0, graph.batch, atomic)

    def _without_charges(
        self, graph: AtomicGraph, none: torch.Tensor, short_range: torch.Tensor
    ) -> PotentialOutput:
        per_structure = none.new_zeros(graph.num_graphs)
        energy = short_range + self.reference_energy(graph)
        return PotentialOutput(
            energy=energy,
            forces=None,
            stress=None,
            charges=none,
            electronegativity=none,
            hardness=self.hardness(graph.types),
            energy_short_range=energy,
            energy_electrostatic=per_structure,
            dipole=per_structure.new_zeros(graph.num_graphs, 3),
        )

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
                # the published periodic code multiplies every charge with the first atom's χ
                linear = x[0] * q if periodic and self.config.legacy_periodic else x * q
                energy = energy + linear.sum() + 0.5 * (j * q * q).sum()
            energies.append(energy)
        return torch.stack(energies)
