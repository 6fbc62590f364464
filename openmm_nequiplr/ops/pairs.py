"""Real-space pair sums with c(r) = k_e [erf(r/√2γ) − erf(r/√2η)]/r, truncated at a cutoff.

:func:`pair_rows` prepares a list of pairs, and :func:`pair_terms` computes its coefficients at a
geometry. They return opaque lists, inputs of :func:`pair_product` and :func:`pair_gradient`. None
of these functions is differentiable; :func:`pair_gradient` returns the gradient of an energy.
"""

# TorchScript compiles the references and reads their annotations: no postponed ones here
import torch

from .choice import compiled, register
from .pair_formulas import pair_coefficients, pair_products, pair_vectors, symmetric_rows


def pair_rows(first: torch.Tensor, second: torch.Tensor, count: int) -> list[torch.Tensor]:
    """Prepare a list of pairs.

    Parameters
    ----------
    first, second : torch.Tensor, int64, shape (P,)
        Every pair of atoms or images once, sorted by the first atom.
    count : int
        Number N of atoms.
    """
    if not torch.jit.is_scripting():
        if compiled(first):
            return torch.ops.openmm_nequiplr.pair_rows(first, second, count)
    first, second, pointer, column, slots = symmetric_rows(first, second, count)
    return [first, second, pointer.to(torch.int32), column.to(torch.int32), slots]


def pair_terms(
    rows: list[torch.Tensor],
    positions: torch.Tensor,
    images: torch.Tensor,
    image: torch.Tensor,
    gammas: torch.Tensor,
    kind: torch.Tensor,
    eta: float,
    cutoff: float,
    constant: float,
    dtype: torch.dtype,
) -> list[torch.Tensor]:
    """Coefficients of the pairs at a geometry.

    Parameters
    ----------
    rows : list of torch.Tensor
        Result of :func:`pair_rows`.
    positions : torch.Tensor, float64, shape (N, 3), Å
    images : torch.Tensor, float64, shape (I, 3), Å
        Translations of second atoms.
    image : torch.Tensor, int32 or int64, shape (P,)
        Row of ``images`` for each pair.
    gammas : torch.Tensor, float64, shape (kinds,), Å
        Distinct pair widths γ.
    kind : torch.Tensor, int32 or int64, shape (P,)
        Element of ``gammas`` for each pair.
    eta, cutoff : float, Å
    constant : float, eV Å/e²
        k_e.
    dtype : torch.dtype
        Precision of the coefficients.
    """
    if not torch.jit.is_scripting():
        if compiled(positions):
            return torch.ops.openmm_nequiplr.pair_terms(
                rows, positions, images, image, gammas, kind, eta, cutoff, constant,
                dtype == torch.float32,
            )  # fmt: skip
    vector = pair_vectors(rows, positions, images, image)
    found = pair_coefficients(vector, gammas.index_select(0, kind), eta, cutoff)
    value, along = (constant * found[0]).to(dtype), constant * found[1].unsqueeze(-1) * vector
    return [value, along, torch.cat((value, value)).index_select(0, rows[4])]


def pair_product(
    rows: list[torch.Tensor],
    terms: list[torch.Tensor],
    charges: torch.Tensor,
    diagonal: torch.Tensor | None = None,
    added: torch.Tensor | None = None,
) -> torch.Tensor:
    """Potential Σ_j c_ij q_j, float64, shape (N,), eV/e, of charges q, float64, shape (N,), e.

    With a diagonal d, eV/e², and an added potential v, eV/e, both float64, shape (N,), the result
    is Σ_j c_ij q_j + d_i q_i + v_i.
    """
    if not torch.jit.is_scripting():
        if compiled(charges):
            return torch.ops.openmm_nequiplr.pair_product(rows, terms, charges, diagonal, added)
    value, count = terms[2], charges.shape[0]
    matrix = torch.ops.aten._sparse_csr_tensor_unsafe(  # checks take longer than the product
        rows[2], rows[3], value, [count, count], dtype=value.dtype, device=value.device
    )
    result = (matrix @ charges.to(value.dtype).unsqueeze(-1)).squeeze(-1).to(torch.float64)
    if diagonal is not None and added is not None:
        result = torch.addcmul(result + added, diagonal, charges)
    return result


def pair_values(rows: list[torch.Tensor], terms: list[torch.Tensor]) -> list[torch.Tensor]:
    """Pairs of atoms with their own images: atoms, int64, and coefficients, float64."""
    own = torch.nonzero(rows[0] == rows[1]).squeeze(-1)
    return [rows[0].index_select(0, own).long(), terms[0].index_select(0, own).to(torch.float64)]


def pair_gradient(
    rows: list[torch.Tensor],
    terms: list[torch.Tensor],
    positions: torch.Tensor,
    images: torch.Tensor,
    image: torch.Tensor,
    charges: torch.Tensor,
    subtracted: torch.Tensor,
    virial: bool,
) -> list[torch.Tensor]:
    """Energy Σ_pairs c(r) (q_i q_j − p_i p_j) and its derivatives.

    Returns
    -------
    energy : torch.Tensor, float64, scalar, eV
    by_position : torch.Tensor, float64, shape (N, 3), eV/Å
    by_image : torch.Tensor, float64, shape (I, 3), eV/Å
        Derivative by the translations; zero unless ``virial`` is true.
    """
    if not torch.jit.is_scripting():
        if compiled(charges):
            return torch.ops.openmm_nequiplr.pair_gradient(
                rows, terms, positions, images, image, charges, subtracted, virial
            )
    first, second = rows[0], rows[1]
    products = pair_products(rows, charges, subtracted)
    along = terms[1] * products.unsqueeze(-1)
    by_position = torch.zeros_like(positions).index_add(0, second, along)
    by_position = by_position.index_add(0, first, -along)
    by_image = torch.zeros_like(images)
    if virial:
        by_image = by_image.index_add(0, image, along)
    return [(terms[0] * products).sum(), by_position, by_image]


register("pair_rows(Tensor first, Tensor second, int count) -> Tensor[]", "pair", "rows")
register(
    "pair_terms(Tensor[] rows, Tensor positions, Tensor images, Tensor image, Tensor gammas, "
    "Tensor kind, float eta, float cutoff, float constant, bool single) -> Tensor[]",
    "pair",
    "terms",
)
register(
    "pair_product(Tensor[] rows, Tensor[] terms, Tensor charges, Tensor? diagonal, Tensor? added) "
    "-> Tensor",
    "pair",
    "product",
)
register(
    "pair_gradient(Tensor[] rows, Tensor[] terms, Tensor positions, Tensor images, Tensor image, "
    "Tensor charges, Tensor subtracted, bool virial) -> Tensor[]",
    "pair",
    "gradient",
)
