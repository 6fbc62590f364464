"""Networks with compiled kernels against their references, in inference and in training."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from openmm_nequiplr.model import Evaluator
from openmm_nequiplr.neighbors import two_way
from openmm_nequiplr.nn import convolution
from openmm_nequiplr.ops import convolution_operators, references

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
    edges = graph.edge_index, length, harmonics
    chi, features = model.first_stage(graph.types, *edges)
    energy = model.atomic_energies(graph.types, charges, *edges, features).sum()
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
    with references():
        expected = stages(model, graph, charges)
    found = stages(model, graph, charges)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert (one - other).abs().max() <= tolerance * other.abs().max()


def layers(model):
    both = model.electronegativity_stage, model.energy_stage
    return [layer for stage in both for layer in stage.convolutions.layers]


def are_tabulated(model) -> bool:
    """Whether the last evaluation took the radial weights of all layers from tables."""
    kept = [layer.conv._frozen for layer in layers(model)]
    return all(frozen is not None and frozen.table is not None for frozen in kept)


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_plain_path_in_double_precision(build, crystal, name):
    model = build(**MODELS[name])
    compare(model, crystal, 1e-12)
    assert are_tabulated(model)


@pytest.mark.parametrize("name", ["default", "l3"])
def test_equals_the_plain_path_in_single_precision(build, crystal, name):
    model = build(**MODELS[name]).float()
    compare(model, crystal, 1e-5)
    assert are_tabulated(model)


def test_free_molecule(build, molecule):
    compare(build(l_max=2), molecule, 1e-12)


def test_isolated_atoms(build, molecule):
    """Some atoms, then all of them, without neighbours."""
    model = build()
    molecule.positions[-1] += 100.0
    compare(model, molecule, 1e-12)
    molecule.positions *= 50.0
    compare(model, molecule, 1e-12)


def test_short_edges_are_not_taken_from_tables(build, molecule):
    molecule.positions[1] = molecule.positions[0] + [0.01, 0.0, 0.0]
    compare(build(), molecule, 1e-12)


def test_no_table_of_a_rough_network(build, crystal):
    rough = build(nonlinearity_scalars=("abs", "tanh"))
    compare(rough, crystal, 1e-12)
    assert not are_tabulated(rough)


def test_follows_changed_weights(build, crystal):
    model = build()
    compare(model, crystal, 1e-12)
    again = copy.deepcopy(model)
    assert not are_tabulated(again)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    compare(model, crystal, 1e-12)
    compare(again, crystal, 1e-12)


class Wrapped(torch.nn.Module):
    """Another module, with a result that is a little smaller."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *arguments):
        result = self.module(*arguments)
        return [0.9 * part for part in result] if isinstance(result, list) else 0.9 * result


PARTS = ("fc", "tp", "linear_1", "linear_2", "sc")


@pytest.mark.parametrize("part", ["", "conv", "equivariant_nonlin", *(f"conv.{n}" for n in PARTS)])
def test_a_wrapped_module_is_honoured(build, crystal, part):
    """Also where tables were made before."""
    model = build()
    evaluator = Evaluator(model)
    graph, _ = graph_and_charges(model, crystal)
    before = evaluator(graph).energy
    stack = model.energy_stage.convolutions.layers
    owner, _, name = f"0.{part}".rstrip(".").rpartition(".")
    owner = stack.get_submodule(owner)
    setattr(owner, name, Wrapped(getattr(owner, name)))
    found = evaluator(graph).energy
    assert abs(found - before) > 1e-6
    with references():
        assert evaluator(graph).energy == pytest.approx(found, rel=1e-12)
    setattr(owner, name, getattr(owner, name).module)
    assert evaluator(graph).energy == pytest.approx(before, rel=1e-12)


TRAINED = {
    "default": {},
    "no_parity": {"parity": False, "num_features": 3},
    "l2": {"l_max": 2, "num_features": 2, "num_layers_charge": 2},
    "shared": {"shared_features": True, "num_layers_charge": 2},
    "resnet": {"resnet": True, "num_layers": 3},
}


def gradients(model, atoms, order=None):
    """Gradients of a loss of energies, forces and charges by all weights."""
    graph, _ = graph_and_charges(model, atoms)
    if order is not None:
        ends, shift = order(graph.edge_index, graph.edge_shift)
        graph = replace(graph, edge_index=ends, edge_shift=shift)
    model.train().zero_grad()
    output = model(graph, compute_forces=True)
    loss = output.energy.sum() ** 2 + output.forces.square().sum() + output.charges.square().sum()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(model, atoms, monkeypatch):
    used = []
    original = convolution_operators.convolution

    def counted(*arguments):
        used.append(1)
        return original(*arguments)

    monkeypatch.setattr(convolution_operators, "convolution", counted)
    found = gradients(model, atoms, two_way)
    assert len(used) == len(layers(model))
    with references():
        expected = gradients(model, atoms)
    assert len(used) == len(layers(model))
    assert found.keys() == expected.keys()
    for name, one in found.items():
        largest = max(float(expected[name].abs().max()), 1e-6)
        assert (one - expected[name]).abs().max() <= 1e-9 * largest, name


@pytest.mark.parametrize("name", TRAINED)
def test_training_gradients_equal_those_of_the_references(small_model, crystal, monkeypatch, name):
    assert_same_gradients(small_model(**TRAINED[name]), crystal, monkeypatch)


def test_training_with_an_isolated_atom(small_model, molecule, monkeypatch):
    molecule.positions[-1] += 100.0
    assert_same_gradients(small_model(), molecule, monkeypatch)


@pytest.mark.parametrize("paired", [True, False])
def test_training_computes_radial_weights_once_for_a_pair(
    small_model, crystal, monkeypatch, paired
):
    """Values and derivatives in one pass, of half of the edges where these come in pairs."""
    model, seen = small_model(), []
    original = convolution.linearized_weights

    def counted(network, basis, length):
        seen.append(length.shape[0])
        return original(network, basis, length)

    monkeypatch.setattr(convolution, "linearized_weights", counted)
    gradients(model, crystal, two_way if paired else None)
    edges = graph_and_charges(model, crystal)[0].num_edges
    assert seen == len(layers(model)) * [edges // 2 if paired else edges]


@pytest.mark.parametrize("part", ["fc", "radial_basis"])
def test_a_wrapped_module_is_honoured_in_training(small_model, crystal, part):
    model = small_model()
    stack = model.energy_stage.convolutions
    owner = stack if part == "radial_basis" else stack.layers[0].conv
    setattr(owner, part, Wrapped(getattr(owner, part)))
    found = gradients(model, crystal)
    with references():
        expected = gradients(model, crystal)
    for name, one in found.items():
        assert (one - expected[name]).abs().max() <= 1e-11 * expected[name].abs().max(), name
