"""Construction of an OpenMM System or force from a topology and a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm
from openmm import app, unit

from ..checks import check_names, check_positive
from ..errors import InputError, describe, notify
from ..model import NequIPLRPotential
from ..units import ANGSTROM_PER_NM
from .backends import make_force, resolve_backend
from .computation_settings import ComputationSettings
from .mdtraj_topology import openmm_topology
from .multistep import Inner, add_inner_potential
from .quantities import without_unit
from .settings import ForceOptions, computation_settings
from .topology import WHENCE_BONDS, SimulationStructure, element_masses
from .topology_checks import topology_box

if TYPE_CHECKING:
    import mdtraj

_NO_LENGTHS = (
    "there are no constraints, because a model knows no equilibrium lengths to keep; for longer "
    "time steps use hydrogenMass, or System.addConstraint with lengths of your own"
)
_NO_CONSTRAINTS = ("constraints", "rigidWater")
#: Arguments of OpenMM's ``ForceField.createSystem``, and their replacements.
_NOT_HERE = {
    **dict.fromkeys(_NO_CONSTRAINTS, _NO_LENGTHS),
    "nonbondedMethod": "box vectors of the topology make the System periodic (slab=True: a slab)",
    "nonbondedCutoff": "the Coulomb sums are complete; ewald_tolerance sets their accuracy",
    "ewaldErrorTolerance": "here it is ewald_tolerance",
    "removeCMMotion": "here it is remove_cm_motion",
    "totalCharge": "here it is total_charge",
    "outside_charges": "create_force takes them, with the indices of the model's atoms",
}


def create_system(
    topology: app.Topology | mdtraj.Topology | mdtraj.Trajectory,
    model: NequIPLRPotential | str | Path,
    *,
    total_charge: Any = None,
    masses: Any = None,
    hydrogenMass: Any = None,
    remove_cm_motion: bool = True,
    embed_model: bool = True,
    parameters: Sequence[str] = (),
    inner: Inner | None = None,
    replicas: int = 1,
    **options: Any,
) -> openmm.System:
    """Create a System in which a NequIP-LR model acts on all atoms of a topology.

    The System is periodic if the topology has box vectors. It works with any integrator, minimiser
    and Monte Carlo barostat on any platform, and keeps its own copy of the model. It can be
    serialised, and then contains the model.

    OpenMM's ``XmlSerializer`` stores the force as a pickle, and executes code from the pickle when
    it reads the XML; use it only for trusted files.
    :func:`~openmm_nequiplr.simulation.save_system` and
    :func:`~openmm_nequiplr.simulation.load_system` store plain settings, and
    :func:`~openmm_nequiplr.simulation.deserialize_system` reads the XML without unpickling.

    Parameters
    ----------
    topology : openmm.app.Topology, mdtraj.Topology or mdtraj.Trajectory
        Its elements determine atom types and masses. An mdtraj topology has no box; for an mdtraj
        trajectory the unit cell of the first frame is used.
    model : NequIPLRPotential, path or str
        A model, a model file, or the name of a shipped or downloaded model.
    total_charge : float or Quantity, e
        Charge of the whole system. ``charge``, the name in openmm-ml and ASE, is accepted as well.
        If it is not given, 0 is assumed with a warning.
    masses : sequence of float (Da) or Quantity, or Quantity, length N, optional
        By default those of the elements. Atoms of mass 0 are fixed; ``SimulationStructure.masses``
        contains those of a structure file.
    hydrogenMass : float or Quantity, Da, optional
        Mass of every hydrogen atom that is bonded to another element, as in OpenMM's
        ``ForceField.createSystem``: the difference is subtracted from the other atom. The topology
        must have bonds.
    remove_cm_motion : bool
        Whether to add a CMMotionRemover. It is never added if atoms are fixed.
    embed_model : bool
        Whether a serialised System contains the model. Otherwise it contains the path of the model
        file (or the name of a shipped or downloaded model) and its digest. The file is read at the
        first evaluation, which raises an error if the file is missing or has changed.
    parameters : sequence of str
        Optional Context parameters, which can change during a run: ``"total_charge"`` (e),
        ``"coulomb_scale"`` (scaling factor of the electrostatic energy at unchanged charges) and
        ``"model_scale"`` (scaling factor of the energy of the model). The last two are initially 1.
        They need backend ``"python"``.
    inner : NequIPLRPotential, path or str, openmm.Force, or sequence of openmm.Force, optional
        A cheap model without charges, or forces of OpenMM, for multiple time steps, see
        :func:`~openmm_nequiplr.simulation.add_inner_potential`. It is in force group 1, everything
        else in group 0. The sum of both groups is the model.
    replicas : int
        Number of consecutive copies of one system in the topology. The copies do not interact and
        each has its own charges; ``total_charge`` is one value for all copies or a list. A barostat
        couples the copies through their common box. No CMMotionRemover is added, as it would couple
        them too.
    **options
        Fields of :class:`.settings.ForceOptions`: ``long_range``, ``backend``,
        ``ewald_tolerance``, ``coulomb_platform``, ``electric_field``, ``charge_groups``,
        ``group_charges``, ``electrodes``, ``electrode_voltage``, ``slab``, ``device``,
        ``precision``, ``solver``, ``charge_tolerance``, ``max_iterations``. There is no option
        ``constraints``, because a model defines no equilibrium bond lengths.

    Returns
    -------
    openmm.System

    Raises
    ------
    UnknownElementError
        If the model does not support an element.
    BoxError
        If the model needs a box that the topology lacks, or the box is degenerate or too small.
    BackendError
        If backend, device or platform are not available.
    InputError
        If another argument is invalid.
    """
    topology = openmm_topology(topology)
    force, settings = _force(
        topology,
        model,
        options,
        total_charge=total_charge,
        embed_model=embed_model,
        parameters=parameters,
        replicas=replicas,
    )
    if settings.whole is not None:  # no force of this System is periodic
        force.setUsesPeriodicBoundaryConditions(False)
    system = openmm.System()
    chosen = check_masses(topology, masses)
    if hydrogenMass is not None:
        chosen = heavier_hydrogens(topology, chosen, hydrogenMass)
    for mass in chosen:
        system.addParticle(mass)
    box = topology_box(topology)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*(box.vectors / ANGSTROM_PER_NM))
    system.addForce(force)
    if inner is not None:
        names = ("device", "precision", "slab")
        own = {name: options[name] for name in names if name in options}
        own |= {"embed_model": embed_model, "replicas": replicas}
        add_inner_potential(system, topology, inner, **own)
    if remove_cm_motion and chosen.all() and replicas == 1:
        system.addForce(openmm.CMMotionRemover())
    return system


def check_masses(topology: app.Topology, masses: Any) -> np.ndarray:
    """Masses of the atoms of a topology, shape (N,), Da; by default those of the elements.

    Raises
    ------
    InputError
        If there is not one finite mass of at least 0 for each atom.
    """
    if masses is None:
        return element_masses(topology)
    count = topology.getNumAtoms()
    expected = f"{count} finite masses of at least 0 Da"
    plain = without_unit("masses", masses, unit.dalton, expected)
    try:
        each = [without_unit("masses", mass, unit.dalton, expected) for mass in plain]
        values = np.array(each, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.full(1, np.nan)
    if values.shape != (count,) or not np.isfinite(values).all() or (values < 0.0).any():
        raise InputError(describe("masses", masses, expected))
    return values


def heavier_structure(structure: SimulationStructure, hydrogen_mass: float) -> SimulationStructure:
    """A structure with :func:`heavier_hydrogens`; missing bonds are found by distance.

    Raises
    ------
    InputError
        If no mass can be repartitioned, or too little mass remains on an atom.
    """
    bonded = structure.with_bonds().topology
    masses = heavier_hydrogens(bonded, structure.masses, hydrogen_mass)
    if not (masses == hydrogen_mass).any():
        expected = "None for a structure without hydrogen that is bonded to another element"
        raise InputError(describe("hydrogen_mass", hydrogen_mass, expected))
    return dataclasses.replace(structure, masses=masses)


def heavier_hydrogens(topology: app.Topology, masses: np.ndarray, hydrogen_mass: Any) -> np.ndarray:
    """Masses, shape (N,), Da, after hydrogen mass repartitioning.

    The method is that of Feenstra, Hess and Berendsen (J. Comput. Chem. 20, 786 (1999)). H2, fixed
    atoms (mass 0) and atoms bonded to fixed atoms keep their masses. If a hydrogen atom has several
    bonds, the first one is used.

    Raises
    ------
    InputError
        If there are no bonds, or too little mass remains on an atom.
    """
    if unit.is_quantity(hydrogen_mass) and hydrogen_mass.unit.is_compatible(unit.dalton):
        hydrogen_mass = hydrogen_mass.value_in_unit(unit.dalton)
    check_positive("hydrogenMass", hydrogen_mass, " in Da")
    if topology.getNumBonds() == 0:
        expected = f"a topology with bonds ({WHENCE_BONDS})"
        raise InputError(describe("hydrogenMass", "a topology without bonds", expected))
    moved, hydrogen = masses.copy(), app.element.hydrogen
    bonded = {atom.index for pair in topology.bonds() for atom in pair}
    free = [atom.index for atom in topology.atoms() if atom.element is hydrogen]
    free = [index for index in free if index not in bonded]
    if free:
        notify(
            f"hydrogenMass: {len(free)} hydrogen atoms (first index {free[0]}) keep their mass, "
            "because the topology has no bonds of them; does it lack some?"
        )
    for pair in topology.bonds():
        light, heavy = sorted(pair, key=lambda atom: atom.element is not hydrogen)
        if light.element is not hydrogen or heavy.element in (hydrogen, None):
            continue
        if masses[light.index] == 0.0 or masses[heavy.index] == 0.0:
            continue
        moved[heavy.index] -= hydrogen_mass - moved[light.index]
        moved[light.index] = hydrogen_mass
    short = np.flatnonzero((moved <= 0.0) & (masses > 0.0))
    if short.size:
        got = f"{hydrogen_mass:g} Da, which leaves {moved[short[0]]:.2f} Da for atom {short[0]}"
        raise InputError(describe("hydrogenMass", got, "so little that every atom keeps a mass"))
    return moved


def create_force(
    topology: app.Topology | mdtraj.Topology | mdtraj.Trajectory,
    model: NequIPLRPotential | str | Path,
    *,
    atoms: Sequence[int] | None = None,
    total_charge: Any = None,
    embed_model: bool = True,
    outside_charges: Mapping[int, Any] | None = None,
    outside_width: Any = 0.0,
    parameters: Sequence[str] = (),
    replicas: int = 1,
    **options: Any,
) -> openmm.Force:
    """Create the force of :func:`create_system`, to be added to your own System.

    Parameters
    ----------
    atoms : sequence of int, optional
        Unique indices of the atoms that the model acts on; by default all. They interact only with
        one another and, with box vectors, with their periodic images. Elements of other atoms do
        not matter.
    total_charge : float or Quantity, e
        Charge of these atoms; also ``charge``.
    outside_charges : dict of int to float or Quantity, e, optional
        Charges of other particles of the System, by index (external charges). The model's charges
        interact with them (electrostatic embedding); other forces of the System must describe the
        interactions among them. In a box all images are summed. This option needs ``atoms`` and
        backend ``"python"``.
    outside_width : float (Å) or Quantity
        Width σ of a Gaussian distribution of each external charge, to prevent overpolarisation.
    topology, model, embed_model, parameters, replicas, **options
        As for :func:`create_system`.

    Returns
    -------
    openmm.Force

    Raises
    ------
    InputError, UnknownElementError, BoxError, BackendError
        As for :func:`create_system`; a BackendError also if OpenMM (before 8.6) does not support
        forces on a subset of the particles, an InputError also if ``atoms`` is not a list of
        indices.
    """
    return _force(
        topology,
        model,
        options,
        atoms=atoms,
        total_charge=total_charge,
        embed_model=embed_model,
        outside_charges=outside_charges,
        outside_width=outside_width,
        parameters=parameters,
        replicas=replicas,
    )[0]


def _force(
    topology: Any, model: Any, options: dict[str, Any], **others: Any
) -> tuple[openmm.Force, ComputationSettings]:
    """The force, and its settings."""
    for name in _NO_CONSTRAINTS:
        if not options.get(name, True):  # None and False request the default
            options.pop(name)
    if "charge" in options:
        if others.get("total_charge") is not None:
            raise InputError(describe("charge", "it and total_charge", "one of the two names"))
        others["total_charge"] = options.pop("charge")
    known = [each.name for each in dataclasses.fields(ForceOptions)]
    known += ["total_charge", "charge", "hydrogenMass", "masses", "embed_model", "parameters"]
    known.append("replicas")
    check_names(options, known, _NOT_HERE)
    chosen = ForceOptions(**options)
    backend = resolve_backend(chosen.backend, chosen.device)
    settings = computation_settings(topology, model, chosen, **others)
    return make_force(settings, backend), settings
