"""Graphs and labels for training: built on access, and cached up to a memory limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..errors import InputError, describe
from ..graph import AtomicGraph
from ..neighbors import two_way
from .quantities import LABELS, NAMED, OF_CHARGES, Quantity
from .structure import Structure

if TYPE_CHECKING:
    from ..model import NequIPLRPotential


@dataclass
class Labels:
    """Reference values of a batch of B structures with N atoms in total; NaN where unknown.

    Labels that no structure of the batch has are ``None``.

    Parameters
    ----------
    atoms_per_graph : tensor, float64, shape (B,)
        Number of atoms of each structure.
    energy : tensor, float64, shape (B,), eV
    forces : tensor, float64, shape (N, 3), eV/Å
    charges : tensor, float64, shape (N,), e
    dipole : tensor, float64, shape (B, 3), e Å
    stress : tensor, float64, shape (B, 3, 3), eV/Å³
    born_charges : tensor, float64, shape (N, 3, 3), e
    polarizability : tensor, float64, shape (B, 3, 3), e Å²/V
    weight : tensor, float64, shape (B,)
        Weight of each structure in the loss.
    synthetic : tensor, float64, shape (B,)
        1 for structures whose labels are not reference data, such as harmonic copies; else 0.
    """

    atoms_per_graph: torch.Tensor
    energy: torch.Tensor | None = None
    forces: torch.Tensor | None = None
    charges: torch.Tensor | None = None
    dipole: torch.Tensor | None = None
    stress: torch.Tensor | None = None
    born_charges: torch.Tensor | None = None
    polarizability: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    synthetic: torch.Tensor | None = None

    @property
    def has_response(self) -> bool:
        """Whether Born charges or polarisabilities are known."""
        return self.born_charges is not None or self.polarizability is not None

    def to(self, device: torch.device | str) -> Labels:
        """Copy of the labels on another device."""
        known = {name: getattr(self, name) for name in _LAYOUT}
        moved = {name: v if v is None else v.to(device) for name, v in known.items()}
        return Labels(self.atoms_per_graph.to(device), **moved)

    def of_reference(self) -> Labels:
        """Labels of the reference data only; NaN for synthetic structures."""
        if self.synthetic is None or not bool(self.synthetic.any()):
            return self
        of_atom = self.synthetic.repeat_interleave(self.atoms_per_graph.long())
        known = {}
        for name, quantity in LABELS.items():
            value, made_up = getattr(self, name), self.synthetic
            if value is not None:
                made_up = of_atom if quantity.per_atom else made_up
                made_up = made_up.bool().view(-1, *[1] * len(quantity.shape))
                known[name] = value.masked_fill(made_up, torch.nan)
        return replace(self, **known)

    def without(self, *names: str) -> Labels:
        """Labels without those with the given names."""
        unknown: dict[str, Any] = dict.fromkeys(names)
        return replace(self, **unknown)

    def blank(self) -> Labels:
        """Labels of the same structures with all values unknown."""
        return Labels(self.atoms_per_graph)

    @staticmethod
    def of(structure: Structure) -> Labels:
        """Labels of one structure, as a batch of one.

        Dipoles and polarisabilities of periodic structures are omitted: they depend on the choice
        of the cell.
        """
        known = {}
        for name, quantity in _LAYOUT.items():
            if structure.has_label(name):
                value = torch.as_tensor(getattr(structure, name), dtype=torch.float64)
                rows = structure.num_atoms if quantity.per_atom else 1
                known[name] = value.reshape(rows, *quantity.shape)
        return Labels(torch.tensor([float(structure.num_atoms)], dtype=torch.float64), **known)

    @staticmethod
    def collate(labels: Sequence[Labels]) -> Labels:
        """Join the labels of several structures."""
        joined: dict[str, torch.Tensor | None] = {}
        atoms = torch.cat([each.atoms_per_graph for each in labels])
        for name, (_, per_atom, tail) in _LAYOUT.items():
            parts = [getattr(each, name) for each in labels]
            if all(p is None for p in parts):
                joined[name] = None
                continue
            lengths = [int(e.atoms_per_graph.sum()) if per_atom else len(e.atoms_per_graph)
                       for e in labels]  # fmt: skip
            joined[name] = torch.cat(
                [
                    torch.full((n, *tail), torch.nan, dtype=torch.float64) if p is None else p
                    for p, n in zip(parts, lengths, strict=True)
                ]
            )
        return Labels(atoms, **joined)


#: Storage of all fields of `Labels`.
_LAYOUT = {**LABELS, "weight": NAMED["weight"], "synthetic": Quantity(())}


@dataclass
class LabelledGraph:
    """Graph of one structure or of a batch, with its labels."""

    graph: AtomicGraph
    labels: Labels

    def to(self, device: torch.device | str) -> LabelledGraph:
        """Copy of graph and labels on another device."""
        return LabelledGraph(self.graph.to(device), self.labels.to(device))

    def unlabelled(self) -> LabelledGraph:
        """The graph with unknown labels."""
        return LabelledGraph(self.graph, self.labels.blank())

    @staticmethod
    def collate(items: Sequence[LabelledGraph]) -> LabelledGraph:
        """Join several labelled graphs into one batch."""
        if len(items) == 1:
            return items[0]
        return LabelledGraph(
            AtomicGraph.collate([i.graph for i in items]), Labels.collate([i.labels for i in items])
        )


def labelled_graph(
    structure: Structure, model: NequIPLRPotential, name: str, lattice_sum: bool = True
) -> LabelledGraph:
    """Graph of a structure for a model, with its labels.

    Parameters
    ----------
    structure : Structure
    model : NequIPLRPotential
    name : str
        Name of the structure for messages.
    lattice_sum : bool
        Whether to collect the pairs of the dense Coulomb sum.

    Raises
    ------
    InputError
        If no graph can be built from the structure.
    """
    if model.config.isolated:
        structure = structure.in_free_space()
    try:
        graph = model.build_graph(
            structure.symbols,
            structure.positions,
            cell=structure.cell,
            pbc=structure.pbc,
            total_charge=structure.total_charge,
            lattice_sum=lattice_sum,
            **vars(structure.conditions),
        )
    except InputError as error:
        raise type(error)(f"{name}: {error}") from None
    edge_index, edge_shift = two_way(graph.edge_index.cpu(), graph.edge_shift.cpu())
    outside = _outside(structure)
    if outside is not None and not model.config.has_coulomb_sum(graph.periodic[0]):
        expected = "none for a model whose charges do not interact"
        raise InputError(describe(f"{name}: outside_potential", "a potential", expected))
    graph = replace(graph, edge_index=edge_index, edge_shift=edge_shift)
    graph = replace(graph, outside_potential=outside).to(model.device)
    labels = Labels.of(structure)
    if not model.config.equilibration:  # the model does not predict these
        labels = labels.without(*OF_CHARGES)
    return LabelledGraph(graph, labels)


def _outside(structure: Structure) -> torch.Tensor | None:
    """Potential of external charges (eV/e) and its gradient (eV/e/Å), shape (N, 4)."""
    potential, field = structure.outside_potential, structure.outside_field
    if potential is None or field is None:
        return None
    return torch.from_numpy(np.column_stack((potential, -field)))


#: Largest structure whose Coulomb matrix and derivatives are kept (4 N² numbers, 8 MB; 10 N² with
#: stresses).
LINEARIZED_ATOMS = 500
#: Default memory for the graphs of a data set, bytes.
KEPT = 0.75e9


class GraphDataset(Dataset):
    """Data set of labelled graphs, built on access and cached up to a memory limit.

    A graph contains neighbour lists. For small structures it also contains the Coulomb matrix and
    its derivatives, including those with respect to the strain if any structure has a stress; for
    larger structures, the pairs of the lattice sum. Graphs beyond the memory limit are built on
    each access. The item at a negative index is the first one without its labels.

    Parameters
    ----------
    structures : sequence of Structure
    model : NequIPLRPotential
        Model whose ``build_graph`` creates the graphs.
    memory : float, bytes
        Memory limit of cached graphs.

    Attributes
    ----------
    structures : sequence of Structure
    sizes : list of int
        Number of atoms of each structure.

    Raises
    ------
    InputError
        If there are no structures, or one contains an element that the model does not know; on
        access, if no graph can be built. The message names the file and the index of the structure.
    """

    def __init__(
        self, structures: Sequence[Structure], model: NequIPLRPotential, memory: float = KEPT
    ) -> None:
        if not structures:
            raise InputError(describe("structures", "none", "at least one structure"))
        known = set(model.config.type_names)
        self._strain = False
        self.sizes: list[int] = []
        for index, structure in enumerate(structures):
            special = "electric_field", "outside_potential", "charge_groups"
            told = any(getattr(structure, each) is not None for each in special)
            if told or not known.issuperset(structure.symbols):
                labelled_graph(structure, model, _name(structure, index))  # raises the error
            self._strain |= structure.stress is not None
            self.sizes.append(structure.num_atoms)
        self.structures, self._model = structures, model
        #: Remaining memory, bytes.
        self.memory = memory
        self._kept: dict[int, LabelledGraph] = {}

    def __len__(self) -> int:
        return len(self.structures)

    def __iter__(self) -> Iterator[LabelledGraph]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> LabelledGraph:
        if index < 0:
            return self[0].unlabelled()
        item = self._kept.get(index)
        if item is None:
            item = self._made(index)
            size = stored_bytes(item)
            if size <= self.memory:
                self.memory -= size
                self._kept[index] = item
        return item

    def _made(self, index: int) -> LabelledGraph:
        structure = self.structures[index]
        large = structure.num_atoms > LINEARIZED_ATOMS
        item = labelled_graph(structure, self._model, _name(structure, index), large)
        if large:
            return item
        return replace(item, graph=self._model.with_linearized(item.graph, self._strain))

    def batches(self, batch_size: int) -> Batches:
        """Consecutive batches of at most `batch_size` items, for evaluation."""
        return Batches(self, batch_size)


def _name(structure: Structure, index: int) -> str:
    return structure.origin or f"structure {index}"


class Batches(Dataset):
    """Consecutive batches of a data set, collated on access.

    Parameters
    ----------
    data : GraphDataset
    size : int
        Number of structures in a batch; the last batch may be smaller.
    chosen : sequence of int, optional
        Indices of batches; a negative one stands for the first batch without its labels.
    """

    def __init__(self, data: GraphDataset, size: int, chosen: Sequence[int] | None = None) -> None:
        self.data, self.size = data, size
        self.chosen = range(-(-len(data) // size)) if chosen is None else chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[LabelledGraph]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> LabelledGraph:
        number = self.chosen[index]
        start = max(number, 0) * self.size
        places = range(start, min(start + self.size, len(self.data)))
        batch = LabelledGraph.collate([self.data[place] for place in places])
        return batch if number >= 0 else batch.unlabelled()

    def share(self, rank: int, world_size: int) -> Batches:
        """Batches of one of several processes, padded with unlabelled ones to equal numbers."""
        own = list(self.chosen[rank::world_size])
        own += [-1] * (-(-len(self) // world_size) - len(own))
        return Batches(self.data, self.size, own)


def stored_bytes(value: object) -> int:
    """Memory of all tensors in nested dataclasses and sequences, bytes."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if is_dataclass(value):
        return sum(stored_bytes(getattr(value, field.name)) for field in fields(value))
    return sum(map(stored_bytes, value)) if isinstance(value, list | tuple) else 0
