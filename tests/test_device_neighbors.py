"""The search of a GPU against that of the CPU, on tensors of the CPU."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from openmm_nequiplr import device_neighbors
from openmm_nequiplr.device_neighbors import neighbor_list_on
from openmm_nequiplr.errors import NequIPLRWarning
from openmm_nequiplr.neighbors import neighbor_list

from .test_neighbors import CELLS

CUTOFF = 4.0


class Device:
    """What says that it is no CPU, and is one to torch."""

    type = "elsewhere"

    def __str__(self):
        return "elsewhere"


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(device_neighbors, "_right", {})
    monkeypatch.setattr(torch.Tensor, "to", _to(torch.Tensor.to))
    return Device()


def _to(original):
    def to(tensor, *where, **options):
        here = where and isinstance(where[0], Device)
        return tensor if here else original(tensor, *where, **options)

    return to


def structure(rng, name):
    cell = CELLS.get(name, np.zeros((3, 3)))
    points = rng.uniform(-1.5, 2.5, size=(9, 3))
    return points @ cell if name in CELLS else 2.0 * points, cell, name in CELLS, CUTOFF


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("name", [*CELLS, "free"])
def test_the_same_pairs_in_the_same_order(rng, device, name, full):
    asked = structure(rng, name)
    found = device_neighbors._found_there(device, *asked, full)
    for one, other in zip(found, neighbor_list(*asked, full), strict=True):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype
    assert found[0].shape[1] > 0
    found = neighbor_list_on(device, *asked, full)
    assert device_neighbors._right == {"elsewhere": True}
    assert torch.equal(found[0], neighbor_list(*asked, full)[0])


@pytest.mark.parametrize("fault", ["fails", "finds others"])
def test_the_cpu_searches_where_vesin_does_not(rng, device, monkeypatch, fault):
    asked, search = structure(rng, "cubic"), device_neighbors.search

    def faulty(*arguments):
        if fault == "fails":
            raise RuntimeError("no CUDA here\nmore of it")
        return tuple(found[1:] for found in search(*arguments))

    monkeypatch.setattr(device_neighbors, "search", faulty)
    reason = "no CUDA here" if fault == "fails" else "it finds other pairs"
    with pytest.warns(NequIPLRWarning, match=f"on the CPU, because vesin .*: {reason}$"):
        found = neighbor_list_on(device, *asked)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = neighbor_list_on(device, *asked)  # said once
    for one, other, expected in zip(found, again, neighbor_list(*asked), strict=True):
        assert torch.equal(one, expected)
        assert torch.equal(other, expected)
