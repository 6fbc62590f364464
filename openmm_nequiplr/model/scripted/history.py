"""Charges of previous evaluations of a graph, for initial guesses."""

import torch

from ...equilibration import ChargePredictor

#: Largest displacement (Å) of an atom within a time step.
LONGEST_STEP = 0.3


class ChargeHistory(torch.nn.Module):
    """Charges along a sequence of evaluations in one cell with small displacements."""

    def __init__(self) -> None:
        super().__init__()
        self.charges, self.adjoint = ChargePredictor(), ChargePredictor()
        self.register_buffer("positions", torch.zeros(0, 3, dtype=torch.float64))
        self.register_buffer("cell", torch.eye(3, dtype=torch.float64))
        self.register_buffer("current", torch.zeros(0, 3, dtype=torch.float64))
        self.longest_step = LONGEST_STEP

    def begin(self, positions: torch.Tensor, cell: torch.Tensor) -> None:
        """Drop the charges unless a geometry, (N, 3) and (3, 3), Å, continues the sequence."""
        self.current = positions
        near = self.positions.shape[0] == positions.shape[0] and torch.equal(self.cell, cell)
        if near:
            moved = positions - self.positions
            moved = moved - torch.round(moved @ torch.linalg.inv(cell)) @ cell
            near = bool(moved.abs().max() <= self.longest_step)
        if not near:
            self.reset()
        self.cell = cell.clone()

    def known_cell(self, cell: torch.Tensor) -> torch.Tensor:
        """Return the cell itself."""
        return cell

    def advance(self, charges: torch.Tensor, adjoint: torch.Tensor) -> None:
        """Store the results, shape (N,), e, unless the geometry is repeated."""
        repeated = self.positions.shape[0] > 0 and torch.equal(self.positions, self.current)
        if not repeated:
            self.charges.accept(charges)
            self.adjoint.accept(adjoint)
        self.positions = self.current

    def reset(self) -> None:
        """Drop all stored charges."""
        self.positions = self.positions[:0]
        self.charges.reset()
        self.adjoint.reset()
