"""Charge constraints: on the total charge, or on the charge of each of several groups of atoms.

Let C (N × F) have one 0/1 column for each of F disjoint groups that cover all atoms. The charges
obey CᵀQ = c. The projector P = 1 − C(CᵀC)⁻¹Cᵀ onto charge vectors that sum to zero in every group
subtracts the mean of each group. Groups are given by the group index of each atom; the groups of
several structures are numbered consecutively.
"""

# TorchScript compiles these functions and reads annotations: no postponed ones here
import torch


def group_sizes(groups: torch.Tensor) -> torch.Tensor:
    """Number of atoms in each group, float64, shape (F,); groups int64, shape (N,)."""
    if not torch.jit.is_scripting():
        return _known_sizes(groups)
    return torch.bincount(groups).to(torch.float64)


@torch.jit.unused
def _known_sizes(groups: torch.Tensor) -> torch.Tensor:
    """Sizes of groups, cached on that tensor, as counting synchronises a GPU."""
    known = getattr(groups, "_sizes", None)
    if known is None or known[0] != groups._version:
        sizes = torch.bincount(groups).to(torch.float64)
        groups._sizes = known = groups._version, sizes  # type: ignore[attr-defined]
    return known[1]


def group_sums(values: torch.Tensor, groups: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Sums over groups, shape (F,) or (F, k), of values of shape (N,) or (N, k)."""
    shape = [sizes.shape[0]] + list(values.shape[1:])  # noqa: RUF005  (TorchScript)
    return values.new_zeros(shape).index_add(0, groups, values)


def group_means(values: torch.Tensor, groups: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Mean over the group of each atom, shape (N,)."""
    return (group_sums(values, groups, sizes) / sizes).index_select(0, groups)


def held_apart(
    values: torch.Tensor, inverse: torch.Tensor, groups: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """D⁻¹(v − Cμ) for a diagonal D, with the μ for which every group sums to zero.

    Parameters
    ----------
    values : torch.Tensor, shape (N,)
        v.
    inverse : torch.Tensor, shape (N,)
        D⁻¹.
    groups : torch.Tensor, int64, shape (N,)
    weights : torch.Tensor, shape (F,)
        Sums of D⁻¹ over groups.
    """
    solved = inverse * values
    multiplier = group_sums(solved, groups, weights) / weights
    return torch.addcmul(solved, inverse, multiplier.index_select(0, groups), value=-1.0)


def free_atoms(groups: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All atoms except the first of each group, and the first atom of their group, int64, (N − F,).

    Charge transfers between these pairs of atoms span all charge vectors that satisfy the
    constraints.
    """
    atoms = torch.arange(groups.shape[0], device=groups.device)
    first = torch.full_like(sizes, groups.shape[0], dtype=torch.int64)
    first = first.scatter_reduce(0, groups, atoms, "amin")
    partner = first.index_select(0, groups)
    free = torch.nonzero(partner != atoms).squeeze(-1)
    return free, partner.index_select(0, free)


def contrast(values: torch.Tensor, free: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
    """Rows of atoms minus rows of their partners: the gradient by the charge transferred."""
    return values.index_select(0, free) - values.index_select(0, partner)


def moved(
    charges: torch.Tensor, amounts: torch.Tensor, free: torch.Tensor, partner: torch.Tensor
) -> torch.Tensor:
    """Charges, shape (N,), after a transfer of amounts, shape (N − F,), from partners to atoms."""
    return charges.index_add(0, free, amounts).index_add(0, partner, -amounts)
