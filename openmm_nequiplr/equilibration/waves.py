"""Plane waves at the places of the atoms, of which the Woodbury preconditioner is made."""

from __future__ import annotations

import numpy as np
import torch

from ..jit import compiled_loop
from ..threads import each_block, even_bounds

#: Atoms from which bytes pay on the processor.
BYTES_FROM = 1000
_LARGEST = 127
# With fewer for each a second thread costs more than it brings.
_ATOMS_PER_THREAD = 3000


class Waves:
    """B, shape (N, 2K): cosines and then sines of K waves.

    In single precision, or in bytes: the largest part of a product is reading B, and any B will do
    as long as every product takes the same.

    Parameters
    ----------
    phase : torch.Tensor, float64, shape (N, K)
    in_bytes : bool, optional
        By default for many atoms on the processor.
    """

    def __init__(self, phase: torch.Tensor, in_bytes: bool | None = None) -> None:
        if in_bytes is None:
            in_bytes = phase.device.type == "cpu" and phase.shape[0] >= BYTES_FROM
        waves = torch.cat((torch.cos(phase), torch.sin(phase)), dim=1)
        self._bytes: np.ndarray | None = None
        if in_bytes:
            self._bytes = torch.round(_LARGEST * waves).to(torch.int8).numpy()
            self._bounds = even_bounds(phase.shape[0], _ATOMS_PER_THREAD)
        else:
            self._matrix = waves.to(torch.float32)

    def matrix(self) -> torch.Tensor:
        """B, float32, shape (N, 2K)."""
        if self._bytes is None:
            return self._matrix
        return torch.from_numpy(self._bytes).to(torch.float32) / _LARGEST

    def project(self, weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Bᵀ(w v), float32, shape (2K,), of w and v, float64, shape (N,)."""
        if self._bytes is None:
            return self._matrix.T @ (weights * values).to(torch.float32)
        waves, source = self._bytes, (weights.numpy(), values.numpy())

        def part(*atoms: int) -> np.ndarray:
            sums = np.zeros(waves.shape[1], np.float32)
            project(waves, *source, sums, *atoms)
            return sums

        return torch.from_numpy(sum(each_block(self._bounds, part)))

    def remove(
        self, weights: torch.Tensor, values: torch.Tensor, coefficients: torch.Tensor
    ) -> torch.Tensor:
        """w (v − B c), float64, shape (N,), of c, float32, shape (2K,)."""
        if self._bytes is None:
            return weights * (values - (self._matrix @ coefficients).to(torch.float64))
        result = np.empty(len(self._bytes))
        source = weights.numpy(), values.numpy(), coefficients.numpy()
        waves = self._bytes
        each_block(self._bounds, lambda *atoms: remove(waves, *source, result, *atoms))
        return torch.from_numpy(result)


@compiled_loop(fastmath=True)
def project(waves, weights, values, sums, begin, end):
    """Add Bᵀ(w v) of the atoms ``begin`` to ``end``; ``waves`` holds B in bytes."""
    unit = np.float64(1.0 / _LARGEST)
    four = begin + (end - begin) // 4 * 4
    for i in range(begin, four, 4):
        a = np.float32(unit * weights[i] * values[i])
        b = np.float32(unit * weights[i + 1] * values[i + 1])
        c = np.float32(unit * weights[i + 2] * values[i + 2])
        d = np.float32(unit * weights[i + 3] * values[i + 3])
        for k in range(waves.shape[1]):
            sums[k] += (a * np.float32(waves[i, k]) + b * np.float32(waves[i + 1, k])) + (
                c * np.float32(waves[i + 2, k]) + d * np.float32(waves[i + 3, k])
            )
    for i in range(four, end):
        a = np.float32(unit * weights[i] * values[i])
        for k in range(waves.shape[1]):
            sums[k] += a * np.float32(waves[i, k])


@compiled_loop(fastmath=True)
def remove(waves, weights, values, coefficients, result, begin, end):
    """Write w (v − B c) of the atoms ``begin`` to ``end``."""
    unit = np.float32(1.0 / _LARGEST)
    for i in range(begin, end):
        total = np.float32(0.0)
        for k in range(waves.shape[1]):
            total += np.float32(waves[i, k]) * coefficients[k]
        result[i] = weights[i] * (values[i] - unit * total)
