"""Every backend conforms."""

from __future__ import annotations

from typing import ClassVar

from .conformance import Conformance


class TestPython(Conformance):
    backend = "python"


class TestTorch(Conformance):
    backend = "torch"
    parting = 1e-12  # torch optimises a graph after its first runs, which changes the rounding
    without: ClassVar = {
        "OpenCL": "openmm-torch 1.5 ends the process on OpenCL: its plugin lacks a symbol"
    }


class TestPythonTorch(Conformance):
    backend = "python_torch"
