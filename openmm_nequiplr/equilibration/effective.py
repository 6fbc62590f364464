"""Effective electronegativity: the total potential in which charges are equilibrated."""

import torch


def effective_chi(
    electronegativity: torch.Tensor,
    offset_potential: torch.Tensor | None = None,
    outside: torch.Tensor | None = None,
) -> torch.Tensor:
    """χ + K Z + φ, shape (N,), eV/e: the derivative of the energy by the charges Q at Q = 0.

    Every external potential on the charges enters here. TorchScript compiles this function.

    Parameters
    ----------
    electronegativity : torch.Tensor, float64, shape (N,), eV/e
        χ.
    offset_potential : torch.Tensor, optional, float64, shape (N,), eV/e
        K Z of the charge offsets Z, which the Coulomb sum adds to Q.
    outside : torch.Tensor, optional, float64, shape (N,), eV/e
        φ of a field or of charges that are not equilibrated.
    """
    result = electronegativity
    if offset_potential is not None:
        result = result + offset_potential
    if outside is not None:
        result = result + outside
    return result
