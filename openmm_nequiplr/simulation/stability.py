"""Reporter that detects an unstable simulation, and stops it or warns."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from ..checks import check_choice, is_number
from ..errors import InputError, InstabilityError, describe
from ..units import EV_TO_KJ_PER_MOL
from .limits import ON_UNSTABLE, HalfBonds, deepest_fall, hottest, temperature_of
from .quantities import without_unit
from .reporters import Reporter


class StabilityReporter(Reporter):
    """Checks every reported frame, and raises or warns when the simulation has become unstable.

    A frame is unstable if its potential energy is not a number, or is more than 2 eV per atom (plus
    5 eV) below that of the first frame; if atoms are closer than half a bond (half the sum of their
    covalent radii); if the temperature exceeds twice the target, with allowances for fluctuations
    of small systems and 500 K for a strained start; or if charges are far outside the range of the
    training data that the model file specifies (metadata ``charge_range``).

    With replicas, distances and energies are checked for each replica, and the temperature for all
    together.

    Between reports the force itself checks for non-finite numbers and for charges
    (:attr:`.Computation.on_unstable`).

    Parameters
    ----------
    reportInterval : int
        Steps between checks.
    temperature : float or Quantity, K, optional
        Target; by default that of the integrator. Without a target, temperatures are not checked,
        nor with a ``BrownianIntegrator``, whose velocities are not thermal.
    action : {"stop", "warn"}
        Raise an :class:`InstabilityError`, or give a warning at the onset of each kind of
        instability.
    say : callable, optional
        Called with the text of a warning; by default Python's warnings.

    Raises
    ------
    InputError
        If an argument is invalid.
    """

    include = ("positions", "velocities", "energy")

    def __init__(
        self,
        reportInterval: int,
        temperature: Any = None,
        action: str = "stop",
        say: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(reportInterval)
        check_choice("action", action, ON_UNSTABLE)
        expected = "a number of at least 0 K"
        temperature = without_unit("temperature", temperature, unit.kelvin, expected)
        if temperature is not None and not (is_number(temperature) and temperature >= 0):
            raise InputError(describe("temperature", temperature, expected))
        self.target, self.action = temperature, action
        self._given = temperature
        self._say = say or (lambda text: warnings.warn(text, RuntimeWarning, stacklevel=2))
        self._reference: np.ndarray | None = None
        self._troubled: set[str] = set()
        #: Step of the last frame that passed the checks; -1 before the first.
        self.sound_step = -1

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Check one frame.

        Raises
        ------
        InstabilityError
            If the frame is unstable and the action is ``"stop"``.
        """
        self._prepare(simulation)
        found = self._troubles(state)
        step = simulation.currentStep
        if not found:
            self.sound_step = step
        elif self.action == "stop":
            text = next(iter(found.values()))
            raise InstabilityError(f"unstable at step {step}: {text}")
        for kind in found.keys() - self._troubled:
            self._say(f"unstable at step {step}: {found[kind]}")
        self._troubled = set(found)

    def check(self, simulation: app.Simulation) -> None:
        """Check the current frame if necessary; errors are those of :meth:`report`."""
        if simulation.currentStep != self.sound_step:
            state = simulation.context.getState(
                positions=True, velocities=True, energy=True, parameters=True
            )
            self.report(simulation, state)

    def _prepare(self, simulation: app.Simulation) -> None:
        if simulation.system is self._system:
            return
        system, integrator = simulation.system, simulation.integrator
        self._computation, self._reference = self._own(simulation), None
        self.target = self._given
        settings = self._computation.settings
        self._each = self._computation.num_atoms // settings.replicas
        self._bonds = HalfBonds(settings.symbols[: self._each])
        self._masses = particle_masses(system)
        self._freedom = degrees_of_freedom(system)
        if isinstance(integrator, openmm.BrownianIntegrator):
            self.target = None
        elif self.target is None and hasattr(integrator, "getTemperature"):
            self.target = integrator.getTemperature().value_in_unit(unit.kelvin)

    def _troubles(self, state: openmm.State) -> dict[str, str]:
        """Messages about a frame by kind of instability, in order of severity."""
        assert self._computation is not None
        computation = self._computation
        indices, copies = computation.settings.atoms, computation.settings.replicas
        energy = state.getPotentialEnergy()._value / EV_TO_KJ_PER_MOL
        if not math.isfinite(energy):
            return {"energy": f"the potential energy is {energy}"}
        positions, cell = computation.geometry(state)
        conditions = computation.conditions(state)
        found = {"distance": self._contact(positions, cell)}
        limits = computation.charge_limits
        if limits is not None:
            charges = computation.charges(positions, cell, conditions)
            found["charge"] = limits.trouble(charges, indices)
        found["temperature"] = self._heat(state)
        energies = np.array([energy])
        if copies > 1:
            energies = np.asarray(
                computation.evaluate(positions, cell, conditions).replica_energies
            )
        if self._reference is None:
            self._reference = energies
        falls, allowed = self._reference - energies, deepest_fall(self._each)
        worst = int(falls.argmax())
        if falls[worst] > allowed:
            strongest = computation.strongest(positions, cell, conditions)
            where = f" of replica {worst}" if copies > 1 else ""
            found["energy"] = (
                f"the potential energy{where} has fallen by {falls[worst]:.4g} eV (allowed: "
                f"{allowed:.4g} eV) to {energies[worst]:.6g} eV; the largest force is {strongest}"
            )
        return {kind: text for kind, text in found.items() if text is not None}

    def _contact(self, positions: np.ndarray, cell: np.ndarray | None) -> str | None:
        """Message about atoms of the system, or of one replica, that are too close."""
        assert self._computation is not None
        count, chosen = self._computation.num_atoms, self._computation.settings.atoms
        names = range(count) if chosen is None else chosen
        for first in range(0, count, self._each):
            own = slice(first, first + self._each)
            trouble = self._bonds.trouble(positions[own], cell, names[own])
            if trouble is not None:
                return trouble
        return None

    def _heat(self, state: openmm.State) -> str | None:
        if self.target is None:
            return None
        temperature = temperature_of(state.getKineticEnergy()._value, self._freedom)
        limit = hottest(self.target, self._freedom)
        if temperature <= limit:
            return None
        velocities = state.getVelocities(asNumpy=True)._value
        fastest = int((self._masses * (velocities**2).sum(axis=1)).argmax())
        return (
            f"the temperature is {temperature:.0f} K, far above the target of {self.target:g} K "
            f"(allowed: {limit:.0f} K); the hottest atom is {self._name(fastest)}"
        )

    def _name(self, index: int) -> str:
        """Index of a particle as text, with its element if the model acts on it."""
        assert self._computation is not None
        settings = self._computation.settings
        if settings.atoms is None:
            return f"{index} ({settings.symbols[index]})"
        if index in settings.atoms:
            return f"{index} ({settings.symbols[settings.atoms.index(index)]})"
        return str(index)


def particle_masses(system: openmm.System) -> np.ndarray:
    """Masses of the particles of a System, shape (N,), Da."""
    return np.array([system.getParticleMass(k)._value for k in range(system.getNumParticles())])


def degrees_of_freedom(system: openmm.System) -> int:
    """Degrees of freedom of the mobile particles, minus constraints and the centre of mass."""
    masses = particle_masses(system)
    constrained = sum(
        1
        for k in range(system.getNumConstraints())
        if any(masses[i] > 0 for i in system.getConstraintParameters(k)[:2])
    )
    freedom = 3 * int((masses > 0).sum()) - constrained
    if any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces()):
        freedom -= 3
    return max(freedom, 0)
