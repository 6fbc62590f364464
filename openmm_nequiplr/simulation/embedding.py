"""Mixed systems (ML/MM): a NequIP-LR model for some atoms, a force field for the rest.

Mechanical embedding replaces the force-field energy of the model's atoms among themselves (the ML
atoms) by the energy of the model:

    E = E_MM(all) − E_MM(ML atoms alone) + E_model(ML atoms alone)

In a periodic box "alone" means the ML atoms with all of their images. Each Coulomb interaction
between two ML atoms, in one image or in different ones, is counted once, by the model and with its
equilibrated charges. ML and MM atoms interact through the charges and Lennard-Jones parameters of
the force field at all distances; the MM atoms do not polarise the model. Each of the three terms
has its own neutralising background. The backgrounds add up to that of the whole cell if the
force-field charges of the ML atoms sum to the model's total charge.

With particle mesh Ewald, exceptions cannot remove E_MM(ML atoms alone), because they only affect
the nearest image. openmm-ml keeps these pairs and subtracts the PME energy of the ML charges,
computed with the mesh of the force field, so that mesh errors cancel as well. Two terms remain in
the force field: the contributions of LJPME and of the dispersion correction from images of ML
atoms, and the Coulomb interactions with images for models of the published periodic code, whose
charges do not interact.

Electrostatic embedding also removes the charges of the ML atoms from the force field, which keeps
only its Lennard-Jones interactions between ML and MM atoms. The model's charges equilibrate in the
potential of the MM charges and act back on them (:class:`.external.OutsideCharges`):

    E = E_MM(all, ML atoms without charges and interactions of their own) + E_model(ML, MM charges)
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import openmm
from openmm import app, unit
from openmmml.embeddings.mechanicalembedding import MechanicalEmbedding
from openmmml.embeddings.utilities import InterpolationHelper

from ..errors import BoxError, InputError, describe
from .computation import FORCE_NAME
from .force_field import (
    charges_of,
    charges_outside,
    check_constant,
    lattice_sums,
    nonbonded,
    without_charges,
)
from .topology_checks import check_atoms

if TYPE_CHECKING:
    from .mlpotential import NequIPLRPotentialImpl

MECHANICAL, ELECTROSTATIC = EMBEDDINGS = ("mechanical", "electrostatic")
#: Arguments of ``createMixedSystem`` that control the embedding and not the model.
EMBEDDING_OPTIONS = ("linkAtomDistances",)

# The energy of these forces among the ML atoms cannot be removed.
_INSEPARABLE = {
    "AmoebaMultipoleForce",
    "AmoebaVdwForce",
    "AmoebaWcaDispersionForce",
    "AmoebaGeneralizedKirkwoodForce",
    "ConstantPotentialForce",
    "DrudeForce",
    "GayBerneForce",
    "HippoNonbondedForce",
}


def create_mixed_system(
    potential: NequIPLRPotentialImpl,
    topology: app.Topology,
    system: openmm.System,
    atoms: Sequence[int],
    force_group: int,
    interpolate: bool,
    return_info: bool,
    args: dict[str, Any],
    embedding: str = MECHANICAL,
) -> openmm.System | dict[str, Any]:
    """Replace the force field by a model for some atoms.

    openmm-ml builds the System. This function adds support for box vectors that only the System
    has, for force fields without charges and lattice sum, and for link atoms together with a
    lattice sum. It raises errors where the result would be wrong.

    Parameters
    ----------
    potential : NequIPLRPotentialImpl
    topology : openmm.app.Topology
    system : openmm.System
        The force field for all atoms; it is not modified.
    atoms : sequence of int
        Indices of the ML atoms. Bonds to MM atoms are capped with hydrogen link atoms.
    force_group : int
        Of the model's force.
    interpolate : bool
        Add a global parameter ``lambda_interpolate``: 0 is the force field, 1 the mixed system.
    return_info : bool
        Return the System, the topology and the mapping of indices instead of only the System.
    args : dict
        Options of the model and of the embedding.
    embedding : {"mechanical", "electrostatic"}

    Raises
    ------
    InputError
        If a required total charge is missing because the force-field charges of the ML atoms do not
        sum to zero, or parts of the force field cannot be separated.
    BoxError
        If topology and System disagree on whether there is a box.
    """
    chosen = list(check_atoms(atoms, topology.getNumAtoms()))
    if system.getNumParticles() != topology.getNumAtoms():
        expected = f"a System of the topology's {topology.getNumAtoms()} atoms"
        raise InputError(describe("system", f"{system.getNumParticles()} particles", expected))
    _check_forces(system, set(chosen))
    _check_sites(topology, system, chosen)
    args = _with_total_charge(system, chosen, args)
    topology, sites = _without_gaps(topology)
    create = _mechanical if embedding == MECHANICAL else _electrostatic
    mixed = create(
        potential, _checked_box(topology, system), system, chosen, force_group, interpolate, args
    )
    for atom in mixed["topology"].atoms():
        if atom.index in sites:
            atom.element = None
    return mixed if return_info else mixed["system"]


def _mechanical(
    potential: NequIPLRPotentialImpl,
    topology: app.Topology,
    system: openmm.System,
    atoms: list[int],
    force_group: int,
    interpolate: bool,
    args: dict[str, Any],
) -> dict[str, Any]:
    source = potential if lattice_sums(system) else _without_images(potential, system)
    mixed = MechanicalEmbedding().createMixedSystem(
        source, topology, system, atoms, force_group, interpolate, returnInfo=True, **args
    )
    _complete_subtraction(mixed["system"])
    return mixed


def _electrostatic(
    potential: NequIPLRPotentialImpl,
    topology: app.Topology,
    system: openmm.System,
    atoms: list[int],
    force_group: int,
    interpolate: bool,
    args: dict[str, Any],
) -> dict[str, Any]:
    """Electrostatic embedding: mechanical embedding without force-field charges of ML atoms.

    The remaining charges are external charges of the model.
    """
    check_constant(system)
    source = copy.copy(potential)
    source.sums_images = False  # there are no charges to subtract
    source.outside_charges = charges_outside(topology, system, atoms)
    mixed = MechanicalEmbedding().createMixedSystem(
        source,
        topology,
        without_charges(system, atoms),
        atoms,
        force_group,
        False,
        returnInfo=True,
        **args,
    )
    if interpolate:
        _interpolate(mixed["system"], topology, system, atoms)
    return mixed


def _interpolate(
    mixed: openmm.System, topology: app.Topology, system: openmm.System, atoms: list[int]
) -> None:
    """Add ``lambda_interpolate`` between a force field and a mixed system with other charges."""
    force_field, helper = copy.deepcopy(system), InterpolationHelper()
    while force_field.getNumParticles() < mixed.getNumParticles():  # link atoms
        force_field.addParticle(0.0)
        for force in nonbonded(force_field):
            force.addParticle(0.0, 1.0, 0.0)
    for index in reversed(range(mixed.getNumForces())):
        if mixed.getForce(index).getName() == FORCE_NAME:
            helper.addMLTerm(copy.deepcopy(mixed.getForce(index)))
            mixed.removeForce(index)
    helper.addMMBondedTerms(force_field, topology, atoms)
    helper.setupNonbonded(mixed, force_field)
    helper.setupInterpolation(mixed)


def with_box(topology: app.Topology, system: openmm.System) -> app.Topology:
    """The topology, with the box of a periodic System if it has no box itself."""
    if topology.getPeriodicBoxVectors() is not None or not system.usesPeriodicBoundaryConditions():
        return topology
    periodic = copy.deepcopy(topology)
    vectors = [v.value_in_unit(unit.nanometer) for v in system.getDefaultPeriodicBoxVectors()]
    periodic.setPeriodicBoxVectors(vectors * unit.nanometer)
    return periodic


def _checked_box(topology: app.Topology, system: openmm.System) -> app.Topology:
    nonbonded = (openmm.NonbondedForce, openmm.CustomNonbondedForce)
    if (
        topology.getPeriodicBoxVectors() is not None
        and not system.usesPeriodicBoundaryConditions()
        and any(isinstance(force, nonbonded) for force in system.getForces())
    ):
        raise BoxError(
            "topology: expected no box vectors, because the forces of the system are not periodic, "
            "got some; make the force field periodic, or call topology.setPeriodicBoxVectors(None)"
        )
    return with_box(topology, system)


def _without_images(
    potential: NequIPLRPotentialImpl, system: openmm.System
) -> NequIPLRPotentialImpl:
    """The potential for a force field without a lattice sum to subtract.

    openmm-ml rejects a model with periodic electrostatics for a force field without a lattice sum.
    Without force-field charges or without a box the two are consistent.
    """
    charged = any(charges_of(force).any() for force in nonbonded(system))
    if system.usesPeriodicBoundaryConditions() and charged and potential.sums_images:
        expected = (
            "PME (or Ewald) for the charges of the force field, because the model sums its own"
        )
        raise InputError(describe("system", "charges with a cutoff", expected))
    local = copy.copy(potential)
    local.sums_images = False
    return local


def _check_forces(system: openmm.System, chosen: set[int]) -> None:
    """Reject forces whose energy among the ML atoms cannot be removed correctly."""
    for force in system.getForces():
        kind = type(force).__name__
        if kind in _INSEPARABLE:
            expected = "forces whose part among the chosen atoms can be taken out"
            raise InputError(describe("system", kind, expected))
    for force in nonbonded(system):
        for index in range(force.getNumParticleParameterOffsets()):
            if force.getParticleParameterOffset(index)[1] in chosen:
                raise InputError(_offset_message())
        for index in range(force.getNumExceptionParameterOffsets()):
            exception = force.getExceptionParameterOffset(index)[1]
            if set(force.getExceptionParameters(exception)[:2]) <= chosen:
                raise InputError(_offset_message())
    if len(lattice_sums(system)) > 1:
        expected = "one NonbondedForce with a lattice sum"
        raise InputError(describe("system", f"{len(lattice_sums(system))} of them", expected))


def _offset_message() -> str:
    expected = "fixed parameters for the chosen atoms"
    return describe("system", "parameter offsets of a NonbondedForce", expected)


def _with_total_charge(
    system: openmm.System, chosen: Sequence[int], args: dict[str, Any]
) -> dict[str, Any]:
    """Arguments with a total charge of 0 if the force-field charges of the ML atoms sum to it.

    Otherwise the total charge must be given.
    """
    if any(name in args for name in ("totalCharge", "charge", "total_charge")):
        return args
    charges = [charges_of(force)[list(chosen)] for force in nonbonded(system)]
    total = sum(float(each.sum()) for each in charges)
    if round(total) != 0:
        raise InputError(
            f"totalCharge: expected the charge of the chosen atoms, because their charges in the "
            f"force field sum to {total:+.3f} e, got none"
        )
    return {**args, "totalCharge": 0} if any(each.any() for each in charges) else args


def _check_sites(topology: app.Topology, system: openmm.System, chosen: Sequence[int]) -> None:
    """Check that no ML atom is a virtual site, or the parent of an interacting one."""
    among, known = set(chosen), [atom.element is not None for atom in topology.atoms()]
    for index in chosen:
        if not known[index] or system.isVirtualSite(index):
            expected = "atoms with an element; a virtual site is none"
            raise InputError(describe("atoms", f"{index}, a virtual site", expected))
    for index in range(system.getNumParticles()):
        if index in among or not system.isVirtualSite(index):
            continue
        site = system.getVirtualSite(index)
        if not {site.getParticle(k) for k in range(site.getNumParticles())} <= among:
            continue
        acts = any(
            force.getParticleParameters(index)[0]._value
            or force.getParticleParameters(index)[2]._value
            for force in nonbonded(system)
        )
        if acts:
            got = f"those that carry the virtual site {index}"
            expected = (
                "atoms without virtual sites (choose a 3-site model for what the model acts on)"
            )
            raise InputError(describe("atoms", got, expected))


def _without_gaps(topology: app.Topology) -> tuple[app.Topology, set[int]]:
    """The topology with an element for every virtual site, and the indices of these sites.

    openmm-ml reads the atomic numbers of all atoms, although it needs only those at link bonds.
    """
    sites = {atom.index for atom in topology.atoms() if atom.element is None}
    if sites:
        topology = copy.deepcopy(topology)
        for atom in topology.atoms():
            if atom.index in sites:
                atom.element = app.element.hydrogen
    return topology, sites


def _complete_subtraction(system: openmm.System) -> None:
    """Add the link atoms, which openmm-ml creates later, to the subtracted lattice sum."""
    for force in system.getForces():
        if not isinstance(force, openmm.CustomCVForce):
            continue
        for index in range(force.getNumCollectiveVariables()):
            variable = force.getCollectiveVariable(index)
            if isinstance(variable, openmm.NonbondedForce):
                while variable.getNumParticles() < system.getNumParticles():
                    variable.addParticle(0.0, 1.0, 0.0)
