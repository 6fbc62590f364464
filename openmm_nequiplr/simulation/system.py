"""From a topology and a model to an OpenMM System."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm
from openmm import app, unit

from ..checks import check_names, check_positive
from ..errors import InputError, describe
from ..fragments import nearby_bonds
from ..model import NequIPLRPotential
from ..units import ANGSTROM_PER_NM
from .backends import make_force, resolve_backend
from .computation_settings import ComputationSettings
from .mdtraj_topology import openmm_topology
from .multistep import Inner, add_inner_potential
from .settings import ForceOptions, computation_settings
from .topology import SimulationStructure, element_masses
from .topology_checks import topology_box

if TYPE_CHECKING:
    import mdtraj

_NO_LENGTHS = (
    "there are no constraints, because a model knows no equilibrium lengths to keep; for longer "
    "time steps use hydrogenMass, or System.addConstraint with lengths of your own"
)
_NO_CONSTRAINTS = ("constraints", "rigidWater")
#: Arguments of OpenMM's ``ForceField.createSystem``, and what takes their place.
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
    """Make a System in which a NequIP-LR model acts on all atoms of a topology.

    A topology with periodic box vectors is simulated periodically, one without is not. The System
    works with any integrator, minimiser and Monte Carlo barostat on any platform, can be
    serialised (it then contains the model), and keeps its own copy of the model.

    OpenMM's ``XmlSerializer`` stores the force as a pickle. When it reads an XML, it executes what
    the author's pickle says: open only files that you trust with it.
    :func:`~openmm_nequiplr.simulation.save_system` and
    :func:`~openmm_nequiplr.simulation.load_system` store plain settings, and
    :func:`~openmm_nequiplr.simulation.deserialize_system` reads the XML without unpickling.

    Parameters
    ----------
    topology : openmm.app.Topology, mdtraj.Topology or mdtraj.Trajectory
        Its elements choose atom types and masses. A topology of mdtraj has no
        box; of a trajectory of mdtraj the unit cell of the first frame is taken.
    model : NequIPLRPotential, path or str
        A model, a model file, or the name of a shipped or downloaded model.
    total_charge : float or Quantity, e
        Charge of the whole system; ``charge``, as openmm-ml and ASE call it, is the same argument.
        If it is not given, 0 is assumed with a warning.
    masses : sequence of float (Da) or Quantity, length N, optional
        By default those of the elements. Atoms of mass 0 are held fixed;
        ``SimulationStructure.masses`` has those of a structure file.
    hydrogenMass : float or Quantity, Da, optional
        Mass of every hydrogen atom that is bonded to another element, as in OpenMM's
        ``ForceField.createSystem``: the difference is taken from the other atom. It needs the bonds
        of the topology.
    remove_cm_motion : bool
        Whether to add a CMMotionRemover. Where atoms are held fixed there is none.
    embed_model : bool
        Whether a serialised System contains the model. Otherwise it holds the path of the model
        file (or the name of a shipped or downloaded model) and its digest, and reads it when it is
        first evaluated; a file that is missing or has changed is then an error.
    parameters : sequence of str
        What a Context can change during a run, through parameters of these names:
        ``"total_charge"`` (e), ``"coulomb_scale"`` (factor of the electrostatic energy, at charges
        that stay what they are) and ``"model_scale"`` (factor of the energy of the model). The last
        two are 1 at the start. They need backend ``"python"``.
    inner : NequIPLRPotential, path or str, openmm.Force, or sequence of openmm.Force, optional
        A cheap model without charges, or forces of OpenMM, for multiple time steps, see
        :func:`~openmm_nequiplr.simulation.add_inner_potential`: it is in force group 1, all else in
        group 0, and the sum of both is the model, as without it.
    replicas : int
        How many copies of one system the topology holds, one after another: they do not interact,
        each has its own charges, and ``total_charge`` is that of each or a list of theirs. A
        barostat couples them through their common box. There is no CMMotionRemover, which would
        couple them too.
    **options
        Fields of :class:`.settings.ForceOptions`: ``long_range``, ``backend``,
        ``ewald_tolerance``, ``coulomb_platform``, ``electric_field``, ``charge_groups``,
        ``group_charges``, ``electrodes``, ``electrode_voltage``, ``slab``, ``device``,
        ``precision``, ``solver``, ``charge_tolerance``, ``max_iterations``. There is no
        ``constraints``: a model knows no equilibrium lengths.

    Returns
    -------
    openmm.System

    Raises
    ------
    UnknownElementError
        If the model does not know an element.
    BoxError
        If the model needs a box that the topology lacks, or the box is degenerate or too small.
    BackendError
        If backend, device or platform do not exist.
    InputError
        If another argument has a wrong value.
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
    if settings.whole is not None:  # nothing in this System has images
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
    """Masses of a topology's atoms, shape (N,), Da; those of the elements for ``None``.

    Raises
    ------
    InputError
        If there is not one finite mass of at least 0 for each atom.
    """
    if masses is None:
        return element_masses(topology)
    if unit.is_quantity(masses):
        masses = masses.value_in_unit(unit.dalton)
    count = topology.getNumAtoms()
    try:
        values = np.array(masses, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.full(1, np.nan)
    if values.shape != (count,) or not np.isfinite(values).all() or (values < 0.0).any():
        expected = f"{count} finite masses of at least 0 Da"
        raise InputError(describe("masses", masses, expected))
    return values


def heavier_structure(structure: SimulationStructure, hydrogen_mass: float) -> SimulationStructure:
    """A structure with :func:`heavier_hydrogens`; where it has no bonds, nearby atoms are bonded.

    Raises
    ------
    InputError
        If no mass moves, or too little is left for an atom.
    """
    topology, bonds = structure.topology, None
    if topology.getNumBonds() == 0:
        bonds = zip(*nearby_bonds(*structure.plain()), strict=True)
    masses = heavier_hydrogens(topology, structure.masses, hydrogen_mass, bonds)
    if not (masses == hydrogen_mass).any():
        expected = "None for a structure without hydrogen that is bonded to another element"
        raise InputError(describe("hydrogen_mass", hydrogen_mass, expected))
    return dataclasses.replace(structure, masses=masses)


def heavier_hydrogens(
    topology: app.Topology,
    masses: np.ndarray,
    hydrogen_mass: Any,
    bonds: Iterable[tuple[int, int]] | None = None,
) -> np.ndarray:
    """Masses, shape (N,), Da, after mass was moved to hydrogen from what it is bonded to.

    The method is that of Feenstra, Hess and Berendsen (J. Comput. Chem. 20, 786 (1999)). Hydrogen
    in H2 keeps its mass, and so do atoms that are held fixed (mass 0) and those bonded to them.
    Bonds are those of the topology, or pairs of indices; of several to a hydrogen the first counts.

    Raises
    ------
    InputError
        If there are no bonds, or too little mass is left for an atom.
    """
    if unit.is_quantity(hydrogen_mass) and hydrogen_mass.unit.is_compatible(unit.dalton):
        hydrogen_mass = hydrogen_mass.value_in_unit(unit.dalton)
    check_positive("hydrogenMass", hydrogen_mass, " in Da")
    if bonds is None and topology.getNumBonds() == 0:
        expected = "a topology with bonds (topology.createStandardBonds() makes those of residues)"
        raise InputError(describe("hydrogenMass", "a topology without bonds", expected))
    moved, hydrogen, atoms = masses.copy(), app.element.hydrogen, list(topology.atoms())
    for pair in topology.bonds() if bonds is None else ((atoms[i], atoms[j]) for i, j in bonds):
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
    """Make the force of :func:`create_system`, for your own System.

    Parameters
    ----------
    atoms : sequence of int, optional
        Indices of the atoms that the model acts on, without repetition; by default all. They see
        nothing but one another and, with box vectors, their periodic images. Elements of other
        atoms do not matter.
    total_charge : float or Quantity, e
        Charge of these atoms; also ``charge``.
    outside_charges : dict of int to float or Quantity, e, optional
        Charges of other particles of the System, by index. The model's charges feel them and act on
        them (electrostatic embedding); what these charges do to one another is left to the System.
        In a box all images are summed. It needs ``atoms``, and backend ``"python"``.
    outside_width : float (Å) or Quantity
        Width σ of Gaussians in place of points for these charges, against overpolarisation.
    topology, model, embed_model, parameters, replicas, **options
        As for :func:`create_system`.

    Returns
    -------
    openmm.Force

    Raises
    ------
    InputError, UnknownElementError, BoxError, BackendError
        As :func:`create_system` does; a BackendError also if this OpenMM knows no forces on a part
        of the particles (before 8.6), an InputError also if ``atoms`` is not a list of indices.
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
        if not options.get(name, True):  # None and False ask for what there is
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
