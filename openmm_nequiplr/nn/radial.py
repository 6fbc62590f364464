"""Radial basis functions of an edge (Gasteiger, Groß, Günnemann 2020, arXiv 2003.03123)."""

# TorchScript compiles this module and reads annotations at run time: no postponed ones here.
import math
from collections.abc import Iterable
from typing import Any

import torch

from ..ops import silu_along


class BesselBasis(torch.nn.Module):
    """Spherical Bessel functions (2/r_max) sin(b_n r/r_max)/r with the initial b_n = nπ.

    Parameters
    ----------
    r_max : float, Å
    num_bessels : int
    trainable : bool
        Whether the b_n are trainable parameters.
    """

    def __init__(self, r_max: float, num_bessels: int, trainable: bool = True) -> None:
        super().__init__()
        self.r_max = float(r_max)
        roots = math.pi * torch.arange(1, num_bessels + 1, dtype=torch.float64)
        if trainable:
            self.bessel_weights = torch.nn.Parameter(roots)
        else:
            self.register_buffer("bessel_weights", roots)

    def forward(self, length: torch.Tensor) -> torch.Tensor:
        """Basis functions, shape (E, num_bessels), 1/Å², of lengths, shape (E,), Å."""
        length = length.unsqueeze(-1)
        return (2.0 / self.r_max) * torch.sin(self.bessel_weights * length / self.r_max) / length


def polynomial_envelope(x: torch.Tensor, p: float) -> torch.Tensor:
    """Polynomial envelope: 1 − O(x^p) near 0; 0 with two continuous derivatives from x = 1 on."""
    inner = 0.5 * (p + 1.0) * (p + 2.0) - p * (p + 2.0) * x + 0.5 * p * (p + 1.0) * x * x
    return torch.where(x < 1.0, 1.0 - torch.pow(x, p) * inner, torch.zeros_like(x))


class PolynomialCutoff(torch.nn.Module):
    """Envelope that is 1 at r = 0 and vanishes with two derivatives at r_max.

    Parameters
    ----------
    r_max : float, Å
    p : float
        Power of the leading term of 1 minus the envelope.
    """

    def __init__(self, r_max: float, p: float = 6.0) -> None:
        super().__init__()
        self.r_max = float(r_max)
        self.p = float(p)

    def forward(self, length: torch.Tensor) -> torch.Tensor:
        """Envelope at lengths of any shape, Å; exactly 0 beyond the cutoff."""
        return polynomial_envelope(length / self.r_max, self.p)


class RadialBasis(torch.nn.Module):
    """Bessel basis times polynomial cutoff; arguments as for these two."""

    def __init__(self, r_max: float, num_bessels: int, trainable: bool, p: float) -> None:
        super().__init__()
        self.basis = BesselBasis(r_max, num_bessels, trainable)
        self.cutoff = PolynomialCutoff(r_max, p)

    def forward(self, length: torch.Tensor) -> torch.Tensor:
        """Basis functions, shape (E, num_bessels), of lengths, shape (E,), Å."""
        return self.basis(length) * self.cutoff(length).unsqueeze(-1)

    @torch.jit.unused
    def along(self, length: torch.Tensor) -> torch.Tensor:
        """Basis functions and their derivatives by the length, shape (2, E, num_bessels).

        They are differentiable by the b_n but not by the lengths, shape (E,), Å.
        """
        r_max = self.basis.r_max
        with torch.enable_grad():
            r = length.detach().unsqueeze(-1).requires_grad_()
            front = 2.0 / r_max * self.cutoff(r) / r
            (rise,) = torch.autograd.grad(front.sum(), r)
        r, front = r.detach(), front.detach()
        frequencies = self.basis.bessel_weights / r_max
        sine, cosine = torch.sin(frequencies * r), torch.cos(frequencies * r)
        return torch.stack((front * sine, rise * sine + front * frequencies * cosine))


def linearized_weights(
    network: Iterable[Any], basis: torch.Tensor, length: torch.Tensor
) -> torch.Tensor:
    """Radial weights with exact values and first derivatives by the length, shape (E, W).

    Training differentiates forces by parameters but never twice by lengths. One forward pass of
    values and derivatives therefore replaces a double backward pass.

    Parameters
    ----------
    network : FullyConnectedNet
        Radial network with SiLU activations.
    basis : torch.Tensor, shape (2, E, num_bessels)
        Result of :meth:`RadialBasis.along` for these lengths.
    length : torch.Tensor, shape (E,), Å
    """
    both, gain = basis, 1.0
    for layer in network:
        both = both @ (layer.weight * (gain * (layer.h_in * layer.var_in) ** -0.5))
        gain = layer.var_out**0.5
        if layer.act is not None:
            both = silu_along(both)
            gain *= 1.0 if layer.act._is_id else layer.act.cst
    values, slopes = gain * both
    return values + slopes * (length - length.detach()).unsqueeze(-1)
