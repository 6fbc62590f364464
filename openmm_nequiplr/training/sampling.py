"""Batches of an epoch: shuffled, by number or by atoms, shared out over processes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler


def epoch_order(length: int, seed: int, epoch: int) -> list[int]:
    """Shuffled indices below ``length`` that depend on nothing but seed and epoch.

    Because no generator state is carried along, a resumed run sees the same batches as one that
    was never interrupted.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(length, generator=generator).tolist()


class EpochBatches(Sampler[list[int]]):
    """Batches of the order of :func:`epoch_order`.

    Several processes make the same batches, ``world_size`` times as large, and share out the
    structures of each so that all have about as many atoms: they train as one process would, and
    hardly wait for one another.

    Parameters
    ----------
    sizes : sequence of int
        Atoms of each structure.
    seed : int
    batch_size : int
        Structures of a batch and process.
    batch_atoms : int, optional
        Atoms of a batch and process, in place of ``batch_size``: the order is cut where the atoms
        so far are nearest to equal parts, as many in every epoch.
    rank, world_size : int
        This process and the number of processes. One for which a batch has no structure gets the
        index −1, which stands for an item without labels.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        seed: int,
        batch_size: int,
        batch_atoms: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.sizes, self.seed = np.asarray(sizes), seed
        self.rank, self.world_size, self.epoch = rank, world_size, 0
        self.batch_size = batch_size * world_size
        self._by_atoms = batch_atoms is not None
        self._number = -(-len(self.sizes) // self.batch_size)
        if batch_atoms is not None:
            parts = -(-int(self.sizes.sum()) // (batch_atoms * world_size))
            self._number = min(parts, len(self.sizes))

    @property
    def sampler(self) -> EpochBatches:
        """Itself: Lightning looks there for whom to tell the epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[list[int]]:
        order = epoch_order(len(self.sizes), self.seed, self.epoch)
        starts = self._starts(order)
        for begin, end in itertools.pairwise(starts):
            yield self._share(order[begin:end])

    def _starts(self, order: list[int]) -> list[int]:
        """Places in the order where batches begin, and its end."""
        count, number = len(order), self._number
        if not self._by_atoms:
            return [*range(0, count, self.batch_size), count]
        sizes = self.sizes[order]
        middles, batches = np.cumsum(sizes) - 0.5 * sizes, np.arange(number)
        starts = np.searchsorted(middles, batches * (sizes.sum() / number))
        starts = np.maximum.accumulate(starts - batches) + batches  # none is empty
        return [*np.minimum(starts, count - number + batches).tolist(), count]

    def _share(self, together: list[int]) -> list[int]:
        """The part of this process: from the largest on, each structure to whom has least."""
        if self.world_size == 1:
            return together
        shares: list[list[int]] = [[] for _ in range(self.world_size)]
        atoms = [0] * self.world_size
        for index in sorted(together, key=lambda each: -self.sizes[each]):
            least = atoms.index(min(atoms))
            shares[least].append(index)
            atoms[least] += int(self.sizes[index])
        return shares[self.rank] or [-1]
