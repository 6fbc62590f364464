"""Systems: energies and forces of OpenMM against the evaluator, and every way to get it wrong."""

from __future__ import annotations

import copy

import ase
import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_nequiplr import create_system, save_model
from openmm_nequiplr.errors import (
    BoxError,
    InputError,
    NequIPLRWarning,
    UnknownElementError,
)
from openmm_nequiplr.model import Evaluator
from openmm_nequiplr.simulation import (
    create_force,
    current_evaluation,
    from_atoms,
    get_computation,
)
from openmm_nequiplr.units import EV_TO_KJ_PER_MOL

from .twins import context_of, relative

FORCE_UNIT = 10.0 * EV_TO_KJ_PER_MOL
REFERENCE = openmm.Platform.getPlatform("Reference")


def make_context(atoms, model, platform=REFERENCE, properties=None, **options):
    """A Context at the positions of ``atoms``, and the rotation that led there."""
    structure = from_atoms(atoms)
    system = create_system(structure.topology, model, **options)
    return context_of(system, structure.positions, platform, properties), structure


def energy_and_forces(context):
    """In eV and eV/Å."""
    state = context.getState(energy=True, forces=True)
    forces = state.getForces(asNumpy=True)._value / FORCE_UNIT
    return state.getPotentialEnergy()._value / EV_TO_KJ_PER_MOL, forces


def expected_evaluation(atoms, model, total_charge=0.0):
    graph = model.build_graph(
        atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, total_charge
    )
    return Evaluator(copy.deepcopy(model))(graph)


def electrostatic(evaluation):
    return abs(sum(v for k, v in evaluation.parts.items() if k != "short_range"))


# ------------------------------------------------------------------------------------ the numbers


@pytest.mark.parametrize(
    ("name", "total_charge", "long_range"),
    [
        ("rock_salt", 0, "openmm"),
        ("skewed_salt", -1, "openmm"),
        ("skewed_salt", -1, "graph"),
        ("cluster", -1, "openmm"),
    ],
)
def test_energy_and_forces(request, ionic_model, name, total_charge, long_range):
    atoms = request.getfixturevalue(name)
    context, structure = make_context(
        atoms, ionic_model, total_charge=total_charge, long_range=long_range
    )
    expected = expected_evaluation(atoms, ionic_model, total_charge)
    energy, forces = energy_and_forces(context)
    exact = long_range == "graph" or name == "cluster"
    tolerance = 1e-9 if exact else 1e-5
    assert abs(energy - expected.energy) < tolerance * electrostatic(expected)
    forces = forces @ structure.rotation
    assert relative(forces, expected.forces) < (1e-8 if exact else 1e-4)
    charges = current_evaluation(context).charges
    np.testing.assert_allclose(charges, expected.charges, atol=1e-9)
    assert charges.sum() == pytest.approx(total_charge, abs=1e-9)


@pytest.mark.parametrize("options", [{"num_layers_charge": 0}, {"electrostatic_energy": "coulomb"}])
def test_other_kinds_of_models(make_model, rock_salt, options):
    model = make_model(**options)
    expected = expected_evaluation(rock_salt, model)
    context, _ = make_context(rock_salt, model)
    energy, forces = energy_and_forces(context)
    assert energy == pytest.approx(expected.energy, abs=1e-5)
    assert relative(forces, expected.forces) < 1e-3


def test_precision_follows_the_model(ionic_model, rock_salt):
    topology = from_atoms(rock_salt).topology
    single = copy.deepcopy(ionic_model).float()
    for model, precision in ((ionic_model, "double"), (single, "single")):
        system = create_system(topology, model)
        assert get_computation(system).settings.precision == precision


def test_the_model_is_copied(ionic_model, rock_salt):
    import torch

    model = copy.deepcopy(ionic_model)
    context, _ = make_context(rock_salt, model)
    with torch.no_grad():
        model.energy_shifts += 5.0
    model.float()
    expected = expected_evaluation(rock_salt, ionic_model).energy
    assert energy_and_forces(context)[0] == pytest.approx(expected, abs=1e-3)


def test_a_model_file_will_do(tmp_path, ionic_model, rock_salt):
    path = tmp_path / "salt.safetensors"
    save_model(ionic_model, path)
    context, _ = make_context(rock_salt, str(path))
    path.unlink()  # the System holds the model itself
    expected = expected_evaluation(rock_salt, ionic_model).energy
    assert energy_and_forces(context)[0] == pytest.approx(expected, abs=1e-3)


# ----------------------------------------------------------------------------------- the System


def test_what_the_system_consists_of(ionic_model, rock_salt, cluster):
    system = create_system(from_atoms(rock_salt).topology, ionic_model)
    assert system.getNumParticles() == 64
    assert system.getParticleMass(0)._value == pytest.approx(22.99, abs=0.01)
    assert system.usesPeriodicBoundaryConditions()
    box = [v.value_in_unit(unit.nanometer) for v in system.getDefaultPeriodicBoxVectors()]
    np.testing.assert_allclose(np.array(box), 1.128 * np.eye(3))
    names = [type(force).__name__ for force in system.getForces()]
    assert names == ["PythonForce", "CMMotionRemover"]
    assert system.getForce(0).getName() == "NequIPLR"
    system = create_system(from_atoms(cluster).topology, ionic_model, remove_cm_motion=False)
    assert not system.usesPeriodicBoundaryConditions()
    assert system.getNumForces() == 1


def test_energies_per_part(ionic_model, rock_salt):
    context, _ = make_context(rock_salt, ionic_model)
    evaluation = current_evaluation(context)
    assert set(evaluation.parts) == {"short_range", "electronegativity", "hardness", "coulomb"}
    energy, _ = energy_and_forces(context)
    assert sum(evaluation.parts.values()) == pytest.approx(energy, rel=1e-9)
    assert evaluation.charges.shape == (64,)
    assert evaluation.dipole.shape == (3,)


def test_units_are_understood(ionic_model, rock_salt):
    topology = from_atoms(rock_salt).topology
    system = create_system(topology, ionic_model, total_charge=1 * unit.elementary_charge)
    assert get_computation(system).settings.total_charge == 1.0


def test_remembered_results_cost_nothing(ionic_model, rock_salt):
    context, structure = make_context(rock_salt, ionic_model, long_range="graph")
    computation = get_computation(context.getSystem())
    energy, _ = energy_and_forces(context)
    context.setPositions(structure.positions + 0.001)
    energy_and_forces(context)
    assert computation.evaluations == 2
    context.setPositions(structure.positions)
    assert energy_and_forces(context)[0] == energy
    current_evaluation(context)
    assert computation.evaluations == 2
    context.setPeriodicBoxVectors(*(1.01 * structure.box))
    assert energy_and_forces(context)[0] != energy
    assert computation.evaluations == 3


# --------------------------------------------------------------------------------------- errors


def topology_of(symbols, box=None):
    topology = app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    for symbol in symbols:
        element = None if symbol is None else app.Element.getBySymbol(symbol)
        topology.addAtom(str(symbol), element, residue)
    if box is not None:
        # past the setter, which refuses some boxes that files can bring along
        topology._periodicBoxVectors = unit.Quantity(
            tuple(openmm.Vec3(*row) for row in box.tolist()), unit.nanometer
        )
    return topology


def test_unknown_elements(ionic_model):
    with pytest.raises(UnknownElementError) as error:
        create_system(topology_of(["Na", "Xe", "Cl", "Xe", "Kr"]), ionic_model)
    message = str(error.value)
    assert "O, Na, Cl" in message
    assert "Kr (1 atoms, first index 4), Xe (2 atoms, first index 1)" in message


def test_atoms_without_element(ionic_model):
    with pytest.raises(InputError, match=r"element for every atom.*index 1"):
        create_system(topology_of(["Na", None]), ionic_model)
    with pytest.raises(InputError, match="at least one atom"):
        create_system(topology_of([]), ionic_model)


def test_a_missing_box(ionic_model):
    model = copy.deepcopy(ionic_model)
    model.metadata["periodic"] = "True"
    with pytest.raises(BoxError, match=r"periodic box vectors.*setPeriodicBoxVectors"):
        create_system(topology_of(["Na", "Cl"]), model)
    model.metadata["periodic"] = "False"
    create_system(topology_of(["Na", "Cl"]), model)


def test_a_box_that_is_too_small(ionic_model):
    topology = topology_of(["Na", "Cl"], 0.5 * np.eye(3))
    with pytest.raises(BoxError, match='long_range="graph"'):
        create_system(topology, ionic_model)
    system = create_system(topology, ionic_model, long_range="graph")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), REFERENCE)
    context.setPositions([[0.0, 0.0, 0.0], [0.25, 0.02, 0.01]])
    assert np.isfinite(energy_and_forces(context)[0])


def test_a_degenerate_box(ionic_model):
    flat = np.array([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 1.0, 0.0]])
    with pytest.raises(BoxError, match="three independent vectors"):
        create_system(topology_of(["Na"], flat), ionic_model)
    turned = np.array([[0.0, 2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    with pytest.raises(BoxError, match=r"orientation.*from_atoms"):
        create_system(topology_of(["Na"], turned), ionic_model)


def test_a_box_that_is_not_reduced(ionic_model):
    box = np.array([[2.0, 0.0, 0.0], [1.5, 2.0, 0.0], [-1.2, 3.1, 2.0]])
    system = create_system(topology_of(["Na"], box), ionic_model)
    vectors = np.array([v._value for v in system.getDefaultPeriodicBoxVectors()])
    np.testing.assert_allclose(vectors[1], [-0.5, 2.0, 0.0])
    np.testing.assert_allclose(vectors[2], [-0.2, -0.9, 2.0], atol=1e-12)


def test_a_box_as_a_system_returns_it(ionic_model, rock_salt):
    topology = from_atoms(rock_salt).topology
    system = create_system(topology, ionic_model)
    topology.setPeriodicBoxVectors(system.getDefaultPeriodicBoxVectors())
    again = create_system(topology, ionic_model)
    assert again.getDefaultPeriodicBoxVectors() == system.getDefaultPeriodicBoxVectors()


def test_elements_of_other_atoms_do_not_matter(ionic_model):
    topology = topology_of(["Xe", "Na", None, "Cl"])
    assert list(create_force(topology, ionic_model, atoms=[3, 1]).getParticles()) == [3, 1]
    with pytest.raises(UnknownElementError, match=r"Xe \(1 atoms, first index 0\)"):
        create_force(topology, ionic_model, atoms=[1, 0])
    with pytest.raises(InputError, match=r"got none for 1 of 2 atoms.*index 2"):
        create_force(topology, ionic_model, atoms=[2, 3])


def test_positions_that_are_no_numbers(ionic_model, rock_salt, platform):
    context, structure = make_context(rock_salt, ionic_model, *platform)

    def evaluate(value):
        positions = structure.positions.copy()
        positions[7, 1] = value
        context.setPositions(positions)
        context.getState(energy=True)

    for value in (np.nan, np.inf):
        with pytest.raises(openmm.OpenMMException, match=r"first: atom 7.*time step|NaN"):
            evaluate(value)
    context.setPositions(structure.positions)  # and it is of use again
    assert np.isfinite(energy_and_forces(context)[0])


def test_atoms_on_top_of_one_another(ionic_model, rock_salt):
    context, structure = make_context(rock_salt, ionic_model)
    positions = structure.positions.copy()
    positions[1] = positions[0]
    context.setPositions(positions)
    with pytest.raises(openmm.OpenMMException, match=r"on top of one another"):
        context.getState(energy=True)


# ------------------------------------------------------------- arguments as OpenMM's force fields


def peptide() -> app.Topology:
    """Methanol and H2 with their bonds, by hand: C, O, four H; H, H."""
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    symbols = ["C", "O", "H", "H", "H", "H", "H", "H"]
    atoms = [
        topology.addAtom(f"{s}{k}", app.Element.getBySymbol(s), residue)
        for k, s in enumerate(symbols)
    ]
    for first, second in [(0, 1), (0, 2), (3, 0), (0, 4), (1, 5), (6, 7)]:
        topology.addBond(atoms[first], atoms[second])
    return topology


@pytest.fixture(scope="module")
def organic_model(make_model):
    return make_model(type_names=("H", "C", "O"))


def masses_of(system):
    return [system.getParticleMass(k)._value for k in range(system.getNumParticles())]


def test_hydrogen_masses_are_those_of_a_force_field(organic_model):
    """OpenMM's own repartitioning of the same topology is the reference."""
    from io import StringIO

    types = "".join(
        f'<Type name="{k}" class="{k}" element="{e.symbol}" mass="{e.mass._value}"/>'
        for k, e in enumerate(atom.element for atom in peptide().atoms())
    )
    names = [a.name for a in peptide().atoms()]
    atoms = "".join(f'<Atom name="{name}" type="{k}"/>' for k, name in enumerate(names))
    bonds = "".join(
        f'<Bond atomName1="{a.name}" atomName2="{b.name}"/>' for a, b in peptide().bonds()
    )
    xml = (
        f"<ForceField><AtomTypes>{types}</AtomTypes><Residues><Residue name='MOL'>{atoms}{bonds}"
        "</Residue></Residues></ForceField>"
    )
    expected = app.ForceField(StringIO(xml)).createSystem(peptide(), hydrogenMass=3.0 * unit.dalton)
    for given in (3.0, 3.0 * unit.dalton):
        system = create_system(peptide(), organic_model, total_charge=0, hydrogenMass=given)
        np.testing.assert_allclose(masses_of(system), masses_of(expected), rtol=1e-12)
    assert sum(masses_of(system)) == pytest.approx(
        sum(masses_of(create_system(peptide(), organic_model, total_charge=0)))
    )


def test_atoms_that_are_held_keep_their_mass_of_zero(organic_model):
    masses = [12.0, 16.0, *6 * [1.0]]
    masses[0] = 0.0
    system = create_system(
        peptide(), organic_model, total_charge=0, masses=masses, hydrogenMass=2.0
    )
    assert masses_of(system) == [0.0, 15.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0]


def test_hydrogen_atoms_that_bonds_leave_out_are_told(organic_model):
    topology = peptide()
    last = next(atom for atom in topology.atoms() if atom.index == 5)
    topology._bonds = [bond for bond in topology.bonds() if last not in bond]
    with pytest.warns(NequIPLRWarning, match=r"1 hydrogen atoms \(first index 5\) keep their mass"):
        create_system(topology, organic_model, total_charge=0, hydrogenMass=3.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hydrogenMass": 0.0}, "hydrogenMass: expected a positive number in Da"),
        ({"hydrogenMass": 3.0 * unit.nanometer}, "hydrogenMass: expected a positive number in Da"),
        ({"hydrogenMass": 6.0}, "leaves -2.*for atom 0"),
        ({"hydrogen_mass": 3.0}, "did you mean 'hydrogenMass'"),
        ({"constraints": app.HBonds}, "constraints: there are no constraints, because a model"),
        ({"rigidWater": True}, "rigidWater: there are no constraints"),
        ({"nonbondedMethod": app.PME}, "nonbondedMethod: box vectors of the topology"),
        ({"removeCMMotion": False}, "here it is remove_cm_motion"),
        ({"ewaldTolerance": 1e-4}, "did you mean 'ewald_tolerance'"),
        ({"charge": 1, "total_charge": 1}, "charge: expected one of the two names"),
    ],
)
def test_what_force_fields_take_and_this_does_not(organic_model, options, message):
    with pytest.raises(InputError, match=message):
        create_system(peptide(), organic_model, **options)


def test_bonds_found_by_distance_move_mass(make_model):
    """Two water molecules without bonds, one of them across the faces of the cell."""
    cell = np.diag([8.0, 9.0, 10.0])
    water = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    places = (water + np.array([[[4.0, 4.0, 4.0]], [[0.1, 4.0, 4.0]]])).reshape(
        6, 3
    ) % cell.diagonal()
    structure = from_atoms(ase.Atoms("OHHOHH", places, cell=cell, pbc=True))
    assert structure.topology.getNumBonds() == 0
    bonded = structure.with_bonds()
    assert structure.topology.getNumBonds() == 0
    pairs = {frozenset((a.index, b.index)) for a, b in bonded.topology.bonds()}
    assert pairs == {frozenset(pair) for pair in ((0, 1), (0, 2), (3, 4), (3, 5))}
    assert bonded.with_bonds() is bonded
    model = make_model(type_names=("H", "O"), r_max=3.0)
    system = create_system(bonded.topology, model, total_charge=0, hydrogenMass=4.0)
    masses = [system.getParticleMass(i)._value for i in range(6)]
    assert masses[1:3] == masses[4:] == [4.0, 4.0]
    assert sum(masses) == pytest.approx(structure.masses.sum())


def test_a_topology_without_bonds_has_no_mass_to_move(ionic_model, rock_salt):
    topology = from_atoms(rock_salt).topology
    with pytest.raises(InputError, match="hydrogenMass: expected a topology with bonds"):
        create_system(topology, ionic_model, total_charge=0, hydrogenMass=3.0)


def test_asking_for_no_constraints_is_no_error(organic_model):
    create_system(peptide(), organic_model, total_charge=0, constraints=None, rigidWater=False)


def test_charge_is_the_total_charge(organic_model):
    for given in (1, 1 * unit.elementary_charge):
        system = create_system(peptide(), organic_model, charge=given)
        assert get_computation(system).settings.total_charge == 1.0
    force = create_force(peptide(), organic_model, atoms=[0, 1], charge=-1)
    system = openmm.System()
    for _ in range(8):
        system.addParticle(1.0)
    system.addForce(force)
    assert get_computation(system).settings.total_charge == -1.0
