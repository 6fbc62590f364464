"""Access to the computation behind the NequIP-LR force of a System or a Context."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import openmm

from ..errors import InputError, NequIPLRError, describe, notify
from ..model.evaluation import Evaluation
from ..pickling import read_pickled, restore
from .computation import FORCE_NAME, Computation
from .torchforce import companion


def get_computation(system: openmm.System) -> Computation:
    """The computation behind the NequIP-LR force of a System; the first one, if there are several.

    For a TorchForce it is a companion with equal settings, because the graph of the force does not
    expose its charges.

    Raises
    ------
    InputError
        If the System has no such force, or is no System.
    NequIPLRError
        If the force cannot be restored, for example because a newer version wrote it.
    """
    if not isinstance(system, openmm.System):
        raise InputError(describe("system", type(system).__name__, "an openmm.System"))
    each = [force_computation(force) for force in inner_forces(system)]
    found = list(dict.fromkeys(one for one in each if one is not None))
    if not found:
        got, expected = "a System without NequIP-LR force", "one made by create_system"
        raise InputError(describe("system", got, expected))
    if len(found) > 1:
        notify(
            f"system: only the first of its {len(found)} NequIP-LR forces is reported or used here "
            "(charge_variable takes a force)"
        )
    return found[0]


def inner_forces(system: openmm.System) -> Iterator[openmm.Force]:
    """The forces of a System, including those inside its CustomCVForces."""
    for force in system.getForces():
        yield force
        if isinstance(force, openmm.CustomCVForce):
            for index in range(force.getNumCollectiveVariables()):
                yield force.getCollectiveVariable(index)


def force_computation(force: openmm.Force) -> Computation | None:
    """The computation of a force, or its companion; ``None`` for a force of another kind.

    Raises
    ------
    NequIPLRError
        As for :func:`get_computation`.
    """
    payload = _payload(force)
    if payload is None:
        return companion(force)
    found = restore(payload)
    if not isinstance(found, Computation):
        raise NequIPLRError(found.reason)
    return found


def force_backend(force: openmm.Force) -> str | None:
    """Backend of a NequIP-LR force, see :func:`.backends.resolve_backend`; otherwise ``None``."""
    payload = _payload(force)
    if payload is None:
        return "torch" if companion(force) is not None else None
    return "python_torch" if "graph" in payload else "python"


def _payload(force: openmm.Force) -> dict[str, Any] | None:
    """Pickled data of a NequIP-LR force that calls Python; ``None`` for any other force."""
    if force.getName() != FORCE_NAME:
        return None
    # read from its XML, because Python cannot access the C++ vector
    found = re.search(r'\bfunction="([0-9a-fA-F]*)"', openmm.XmlSerializer.serialize(force))
    if not found:
        return None
    try:
        payload = read_pickled(bytes.fromhex(found.group(1)))
    except InputError:  # not a pickle of this package
        return None
    return None if "observable" in payload else payload


def current_evaluation(context: openmm.Context) -> Evaluation:
    """Energy contributions, charges and dipole at the current positions of a Context.

    ``current_evaluation(simulation.context).parts`` contains the energies in eV.
    """
    if not isinstance(context, openmm.Context):
        expected = "an openmm.Context, such as simulation.context"
        raise InputError(describe("context", type(context).__name__, expected))
    computation = get_computation(context.getSystem())
    state = context.getState(positions=True, parameters=True)
    return computation.evaluate(*computation.geometry(state), computation.conditions(state))
