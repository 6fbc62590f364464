"""Models can be copied, also where e3nn compiles its functions (with torch before 2.10)."""

from __future__ import annotations

import copy

import e3nn
import numpy as np
import pytest
import torch

from openmm_nequiplr.model import Evaluator, NequIPLRPotential


@pytest.mark.parametrize("mode", ["eager", "script"])
def test_a_copy_has_the_same_energy_and_weights_of_its_own(monkeypatch, make_model, crystal, mode):
    # Its own setter also changes other defaults, which are then not put back.
    monkeypatch.setitem(e3nn._OPT_DEFAULTS, "jit_mode", mode)
    model = NequIPLRPotential(make_model().config).double().eval()
    model.load_state_dict(make_model().state_dict())
    again = copy.deepcopy(model)
    graph = model.build_graph(
        crystal.numbers, crystal.positions, np.array(crystal.cell), crystal.pbc
    )
    energy = Evaluator(model)(graph).energy
    assert Evaluator(again)(graph).energy == energy
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    assert Evaluator(model)(graph).energy == energy
