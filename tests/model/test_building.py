"""Graphs of the same atoms at many geometries are those made one at a time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from openmm_nequiplr.errors import InputError, UnknownElementError
from openmm_nequiplr.model.building import GraphBuilder, build_graph

TENSORS = ("positions", "types", "batch", "cell", "total_charge", "edge_index", "edge_shift")


@pytest.mark.parametrize("name", ["crystal", "molecule"])
def test_a_builder_makes_the_graphs_of_build_graph(request, rng, make_model, name):
    atoms, config = request.getfixturevalue(name), make_model().config
    periodic = bool(atoms.pbc.all())
    builder = GraphBuilder(config, atoms.numbers, periodic, -1.0, skin=0.8)
    for _ in range(30):
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
        if periodic:
            atoms.positions += rng.integers(-1, 2, size=atoms.positions.shape) @ atoms.cell.array
            atoms.set_cell(atoms.cell.array * rng.uniform(0.99, 1.01), scale_atoms=True)
        geometry = (atoms.positions, atoms.cell.array if periodic else None)
        expected = build_graph(config, atoms.numbers, *geometry, periodic, -1.0)
        graph = builder(*geometry)
        for field in TENSORS:
            assert torch.equal(getattr(graph, field), getattr(expected, field)), field
        assert (graph.periodic, graph.counts) == (expected.periodic, expected.counts)
        if periodic:
            for field in dataclasses.fields(graph.ewald[0]):
                ours = getattr(graph.ewald[0], field.name)
                assert np.array_equal(ours, getattr(expected.ewald[0], field.name))
    assert 0 < builder.neighbors.searches < 20


def test_graphs_do_not_change_with_what_comes_after(make_model, molecule):
    builder = GraphBuilder(make_model().config, molecule.numbers, skin=1.0)
    points = molecule.positions.copy()
    first = builder(points)
    kept = {field: getattr(first, field).clone() for field in TENSORS}
    points += 0.3
    points[0] -= 0.2
    builder(points)
    for field, value in kept.items():
        assert torch.equal(getattr(first, field), value), field


def test_wrong_arguments(make_model, crystal):
    config = make_model().config
    with pytest.raises(UnknownElementError, match="Xe"):
        GraphBuilder(config, ["Xe"])
    with pytest.raises(InputError, match="total_charge: expected a finite number"):
        GraphBuilder(config, crystal.numbers, True, float("nan"))
    builder = GraphBuilder(config, crystal.numbers, True)
    with pytest.raises(InputError, match=r"positions: expected shape \(6, 3\)"):
        builder(crystal.positions[:5], crystal.cell.array)
    with pytest.raises(InputError, match="cell: expected"):
        builder(crystal.positions)
