"""Public names of a package, loaded from their modules on first use (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def on_first_use(
    package: str, modules: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package, given the public names of its modules.

    ``"original as name"`` renames a public name, as in an import.
    """
    homes = {}
    for module, names in modules.items():
        for each in names:
            original, _, public = each.partition(" as ")
            homes[public or original] = (f"{package}.{module}", original)

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, original = homes[name]
        value = getattr(importlib.import_module(module), original)
        setattr(sys.modules[package], name, value)
        return value

    def listed() -> list[str]:
        return sorted(set(vars(sys.modules[package])) | set(homes))

    return load, listed
