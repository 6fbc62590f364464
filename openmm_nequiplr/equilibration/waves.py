"""Plane waves at the places of the atoms: the matrix U of the Woodbury preconditioner."""

from __future__ import annotations

import numpy as np
import torch

from ..electrostatics.mesh_sums import ATOMS_PER_THREAD
from ..jit import compiled_loop
from ..threads import each_block, even_bounds

#: Atoms from which bytes pay on the processor.
BYTES_FROM = 1000
_LARGEST = 127


class Waves:
    """U, shape (N, 2K): cosines and sines of K waves, each pair times a factor.

    In single precision, or in bytes: the largest part of a product is reading U, and any U will do
    as long as every product takes the same.

    Parameters
    ----------
    phase : torch.Tensor, float64, shape (N, K)
    factors : torch.Tensor, float64, shape (K,)
    in_bytes : bool, optional
        By default for many atoms on the processor.
    """

    def __init__(
        self, phase: torch.Tensor, factors: torch.Tensor, in_bytes: bool | None = None
    ) -> None:
        if in_bytes is None:
            in_bytes = phase.device.type == "cpu" and phase.shape[0] >= BYTES_FROM
        waves = torch.cat((torch.cos(phase), torch.sin(phase)), dim=1)
        both = torch.cat((factors, factors))
        self._bytes: np.ndarray | None = None
        if in_bytes:
            self._bytes = torch.round(_LARGEST * waves).to(torch.int8).numpy()
            self._factors = (both / _LARGEST).to(torch.float32)
            self._bounds = even_bounds(phase.shape[0], ATOMS_PER_THREAD)
        else:
            self._matrix = (waves * both).to(torch.float32)

    def matrix(self) -> torch.Tensor:
        """U, float32, shape (N, 2K)."""
        if self._bytes is None:
            return self._matrix
        return torch.from_numpy(self._bytes).to(torch.float32) * self._factors

    def project(self, values: torch.Tensor) -> torch.Tensor:
        """Uᵀ r, shape (2K,), of r, float32, shape (N,)."""
        if self._bytes is None:
            return self._matrix.T @ values
        waves, source = self._bytes, values.numpy()

        def part(*atoms: int) -> np.ndarray:
            sums = np.zeros(waves.shape[1], np.float32)
            project(waves, source, sums, *atoms)
            return sums

        return torch.from_numpy(sum(each_block(self._bounds, part))) * self._factors

    def expand(self, coefficients: torch.Tensor) -> torch.Tensor:
        """U c, shape (N,), of c, float32, shape (2K,)."""
        if self._bytes is None:
            return self._matrix @ coefficients
        waves = self._bytes
        result = np.empty(waves.shape[0], np.float32)
        scaled = (coefficients * self._factors).numpy()
        each_block(self._bounds, lambda *atoms: expand(waves, scaled, result, *atoms))
        return torch.from_numpy(result)


@compiled_loop(fastmath=True)
def project(waves, values, sums, begin, end):
    """Add Uᵀ r of the atoms ``begin`` to ``end``."""
    four = begin + (end - begin) // 4 * 4
    for i in range(begin, four, 4):
        a, b, c, d = values[i], values[i + 1], values[i + 2], values[i + 3]
        for k in range(waves.shape[1]):
            sums[k] += (a * np.float32(waves[i, k]) + b * np.float32(waves[i + 1, k])) + (
                c * np.float32(waves[i + 2, k]) + d * np.float32(waves[i + 3, k])
            )
    for i in range(four, end):
        for k in range(waves.shape[1]):
            sums[k] += values[i] * np.float32(waves[i, k])


@compiled_loop(fastmath=True)
def expand(waves, coefficients, result, begin, end):
    """Write U c of the atoms ``begin`` to ``end``."""
    for i in range(begin, end):
        total = np.float32(0.0)
        for k in range(waves.shape[1]):
            total += np.float32(waves[i, k]) * coefficients[k]
        result[i] = total
