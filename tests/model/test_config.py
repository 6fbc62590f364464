"""The configuration refuses what cannot work and survives a round trip."""

from __future__ import annotations

import json

import pytest

from openmm_nequiplr.errors import InputError
from openmm_nequiplr.model import ModelConfig

GOOD = {"type_names": ["Na", "Cl"], "r_max": 4.0}


def test_positional_order_and_round_trip():
    config = ModelConfig(("Na", "Cl"), 4.0, 2, 1, 1, True, 8, 12.0)
    assert (config.num_features, config.avg_num_neighbors) == (8, 12.0)
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    with pytest.raises(AttributeError):
        config.r_max = 5.0


def test_derived_values():
    config = ModelConfig(**GOOD, num_layers=2, num_layers_charge=2, r_max_charge=3.0)
    assert config.numbers == (11, 17)
    assert config.widths == pytest.approx((1.66, 1.02))  # covalent radii, Cordero et al. 2008
    assert config.receptive_field == pytest.approx(2 * 4.0 + 2 * 3.0)


def test_unknown_and_missing_names():
    with pytest.raises(InputError, match="num_layer"):
        ModelConfig.from_dict({**GOOD, "num_layer": 3})
    with pytest.raises(InputError, match="r_max"):
        ModelConfig.from_dict({"type_names": ["H"]})
