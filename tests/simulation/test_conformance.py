"""Every backend conforms."""

from __future__ import annotations

from .conformance import Conformance


class TestPython(Conformance):
    backend = "python"


class TestTorch(Conformance):
    backend = "torch"


class TestPythonTorch(Conformance):
    backend = "python_torch"
