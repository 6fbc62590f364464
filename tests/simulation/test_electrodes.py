"""Electrodes at constant potential in OpenMM, in ASE and on the command line."""

from __future__ import annotations

import copy

import numpy as np
import openmm
import pytest
import torch
from ase.io import read
from openmm import app, unit

from openmm_nequiplr import (
    CommitteeReporter,
    EnergyReporter,
    NequIPLRCalculator,
    create_system,
    save_model,
)
from openmm_nequiplr.analysis import recompute
from openmm_nequiplr.cli import main
from openmm_nequiplr.errors import InputError
from openmm_nequiplr.simulation import (
    create_force,
    current_evaluation,
    from_atoms,
    get_computation,
    load_system,
    read_structure,
    save_system,
)

from .conformance import HELD
from .twins import context_of, copy_of, energy_of

FIRST, SECOND = (0, 1), (5, 4)
PAIR = {"electrodes": (FIRST, SECOND), "electrode_voltage": 2.0}
# tiny salt: their groups 0 and 1 are one, with the sum of the charges
CHARGES = {"total_charge": 1, **HELD}
pytestmark = pytest.mark.filterwarnings("ignore::openmm_nequiplr.errors.NequIPLRWarning")


def reference(model, atoms, voltage):
    """Energy (eV) and charges by the calculator."""
    atoms = atoms.copy()
    atoms.info["total_charge"] = 1.0
    atoms.calc = NequIPLRCalculator(model, **HELD, **PAIR | {"electrode_voltage": voltage})
    return atoms.get_potential_energy(), atoms.get_charges()


def test_the_voltage_of_a_context(tiny_model, tiny_salt):
    """Charge flows between the electrodes alone, and is the slope of the energy by the voltage."""
    start = from_atoms(tiny_salt)
    options = {**CHARGES, **PAIR, "precision": "double", "long_range": "graph"}
    system = create_system(start.topology, tiny_model, **options)
    contexts = [context_of(system, start.positions) for _ in range(2)]
    for voltage in (2.0, -1.0, 2.0):
        contexts[1].setParameter("electrode_voltage", voltage)
        energy, charges = reference(tiny_model, tiny_salt, voltage)
        assert energy_of(contexts[1]) == pytest.approx(energy, abs=1e-8)
        np.testing.assert_allclose(current_evaluation(contexts[1]).charges, charges, atol=1e-9)
        sums = np.bincount(HELD["charge_groups"], charges)
        np.testing.assert_allclose([sums[0] + sums[1], *sums[2:]], [1.0, 0.5, -0.5], atol=1e-10)
        assert energy_of(contexts[0]) == pytest.approx(reference(tiny_model, tiny_salt, 2.0)[0])


def test_the_charge_is_the_slope_of_the_functional_by_the_voltage(tiny_model, tiny_salt):
    alone = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for parameter in alone.energy_stage.parameters():
            parameter.zero_()
    energies = [reference(alone, tiny_salt, voltage)[0] for voltage in (2.001, 1.999)]
    charges = reference(alone, tiny_salt, 2.0)[1]
    half = 0.5 * (charges[list(SECOND)].sum() - charges[list(FIRST)].sum())
    assert (energies[0] - energies[1]) / 0.002 == pytest.approx(half, abs=1e-7)


def test_energy_is_conserved_and_charges_are_reported(tiny_model, tiny_salt, tmp_path):
    start = from_atoms(tiny_salt)
    system = create_system(start.topology, tiny_model, precision="double", **CHARGES, **PAIR)
    integrator = openmm.VerletIntegrator(0.0005)
    platform = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(start.topology, system, integrator, platform)
    simulation.context.setPositions(start.positions)
    simulation.context.setVelocitiesToTemperature(200.0, 3)
    simulation.reporters.append(EnergyReporter(tmp_path / "e.csv", 20))
    totals, kinetic = [], []
    for _ in range(20):
        simulation.step(2)
        state = simulation.context.getState(energy=True)
        kinetic.append(state.getKineticEnergy()._value)
        totals.append(kinetic[-1] + state.getPotentialEnergy()._value)
    assert np.ptp(totals) < 0.01 * np.ptp(kinetic)
    simulation.reporters.pop().close()
    last = np.genfromtxt(tmp_path / "e.csv", delimiter=",", names=True)[-1]
    charges = current_evaluation(simulation.context).charges
    found = [last["first_electrode_e"], last["second_electrode_e"]]
    np.testing.assert_allclose(found, [charges[list(side)].sum() for side in (FIRST, SECOND)])
    assert last["outside_eV"] == pytest.approx(-found[0] + found[1], abs=1e-7)  # at 2 V
    other = copy.deepcopy(tiny_model)
    with torch.no_grad():
        next(other.parameters()).mul_(1.1)
    simulation.context.setParameter("electrode_voltage", 3.0)
    spread = CommitteeReporter(tmp_path / "spread.npy", 1, [other], threshold=1e-12)
    simulation.reporters.append(spread)
    simulation.step(1)
    saved = read(tmp_path / "spread.extxyz")
    assert saved.info["electrode_voltage"] == 3.0
    saved.calc = NequIPLRCalculator(tiny_model)
    np.testing.assert_allclose(saved.get_charges(), saved.get_initial_charges(), atol=1e-5)


def test_names_units_and_some_of_the_atoms(tiny_model, tiny_salt):
    topology = app.Topology()
    for name, residue, symbols in (("M", "ION", "ArNa"), ("L", "WALL", "NaCl"), ("R", "R", "Na")):
        place = topology.addResidue(residue, topology.addChain(name))
        for symbol in symbols.replace("N", " N").replace("C", " C").split():
            topology.addAtom(symbol, app.Element.getBySymbol(symbol), place)
    expected = ((2, 1), (0,))  # of the atoms 4, 3, 2 and 1
    voltage = 2.0 * unit.volt
    for given in (("WALL", "R"), ("L", "4"), ("2-3", [4]), (np.array([2, 3]), (4,))):
        force = create_force(
            topology, tiny_model, atoms=[4, 3, 2, 1], electrodes=given, electrode_voltage=voltage
        )
        system = openmm.System()
        system.addForce(force)
        settings = get_computation(system).settings
        assert sorted(settings.electrodes[0]) == sorted(expected[0])
        assert settings.electrodes[1] == expected[1]
        assert settings.context_parameters == {"electrode_voltage": 2.0}
    with pytest.raises(InputError, match="electrodes: .*acts on, got 'atom 0'"):
        create_force(topology, tiny_model, atoms=[1, 2], electrodes=("M", [2]))


REFUSED = [
    ({"electrodes": ([0], [0, 1])}, "electrodes: .*in one group, got 'atom 0 more than once'"),
    ({"electrodes": ([0], [99])}, "electrodes: .*got 'atom 99'"),
    ({"electrodes": ([0], [])}, "electrodes: .*got 'group 1"),
    ({"electrodes": ([0],)}, "electrodes: expected two of them"),
    ({"electrodes": [0, 1]}, "electrodes: expected two of them"),
    ({"electrodes": "AB"}, "electrodes: expected two of them"),
    ({"electrodes": ("gold", [0])}, "electrodes: expected a chain, residues, or indices"),
    ({"electrodes": ("0-99", [0])}, "electrodes: expected a chain, residues, or indices"),
    ({"electrode_voltage": 1.0}, "electrode_voltage: expected 0 without electrodes"),
    ({**PAIR, "electrode_voltage": 1e3}, "electrode_voltage: .*at most 100 V"),
    ({**PAIR, "electrode_voltage": "high"}, "electrode_voltage: .*at most 100 V"),
    ({**PAIR, "electrode_voltage": 1.0 * unit.meter}, "electrode_voltage: expected a number in V"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_is_refused(tiny_model, tiny_salt, options, message):
    with pytest.raises(InputError, match=message):
        create_system(from_atoms(tiny_salt).topology, tiny_model, total_charge=0, **options)


def test_a_model_without_charges_and_a_changed_voltage(make_model, tiny_model, tiny_salt):
    with pytest.raises(InputError, match="electrodes: expected None for a model without charges"):
        create_system(from_atoms(tiny_salt).topology, make_model(equilibration=False), **PAIR)
    context = context_of(
        create_system(from_atoms(tiny_salt).topology, tiny_model, total_charge=0, **PAIR),
        from_atoms(tiny_salt).positions,
    )
    context.setParameter("electrode_voltage", 1e4)
    with pytest.raises(openmm.OpenMMException, match="electrode_voltage: .*at most 100 V"):
        energy_of(context)


def test_stored_systems_keep_them(tiny_model, tiny_salt, tmp_path):
    start = from_atoms(tiny_salt)
    system = create_system(start.topology, tiny_model, **CHARGES, **PAIR)
    save_system(system, tmp_path / "system.xml")
    expected = energy_of(context_of(system, start.positions))
    for again in (copy_of(system), load_system(tmp_path / "system.xml")):
        assert get_computation(again).settings == get_computation(system).settings
        assert energy_of(context_of(again, start.positions)) == pytest.approx(expected, abs=1e-12)


def test_calculator(tiny_model, tiny_salt):
    """It notices another voltage, reads columns, and joins no molecule to an electrode."""
    atoms = tiny_salt.copy()
    atoms.info["total_charge"] = 0.0
    molecules = {"charge_groups": "molecules", "group_charges": {"Na": 1}}
    atoms.calc = NequIPLRCalculator(tiny_model, **PAIR)
    first = atoms.get_potential_energy()
    atoms.info["electrode_voltage"] = 1.0
    second = atoms.get_potential_energy()
    assert abs(first - second) > 1e-3
    side = np.zeros(len(atoms), int)
    side[[5, 4]], side[[0, 1]] = 1, 2
    atoms.arrays["electrode"], atoms.info["electrode_voltage"] = side, -1.0
    assert atoms.get_potential_energy() == pytest.approx(second, abs=1e-9)
    far = tiny_salt[:3].copy()
    far.set_cell(None)
    far.pbc, far.positions = False, [[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [4.0, 0.0, 0.0]]
    far.symbols[:] = ["Na", "Na", "Cl"]
    far.calc = NequIPLRCalculator(tiny_model, **molecules, electrodes=([1], [2]))
    np.testing.assert_allclose(far.get_charges()[0], 1.0, atol=1e-10)  # touches an electrode
    far.arrays["electrode"], far.info["electrode_voltage"] = np.array([1, 2, 0]), 1.0
    fresh = NequIPLRCalculator(tiny_model, **molecules | {"group_charges": None})
    far.calc.group_charges = None
    np.testing.assert_allclose(far.get_charges(), fresh.get_charges(far), atol=1e-10)
    far.arrays["electrode"][2] = -1
    with pytest.raises(InputError, match="column 'electrode': expected 1, 2, and 0.*got -1"):
        far.get_charges()
    with pytest.raises(InputError, match="electrodes: expected two of them"):
        NequIPLRCalculator(tiny_model, electrodes=3)


def test_md_command_its_restart_and_the_analysis(tiny_model, tiny_salt, tmp_path, capsys):
    model, output = str(tmp_path / "tiny.safetensors"), tmp_path / "md"
    save_model(tiny_model, model)
    tiny_salt.write(tmp_path / "start.extxyz", format="extxyz")
    options = ["--steps", "4", "--report-interval", "2", "--seed", "1", "--threads", "1"]
    options += ["--timestep", "0.1", "--total-charge", "0", "--output", str(output)]
    options += ["--electrodes", "0-1", "5,4", "--electrode-voltage", "2"]
    assert main(["md", model, str(tmp_path / "start.extxyz"), *options]) == 0
    said = ", electrodes of 2 and 2 atoms at 2 V"
    assert said in capsys.readouterr().out
    again = ["md", model, "--steps", "2", "--restart", "--output", str(output)]
    assert main(again) == 0
    assert said in capsys.readouterr().out
    table = np.genfromtxt(output / "energies.csv", delimiter=",", names=True)
    assert len(table) == 3
    assert main(["analyze", model, str(output)]) == 0
    printed = capsys.readouterr().out
    assert said in printed
    assert float(printed.split("recorded in the run: ")[1].split(" e")[0]) < 1e-4
    last = read(output / "final.extxyz")
    found = recompute(model, [last]).charges[0]
    assert found[[0, 1]].sum() == pytest.approx(table["first_electrode_e"][-1], abs=1e-4)
    with pytest.warns(match="tells of electrodes is not taken over"):
        read_structure(output / "final.extxyz")
    assert main([*again, "--electrode-voltage", "1"]) == 2
    assert "electrode_voltage: expected 2.0, as in the run" in capsys.readouterr().err
    export = ["export", model, str(tmp_path / "start.extxyz"), "-o", str(tmp_path / "g.pt")]
    assert main([*export, "--electrodes", "0-1", "5,4", "--electrode-voltage", "2"]) == 0
    assert said in capsys.readouterr().err
    graph = torch.jit.load(str(tmp_path / "g.pt"))
    cell, places = torch.from_numpy(last.cell.array), torch.from_numpy(last.positions)
    np.testing.assert_allclose(graph.evaluate(places, cell)[2], found, atol=1e-5)
