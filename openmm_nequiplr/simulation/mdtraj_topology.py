"""Conversion of mdtraj topologies and structures to OpenMM."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from openmm import app, unit

from ..errors import InputError, describe
from ..lattice import check_cell
from .box import reduce_box
from .topology import SimulationStructure

if TYPE_CHECKING:
    import mdtraj

_SHOWN = 5


def openmm_topology(topology: Any) -> app.Topology:
    """Convert a topology to an OpenMM topology.

    Parameters
    ----------
    topology : openmm.app.Topology, mdtraj.Topology or mdtraj.Trajectory
        An OpenMM topology is returned unchanged. An mdtraj topology has no box, so the result is
        not periodic. For a trajectory the unit cell of the first frame is the box; without unit
        cells the result is not periodic.

    Raises
    ------
    InputError
        If the type is another one, or there are virtual sites or atoms without element.
    BoxError
        If the unit cell is degenerate.
    """
    if isinstance(topology, app.Topology):
        return topology
    mdtraj = sys.modules.get("mdtraj")  # if the object is from mdtraj, mdtraj is imported
    if mdtraj is not None and isinstance(topology, mdtraj.Topology):
        return _converted(topology)
    if mdtraj is not None and isinstance(topology, mdtraj.Trajectory):
        return from_mdtraj(topology).topology
    expected = "an OpenMM topology, an mdtraj topology or an mdtraj trajectory"
    raise InputError(describe("topology", type(topology).__name__, expected))


def from_mdtraj(trajectory: mdtraj.Trajectory, frame: int = 0) -> SimulationStructure:
    """Convert one frame of an mdtraj trajectory to a structure in OpenMM's conventions.

    Parameters
    ----------
    trajectory : mdtraj.Trajectory
        Lengths in nm. Chains, residues and bonds are kept.
    frame : int
        Index of the frame; negative numbers count from the end.

    Raises
    ------
    InputError
        If there is no such frame, or there are virtual sites or atoms without element.
    BoxError
        If the unit cell is degenerate.
    """
    if not -trajectory.n_frames <= frame < trajectory.n_frames:
        raise InputError(describe("frame", frame, f"one of {trajectory.n_frames} frames"))
    topology = _converted(trajectory.topology)
    positions = np.array(trajectory.xyz[frame], dtype=np.float64)
    if trajectory.unitcell_lengths is None:
        return SimulationStructure(topology, positions, None, 0.0, np.eye(3))
    cell = check_cell(np.array(trajectory.unitcell_vectors[frame], dtype=np.float64))
    reduced = reduce_box(cell)  # mdtraj has OpenMM's orientation, but does not reduce
    topology.setPeriodicBoxVectors(unit.Quantity(reduced.vectors, unit.nanometer))
    return SimulationStructure(
        topology, positions @ reduced.rotation.T, reduced.vectors, 0.0, reduced.rotation
    )


def _converted(topology: mdtraj.Topology) -> app.Topology:
    nameless = [atom for atom in topology.atoms if atom.element is None or atom.element.number < 1]
    if nameless:
        shown = ", ".join(f"{atom} (index {atom.index})" for atom in nameless[:_SHOWN])
        raise InputError(
            f"topology: expected an element for every atom, got none or a virtual site for "
            f"{len(nameless)} of {topology.n_atoms} atoms: {shown}"
            f"{', …' if len(nameless) > _SHOWN else ''}; the model acts on atoms alone: leave "
            "virtual sites out with mdtraj's atom_slice, or set the elements"
        )
    return topology.to_openmm()
