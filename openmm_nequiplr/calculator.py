"""ASE calculator: energies, forces, stress, charges and dipoles of a NequIP-LR model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from .boundaries import say_not_periodic
from .checks import check_names
from .conditions import FIELD, VOLTAGE, ChargeConditions, plain_electrodes, read_electrodes
from .errors import InputError, describe, notify
from .fragments import MOLECULES, Groups, by_formula, nearby_molecules, read_groups
from .model import NequIPLRPotential, load_model
from .model.evaluation import Evaluator
from .model.geometry_checks import check_field
from .model.options import EvaluationOptions
from .model.solving import DEFAULT_CHARGE_TOLERANCE, DEFAULT_MAX_ITERATIONS
from .total_charge import assume_neutral, check_trained, told_charge, total_charge_of

_OWN_OPTIONS = (
    *("device", "precision", "solver", "charge_tolerance", "max_iterations", "electric_field"),
    *("charge_groups", "group_charges", "electrodes", "electrode_voltage"),
)
# Arguments of ASE's calculators that apply to a calculator without files.
_ASE_OPTIONS = ("atoms", "label", "directory")
_OF_STRUCTURE = "it belongs to the structure: atoms.info['total_charge'] = …"
_ELSEWHERE = {
    "charge": _OF_STRUCTURE,
    "total_charge": _OF_STRUCTURE,
    "spin": "the model does not depend on spin",
    "outside_charges": "ASE expects forces on the atoms of the model only (use create_force)",
    "dtype": 'it is precision="single" or precision="double"',
    "default_dtype": 'it is precision="single" or precision="double"',
}


class NequIPLRCalculator(Calculator):
    """ASE calculator of a NequIP-LR model.

    The total charge is read from ``atoms.info["total_charge"]``, ``atoms.info["charge"]`` or
    another source (:func:`openmm_nequiplr.total_charge.told_charge`). If there is none, 0 is
    assumed with a warning. Changing the charge, the field or the groups invalidates the results, as
    moving an atom does. Models do not depend on spin: an entry ``spin`` other than 0 or 1 is
    ignored with a warning.

    Parameters
    ----------
    model : NequIPLRPotential or path or str
        A model, a model file, or the name of a shipped or downloaded model. A model object is
        copied, so later training does not affect the calculator.
    device : torch.device or str, optional
        Device of the network; by default that of the model (the CPU for files).
    precision : {"single", "double"}, optional
        Precision of the network; by default that of the model. Geometry, equilibration and Coulomb
        sums are always in double precision.
    solver : {"auto", "dense", "iterative"}
        Solver of the charge equilibration. The iterative solver is for large systems and starts
        from the charges of the previous structure; ``"auto"`` selects it for many atoms.
    charge_tolerance : float
        Relative tolerance of the iterative solver: residual divided by that of uniform charges.
    max_iterations : int
        Largest number of iterations; if they do not suffice, an error is raised.
    electric_field : sequence of 3 float, optional, V/Å
        Uniform external field, for isolated structures, or along the normal of slabs.
        ``atoms.info["electric_field"]`` takes precedence.
    charge_groups : "molecules", sequence of sequences of int, or sequence of int, optional
        Groups of atoms whose total charges are constrained. ``"molecules"`` are groups of bonded
        atoms, closer than 1.25 times the sum of their covalent radii; they are determined for the
        first structure and kept for structures with the same elements. Lists contain the indices of
        atoms (atoms in no list form one more group). Otherwise there is a label for each atom.
        ``atoms.arrays["charge_group"]`` takes precedence.
    group_charges : sequence of float, or mapping of str to float, optional, e
        Charges of the groups in their order (molecules by their first atoms), or by formula, such
        as ``{"Na": 1, "Cl": -1}`` with 0 for others; by default 0. They must sum to the total
        charge. ``atoms.info["group_charges"]`` takes precedence.
    electrodes : sequence of 2 sequences of int, optional
        Indices of the atoms of two electrodes at constant potential, between which charge flows.
        Groups with such atoms are merged into one group with the sum of their charges.
        ``atoms.arrays["electrode"]`` (1 and 2 on their atoms, 0 elsewhere) takes precedence.
    electrode_voltage : float, V
        Potential of the first electrode minus that of the second.
        ``atoms.info["electrode_voltage"]`` takes precedence.
    **kwargs
        ``atoms``, ``label`` and ``directory`` of ASE's calculators.

    Attributes
    ----------
    results : dict
        After a calculation: ``energy`` and ``free_energy`` (eV, equal); ``forces``
        (eV/Å, shape (N, 3)); ``stress`` (eV/Å³, Voigt order xx yy zz yz xz xy, ASE's sign,
        periodic structures only); ``charges`` (e, shape (N,)); ``dipole`` (e Å, shape (3,));
        ``electronegativities`` (eV/e, shape (N,)); ``energy_parts`` (eV, a dict whose values add
        up to the energy); ``iterations`` (of the two charge solves, 0 for the dense solver). On
        request, ``born_effective_charges`` (e, shape (N, 3, 3), see
        :class:`.model.response.Response`) and, without a cell, ``polarizability`` (e Å²/V, shape
        (3, 3)).

    Notes
    -----
    ``atoms.pbc`` of (True, True, False) is a slab, whose normal is the third cell vector. The
    in-plane components of its stress times the height of the cell are the surface stress. The
    components along the normal are the virial of the forces, which vanishes with the forces.

    The dipole is Σ qᵢ rᵢ over the given positions (the unwrapped positions of a slab). In a
    periodic cell it depends on the choice of images, and for a charged structure on the origin.
    Only its changes along a continuous trajectory are meaningful then.

    Raises
    ------
    InputError
        If there is an unknown option, a structure is neither periodic, nor a slab, nor isolated, or
        the total charge is not a number.
    UnknownElementError
        If a structure contains an element that is unknown to the model.
    """

    implemented_properties = [  # noqa: RUF012  (ASE's convention)
        "energy",
        "free_energy",
        "forces",
        "stress",
        "charges",
        "dipole",
        "born_effective_charges",
    ]

    def __init__(
        self,
        model: NequIPLRPotential | str | PathLike[str],
        device: torch.device | str | None = None,
        precision: str | None = None,
        *,
        solver: str = "auto",
        charge_tolerance: float = DEFAULT_CHARGE_TOLERANCE,
        max_iterations: int = DEFAULT_MAX_ITERATIONS,
        electric_field: Sequence[float] | np.ndarray | None = None,
        charge_groups: Groups | str = None,
        group_charges: Sequence[float] | Mapping[str, float] | None = None,
        electrodes: Sequence[Sequence[int]] | None = None,
        electrode_voltage: float = 0.0,
        **kwargs: Any,
    ) -> None:
        check_names(kwargs, [*_ASE_OPTIONS, *_OWN_OPTIONS], _ELSEWHERE)
        super().__init__(**kwargs)
        where = None if device is None else str(device)
        options = EvaluationOptions(solver, charge_tolerance, max_iterations, where, precision)
        if isinstance(model, str | PathLike):
            self.model = load_model(model)
        elif isinstance(model, NequIPLRPotential):
            self.model = copy.deepcopy(model)
        else:
            expected = "a NequIPLRPotential, a path or the name of a shipped or downloaded model"
            raise InputError(describe("model", type(model).__name__, expected))
        self.evaluator = Evaluator(self.model, options.dtype, options.device, options)
        self.electric_field = None
        if electric_field is not None:
            self.electric_field = check_field(self.model.config, False, electric_field)
        self.charge_groups, self.group_charges = charge_groups, group_charges
        self.electrodes, self.electrode_voltage = plain_electrodes(electrodes), electrode_voltage
        self._molecules: tuple[bytes, np.ndarray] | None = None
        self._computed_charge: float | None = None
        self._computed = ChargeConditions()
        self._spin_seen = self._free_seen = False
        self._charges_seen: set[float | None] = set()

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Refuse changes of options, which ASE's calculators would store without any effect.

        Raises
        ------
        InputError
            If there is an argument.
        """
        for name in kwargs:
            expected = f"NequIPLRCalculator(model, {name}=…), which makes another calculator"
            if name in _ELSEWHERE:
                expected = f"none ({_ELSEWHERE[name]})"
            raise InputError(describe("set", f"the option {name}", expected))
        return {}

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Changes since the last calculation; a new charge or field counts as new charges."""
        try:
            changes = super().check_state(atoms, tol=tol)
            same = total_charge_of(atoms) == self._computed_charge
            same = same and self._conditions_of(atoms).same(self._computed)
        except InputError:  # an invalid structure has no results
            self.reset()
            raise
        if not same and "initial_charges" not in changes:
            changes.append("initial_charges")
        return changes

    def _conditions_of(self, atoms: Atoms) -> ChargeConditions:
        """Conditions on the charges of a structure: its own, else those of the calculator."""
        told = ChargeConditions.told_by(atoms)
        field = atoms.info.get(FIELD, self.electric_field)
        charges: Any = self.group_charges if told.group_charges is None else told.group_charges
        groups: Any = self.charge_groups if told.charge_groups is None else told.charge_groups
        electrodes = told.electrodes or self.electrodes
        sides = read_electrodes(len(atoms), electrodes)
        if isinstance(groups, str) and groups == MOLECULES:
            key = atoms.numbers.tobytes() + (b"" if sides is None else sides.tobytes())
            if self._molecules is None or self._molecules[0] != key:
                cell = atoms.cell.array if atoms.pbc.any() else None
                found = nearby_molecules(atoms.numbers, atoms.positions, cell, sides)
                self._molecules = key, found
            groups = self._molecules[1]
        if isinstance(charges, Mapping):
            charges = by_formula(atoms.get_chemical_symbols(), groups, charges, sides)
        held = read_groups(len(atoms), groups, charges, told_charge(atoms))
        groups, charges = held or (None, None)
        voltage = atoms.info.get(VOLTAGE, self.electrode_voltage)
        field = np.array(field) if np.any(field) else None  # info may change in place
        return ChargeConditions(field, groups, charges, electrodes, voltage)

    def _charge_of(self, atoms: Atoms) -> float:
        """Total charge, e; warns once about a doubtful value."""
        told, metadata = told_charge(atoms), self.model.metadata
        if told is None and self._computed.group_charges is not None:
            told = float(np.sum(self._computed.group_charges))
        if told not in self._charges_seen:
            self._charges_seen.add(told)
            if told is None:
                where = "atoms.info does not specify it (set atoms.info['total_charge'])"
                assume_neutral(metadata, where)
            check_trained(metadata, told or 0.0)
        return told or 0.0

    def _check_spin(self, atoms: Atoms) -> None:
        """Warn once that a spin, or multiplicity, is ignored."""
        spin = atoms.info.get("spin")
        if self._spin_seen or spin is None or np.all(np.isin(spin, (0, 1))):
            return
        self._spin_seen = True
        notify(f"spin: atoms.info['spin'] = {spin} is ignored: the model does not depend on spin")

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute the requested properties, and others that cost nothing in addition.

        Parameters
        ----------
        atoms : ase.Atoms, optional
            The structure; by default the attached one.
        properties : sequence of str
            Names in ``implemented_properties``.
        system_changes : sequence of str
            Ignored: the iterative solver itself checks which data it can reuse.
        """
        super().calculate(atoms, properties, system_changes)
        if self.atoms is None:
            raise InputError(describe("atoms", None, "a structure"))
        periodic = self.model.config.sees_images(bool(self.atoms.pbc.any()))
        if "stress" in properties and not periodic:
            raise PropertyNotImplementedError("stress: the structure is not periodic")
        try:
            self._computed = self._conditions_of(self.atoms)
            self._computed_charge = self._charge_of(self.atoms)
            self._check_spin(self.atoms)
            if not self.atoms.pbc.any() and not self._free_seen:
                self._free_seen = True
                say_not_periodic(self.model.metadata, "the structure is")
            charge = self._computed_charge
            self.results = self._evaluate(self.atoms, charge, periodic, properties)
        except BaseException:
            self.reset()
            raise

    def _evaluate(
        self, atoms: Atoms, total_charge: float, periodic: bool, properties: Sequence[str]
    ) -> dict[str, Any]:
        """Results for a structure."""
        graph = self.model.build_graph(
            atoms.numbers,
            atoms.positions,
            cell=atoms.cell.array,
            pbc=atoms.pbc,
            total_charge=total_charge,
            lattice_sum=not self.evaluator.iterative(len(atoms), periodic),
            **vars(self._computed),
        )
        with_forces = not {"forces", "stress"}.isdisjoint(properties)
        # The stress costs little in addition to the forces, and cell relaxations need both.
        evaluation = self.evaluator(
            graph, compute_forces=with_forces, compute_stress=with_forces and periodic
        )
        results = {
            "energy": evaluation.energy,
            "free_energy": evaluation.energy,
            "charges": evaluation.charges,
            "dipole": evaluation.dipole,
            "electronegativities": evaluation.electronegativity,
            "energy_parts": dict(evaluation.parts),
            "iterations": evaluation.iterations,
        }
        if evaluation.forces is not None:
            results["forces"] = evaluation.forces
        if "born_effective_charges" in properties:
            response = self.evaluator.response(graph)
            results["born_effective_charges"] = response.born_charges
            if response.polarizability is not None:
                results["polarizability"] = response.polarizability
        if evaluation.stress is not None:
            results["stress"] = full_3x3_to_voigt_6_stress(evaluation.stress)
        return results
