"""Models with more elements against the models they come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openmm_nequiplr.errors import InputError
from openmm_nequiplr.model import ModelConfig, NequIPLRPotential
from openmm_nequiplr.model.transfer import with_elements

TABLE = [[1.1, 1.2, 1.3], [1.2, 1.0, 1.4], [1.3, 1.4, 1.5]]


def model_of(**options):
    settings = {"r_max": 3.5, "l_max": 2, "num_features": 4, "invariant_neurons": 8, "zbl": True}
    torch.manual_seed(3)
    config = ModelConfig(type_names=("O", "Na"), **(settings | options))
    model = NequIPLRPotential(config).double().eval()
    with torch.no_grad():
        for value in (
            model.hardness_parameter,
            *(b for n, b in model.named_buffers() if "sca" in n),
        ):
            if value.shape == (2,):
                value.copy_(torch.tensor([1.5, 2.5]))
    return model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shared_features": True, "pseudotensors": False, "effective_charges": True},
        {"equilibration": False},
        {"shortest_distances": [row[:2] for row in TABLE[:2]], "gaussian_widths": [0.7, 0.9]},
        {"num_layers": 0, "use_sc": False},
    ],
    ids=["separate", "shared", "short-range", "distances", "no layers"],
)
def test_structures_of_the_old_elements_keep_their_results(options, rng):
    old = model_of(**options)
    table = TABLE if "shortest_distances" in options else None
    new = with_elements(old, ["Cl"], table).eval()
    assert new.config.type_names == ("O", "Na", "Cl")
    symbols = ["O", "Na", "Na", "O", "O"]
    positions = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2], [2, 2, 0]], dtype=float)
    positions += rng.normal(0, 0.1, (5, 3))
    results = [m(m.build_graph(symbols, positions, total_charge=1.0)) for m in (old, new)]
    for name in ("energy", "forces", "charges"):
        before, after = (getattr(result, name).detach().numpy() for result in results)
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-11, err_msg=name)
    other = new(new.build_graph(["O", "Na", "Cl", "O", "O"], positions))
    assert torch.isfinite(other.energy).all()
    assert abs(float(other.energy - results[0].energy)) > 1e-4


def test_a_new_element_starts_between_the_known_ones():
    new = with_elements(model_of(), ["Cl", "H"])
    assert new.hardness_parameter.tolist() == [1.5, 2.5, 2.0, 2.0]
    assert new.energy_scales.tolist() == [1.5, 2.5, 2.0, 2.0]
    assert new.config.widths[:2] == model_of().config.widths
    assert new.widths.tolist() == list(new.config.widths)


def test_what_cannot_be_extended():
    with pytest.raises(InputError, match="type_names: expected each element once"):
        with_elements(model_of(), ["Na"])
    with pytest.raises(InputError, match="shortest_distances: expected a table of the 3 elements"):
        with_elements(model_of(shortest_distances=[row[:2] for row in TABLE[:2]]), ["Cl"])
    with pytest.raises(InputError, match="model: expected one trained by this package"):
        with_elements(model_of(legacy_nonperiodic=True), ["Cl"])
