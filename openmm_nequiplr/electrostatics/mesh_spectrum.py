"""The smooth part of a mesh Coulomb sum in reciprocal space."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch

from .splitting import MeshParameters


class FixedCell(NamedTuple):
    """What a cell that does not change gives, without gradients.

    Parameters
    ----------
    filters : torch.Tensor, shape (S, M1, M2, M3//2 + 1), e⁻¹√eV
    smooth_diagonal : torch.Tensor, float64, shape (S,), eV/e²
        Of the smooth sum, for each layer.
    scale : torch.Tensor, float64, shape (3, 3), 1/Å
        Of the cell; positions times it are in mesh spacings.
    volume : torch.Tensor, float64, scalar, Å³
    """

    filters: torch.Tensor
    smooth_diagonal: torch.Tensor
    scale: torch.Tensor
    volume: torch.Tensor


class MeshSpectrum:
    """Filters that turn the waves of spread charges into those of their potential.

    Charges of width σ_s lie on layer s of the mesh; ρ_s(k) is the transform of what their splines
    put there. Their smooth energy is ½ Σ_k |Σ_s A_s(k) ρ_s(k)|² with
    A_s² = 4π k_e/(V k²) exp(−σ_s² k²) W(k), without the wave k = 0.

    Parameters
    ----------
    parameters : MeshParameters
    widths : torch.Tensor, float64, shape (S,), Å
        σ of the layers.
    """

    def __init__(self, parameters: MeshParameters, widths: torch.Tensor) -> None:
        self._parameters, self._widths = parameters, widths
        factors = [f.to(widths.device) for f in _spline_factors(parameters)]
        self._spline = factors[0][:, None, None] * factors[1][:, None] * factors[2]
        self._kept: tuple[str, FixedCell] | None = None

    def to(self, device: torch.device | str) -> MeshSpectrum:
        """The same filters on ``device``."""
        if self._widths.device == torch.device(device):
            return self
        return MeshSpectrum(self._parameters, self._widths.to(device))

    def filters(self, cell: torch.Tensor, constant: float) -> torch.Tensor:
        """A_s(k) over the half mesh, shape (S, M1, M2, M3//2 + 1), e⁻¹√eV; carries gradients."""
        k_squared = self._k_squared(cell)
        origin = torch.zeros_like(k_squared, dtype=torch.bool)
        origin[0, 0, 0] = True
        safe = torch.where(origin, torch.ones_like(k_squared), k_squared)
        volume = torch.linalg.det(cell).abs()
        common = torch.sqrt(4.0 * math.pi * constant / volume / safe) * self._spline.sqrt()
        common = torch.where(origin, torch.zeros_like(common), common)
        half_square = 0.5 * (self._widths**2)[:, None, None, None]
        return common * torch.exp(-half_square * k_squared)

    def fixed(self, cell: torch.Tensor, constant: float, dtype: torch.dtype) -> FixedCell:
        """All that the cell alone decides, :meth:`filters` in ``dtype``.

        Kept for as long as the cell stays the same.
        """
        made_for = repr((cell.tolist(), constant, dtype))
        if self._kept is None or self._kept[0] != made_for:
            with torch.no_grad():
                filters = self.filters(cell.detach(), constant)
                # splines taken out: on average over the mesh an atom sees the Ewald sum
                squares = torch.nan_to_num(filters**2 / self._spline)
                factor = wave_weights(self._parameters.shape[2], filters)
                diagonal = (squares * factor).sum(dim=(1, 2, 3))
                volume = torch.linalg.det(cell.detach()).abs()
                diagonal = diagonal - 4.0 * math.pi * constant / volume * self._widths**2
                fixed = FixedCell(filters.to(dtype), diagonal, self.scale(cell.detach()), volume)
                self._kept = made_for, fixed
        return self._kept[1]

    def scale(self, cell: torch.Tensor) -> torch.Tensor:
        """Inverse of the cell in mesh spacings, shape (3, 3), 1/Å; carries gradients."""
        return torch.linalg.inv(cell) * cell.new_tensor(self._parameters.shape)

    def _k_squared(self, cell: torch.Tensor) -> torch.Tensor:
        reciprocal = 2.0 * math.pi * torch.linalg.inv(cell).T
        shape = self._parameters.shape
        options: dict[str, Any] = {"dtype": cell.dtype, "device": cell.device}
        axes = [torch.fft.fftfreq(n, 1.0 / n, **options) for n in shape[:2]]
        axes.append(torch.fft.rfftfreq(shape[2], 1.0 / shape[2], **options))
        x, y, z = (a.unsqueeze(-1) * row for a, row in zip(axes, reciprocal, strict=True))
        k = (x[:, None] + y).unsqueeze(2) + z
        return (k * k).sum(dim=-1)


def wave_weights(points: int, like: torch.Tensor) -> torch.Tensor:
    """How often each wave of the half mesh counts along the last axis, shape (M3//2 + 1,)."""
    weights = torch.full((points // 2 + 1,), 2.0, dtype=torch.float64, device=like.device)
    weights[0] = 1.0
    if points % 2 == 0:
        weights[-1] = 1.0
    return weights


def _spline_factors(parameters: MeshParameters) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Axis factors W²/(Σ_m W²)² of the filter; W is the splines' transform, m their aliases.

    The product over the axes is the influence function of Hockney and Eastwood with the aliases of
    the (Gaussian) interaction itself left out. Highest waves of even meshes, whose sign is
    ambiguous, are dropped.
    """
    factors = []
    for axis, points in enumerate(parameters.shape):
        x = np.fft.rfftfreq(points) if axis == 2 else np.fft.fftfreq(points)
        waves = [np.sinc(x + m) ** (2 * parameters.order) for m in range(-4, 5)]
        factor = waves[4] / np.sum(waves, axis=0) ** 2
        if points % 2 == 0:
            factor[points // 2] = 0.0
        factors.append(torch.from_numpy(factor))
    return factors[0], factors[1], factors[2]
