"""Encodings of an atom's element and charge."""

# TorchScript compiles this module and reads annotations at run time: no postponed ones here.
import torch


def one_hot(types: torch.Tensor, num_types: int, dtype: torch.dtype) -> torch.Tensor:
    """One-hot vectors of shape (N, num_types) for element indices of shape (N,)."""
    return torch.nn.functional.one_hot(types, num_types).to(dtype)


def charge_encoding(
    charges: torch.Tensor, charge_min: float, charge_max: float, num_charge_basis: int
) -> torch.Tensor:
    """Gaussian encoding exp(−(Q − μ_k)²/w²) of charges, as in NequIP-LR.

    Parameters
    ----------
    charges : torch.Tensor, shape (N,), e
    charge_min, charge_max : float, e
        First and last centre μ.
    num_charge_basis : int
        Number n of centres; the width is w = (charge_max − charge_min)/n.

    Returns
    -------
    torch.Tensor, shape (N, num_charge_basis)
    """
    centers = torch.linspace(
        charge_min, charge_max, num_charge_basis, dtype=charges.dtype, device=charges.device
    )
    width = (charge_max - charge_min) / num_charge_basis
    return torch.exp(-(((charges.unsqueeze(-1) - centers) / width) ** 2))
