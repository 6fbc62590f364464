"""The charge reporter: the right charges, in a file that survives."""

from __future__ import annotations

import copy

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_nequiplr import ChargeReporter, EnergyReporter
from openmm_nequiplr.errors import InputError, NequIPLRWarning
from openmm_nequiplr.model import Evaluator
from openmm_nequiplr.simulation import (
    StabilityReporter,
    current_evaluation,
    get_computation,
    load_charges,
)

from .twins import PLATFORMS, Frames, simulation_of


def charges_at(model, symbols, positions, box):
    graph = model.build_graph(symbols, positions, box, True)
    return Evaluator(copy.deepcopy(model)).charges(graph)[0]


@pytest.mark.parametrize(
    ("platform", "barostat"),
    [("Reference", False), *((name, True) for name in PLATFORMS if name != "Reference")],
    indirect=["platform"],
)
def test_charges_belong_to_the_frame(tmp_path, ionic_model, rock_salt, platform, barostat):
    forces = [openmm.MonteCarloBarostat(1000.0, 300.0, 1)] if barostat else []
    simulation = simulation_of(rock_salt, ionic_model, *forces, platform=platform)
    frames = Frames(3)
    simulation.reporters += [ChargeReporter(tmp_path / "charges.npy", 3), frames]
    simulation.step(9)
    found = load_charges(tmp_path / "charges.npy")
    np.testing.assert_array_equal(found.steps, [3, 6, 9])
    np.testing.assert_allclose(found.times, [0.003, 0.006, 0.009])
    assert found.charges.shape == (3, 64)
    for index, (positions, box) in enumerate(frames.frames):
        expected = charges_at(ionic_model, rock_salt.symbols, positions, box)
        np.testing.assert_allclose(found.charges[index], expected, atol=1e-5)
    assert not np.allclose(found.charges[0], found.charges[2], atol=1e-4)


def test_the_dipole_is_that_of_the_charges(tmp_path, ionic_model, cluster):
    simulation = simulation_of(cluster, ionic_model)
    simulation.reporters.append(ChargeReporter(tmp_path / "charges.npy", 2))
    simulation.step(2)
    positions = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
    found = load_charges(tmp_path / "charges.npy")
    np.testing.assert_allclose(found.dipoles[0], found.charges[0] @ (10.0 * positions), atol=1e-9)


def test_the_dipole_follows_atoms_through_flips_and_wraps(tmp_path, ionic_model, rock_salt):
    atoms = rock_salt.copy()
    cell = atoms.cell.array.copy()
    cell[2, 0] = 0.5 * cell[0, 0]
    atoms.set_cell(cell, scale_atoms=True)
    simulation = simulation_of(atoms, ionic_model)
    reporter = ChargeReporter(tmp_path / "charges.npy", 1)
    simulation.reporters.append(reporter)
    simulation.step(2)
    context = simulation.context
    for strain in (1.001, 1.0):
        state = context.getState(positions=True)
        positions = state.getPositions(asNumpy=True)._value * strain
        box = state.getPeriodicBoxVectors(asNumpy=True)._value * strain
        box[2] -= np.sign(box[2, 0]) * box[0]  # other vectors, as a flexible barostat chooses them
        context.setPeriodicBoxVectors(*box)
        context.setPositions(positions - np.floor(positions @ np.linalg.inv(box)) @ box)
        simulation.step(1)
    reporter.close()
    found = load_charges(tmp_path / "charges.npy")
    jumps = np.abs(np.diff(found.dipoles, axis=0)).max(axis=1)
    assert len(jumps) == 3
    assert jumps.max() < 0.5


def test_reports_after_a_step_cost_half_an_evaluation(tmp_path, ionic_model, cluster):
    simulation = simulation_of(cluster, ionic_model)
    simulation.reporters.append(ChargeReporter(tmp_path / "charges.npy", 1))
    simulation.step(4)
    assert get_computation(simulation.system).evaluations == 4


def test_numpy_reads_the_file_while_it_grows(tmp_path, ionic_model, cluster):
    path = tmp_path / "charges.npy"
    simulation = simulation_of(cluster, ionic_model)
    simulation.reporters.append(ChargeReporter(path, 1))
    for count in (1, 2, 3):
        simulation.step(1)
        records = np.load(path, mmap_mode="r")
        assert records["charges"].shape == (count, 8)
        np.testing.assert_allclose(records["charges"].sum(axis=1), 0.0, atol=1e-9)


def run_in_parts(path, model, atoms, interrupted):
    """Four frames, then a restart from step 4 after ``interrupted`` damaged the file."""
    first = simulation_of(atoms, model)
    reporter = ChargeReporter(path, 2)
    first.reporters.append(reporter)
    first.step(4)
    state = first.context.getState(positions=True, velocities=True)
    first.step(4)
    reporter.close()
    interrupted(path)
    second = simulation_of(atoms, model)
    second.context.setState(state)
    second.reporters.append(ChargeReporter(path, 2, append=True))
    second.step(4)
    return load_charges(path)


def test_a_restart_drops_what_it_will_do_again(tmp_path, ionic_model, cluster):
    found = run_in_parts(tmp_path / "c.npy", ionic_model, cluster, lambda path: None)
    np.testing.assert_array_equal(found.steps, [2, 4, 6, 8])


@pytest.mark.parametrize("tail", [b"\0" * 40, b"\0" * 400])
def test_half_written_frames_do_no_harm(tmp_path, ionic_model, cluster, tail):
    def interrupted(path):
        with open(path, "ab") as handle:
            handle.write(tail)

    found = run_in_parts(tmp_path / "c.npy", ionic_model, cluster, interrupted)
    np.testing.assert_array_equal(found.steps, [2, 4, 6, 8])


def test_a_lost_tail_is_noticed(tmp_path, ionic_model, cluster):
    def interrupted(path):
        with open(path, "r+b") as handle:
            handle.truncate(path.stat().st_size - 30)

    found = run_in_parts(tmp_path / "c.npy", ionic_model, cluster, interrupted)
    np.testing.assert_array_equal(found.steps, [2, 4, 6, 8])


def test_a_closed_reporter_goes_on(tmp_path, ionic_model, cluster):
    simulation = simulation_of(cluster, ionic_model)
    reporter = ChargeReporter(tmp_path / "c.npy", 1)
    simulation.reporters.append(reporter)
    simulation.step(2)
    reporter.close()
    simulation.step(1)
    np.testing.assert_array_equal(load_charges(tmp_path / "c.npy").steps, [1, 2, 3])


def read_steps(path):
    if path.suffix == ".csv":
        return np.genfromtxt(path, delimiter=",", names=True)["step"].astype(int).tolist()
    return load_charges(path).steps.tolist()


@pytest.mark.parametrize("kind", [ChargeReporter, EnergyReporter])
def test_frames_are_not_lost_in_silence(tmp_path, ionic_model, cluster, kind):
    path = tmp_path / ("c.npy" if kind is ChargeReporter else "c.csv")
    simulation = simulation_of(cluster, ionic_model)
    reporter = kind(path, 2)
    simulation.reporters.append(reporter)
    simulation.step(6)
    reporter.close()
    another = simulation_of(cluster, ionic_model)
    another.reporters.append(kind(path, 1, append=True))
    with pytest.raises(InputError, match="append: .* at step 0, before all of the 3 frames in"):
        another.step(1)
    assert read_steps(path) == [2, 4, 6]
    another.currentStep = 4
    with pytest.warns(NequIPLRWarning, match="1 frames later than the current step 4 are dropped"):
        another.step(1)
    assert read_steps(path) == [2, 4, 5]


def test_a_reporter_may_change_simulations(tmp_path, ionic_model, cluster, rock_salt):
    """It reports the charges of the System that it is in, not of the one that it was in."""
    charges, energies = ChargeReporter(tmp_path / "c.npy", 1), EnergyReporter(tmp_path / "e.csv", 1)
    guard, found = StabilityReporter(1), []
    for charge in (0, 1):
        simulation = simulation_of(cluster, ionic_model, total_charge=charge)
        simulation.currentStep = charge
        simulation.reporters += [charges, energies, guard]
        simulation.step(1)
        found.append(current_evaluation(simulation.context).energy)
    sums = load_charges(tmp_path / "c.npy").charges.sum(axis=1)
    np.testing.assert_allclose(sums, [0, 1], atol=1e-9)
    table = np.genfromtxt(tmp_path / "e.csv", delimiter=",", names=True)
    np.testing.assert_allclose(table["model_eV"], found, atol=1e-6)
    assert guard._reference.tolist() == pytest.approx([found[1]], abs=1e-6)
    other = simulation_of(rock_salt, ionic_model)
    other.reporters.append(charges)
    with pytest.raises(InputError, match="simulation: expected 8 atoms, as in .*got '64 atoms'"):
        other.step(1)


@pytest.mark.parametrize("kind", [ChargeReporter, EnergyReporter])
def test_two_reporters_of_one_file_are_refused(tmp_path, ionic_model, cluster, kind):
    simulation = simulation_of(cluster, ionic_model)
    simulation.reporters.append(kind(tmp_path / "file", 1))
    simulation.step(2)
    simulation.reporters.append(kind(tmp_path / "file", 1))
    with pytest.raises(InputError, match="file: expected a file that nothing else writes to"):
        simulation.step(1)


def test_wrong_use(tmp_path, ionic_model, cluster, rock_salt):
    with pytest.raises(InputError, match="reportInterval"):
        ChargeReporter(tmp_path / "c.npy", 0)
    other = simulation_of(rock_salt, ionic_model)
    other.reporters.append(ChargeReporter(tmp_path / "c.npy", 1))
    other.step(1)
    simulation = simulation_of(cluster, ionic_model)
    simulation.reporters.append(ChargeReporter(tmp_path / "c.npy", 1, append=True))
    with pytest.raises(InputError, match="file: expected records of 8 atoms"):
        simulation.step(1)
    bad = tmp_path / "bad.npy"
    bad.write_text("something else")
    with pytest.raises(InputError, match="written by ChargeReporter"):
        load_charges(bad)
    np.save(bad, np.zeros(3))
    with pytest.raises(InputError, match="written by ChargeReporter"):
        load_charges(bad)
    system = openmm.System()
    system.addParticle(1.0)
    foreign = app.Simulation(
        app.Topology(), system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform(0)
    )
    foreign.reporters.append(ChargeReporter(tmp_path / "d.npy", 1))
    with pytest.raises(InputError, match="made by create_system"):
        foreign.step(1)
