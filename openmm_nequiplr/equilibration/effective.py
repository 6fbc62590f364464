"""What charges are equilibrated against."""

import torch


def effective_chi(
    electronegativity: torch.Tensor,
    offset_potential: torch.Tensor | None = None,
    outside: torch.Tensor | None = None,
) -> torch.Tensor:
    """χ + K Z + φ, the derivative of the energy by charges Q apart from A Q; shape (N,), eV/e.

    Every potential that charges feel besides their own enters here; TorchScript compiles it.

    Parameters
    ----------
    electronegativity : torch.Tensor, float64, shape (N,), eV/e
        χ.
    offset_potential : torch.Tensor, optional, float64, shape (N,), eV/e
        K Z, of the charge offsets Z that the Coulomb sums see on top of Q.
    outside : torch.Tensor, optional, float64, shape (N,), eV/e
        φ, of a field or of charges that are not equilibrated.
    """
    result = electronegativity
    if offset_potential is not None:
        result = result + offset_potential
    if outside is not None:
        result = result + outside
    return result
