"""Extrapolated charges."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from openmm_nequiplr.equilibration import ChargePredictor
from openmm_nequiplr.errors import InputError


def trajectory(step: float) -> torch.Tensor:
    atoms = torch.arange(5.0, dtype=torch.float64)
    return torch.sin(step * (1.0 + 0.2 * atoms) + atoms)


@pytest.mark.parametrize("degree", range(5))
def test_polynomials_are_continued_exactly(degree):
    predictor = ChargePredictor(degree)
    slope = torch.arange(1.0, 4.0, dtype=torch.float64)
    for step in range(degree + 3):
        predictor.accept(slope * step**degree + 1.0)
    expected = slope * (degree + 3) ** degree + 1.0
    torch.testing.assert_close(predictor.predict(), expected)
    assert predictor.solutions == degree + 2


def test_the_guess_improves_with_degree_and_history():
    errors = []
    for degree in range(5):
        predictor = ChargePredictor(degree)
        for step in range(8):
            predictor.accept(trajectory(0.05 * step))
        errors.append((predictor.predict() - trajectory(0.4)).abs().max().item())
    assert all(high < 0.3 * low for low, high in itertools.pairwise(errors))
    predictor = ChargePredictor()
    starting = []
    for step in range(5):
        if step:
            starting.append((predictor.predict() - trajectory(0.05 * step)).abs().max().item())
        predictor.accept(trajectory(0.05 * step))
    assert starting == sorted(starting, reverse=True)


def test_noise_is_not_amplified():
    """Steps in random directions: their best guess is the last solution."""
    torch.manual_seed(0)
    predictor, charges = ChargePredictor(), torch.zeros(2000, dtype=torch.float64)
    for _ in range(8):
        charges = charges + 0.01 * torch.randn_like(charges)
        predictor.accept(charges)
    guess = predictor.predict()
    assert float((guess - charges).norm()) < 0.1 * 0.01 * 2000**0.5
    polynomial = 0.01 * (3.0**2 + 3.0**2 + 1.0) ** 0.5 * 2000**0.5  # of degree 3
    assert float((guess - charges).norm()) < 0.05 * polynomial


def test_total_charge_is_kept():
    predictor = ChargePredictor()
    for step in range(6):
        charges = trajectory(0.3 * step)
        predictor.accept(charges - charges.mean() + 0.2)
        assert predictor.predict().sum().item() == pytest.approx(1.0)


def test_solutions_are_copied():
    predictor, charges = ChargePredictor(0), torch.ones(3, dtype=torch.float64)
    predictor.accept(charges)
    charges += 1.0
    assert predictor.predict().tolist() == [1.0, 1.0, 1.0]


def test_history_is_dropped():
    predictor = ChargePredictor()
    assert predictor.predict() is None
    predictor.accept(torch.ones(3))
    assert predictor.predict(3) is not None
    assert predictor.predict(4) is None
    assert predictor.solutions == 0
    predictor.accept(torch.ones(3))
    predictor.accept(torch.zeros(4))  # other atoms: it starts anew with them
    assert predictor.predict().tolist() == [0.0] * 4
    predictor.accept(torch.full((4,), math.nan))
    assert predictor.predict() is None
    predictor.accept(torch.ones(3))
    predictor.reset()
    assert predictor.predict() is None


def test_degree_is_checked():
    with pytest.raises(InputError, match="degree: expected"):
        ChargePredictor(-1)


def test_no_more_than_the_last_solution_where_the_fit_is_not_finite():
    predictor = ChargePredictor()
    for step in range(5):
        predictor.accept(trajectory(0.3 * step) * (1e180 if step == 0 else 1.0))
    assert torch.equal(predictor.predict(), trajectory(1.2))


def test_scripted_predictor_is_the_same():
    class Holder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.predictor = ChargePredictor()

        def forward(self, solution: torch.Tensor) -> torch.Tensor:
            guess = self.predictor.predict(solution.shape[0])
            self.predictor.accept(solution)
            return torch.zeros_like(solution) if guess is None else guess

    eager = Holder()
    scripted = torch.jit.script(Holder())
    for step in range(8):
        charges = trajectory(0.3 * step)
        assert torch.equal(scripted(charges), eager(charges))


def test_as_many_iterations_are_expected_as_there_were():
    predictor = ChargePredictor()
    assert predictor.expected == 0
    for done, expected in ((5, 5), (1, 1), (0, 1)):  # one costs less than another look
        predictor.report(done)
        assert predictor.expected == expected
