"""The eager twin, Contexts of every kind, and the small tools of the conformance tests."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_nequiplr import create_system, simulation
from openmm_nequiplr.errors import BackendError
from openmm_nequiplr.simulation import current_evaluation, from_atoms
from openmm_nequiplr.units import EV_TO_KJ_PER_MOL

if TYPE_CHECKING:
    from ase import Atoms

    from openmm_nequiplr.model import NequIPLRPotential

FORCE_UNIT = 10.0 * EV_TO_KJ_PER_MOL
#: Relative error of the energy and (rms) of the forces, error of charges (e), by precision.
LIMITS = {"double": (1e-6, 1e-5, 1e-6), "single": (1e-5, 1e-4, 1e-5)}
#: The mesh of the delegated sum is finer than by default, so that it does not hide other errors.
EXACT = {"ewald_tolerance": 1e-7}
#: Iterations that go on until charges are as accurate as the above asks for.
ITERATIVE = {"solver": "iterative", "charge_tolerance": 1e-7}
SOLVERS = {"dense": {"solver": "dense"}, "iterative": ITERATIVE}
FEMTOSECOND = 0.001  # ps


def available_platforms() -> list[str]:
    """Names of the platforms of this OpenMM."""
    count = openmm.Platform.getNumPlatforms()
    return [openmm.Platform.getPlatform(index).getName() for index in range(count)]


PLATFORMS = ["Reference", "CPU", "OpenCL", *({"CUDA", "HIP"} & set(available_platforms()))]


def precise_platform(name: str) -> tuple[openmm.Platform, dict[str, str]]:
    """A platform, in double precision where that is a choice."""
    if name not in available_platforms():
        if name == "OpenCL":
            pytest.skip("no OpenCL platform here (install an OpenCL driver, for example PoCL)")
        pytest.fail(f"OpenMM lacks the platform {name}")
    chosen = openmm.Platform.getPlatform(name)
    return chosen, {"Precision": "double"} if "Precision" in chosen.getPropertyNames() else {}


@dataclass(frozen=True)
class Twin:
    """Results of the eager model.

    Parameters
    ----------
    energy : float, eV
    electrostatic : float, eV
        Size of the electrostatic energy, what errors are measured by.
    forces : numpy.ndarray, shape (N, 3), eV/Å
    charges : numpy.ndarray, shape (N,), e
    """

    energy: float
    electrostatic: float
    forces: np.ndarray
    charges: np.ndarray


def evaluate_eagerly(
    model: NequIPLRPotential,
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray | None,
    total_charge: float = 0.0,
    pbc: Any = None,
    **more: Any,
) -> Twin:
    """Evaluate a double-precision model without any of the machinery of simulations.

    Parameters
    ----------
    positions : numpy.ndarray, shape (N, 3), Å
    cell : numpy.ndarray, shape (3, 3), Å, or None
    **more
        Arguments of ``build_graph``.
    pbc : optional
        By default periodic in all directions with a cell, else in none.
    """
    pbc = cell is not None if pbc is None else pbc
    graph = model.build_graph(numbers, positions, cell, pbc, total_charge, **more)
    output = model(graph, compute_forces=True)
    return Twin(
        float(output.energy),
        abs(float(output.energy_electrostatic)),
        output.forces.detach().numpy(),
        output.charges.detach().numpy(),
    )


def energy_of(context: openmm.Context) -> float:
    """Potential energy, eV."""
    return context.getState(energy=True).getPotentialEnergy()._value / EV_TO_KJ_PER_MOL


def context_of(
    system: openmm.System, positions: Any, platform: Any = "Reference", properties: Any = None
) -> openmm.Context:
    """A Context with a Verlet integrator (1 fs) at positions, shape (N, 3), nm."""
    if isinstance(platform, str):
        platform = openmm.Platform.getPlatform(platform)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform, properties or {})
    context.setPositions(positions)
    return context


def simulation_of(
    atoms: Atoms, model: Any, *forces: openmm.Force, platform: Any = None, **options: Any
) -> app.Simulation:
    """A simulation of atoms that move, on Reference by default; forces act beside the model's."""
    start = from_atoms(atoms)
    system = create_system(start.topology, model, **options)
    for force in forces:
        system.addForce(force)
    chosen = platform or (openmm.Platform.getPlatform("Reference"), {})
    integrator = openmm.VerletIntegrator(0.001)
    simulation = app.Simulation(start.topology, system, integrator, *chosen)
    simulation.context.setPositions(start.positions)
    simulation.context.setVelocitiesToTemperature(300.0, 1)
    return simulation


class Frames:
    """A reporter that keeps positions and box of every frame, in Å."""

    def __init__(self, interval: int) -> None:
        self.interval, self.frames = interval, []

    def describeNextReport(self, simulation: app.Simulation) -> dict[str, Any]:
        steps = self.interval - simulation.currentStep % self.interval
        return {"steps": steps, "periodic": False, "include": ["positions"]}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        box = 10.0 * state.getPeriodicBoxVectors(asNumpy=True)._value
        self.frames.append((10.0 * state.getPositions(asNumpy=True)._value, box))


def energy_and_forces(context: openmm.Context) -> tuple[float, np.ndarray]:
    """In kJ/mol and kJ/mol/nm."""
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def coordinates(context: openmm.Context) -> np.ndarray:
    """Positions (nm) and velocities (nm/ps), shape (2, N, 3)."""
    state = context.getState(positions=True, velocities=True)
    return np.array([x(asNumpy=True)._value for x in (state.getPositions, state.getVelocities)])


def steps(context: openmm.Context, count: int) -> np.ndarray:
    """Go on for ``count`` steps; the coordinates then."""
    context.getIntegrator().step(count)
    return coordinates(context)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative rms difference."""
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


def rounding(platform: tuple[openmm.Platform, dict[str, str]]) -> float:
    """How far (nm, nm/ps) short trajectories part that the platform does not repeat bit by bit.

    Reference and CPU hold one array of doubles. GPU platforms reorder atoms and wrap them into the
    box, by which positions change in their last digits.
    """
    return 0.0 if platform[0].getName() in ("Reference", "CPU") else 1e-10


@functools.cache
def missing_backend(backend: str, model: NequIPLRPotential) -> str | None:
    """Why a backend cannot be tested here, if it cannot: what it says when it is asked for."""
    if backend == "python":
        return None
    topology = app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    for symbol in ("Na", "Cl"):
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    try:
        create_system(topology, model, backend=backend)
    except BackendError as error:
        if str(error).startswith("backend:"):
            return str(error)
        raise
    return None


@dataclass(frozen=True)
class Maker:
    """Makes Contexts of one backend, long-range sum and platform; Systems are made once."""

    model: NequIPLRPotential
    backend: str
    long_range: str
    platform: tuple[openmm.Platform, dict[str, str]]

    def context(
        self,
        atoms: Atoms,
        integrator: openmm.Integrator | None = None,
        extra: tuple[openmm.Force, ...] = (),
        **options: Any,
    ) -> openmm.Context:
        """A Context at the positions of ``atoms``, with forces besides those of the model."""
        options = {"backend": self.backend, "long_range": self.long_range} | options
        system, positions = make_system(self.model, Frozen(atoms), frozenset(options.items()))
        if extra:
            system = copy_of(system)
            for force in extra:
                system.addForce(force)
        if integrator is None:
            integrator = openmm.VerletIntegrator(0.5 * FEMTOSECOND)
        platform, properties = self.platform
        if "Precision" in properties and options.get("precision") == "single":
            properties = {"Precision": "mixed"}
        context = openmm.Context(system, integrator, platform, properties)
        context.setPositions(positions)
        return context

    def assert_like_the_twin(
        self,
        context: openmm.Context,
        atoms: Atoms,
        charge: float = 0.0,
        precision: str = "double",
        **more: Any,
    ) -> None:
        """Energy, forces and charges at the positions of a Context are those of the twin."""
        state = context.getState(positions=True, energy=True, forces=True)
        positions = 10.0 * state.getPositions(asNumpy=True)._value
        cell = 10.0 * boxes(context) if atoms.pbc.any() else None
        given = atoms.numbers, positions, cell, charge, atoms.pbc
        twin = evaluate_eagerly(self.model, *given, **more)
        for_energy, for_forces, for_charges = LIMITS[precision]
        energy = state.getPotentialEnergy()._value / EV_TO_KJ_PER_MOL
        assert abs(energy - twin.energy) < for_energy * twin.electrostatic
        forces = state.getForces(asNumpy=True)._value / FORCE_UNIT
        assert relative(forces, twin.forces) < for_forces
        charges = current_evaluation(context).charges
        np.testing.assert_allclose(charges, twin.charges, rtol=0.0, atol=for_charges)
        assert charges.sum() == pytest.approx(charge, abs=for_charges)
        assert np.abs(twin.charges).max() > 0.1


class Frozen:
    """Atoms as a key."""

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms
        self._key = (atoms.numbers.tobytes(), atoms.positions.tobytes(), atoms.cell.array.tobytes())

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and self._key == other._key


@functools.cache
def make_system(
    model: NequIPLRPotential, frozen: Frozen, options: frozenset[tuple[str, Any]]
) -> tuple[openmm.System, np.ndarray]:
    """A System without CMMotionRemover, and its positions (nm); equal calls share one."""
    structure = from_atoms(frozen.atoms)
    settings = EXACT | {"remove_cm_motion": False} | dict(options)
    return create_system(structure.topology, model, **settings), structure.positions


def copy_of(system: openmm.System) -> openmm.System:
    """Another System of the same forces."""
    # with TorchForces, which openmm-torch 1.5 cannot read, the package does it
    read = getattr(simulation, "deserialize_system", openmm.XmlSerializer.deserialize)
    return read(openmm.XmlSerializer.serialize(system))


def boxes(context: openmm.Context) -> np.ndarray:
    """Box vectors, nm, shape (3, 3)."""
    return np.array(context.getState().getPeriodicBoxVectors(asNumpy=True)._value)


def tolerance_of(solver: dict[str, Any]) -> float:
    """How far (nm, nm/ps) short trajectories may part because of what a solver remembers."""
    return 0.0 if solver["solver"] == "dense" else 1e-7


def thermostat() -> openmm.Integrator:
    """An integrator with noise, the same in every process."""
    integrator = openmm.LangevinMiddleIntegrator(200.0, 10.0, 0.5 * FEMTOSECOND)
    integrator.setRandomNumberSeed(5)
    return integrator


def with_bystanders(atoms: Atoms) -> tuple[Atoms, np.ndarray]:
    """Atoms among four of an element that no model knows, and their indices, in another order."""
    from ase import Atoms

    others = Atoms("Xe4", np.random.default_rng(2).normal(scale=5.0, size=(4, 3)))
    order = np.random.default_rng(3).permutation(len(atoms) + 4)
    mixed = (atoms + others)[order]
    mixed.set_cell(atoms.cell)
    mixed.pbc = True
    chosen = np.flatnonzero(mixed.numbers != 54)
    return mixed, np.random.default_rng(4).permutation(chosen)


def springs(structure: Any) -> openmm.System:
    """A System of all atoms of a structure, with a spring between neighbours in their order."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*structure.box)
    bonds = openmm.HarmonicBondForce()
    for index, atom in enumerate(structure.topology.atoms()):
        system.addParticle(atom.element.mass)
        if index:
            bonds.addBond(index - 1, index, 0.3, 100.0)
    system.addForce(bonds)
    return system
