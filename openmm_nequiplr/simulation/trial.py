"""Short Langevin dynamics in OpenMM, to test the stability of structures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openmm
from openmm import unit

from ..analysis.contacts import (
    ChargeRange,
    ChargeWatch,
    closest_contact,
    contact_limit,
    describe_contact,
)
from ..analysis.minimisation import to_ase
from ..data.structure import Structure
from ..errors import first_line
from ..model import NequIPLRPotential
from ..neighbors import cell_heights
from ..units import ANGSTROM_PER_NM
from .limits import HALF_BOND, hottest, temperature_of
from .lookup import get_computation
from .pme_plan import SMALLEST_CUTOFF
from .stability import degrees_of_freedom
from .system import create_system
from .topology import from_atoms

#: Time (ps) during which a strained start may be hotter; half the run if that is shorter.
WARM_UP = 0.5

_INTERVAL = 0.05  # ps between checks
_FRICTION = 1.0  # 1/ps


@dataclass(frozen=True)
class DynamicsRun:
    """Result of one run of N atoms, with L checks.

    Parameters
    ----------
    temperature : float, K
        Target temperature.
    failed_at : float or None, ps
        Time of the failure; None if the run is stable.
    message : str
        Short description of the failure, with the atoms; empty if the run is stable.
    times, temperatures : numpy.ndarray, shape (L,), ps and K
    charges : ChargeWatch
        Charges at every check.
    """

    temperature: float
    failed_at: float | None
    message: str
    times: np.ndarray
    temperatures: np.ndarray
    charges: ChargeWatch


def run_dynamics(
    model: NequIPLRPotential,
    structure: Structure,
    temperature: float,
    *,
    ps: float,
    fs: float,
    seed: int,
    charges: ChargeRange | None = None,
) -> DynamicsRun:
    """Run Langevin dynamics from a structure and check it every 50 fs until it fails.

    Initial velocities are random, the friction is 1/ps, and the platform is OpenMM's CPU platform.

    Parameters
    ----------
    model : NequIPLRPotential
    structure : Structure
    temperature : float, K
    ps, fs : float
        Duration of the run and time step.
    seed : int
        Of velocities and thermostat.
    charges : mapping of str to (float, float), optional
        Allowed range of the charges of each element, e.

    Raises
    ------
    InputError
        If the model cannot be used for the structure.
    """
    start, field = from_atoms(to_ase(structure)), structure.electric_field
    system = create_system(
        start.topology,
        model,
        total_charge=structure.total_charge,
        long_range=_long_range(structure),
        device="cpu",
        electric_field=None if field is None else ANGSTROM_PER_NM * start.rotation @ field,
        charge_groups=structure.charge_groups,
        group_charges=structure.group_charges,
        slab=start.slab,
    )
    integrator = openmm.LangevinMiddleIntegrator(temperature, _FRICTION, fs / 1000.0)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(start.positions)
    steps = max(1, round(1000.0 * ps / fs))
    block = min(steps, max(1, round(1000.0 * _INTERVAL / fs)))
    watch = _Watch(context, structure, temperature, min(WARM_UP, 0.5 * ps), charges)
    message, done = "", 0
    try:
        context.setVelocitiesToTemperature(temperature, seed)  # evaluates the forces
        while done < steps and not message:
            ahead = min(block, steps - done)
            done += ahead
            integrator.step(ahead)
            message = watch.look()
    except Exception as error:  # any error would end a simulation here
        message = f"{type(error).__name__}: {first_line(error)}"
    return DynamicsRun(
        temperature,
        done * fs / 1000.0 if message else None,
        message,
        np.array(watch.times),
        np.array(watch.temperatures),
        watch.charges,
    )


def _long_range(structure: Structure) -> str:
    """``long_range``: ``"graph"`` in boxes too small for OpenMM's sum, otherwise ``"auto"``."""
    if structure.cell is None or cell_heights(structure.cell).min() >= 2.0 * SMALLEST_CUTOFF:
        return "auto"
    return "graph"


class _Watch:
    """Stability checks during a run."""

    def __init__(
        self,
        context: openmm.Context,
        structure: Structure,
        temperature: float,
        warm_up: float,
        charges: ChargeRange | None,
    ) -> None:
        self.warm_up = warm_up
        self.context, self.symbols = context, structure.symbols
        self.charges = ChargeWatch(structure.symbols, charges)
        self.computation = get_computation(context.getSystem())
        self.freedom, self.target = degrees_of_freedom(context.getSystem()), temperature
        self.numbers = to_ase(structure).numbers
        at_first = closest_contact(self.numbers, structure.positions, structure.cell)
        self.closest = contact_limit(HALF_BOND, at_first)
        self.times: list[float] = []
        self.temperatures: list[float] = []

    def look(self) -> str:
        """Short description of a failure; empty if there is none."""
        state = self.context.getState(energy=True, positions=True, parameters=True)
        time = state.getTime().value_in_unit(unit.picosecond)
        kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
        temperature = temperature_of(kinetic, self.freedom)
        self.times.append(time)
        self.temperatures.append(temperature)
        positions, cell = self.computation.geometry(state)
        potential = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        if not np.isfinite([temperature, potential, *positions.flat]).all():
            return "energy, positions or velocities are not finite"
        contact = closest_contact(self.numbers, positions, cell)
        if contact.ratio < self.closest:
            return describe_contact(self.symbols, contact)
        if temperature > hottest(self.target, self.freedom, strained=time <= self.warm_up):
            return f"{temperature:.0f} K"
        conditions = self.computation.conditions(state)
        self.charges.look(self.computation.charges(positions, cell, conditions))
        return ""
