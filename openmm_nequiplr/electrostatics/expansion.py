"""Matrices of the Ewald sum of Gaussian charges and of its first derivatives, without pair lists.

Let r be the vectors between atoms and images, and c(r) and A(k) the coefficients of the real-space
and of the reciprocal sum (:mod:`.ewald`). The derivative of K by a homogeneous strain ε is

    dK/dε_ab = Σ c'(r) r_a r_b/r + Σ_k A(k) [k_a k_b (2/k² + η²) − δ_ab] cos k·r − δ_ab K_background

(Nosé and Klein 1983, doi:10.1080/00268978300102851, written there for the energy).
"""

from __future__ import annotations

import torch

from ..ops.image_sums import SIX, image_sums
from .ewald import EwaldCoulomb, EwaldGeometry, EwaldSplitting
from .linearized import LinearizedCoulomb, six
from .reciprocal import half_index


def linearized_ewald(
    positions: torch.Tensor,
    cell: torch.Tensor,
    widths: torch.Tensor,
    splitting: EwaldSplitting,
    coulomb_constant: float,
    strain: bool = False,
) -> LinearizedCoulomb:
    """First-order expansion of the matrix K of :class:`.ewald.EwaldCoulomb`.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
    cell : torch.Tensor, float64, shape (3, 3), Å
    widths : torch.Tensor, float64, shape (N,), Å
    splitting : EwaldSplitting
    coulomb_constant : float, eV Å/e²
    strain : bool
        Whether to compute the derivative with respect to the strain.
    """
    with torch.no_grad():
        none = torch.zeros(2, 0, dtype=torch.int64, device=positions.device)
        kvectors = half_index(cell, splitting.k_cutoff)
        smooth = EwaldCoulomb(
            positions,
            cell,
            widths,
            EwaldGeometry(splitting.eta, none, positions[:0], kvectors),
            coulomb_constant,
        )
        sums = image_sums(positions, cell, widths, splitting.eta, splitting.cutoff, strain)
        pairs = coulomb_constant * sums
        waves = _wave_sums(smooth, strain)
        slopes = pairs[4:] + waves[3:] if strain else None
        return LinearizedCoulomb(
            constant=smooth.matrix() + pairs[0],
            gradient=(pairs[1:4] + waves[:3]).movedim(0, -1).contiguous(),
            origin=positions.clone(),
            cell=cell.clone(),
            strain=slopes,
        )


def _wave_sums(smooth: EwaldCoulomb, strain: bool) -> torch.Tensor:
    """Derivatives of the reciprocal sum by position [and strain], shape (3 [+ 6], N, N)."""
    k, count = smooth.kvectors, len(smooth.widths)
    wave = torch.cat((smooth.cos, smooth.sin), dim=1)
    turned = torch.cat((-smooth.sin, smooth.cos), dim=1)
    factors = (smooth.influence.unsqueeze(-1) * k).t().repeat(1, 2)
    weighed = [turned * factor for factor in factors]
    if strain:
        square = k.square().sum(-1)
        growth = k[:, SIX[0]] * k[:, SIX[1]] * (2.0 / square + smooth.smoothing_width**2)[:, None]
        growth = growth - six(torch.eye(3).to(k))
        factors = (smooth.influence.unsqueeze(-1) * growth).t().repeat(1, 2)
        weighed += [wave * factor for factor in factors]
    result = (torch.cat(weighed) @ wave.t()).view(-1, count, count)
    if strain:
        result[3:6] -= smooth.background
    return result
