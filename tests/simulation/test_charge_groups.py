"""Charges of groups of atoms that are held, through topologies, files and commands."""

from __future__ import annotations

import json
import warnings

import numpy as np
import openmm
import pytest
from ase import Atoms
from ase.io import read
from openmm import app, unit

from openmm_nequiplr import NequIPLRCalculator, create_system, export_torch_force
from openmm_nequiplr.analysis import recompute
from openmm_nequiplr.cli import main
from openmm_nequiplr.errors import InputError, NequIPLRWarning
from openmm_nequiplr.simulation import (
    create_force,
    current_evaluation,
    from_atoms,
    get_computation,
    load_charges,
    load_system,
    save_system,
)

from .twins import (
    context_of,
    copy_of,
    energy_and_forces,
    energy_of,
    evaluate_eagerly,
    relative,
)

BONDS = [(4, 1), (1, 6), (0, 5), (5, 3)]  # Cl₂ and two more, NaOCl; the Na with index 2 is alone
SYMBOLS = ["Na", "Cl", "Na", "Cl", "O", "O", "Cl"]
MOLECULES = [0, 1, 2, 0, 1, 0, 1]


@pytest.fixture
def topology():
    """Three molecules whose atoms are not in order."""
    made = app.Topology()
    chain = made.addChain()
    for symbol in SYMBOLS:
        residue = made.addResidue(symbol, chain)
        made.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    atoms = list(made.atoms())
    for first, second in BONDS:
        made.addBond(atoms[first], atoms[second])
    return made


@pytest.fixture
def positions(molecule):
    """Å."""
    return molecule.positions


def groups_of(system):
    settings = get_computation(system).settings
    return settings.charge_groups, settings.group_charges, settings.total_charge


def test_molecules_are_what_bonds_join(tiny_model, topology, positions):
    given = {"charge_groups": "molecules", "group_charges": {"Na": 1, "Cl2O": -1}}
    system = create_system(topology, tiny_model, total_charge=0, **given)
    assert groups_of(system) == (tuple(MOLECULES), (0.0, -1.0, 1.0), 0.0)
    context = context_of(system, 0.1 * positions)
    numbers = [app.Element.getBySymbol(symbol).atomic_number for symbol in SYMBOLS]
    held = {"charge_groups": MOLECULES, "group_charges": [0, -1, 1]}
    expected = evaluate_eagerly(tiny_model, numbers, positions, None, **held)
    assert energy_of(context) == pytest.approx(expected.energy, abs=1e-6)
    charges = current_evaluation(context).charges
    np.testing.assert_allclose(np.bincount(MOLECULES, charges), [0, -1, 1], atol=1e-10)
    assert charges[2] == pytest.approx(1.0, abs=1e-12)


def test_formal_charges_are_taken_and_sum_to_the_total_charge(tiny_model, topology):
    for index, charge in ((2, 1), (4, -1), (1, 0)):
        list(topology.atoms())[index].formalCharge = charge
    with pytest.warns(NequIPLRWarning, match="charge 0 is assumed for 1 of 3 groups"):
        system = create_system(topology, tiny_model, charge_groups="molecules")
    assert groups_of(system) == (tuple(MOLECULES), (0.0, -1.0, 1.0), 0.0)
    next(topology.atoms()).formalCharge = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        system = create_system(topology, tiny_model, charge_groups="molecules")
    assert groups_of(system)[1:] == ((1.0, -1.0, 1.0), 1.0)
    with pytest.raises(InputError, match="group_charges: .*total charge \\+0 e, got '\\+1 e'"):
        create_system(topology, tiny_model, total_charge=0, charge_groups="molecules")


def test_atoms_that_bonds_leave_out_are_told(tiny_model, topology):
    """Alone, Na (index 2) may be an ion, but O (index 5) is hardly a molecule."""
    atoms = list(topology.atoms())
    topology._bonds = [bond for bond in topology.bonds() if atoms[5] not in bond]
    given = {"charge_groups": "molecules", "group_charges": {"Cl2O": 0}, "total_charge": 0}
    with pytest.warns(NequIPLRWarning, match=r"1 atoms such as O \(index 5\) are groups of their"):
        create_system(topology, tiny_model, **given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create_system(topology, tiny_model, **given | {"electrodes": ([5], [0])})


@pytest.mark.filterwarnings("ignore::openmm_nequiplr.errors.NequIPLRWarning")
def test_what_is_refused(tiny_model, make_model, topology):
    bare = app.Topology()
    residue = bare.addResidue("X", bare.addChain())
    for symbol in ("Na", "Cl"):
        bare.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    with pytest.raises(InputError, match="charge_groups: .*with bonds.*createStandardBonds"):
        create_system(bare, tiny_model, charge_groups="molecules")
    formula = "formulas of groups, which are Cl2NaO2, ClNa"
    refused = [
        ({"charge_groups": "residues"}, "'molecules', a label"),
        ({"charge_groups": 3}, "'molecules', a label"),
        ({"charge_groups": [[0, 1], 2]}, "'molecules', a label"),
        ({"charge_groups": [[0, 9]]}, "indices of atoms that the model acts on"),
        ({"charge_groups": [np.array([True, False])]}, "indices of .*got 'atom True'"),
        ({"charge_groups": [[0, 1]], "group_charges": {"Xe": 1}}, formula),
        ({"charge_groups": [[0, 1]], "group_charges": [1.0, 0.0, 0.0]}, "one for each of 2 groups"),
        ({"charge_groups": "molecules", "total_charge": 1}, "sum to the total charge"),
        ({"group_charges": [1.0]}, "None without charge_groups"),
        ({"charge_groups": [[0, 1]], "group_charges": 1 * unit.meter}, "elementary charge"),
    ]
    for options, message in refused:
        with pytest.raises(InputError, match=message):
            create_system(topology, tiny_model, **options)
    with pytest.raises(InputError, match="without charges"):
        create_system(topology, make_model(equilibration=False), charge_groups=[[0, 1]])


def test_lists_name_atoms_of_the_topology(tiny_model, topology, positions):
    """Where the model acts on some of them, too; what is in no list has the rest of the charge."""
    chosen = [6, 2, 5, 0, 1]
    charges = unit.Quantity([1.0], unit.elementary_charge)
    given = {"charge_groups": [np.array([0, 5])], "group_charges": charges, "total_charge": -1}
    force = create_force(topology, tiny_model, atoms=chosen, **given)
    system = openmm.System()
    for _ in SYMBOLS:
        system.addParticle(20.0)
    system.addForce(force)
    assert groups_of(system) == ((1, 1, 0, 0, 1), (1.0, -2.0), -1.0)
    charges = current_evaluation(context_of(system, 0.1 * positions)).charges
    assert charges[[2, 3]].sum() == pytest.approx(1.0, abs=1e-10)


def test_one_group_is_no_constraint(tiny_model, topology):
    system = create_system(topology, tiny_model, total_charge=1, charge_groups=[range(7)])
    assert groups_of(system) == (None, None, 1.0)


def test_stored_systems_keep_them(tiny_model, topology, positions, tmp_path):
    given = {"charge_groups": [[0, 1]], "group_charges": [1.0, 0.0]}
    system = create_system(topology, tiny_model, **given)
    save_system(system, tmp_path / "system.xml")
    expected = energy_of(context_of(system, 0.1 * positions))
    for again in (copy_of(system), load_system(tmp_path / "system.xml")):
        assert groups_of(again) == groups_of(system)
        assert energy_of(context_of(again, 0.1 * positions)) == pytest.approx(expected, abs=1e-12)


def two_molecules(box=None):
    """NaCl and NaOCl, 6 Å apart."""
    points = [[0, 0, 0], [2.3, 0, 0], [6.5, 0.2, 0], [8.3, 0, 0.3], [8.3, 2.0, 0]]
    atoms = Atoms("NaClNaOCl", points)
    if box is not None:
        atoms.set_cell([box] * 3)
        atoms.pbc = True
        atoms.positions[1, 0] += box  # another image of it
    return atoms


@pytest.mark.parametrize("box", [None, 12.0])
def test_calculator_finds_molecules_and_reads_columns(tiny_model, box):
    atoms = two_molecules(box)
    atoms.calc = NequIPLRCalculator(
        tiny_model, charge_groups="molecules", group_charges={"ClNa": 0.5}
    )
    charges = atoms.get_charges()
    np.testing.assert_allclose([charges[:2].sum(), charges[2:].sum()], [0.5, 0.0], atol=1e-10)
    first = atoms.get_potential_energy()
    atoms.arrays["charge_group"] = np.array([5, 5, 5, 2, 2])
    atoms.info["group_charges"] = np.array([1.0, 0.0])  # of group 2 and 5
    second = atoms.get_potential_energy()
    charges = atoms.get_charges()
    np.testing.assert_allclose([charges[:3].sum(), charges[3:].sum()], [0.0, 1.0], atol=1e-10)
    assert abs(first - second) > 1e-3
    atoms.info["total_charge"] = 0.0
    with pytest.raises(InputError, match="sum to the total charge"):
        atoms.get_potential_energy()


@pytest.mark.filterwarnings("ignore::openmm_nequiplr.errors.NequIPLRWarning")
def test_md_command_its_restart_and_the_analysis(inputs, tiny_model, tmp_path, capsys):
    from openmm_nequiplr import save_model

    model, start = str(tmp_path / "tiny.safetensors"), tmp_path / "start.extxyz"
    save_model(tiny_model, model)
    two_molecules().write(start, format="extxyz")
    output = tmp_path / "md"
    options = ["--steps", "4", "--report-interval", "2", "--seed", "1", "--threads", "1"]
    options += ["--timestep", "0.1", "--total-charge", "0.5", "--output", str(output)]
    options += ["--charge-groups", "molecules", "--group-charges", "ClNa=0.5"]
    arguments = ["md", model, str(start), *options]
    assert main(arguments) == 0
    assert "charges of 2 groups constrained" in capsys.readouterr().out
    settings = json.loads((output / "run.json").read_text())
    assert settings["charge_groups"] == [0, 0, 1, 1, 1]
    charges = load_charges(output / "charges.npy").charges
    sums = np.array([np.bincount([0, 0, 1, 1, 1], each) for each in charges])
    np.testing.assert_allclose(sums, [[0.5, 0.0]] * len(charges), atol=1e-5)
    assert main(["md", model, "--steps", "2", "--restart", "--output", str(output)]) == 0
    assert "charges of 2 groups constrained" in capsys.readouterr().out
    assert main(["analyze", model, str(output)]) == 0
    said = capsys.readouterr().out
    assert "charges of 2 groups constrained" in said
    assert float(said.split("recorded in the run: ")[1].split(" e")[0]) < 1e-4
    last = read(output / "final.extxyz")
    found = recompute(model, [last]).charges[0]
    np.testing.assert_allclose(np.bincount([0, 0, 1, 1, 1], found), [0.5, 0.0], atol=1e-10)
    further = ["--steps", "1", "--output", str(tmp_path / "further")]
    assert main(["md", model, str(output / "final.extxyz"), *further]) == 0
    assert "charges of 2 groups constrained" in capsys.readouterr().out  # as the file tells
    assert json.loads((tmp_path / "further/run.json").read_text())["group_charges"] == [0.5, 0.0]
    with pytest.raises(SystemExit):
        main([*arguments[:-1], "ClNa"])
    assert "--group-charges: expected NAME=E, got ClNa" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::openmm_nequiplr.errors.NequIPLRWarning")
def test_export_command(tiny_model, tmp_path, capsys):
    import torch

    from openmm_nequiplr import save_model

    model, start, output = (str(tmp_path / n) for n in ("m.safetensors", "s.extxyz", "graph.pt"))
    save_model(tiny_model, model)
    atoms = two_molecules()
    atoms.write(start, format="extxyz")
    arguments = ["export", model, start, "-o", output, "--charge-groups", "molecules"]
    assert main(arguments) == 0
    assert "charges of 2 groups constrained" in capsys.readouterr().err
    charges = torch.jit.load(output).evaluate(torch.from_numpy(atoms.positions), None)[2]
    np.testing.assert_allclose([charges[:2].sum(), charges[2:].sum()], 0.0, atol=1e-10)


@pytest.mark.filterwarnings("ignore::openmm_nequiplr.errors.NequIPLRWarning")
def test_field_on_molecules_in_a_box(tiny_model, rng):
    """A PythonForce makes them whole; forces are those of the energy, with OpenMM's mesh too."""
    atoms, given = two_molecules(12.0), {"charge_groups": ((0, 1),), "group_charges": (0, 0)}
    start = from_atoms(atoms)
    options = {"electric_field": (2.0, -1.0, 3.0), "total_charge": 0, **given}
    for long_range, limit in (("graph", 1e-6), ("openmm", 1e-4)):
        system = create_system(start.topology, tiny_model, long_range=long_range, **options)
        context = context_of(system, start.positions)
        forces = energy_and_forces(context)[1]
        found, expected = [], []
        for _ in range(4):
            direction = rng.normal(size=forces.shape)
            energies = []
            for sign in (-1.0, 1.0):
                context.setPositions(start.positions + sign * 5e-6 * direction)
                energies.append(energy_and_forces(context)[0])
            found.append(np.vdot(forces, direction))
            expected.append((energies[0] - energies[1]) / 1e-5)
        assert relative(np.array(found), np.array(expected)) < limit
    with pytest.raises(InputError, match="electric_field: .*TorchScript"):
        export_torch_force(tiny_model, start.topology, "none.pt", **options)
