"""Born charges and polarisabilities in training: the batch, and gradients of losses on them."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from openmm_nequiplr.graph import AtomicGraph
from openmm_nequiplr.model import Evaluator


@pytest.fixture
def model(make_model):
    return copy.deepcopy(make_model(electrostatic_energy="coulomb", effective_charges=True))


@pytest.fixture
def graphs(model, molecule, crystal) -> dict[str, AtomicGraph]:
    box, held = np.diag([6.0, 6.0, 24.0]), {"group_charges": [1.0, -0.5, 0.5]}
    numbers, points = molecule.numbers, molecule.positions
    found = {
        "isolated": model.build_graph(numbers, points, total_charge=1.0),
        "field and groups": model.build_graph(
            numbers, points, total_charge=1.0, electric_field=[0.2, -0.1, 0.3],
            charge_groups=[0, 0, 1, 1, 2, 2, 1], **held,
        ),
        "slab": model.build_graph(numbers, points, box, (True, True, False)),
        "crystal": model.build_graph(crystal.numbers, crystal.positions, crystal.cell.array, True),
    }  # fmt: skip
    return found | {"linearized": model.with_linearized(found["crystal"])}


@pytest.mark.parametrize("training", [False, True])
def test_a_batch_has_the_response_of_its_structures(model, graphs, training):
    """Differentiated charges against adjoint solves."""
    model.train(training)
    batch = AtomicGraph.collate(list(graphs.values()))
    forces = model(batch, compute_forces=True)
    found = model(batch, compute_forces=True, compute_response=True)
    torch.testing.assert_close(found.forces, forces.forces, rtol=0, atol=1e-12)
    assert found.born_charges.requires_grad == training
    expected = [Evaluator(copy.deepcopy(model)).response(each) for each in graphs.values()]
    born = found.born_charges.detach().split(batch.counts)
    for own, alpha, each in zip(born, found.polarizability.detach(), expected, strict=True):
        np.testing.assert_allclose(own, each.born_charges, atol=1e-9)
        if each.polarizability is None:
            assert alpha.isnan().all()
        else:
            np.testing.assert_allclose(alpha, each.polarizability, atol=1e-9)


@pytest.mark.parametrize("which", ["field and groups", "slab", "linearized"])
def test_gradients_of_losses_by_the_weights(model, graphs, which):
    """Along a random direction in the space of all weights, against finite differences."""
    model.train().requires_grad_()  # other tests freeze the model that they share with this one
    generator = torch.Generator().manual_seed(1)
    weights = list(model.parameters())
    ways = [torch.randn(each.shape, generator=generator).to(each) for each in weights]

    def loss() -> torch.Tensor:
        output = model(graphs[which], compute_forces=False, compute_response=True)
        total = (output.born_charges - 0.3).square().mean()
        known = output.polarizability[~output.polarizability.isnan()]
        return total + 100.0 * known.square().sum()

    gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
    slope = sum(float((g * w).sum()) for g, w in zip(gradients, ways, strict=True) if g is not None)
    ends = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            for each, way in zip(weights, ways, strict=True):
                each += step * way
        ends.append(loss().item())
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)
    assert abs(slope) > 1e-3


def test_without_charges_there_is_no_response(make_model, molecule):
    model = make_model(equilibration=False)
    found = model(model.build_graph(molecule.numbers, molecule.positions), compute_response=True)
    assert found.born_charges is None
    assert found.polarizability is None


def test_parameters_without_gradients(model, graphs):
    """Averaged weights have none, nor have electronegativities without neighbours."""
    model.requires_grad_(False)
    alone = replace(
        graphs["isolated"],
        edge_index=graphs["isolated"].edge_index[:, :0],
        edge_shift=graphs["isolated"].edge_shift[:0],
    )
    found = model(alone, compute_forces=False, compute_response=True)
    assert torch.linalg.eigvalsh(found.polarizability[0]).min() > 0.0
