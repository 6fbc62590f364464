"""Evaluation of a model as a TorchScript graph: energy and forces from positions."""

from collections.abc import Sequence

import numpy as np
import torch

from ...boundaries import tilted, whole_slab
from ...electrostatics.external import field_potential
from ...equilibration import group_means, group_sizes
from ...units import ANGSTROM_PER_NM, EV_TO_KJ_PER_MOL
from ..inference import Atoms, Geometry, Inference, Results
from ..potential import NequIPLRPotential
from .pairs import PairList, ReducedCell


class EvaluationGraph(torch.nn.Module):
    """Model with its atoms and solver, compiled by :func:`.build.script_model`.

    Parameters
    ----------
    model : NequIPLRPotential
        Model in the dtype of the graph, which uses its modules.
    types : torch.Tensor, int64, shape (N,)
    periodic : bool
    total_charge : float, e
    pairs : PairList
    solver : DenseEquilibration or IterativeEquilibration
    external : torch.nn.Module, optional
        As for :class:`..inference.Inference`.
    electric_field : numpy.ndarray, optional, float64, shape (3,), V/Å
    fragments : tuple of 2 numpy.ndarray, optional, shapes (N,) and (F,)
        Group of each atom and charge of each group, if these are constrained.
    applied : torch.Tensor, optional, float64, shape (N,), eV/e
        Potential of a voltage source between electrodes.
    """

    def __init__(
        self,
        model: NequIPLRPotential,
        types: torch.Tensor,
        periodic: bool,
        total_charge: float,
        pairs: PairList,
        solver: torch.nn.Module,
        external: torch.nn.Module | None = None,
        electric_field: np.ndarray | None = None,
        fragments: tuple[np.ndarray, np.ndarray] | None = None,
        applied: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.periodic = periodic
        self.length_unit, self.energy_unit = ANGSTROM_PER_NM, EV_TO_KJ_PER_MOL
        self.lattice, self.pairs = ReducedCell(), pairs
        self.inference = Inference(model, solver, external)
        signs = [(-1.0) ** ir.l for _, ir in model.harmonics.sh.irreps_out for _ in range(ir.dim)]
        self.register_buffer("signs", torch.tensor(signs, dtype=model.dtype))
        self.register_buffer("types", types)
        self.register_buffer("hardness", model.hardness(types).detach())
        offsets = torch.zeros(len(types), dtype=torch.float64, device=types.device)
        if model.charge_offset is not None:
            offsets = model.charge_offset.detach().to(torch.float64)[types]
        held, groups = torch.tensor(float(total_charge)).double(), torch.zeros_like(types)
        self.with_groups = fragments is not None
        if fragments is not None:
            groups = torch.from_numpy(fragments[0]).to(types.device)
            held = torch.from_numpy(fragments[1]).to(types.device)
        self.register_buffer("groups", groups)
        self.register_buffer("total_charge", held)
        offsets = offsets - group_means(offsets, groups, group_sizes(groups))
        self.register_buffer("offsets", offsets)
        self.with_offsets = bool(self.offsets.any())
        self.with_field = electric_field is not None
        field = torch.zeros(1, 3, dtype=torch.float64)
        if electric_field is not None:
            field = torch.from_numpy(electric_field).unsqueeze(0)
        self.register_buffer("electric_field", field.to(types.device))
        self.with_electrodes = applied is not None
        applied = torch.zeros(0, dtype=torch.float64) if applied is None else applied
        self.register_buffer("applied", applied.to(types.device))
        self.reference_energy = float(model.energy_shifts[types].sum())

    @torch.jit.export
    def evaluate(
        self, positions: torch.Tensor, cell: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Energy, forces, charges, adjoint charges and electronegativities.

        Parameters
        ----------
        positions : torch.Tensor, float64, shape (N, 3), Å
        cell : torch.Tensor, float64, shape (3, 3), Å, optional
            Rows are lattice vectors; required if periodic.

        Returns
        -------
        list of torch.Tensor, float64
            A scalar, eV; shape (N, 3), eV/Å; and three of shape (N,), e, e and eV/e.
        """
        count = self.types.shape[0]
        if positions.shape[0] != count:
            raise RuntimeError(
                "positions: expected {} atoms, got {}".format(count, positions.shape[0])
            )
        finite = torch.isfinite(positions).all(dim=1)
        if not bool(finite.all()):
            raise RuntimeError(
                "positions: expected finite numbers, got NaN or infinity for {} of {} atoms; the "
                "simulation has become unstable: try a shorter time step, or minimise the "
                "structure first".format(int((~finite).sum()), count)
            )
        box = torch.eye(3, dtype=torch.float64, device=positions.device)
        if self.periodic:
            if cell is None:
                raise RuntimeError("cell: expected three box vectors for a periodic model")
            with torch.no_grad():
                box = self.lattice(cell)
                if self.pairs.slab:
                    if tilted(box):
                        raise RuntimeError(
                            "cell of a slab: expected a third vector perpendicular to the two "
                            "others, along the normal"
                        )
                    positions = whole_slab(positions, box)[0]
        operator = self.inference.solver.operator
        with torch.no_grad():
            searches = self.pairs.searches
            x = self.pairs.update(positions, box, operator.far_cutoff(box)).clone()
            first, second, vector = self.pairs(x, box)
        operator.update(
            x.requires_grad_(True), box, self.pairs.first, self.pairs.second, self.pairs.shift,
            self.pairs.searches != searches,
        )  # fmt: skip
        return self._finished(self._evaluate(x, box, first, second, vector), first, second)

    def _evaluate(
        self,
        x: torch.Tensor,
        box: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        vector: torch.Tensor,
    ) -> Results:
        """Evaluate with edges 0 to P − 1 from the first atom of each pair, and the others back."""
        vector.requires_grad_(True)
        length, harmonics = self.inference.model.edge_features(vector)
        outside: torch.Tensor | None = None
        if self.with_field:
            outside = field_potential(x, self.electric_field)
        if self.with_electrodes:
            outside = self.applied if outside is None else outside + self.applied
        geometry = Geometry(
            x,
            box,
            torch.stack((torch.cat((first, second)), torch.cat((second, first)))),
            torch.cat((length, length)),
            torch.cat((harmonics, harmonics * self.signs)),
            outside,
        )
        offsets: torch.Tensor | None = None
        if self.with_offsets:
            offsets = self.offsets
        groups: torch.Tensor | None = None
        if self.with_groups:
            groups = self.groups
        atoms = Atoms(self.types, self.hardness, offsets, self.total_charge, groups)
        return self.inference(atoms, geometry, [x, vector])

    def _finished(
        self, results: Results, first: torch.Tensor, second: torch.Tensor
    ) -> list[torch.Tensor]:
        """Check for errors, and form the forces from gradients by positions and pair vectors."""
        with torch.no_grad():
            forces = results.external_forces
            if forces.shape[0] == 0:
                forces = results.charges.new_zeros([results.charges.shape[0], 3])
            by_position, along = results.gradients[0], results.gradients[1]
            if by_position is not None:
                forces = forces - by_position
            if along is not None:
                forces = forces.index_add(0, first, along).index_add(0, second, -along)
            energy = results.energy + self.reference_energy
            finite = bool(torch.isfinite(energy + forces.sum()))
        solver = self.inference.solver
        if len(solver.failure) > 0:
            message = solver.failure
            solver.forget()
            raise RuntimeError(message)
        if not finite:
            solver.forget()
            raise RuntimeError(
                "positions: expected a geometry that the model can evaluate, got a non-finite "
                "energy or force; atoms on top of one another are the usual cause"
            )
        return [energy, forces, results.charges, results.adjoint, results.chi]

    @torch.jit.unused
    def select(self, atoms: Sequence[int] | None) -> None:
        """Select the atoms of the model among the positions given to :meth:`forward`; None: all."""
        self.all_atoms = atoms is None
        chosen = torch.tensor([] if atoms is None else list(atoms), dtype=torch.int64)
        self.register_buffer("atoms", chosen.to(self.types.device))

    def forward(
        self, positions: torch.Tensor, box: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Energy, kJ/mol, and forces, kJ/mol/nm, as called by OpenMM's TorchForce.

        Parameters
        ----------
        positions : torch.Tensor, shape (N, 3), nm
            Positions of all particles, including those on which the graph does not act. The forces
            have their dtype and device.
        box : torch.Tensor, shape (3, 3), nm, optional
        """
        device = self.types.device
        cell: torch.Tensor | None = None
        with torch.no_grad():
            x = self.length_unit * positions.to(device=device, dtype=torch.float64)
            if box is not None:
                cell = self.length_unit * box.to(device=device, dtype=torch.float64)
            own = x if self.all_atoms else x.index_select(0, self.atoms)
        results = self.evaluate(own, cell)
        with torch.no_grad():
            forces = results[1] * (self.energy_unit * self.length_unit)
            if not self.all_atoms:
                forces = torch.zeros_like(x).index_copy(0, self.atoms, forces)
            energy = (results[0] * self.energy_unit).to(positions.device)
            forces = forces.to(device=positions.device, dtype=positions.dtype).contiguous()
        return energy, forces
