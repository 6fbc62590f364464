"""Energies of the shipped models at their start structures: a change of these is a new model."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
import torch

from openmm_nequiplr import load_model, shipped_models, shipped_structure
from openmm_nequiplr.model import Evaluator

#: Energy without the shifts of the atoms (eV), largest force (eV/Å), largest charge (e).
PINNED = {
    "au2-mgo": (-5.82362793, 5.47382706, 0.435825697),
    "carbon-chain": (-0.00151544, 3.75125370, 0.109922525),
    "dipeptides": (10.75395728, 0.43418051, 0.972436351),
    "nacl-water": (115.20644066, 3.99076080, 0.930518079),
}


def test_all_are_pinned():
    assert set(PINNED) == set(shipped_models())


@pytest.mark.parametrize("name", PINNED)
def test_pinned(name):
    atoms = ase.io.read(shipped_structure(name))
    model = load_model(name, dtype=torch.float64)
    cell = atoms.cell.array if atoms.pbc.all() else None
    graph = model.build_graph(atoms.numbers, atoms.positions, cell, atoms.pbc.all())
    found = Evaluator(model, solver="dense")(graph)
    energy, force, charge = PINNED[name]
    assert found.energy - float(model.reference_energy(graph)) == pytest.approx(energy, abs=1e-6)
    assert np.linalg.norm(found.forces, axis=1).max() == pytest.approx(force, abs=1e-6)
    assert np.abs(found.charges).max() == pytest.approx(charge, abs=1e-7)
