"""Cache of quantities derived from parameters that require no gradient."""

from __future__ import annotations

from collections.abc import Iterable

import torch


class Frozen:
    """A quantity derived from parameters, which detects when they change.

    Parameters
    ----------
    parameters : iterable of torch.Tensor
    """

    def __init__(self, parameters: Iterable[torch.Tensor]) -> None:
        self._versions = [(p, p._version) for p in parameters]

    def made_of(self, parameters: Iterable[torch.Tensor]) -> bool:
        """Whether it is derived from these parameters and they have not changed since."""
        now = [(p, p._version) for p in parameters]
        return len(now) == len(self._versions) and all(
            a is b and n == m for (a, n), (b, m) in zip(now, self._versions, strict=True)
        )

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Pickle as None: copied parameters count their versions from zero."""
        return type(None), ()
