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
from ..model.solving import DEFAULT_CHARGE_TOLERANCE, DEFAULT_MAX_ITERATIONS
from ..units import ANGSTROM_PER_NM
from .backends import make_force, resolve_backend
from .mdtraj_topology import openmm_topology
from .pme import DEFAULT_TOLERANCE
from .settings import computation_settings, topology_box
from .topology import element_masses

if TYPE_CHECKING:
    import mdtraj


def create_system(
    topology: app.Topology | mdtraj.Topology | mdtraj.Trajectory,
    model: NequIPLRPotential | str | Path,
    *,
    total_charge: Any = None,
    long_range: str = "auto",
    backend: str = "auto",
    nonbonded_cutoff: Any = None,
    ewald_tolerance: float = DEFAULT_TOLERANCE,
    device: str | None = None,
    precision: str | None = None,
    remove_cm_motion: bool = True,
    masses: Any = None,
    coulomb_platform: str | None = None,
    solver: str = "auto",
    charge_tolerance: float = DEFAULT_CHARGE_TOLERANCE,
    max_iterations: int = DEFAULT_MAX_ITERATIONS,
    embed_model: bool = True,
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
        A model, a model file, or the name of a shipped model.
    total_charge : float or Quantity, e
        Charge of the whole system. If it is not given, 0 is assumed with a warning.
    long_range : {"auto", "openmm", "graph"}
        Who sums the Coulomb energy: an OpenMM NonbondedForce (particle mesh Ewald when periodic),
        or the same sum in torch, which has no smallest box. OpenMM sums the reciprocal part; the
        pairs are summed here, once for point charges and their Gaussian correction. ``"auto"`` is
        OpenMM's sum, except where charges are solved for iteratively in a cell: the mesh that
        found them has their energy at a fraction of the cost.
    backend : {"auto", "python", "torch", "python_torch"}
        How OpenMM calls the model. ``"python"`` is a ``PythonForce``; ``"torch"`` a ``TorchForce``
        of openmm-torch, with network, charges and energy in one TorchScript graph (with release
        1.5 on platforms Reference and CPU, see also
        :func:`~openmm_nequiplr.simulation.deserialize_system`);
        ``"python_torch"`` the ``PythonTorchForce`` of its next release, whose positions and forces
        stay on the GPU. ``"auto"`` takes the fastest that is there
        (:func:`~openmm_nequiplr.simulation.describe_backend` tells which).
    nonbonded_cutoff : float (nm) or Quantity, optional
        Leaves the direct-space sum of the point charges to OpenMM as well, with this cutoff:
        slower, and the accuracy does not depend on it. Iterative solvers and TorchForce graphs take
        no notice.
    ewald_tolerance : float
        Relative error of the Coulomb forces that the mesh aims at. Charges come from an exact
        sum, so what the mesh misses shows up as an inconsistency of energy and forces.
    device : str, optional
        torch device of the network; by default CUDA where there is one.
    precision : {"single", "double"}, optional
        Of the network and the delegated sum; by default that of the model.
    remove_cm_motion : bool
        Whether to add a CMMotionRemover. Where atoms are held fixed there is none.
    masses : sequence of float (Da) or Quantity, length N, optional
        By default those of the elements. Atoms of mass 0 are held fixed;
        ``SimulationStructure.masses`` has what a structure file says.
    coulomb_platform : str, optional
        OpenMM platform of the delegated sum. By default the processor does it: platform CPU, or
        Reference for double precision.
    solver : {"auto", "dense", "iterative"}
        Of the charges. The dense solver is exact; the iterative one serves large systems: it sums
        on a mesh and starts from the step before. ``"auto"`` chooses by the number of atoms.
    charge_tolerance : float
        Residual, relative to that of uniform charges, at which the iterative solver stops.
    max_iterations : int
        Of the iterative solver; if they do not suffice, the simulation stops with an error.
    embed_model : bool
        Whether a serialised System contains the model. Otherwise it holds the path of the model
        file (or the name of a shipped model) and its digest, and reads it when it is first
        evaluated; a file that is missing or has changed is then an error.

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
    backend = resolve_backend(backend, device)
    settings = computation_settings(
        topology,
        model,
        total_charge=total_charge,
        long_range=long_range,
        nonbonded_cutoff=nonbonded_cutoff,
        ewald_tolerance=ewald_tolerance,
        device=device,
        precision=precision,
        coulomb_platform=coulomb_platform,
        solver=solver,
        charge_tolerance=charge_tolerance,
        max_iterations=max_iterations,
        embed_model=embed_model,
    )
    force = make_force(settings, backend)
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
    long_range: str = "auto",
    backend: str = "auto",
    nonbonded_cutoff: Any = None,
    ewald_tolerance: float = DEFAULT_TOLERANCE,
    device: str | None = None,
    precision: str | None = None,
    coulomb_platform: str | None = None,
    solver: str = "auto",
    charge_tolerance: float = DEFAULT_CHARGE_TOLERANCE,
    max_iterations: int = DEFAULT_MAX_ITERATIONS,
    embed_model: bool = True,
) -> openmm.Force:
    """Make the force of :func:`create_system`, for a System of one's own.

    Parameters
    ----------
    atoms : sequence of int, optional
        Indices of the atoms that the model acts on, without repetition; by default all. They see
        nothing but one another and, with box vectors, their periodic images. Elements of other
        atoms do not matter.
    total_charge : float or Quantity, e
        Charge of these atoms.
    topology, model, long_range, backend, nonbonded_cutoff, ewald_tolerance, device, precision, \
    coulomb_platform, solver, charge_tolerance, max_iterations, embed_model
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
    backend = resolve_backend(backend, device)
    settings = computation_settings(
        topology,
        model,
        atoms=atoms,
        total_charge=total_charge,
        long_range=long_range,
        nonbonded_cutoff=nonbonded_cutoff,
        ewald_tolerance=ewald_tolerance,
        device=device,
        precision=precision,
        coulomb_platform=coulomb_platform,
        solver=solver,
        charge_tolerance=charge_tolerance,
        max_iterations=max_iterations,
        embed_model=embed_model,
    )
    return make_force(settings, backend)
