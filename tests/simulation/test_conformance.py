"""Every backend conforms."""

from __future__ import annotations

from typing import ClassVar

import pytest

from openmm_nequiplr.errors import BackendError
from openmm_nequiplr.simulation.torchforce import load_openmmtorch

from .conformance import Conformance

REASON, MODULE = "", None  # type: tuple[str, ModuleType | None]
try:
    MODULE = load_openmmtorch()
except BackendError as error:
    REASON = str(error)


class TestPython(Conformance):
    backend = "python"


if MODULE is not None:

    @pytest.mark.optimized
    class TestTorch(Conformance):
        backend = "torch"
        parting = 1e-12  # torch optimises a graph after its first runs, which changes the rounding
        without: ClassVar = {
            "OpenCL": "openmm-torch 1.5 ends the process on OpenCL: its plugin lacks a symbol"
        }

else:

    def test_the_torch_backend():
        pytest.skip(REASON)


if hasattr(MODULE, "PythonTorchForce"):

    class TestPythonTorch(Conformance):
        backend = "python_torch"

else:

    def test_the_python_torch_backend():
        pytest.skip(REASON or "this openmm-torch has no PythonTorchForce")
