"""Charges and dipoles as collective variables: OpenMM forces whose energy is the observable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import openmm

from ..checks import is_whole
from ..errors import InputError, describe
from ..model.observables import GroupCharge, GroupDipole, Observable, check_observable
from ..pickling import reduction
from ..units import ANGSTROM_PER_NM
from .computation import Computation, restored
from .computation_settings import ComputationSettings
from .lookup import force_computation, get_computation
from .serialization import pack, unpack
from .states import state_geometry

#: Name of the forces.
VARIABLE_NAME = "NequIPLRVariable"
_KINDS: dict[str, type[GroupCharge] | type[GroupDipole]] = {
    "charge": GroupCharge,
    "dipole": GroupDipole,
}


class Variable:
    """Maps an OpenMM State to an observable of the charges; the callable of a ``PythonForce``.

    Parameters
    ----------
    computation : Computation
    observable : GroupCharge or GroupDipole
        Its indices count the model's atoms.
    """

    def __init__(self, computation: Computation, observable: Observable) -> None:
        self.computation, self.observable = computation, observable

    def __reduce__(self) -> tuple[Any, ...]:
        payload = pack(self.computation.token, self.computation.settings)
        return reduction({**payload, "observable": plain_observable(self.observable)})

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        """Value (e or e nm) and its negative gradient, shape (N, 3), per nm.

        The State contains the particles that the model's force acts on. With M external charges the
        gradient has shape (N + M, 3).
        """
        computation = self.computation
        with computation.telling():
            positions, cell = state_geometry(state, computation.settings.boxed)
            positions = computation.joined(positions, state)
            conditions = computation.conditions(state)
            found = computation.observe(self.observable, positions, cell, conditions)
        unit = 1.0 if isinstance(self.observable, GroupCharge) else 1.0 / ANGSTROM_PER_NM
        return unit * found.value, -unit * ANGSTROM_PER_NM * found.gradient


def charge_variable(
    source: openmm.System | openmm.Force, atoms: Iterable[int], minus: Iterable[int] = ()
) -> openmm.PythonForce:
    """A force whose energy is the charge of a group of atoms, or a charge difference, in e.

    Use it in ``CustomCVForce``, ``app.BiasVariable`` and wherever a force serves as a collective
    variable. Its forces are exact: they include the response of the charges. The charges are those
    of the model in ``source``, with the field and the total charge of the Context.

    Parameters
    ----------
    source : openmm.System or openmm.Force
        A System that :func:`.create_system` made, or a force of :func:`.create_force`. The force
        need not belong to the System where the variable is used. If both are in one Context, the
        variable shares evaluations with the model's force.
    atoms, minus : sequence of int
        Indices in the System; the charge of the second group is subtracted.

    Raises
    ------
    InputError
        If there is no model, the model has no responding charges, or it does not act on an index.
    """
    computation = _computation(source)
    own, other = (_among(computation, name, g) for name, g in (("atoms", atoms), ("minus", minus)))
    return _force(computation, GroupCharge(own, other))


def dipole_variable(
    source: openmm.System | openmm.Force,
    direction: Iterable[float],
    atoms: Iterable[int] | None = None,
) -> openmm.PythonForce:
    """A force whose energy is a component of the dipole of a group of atoms, in e nm.

    The energy is Σ Q (r − c)·n, where c is the mean position of the group; see
    :func:`charge_variable`.

    Parameters
    ----------
    source : openmm.System or openmm.Force
    direction : sequence of 3 float
        The vector n, which is normalised.
    atoms : sequence of int, optional
        Indices in the System; by default all atoms of the model. Required in a periodic box, where
        the group must be narrower than half the box.

    Raises
    ------
    InputError
        As for :func:`charge_variable`; also if the direction is invalid.
    """
    computation = _computation(source)
    group = None if atoms is None else _among(computation, "atoms", atoms)
    if group is None and computation.settings.periodic:
        expected = "the atoms of a group in a box, whose own dipole depends on the images"
        raise InputError(describe("atoms", None, expected))
    return _force(computation, GroupDipole(tuple(direction), group))  # type: ignore[arg-type]


def variable_force(variable: Variable) -> openmm.PythonForce:
    """The OpenMM force that evaluates a variable."""
    settings = variable.computation.settings
    force = openmm.PythonForce(variable, settings.context_parameters)
    force.setName(VARIABLE_NAME)
    force.setUsesPeriodicBoundaryConditions(settings.periodic or settings.whole is not None)
    if settings.particles is not None:
        force.setParticles(settings.particles)
    return force


def plain_observable(observable: Observable) -> dict[str, Any]:
    """An observable as values that JSON can store."""
    kind = next(name for name, each in _KINDS.items() if isinstance(observable, each))
    return {"kind": kind, **vars(observable)}


def observable_of(values: Any, settings: ComputationSettings) -> Observable:
    """Rebuild an observable from :func:`plain_observable`.

    Raises
    ------
    InputError
        If the values describe no observable, or do not fit the settings.
    """
    try:
        given = dict(values)
        observable = _KINDS[given.pop("kind")](**given)
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(describe("system: observable", values, "a charge or a dipole")) from error
    check_observable(observable, len(settings.symbols))
    return observable


def restore_callable(payload: dict[str, Any]) -> Computation | Variable:
    """Unpickle a computation or a variable of one.

    If the computation still exists in this process, it is used; otherwise a new one is made.

    Raises
    ------
    InputError
        If a newer version of the package wrote the payload, or it is damaged.
    """
    settings = ComputationSettings.of_plain(unpack(payload, ComputationSettings))
    computation = restored(payload["token"], settings)
    if "observable" not in payload:
        return computation
    return Variable(computation, observable_of(payload["observable"], computation.settings))


def _computation(source: openmm.System | openmm.Force) -> Computation:
    if isinstance(source, openmm.System):
        found: Computation | None = get_computation(source)
    else:
        found = force_computation(source) if isinstance(source, openmm.Force) else None
    if found is None:
        expected = "a System of create_system or a force of create_force"
        raise InputError(describe("source", type(source).__name__, expected))
    if not found.has_response:
        raise InputError(describe("source", "a model without charges that respond", "others"))
    return found


def _among(computation: Computation, name: str, given: Iterable[int]) -> tuple[int, ...]:
    """Convert indices of the System to indices among the model's atoms."""
    chosen = computation.settings.atoms
    known = range(computation.num_atoms) if chosen is None else chosen
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InputError(describe(name, given, "a list of indices"))
    places = {index: place for place, index in enumerate(known)}
    indices = list(given)
    strangers = [index for index in indices if not is_whole(index) or index not in places]
    if strangers:
        raise InputError(describe(name, strangers, "indices of atoms that the model acts on"))
    return tuple(places[index] for index in indices)


def _force(computation: Computation, observable: Observable) -> openmm.PythonForce:
    return variable_force(Variable(computation, observable))
