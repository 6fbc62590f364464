"""Batches of an epoch, by number and by atoms, in one process and in several."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from openmm_nequiplr.training.sampling import EpochBatches, epoch_order

SIZES = np.random.default_rng(0).integers(3, 60, size=40).tolist()
KINDS = {"number": {"batch_size": 3}, "atoms": {"batch_size": 1, "batch_atoms": 90}}


def test_order_depends_on_seed_and_epoch_alone():
    torch.manual_seed(1)
    first = epoch_order(20, 1, 5)
    torch.manual_seed(2)
    assert epoch_order(20, 1, 5) == first
    assert sorted(first) == list(range(20))
    assert epoch_order(20, 1, 6) != first
    assert epoch_order(20, 2, 5) != first


@pytest.mark.parametrize("kind", KINDS)
def test_a_loader_meets_every_structure_once_an_epoch(kind):
    batches = EpochBatches(SIZES, 0, **KINDS[kind])
    loader = DataLoader(range(len(SIZES)), batch_sampler=batches, collate_fn=list)
    loader.batch_sampler.sampler.set_epoch(3)
    found = list(loader)
    assert len(found) == len(loader)
    assert [i for batch in found for i in batch] == epoch_order(len(SIZES), 0, 3)


def test_batches_by_number_are_as_many():
    assert [len(batch) for batch in EpochBatches(SIZES, 0, 3)] == [3] * 13 + [1]


@pytest.mark.parametrize("batch_atoms", [1, 20, 90, 400, 5000])
def test_batches_by_atoms_are_as_large(batch_atoms):
    """To within a structure; none is empty, and there are as many in every epoch."""
    batches = EpochBatches(SIZES, 0, 1, batch_atoms)
    for epoch in range(4):
        batches.set_epoch(epoch)
        atoms = [sum(SIZES[i] for i in batch) for batch in batches]
        assert len(atoms) == len(batches)
        assert min(atoms) > 0
        if batch_atoms >= max(SIZES):
            assert max(abs(a - sum(SIZES) / len(atoms)) for a in atoms) <= max(SIZES)
            assert sum(SIZES) / len(atoms) <= batch_atoms


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_processes_share_the_batches_of_one(kind, world):
    """Of one with batches as large as theirs together; what is missing is an index below 0."""
    own = KINDS[kind]
    shares = [list(EpochBatches(SIZES, 0, **own, rank=k, world_size=world)) for k in range(world)]
    whole = list(EpochBatches(SIZES, 0, **{name: world * n for name, n in own.items()}))
    for together, *parts in zip(whole, *shares, strict=True):
        assert sorted(i for part in parts for i in part if i >= 0) == sorted(together)
        assert all(parts)
        atoms = [sum(SIZES[i] for i in part if i >= 0) for part in parts]
        assert max(atoms) - min(atoms) <= max(SIZES[i] for i in together)


def test_a_process_without_a_structure():
    shares = [list(EpochBatches([5, 5, 5], 0, 1, rank=k, world_size=2)) for k in range(2)]
    assert [len(share) for share in shares] == [2, 2]
    assert shares[1][-1] == [-1]
