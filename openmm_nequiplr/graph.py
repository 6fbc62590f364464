"""Input of the model: one or several structures as a single graph."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch

from .boundaries import Pbc
from .electrostatics.ewald import EwaldGeometry
from .electrostatics.external import field_potential
from .electrostatics.linearized import LinearizedCoulomb
from .verlet import Reach


@dataclass(frozen=True)
class AtomicGraph:
    """A batch of B structures with a total of N atoms and E directed edges.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
        Slabs are unwrapped along the normal.
    types : torch.Tensor, int64, shape (N,)
        Index of each atom's element in ``ModelConfig.type_names``.
    batch : torch.Tensor, int64, shape (N,)
        Structure of each atom, ascending.
    cell : torch.Tensor, float64, shape (B, 3, 3), Å
        Rows are lattice vectors; zeros for non-periodic structures.
    pbc : tuple of Pbc, length B
        Isolated, bulk or slab.
    total_charge : torch.Tensor, float64, shape (B,), e
    edge_index : torch.Tensor, int64, shape (2, E)
        Row 0 is the centre, row 1 the neighbour. Edges are sorted by centre, or contain each pair
        of atoms once, followed by all pairs reversed (:func:`openmm_nequiplr.neighbors.two_way`).
    edge_shift : torch.Tensor, float64, shape (E, 3)
        Integer images, see :func:`openmm_nequiplr.neighbors.neighbor_list`.
    counts : tuple of int, length B
        Number of atoms of each structure.
    ewald : tuple, length B
        Lattice-sum geometry of each periodic structure, ``None`` for the others.
    linearized : tuple, length B
        Precomputed Coulomb matrix of each structure and its gradient, in training; otherwise
        ``None``.
    electric_field : torch.Tensor, optional, float64, shape (B, 3), V/Å
        Uniform field on each structure; zero along periodic directions.
    outside_potential : torch.Tensor, optional, float64, shape (N, 4)
        Potential φ of outside charges at the atoms, eV/e, and its gradient, eV/e/Å.
    charge_groups : torch.Tensor, optional, int64, shape (N,)
        Charge group of each atom, numbered from 0 to F − 1 through all structures, if the charges
        of groups are constrained.
    group_charges : torch.Tensor, optional, float64, shape (F,), e
        Charges of these groups.
    applied_potential : torch.Tensor, optional, float64, shape (N,), eV/e
        Potential of a voltage source between electrodes.
    replicas : int
        Number R of copies of a system, of N/R consecutive atoms each, that do not interact. The
        total charge of each copy is constrained. Only an Evaluator accepts more than one.
    host : AtomicGraph, optional
        For a graph on a GPU, a copy of positions, cell and charge on the CPU.
    reach : Reach, optional
        Other positions for which the edges are complete.
    key : Hashable
        Settings of the model that the graph was built for; ``None`` if unknown.
    """

    positions: torch.Tensor
    types: torch.Tensor
    batch: torch.Tensor
    cell: torch.Tensor
    pbc: tuple[Pbc, ...]
    total_charge: torch.Tensor
    edge_index: torch.Tensor
    edge_shift: torch.Tensor
    counts: tuple[int, ...]
    ewald: tuple[EwaldGeometry | None, ...]
    linearized: tuple[LinearizedCoulomb | None, ...] = ()
    electric_field: torch.Tensor | None = None
    outside_potential: torch.Tensor | None = None
    charge_groups: torch.Tensor | None = None
    group_charges: torch.Tensor | None = None
    applied_potential: torch.Tensor | None = None
    replicas: int = 1
    host: AtomicGraph | None = None
    reach: Reach | None = None
    key: Hashable = None

    def __post_init__(self) -> None:
        if not self.linearized:
            object.__setattr__(self, "linearized", (None,) * len(self.counts))

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Whether each structure is periodic along any direction."""
        return tuple(map(bool, self.pbc))

    @property
    def num_graphs(self) -> int:
        """Number B of structures."""
        return len(self.counts)

    @property
    def num_atoms(self) -> int:
        """Total number N of atoms."""
        return int(self.positions.shape[0])

    @property
    def num_edges(self) -> int:
        """Total number E of directed edges."""
        return int(self.edge_index.shape[1])

    @property
    def held_charges(self) -> torch.Tensor:
        """Constrained charges, e: of the groups, shape (F,), or of the structures, shape (B,)."""
        return self.total_charge if self.group_charges is None else self.group_charges

    @property
    def holders(self) -> torch.Tensor:
        """Group of each atom, or its structure without groups, int64, shape (N,)."""
        return self.batch if self.charge_groups is None else self.charge_groups

    @property
    def on_cpu(self) -> AtomicGraph:
        """Graph with positions, cell and charge on the CPU."""
        if self.positions.device.type == "cpu":
            return self
        return self.to("cpu") if self.host is None else self.host

    def placed(self, positions: torch.Tensor) -> AtomicGraph:
        """The same structure with its positions in another tensor."""
        return replace(self, positions=positions, host=self.on_cpu)

    def apart(self) -> AtomicGraph:
        """Replicas as R structures of a batch, without lattice sums."""
        copies, field = self.replicas, self.electric_field
        return replace(
            self,
            batch=self.holders,
            cell=self.cell.expand(copies, 3, 3),
            pbc=self.pbc * copies,
            total_charge=self.held_charges,
            counts=(self.num_atoms // copies,) * copies,
            ewald=(None,) * copies,
            linearized=(None,) * copies,
            electric_field=None if field is None else field.expand(copies, 3),
            charge_groups=None,
            group_charges=None,
            replicas=1,
            host=None,
        )

    def to(self, device: torch.device | str) -> AtomicGraph:
        """Copy of the graph with all tensors on ``device``."""
        moved = {
            name: getattr(self, name).to(device)
            for name in (
                "positions", "types", "batch", "cell", "total_charge", "edge_index", "edge_shift",
            )
        }  # fmt: skip
        ewald = tuple(None if g is None else g.to(device) for g in self.ewald)
        linearized = tuple(None if t is None else t.to(device) for t in self.linearized)
        special = "electric_field", "outside_potential", "applied_potential"
        for name in (*special, "charge_groups", "group_charges"):
            value = getattr(self, name)
            if value is not None:
                moved[name] = value.to(device)
        host = self.host
        if host is None and not self.positions.is_cuda and torch.device(device).type == "cuda":
            host = self
        return replace(self, ewald=ewald, linearized=linearized, host=host, **moved)

    def outside(self, positions: torch.Tensor) -> torch.Tensor | None:
        """External potential at positions, shape (N,), eV/e; ``None`` if there is none.

        The potential of outside charges is expanded to first order about the graph's positions.
        """
        found = self.applied_potential
        if self.outside_potential is not None:
            moved, gradient = positions - self.positions, self.outside_potential[:, 1:]
            known = self.outside_potential[:, 0] + (moved * gradient).sum(dim=-1)
            found = known if found is None else found + known
        if self.electric_field is None:
            return found
        batch = self.batch if self.num_graphs > 1 else None
        field = field_potential(positions, self.electric_field, batch)
        return field if found is None else field + found

    def edge_vectors(
        self, positions: torch.Tensor | None = None, cell: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Vectors from centre to neighbour.

        Parameters
        ----------
        positions, cell : torch.Tensor, optional
            Replacements of the stored ones, such as a strained copy.

        Returns
        -------
        torch.Tensor, float64, shape (E, 3), Å
        """
        positions = self.positions if positions is None else positions
        cell = self.cell if cell is None else cell
        center, neighbor = self.edge_index
        vectors = positions.index_select(0, neighbor) - positions.index_select(0, center)
        if not any(self.pbc):
            return vectors
        if self.num_graphs == 1:
            return vectors + self.edge_shift @ cell[0]
        edge_cell = cell.index_select(0, self.batch.index_select(0, center))
        return vectors + torch.einsum("ei,eij->ej", self.edge_shift, edge_cell)

    @staticmethod
    def collate(graphs: Sequence[AtomicGraph]) -> AtomicGraph:
        """Join graphs into one batch, in the given order.

        The first halves of the edges of all graphs precede the second halves.
        """
        if len(graphs) == 1:
            return graphs[0]
        atoms, structures = 0, 0
        batch, fields, ends, shifts = [], [], [], []
        groups, held, applied, potentials = [], 0, [], []
        for graph in graphs:
            batch.append(graph.batch + structures)
            ends.append((graph.edge_index + atoms).tensor_split(2, dim=1))
            shifts.append(graph.edge_shift.tensor_split(2))
            none = graph.positions.new_zeros(graph.num_graphs, 3)
            without = graph.positions.new_zeros(graph.num_atoms, 4)
            charged = graph.outside_potential
            potentials.append(without if charged is None else charged)
            fields.append(none if graph.electric_field is None else graph.electric_field)
            groups.append(graph.holders + held)
            source = graph.applied_potential
            applied.append(torch.zeros_like(graph.positions[:, 0]) if source is None else source)
            held += len(graph.held_charges)
            atoms += graph.num_atoms
            structures += graph.num_graphs
        outside = any(graph.electric_field is not None for graph in graphs)
        among = any(graph.outside_potential is not None for graph in graphs)
        driven = any(graph.applied_potential is not None for graph in graphs)
        grouped = any(graph.charge_groups is not None for graph in graphs)
        return AtomicGraph(
            charge_groups=torch.cat(groups) if grouped else None,
            group_charges=torch.cat([g.held_charges for g in graphs]) if grouped else None,
            electric_field=torch.cat(fields) if outside else None,
            outside_potential=torch.cat(potentials) if among else None,
            applied_potential=torch.cat(applied) if driven else None,
            positions=torch.cat([g.positions for g in graphs]),
            types=torch.cat([g.types for g in graphs]),
            batch=torch.cat(batch),
            cell=torch.cat([g.cell for g in graphs]),
            pbc=tuple(p for g in graphs for p in g.pbc),
            total_charge=torch.cat([g.total_charge for g in graphs]),
            edge_index=torch.cat([e for half in zip(*ends, strict=True) for e in half], dim=1),
            edge_shift=torch.cat([s for half in zip(*shifts, strict=True) for s in half]),
            counts=tuple(n for g in graphs for n in g.counts),
            ewald=tuple(e for g in graphs for e in g.ewald),
            linearized=tuple(t for g in graphs for t in g.linearized),
            key=graphs[0].key if len({graph.key for graph in graphs}) == 1 else None,
        )
