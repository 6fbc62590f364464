"""From a System or a Context to the computation behind its NequIP-LR force."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from typing import Any

import openmm

from ..errors import InputError, NequIPLRError, describe
from ..model.evaluation import Evaluation
from ..pickling import Unavailable
from .computation import FORCE_NAME, Computation
from .torchforce import companion


def get_computation(system: openmm.System) -> Computation:
    """The computation behind the NequIP-LR force of a System.

    That of a TorchForce is a companion with the same settings, as the graph keeps its charges to
    itself.

    Raises
    ------
    InputError
        If the System has no such force.
    NequIPLRError
        If it has one that cannot be restored here, for example of a newer version.
    """
    for force in inner_forces(system):
        found = called_computation(force)
        if isinstance(found, Unavailable):
            raise NequIPLRError(found.reason)
        # that of a PythonTorchForce has one inside
        found = getattr(found, "computation", found)
        found = companion(force) if found is None else found
        if isinstance(found, Computation):
            return found
    raise InputError(
        describe("system", "a System without NequIP-LR force", "one made by create_system")
    )


def inner_forces(system: openmm.System) -> Iterator[openmm.Force]:
    """The forces of a System and those inside its CustomCVForces."""
    for force in system.getForces():
        yield force
        if isinstance(force, openmm.CustomCVForce):
            for index in range(force.getNumCollectiveVariables()):
                yield force.getCollectiveVariable(index)


def called_computation(force: openmm.Force) -> Any:
    """What a NequIP-LR force calls in Python; ``None`` for forces that call nothing there."""
    if force.getName() != FORCE_NAME:
        return None
    # out of its XML: Python cannot read the C++ vector
    found = re.search(r'\bfunction="([0-9a-fA-F]*)"', openmm.XmlSerializer.serialize(force))
    return pickle.loads(bytes.fromhex(found.group(1))) if found else None


def current_evaluation(context: openmm.Context) -> Evaluation:
    """Energies per part, charges and dipole at the current positions of a Context.

    ``current_evaluation(simulation.context).parts`` holds the energies in eV.
    """
    computation = get_computation(context.getSystem())
    state = context.getState(positions=True)
    return computation.evaluate(*computation.geometry(state))
