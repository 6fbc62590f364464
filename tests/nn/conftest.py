"""The small model of the tests of fast paths."""

from __future__ import annotations

import pytest
import torch

from openmm_nequiplr.model import ModelConfig, NequIPLRPotential


@pytest.fixture(scope="session")
def small_model():
    """``small_model(**options)``: a model in double precision, weights the same every time."""

    def make(**options) -> NequIPLRPotential:
        torch.manual_seed(3)
        settings = {
            "type_names": ("O", "Na", "Cl"),
            "r_max": 3.5,
            "num_features": 4,
            "avg_num_neighbors": 6.0,
            "invariant_neurons": 8,
        }
        return NequIPLRPotential(ModelConfig(**(settings | options))).double()

    return make
