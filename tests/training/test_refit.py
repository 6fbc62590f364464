"""Energy shifts fitted anew after the training."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest

from openmm_nequiplr.data import GraphDataset, structure_from_atoms
from openmm_nequiplr.training.evaluate import evaluate_model
from openmm_nequiplr.training.refit import refit_energy_shifts


def test_offsets_between_compositions_vanish(make_model, molecule, crystal):
    """Energies off by a sum over elements are brought back; forces and charges stay."""
    model = copy.deepcopy(make_model())
    structures = []
    for atoms in (molecule, molecule[:4], molecule[2:], crystal):
        bare = structure_from_atoms(atoms)
        graph = model.build_graph(bare.symbols, bare.positions, bare.cell, bare.pbc)
        output = model(graph)
        structures.append(replace(bare, energy=output.energy.item(), forces=output.forces.numpy()))
    wrong = np.array([0.3, -0.2, 0.1])
    model.energy_shifts += model.energy_shifts.new_tensor(wrong)
    assert evaluate_model(model, structures, verbose=False).energy_per_atom.rmse > 10.0
    change = refit_energy_shifts(model, GraphDataset(structures, model), batch_size=3)
    np.testing.assert_allclose(change, -wrong, atol=1e-8)
    metrics = evaluate_model(model, structures, verbose=False)
    assert metrics.energy_per_atom.rmse < 1e-4
    assert metrics.forces.rmse < 1e-6


def test_without_energies_nothing_changes(make_model, molecule):
    model = copy.deepcopy(make_model())
    before = model.energy_shifts.clone()
    bare = GraphDataset([structure_from_atoms(molecule)], model)
    assert not refit_energy_shifts(model, bare).any()
    assert model.energy_shifts.tolist() == pytest.approx(before.tolist())


def test_a_choice_has_every_composition(make_model, molecule, monkeypatch):
    """Energies that an element shifts alike need no more than one structure each."""
    model = copy.deepcopy(make_model())
    structures = []
    for atoms in [molecule] * 9 + [molecule[:4]] * 5 + [molecule[2:]]:
        bare = structure_from_atoms(atoms)
        output = model(model.build_graph(bare.symbols, bare.positions))
        structures.append(replace(bare, energy=output.energy.item() + 0.1 * len(atoms)))
    seen = []
    build = model.build_graph
    monkeypatch.setattr(model, "build_graph", lambda *a, **k: seen.append(a) or build(*a, **k))
    change = refit_energy_shifts(model, GraphDataset(structures, model), most=6)
    assert [len(each[0]) for each in seen].count(7) == 2
    assert 3 <= len(seen) <= 6
    np.testing.assert_allclose(change, 0.1, atol=1e-8)
