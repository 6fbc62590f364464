"""What keeps a model from falling where it knows nothing: random networks with loud energies."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from openmm_nequiplr.model.evaluation import Evaluator

SHORTEST = ((1.6, 1.7, 1.8), (1.7, 2.0, 2.1), (1.8, 2.1, 2.2))
PRIORS = {
    "zbl": True,
    "shortest_distances": SHORTEST,
    "electronegativity_bound": 6.0,
    "electrostatic_energy": "coulomb",
}


def loud(model, seed: int):
    """The model with random weights of both networks that make energies of tens of eV."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for readout, size in (
            (model.energy_stage.readout, 30.0),
            (model.electronegativity_stage.readout, 3.0),
        ):
            for weight in readout.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
            readout.scalar.weight.mul_(size)
    return model


def pair_curve(model, symbols: tuple[str, str], distances: np.ndarray) -> np.ndarray:
    """Energy of two atoms, eV, at distances in Å."""
    evaluator = Evaluator(model)
    graphs = (model.build_graph(symbols, np.array([[0, 0, 0], [0, 0, r]])) for r in distances)
    return np.array([evaluator(graph, compute_forces=False).energy for graph in graphs])


@pytest.mark.parametrize("symbols", [("O", "O"), ("O", "Na"), ("Na", "Cl"), ("Cl", "Cl")])
def test_atoms_repel_below_the_shortest_distance(make_model, symbols):
    """Whatever the network: from 0.3 Å to 0.7 of the shortest distance the energy falls."""
    types = [("O", "Na", "Cl").index(symbol) for symbol in symbols]
    distances = np.linspace(0.3, 0.7 * SHORTEST[types[0]][types[1]], 12)
    for seed in range(4):
        curve = pair_curve(loud(make_model(**PRIORS), seed), symbols, distances)
        assert (np.diff(curve) < 0).all()
        assert curve[0] - curve[-1] > 50.0


def test_without_priors_random_networks_do_attract(make_model):
    """What the test above would find if the priors did nothing."""
    distances = np.linspace(0.3, 1.2, 12)
    curves = [pair_curve(loud(make_model(), k), ("O", "Na"), distances) for k in range(4)]
    assert any((np.diff(curve) > 0).any() for curve in curves)


def test_electronegativities_and_charges_are_bounded(make_model, molecule):
    """However loud the network, χ stays within the bound times the scale about the shift."""
    options = {"effective_charges": True, "electronegativity_bound": 2.0}
    model = copy.deepcopy(make_model(**options))
    with torch.no_grad():
        model.electronegativity_stage.readout.scalar.weight.mul_(1e4)
    graph = model.build_graph(molecule.numbers, molecule.positions)
    found = Evaluator(model)(graph).electronegativity
    scale = model.electronegativity_scales[graph.types].numpy()
    shift = model.electronegativity_shifts[graph.types].numpy()
    assert np.abs((found - shift) / scale).max() == pytest.approx(2.0, abs=1e-6)


def test_distances_of_the_data_are_left_alone(make_model, molecule):
    """Priors that end below the shortest distance change nothing at all."""
    shortest = 0.99 * (molecule.get_all_distances() + 9.0 * np.eye(len(molecule))).min()
    table = ((shortest,) * 3,) * 3
    plain, prior = make_model(), make_model(zbl=True, shortest_distances=table)
    results = [Evaluator(m)(m.build_graph(molecule.numbers, molecule.positions))
               for m in (plain, prior)]  # fmt: skip
    assert results[0].energy == results[1].energy
    np.testing.assert_array_equal(results[0].forces, results[1].forces)
