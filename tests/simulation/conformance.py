"""What every backend promises, with either long-range sum, on every platform of OpenMM.

A backend conforms if a subclass of :class:`Conformance` that names it passes. The reference is
always the eager model in double precision: the differentiated dense solve, all sums in torch.
"""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import openmm
import pytest

import openmm_nequiplr
from openmm_nequiplr.errors import BackendError
from openmm_nequiplr.simulation import create_force, current_evaluation, from_atoms
from openmm_nequiplr.simulation.platforms import platform_names
from openmm_nequiplr.units import EV_TO_KJ_PER_MOL

from .twins import (
    EXACT,
    FEMTOSECOND,
    FORCE_UNIT,
    PLATFORMS,
    SOLVERS,
    Frozen,
    Maker,
    boxes,
    coordinates,
    energy_of,
    evaluate_eagerly,
    missing_backend,
    precise_platform,
    relative,
    rounding,
    springs,
    steps,
    thermostat,
    tolerance_of,
    with_bystanders,
)  # fmt: skip

if TYPE_CHECKING:
    from openmm_nequiplr.model import NequIPLRPotential

LONG_RANGE = ["openmm", "graph"]
#: Platform, long-range sum and solver of a test; it runs once where it does without one of them.
PLACES = [
    {"platform": platform, "long_range": long_range, "solver": solver}
    for platform in PLATFORMS
    for long_range, solver in itertools.product(LONG_RANGE, sorted(SOLVERS))
    if platform == "Reference" or (long_range == "openmm") == (solver == "dense")
]
#: Charges of groups in the tiny salt; one reaches across the cell.
HELD: dict[str, Any] = {
    "charge_groups": (0, 1, 2, 3) * 3 + (0, 0, 1, 3),
    "group_charges": (1.0, 0.0, 0.5, -0.5),
}
#: Electrodes in it and in the cluster; with the groups, their atoms are all but three ones.
ELECTRODES: dict[str, Any] = {"electrodes": ((0, 1), (5, 4)), "electrode_voltage": 3.0}
# How a run is carried into another process: a State as XML, or a checkpoint with the noise in it.
CONTINUED = [("dense", "state.xml"), ("dense", "state.chk"), ("iterative", "state.xml")]

CONTINUE = """
import pathlib, sys

folders = [path for path in pathlib.Path(sys.argv[1]).iterdir() if path.is_dir()]
texts = {path: (path / "system.xml").read_text() for path in folders}
if any("TorchForce" in text for text in texts.values()):
    import torch  # before OpenMM, or the plugin of openmm-torch does not load
import numpy as np
import openmm

deserialize = openmm.XmlSerializer.deserialize
if "torch" in sys.modules:  # openmm-torch 1.5 cannot read what it writes
    from openmm_nequiplr.simulation import deserialize_system as deserialize
systems = {text: deserialize(text) for text in set(texts.values())}
for folder in folders:
    integrator = openmm.XmlSerializer.deserialize((folder / "integrator.xml").read_text())
    name, *precision = (folder / "platform").read_text().split()
    properties = {"Precision": precision[0]} if precision else {}
    platform = openmm.Platform.getPlatform(name)
    context = openmm.Context(systems[texts[folder]], integrator, platform, properties)
    if (folder / "state.chk").exists():
        context.loadCheckpoint((folder / "state.chk").read_bytes())
    else:
        context.setState(openmm.XmlSerializer.deserialize((folder / "state.xml").read_text()))
    integrator.step(4)
    state = context.getState(positions=True, velocities=True)
    found = [x(asNumpy=True)._value for x in (state.getPositions, state.getVelocities)]
    np.save(folder / "continued.npy", found)
"""


def needs(metafunc: pytest.Metafunc, name: str) -> bool:
    """Whether a test takes a fixture that nothing of its own has parametrised."""
    marks = metafunc.definition.iter_markers("parametrize")
    return name in metafunc.fixturenames and all(name not in mark.args[0] for mark in marks)


class Conformance:
    """Properties of a backend.

    Subclasses set ``backend``, and ``without`` where it lacks a platform; they are skipped where
    this package, or what is installed, does not have it. The fixtures ``tiny_model``,
    ``tiny_salt``, ``cluster`` and ``platform`` are those of ``conftest.py``.
    """

    backend: str
    #: How far (nm, nm/ps) it lets runs part on platforms that repeat them bit by bit.
    parting: float = 0.0
    #: Platforms that it does not have, and why.
    without: ClassVar[dict[str, str]] = {}

    @pytest.fixture(autouse=True)
    def _there(self, request: pytest.FixtureRequest, tiny_model: NequIPLRPotential) -> None:
        reason = missing_backend(self.backend, tiny_model)
        if not reason and "platform" in request.fixturenames:
            reason = self.without.get(request.getfixturevalue("platform")[0].getName())
        if reason:
            pytest.skip(reason)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Every sum with every solver on Reference, and two of these pairs on other platforms."""
        names = [name for name in ("platform", "long_range", "solver") if needs(metafunc, name)]
        places = {tuple(place[name] for name in names): None for place in PLACES}
        if names:
            metafunc.parametrize(names, list(places), indirect=True)

    @pytest.fixture
    def platform(self, request: pytest.FixtureRequest) -> Any:
        return precise_platform(request.param)

    @pytest.fixture
    def long_range(self, request: pytest.FixtureRequest) -> str:
        """Where the Coulomb energy is computed."""
        return request.param

    @pytest.fixture
    def solver(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        """How charges are solved for."""
        return SOLVERS[request.param]

    @pytest.fixture
    def make(self, tiny_model: NequIPLRPotential, long_range: str, platform: Any) -> Maker:
        """Makes Contexts of the backend."""
        return Maker(tiny_model, self.backend, long_range, platform)

    def rounding(self, platform: Any) -> float:
        """How far runs may part that only rounding sets apart."""
        return max(rounding(platform), self.parting)

    # -------------------------------------------------------------------------------- numbers

    @pytest.mark.parametrize(("charge", "precision"), [(-1, "double"), (0, "single")])
    def test_a_triclinic_crystal(self, make, tiny_salt, charge, precision, solver):
        """Energy, forces and charges, at the start and after a few steps."""
        options = {"total_charge": charge, "precision": precision} | solver
        context = make.context(tiny_salt, **options)
        make.assert_like_the_twin(context, tiny_salt, charge, precision)
        steps(context, 2)
        make.assert_like_the_twin(context, tiny_salt, charge, precision)

    @pytest.mark.parametrize(("charge", "precision"), [(1, "double"), (0, "single")])
    def test_a_cluster_in_free_space(self, make, cluster, charge, precision):
        context = make.context(cluster, total_charge=charge, precision=precision)
        make.assert_like_the_twin(context, cluster, charge, precision)
        steps(context, 2)
        make.assert_like_the_twin(context, cluster, charge, precision)

    def test_charges_of_groups(self, make, tiny_salt, solver):
        context = make.context(tiny_salt, total_charge=1, **HELD, **solver)
        for _ in range(2):
            make.assert_like_the_twin(context, tiny_salt, 1.0, **HELD)
            charges = current_evaluation(context).charges
            sums = np.bincount(HELD["charge_groups"], charges)
            np.testing.assert_allclose(sums, HELD["group_charges"], atol=1e-9)
            steps(context, 2)

    def test_charges_of_groups_in_a_field(self, make, cluster):
        field = {"electric_field": (2.0, -1.0, 3.0)}  # V/nm
        held = {"charge_groups": (0, 0, 1, 1, 2, 2, 1, 0), "group_charges": (1.0, -1.0, 0.0)}
        context = make.context(cluster, total_charge=0, **held, **field)
        make.assert_like_the_twin(context, cluster, electric_field=(0.2, -0.1, 0.3), **held)

    @pytest.mark.parametrize(("held", "solver"), [({}, "dense"), (HELD, "iterative")])
    def test_electrodes(self, make, tiny_salt, held, solver):
        context = make.context(tiny_salt, total_charge=1, **held, **ELECTRODES, **SOLVERS[solver])
        make.assert_like_the_twin(context, tiny_salt, 1.0, **held, **ELECTRODES)

    @pytest.mark.parametrize(("charge", "precision"), [(1, "double"), (0, "single")])
    def test_a_slab(self, make, tiny_slab, charge, precision, solver):
        """At the start, after a few steps, and where atoms are wrapped on the way."""
        options = {"total_charge": charge, "precision": precision, "slab": True}
        context = make.context(tiny_slab, **options | solver)
        make.assert_like_the_twin(context, tiny_slab, charge, precision)
        steps(context, 2)
        positions, before = coordinates(context)[0], energy_of(context)
        positions[:, 2] %= 2.0  # nm
        context.setPositions(positions)
        make.assert_like_the_twin(context, tiny_slab, charge, precision)
        error = 1e-6 if precision == "double" else 1e-4
        assert energy_of(context) == pytest.approx(before, abs=error)

    @pytest.mark.parametrize(
        "options",
        [{}, HELD, {"slab": True}, HELD | ELECTRODES | {"slab": True}],
        ids=["", "groups", "slab", "electrodes"],
    )
    def test_forces_are_finite_differences_of_energies(
        self, make, tiny_salt, tiny_slab, rng, options
    ):
        atoms = tiny_slab if "slab" in options else tiny_salt
        context = make.context(atoms, total_charge=1, **options)
        positions = coordinates(context)[0]
        forces = context.getState(forces=True).getForces(asNumpy=True)._value / FORCE_UNIT
        step, found, expected = 5e-6, [], []  # nm
        for _ in range(4):
            direction = rng.normal(size=positions.shape)
            energies = []
            for sign in (-1.0, 1.0):
                context.setPositions(positions + sign * step * direction)
                energies.append(energy_of(context))
            found.append(np.vdot(forces, direction))
            expected.append((energies[0] - energies[1]) / (20.0 * step))
        assert relative(np.array(found), np.array(expected)) < 1e-6

    # ------------------------------------------------------------------------------- dynamics

    def test_total_energy_stays(self, make, tiny_salt):
        """It swings with the square of the time step and goes nowhere."""
        swings = []
        for femtoseconds, count in ((2.0, 20), (1.0, 40)):
            integrator = openmm.VerletIntegrator(femtoseconds * FEMTOSECOND)
            context = make.context(tiny_salt, integrator)
            context.setVelocitiesToTemperature(200.0, 3)
            total, kinetic = [], []
            for _ in range(count):
                integrator.step(1)
                state = context.getState(energy=True)
                kinetic.append(state.getKineticEnergy()._value)
                total.append(kinetic[-1] + state.getPotentialEnergy()._value)
            half = count // 2
            swings.append(np.ptp(total))
            assert np.ptp(kinetic) > 100.0 * swings[-1]
            assert abs(np.mean(total[half:]) - np.mean(total[:half])) < 0.3 * swings[-1]
        assert 3.6 < swings[0] / swings[1] < 4.4

    def test_the_minimiser_finds_a_minimum(self, make, cluster):
        context = make.context(cluster)
        if "OpenCLPlatformName" in context.getPlatform().getPropertyNames():
            vendor = context.getPlatform().getPropertyValue(context, "OpenCLPlatformName")
            if vendor == "Portable Computing Language":
                pytest.skip("OpenMM 8.6's minimiser crashes on PoCL, whatever the force")
        before = energy_of(context)
        openmm.LocalEnergyMinimizer.minimize(context, 0.5, 100)
        assert energy_of(context) < before - 0.01
        forces = context.getState(forces=True).getForces(asNumpy=True)._value
        assert np.sqrt(np.mean(forces**2)) < 5.0  # kJ/mol/nm, 5 meV/Å
        make.assert_like_the_twin(context, cluster)

    def test_energies_in_trial_boxes(self, make, tiny_salt, solver):
        """What a barostat does: another box, its energy, and back again."""
        context = make.context(tiny_salt, **solver)
        before, (positions, _) = energy_of(context), coordinates(context)
        box = boxes(context)
        for scale in (1.004, 0.997):
            context.setPeriodicBoxVectors(*(scale * box))
            context.setPositions(scale * positions)
            make.assert_like_the_twin(context, tiny_salt)
            context.setPeriodicBoxVectors(*box)
            context.setPositions(positions)
            assert energy_of(context) == pytest.approx(before, rel=1e-12)

    def test_a_barostat(self, make, tiny_salt, solver):
        """Volume moves are accepted and rejected, and the energy is that of the box it is in."""
        barostat = openmm.MonteCarloBarostat(1.0, 300.0, 1)
        barostat.setRandomNumberSeed(2)
        integrator = openmm.VerletIntegrator(0.5 * FEMTOSECOND)
        context = make.context(tiny_salt, integrator, extra=(barostat,), **solver)
        accepted = []
        for _ in range(12):
            before = boxes(context)
            integrator.step(1)
            accepted.append(not np.array_equal(before, boxes(context)))
            if accepted[-1] not in accepted[:-1]:
                make.assert_like_the_twin(context, tiny_salt)
        assert set(accepted) == {True, False}
        make.assert_like_the_twin(context, tiny_salt)

    # -------------------------------------------------------------------------------- Systems

    def test_some_of_the_atoms(self, make, tiny_model, tiny_salt, platform):
        """The model sees its own atoms alone; other forces act on all of them."""
        atoms, chosen = with_bystanders(tiny_salt)
        structure = from_atoms(atoms)
        options = {"backend": self.backend, "long_range": make.long_range} | EXACT
        try:
            force = create_force(structure.topology, tiny_model, atoms=chosen, **options)
        except BackendError as error:
            if self.backend == "python":
                raise
            pytest.skip(str(error))
        force.setForceGroup(1)
        system = springs(structure)
        system.addForce(force)
        context = openmm.Context(system, openmm.VerletIntegrator(0.5 * FEMTOSECOND), *platform)
        context.setPositions(structure.positions)
        others = np.setdiff1d(np.arange(len(atoms)), chosen)
        for _ in range(2):
            state = context.getState(energy=True, forces=True, groups={1})
            forces = state.getForces(asNumpy=True)._value / FORCE_UNIT
            assert not forces[others].any()
            positions = 10.0 * coordinates(context)[0][chosen]
            cell = 10.0 * boxes(context)
            twin = evaluate_eagerly(tiny_model, atoms.numbers[chosen], positions, cell)
            energy = state.getPotentialEnergy()._value / EV_TO_KJ_PER_MOL
            assert abs(energy - twin.energy) < 1e-6 * twin.electrostatic
            assert relative(forces[chosen], twin.forces) < 1e-5
            charges = current_evaluation(context).charges
            np.testing.assert_allclose(charges, twin.charges, atol=1e-6)
            both, alone = (
                context.getState(forces=True, groups=groups).getForces(asNumpy=True)._value
                for groups in (-1, {0})
            )
            np.testing.assert_allclose(both - alone, forces * FORCE_UNIT, atol=1e-6)
            assert alone[others].all()
            steps(context, 2)

    def test_two_contexts_at_once(self, make, tiny_salt, platform):
        """Steps that take turns lead where steps of one's own lead."""
        pair = [make.context(tiny_salt) for _ in range(2)]
        pair[1].setPeriodicBoxVectors(*(1.01 * boxes(pair[1])))
        start = [coordinates(context)[0] for context in pair]
        alone = [steps(context, 4) for context in pair]
        for context, positions in zip(pair, start, strict=True):
            context.setPositions(positions)
            context.setVelocities(np.zeros_like(positions))
        for _ in range(4):
            together = [steps(context, 1) for context in pair]
        np.testing.assert_allclose(together, alone, rtol=0.0, atol=self.rounding(platform))
        assert np.abs(alone[0] - alone[1]).max() > 1e-6

    def test_reinitialising_a_context(self, make, tiny_salt, platform, solver):
        context = make.context(tiny_salt, **solver)
        steps(context, 3)
        before, energy = coordinates(context), energy_of(context)
        context.reinitialize(preserveState=True)
        limit = self.rounding(platform)
        np.testing.assert_allclose(coordinates(context), before, rtol=0.0, atol=limit)
        assert energy_of(context) == pytest.approx(energy, rel=1e-12)
        after = steps(context, 3)
        context.setPositions(before[0])
        context.setVelocities(before[1])
        limit = max(limit, tolerance_of(solver))
        np.testing.assert_allclose(steps(context, 3), after, rtol=0.0, atol=limit)

    # ----------------------------------------------------------------------------- continuity

    def test_a_checkpoint_continues_the_run(self, make, tiny_salt, platform, solver):
        """Bit by bit with a dense solver; an iterative one knows its past within its tolerance."""
        integrator = thermostat()
        context = make.context(tiny_salt, integrator, **solver)
        context.setVelocitiesToTemperature(200.0, 1)
        steps(context, 3)
        checkpoint = context.createCheckpoint()
        uninterrupted = steps(context, 4)
        steps(context, 2)
        context.loadCheckpoint(checkpoint)
        continued = steps(context, 4)
        np.testing.assert_allclose(continued, uninterrupted, rtol=0.0, atol=tolerance_of(solver))

    def test_a_state_continues_the_run(self, make, tiny_salt, platform, solver):
        """In another Context, after a detour through XML."""
        context = make.context(tiny_salt, **solver)
        context.setVelocitiesToTemperature(200.0, 1)
        steps(context, 3)
        state = context.getState(positions=True, velocities=True, integratorParameters=True)
        xml = openmm.XmlSerializer.serialize(state)
        uninterrupted = steps(context, 4)
        other = make.context(tiny_salt, **solver)
        other.setState(openmm.XmlSerializer.deserialize(xml))
        assert other.getStepCount() == 3
        limit = max(self.rounding(platform), tolerance_of(solver))
        np.testing.assert_allclose(steps(other, 4), uninterrupted, rtol=0.0, atol=limit)

    @pytest.mark.parametrize(("solver", "carrier"), CONTINUED)
    def test_another_process_continues_the_run(
        self, tmp_path_factory, tiny_model, tiny_salt, platform, long_range, solver, carrier
    ):
        """System, integrator and state as files are all it takes."""
        runs = continue_elsewhere(
            tmp_path_factory.getbasetemp(),
            tiny_model,
            Frozen(tiny_salt),
            self.backend,
            tuple(self.without),
        )
        folder = runs / f"{platform[0].getName()}-{long_range}-{solver}-{carrier}"
        found, expected = (np.load(folder / f"{n}.npy") for n in ("continued", "uninterrupted"))
        limit = max(self.rounding(platform), tolerance_of(SOLVERS[solver]))
        np.testing.assert_allclose(found, expected, rtol=0.0, atol=limit)
        assert np.abs(expected[1]).max() > 0.01  # it does move


@functools.cache
def continue_elsewhere(
    base: Path, model: NequIPLRPotential, atoms: Frozen, backend: str, without: tuple[str, ...]
) -> Path:
    """Folder of runs written here, one folder each, and continued by one other process."""
    folder = base / f"runs-{backend}"
    folder.mkdir()
    there = set(platform_names()) - set(without)
    names = [n for n in ("Reference", "CPU", "OpenCL", "CUDA", "HIP") if n in there]
    for name, long_range, (solver, carrier) in itertools.product(names, LONG_RANGE, CONTINUED):
        platform = openmm.Platform.getPlatform(name)
        properties = {"Precision": "double"} if name not in ("Reference", "CPU") else {}
        maker = Maker(model, backend, long_range, (platform, properties))
        integrator = None if carrier == "state.xml" else thermostat()
        context = maker.context(atoms.atoms, integrator, **SOLVERS[solver])
        write_run(folder / f"{name}-{long_range}-{solver}-{carrier}", context, carrier)
    root = str(Path(openmm_nequiplr.__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", CONTINUE, str(folder)]
    result = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert result.returncode == 0, result.stderr
    return folder


def write_run(folder: Path, context: openmm.Context, carrier: str) -> None:
    """Write what another process needs to go on, and where this one gets to."""
    folder.mkdir()
    context.setVelocitiesToTemperature(200.0, 1)
    steps(context, 3)
    platform = context.getPlatform()
    precise = "Precision" in platform.getPropertyNames()
    (folder / "platform").write_text(platform.getName() + " double" * precise)
    for name, thing in (("system", context.getSystem()), ("integrator", context.getIntegrator())):
        (folder / f"{name}.xml").write_text(openmm.XmlSerializer.serialize(thing))
    if carrier == "state.chk":
        (folder / carrier).write_bytes(context.createCheckpoint())
    else:
        state = context.getState(positions=True, velocities=True, integratorParameters=True)
        (folder / carrier).write_text(openmm.XmlSerializer.serialize(state))
    np.save(folder / "uninterrupted.npy", steps(context, 4))
