"""Shuffled batches of an epoch, by number of structures or atoms, distributed over processes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler


def epoch_order(length: int, seed: int, epoch: int) -> list[int]:
    """Shuffled indices below ``length`` that depend only on seed and epoch.

    There is no state of a random generator, so a resumed training uses the same batches as an
    uninterrupted one.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(length, generator=generator).tolist()


class EpochBatches(Sampler[list[int]]):
    """Batches in the order of :func:`epoch_order`.

    Several processes use common batches, which are ``world_size`` times as large, and distribute
    the structures of each so that all processes have about the same number of atoms. They train
    as one process with these batches would, and hardly wait for one another.

    Parameters
    ----------
    sizes : sequence of int
        Number of atoms of each structure.
    seed : int
    batch_size : int
        Structures per batch and process.
    batch_atoms : int, optional
        Atoms per batch and process, in place of ``batch_size``. The order is divided into parts
        with nearly equal numbers of atoms; the number of batches is the same in every epoch.
    rank, world_size : int
        Rank of this process, and number of processes. A process without a structure in a batch
        receives the index −1, which stands for an item without labels.
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
        """This object: Lightning calls ``set_epoch`` of this attribute."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch; Lightning calls this method before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[list[int]]:
        order = epoch_order(len(self.sizes), self.seed, self.epoch)
        starts = self._starts(order)
        for begin, end in itertools.pairwise(starts):
            yield self._share(order[begin:end])

    def _starts(self, order: list[int]) -> list[int]:
        """Positions in the order at which batches start, followed by its length."""
        count, number = len(order), self._number
        if not self._by_atoms:
            return [*range(0, count, self.batch_size), count]
        sizes = self.sizes[order]
        middles, batches = np.cumsum(sizes) - 0.5 * sizes, np.arange(number)
        starts = np.searchsorted(middles, batches * (sizes.sum() / number))
        starts = np.maximum.accumulate(starts - batches) + batches  # no batch is empty
        return [*np.minimum(starts, count - number + batches).tolist(), count]

    def _share(self, together: list[int]) -> list[int]:
        """Structures of this process; each, largest first, goes to the one with fewest atoms."""
        if self.world_size == 1:
            return together
        shares: list[list[int]] = [[] for _ in range(self.world_size)]
        atoms = [0] * self.world_size
        for index in sorted(together, key=lambda each: -self.sizes[each]):
            least = atoms.index(min(atoms))
            shares[least].append(index)
            atoms[least] += int(self.sizes[index])
        return shares[self.rank] or [-1]
