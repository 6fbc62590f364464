"""Energy and forces of one structure by the adjoint method (Z-vector, charges Q and w).

The steps are electronegativities, charges, short-range energy, adjoint charges and the gradient of
the Lagrangian (:mod:`openmm_nequiplr.equilibration.adjoint`). The charge solver is not
differentiated. The code runs eagerly and compiles with TorchScript. For training,
:meth:`.potential.NequIPLRPotential.forward` differentiates through a dense solver instead.
"""

# TorchScript compiles these modules and reads annotations: no postponed ones here
from typing import Any, NamedTuple

import torch

from ..equilibration import Equilibration, effective_chi, lagrangian_weights
from ..units import COULOMB_CONSTANT
from .potential import NequIPLRPotential


class Atoms(NamedTuple):
    """Data that do not depend on the geometry.

    Parameters
    ----------
    types : torch.Tensor, int64, shape (N,)
    hardness : torch.Tensor, float64, shape (N,), eV/e²
    offsets : torch.Tensor or None, float64, shape (N,), e
        Charges Z that are added to Q in the Coulomb sums.
    total_charge : torch.Tensor, float64, scalar or shape (F,), e
        Total charge of the structure, or of groups of atoms with constrained charges.
    groups : torch.Tensor or None, int64, shape (N,)
        Group of each atom, from 0 to F − 1.
    """

    types: torch.Tensor
    hardness: torch.Tensor
    offsets: torch.Tensor | None
    total_charge: torch.Tensor
    groups: torch.Tensor | None


class Geometry(NamedTuple):
    """Tensors with gradients, except the cell of an isolated structure.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
    cell : torch.Tensor, float64, shape (3, 3), Å
    edge_index : torch.Tensor, int64, shape (2, E)
    length : torch.Tensor, shape (E,), Å
    harmonics : torch.Tensor, shape (E, (l_max + 1)²)
        Length and harmonics are results of :meth:`.potential.NequIPLRPotential.edge_features`.
    outside : torch.Tensor or None, float64, shape (N,), eV/e
        External potential φ, such as that of a field.
    """

    positions: torch.Tensor
    cell: torch.Tensor
    edge_index: torch.Tensor
    length: torch.Tensor
    harmonics: torch.Tensor
    outside: torch.Tensor | None


class Results(NamedTuple):
    """Results for one structure, detached; energies do not include the energy shifts.

    Parameters
    ----------
    energy : torch.Tensor, float64, scalar, eV
    short_range, electrostatic : torch.Tensor, float64, shape (N,), eV
        Parts of the energy by atom. The electrostatic part includes the external potential, and
        is not multiplied by the scale factor.
    gradients : list of torch.Tensor or None
        Derivatives of the energy with respect to each root, without the external sum.
    external_forces : torch.Tensor, float64, shape (N, 3), eV/Å
        Forces of the external sum; shape (0, 3) without one.
    charges, adjoint : torch.Tensor, float64, shape (N,), e
    chi : torch.Tensor, float64, shape (N,), eV/e
    residual : float, eV/e
    iterations : tuple of 2 int
    records : list of 2 torch.Tensor
        Of the two solves, see :class:`openmm_nequiplr.equilibration.Equilibration`.
    """

    energy: torch.Tensor
    short_range: torch.Tensor
    electrostatic: torch.Tensor
    gradients: list[torch.Tensor | None]
    external_forces: torch.Tensor
    charges: torch.Tensor
    adjoint: torch.Tensor
    chi: torch.Tensor
    residual: float
    iterations: tuple[int, int]
    records: list[torch.Tensor]


def seen_charges(charges: torch.Tensor, offsets: torch.Tensor | None) -> torch.Tensor:
    """Charges Q + Z of the Coulomb sums, shape (N,), e."""
    return charges if offsets is None else charges + offsets


def without_history(tensor: torch.Tensor) -> torch.Tensor:
    """Tensor that is not differentiable; call it without gradients."""
    if torch.jit.is_scripting():
        return tensor.clone()  # OpenMM freezes graphs, which removes ``detach`` but not this
    return tensor.detach()


class NoExternalSum(torch.nn.Module):
    """External Coulomb sum of zero, for evaluations without external code."""

    def forward(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        charges: torch.Tensor,
        subtracted: torch.Tensor,
        eta: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Coulomb energy (scalar, eV) and forces (shape (N, 3), eV/Å) of two sets of charges.

        The results for ``subtracted`` are subtracted from those for ``charges``.

        Parameters
        ----------
        positions, cell : torch.Tensor, float64, shapes (N, 3) and (3, 3), Å
        charges, subtracted : torch.Tensor, float64, shape (N,), e
        eta : float, Å
            Width of the Gaussians of the smooth part, which is the part summed here.
        """
        return positions.new_zeros([]), torch.zeros_like(positions)


class Inference(torch.nn.Module):
    """Evaluation of a model with charges at fixed parameters.

    Parameters
    ----------
    model : NequIPLRPotential
    solver : DenseEquilibration or IterativeEquilibration, optional
        Charge solver. Its Coulomb operator belongs to the geometry and has its gradients; eager
        code may assign another solver before each call.
    external : torch.nn.Module, optional
        External Coulomb sum with the arguments of :class:`NoExternalSum` and the physical Coulomb
        constant.
    """

    def __init__(
        self,
        model: NequIPLRPotential,
        solver: Any = None,
        external: torch.nn.Module | None = None,
    ) -> None:
        super().__init__()
        config = model.config
        self.model = model
        self.solver: Any = solver
        self.full = config.electrostatic_energy == "qeq"
        #: Scale factor s of the electrostatic energy, including that of the external potential.
        self.scale = 1.0
        self.ratio = config.coulomb_constant / COULOMB_CONSTANT
        # gradients exist only for quantities that depend on the geometry
        self.first_sees_edges = config.num_layers > 0
        self.sees_directions = config.l_max > 0
        self.second_sees_edges = config.num_layers_charge > 0 or config.zbl
        self.external: Any = NoExternalSum()
        self.delegate(external)

    def delegate(self, external: torch.nn.Module | None, everything: bool = False) -> None:
        """Delegate the smooth part of the point-charge sum, or all of it, to an external sum.

        Parameters
        ----------
        external : torch.nn.Module or None
            ``None`` for no external sum.
        everything : bool
            Whether the external sum also includes the pairs.
        """
        self.delegated, self.everything = external is not None, everything
        if external is not None:
            self.external = external

    def forward(self, atoms: Atoms, geometry: Geometry, roots: list[torch.Tensor]) -> Results:
        """Evaluate one structure.

        Parameters
        ----------
        atoms : Atoms
        geometry : Geometry
        roots : list of torch.Tensor
            Variables on which the geometry depends, and with respect to which the energy is
            differentiated.
        """
        chi, features = self.electronegativities(atoms, geometry)
        first = self.equilibrate(atoms, geometry, chi)
        return self.complete(atoms, geometry, roots, chi, features, first)

    def complete(
        self,
        atoms: Atoms,
        geometry: Geometry,
        roots: list[torch.Tensor],
        chi: torch.Tensor,
        features: torch.Tensor,
        first: Equilibration,
    ) -> Results:
        """Complete the evaluation after the charges are known; arguments as above."""
        short, slopes = self.energy_stage(atoms, geometry, first.charges, features)
        second = self.adjoint(atoms, chi, first, slopes[0])
        adjoint, scale = second.charges, self.scale
        # s e(U) − w·K U = e(q) − e(p) with p = w + ½(1−s) U and q = U − p; U − w and w at s = 1
        shared = 0.5 * (1.0 - scale)
        with torch.no_grad():
            seen = seen_charges(first.charges, atoms.offsets)
            subtracted = torch.add(adjoint, seen, alpha=shared)
            lagrangian_charges = seen - subtracted
        more, forces = self.external_sum(geometry, lagrangian_charges, subtracted)
        fields: list[torch.Tensor] | None = None
        if atoms.offsets is None:
            field = torch.add(second.field, first.field, alpha=shared)
            fields = [first.field - field, field]
        coulomb = self.coulomb(lagrangian_charges, subtracted, fields)
        with torch.no_grad():
            weights = lagrangian_weights(scale * first.charges, adjoint, self.full)
        linear = weights @ chi
        outside = geometry.outside
        if outside is not None:
            coulomb = coulomb + (scale * seen - adjoint) @ outside
        gradients = self.gradient(linear, coulomb, geometry, features, slopes, roots)
        with torch.no_grad():
            own = weights  # ½ J (s Q² − 2 w Q); without s Q² if the energy is the Coulomb part only
            if self.full:
                own = torch.add(weights, first.charges, alpha=-0.5 * scale)
            energy = short.sum() + linear + coulomb + (atoms.hardness * first.charges) @ own
            if self.delegated:
                energy = energy + more
            electrostatic = self.electrostatic(atoms, geometry, chi, first)
            chi = without_history(chi)
        residual = max(first.residual, second.residual)
        iterations = first.iterations, second.iterations
        return Results(
            energy,
            short,
            electrostatic,
            gradients,
            forces,
            first.charges,
            adjoint,
            chi,
            residual,
            iterations,
            [first.record, second.record],
        )

    def electrostatic(
        self, atoms: Atoms, geometry: Geometry, chi: torch.Tensor, first: Equilibration
    ) -> torch.Tensor:
        """Unscaled electrostatic energies of the atoms, shape (N,), eV, from the first solution."""
        charges = first.charges
        seen = seen_charges(charges, atoms.offsets)
        # K U + φ; the energy is stationary in the charges, so the residual hardly matters
        hard = atoms.hardness * charges
        potential = first.gradient - chi - hard
        outside = geometry.outside
        if outside is not None:
            potential = potential + outside
        energy = 0.5 * seen * potential
        if self.full:
            energy = torch.addcmul(energy, charges, torch.add(chi, hard, alpha=0.5))
        return energy

    def electronegativities(
        self, atoms: Atoms, geometry: Geometry
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Electronegativities χ, and the features shared with the energy stage."""
        return self.model.first_stage(
            atoms.types, geometry.edge_index, geometry.length, geometry.harmonics
        )

    def equilibrate(self, atoms: Atoms, geometry: Geometry, chi: torch.Tensor) -> Equilibration:
        """Charges Q of the charge equilibration."""
        with torch.no_grad():
            positions, cell = without_history(geometry.positions), without_history(geometry.cell)
            self.solver.begin(atoms.hardness, positions, cell, atoms.groups)
            offsets = atoms.offsets
            known: torch.Tensor | None = None
            if offsets is not None:
                known = self.solver.potential(offsets)
            pushed = without_history(effective_chi(chi, known, geometry.outside))
            result = self.solver.equilibrate(pushed, atoms.total_charge)
        return result

    def energy_stage(
        self, atoms: Atoms, geometry: Geometry, charges: torch.Tensor, features: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """Short-range energies of the atoms, and the derivatives of their sum.

        The derivatives are with respect to charges, lengths, harmonics and features.
        """
        with torch.no_grad():
            own, length = without_history(charges), without_history(geometry.length)
            harmonics, before = without_history(geometry.harmonics), without_history(features)
        leaves = [own, length, harmonics, before]
        for leaf in leaves:
            leaf.requires_grad_(True)
        edges = geometry.edge_index
        short = self.model.atomic_energies(atoms.types, own, edges, length, harmonics, before)
        slopes: list[torch.Tensor | None] = list(
            torch.autograd.grad([short.sum()], leaves, allow_unused=True)
        )
        with torch.no_grad():
            short = without_history(short)
        return short, slopes

    def adjoint(
        self,
        atoms: Atoms,
        chi: torch.Tensor,
        first: Equilibration,
        slope: torch.Tensor | None,
    ) -> Equilibration:
        """Adjoint charges w (Z-vector)."""
        with torch.no_grad():
            gradient = torch.zeros_like(first.charges) if slope is None else slope
            if not self.full:
                # K (Q + Z) + φ, from the first solution
                known = first.gradient - chi - atoms.hardness * first.charges
                gradient = gradient + self.scale * known
            second = self.solver.adjoint(gradient)
            self.solver.finish(first.charges, second.charges)
        return second

    def coulomb(
        self,
        charges: torch.Tensor,
        subtracted: torch.Tensor,
        fields: list[torch.Tensor] | None,
    ) -> torch.Tensor:
        """Part of e(q) − e(p), eV, that this package sums; differentiable."""
        operator = self.solver.operator
        if not self.delegated:
            return operator.energy_difference(charges, subtracted, fields)
        if self.everything:
            return self._screening(charges, subtracted)
        return operator.rest_difference(charges, subtracted)

    @torch.jit.unused
    def _screening(self, charges: torch.Tensor, subtracted: torch.Tensor) -> torch.Tensor:
        return self.solver.operator.screening().energy_difference(charges, subtracted)

    def external_sum(
        self, geometry: Geometry, charges: torch.Tensor, subtracted: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Energy and forces of the external Coulomb sum; without one they mean nothing."""
        energy, forces = charges[0], geometry.positions[:0]
        if self.delegated:
            with torch.no_grad():
                positions = without_history(geometry.positions)
                cell, width = without_history(geometry.cell), self.solver.operator.smoothing_width
                energy, forces = self.external(positions, cell, charges, subtracted, width)
                energy, forces = self.ratio * energy, self.ratio * forces
        return energy, forces

    def gradient(
        self,
        linear: torch.Tensor,
        coulomb: torch.Tensor,
        geometry: Geometry,
        features: torch.Tensor,
        slopes: list[torch.Tensor | None],
        roots: list[torch.Tensor],
    ) -> list[torch.Tensor | None]:
        """Gradient of the Lagrangian at fixed Q and w, in one backward pass."""
        if len(roots) == 0:
            return []
        values, seeds = [coulomb], torch.jit.annotate(list[torch.Tensor | None], [None])
        if self.first_sees_edges:
            values.append(linear)
            seeds.append(None)
        by_length, by_harmonics, by_features = slopes[1], slopes[2], slopes[3]
        if self.second_sees_edges:
            if by_length is not None:
                values.append(geometry.length)
                seeds.append(by_length)
            if self.sees_directions and by_harmonics is not None:
                values.append(geometry.harmonics)
                seeds.append(by_harmonics)
        if self.first_sees_edges and by_features is not None:
            values.append(features)
            seeds.append(by_features)
        return list(torch.autograd.grad(values, roots, seeds, allow_unused=True))
