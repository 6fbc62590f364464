"""Pair kernels of Gaussian charges.

The interaction of Gaussian charges of widths σ_i and σ_j is k_e q_i q_j erf(r/(√2 γ))/r with
γ² = σ_i² + σ_j². Each has the self-energy ½ q² k_e/(√π σ) (Ko, Finkler, Goedecker, Behler 2021,
eqs. 4-6).
"""

# TorchScript compiles these and reads their annotations: no postponed ones here
import math

import torch

from ..ops.pair_formulas import pair_width, screening


def pair_potential(distance: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """erf(r/(√2 γ))/r in 1/Å, for r > 0.

    Parameters
    ----------
    distance : torch.Tensor, any shape, Å
        Must not be zero.
    width : torch.Tensor, shape of ``distance``, Å
        γ of the pair.
    """
    return torch.erf(distance / (math.sqrt(2.0) * width)) / distance


def self_coefficient(widths: torch.Tensor) -> torch.Tensor:
    """Diagonal 1/(√π σ) of K/k_e of Gaussian charges, 1/Å."""
    return 1.0 / (math.sqrt(math.pi) * widths)


def pair_energy(
    pairs: torch.Tensor,
    coefficient: torch.Tensor,
    diagonal: torch.Tensor,
    charges: torch.Tensor,
    subtracted: torch.Tensor,
) -> torch.Tensor:
    """Difference of Σ_pairs c_ij q_i q_j + ½ Σ_i d_i q_i² between charges q and p, a scalar, eV.

    Parameters
    ----------
    pairs : torch.Tensor, int64, shape (2, P)
        Each pair (and pair of images) once.
    coefficient : torch.Tensor, float64, shape (P,), eV/e²
        c.
    diagonal : torch.Tensor, float64, shape (N,), eV/e²
        d.
    charges, subtracted : torch.Tensor, float64, shape (N,), e
        q and p.
    """
    first, second = pairs[0], pairs[1]
    products = charges.index_select(0, first) * charges.index_select(0, second)
    products = products - subtracted.index_select(0, first) * subtracted.index_select(0, second)
    squares = charges * charges - subtracted * subtracted
    return (coefficient * products).sum() + 0.5 * (diagonal * squares).sum()


def pair_potential_of(
    pairs: torch.Tensor, coefficient: torch.Tensor, charges: torch.Tensor
) -> torch.Tensor:
    """Σ_j c_ij q_j, shape (N,), eV/e; arguments as for :func:`pair_energy`."""
    first, second = pairs[0], pairs[1]
    result = torch.zeros_like(charges)
    result = result.index_add(0, first, coefficient * charges.index_select(0, second))
    return result.index_add(0, second, coefficient * charges.index_select(0, first))


class GaussianScreening:
    """Correction from a point-charge Coulomb sum to the sum of Gaussian charges.

    The energy is ½ Σ_i k_e q_i²/(√π σ_i) − Σ_pairs k_e q_i q_j erfc(r/(√2 γ))/r, where the pairs
    include periodic images. It is short-ranged and can complement any point-charge method, such as
    PME.

    Parameters
    ----------
    pairs : torch.Tensor, int64, shape (2, P)
        Each pair (and pair of images) once.
    distance : torch.Tensor, float64, shape (P,), Å
    widths : torch.Tensor, float64, shape (N,), Å
        σ of each atom.
    coulomb_constant : float, eV Å/e²
    """

    def __init__(
        self,
        pairs: torch.Tensor,
        distance: torch.Tensor,
        widths: torch.Tensor,
        coulomb_constant: float,
    ) -> None:
        self._pairs = pairs
        width = pair_width(widths[pairs[0]], widths[pairs[1]])
        self._coefficient = -coulomb_constant * screening(distance, width)
        self._diagonal = coulomb_constant * self_coefficient(widths)

    def energy_difference(self, charges: torch.Tensor, subtracted: torch.Tensor) -> torch.Tensor:
        """Energy of the correction for charges q minus that for p, shape (N,) each, eV."""
        return pair_energy(self._pairs, self._coefficient, self._diagonal, charges, subtracted)

    def energy(self, charges: torch.Tensor) -> torch.Tensor:
        """Energy of the correction for charges of shape (N,), eV."""
        return self.energy_difference(charges, torch.zeros_like(charges))
