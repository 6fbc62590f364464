"""Potentials that act on the charges from outside."""

# TorchScript compiles these and reads annotations: no postponed ones here
import torch


def field_potential(
    positions: torch.Tensor, field: torch.Tensor, batch: torch.Tensor | None = None
) -> torch.Tensor:
    """Potential −E·r of a uniform field at the atoms, shape (N,), eV/e; differentiable.

    Of a charged structure it depends on the origin, as its energy in a field does.

    Parameters
    ----------
    positions : torch.Tensor, float64, shape (N, 3), Å
        Whole molecules, as they are: in a cell no image is like another.
    field : torch.Tensor, float64, shape (B, 3), V/Å
        Of each structure.
    batch : torch.Tensor, int64, shape (N,), optional
        Structure of each atom; needed for more than one.
    """
    if batch is None:
        return -(positions @ field[0])
    return -(positions * field.index_select(0, batch)).sum(dim=-1)
