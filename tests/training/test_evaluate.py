"""Errors on reference data, against errors computed by hand."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from openmm_nequiplr.data import Structure
from openmm_nequiplr.errors import InputError, NequIPLRWarning
from openmm_nequiplr.model import save_model
from openmm_nequiplr.training.evaluate import evaluate_model, format_table
from openmm_nequiplr.training.loss import QUANTITIES


@pytest.fixture
def labelled(make_model, molecule, crystal):
    """A molecule and a crystal whose labels are off by known amounts."""
    model = make_model()
    structures = []
    for atoms, offset in ((molecule, 0.010), (crystal, -0.030)):
        graph = model.build_graph(atoms.numbers, atoms.positions, np.asarray(atoms.cell), atoms.pbc)
        output = model(graph, compute_stress=True, compute_response=True)
        structures.append(
            Structure(
                atoms.get_chemical_symbols(),
                atoms.positions,
                np.asarray(atoms.cell),
                bool(atoms.pbc.all()),
                energy=output.energy.item() + offset * len(atoms),
                forces=output.forces.numpy() + np.array([0.0, 0.3, 0.0]),
                charges=output.charges.numpy() + offset,
                dipole=output.dipole[0].numpy() - 0.2,
                stress=output.stress[0].numpy() + 0.001,
                born_charges=output.born_charges.numpy() + 0.05,
                polarizability=np.nan_to_num(output.polarizability[0].numpy()) - 0.02,
            )
        )
    return model, structures


def test_figures(labelled):
    metrics = evaluate_model(*labelled, batch_size=2, verbose=False)
    assert (metrics.num_structures, metrics.num_atoms) == (2, 13)
    energy, forces, charges = metrics.energy_per_atom, metrics.forces, metrics.charges
    assert energy.rmse == pytest.approx(np.sqrt((10**2 + 30**2) / 2))
    assert energy.mae == pytest.approx(20.0)
    assert energy.count == 2
    assert forces.rmse == pytest.approx(300 / np.sqrt(3))
    assert forces.mae == pytest.approx(100.0)
    assert charges.rmse == pytest.approx(np.sqrt((7 * 10**2 + 6 * 30**2) / 13))
    assert metrics.dipole.rmse == pytest.approx(200.0)
    assert metrics.dipole.count == 3  # the molecule's alone
    assert metrics.stress.mae == pytest.approx(1.0)
    assert metrics.stress.count == 9
    assert metrics.born_charges.rmse == pytest.approx(50.0)
    assert metrics.born_charges.count == 9 * 13
    assert metrics.polarizability.mae == pytest.approx(20.0)
    assert metrics.polarizability.count == 9  # the molecule's alone


def test_spread_of_the_data_is_that_of_the_values_compared(labelled):
    model, (molecule, crystal) = labelled
    metrics = evaluate_model(*labelled, verbose=False)
    forces = np.concatenate([molecule.forces, crystal.forces])
    assert metrics.forces.data_std == pytest.approx(1000 * forces.std())
    assert metrics.dipole.data_std == pytest.approx(1000 * molecule.dipole.std())
    assert metrics.stress.data_std == pytest.approx(1000 * crystal.stress.std())
    shifts = dict(zip(model.config.type_names, model.energy_shifts.tolist(), strict=True))
    energies = [(s.energy - sum(map(shifts.get, s.symbols))) / s.num_atoms for s in labelled[1]]
    assert metrics.energy_per_atom.data_std == pytest.approx(1000 * np.std(energies))


def test_batching_changes_nothing(labelled):
    one, two = (evaluate_model(*labelled, batch_size=n, verbose=False) for n in (1, 2))
    assert one.forces.rmse == pytest.approx(two.forces.rmse, rel=1e-9)
    assert one.energy_per_atom.rmse == pytest.approx(two.energy_per_atom.rmse, rel=1e-6)


def test_table_and_files(labelled, tmp_path, capsys):
    metrics = evaluate_model(*labelled, output=tmp_path / "out")
    assert format_table(metrics) in capsys.readouterr().out
    assert "173.205" in format_table(metrics)
    for name in QUANTITIES:
        assert (tmp_path / "out" / f"parity_{name}.png").stat().st_size > 5000
    saved = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert saved["forces"]["rmse"] == pytest.approx(metrics.forces.rmse)
    table = (tmp_path / "out" / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert table[0] == "quantity,rmse,mae,data_std,unit,count"
    assert len(table) == 8


def test_from_files_with_key_names(labelled, tmp_path):
    from ase import Atoms
    from ase.io import write

    model, (molecule, _) = labelled
    save_model(model, tmp_path / "m.safetensors")
    atoms = Atoms(molecule.symbols, molecule.positions, info={"e_dft": molecule.energy})
    write(tmp_path / "d.extxyz", atoms)
    metrics = evaluate_model(
        tmp_path / "m.safetensors", tmp_path / "d.extxyz", energy_key="e_dft", forces_key=None,
        precision="double", verbose=False,
    )  # fmt: skip
    assert metrics.energy_per_atom.mae == pytest.approx(10.0)
    assert metrics.forces is None


def test_mistakes_are_named(labelled):
    model, structures = labelled
    bare = Structure(structures[0].symbols, structures[0].positions)
    with pytest.raises(InputError, match="data: expected energies, forces or charges"):
        evaluate_model(model, [bare])
    with pytest.raises(InputError, match="batch_size: expected at least 1"):
        evaluate_model(model, structures, batch_size=0)
    with pytest.raises(InputError, match="precision: expected 'single' or 'double'"):
        evaluate_model(model, structures, precision="half")
    with pytest.raises(TypeError, match="velocity_key"):
        evaluate_model(model, structures, velocity_key="v")


def test_structures_without_cell_of_a_periodic_model_are_told(labelled):
    model = copy.deepcopy(labelled[0])
    model.metadata["periodic"] = "True"
    with pytest.warns(NequIPLRWarning, match="pbc: 1 of 2 structures are not periodic"):
        evaluate_model(model, labelled[1], verbose=False)
