"""Unpickling never raises; what cannot be restored tells why when it is called."""

from __future__ import annotations

import pickle

import pytest

from openmm_nequiplr import pickling
from openmm_nequiplr.errors import InputError, NequIPLRError
from openmm_nequiplr.pickling import Unavailable, restore

PAYLOAD = {"format": 1, "version": "0.1.0", "token": "none", "settings": {}}


class Pickled:
    """Pickles as a payload."""

    def __reduce__(self):
        return pickling.reduction(PAYLOAD)


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (InputError("argument: expected one thing, got another"), "argument: expected one thing"),
        (ImportError("no torch"), "written by openmm-nequiplr 0.1.0, cannot be restored here"),
        (KeyError("settings"), "KeyError.*repair the installation"),
    ],
)
def test_errors_wait_until_the_call(monkeypatch, raised, message):
    def fail(name):
        raise raised

    monkeypatch.setattr(pickling.importlib, "import_module", fail)
    restored = restore(PAYLOAD)
    for found in (restored, pickle.loads(pickle.dumps(restored))):
        assert found.payload == PAYLOAD
        with pytest.raises(NequIPLRError, match=message):
            found("a state")


@pytest.mark.parametrize("payload", [{}, {"format": 1}, {"settings": None, "format": 1}])
def test_a_damaged_payload_is_no_exception(payload):
    assert isinstance(restore(payload), Unavailable)


def test_without_the_package_the_standard_library_says_so(monkeypatch):
    data = pickle.dumps(Pickled())
    monkeypatch.setattr(pickling.pydoc, "locate", lambda path: None)
    with pytest.raises(AttributeError, match="openmm-nequiplr is not installed here; install it"):
        pickle.loads(data)("a state")


def test_a_pickle_names_nothing_but_the_standard_library():
    import pickletools

    strings = [x for _, x, _ in pickletools.genops(pickle.dumps(Pickled())) if isinstance(x, str)]
    modules = {"builtins", "functools", "operator", "pydoc"}
    assert modules <= set(strings)
    assert [s for s in strings if s.startswith("openmm_nequiplr")] == [
        "openmm_nequiplr.pickling.restore"
    ]
