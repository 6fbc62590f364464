"""One evaluation of a model as a TorchScript graph: positions in, energy and forces out.

The phases are those of :class:`..step.Step`, its eager twin: electronegativities, charges,
short-range energy, adjoint charges, and the Lagrangian's gradient, with two charge sets in the
Coulomb sums (:mod:`openmm_nequiplr.equilibration.adjoint`).
"""

from collections.abc import Sequence

import torch

from ...equilibration import effective_chi, lagrangian_weights
from ...nn import saturate
from ...units import ANGSTROM_PER_NM, COULOMB_CONSTANT, EV_TO_KJ_PER_MOL
from ..potential import NequIPLRPotential
from .pairs import PairList, ReducedCell


class NoExternalSum(torch.nn.Module):
    """Nobody else sums the smooth part of the Coulomb energy: the graph does."""

    def forward(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor,
        charges: torch.Tensor,
        subtracted: torch.Tensor,
        eta: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return positions.new_zeros([]), torch.zeros_like(positions)


class _NoRepulsion(torch.nn.Module):
    def forward(
        self, types: torch.Tensor, first: torch.Tensor, second: torch.Tensor, length: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return first[:0], length.new_zeros([1])


class _NoFloor(torch.nn.Module):
    def forward(
        self, types: torch.Tensor, first: torch.Tensor, second: torch.Tensor, length: torch.Tensor
    ) -> torch.Tensor:
        return length


class EvaluationGraph(torch.nn.Module):
    """A model, its atoms and its solver; compiled by :func:`.build.script_model`.

    Parameters
    ----------
    model : NequIPLRPotential
        In the dtype that the graph will have; its e3nn modules are taken over.
    types : torch.Tensor, int64, shape (N,)
    periodic : bool
    total_charge : float, e
    pairs : PairList
    solver : DenseEquilibration or IterativeEquilibration
    external : torch.nn.Module, optional
        Sums the smooth part of the point charges' energy (without a cell: all of it) in place of
        the graph. Arguments as those of :class:`NoExternalSum`, with the physical Coulomb constant.
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
    ) -> None:
        super().__init__()
        config = model.config
        self.periodic, self.total_charge = periodic, float(total_charge)
        self.full = config.electrostatic_energy == "qeq"
        self.r_max, self.r_max_charge = config.r_max, config.charge_cutoff
        self.cutoff = max(config.r_max, config.charge_cutoff)
        self.delegated = external is not None
        self.external = NoExternalSum() if external is None else external
        self.ratio = config.coulomb_constant / COULOMB_CONSTANT
        self.length_unit, self.energy_unit = ANGSTROM_PER_NM, EV_TO_KJ_PER_MOL
        self.lattice = ReducedCell()
        self.pairs, self.solver, self.harmonics = pairs, solver, model.harmonics.sh
        first = model.electronegativity_stage
        assert first is not None
        self.stage_1, self.stage_2 = first, model.energy_stage
        zbl = model.repulsion
        self.repulsion = _NoRepulsion() if zbl is None else zbl
        floor = model.distance_floor
        self.distance_floor = _NoFloor() if floor is None else floor
        self.chi_bound = config.electronegativity_bound or 0.0
        # what does not depend on the geometry has no gradient to ask for
        self.first_sees_edges = config.num_layers > 0
        self.second_sees_edges = config.num_layers_charge > 0 or zbl is not None
        signs = [(-1.0) ** ir.l for _, ir in model.harmonics.sh.irreps_out for _ in range(ir.dim)]
        self.register_buffer("signs", torch.tensor(signs, dtype=model.dtype))
        self.register_buffer("types", types)
        per_atom = {
            "widths": model.widths,
            "hardness": model.hardness(torch.arange(len(config.type_names), device=model.device)),
            "chi_scale": model.electronegativity_scales,
            "chi_shift": model.electronegativity_shifts,
            "energy_scale": model.energy_scales,
        }
        for name, value in per_atom.items():
            self.register_buffer(name, value.detach()[types].clone())
        offsets = torch.zeros(len(types), dtype=torch.float64, device=types.device)
        if model.charge_offset is not None:
            offsets = model.charge_offset.detach().to(torch.float64)[types]
        self.register_buffer("offsets", offsets - offsets.mean())
        self.with_offsets = bool(self.offsets.any())
        self.reference_energy = float(model.energy_shifts[types].sum())

    def _stage(
        self,
        second_stage: bool,
        charges: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        length: torch.Tensor,
        harmonics: torch.Tensor,
        before: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One scalar an atom, float64, and features of a stage; harmonics of shape (P, ...)."""
        cutoff = self.r_max_charge if second_stage else self.r_max
        if cutoff < self.cutoff:
            inside = torch.nonzero(length < cutoff).squeeze(-1)
            first, second = first.index_select(0, inside), second.index_select(0, inside)
            length, harmonics = length.index_select(0, inside), harmonics.index_select(0, inside)
        # rows 0 to P − 1 lead from the first atom of a pair to the second, rows P to 2P − 1 back
        ends = torch.stack((torch.cat((first, second)), torch.cat((second, first))))
        both = torch.cat((harmonics, harmonics * self.signs))
        distance = length.to(harmonics.dtype)
        charge = charges.to(harmonics.dtype)
        if second_stage:
            raw = self.stage_2(self.types, charge, ends, distance, both, before)
            return self.energy_scale * raw.to(torch.float64), before
        raw, features = self.stage_1(self.types, ends, distance, both)
        raw = saturate(raw.to(torch.float64), self.chi_bound)
        return self.chi_scale * raw + self.chi_shift, features

    @torch.jit.export
    def evaluate(
        self, positions: torch.Tensor, cell: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Energy, forces, charges, adjoint charges and electronegativities.

        Parameters
        ----------
        positions : torch.Tensor, float64, shape (N, 3), Å
        cell : torch.Tensor, float64, shape (3, 3), Å, optional
            Rows are lattice vectors; needed when periodic.

        Returns
        -------
        list of torch.Tensor, float64
            A scalar, eV; (N, 3), eV/Å; and three times (N,), e, e and eV/e.
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
        with torch.no_grad():
            searches = self.pairs.searches
            x = self.pairs.update(positions, box, self.solver.operator.far_cutoff(box)).clone()
            first, second, vector = self.pairs(x, box)
        self.solver.operator.update(
            x.requires_grad_(True), box, self.pairs.first, self.pairs.second, self.pairs.shift,
            self.pairs.searches != searches,
        )  # fmt: skip
        return self._evaluate(x, box, first, second, vector.requires_grad_(True))

    def _evaluate(
        self,
        x: torch.Tensor,
        box: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        vector: torch.Tensor,
    ) -> list[torch.Tensor]:
        """The phases; OpenMM freezes graphs, which drops ``detach`` but not ``no_grad``."""
        length = torch.linalg.vector_norm(vector, dim=-1)
        harmonics = self.harmonics(vector.to(self.signs.dtype))
        none = harmonics.new_zeros([x.shape[0], 1])
        seen = self.distance_floor(self.types, first, second, length)
        chi, features = self._stage(False, self.offsets, first, second, seen, harmonics, none)
        with torch.no_grad():
            before = features.clone()
            self.solver.begin(self.hardness, x * 1.0, box)
            known: torch.Tensor | None = None
            if self.with_offsets:
                known = self.solver.potential(self.offsets)
            total = torch.full([], self.total_charge, dtype=box.dtype, device=box.device)
            charges = self.solver.equilibrate(effective_chi(chi, known) * 1.0, total).charges
        own = charges.clone().requires_grad_(True)
        before.requires_grad_(True)
        short = self._stage(True, own, first, second, seen, harmonics, before)[0].sum()
        short = short + self.repulsion_energy(first, second, length)
        # one pass backwards for all; the geometry takes its part of the slopes below
        slopes = torch.autograd.grad(
            [short], [own, length, harmonics, before], retain_graph=True, allow_unused=True
        )
        with torch.no_grad():
            gradient = slopes[0]
            if gradient is None:
                gradient = torch.zeros_like(charges)
            if not self.full:
                gradient = gradient + self.solver.potential(charges + self.offsets)
            adjoint = self.solver.adjoint(gradient).charges
            self.solver.finish(charges, adjoint)
            weights = lagrangian_weights(charges, adjoint, self.full)
            lagrangian_charges = charges + self.offsets - adjoint
        linear = (weights * chi).sum()
        forces = self._network_forces(
            linear, vector, length, harmonics, features, slopes, first, second
        )
        coulomb, pull = self._coulomb(x, box, lagrangian_charges, adjoint)
        with torch.no_grad():
            squares = (charges - adjoint) ** 2 - adjoint * adjoint
            if not self.full:
                squares = squares - charges * charges
            energy = short + linear + coulomb + 0.5 * (self.hardness * squares).sum()
            energy, forces = energy + self.reference_energy, forces + pull
            chi = chi * 1.0
            finite = bool(torch.isfinite(energy + forces.sum()))
        if len(self.solver.failure) > 0:
            message = self.solver.failure
            self.solver.forget()
            raise RuntimeError(message)
        if not finite:
            self.solver.forget()
            raise RuntimeError(
                "positions: expected a geometry that the model can evaluate, got a non-finite "
                "energy or force; atoms on top of one another are the usual cause"
            )
        return [energy, forces, charges, adjoint, chi]

    def repulsion_energy(
        self, first: torch.Tensor, second: torch.Tensor, length: torch.Tensor
    ) -> torch.Tensor:
        """The ZBL repulsion of all pairs, a scalar, eV."""
        return self.repulsion(self.types, first, second, length)[1].sum()

    def _network_forces(
        self,
        linear: torch.Tensor,
        vector: torch.Tensor,
        length: torch.Tensor,
        harmonics: torch.Tensor,
        features: torch.Tensor,
        slopes: list[torch.Tensor | None],
        first: torch.Tensor,
        second: torch.Tensor,
    ) -> torch.Tensor:
        """Forces of weights · χ and of the short-range energy, shape (N, 3), eV/Å."""
        by_length, by_harmonics, by_features = slopes[1], slopes[2], slopes[3]
        values: list[torch.Tensor] = []
        seeds: list[torch.Tensor | None] = []
        if self.first_sees_edges:
            values.append(linear)
            seeds.append(None)
        if self.second_sees_edges and by_length is not None:
            values.append(length)
            seeds.append(by_length)
        if self.second_sees_edges and by_harmonics is not None:
            values.append(harmonics)
            seeds.append(by_harmonics)
        if self.first_sees_edges and by_features is not None:
            values.append(features)
            seeds.append(by_features)
        forces = vector.new_zeros([self.types.shape[0], 3])
        if len(values) == 0:
            return forces
        along = torch.autograd.grad(values, [vector], seeds, allow_unused=True)[0]
        if along is None:
            return forces
        return forces.index_add(0, first, along).index_add(0, second, -along)

    def _coulomb(
        self, x: torch.Tensor, box: torch.Tensor, charges: torch.Tensor, subtracted: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """e(q) − e(p), eV, and its forces, shape (N, 3), eV/Å."""
        operator = self.solver.operator
        if self.delegated:
            energy = operator.rest_difference(charges, subtracted)
        else:
            energy = operator.energy_difference(charges, subtracted)
        slope = torch.autograd.grad([energy], [x], allow_unused=True)[0]
        with torch.no_grad():
            forces = torch.zeros_like(x)
            if slope is not None:
                forces = -slope
            if self.delegated:
                more, pull = self.external(
                    x * 1.0, box, charges, subtracted, operator.smoothing_width
                )
                energy, forces = energy + self.ratio * more, forces + self.ratio * pull
        return energy, forces

    @torch.jit.unused
    def select(self, atoms: Sequence[int] | None) -> None:
        """Take these of the positions given to :meth:`forward`; all of them with ``None``."""
        self.all_atoms = atoms is None
        chosen = torch.tensor([] if atoms is None else list(atoms), dtype=torch.int64)
        self.register_buffer("atoms", chosen.to(self.types.device))

    def forward(
        self, positions: torch.Tensor, box: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What OpenMM's TorchForce calls: nm in, kJ/mol and kJ/mol/nm out.

        Parameters
        ----------
        positions : torch.Tensor, shape (N, 3), nm
            Of any dtype, on any device; forces come back likewise. Of all particles, where the
            graph acts on some of them.
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
        forces = results[1] * (self.energy_unit * self.length_unit)
        if not self.all_atoms:
            forces = torch.zeros_like(x).index_copy(0, self.atoms, forces)
        energy = results[0] * self.energy_unit
        to = positions.device
        return energy.to(to), forces.to(device=to, dtype=positions.dtype).contiguous()
