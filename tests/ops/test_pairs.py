"""Sums over pairs: kernels against the reference, and that against autograd."""

from __future__ import annotations

import pytest
import torch

from openmm_nequiplr.ops import pair_kernels, pairs, references

DTYPES = {torch.float32: 3e-6, torch.float64: 1e-7}  # slopes out of tables: 1e-8
ETA, CUTOFF, CONSTANT = 2.4, 9.0, 14.4


class Case:
    def __init__(self, rng, count, number, images=5):
        first = torch.tensor(rng.integers(0, count, number)).sort().values
        second = torch.tensor(rng.integers(0, count, number))
        self.lists = first, second
        self.count = count
        self.positions = torch.tensor(rng.uniform(0.0, 9.0, (count, 3)))
        self.images = torch.tensor(rng.uniform(2.0, 4.0, (images, 3)))
        self.image = torch.tensor(rng.integers(0, images, number)).int()
        self.gammas = torch.tensor([0.8, 1.3, 2.1, 2.4]).double()
        self.kind = torch.tensor(rng.integers(0, 4, number)).int()
        self.charges, self.others = torch.tensor(rng.normal(size=(2, count)))

    def terms(self, rows, positions, images, dtype=torch.float64):
        return pairs.pair_terms(
            rows, positions, images, self.image, self.gammas, self.kind, ETA, CUTOFF, CONSTANT,
            dtype,
        )  # fmt: skip

    def results(self, dtype):
        rows = pairs.pair_rows(*self.lists, self.count)
        terms = self.terms(rows, self.positions, self.images, dtype)
        charges = self.charges, self.others
        structure = self.positions, self.images, self.image
        sums = pairs.pair_gradient(rows, terms, *structure, *charges, True)
        return [
            *pairs.pair_values(rows, terms),
            pairs.pair_product(rows, terms, self.charges),
            *sums,
        ]


def agree(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        size = float(other.abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * size + 1e-15)


@pytest.mark.parametrize(("count", "number"), [(1, 7), (20, 300), (7, 0)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_equal_the_reference(rng, count, number, dtype):
    case = Case(rng, count, number)
    found = case.results(dtype)
    with references():
        agree(found, case.results(dtype), DTYPES[dtype])


def test_many_widths_go_without_tables(rng, monkeypatch):
    case = Case(rng, 20, 300)
    monkeypatch.setattr(pair_kernels, "_MOST_KINDS", 3)
    pair_kernels.pair_table.cache_clear()
    found = case.results(torch.float64)
    pair_kernels.pair_table.cache_clear()
    with references():
        agree(found, case.results(torch.float64), 1e-13)


def test_gradient_is_the_derivative_of_the_energy(rng):
    case = Case(rng, 20, 300)
    inputs = [x.clone().requires_grad_() for x in (case.positions, case.images)]
    with references():
        rows = pairs.pair_rows(*case.lists, case.count)
        values = case.terms(rows, *inputs)[0]
        first, second = case.lists
        products = case.charges[first] * case.charges[second]
        products = products - case.others[first] * case.others[second]
        energy = (values * products).sum()
        expected = torch.autograd.grad(energy, inputs)
    agree(case.results(torch.float64)[3:], [energy.detach(), *expected], 1e-7)


def test_threads_change_nothing_but_rounding(rng, monkeypatch):
    monkeypatch.setattr(pair_kernels, "_ATOMS_PER_THREAD", 3)
    monkeypatch.setattr(pair_kernels, "_PRODUCT_ATOMS_PER_THREAD", 3)
    case, results, before = Case(rng, 20, 300), [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(case.results(torch.float64))
    finally:
        torch.set_num_threads(before)
    agree(*results, 1e-12)
