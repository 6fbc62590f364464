"""Multiple time steps: a cheap inner potential, and the model at the outer steps.

The integrators are OpenMM's ``MTSLangevinIntegrator`` and ``MTSIntegrator``. The latter is the
reversible reference system propagator (r-RESPA; Tuckerman, Berne and Martyna,
J. Chem. Phys. 97, 1990 (1992)).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import openmm
from openmm import app

from ..checks import check_names
from ..errors import InputError, describe
from ..model import NequIPLRPotential
from ..total_charge import trained_charges
from .backends import python_force
from .computation import Computation
from .settings import ForceOptions, as_model, computation_settings

if TYPE_CHECKING:
    import mdtraj

Inner: TypeAlias = NequIPLRPotential | str | Path | openmm.Force | Sequence[openmm.Force]
#: Names of the inner force, and of the force that subtracts it from the slow forces.
INNER_NAME, MINUS_INNER_NAME = "NequIPLRInner", "NequIPLRMinusInner"
#: Force groups of the slow and of the fast forces.
GROUPS = (0, 1)


def add_inner_potential(
    system: openmm.System,
    topology: app.Topology | mdtraj.Topology | mdtraj.Trajectory,
    inner: Inner,
    *,
    atoms: Sequence[int] | None = None,
    groups: tuple[int, int] = GROUPS,
    embed_model: bool = True,
    replicas: int = 1,
    **options: Any,
) -> None:
    """Add a cheap potential to the fast force group of a System, and subtract it in the slow one.

    The sum over all groups is unchanged. If the model is in the slow group, the slow forces are the
    difference of model and inner potential, which varies slowly. Both copies of the inner potential
    share one evaluation at the same positions.

    Parameters
    ----------
    system : openmm.System
        With the force of a model in the slow group, as made by :func:`.create_system`.
    topology : openmm.app.Topology, mdtraj.Topology or mdtraj.Trajectory
    inner : NequIPLRPotential, path or str, openmm.Force, or sequence of openmm.Force
        A cheaper model without charges that approximates that of the System; or forces of OpenMM,
        such as bonds and angles, which are copied and cost almost nothing.
    atoms : sequence of int, optional
        Indices of the atoms that a model acts on; by default all.
    groups : pair of int
        Force groups of slow and fast forces.
    embed_model : bool
    replicas : int
        As for :func:`.create_system`.
    **options
        ``device``, ``precision`` and ``slab`` of :class:`.settings.ForceOptions`, for a model.

    Raises
    ------
    InputError
        If the inner potential is invalid or has charges, or the groups are not two different ones.
    UnknownElementError, BoxError, BackendError
        As for :func:`.create_system`.
    """
    slow, fast = _different(groups)
    network = {"atoms": atoms, "embed_model": embed_model, "replicas": replicas}
    if isinstance(inner, openmm.Force):
        inner = [inner]
    if isinstance(inner, str | Path | NequIPLRPotential):
        made = _network_forces(topology, inner, options, **network)
    else:
        made = [(copy.deepcopy(force), copy.deepcopy(force)) for force in _forces(inner)]
    names = [f"inner{number}" for number in range(len(made))]
    minus = openmm.CustomCVForce(f"-({'+'.join(names)})")
    for name, (force, same) in zip(names, made, strict=True):
        force.setForceGroup(fast)
        system.addForce(force)
        minus.addCollectiveVariable(name, same)
    minus.setName(MINUS_INNER_NAME)
    minus.setForceGroup(slow)
    system.addForce(minus)


def _different(groups: Any) -> tuple[int, int]:
    """Check that the groups are two different force groups."""
    pair = list(groups) if isinstance(groups, Sequence) else []
    if len(pair) != 2 or pair[0] == pair[1] or not all(each in range(32) for each in pair):
        expected = "two different force groups from 0 to 31"
        raise InputError(describe("groups", groups, expected))
    return int(pair[0]), int(pair[1])


def _forces(inner: Any) -> list[openmm.Force]:
    """List of at least one OpenMM force."""
    forces = list(inner) if isinstance(inner, Sequence) else [inner]
    strange = [type(each).__name__ for each in forces if not isinstance(each, openmm.Force)]
    if strange or not forces:
        expected = "a model without charges, its file, or forces of OpenMM"
        raise InputError(describe("inner", ", ".join(strange) or "no forces", expected))
    return forces


def _network_forces(
    topology: Any, inner: NequIPLRPotential | str | Path, options: dict[str, Any], **others: Any
) -> list[tuple[openmm.Force, openmm.Force]]:
    """The force of an inner model, in two copies."""
    check_names(options, ("device", "precision", "slab"))
    model = as_model(inner, "inner")
    if model.config.equilibration:
        expected = "a model without charges (equilibration: false)"
        raise InputError(describe("inner", "one with charges", expected))
    charge = (trained_charges(model.metadata) or (0.0,))[0]  # has no effect; avoids a warning
    given = ForceOptions(**options)
    computation = Computation(
        computation_settings(topology, inner, given, total_charge=charge, **others)
    )
    force, same = python_force(computation), python_force(computation)
    force.setName(INNER_NAME)
    return [(force, same)]
