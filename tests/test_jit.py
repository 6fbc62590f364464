"""Compiled functions, and what is left without numba."""

from __future__ import annotations

import sys

import pytest

from openmm_nequiplr import jit


def double(value):
    return 2 * value


@pytest.fixture(autouse=True)
def _forget():
    jit.compiled.cache_clear()
    jit.numba_available.cache_clear()
    yield
    jit.compiled.cache_clear()
    jit.numba_available.cache_clear()


def test_a_compiled_function_is_made_once():
    pytest.importorskip("numba")
    function = jit.compiled(double)
    assert function(3) == 6
    assert jit.compiled(double) is function


def test_without_numba(monkeypatch):
    monkeypatch.setattr(jit.importlib.util, "find_spec", lambda name: None)
    assert jit.compiled(double) is None


def test_with_a_numba_that_does_not_load(monkeypatch):
    monkeypatch.setattr(jit, "numba_available", lambda: True)
    monkeypatch.setitem(sys.modules, "numba", None)
    assert jit.compiled(double) is None


def test_where_no_cache_can_be_written(monkeypatch):
    numba = pytest.importorskip("numba")
    plain = numba.njit

    def njit(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function 'double': no locator available")
        return plain(**options)

    monkeypatch.setattr(numba, "njit", njit)
    assert jit.compiled(double)(4) == 8
