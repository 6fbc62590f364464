"""Charges of a force field that a model partly replaces."""

from __future__ import annotations

import copy
from collections.abc import Collection

import numpy as np
import openmm
from openmm import app

from ..errors import InputError, describe

_LATTICE_SUMS = (
    openmm.NonbondedForce.Ewald,
    openmm.NonbondedForce.PME,
    openmm.NonbondedForce.LJPME,
)


def nonbonded(system: openmm.System) -> list[openmm.NonbondedForce]:
    """The NonbondedForces of a System."""
    return [force for force in system.getForces() if isinstance(force, openmm.NonbondedForce)]


def lattice_sums(system: openmm.System) -> list[openmm.NonbondedForce]:
    """The NonbondedForces that use a lattice sum."""
    return [force for force in nonbonded(system) if force.getNonbondedMethod() in _LATTICE_SUMS]


def charges_of(force: openmm.NonbondedForce) -> np.ndarray:
    """Charges of a force, shape (N,), e."""
    count = force.getNumParticles()
    return np.array([force.getParticleParameters(index)[0]._value for index in range(count)])


def check_constant(system: openmm.System) -> None:
    """Reject variable charges, charges in other forces, and Coulomb sums with a cutoff.

    Raises
    ------
    InputError
        If the System contains any of these.
    """
    for force in system.getForces():
        names: set[str] = set()
        if isinstance(force, openmm.CustomNonbondedForce):
            count = force.getNumPerParticleParameters()
            names = {force.getPerParticleParameterName(k).lower() for k in range(count)}
        if isinstance(force, openmm.GBSAOBCForce | openmm.CustomGBForce) or names & {"q", "charge"}:
            expected = "charges in a NonbondedForce alone, because the model's take their place"
            raise InputError(describe("system", type(force).__name__, expected))
    whole = (*_LATTICE_SUMS, openmm.NonbondedForce.NoCutoff)
    for force in nonbonded(system):
        if force.getNonbondedMethod() not in whole and charges_of(force).any():
            expected = "PME (or NoCutoff without a box) for the charges of the force field"
            raise InputError(describe("system", "charges with a cutoff", expected))
        scales = [
            force.getParticleParameterOffset(k)[2]
            for k in range(force.getNumParticleParameterOffsets())
        ] + [
            force.getExceptionParameterOffset(k)[2]
            for k in range(force.getNumExceptionParameterOffsets())
        ]
        if any(scales):
            expected = "charges that stay as they are"
            raise InputError(describe("system", "charges with parameter offsets", expected))


def without_charges(system: openmm.System, atoms: Collection[int]) -> openmm.System:
    """A copy of a System without the charges of some atoms, also in exceptions."""
    changed, among = copy.deepcopy(system), set(atoms)
    for force in nonbonded(changed):
        for index in among:
            _, sigma, epsilon = force.getParticleParameters(index)
            force.setParticleParameters(index, 0.0, sigma, epsilon)
        for index in range(force.getNumExceptions()):
            first, second, _, sigma, epsilon = force.getExceptionParameters(index)
            if first in among or second in among:
                force.setExceptionParameters(index, first, second, 0.0, sigma, epsilon)
    return changed


def charges_outside(
    topology: app.Topology, system: openmm.System, atoms: Collection[int]
) -> dict[int, float]:
    """External charges, e, by particle index, for electrostatic embedding of some atoms.

    A particle bonded to one of these atoms is replaced by a link atom. Its charge is shifted in
    equal parts to the other particles bonded to it, or omitted if there are none.
    """
    among = set(atoms)
    charges = np.zeros(system.getNumParticles())
    for force in nonbonded(system):
        charges += charges_of(force)
    bonded: dict[int, set[int]] = {}
    for first, second in ((bond.atom1.index, bond.atom2.index) for bond in topology.bonds()):
        bonded.setdefault(first, set()).add(second)
        bonded.setdefault(second, set()).add(first)
    hosts = {other for atom in among for other in bonded.get(atom, ())} - among
    shifted = charges.copy()
    shifted[list(hosts)] = 0.0
    for host in hosts:
        heirs = list(bonded[host] - among - hosts)
        shifted[heirs] += charges[host] / max(1, len(heirs))
    return {k: float(q) for k, q in enumerate(shifted) if q != 0.0 and k not in among}
