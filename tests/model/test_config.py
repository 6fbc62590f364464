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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("type_names", ["Na", "Na"]),
        ("type_names", ["Unobtainium"]),
        ("type_names", []),
        ("type_names", "NaCl"),
        ("r_max", 0.0),
        ("r_max", float("nan")),
        ("r_max", "4"),
        ("r_max_charge", -1.0),
        ("num_layers", -1),
        ("num_layers", 1.5),
        ("num_layers_charge", True),
        ("l_max", -1),
        ("parity", 1),
        ("pseudotensors", None),
        ("num_features", 0),
        ("avg_num_neighbors", 0.0),
        ("polynomial_cutoff_p", 1.0),
        ("num_charge_basis", 0),
        ("charge_max", -1.0),
        ("electrostatic_energy", "ewald"),
        ("gaussian_widths", [1.0]),
        ("gaussian_widths", [1.0, 0.0]),
        ("hardness_min", -0.1),
        ("nonlinearity_scalars", ["silu"]),
        ("nonlinearity_scalars", ["silu", "silu"]),
        ("nonlinearity_gates", ["relu", "tanh"]),
        ("coulomb_constant", 0.0),
    ],
)
def test_bad_values_are_named(name, value):
    with pytest.raises(InputError, match=f"{name}: expected"):
        ModelConfig(**{**GOOD, name: value})


def test_unknown_and_missing_names():
    with pytest.raises(InputError, match="num_layer"):
        ModelConfig.from_dict({**GOOD, "num_layer": 3})
    with pytest.raises(InputError, match="r_max"):
        ModelConfig.from_dict({"type_names": ["H"]})
