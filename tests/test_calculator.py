"""The ASE calculator: interface, derivatives against finite differences, symmetries."""

from __future__ import annotations

import copy
import warnings

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.io.trajectory import Trajectory
from ase.stress import voigt_6_to_full_3x3_stress

from openmm_nequiplr.calculator import NequIPLRCalculator
from openmm_nequiplr.errors import InputError, NequIPLRWarning
from openmm_nequiplr.model import save_model


@pytest.fixture(scope="module")
def model(make_model):
    return make_model(l_max=1)


def attached(atoms: Atoms, model, **info) -> Atoms:
    """A copy of a structure with a calculator (made, or shared) and entries in ``info``."""
    twin = atoms.copy()
    twin.info.update(info)
    shared = isinstance(model, NequIPLRCalculator)
    twin.calc = model if shared else NequIPLRCalculator(model)
    return twin


# ------------------------------------------------------------------------------------ interface


def test_results_of_a_periodic_structure(model, crystal):
    atoms = attached(crystal, model)
    n = len(atoms)
    assert np.isfinite(atoms.get_potential_energy())
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    assert atoms.get_forces().shape == (n, 3)
    assert atoms.get_stress().shape == (6,)
    assert atoms.get_charges().shape == (n,)
    assert atoms.get_dipole_moment().shape == (3,)
    assert atoms.calc.results["electronegativities"].shape == (n,)
    for value in atoms.calc.results.values():
        if isinstance(value, np.ndarray):
            assert value.dtype == np.float64


def test_energy_parts_add_up(model, molecule):
    atoms = attached(molecule, model, charge=1)
    energy = atoms.get_potential_energy()
    parts = atoms.calc.results["energy_parts"]
    assert sum(parts.values()) == pytest.approx(energy, abs=1e-10)


def test_energy_alone_costs_no_forces(model, crystal):
    atoms = attached(crystal, model)
    atoms.get_potential_energy()
    assert not {"forces", "stress"} & set(atoms.calc.results)
    atoms.get_forces()
    assert {"energy", "forces", "stress"} <= set(atoms.calc.results)


def test_dipole_is_the_sum_over_the_given_positions(model, molecule):
    atoms = attached(molecule, model)
    expected = atoms.get_charges() @ atoms.get_positions()
    np.testing.assert_allclose(atoms.get_dipole_moment(), expected, atol=1e-12)


@pytest.mark.parametrize("info", [{"total_charge": 1}, {"charge": -1.0}, {"charge": 0.5}, {}])
def test_charges_sum_to_the_total_charge(model, molecule, crystal, info):
    expected = next(iter(info.values()), 0.0)
    calculator = NequIPLRCalculator(model)
    for structure in (molecule, crystal):
        charges = attached(structure, calculator, **info).get_charges()
        assert charges.sum() == pytest.approx(expected, abs=1e-12)


def test_total_charge_wins_over_charge(model, molecule):
    atoms = attached(molecule, model, total_charge=1, charge=-1)
    assert atoms.get_charges().sum() == pytest.approx(1.0)


def test_a_new_total_charge_makes_the_results_stale(model, molecule):
    atoms = attached(molecule, model)
    neutral = atoms.get_potential_energy()
    atoms.info["charge"] = 1
    charged = atoms.get_potential_energy()
    assert charged != neutral
    assert atoms.get_charges().sum() == pytest.approx(1.0)
    assert charged == attached(molecule, model, charge=1).get_potential_energy()
    del atoms.info["charge"]
    assert atoms.get_potential_energy() == neutral


def test_a_field_changed_in_place_makes_the_results_stale(model, molecule):
    atoms = attached(molecule, model, electric_field=np.array([0.0, 0.0, 0.05]))
    before = atoms.get_potential_energy()
    atoms.info["electric_field"][2] = 0.2
    after = atoms.get_potential_energy()
    assert after != before
    assert after == attached(molecule, model, electric_field=[0.0, 0.0, 0.2]).get_potential_energy()


def test_unchanged_structures_are_not_computed_again(model, molecule, monkeypatch):
    atoms = attached(molecule, model, charge=1)
    atoms.get_forces()
    monkeypatch.setattr(atoms.calc, "evaluator", None)
    atoms.get_forces()
    atoms.get_potential_energy()
    atoms.get_charges()


@pytest.mark.parametrize("change", ["positions", "cell", "numbers"])
def test_every_change_of_the_structure_counts(model, crystal, change):
    atoms = attached(crystal, model)
    before = atoms.get_potential_energy()
    if change == "positions":
        atoms.positions[0, 0] += 0.1
    elif change == "cell":
        atoms.set_cell(1.02 * atoms.cell, scale_atoms=True)
    else:
        atoms.numbers[[0, 1]] = atoms.numbers[[1, 0]]
    after = atoms.get_potential_energy()
    assert after != before
    assert after == attached(atoms, model).get_potential_energy()


def test_model_from_a_file(model, molecule, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    atoms = attached(molecule, model)
    energy = atoms.get_potential_energy()
    for source in (path, str(path)):
        atoms.calc = NequIPLRCalculator(source)
        assert atoms.get_potential_energy() == pytest.approx(energy, rel=1e-12)


def test_precision_leaves_the_callers_model_alone(model, molecule):
    atoms = attached(molecule, model)
    exact = atoms.get_forces()
    atoms.calc = NequIPLRCalculator(model, precision="single")
    rough = atoms.get_forces()
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert 0 < np.abs(rough - exact).max() < 1e-4


def test_structures_with_results_can_be_written(model, crystal, tmp_path):
    atoms = attached(crystal, model)
    forces = atoms.get_forces()
    ase.io.write(tmp_path / "out.extxyz", atoms)
    read = ase.io.read(tmp_path / "out.extxyz")
    np.testing.assert_allclose(read.get_forces(), forces, atol=1e-6)
    with Trajectory(tmp_path / "out.traj", "w", atoms) as trajectory:
        trajectory.write(atoms)
    read = ase.io.read(tmp_path / "out.traj")
    np.testing.assert_allclose(read.get_forces(), forces)


# --------------------------------------------------------------------------------------- errors


def test_no_stress_without_a_cell(model, molecule):
    with pytest.raises(PropertyNotImplementedError, match="not periodic"):
        attached(molecule, model).get_stress()


def test_nothing_of_a_failed_calculation_is_left(model, crystal):
    atoms = attached(crystal, model)
    calculator = atoms.calc
    atoms.get_forces()
    bad = crystal.copy()
    bad.positions[1] = bad.positions[0]
    with pytest.raises(InputError, match="apart"):
        calculator.calculate(bad, ["energy", "forces"])
    assert calculator.results == {}
    atoms.get_forces()
    atoms.info["total_charge"] = True  # a word in a comment, which ASE takes for a flag
    with pytest.raises(InputError, match="total_charge.* expected one finite number"):
        atoms.get_forces()
    assert calculator.results == {}
    other = crystal.copy()
    other.rattle(0.1, seed=1)
    expected = attached(other, model).get_forces()
    other.calc = calculator
    np.testing.assert_array_equal(other.get_forces(), expected)


@pytest.mark.parametrize("apart", [[2e3, 2e3, 0.0], [1e6, 1e6, 1e6], [0.0, 1e9, 0.0]])
def test_fragments_anywhere_are_as_if_alone(model, molecule, apart):
    flat = molecule[:4]
    flat.positions *= [1.0, 1.0, 1e-9]
    flat.positions += [[0, 0, 0], [0, 0, 0], [0, 0, 0], [2.5, 2.5, 0]]
    far = flat.copy()
    far.positions += apart
    both, one = attached(flat + far, model), attached(flat, model)
    assert both.get_potential_energy() == pytest.approx(2 * one.get_potential_energy(), abs=1e-3)
    np.testing.assert_allclose(both.get_forces()[:4], one.get_forces(), rtol=0, atol=1e-3)


# ---------------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("charge", [0, 1])
@pytest.mark.parametrize("num_layers_charge", [0, 1])
def test_stress_is_a_derivative(make_model, crystal, num_layers_charge, charge, rng):
    model = make_model(num_layers_charge=num_layers_charge)
    atoms = attached(crystal, model, charge=charge)
    stress = voigt_6_to_full_3x3_stress(atoms.get_stress())
    step = 3e-5
    for _ in range(3):
        strain = rng.normal(size=(3, 3))
        strain = strain + strain.T
        energies = []
        for sign in (1, -1):
            strained = attached(atoms, atoms.calc)
            deformation = np.eye(3) + sign * step * strain
            strained.set_cell(atoms.cell @ deformation, scale_atoms=True)
            energies.append(strained.get_potential_energy())
        slope = (energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
        assert np.sum(stress * strain) == pytest.approx(slope, rel=1e-5, abs=1e-8)


# ----------------------------------------------------------------------------------- symmetries


def _rotation(rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.linalg.det(q)


def _transformed(atoms: Atoms, matrix: np.ndarray) -> Atoms:
    new = atoms.copy()
    new.set_cell(atoms.cell @ matrix.T)
    new.set_positions(atoms.positions @ matrix.T)
    return new


@pytest.mark.parametrize("periodic", [False, True], ids=["molecule", "crystal"])
@pytest.mark.parametrize(
    ("l_max", "parity"), [(0, True), (1, True), (1, False), (2, True), (2, False)]
)
def test_symmetries(make_model, molecule, crystal, l_max, parity, periodic, rng):
    model = make_model(l_max=l_max, parity=parity)
    structure = crystal if periodic else molecule
    structure.info["charge"] = 0 if periodic else 1
    reference = attached(structure, model)
    forces = reference.get_forces()
    expect = (reference.get_potential_energy(), forces, reference.get_charges())

    def check(atoms: Atoms, forces: np.ndarray, order=slice(None)) -> None:
        atoms = attached(atoms, reference.calc)
        got_forces = atoms.get_forces()
        scale = max(abs(expect[0]), 1.0)
        assert abs(atoms.get_potential_energy() - expect[0]) <= 1e-9 * scale
        np.testing.assert_allclose(got_forces, forces, atol=1e-9 * max(np.abs(forces).max(), 1))
        np.testing.assert_allclose(atoms.get_charges(), expect[2][order], atol=1e-9)

    moved = structure.copy()
    moved.translate(rng.normal(size=3))
    if periodic:
        moved.wrap()
    check(moved, forces)

    order = rng.permutation(len(structure))
    check(structure[order], forces[order], order)

    rotation = _rotation(rng)
    check(_transformed(structure, rotation), forces @ rotation.T)

    # Without parity, a stage of three or more layers could tell left from right; two cannot.
    mirror = -rotation
    check(_transformed(structure, mirror), forces @ mirror.T)


@pytest.mark.parametrize("l_max", [1, 2])
def test_mirror_images(make_model, molecule, l_max):
    """Without parity, three layers tell left from right; pseudotensors make no difference to it."""

    def change(**options) -> float:
        model = make_model(l_max=l_max, num_layers=3, shared_features=True, **options)
        energies = [
            attached(each, model).get_potential_energy()
            for each in (molecule, _transformed(molecule, -np.eye(3)))
        ]
        return abs(energies[1] - energies[0])

    assert change() < 1e-10
    assert change(pseudotensors=False) < 1e-10
    assert change(parity=False) > 1e-7


@pytest.mark.parametrize("parity", [True, False])
def test_a_supercell_is_extensive(make_model, crystal, parity):
    model = make_model(parity=parity)
    single, double = attached(crystal, model), attached(crystal.repeat((2, 1, 1)), model)
    energy = single.get_potential_energy()
    assert double.get_potential_energy() == pytest.approx(2 * energy, rel=1e-9, abs=1e-9)
    n = len(single)
    np.testing.assert_allclose(double.get_forces()[:n], single.get_forces(), atol=1e-8)
    np.testing.assert_allclose(double.get_charges()[n:], single.get_charges(), atol=1e-9)
    np.testing.assert_allclose(double.get_stress(), single.get_stress(), atol=1e-9)


# ------------------------------------------------------------------------------- ASE's habits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"presicion": "double"}, "unknown option 'presicion': did you mean 'precision'"),
        ({"maxIterations": 5}, "did you mean 'max_iterations'"),
        ({"charge": 1}, r"charge: it belongs to the structure: atoms.info\['total_charge'\]"),
        ({"default_dtype": "float64"}, "default_dtype: it is precision="),
    ],
)
def test_unknown_options_are_refused(model, options, message):
    with pytest.raises(InputError, match=message):
        NequIPLRCalculator(model, **options)


@pytest.mark.parametrize(
    ("option", "message"),
    [("precision", "expected NequIPLRCalculator.model, precision="), ("charge", "belongs to the")],
)
def test_options_do_not_change_without_effect(model, option, message):
    with pytest.raises(InputError, match=f"set: .*{message}"):
        NequIPLRCalculator(model).set(**{option: 1})


def test_arguments_of_all_calculators_are_taken(model, molecule, tmp_path):
    atoms = molecule.copy()
    calculator = NequIPLRCalculator(model, atoms=atoms, label=str(tmp_path / "x"))
    assert atoms.calc is calculator
    assert calculator.directory == str(tmp_path)


def test_a_missing_cell_is_told_once(model, molecule):
    other = copy.deepcopy(model)
    other.metadata["periodic"] = "True"
    atoms = attached(molecule, other)
    with pytest.warns(NequIPLRWarning, match="pbc: the structure is not periodic, but the model"):
        atoms.get_potential_energy()
    atoms.positions[0, 0] += 0.1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="pbc")
        atoms.get_potential_energy()


@pytest.mark.parametrize(("spin", "said"), [(None, 0), (0, 0), (1, 0), (3, 1), ("2", 1)])
def test_a_spin_is_ignored_and_that_is_said_once(model, molecule, spin, said):
    atoms = attached(molecule, model, total_charge=0)
    expected = atoms.get_potential_energy()
    if spin is not None:
        atoms.info["spin"] = spin
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            atoms.rattle(1e-9)
            assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-6)
    lines = [str(each.message) for each in caught if "spin" in str(each.message)]
    assert len(lines) == said
    assert all("the model does not depend on spin" in line for line in lines)
