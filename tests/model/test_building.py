"""Graphs of the same atoms at many geometries are those made one at a time."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from openmm_nequiplr.errors import BoxError, InputError, UnknownElementError
from openmm_nequiplr.graph import AtomicGraph
from openmm_nequiplr.model import Evaluator
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


NONSENSE = {
    "a fraction of a proton": ({"numbers": [8.7, 11, 17]}, "numbers: expected atomic numbers"),
    "no number": ({"numbers": [float("nan"), 11, 17]}, "numbers: expected atomic numbers"),
    "another element": ({"numbers": [8, 11, 92]}, "elements: expected .*'U'"),
    "no element": ({"numbers": ["O", "Na", "Q"]}, "elements: expected .*'Q'"),
    "no atoms": ({"numbers": []}, "positions: expected shape"),
    "beyond the table": ({"numbers": [-3, 11, 17]}, "numbers: expected atomic numbers"),
    "pbc NaN": ({"pbc": float("nan")}, "pbc: expected True or False"),
    "pbc of two": ({"pbc": [True, True]}, "pbc: expected True or False"),
    "a wire": ({"pbc": [False, False, True]}, r"pbc: .*\(a slab, with the third vector"),
    "a charge": ({"total_charge": 1e6}, "total_charge: expected at most 27 e of either sign"),
    "no charge": ({"total_charge": float("inf")}, "total_charge: expected a finite number"),
    "positions, ragged": ({"positions": [[0, 0, 0], [1, 1]]}, "positions: expected numbers"),
    "positions, infinite": (
        {"positions": [[0, 0, 0], [np.inf, 0, 0], [0, 3, 0]]},
        "positions: expected finite numbers .* of atom 1",
    ),
    "positions, flat": ({"positions": np.arange(9.0)}, r"positions: expected shape \(3, 3\)"),
    "atoms on one another": (
        {"positions": [[0, 0, 0], [0, 2.5, 0], [8.0, 8.0, 8.0 + 1e-6]]},
        "positions: expected atoms at least 0.001 Å apart.*atoms 0 and 2 at 1e-06 Å",
    ),
    "no cell": ({"cell": None}, "cell: expected shape"),
    "a cell of numbers": ({"cell": [8.0, 8.0, 8.0]}, "cell: expected shape"),
    "a cell with NaN": ({"cell": np.diag([8.0, np.nan, 8.0])}, "cell: expected finite numbers"),
    "a cell in nm": ({"cell": 0.05 * np.eye(3)}, r"cell: expected .* at least 0\.5 Å, got .*0\.05"),
    "a flat cell": ({"cell": np.diag([8.0, 8.0, 0.0])}, "cell: expected three independent"),
    "a tiny cell": ({"cell": 0.5 * np.eye(3)}, r"cell, positions: .* about \d+ neighbours"),
    "nearly flat": (
        {"cell": [[8.0, 0, 0], [8.0, 1e-4, 0], [0, 0, 8.0]]},
        r"cell, positions: .* about \d+ neighbours",
    ),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused(make_model, name):
    changes, message = NONSENSE[name]
    structure = {
        "numbers": [8, 11, 17],
        "positions": [[0, 0, 0], [0, 2.5, 0], [2.5, 0, 0.3]],
        "cell": 8.0 * np.eye(3),
        "pbc": True,
        "total_charge": 0.0,
    }
    assert build_graph(make_model().config, **structure).num_edges > 0
    with pytest.raises(InputError, match=message) as error:
        build_graph(make_model().config, **(structure | changes))
    assert isinstance(error.value, BoxError) or "cell: expected finite" not in message


def test_graphs_have_the_lattice_in_short_vectors(make_model, crystal):
    config, cell = make_model().config, crystal.cell.array
    skewed = np.array([[1, 0, 0], [4, 1, 0], [-3, 2, 1]]) @ cell
    graph = build_graph(config, crystal.numbers, crystal.positions, skewed, True)
    lengths = torch.linalg.vector_norm(graph.cell[0], dim=1).sort().values
    np.testing.assert_allclose(lengths, np.sort(np.linalg.norm(cell, axis=1)))
    kept = build_graph(config, crystal.numbers, crystal.positions, cell, True)
    assert torch.equal(kept.cell[0], torch.tensor(cell))
    assert graph.num_edges == kept.num_edges


def test_units_are_not_dropped(make_model, crystal):
    """NumPy takes the numbers of a Quantity, of positions in nm for example."""
    from openmm import unit

    config, nm = make_model().config, unit.nanometer
    for name in ("positions", "cell"):
        given = {"positions": crystal.positions, "cell": crystal.cell.array}
        given[name] = 0.1 * given[name] * nm
        with pytest.raises(InputError, match=f"{name}: expected plain numbers"):
            build_graph(config, crystal.numbers, **given, pbc=True)


@pytest.mark.parametrize("options", [{"type_names": ("Cl", "Na", "O")}, {"r_max": 5.0}])
def test_graphs_of_another_model_are_refused(make_model, crystal, options):
    """Its types would stand for other elements, or edges would be missing."""
    model, other = make_model(), make_model(**options)
    graph = model.build_graph(crystal.numbers, crystal.positions, crystal.cell.array, True)
    evaluator = Evaluator(copy.deepcopy(other))
    batch = AtomicGraph.collate([graph, graph])
    for call, given in (
        (other, graph),
        (other, batch),
        (evaluator, graph),
        (evaluator.charges, graph),
    ):
        with pytest.raises(InputError, match="graph: expected one that build_graph of this model"):
            call(given)
