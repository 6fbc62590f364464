"""Named parts of a measurement."""

from __future__ import annotations

from openmm_nequiplr.timing import collect, part


def test_parts_add_up_inside_a_collection_only():
    with part("before"):
        pass
    with collect() as outer:
        with part("a"), collect() as inner, part("b"):
            pass
        with part("a"):
            pass
    with part("after"):
        pass
    assert set(outer) == {"a"}
    assert set(inner) == {"b"}
    assert outer["a"] >= 0
