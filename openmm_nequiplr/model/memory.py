"""Data that iterative charge solvers reuse from one structure to the next."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from ..electrostatics import MeshCoulomb, MeshGeometry, MeshParameters, mesh_geometry
from ..electrostatics.splitting import mesh_dtype
from ..equilibration import ChargePredictor, WoodburyPreconditioner
from ..graph import AtomicGraph
from ..lattice import displacements, matched
from .potential import NequIPLRPotential
from .solving import MESH_ACCURACY

#: Largest displacement (Å) of an atom within a time step.
LONGEST_STEP = 0.3
# The splitting is chosen again when the strain of the cell exceeds this.
_SAME_SPLITTING = 0.05


class ChargeMemory:
    """Mesh, preconditioner and charges that iterative solvers reuse for the next structure.

    Initial guesses are extrapolated along sequences of structures with the same atoms, charge and
    cell and with small displacements. Other structures (a trial box of a barostat, new positions, a
    loaded state) do not enter the sequence. A trial box starts from the last charges. The old
    sequence is dropped only if the next structure continues from the trial box. Atoms may be
    wrapped at any time.

    Parameters
    ----------
    model : NequIPLRPotential
    accuracy : float
        Relative error of the Coulomb forces of the mesh.
    """

    def __init__(self, model: NequIPLRPotential, accuracy: float = MESH_ACCURACY) -> None:
        self.model, self.accuracy = model, accuracy
        self.preconditioner = WoodburyPreconditioner(model.config.coulomb_constant)
        self.geometries = 0
        self.geometry: MeshGeometry | None = None
        self.operator: MeshCoulomb | None = None
        self._types: torch.Tensor | None = None
        self._chosen: np.ndarray | None = None
        self._box = np.zeros((3, 3))
        self._track: Track | None = None
        self._trial: Track | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy builds its own mesh, as autograd tensors of the operator cannot be copied."""
        return {**self.__dict__, "operator": None, "geometry": None}

    def reset(self) -> None:
        """Drop all data, for example after a failed evaluation."""
        self.preconditioner.reset()
        self.geometry = self.operator = self._types = self._chosen = None
        self._track = self._trial = None

    def mesh(self, graph: AtomicGraph, positions: torch.Tensor, cell: torch.Tensor) -> MeshCoulomb:
        """Mesh operator of a periodic structure; the tensors may require gradients.

        Parameters
        ----------
        graph : AtomicGraph
        positions : torch.Tensor, float64, shape (N, 3), Å
        cell : torch.Tensor, float64, shape (3, 3), Å
        """
        geometry, (points, box) = self.geometry, _host_geometry(graph)
        fits = geometry is not None and _same(self._types, graph.types)
        if fits:
            self._types = graph.types  # the same object is compared without waiting for a GPU
        images = self._wrapped(points, box) if fits else None
        points = points if images is None else points - images @ box
        if geometry is None or not fits or not geometry.serves(points, box):
            parameters = geometry.parameters if geometry is not None and fits else None
            if self._chosen is None or _strain(self._chosen, box) > _SAME_SPLITTING:
                parameters = None
            return self._renewed(graph, positions, cell, parameters)
        if images is not None:
            positions = positions - torch.from_numpy(images).to(cell.device) @ cell
        assert self.operator is not None
        self.operator.setup(positions, cell, np.array_equal(box, self._box))
        self._box = box
        return self.operator

    def _wrapped(self, points: np.ndarray, box: np.ndarray) -> np.ndarray | None:
        """Lattice vectors by which atoms were wrapped since the pair list was built, if any."""
        assert self.geometry is not None
        before = _strained(self.geometry.positions, self.geometry.cell, box)
        return _displacements(points, before, box)[1]

    def unchanged(self, graph: AtomicGraph) -> bool:
        """Whether the last mesh operator serves a structure once it has its positions."""
        geometry, (points, box) = self.geometry, _host_geometry(graph)
        if not (graph.pbc[0] and geometry is not None and np.array_equal(box, self._box)):
            return not graph.pbc[0]
        fits = _same(self._types, graph.types) and self._wrapped(points, box) is None
        return fits and geometry.serves(points, box)

    def _renewed(
        self,
        graph: AtomicGraph,
        positions: torch.Tensor,
        cell: torch.Tensor,
        parameters: MeshParameters | None,
    ) -> MeshCoulomb:
        """Build a new pair list, and choose a new mesh unless its parameters are given."""
        points, box = _host_geometry(graph)
        self._box = box
        if parameters is None:
            self._chosen = box.copy()
        widths, device = self.model.widths[graph.types], graph.positions.device
        geometry = mesh_geometry(
            points, box, _numpy(widths), self.accuracy, parameters=parameters, device=device
        )
        constant = self.model.config.coulomb_constant
        dtype = mesh_dtype(self.model.dtype, self.accuracy)
        self.operator = MeshCoulomb(positions, cell, widths, geometry, constant, dtype=dtype)
        self.geometry, self._types = geometry, graph.types
        self.geometries += 1
        return self.operator

    @property
    def track(self) -> Track | None:
        """Sequence of the last structure."""
        return self._trial or self._track

    def guesses(self, graph: AtomicGraph) -> Track:
        """Sequence that provides the guesses for a structure and receives its charges."""
        track = self._choose(graph)
        # the same objects are compared without waiting for a GPU
        track.graph, track.types, track.groups = graph, graph.types, graph.holders
        return track

    def _choose(self, graph: AtomicGraph) -> Track:
        track, trial = self._track, self._trial
        if track is not None and not track.same_atoms(graph):
            self.preconditioner.reset()
            track = trial = None
        if track is not None and track.continues(graph):
            trial = None
        elif track is not None:
            if trial is not None and trial.continues(graph):
                track, trial = trial, None
            elif not track.same_cell(graph):
                trial = track.branched(graph)
                self._track, self._trial = track, trial
                return trial
            else:
                track = trial = None
        if track is None:
            track, trial = Track(graph), None
        self._track, self._trial = track, trial
        return track


class Track:
    """Charges along a sequence of structures with small displacements."""

    def __init__(self, graph: AtomicGraph) -> None:
        self.graph = graph
        self.types, self.groups, self.held = graph.types, graph.holders, graph.on_cpu.held_charges
        self.cell = _host_geometry(graph)[1]
        self.periodic = graph.pbc[0]
        self.positions: np.ndarray | None = None
        self.charges, self.adjoint = ChargePredictor(), ChargePredictor()
        self._asked: tuple[torch.Tensor, float] | None = None

    def same_atoms(self, graph: AtomicGraph) -> bool:
        """Whether a structure has the atoms and the constrained charges of this sequence."""
        same = torch.equal(self.held, graph.on_cpu.held_charges) and graph.pbc[0] == self.periodic
        return same and _same(self.types, graph.types) and _same(self.groups, graph.holders)

    @property
    def settled(self) -> bool:
        """Whether the guesses are extrapolated from as many structures as ever."""
        return self.positions is not None and self.charges.full and self.adjoint.full

    def same_cell(self, graph: AtomicGraph) -> bool:
        return not self.periodic or np.array_equal(self.cell, _host_geometry(graph)[1])

    def _moved(self, graph: AtomicGraph) -> float:
        """Largest displacement of an atom, Å, modulo lattice vectors and without the strain."""
        if self.positions is None:
            return math.inf
        if self._asked is None or self._asked[0] is not graph.positions:
            self._asked = graph.positions, self._farthest(graph, self.positions)
        return self._asked[1]

    def _farthest(self, graph: AtomicGraph, before: np.ndarray) -> float:
        points, box = _host_geometry(graph)
        if not self.periodic:
            moved = points - before
        else:
            # a barostat moves whole molecules, which differs little from an affine displacement
            moved, _ = _displacements(points, _strained(before, self.cell, box), box)
        return float(np.abs(moved).max())

    def continues(self, graph: AtomicGraph) -> bool:
        """Whether a structure can be the next one of this sequence."""
        return self.same_cell(graph) and self._moved(graph) <= LONGEST_STEP

    def branched(self, graph: AtomicGraph) -> Track:
        """New sequence for another cell, with the last charges if the displacements are small."""
        other = Track(graph)
        if self._moved(graph) <= LONGEST_STEP:
            for known, new in ((self.charges, other.charges), (self.adjoint, other.adjoint)):
                if known.solutions:
                    new.accept(known.past[0])
        return other

    def begin(self, positions: torch.Tensor, cell: torch.Tensor) -> None:
        """Do nothing, as :meth:`ChargeMemory.guesses` has selected this sequence."""

    def known_cell(self, cell: torch.Tensor) -> torch.Tensor:
        """Cell of the structure, on the CPU."""
        return self.graph.on_cpu.cell[0]

    def advance(self, charges: torch.Tensor, adjoint: torch.Tensor) -> None:
        """Store the results of a structure, unless it is a repeated evaluation."""
        graph = self.graph
        if self.positions is None:  # the charges of another cell served only as a guess
            self.charges.reset()
            self.adjoint.reset()
        elif self._moved(graph) == 0.0:
            return
        self.proceed(_host_geometry(graph)[0].copy(), charges, adjoint)

    def proceed(self, positions: np.ndarray, charges: torch.Tensor, adjoint: torch.Tensor) -> None:
        """Store the results of the next structure, with its positions, shape (N, 3), Å."""
        self.charges.accept(charges)
        self.adjoint.accept(adjoint)
        self.positions, self._asked = positions, None


def _strained(points: np.ndarray, cell: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Transform points by the strain between two cells, which may have different bases."""
    if np.array_equal(cell, box):
        return points
    return points @ np.linalg.solve(matched(cell, box), box)


def _displacements(
    points: np.ndarray, before: np.ndarray, box: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Displacements modulo lattice vectors, and the lattice vectors removed, if any."""
    moved = points - before
    if np.abs(moved).max(initial=0.0) <= LONGEST_STEP:
        return moved, None
    moved, images = displacements(points, before, box)
    return moved, images if images.any() else None


def _same(types: torch.Tensor | None, others: torch.Tensor) -> bool:
    """Whether two tensors of types, or of groups, are equal."""
    return types is others or (types is not None and torch.equal(types, others))


def _strain(cell: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(np.linalg.solve(cell, other) - np.eye(3)).max())


def _host_geometry(graph: AtomicGraph) -> tuple[np.ndarray, np.ndarray]:
    """Positions and cell of one structure, from its copy on the CPU."""
    return _numpy(graph.on_cpu.positions), _numpy(graph.on_cpu.cell[0])


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
