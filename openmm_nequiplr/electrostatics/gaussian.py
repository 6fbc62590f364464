"""Pair kernels of Gaussian charges.

Two Gaussian charges of widths σ_i and σ_j interact as k_e erf(r/(√2 γ))/r with γ² = σ_i² + σ_j²,
and each has the self-energy ½ q² k_e/(√π σ) (Ko, Finkler, Goedecker, Behler 2021, eqs. 4-6).
"""

from __future__ import annotations

import math

import torch


def pair_width(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """γ = √(σ_i² + σ_j²) in Å; the shapes broadcast."""
    return torch.sqrt(first * first + second * second)


def pair_potential(distance: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """erf(r/(√2 γ))/r in 1/Å, for r > 0.

    Parameters
    ----------
    distance : torch.Tensor, any shape, Å
        Must not be zero.
    width : torch.Tensor, the same shape, Å
        γ of the pair.
    """
    return torch.erf(distance / (math.sqrt(2.0) * width)) / distance


def screening(distance: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """erfc(r/(√2 γ))/r in 1/Å: what a point-charge pair has more than a Gaussian pair."""
    return torch.erfc(distance / (math.sqrt(2.0) * width)) / distance


def self_coefficient(widths: torch.Tensor) -> torch.Tensor:
    """1/(√π σ) in 1/Å: the diagonal of K/k_e of Gaussian charges."""
    return 1.0 / (math.sqrt(math.pi) * widths)


class GaussianScreening:
    """What turns a point-charge Coulomb sum into one of Gaussian charges.

    The energy is ½ Σ_i k_e q_i²/(√π σ_i) − Σ_pairs k_e q_i q_j erfc(r/(√2 γ))/r, with periodic
    images in the pairs. It is short-ranged, so it goes with any point-charge code (PME, say).

    Parameters
    ----------
    pair_index : torch.Tensor, int64, shape (2, P)
        Each pair (and pair of images) once.
    distance : torch.Tensor, float64, shape (P,), Å
    widths : torch.Tensor, float64, shape (N,), Å
        σ of every atom.
    coulomb_constant : float, eV Å/e²
    """

    def __init__(
        self,
        pair_index: torch.Tensor,
        distance: torch.Tensor,
        widths: torch.Tensor,
        coulomb_constant: float,
    ) -> None:
        self._pair_index = pair_index
        first, second = pair_index
        width = pair_width(widths[first], widths[second])
        self._coefficient = -coulomb_constant * screening(distance, width)
        self._diagonal = coulomb_constant * self_coefficient(widths)

    def energy(self, charges: torch.Tensor) -> torch.Tensor:
        """Energy of the correction for charges of shape (N,), a scalar, eV."""
        first, second = self._pair_index
        pairs = self._coefficient * charges[first] * charges[second]
        return pairs.sum() + 0.5 * (self._diagonal * charges * charges).sum()
