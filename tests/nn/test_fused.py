"""The fast path of inference against the plain one: values, gradients, and when it is taken."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from openmm_nequiplr.nn import fused_loops
from openmm_nequiplr.nn.fused import switch

pytest.importorskip("numba")

MODELS = {
    "default": {},
    "l0": {"l_max": 0, "num_features": 5},
    "l2_even": {"l_max": 2, "parity": False, "num_features": 3},
    "no_pseudotensors": {"l_max": 2, "pseudotensors": False, "num_layers": 2},
    "l3": {"l_max": 3, "num_features": 2, "num_layers": 3, "num_layers_charge": 2},
    "resnet": {"resnet": True, "num_layers": 3},
    "no_sc": {"use_sc": False, "num_layers_charge": 2},
    "no_layers": {"num_layers": 0, "num_layers_charge": 0},
    "charges_only": {"num_layers_charge": 0},
    "cutoffs": {"r_max_charge": 2.9},
    "odd_scalars": {"nonlinearity_scalars": ("ssp", "abs"), "resnet": True, "num_layers": 3},
    "linear_radial": {"invariant_layers": 0},
    "shared": {"shared_features": True, "num_layers_charge": 2},
    "shared_only": {"shared_features": True, "num_layers_charge": 0},
    "one_feature": {"num_features": 1, "l_max": 2},
}


@pytest.fixture(scope="module")
def build(small_model):
    return lambda **options: small_model(**options).eval().requires_grad_(False)


def stages(model, graph, charges):
    """χ, atomic energy, and the gradients of a sum of both to positions and charges."""
    positions = graph.positions.clone().requires_grad_()
    charges = charges.clone().requires_grad_()
    length, harmonics = model.edge_features(graph.edge_vectors(positions))
    chi, features = model.first_stage(graph, length, harmonics)
    energy = model.short_range_energy(graph, charges, length, harmonics, features)
    total = energy.sum() + (chi * torch.linspace(-1, 1, len(chi))).sum()
    gradients = torch.autograd.grad(total, (positions, charges), allow_unused=True)
    return [chi.detach(), energy.detach(), *gradients]


def graph_and_charges(model, atoms):
    graph = model.build_graph(
        list(atoms.symbols), atoms.positions, cell=np.array(atoms.cell), pbc=atoms.pbc.any()
    )
    return graph, torch.linspace(-0.7, 0.9, len(atoms), dtype=torch.float64)


def compare(model, atoms, tolerance):
    graph, charges = graph_and_charges(model, atoms)
    with fused_loops(False):
        expected = stages(model, graph, charges)
    found = stages(model, graph, charges)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert (one - other).abs().max() <= tolerance * other.abs().max()


def is_fused(model) -> list[bool]:
    stages = model.electronegativity_stage.convolutions, model.energy_stage.convolutions
    return [switch._built.get(stage, (None, None))[1] is not None for stage in stages]


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_plain_path_in_double_precision(build, crystal, name):
    model = build(**MODELS[name])
    compare(model, crystal, 1e-12)
    layers = model.config.num_layers, model.config.num_layers_charge
    assert is_fused(model) == [n > 0 for n in layers]


@pytest.mark.parametrize("name", ["default", "l3"])
def test_equals_the_plain_path_in_single_precision(build, crystal, name):
    model = build(**MODELS[name]).float()
    compare(model, crystal, 1e-5)
    assert all(is_fused(model))


def test_free_molecule(build, molecule):
    compare(build(l_max=2), molecule, 1e-12)


def test_isolated_atoms(build, molecule):
    """Some atoms, then all of them, without neighbours."""
    model = build()
    molecule.positions[-1] += 100.0
    compare(model, molecule, 1e-12)
    molecule.positions *= 50.0
    compare(model, molecule, 1e-12)


def test_threads_share_the_atoms(build, crystal, monkeypatch):
    from openmm_nequiplr.nn.fused import convolution

    monkeypatch.setattr(convolution, "EDGES_PER_THREAD", 10)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    compare(build(l_max=2), crystal, 1e-12)


def test_plain_where_fast_is_not_possible(build, crystal):
    model = build()
    graph, _ = graph_and_charges(model, crystal)
    stage = model.energy_stage.convolutions
    length = graph.edge_vectors().norm(dim=-1)
    assert switch.fused_convolutions(stage, length) is not None
    with fused_loops(False):
        assert switch.fused_convolutions(stage, length) is None
    assert switch.fused_convolutions(stage, length * 0.01) is None  # atoms on top of one another
    assert switch.fused_convolutions(stage, length.to("meta")) is None
    trained = copy.deepcopy(model).requires_grad_(True)
    twin = switch.fused_convolutions(trained.energy_stage.convolutions, length)
    assert twin is not None
    assert not twin.frozen  # its weights may be differentiated by
    rough = build(nonlinearity_scalars=("abs", "tanh"))
    compare(rough, crystal, 1e-12)
    assert not any(is_fused(rough))


def test_follows_changed_weights(build, crystal):
    model = build()
    compare(model, crystal, 1e-12)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    compare(model, crystal, 1e-12)


def test_a_second_derivative_is_refused(build, crystal):
    model = build()
    graph, charges = graph_and_charges(model, crystal)
    positions = graph.positions.clone().requires_grad_()
    length, harmonics = model.edge_features(graph.edge_vectors(positions))
    energy = model.short_range_energy(graph, charges, length, harmonics).sum()
    (slope,) = torch.autograd.grad(energy, positions, create_graph=True)
    with pytest.raises(RuntimeError, match=r"inference has one derivative .* any further"):
        torch.autograd.grad(slope[0, 0], positions)
