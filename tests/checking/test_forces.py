"""Forces against finite differences: right ones pass, wrong ones do not."""

from __future__ import annotations

import numpy as np

from openmm_nequiplr import NequIPLRCalculator
from openmm_nequiplr.checking.forces import check_forces


def test_forces_of_a_model_pass(make_model, molecule, crystal, rng):
    model = make_model(zbl=True).float()
    try:
        found = check_forces(model, [molecule, crystal], 2, rng)
    finally:
        model.double()  # others share it
    assert found.forces.shape == found.differences.shape == (4,)
    assert np.abs(found.forces).max() > 0.01
    assert found.problem is None
    assert found.largest_error < 1e-3


def test_wrong_forces_do_not_pass(make_model, molecule, rng, monkeypatch):
    right = NequIPLRCalculator.get_property

    def wrong(self, name, atoms, *rest):
        value = right(self, name, atoms, *rest)
        return 1.2 * value if name == "forces" else value

    monkeypatch.setattr(NequIPLRCalculator, "get_property", wrong)
    found = check_forces(make_model(zbl=True), [molecule], 5, rng)
    assert found.problem is not None
    assert "meV/Å" in found.problem
