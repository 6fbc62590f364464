"""What is made of parameters once, as long as they ask for no gradient."""

from __future__ import annotations

from collections.abc import Iterable

import torch


class Frozen:
    """Something made of parameters; it knows when they change.

    Parameters
    ----------
    parameters : iterable of torch.Tensor
    """

    def __init__(self, parameters: Iterable[torch.Tensor]) -> None:
        self._versions = [(p, p._version) for p in parameters]

    def made_of(self, parameters: Iterable[torch.Tensor]) -> bool:
        """Whether it is made of these parameters as they are now."""
        now = [(p, p._version) for p in parameters]
        return len(now) == len(self._versions) and all(
            a is b and n == m for (a, n), (b, m) in zip(now, self._versions, strict=True)
        )

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """A copy of the layer makes its own: versions of copied parameters begin anew."""
        return type(None), ()
