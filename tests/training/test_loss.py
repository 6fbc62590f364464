"""Residuals, losses and error figures."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from openmm_nequiplr.data import Labels
from openmm_nequiplr.training.config import LossConfig
from openmm_nequiplr.training.loss import ErrorSums, balance_species, residuals, weighted_loss

NAN = float("nan")


def _tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def case():
    """Two structures of two atoms and of one; the second has no forces and no charges."""
    labels = Labels(
        atoms_per_graph=_tensor([2.0, 1.0]),
        energy=_tensor([-10.0, -5.0]),
        forces=_tensor([[1.0, 0, 0], [0, 0, 0], [NAN] * 3]),
        charges=_tensor([0.5, -0.5, NAN]),
    )
    output = SimpleNamespace(
        energy=_tensor([-9.0, -5.5]),
        forces=torch.zeros(3, 3, dtype=torch.float64),
        charges=_tensor([0.4, -0.4, 0.0]),
        dipole=torch.zeros(2, 3, dtype=torch.float64),
        stress=None,
    )
    return output, labels


def test_residuals_are_per_atom_and_leave_out_the_unknown(case):
    errors = residuals(*case)
    assert set(errors) == {"energy_per_atom", "forces", "charges"}
    assert errors["energy_per_atom"].tolist() == [0.5, -0.5]
    assert errors["forces"].tolist() == [-1.0, 0, 0, 0, 0, 0]
    torch.testing.assert_close(errors["charges"], _tensor([-0.1, 0.1]))


def test_weighted_loss(case):
    loss = weighted_loss(residuals(*case), LossConfig(energy_per_atom=2.0, forces=6.0, charges=100))
    assert loss.item() == pytest.approx(2 * 0.25 + 6 / 6 + 100 * 0.01)


def test_unlabelled_values_leave_no_trace_in_gradients(case):
    output, labels = case
    output.forces.requires_grad_()
    weighted_loss(residuals(output, labels), LossConfig(energy_per_atom=0.0)).backward()
    assert torch.isfinite(output.forces.grad).all()
    assert not output.forces.grad[2].any()
    assert output.forces.grad[0, 0] != 0


def test_balanced_elements_count_alike(case):
    """One atom off by 2 among three that are off by 1: (4 + 1) / 2, not (4 + 3) / 4."""
    labels = Labels(
        atoms_per_graph=_tensor([4.0, 1.0]),
        forces=_tensor([[0.0, 0, 0]] * 4 + [[NAN] * 3]),
        charges=_tensor([0.0, 0, 0, 0, NAN]),
    )
    charges = _tensor([2.0, 1, -1, 1, 9])
    output = SimpleNamespace(
        energy=None, forces=charges[:, None].expand(5, 3), charges=charges, dipole=None, stress=None
    )
    errors = residuals(output, labels)
    balanced = balance_species(errors, labels, torch.tensor([3, 0, 0, 0, 1]))
    for name in ("forces", "charges"):
        assert balanced[name].square().mean().item() == pytest.approx(2.5)
        assert errors[name].square().mean().item() == pytest.approx(1.75)


def test_error_sums_over_uneven_batches(case):
    errors = residuals(*case)
    sums = ErrorSums()
    sums.add(errors)
    sums.add({"charges": _tensor([0.4])})
    charges = sums.errors()["charges"]
    assert charges.count == 3
    assert charges.mae == pytest.approx((0.1 + 0.1 + 0.4) / 3)
    assert charges.rmse == pytest.approx(((0.01 + 0.01 + 0.16) / 3) ** 0.5)
    assert "dipole" not in sums.errors()
    assert sums.loss(LossConfig(forces=0.0)) == pytest.approx(0.25)


def test_nothing_to_learn_from_is_an_error(case):
    with pytest.raises(ValueError, match="errors: expected a labelled quantity"):
        weighted_loss(residuals(*case), LossConfig(energy_per_atom=0, forces=0, dipole=1.0))
