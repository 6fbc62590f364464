"""Choice of platforms and their threads, with platforms of GPUs that are pretended."""

from __future__ import annotations

import os
from contextlib import suppress
from types import SimpleNamespace

import openmm
import pytest
import torch

from openmm_nequiplr.errors import BackendError
from openmm_nequiplr.simulation import platforms
from openmm_nequiplr.simulation.platforms import (
    busy_cores,
    choose_platform,
    coulomb_platform,
    limited_platform,
)


@pytest.fixture
def with_cuda(monkeypatch):
    """OpenMM with a CUDA platform, which has a device and a precision."""
    cuda = SimpleNamespace(getPropertyNames=lambda: ("DeviceIndex", "Precision"))
    cpu = SimpleNamespace(getPropertyNames=lambda: ("Threads",))
    plain = {"CUDA": cuda, "CPU": cpu, "Reference": cpu}
    monkeypatch.setattr(platforms, "platform_names", lambda: list(plain))
    monkeypatch.setattr(openmm.Platform, "getPlatform", plain.__getitem__)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return cuda


def test_without_a_gpu_everything_runs_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    platform, properties = choose_platform(None, None, None)
    assert (platform.getName(), properties) == ("CPU", {})
    assert choose_platform("Reference", "cpu", "double")[0].getName() == "Reference"
    assert coulomb_platform(None, "single") == ("CPU", {})
    assert coulomb_platform(None, "double", "cpu") == ("Reference", {})
    assert coulomb_platform("CPU", "double") == ("CPU", {})


def test_a_gpu_is_chosen_by_the_torch_device(with_cuda, monkeypatch):
    assert choose_platform(None, None, None) == (with_cuda, {"Precision": "mixed"})
    expected = {"DeviceIndex": "1", "Precision": "double"}
    assert choose_platform("CUDA", "cuda:1", "double") == (with_cuda, expected)
    assert coulomb_platform(None, "double", "cuda:1") == ("CUDA", expected)
    assert coulomb_platform(None, "single", "cpu") == ("CPU", {})  # where the network is
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # torch does without
    assert choose_platform(None, None, None)[0] is not with_cuda


def test_platforms_that_are_not_there():
    with pytest.raises(BackendError, match="^platform: expected one of .*Reference"):
        choose_platform("Abacus", None, None)
    with pytest.raises(BackendError, match="^coulomb_platform: expected one of .*Reference"):
        coulomb_platform("Abacus", "single")


def test_threads_are_limited_for_a_while():
    cpu = openmm.Platform.getPlatform("CPU")

    def threads():
        return cpu.getPropertyDefaultValue("Threads"), torch.get_num_threads()

    before = threads()
    with suppress(KeyError), limited_platform(3):
        assert threads() == ("3", 3)
        raise KeyError
    assert threads() == before
    with limited_platform(None):
        assert threads() == before


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only where cores are counted")
def test_busy_cores_are_told(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(os, "getloadavg", lambda: (5.0, 0.0, 0.0))
    (line,) = busy_cores(4)
    assert "4 threads on 8 cores of which about 3.0 are free" in line
    assert busy_cores(3) == busy_cores(1) == []
    monkeypatch.setattr(os, "getloadavg", lambda: (50.0, 0.0, 0.0))
    assert "about 0.0 are free" in busy_cores(2)[0]
    assert busy_cores(1) == []

    def fails():
        raise OSError

    monkeypatch.setattr(os, "getloadavg", fails)
    assert busy_cores(4) == []
