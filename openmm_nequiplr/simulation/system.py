"""From a topology and a model to an OpenMM System."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm
from openmm import app, unit

from ..errors import InputError, describe
from ..model import NequIPLRPotential
from ..units import ANGSTROM_PER_NM
from .backends import make_force, resolve_backend
from .computation_settings import ComputationSettings
from .mdtraj_topology import openmm_topology
from .settings import ForceOptions, computation_settings, topology_box
from .topology import element_masses

if TYPE_CHECKING:
    import mdtraj


def create_system(
    topology: app.Topology | mdtraj.Topology | mdtraj.Trajectory,
    model: NequIPLRPotential | str | Path,
    *,
    total_charge: Any = None,
    masses: Any = None,
    remove_cm_motion: bool = True,
    embed_model: bool = True,
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
        Its elements choose atom types and masses; bonds are not used. A topology of mdtraj has no
        box; of a trajectory of mdtraj the unit cell of the first frame is taken.
    model : NequIPLRPotential, path or str
        A model, a model file, or the name of a shipped or downloaded model.
    total_charge : float or Quantity, e
        Charge of the whole system. If it is not given, 0 is assumed with a warning.
    masses : sequence of float (Da) or Quantity, length N, optional
        By default those of the elements. Atoms of mass 0 are held fixed;
        ``SimulationStructure.masses`` has those of a structure file.
    remove_cm_motion : bool
        Whether to add a CMMotionRemover. Where atoms are held fixed there is none.
    embed_model : bool
        Whether a serialised System contains the model. Otherwise it holds the path of the model
        file (or the name of a shipped or downloaded model) and its digest, and reads it when it is
        first evaluated; a file that is missing or has changed is then an error.
    **options
        Fields of :class:`.settings.ForceOptions`: ``long_range``, ``backend``,
        ``ewald_tolerance``, ``coulomb_platform``, ``device``, ``precision``, ``solver``,
        ``charge_tolerance``, ``max_iterations``.

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
        topology, model, options, total_charge=total_charge, embed_model=embed_model
    )
    if settings.whole is not None:  # nothing in this System has images
        force.setUsesPeriodicBoundaryConditions(False)
    system = openmm.System()
    chosen = check_masses(topology, masses)
    for mass in chosen:
        system.addParticle(mass)
    box = topology_box(topology)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*(box.vectors / ANGSTROM_PER_NM))
    system.addForce(force)
    if remove_cm_motion and chosen.all():
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


def create_force(
    topology: app.Topology | mdtraj.Topology | mdtraj.Trajectory,
    model: NequIPLRPotential | str | Path,
    *,
    atoms: Sequence[int] | None = None,
    total_charge: Any = None,
    embed_model: bool = True,
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
        Charge of these atoms.
    topology, model, embed_model, **options
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
        topology, model, options, atoms=atoms, total_charge=total_charge, embed_model=embed_model
    )[0]


def _force(
    topology: Any, model: Any, options: dict[str, Any], **others: Any
) -> tuple[openmm.Force, ComputationSettings]:
    """The force, and its settings."""
    chosen = ForceOptions(**options)
    backend = resolve_backend(chosen.backend, chosen.device)
    settings = computation_settings(topology, model, chosen, **others)
    return make_force(settings, backend), settings
