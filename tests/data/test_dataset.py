"""Graphs, labels, batches and their order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.io import write

from openmm_nequiplr.boundaries import BULK, SLAB
from openmm_nequiplr.data import (
    GraphDataset,
    LabelledGraph,
    Labels,
    Structure,
    structure_from_atoms,
)
from openmm_nequiplr.data.dataset import labelled_graph, stored_bytes
from openmm_nequiplr.data.reading import read_structures, unsaid
from openmm_nequiplr.errors import InputError, UnknownElementError
from openmm_nequiplr.graph import AtomicGraph


def test_batch_of_mixed_structures(make_model, molecule, crystal):
    structures = [
        structure_from_atoms(molecule),
        structure_from_atoms(crystal),
        Structure(("O",), [[0, 0, 0]], energy=-2.0, charges=[0.5], total_charge=0.5),
    ]
    dataset = GraphDataset(structures, make_model())
    whole = LabelledGraph.collate(list(dataset))
    assert whole.graph.counts == (7, 6, 1)
    assert whole.graph.periodic == (False, True, False)
    assert whole.graph.total_charge.tolist() == [0.0, 0.0, 0.5]
    assert [len(b.graph.counts) for b in dataset.batches(2)] == [2, 1]


def test_slabs_among_others(make_model, crystal):
    """Each frame has its own boundaries; a slab keeps its stress, and the dipole in no cell."""
    model, cell = make_model(), np.diag([5.2, 5.0, 19.0])
    labels = {"stress": np.eye(3), "dipole": np.ones(3), "energy": 1.0}
    one = Structure(tuple(crystal.symbols), crystal.positions, cell, (True, True, False), **labels)
    dataset = GraphDataset([one, replace(one, pbc=True)], model)
    both = LabelledGraph.collate(list(dataset))
    assert both.graph.pbc == (SLAB, BULK)
    assert both.labels.dipole is None
    assert both.labels.stress.shape == (2, 3, 3)
    assert None not in both.graph.linearized
    summed = [labelled_graph(each, model, "").graph for each in (one, replace(one, pbc=True))]
    options = {"compute_stress": True}
    found, exact = model(both.graph, **options), model(AtomicGraph.collate(summed), **options)
    for name in ("energy", "forces", "stress"):
        torch.testing.assert_close(getattr(found, name), getattr(exact, name))
    assert abs(float(found.energy[0] - found.energy[1])) > 1e-4


def test_missing_labels_are_nan_and_absent_ones_none():
    first = Structure(("H", "H"), np.eye(2, 3), energy=1.0, charges=[0.1, -0.1])
    second = Structure(("H",), [[0, 0, 0]], energy=2.0, dipole=[1, 2, 3])
    labels = Labels.collate([Labels.of(first), Labels.of(second)])
    assert labels.energy.tolist() == [1.0, 2.0]
    assert labels.atoms_per_graph.tolist() == [2.0, 1.0]
    assert labels.charges[:2].tolist() == [0.1, -0.1]
    assert torch.isnan(labels.charges[2])
    assert torch.isnan(labels.dipole[0]).all()
    assert labels.dipole[1].tolist() == [1.0, 2.0, 3.0]
    assert labels.forces is labels.stress is None
    assert all(t.dtype == torch.float64 for t in (labels.energy, labels.charges, labels.dipole))


def test_synthetic_labels_are_no_reference():
    """They stay in the labels for the loss, and are unknown in those for the errors."""
    known = {"energy": 1.0, "forces": np.ones((2, 3)), "charges": np.ones(2), "dipole": np.ones(3)}
    one, other = (Structure(("H", "H"), np.eye(2, 3), **known, synthetic=s) for s in (False, True))
    labels = Labels.collate([Labels.of(one), Labels.of(other)])
    judged = labels.of_reference()
    for name, rows in (("energy", 1), ("forces", 2), ("charges", 2), ("dipole", 1)):
        assert torch.isfinite(getattr(labels, name)).all()
        assert torch.isfinite(getattr(judged, name)[:rows]).all()
        assert torch.isnan(getattr(judged, name)[rows:]).all()
    assert judged.stress is None
    plain = Labels.of(one)
    assert plain.of_reference() is plain


def test_dipoles_of_periodic_and_stress_of_free_structures_are_left_out():
    cell = {"cell": np.eye(3) * 9, "pbc": True}
    labels = {"dipole": [1, 2, 3], "stress": np.eye(3)}
    periodic = Labels.of(Structure(("H",), [[0, 0, 0]], **cell, **labels))
    free = Labels.of(Structure(("H",), [[0, 0, 0]], **labels))
    assert periodic.dipole is None
    assert free.stress is None
    assert periodic.stress.shape == (1, 3, 3)
    assert free.dipole.shape == (1, 3)


def test_blank_labels_know_nothing_but_sizes():
    labels = Labels.of(Structure(("H",), [[0, 0, 0]], energy=1.0)).blank()
    assert labels.energy is None
    assert labels.atoms_per_graph.tolist() == [1.0]


def test_errors_name_the_structure(make_model):
    good = Structure(("O",), [[0, 0, 0]])
    with pytest.raises(UnknownElementError, match=r"structure 1: .*Xe"):
        GraphDataset([good, Structure(("Xe",), [[0, 0, 0]])], make_model())
    with pytest.raises(InputError, match="structures: expected at least one"):
        GraphDataset([], make_model())


def test_graphs_beyond_the_memory_are_made_anew(make_model, crystal):
    """Kept ones are the same object, others are equal; no more is kept than was said."""
    model = make_model()
    structures = [structure_from_atoms(crystal)] * 4
    size = stored_bytes(GraphDataset(structures, model)[0])
    data = GraphDataset(structures, model, memory=2.5 * size)
    order = [3, 0, 1, 2]
    first, again = ([data[index] for index in order] for _ in range(2))
    kept = [a is b for a, b in zip(first, again, strict=True)]
    assert kept == [True, True, False, False]
    assert 0 <= data.memory < size
    one, other = (model(item.graph).forces for item in (first[2], again[2]))
    assert torch.equal(one, other)


@pytest.mark.parametrize("stress", [False, True])
def test_derivatives_by_strain_are_kept_for_stresses_alone(make_model, crystal, stress):
    plain = structure_from_atoms(crystal)
    labelled = replace(plain, stress=np.eye(3)) if stress else plain
    data = GraphDataset([plain, labelled], make_model())
    assert all(item.graph.ewald[0] is None for item in data)
    assert all((item.graph.linearized[0].strain is not None) is stress for item in data)


def test_shares_of_validation_batches(make_model, molecule):
    structures = [replace(structure_from_atoms(molecule), energy=float(e)) for e in range(7)]
    batches = GraphDataset(structures, make_model()).batches(2)
    shares = [batches.share(rank, 3) for rank in range(3)]
    assert [len(share) for share in shares] == [2, 2, 2]
    energies = [batch.labels.energy for share in shares for batch in share]
    assert sorted(torch.cat([e for e in energies if e is not None]).tolist()) == list(range(7))
    assert sum(e is None for e in energies) == 2


def test_an_index_below_0_is_an_item_without_labels(make_model, molecule):
    structure = Structure(molecule.symbols, molecule.positions, energy=1.0)
    data = GraphDataset([structure], make_model())
    assert data[-1].labels.energy is None
    assert data[-1].graph is data[0].graph


def test_structures_are_named_by_file_and_place(make_model, molecule, tmp_path):
    """Also when they were drawn from a file in another order, and fail late."""
    atoms = [molecule.copy() for _ in range(4)]
    atoms[2].positions[1] = atoms[2].positions[0] + 1e-5
    atoms[3].info["electric_field"] = [0.0, 0.0, 0.1]
    atoms[3].set_cell(9.0 * np.eye(3))
    atoms[3].pbc = True
    path = tmp_path / "four.xyz"
    write(path, atoms, format="extxyz")
    structures = read_structures(path, say=unsaid)
    data = GraphDataset([structures[k] for k in (2, 0)], make_model())
    with pytest.raises(InputError, match=r"^\S*four.xyz, structure 2: positions: .*\Z"):
        data[0]
    with pytest.raises(InputError, match=r"^\S*four.xyz, structure 3: electric_field: .*\Z"):
        GraphDataset([structures[k] for k in (3, 0)], make_model())
