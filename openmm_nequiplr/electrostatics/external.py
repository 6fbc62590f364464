"""External potentials: a uniform field, the voltage between electrodes, fixed outside charges."""

# TorchScript compiles these and reads annotations: no postponed ones here
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..derivatives import last_derivative
from ..neighbors import pairs_between
from ..ops import mesh as ops
from ..ops.pair_formulas import pair_coefficients, pair_width
from ..units import COULOMB_CONSTANT
from ..verlet import DEFAULT_SKIN, VerletList
from .mesh import smooth_influence
from .splitting import DEFAULT_ACCURACY, MeshParameters, choose_parameters

# Ewald width in units of (V/√(N M))^⅓ at which the mesh costs as much as the pairs of N atoms with
# M charges.
_BALANCE = 0.43
# The mesh is chosen again when the strain of the cell exceeds this.
_SAME_MESH = 0.05


def field_potential(
    positions: torch.Tensor, field: torch.Tensor, batch: torch.Tensor | None = None
) -> torch.Tensor:
    """Potential −E·r of a uniform field at the atoms, shape (N,), eV/e; differentiable.

    The energy of a charged structure in a field depends on the origin.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
        Unwrapped positions of whole molecules. The potential differs between periodic images.
    field : torch.Tensor, float64, shape (B, 3), V/Å
        Field on each structure.
    batch : torch.Tensor, int64, shape (N,), optional
        Structure of each atom; needed for more than one structure.
    """
    if batch is None:
        return -(positions @ field[0])
    return -(positions * field.index_select(0, batch)).sum(dim=-1)


def applied_potential(sides: np.ndarray | None, voltage: float) -> torch.Tensor | None:
    """Potential −ψ of a voltage source at the atoms, float64, shape (N,), eV/e.

    The source keeps the electrodes at ψ = ±½ voltage. Its work ψ q on the charge q of an electrode
    is subtracted from the energy (Siepmann and Sprik 1995, doi:10.1063/1.469429).

    Parameters
    ----------
    sides : numpy.ndarray, int64, shape (N,), or None
        1 on atoms of the first electrode, −1 on those of the second, 0 elsewhere; ``None`` without
        electrodes.
    voltage : float, V
        Potential of the first electrode minus that of the second.
    """
    return None if sides is None else torch.from_numpy(-0.5 * voltage * sides)


class OutsideCharges:
    """Potential of M fixed charges at the atoms of a model, with exact forces on both.

    The potential of a charge of width s at an atom of width σ is k_e erf(r/√2γ)/r with
    γ² = σ² + s². Without a cell the sum runs over all pairs. In a cell it is the Ewald sum of
    :class:`.ewald.EwaldCoulomb` between the two sets, with its neutralising background. Smooth
    particle mesh Ewald (Essmann et al. 1995, doi:10.1063/1.470117) evaluates the reciprocal part,
    once for the potential and once for the forces on the charges.

    Parameters
    ----------
    charges : torch.Tensor, float64, shape (M,), e
    width : float, Å
        Gaussian width s of the charges; 0 for point charges.
    constant : float, eV Å/e²
    accuracy : float
        Relative error of potential and forces in a cell.
    dtype : torch.dtype
        Precision of the mesh.
    """

    def __init__(
        self,
        charges: torch.Tensor,
        width: float = 0.0,
        constant: float = COULOMB_CONSTANT,
        accuracy: float = DEFAULT_ACCURACY,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.charges, self.width, self.constant = charges, width, constant
        self.accuracy, self.dtype = accuracy, dtype
        self.parameters: MeshParameters | None = None
        self._pairs = VerletList(DEFAULT_SKIN, device=charges.device, search=self._search)
        self._chosen_for, self._cell = torch.zeros(0), torch.zeros(0)
        self._influence = self._scale = torch.zeros(0)

    def __call__(
        self,
        positions: torch.Tensor,
        widths: torch.Tensor,
        sites: torch.Tensor,
        cell: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Potential φ at the atoms, float64, shape (N,), eV/e.

        It is differentiable once, with respect to ``positions`` and ``sites``.

        Parameters
        ----------
        positions, sites : torch.Tensor, float64, shapes (N, 3) and (M, 3), Å
            Positions of the atoms and of the charges.
        widths : torch.Tensor, float64, shape (N,), Å
            Widths σ of the atoms.
        cell : torch.Tensor, float64, shape (3, 3), Å, optional
            Rows are lattice vectors.
        """
        with torch.no_grad():
            points, places = positions.detach(), sites.detach()
            if cell is None:
                terms: list[Any] = [self._all_pairs(points, widths, places)]
            else:
                box = cell.detach()
                parameters = self._prepare(box, widths)
                pairs = self._near_pairs(points, widths, places, box, parameters)
                terms = [pairs, self._mesh_sum(points, places, parameters)]
        return _Potential.apply(positions, sites, terms)

    def _all_pairs(
        self, points: torch.Tensor, widths: torch.Tensor, sites: torch.Tensor
    ) -> "_PairSum":
        atoms = torch.arange(len(points), device=points.device).repeat_interleave(len(sites))
        others = torch.arange(len(sites), device=points.device).repeat(len(points))
        vectors = (sites - points.unsqueeze(1)).reshape(-1, 3)
        return self._pair_sum(atoms, others, vectors, widths, math.inf, math.inf)

    def _near_pairs(
        self,
        points: torch.Tensor,
        widths: torch.Tensor,
        sites: torch.Tensor,
        cell: torch.Tensor,
        parameters: MeshParameters,
    ) -> "_PairSum":
        self._count, both = len(points), torch.cat((points, sites))
        found = self._pairs(both.cpu().numpy(), cell.cpu().numpy(), True, parameters.cutoff)
        (first, second), shift = found
        vectors = both.index_select(0, second) - points.index_select(0, first) + shift @ cell
        second = second - len(points)
        return self._pair_sum(first, second, vectors, widths, parameters.eta, parameters.cutoff)

    def _search(
        self, points: np.ndarray, cell: np.ndarray, periodic: bool, cutoff: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pairs of an atom with a charge; ``points`` lists the atoms first."""
        count = self._count
        atoms, others, shifts = pairs_between(points[:count], points[count:], cell, cutoff)
        index = torch.from_numpy(np.stack((atoms, others + count)))
        return index, torch.from_numpy(shifts.astype(np.float64))

    def _pair_sum(
        self,
        atoms: torch.Tensor,
        others: torch.Tensor,
        vectors: torch.Tensor,
        widths: torch.Tensor,
        eta: float,
        cutoff: float,
    ) -> "_PairSum":
        gamma = pair_width(widths, torch.full_like(widths, self.width)).index_select(0, atoms)
        value, slope = pair_coefficients(vectors, gamma, eta, cutoff)
        factor = self.constant * self.charges.index_select(0, others)
        along = (factor * slope).unsqueeze(-1) * vectors
        return _PairSum(atoms, others, factor * value, along, len(widths), len(self.charges))

    def _prepare(self, cell: torch.Tensor, widths: torch.Tensor) -> MeshParameters:
        """Set splitting, mesh and influence function for a cell; small strains keep the mesh."""
        known = self.parameters
        if known is not None and torch.equal(cell, self._cell):
            return known
        if known is None or _strain(self._chosen_for, cell) > _SAME_MESH:
            widest = max(float(widths.max()), self.width)
            count = max(1, round(math.sqrt(len(widths) * len(self.charges))))
            known = choose_parameters(cell, widest, count, self.accuracy, balance=_BALANCE)
            self.parameters, self._chosen_for = known, cell.clone()
        smooth, splines = smooth_influence(cell, known.eta, known.shape, known.order, self.constant)
        self._influence, self._cell = (smooth * splines).to(self.dtype), cell.clone()
        shape = torch.tensor(known.shape, dtype=cell.dtype, device=cell.device)
        self._scale = torch.linalg.inv(cell) * shape
        return known

    def _mesh_sum(
        self, points: torch.Tensor, sites: torch.Tensor, parameters: MeshParameters
    ) -> "_MeshSum":
        own, other = (
            ops.stencil(places @ self._scale, parameters.shape, parameters.order, self.dtype)
            for places in (points, sites)
        )
        return _MeshSum(own, other, self.charges, self._influence, self._scale, parameters.shape)


def _strain(cell: torch.Tensor, other: torch.Tensor) -> float:
    change = torch.linalg.solve(cell, other) - torch.eye(3, dtype=cell.dtype, device=cell.device)
    return float(change.abs().max())


@dataclass
class _PairSum:
    """Pair sum Σ_k c_ik: ``value``, shape (P,), eV/e, and its gradient by the charge's position."""

    atoms: torch.Tensor
    others: torch.Tensor
    value: torch.Tensor
    along: torch.Tensor
    num_atoms: int
    num_charges: int

    def potential(self) -> torch.Tensor:
        """Potential at the atoms, shape (N,), eV/e."""
        return self.value.new_zeros(self.num_atoms).index_add(0, self.atoms, self.value)

    def gradients(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of Σ p_i φ_i, eV/Å, by positions of atoms and charges; p, shape (N,), e."""
        pull = weights.index_select(0, self.atoms).unsqueeze(-1) * self.along
        by_atom = pull.new_zeros(self.num_atoms, 3).index_add(0, self.atoms, -pull)
        return by_atom, pull.new_zeros(self.num_charges, 3).index_add(0, self.others, pull)


class _MeshSum:
    """The smooth part of a periodic sum, with the methods of :class:`_PairSum`."""

    def __init__(
        self,
        own: list[torch.Tensor],
        other: list[torch.Tensor],
        charges: torch.Tensor,
        influence: torch.Tensor,
        scale: torch.Tensor,
        shape: list[int],
    ) -> None:
        self.own, self.other, self.charges = own, other, charges
        self.influence, self.scale, self.shape = influence, scale, shape
        self.seen = ops.gather_gradient(own, self._field(other, charges))

    def _field(self, state: list[torch.Tensor], charges: torch.Tensor) -> torch.Tensor:
        waves = torch.fft.rfftn(ops.spread(state, charges, self.shape))
        return torch.fft.irfftn(waves * self.influence, s=self.shape, norm="forward")

    def potential(self) -> torch.Tensor:
        return self.seen[:, 0]

    def gradients(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        by_atom = weights.unsqueeze(-1) * self.seen[:, 1:]
        pull = ops.gather_gradient(self.other, self._field(self.own, weights))[:, 1:]
        by_charge = self.charges.unsqueeze(-1) * pull
        return by_atom @ self.scale.t(), by_charge @ self.scale.t()


class _Potential(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions: Any, sites: Any, terms: Any) -> Any:
        ctx.terms = terms
        ctx.save_for_backward(positions, sites)
        return sum(term.potential() for term in terms)

    @staticmethod
    def backward(ctx: Any, weights: Any) -> Any:
        def compute() -> tuple[torch.Tensor, ...]:
            parts = [term.gradients(weights.detach()) for term in ctx.terms]
            return tuple(sum(part) for part in zip(*parts, strict=True))

        what = "the potential of outside charges has one derivative, and it"
        return *last_derivative(what, compute, (weights, *ctx.saved_tensors)), None
