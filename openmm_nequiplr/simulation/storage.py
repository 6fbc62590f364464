"""Storage of Systems in files that are read without executing code in them.

OpenMM stores the function of a ``PythonForce`` as a pickle, and unpickles it when it reads the XML.
``openmm.XmlSerializer.deserialize`` therefore executes code from the file. A plain file instead
contains the settings of the force as JSON, and the model as safetensors or as a path and a digest.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import openmm

from .. import __version__
from ..errors import InputError, describe
from ..pickling import read_pickled, restore
from ..writing import replace_file
from .backends import BACKENDS, make_force, python_force, resolve_backend
from .collective import Variable, observable_of, variable_force
from .computation import FORCE_NAME, Computation
from .computation_settings import ComputationSettings, checked_settings
from .lookup import force_backend, force_computation
from .multistep import INNER_NAME
from .serialization import FORMAT_VERSION, ModelFile, unpack
from .torchforce import restored_graph

_PLAIN_TYPE = "NequIPLR"
_CALLS_PYTHON = ("PythonForce", "PythonTorchForce")


def save_system(system: openmm.System, path: str | os.PathLike) -> None:
    """Write a System as XML that :func:`load_system` reads without executing code.

    The file contains the model, or its path and digest if the System was created with
    ``embed_model=False``. OpenMM's own ``XmlSerializer`` cannot read the file.

    Parameters
    ----------
    system : openmm.System
    path : path

    Raises
    ------
    InputError
        If the System contains a Python function or a TorchScript graph of another package, which
        has no plain form.
    """
    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(system))
    elements = list(root.find("Forces") or ())
    for element, force in zip(elements, system.getForces(), strict=True):
        computation = force_computation(force)
        if computation is not None:
            _make_plain(element, computation.settings, force_backend(force) or "python")
    for element in root.iter("Force"):
        if element.get("type") in _CALLS_PYTHON:  # inside another force
            payload = read_pickled(bytes.fromhex(element.get("function", "")))
            backend = "python_torch" if "graph" in payload else "python"
            settings = checked_settings(unpack(payload, ComputationSettings))
            _make_plain(element, settings, backend, payload.get("observable"))
        _refuse_foreign(element)
    text = ElementTree.tostring(root, encoding="unicode")
    replace_file(path, f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n')


def load_system(path: str | os.PathLike) -> openmm.System:
    """Read a System that :func:`save_system` wrote, without executing code from the file.

    A model file that the System refers to is searched for at its path, in the directory of the
    System, and in the current directory.

    Parameters
    ----------
    path : path

    Raises
    ------
    InputError
        If the file is damaged, or contains anything that would have to be executed, such as the
        pickle of a System that OpenMM's ``XmlSerializer`` wrote.
    ModelFileError
        If the model file is missing, has changed, or is damaged.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(describe("system", str(source), "XML of save_system")) from error
    return _built(_parsed(text), source.absolute().parent, plain=True)


def deserialize_system(xml: str) -> openmm.System:
    """Read a System from the XML of OpenMM's ``XmlSerializer``, without unpickling functions.

    The settings of NequIP-LR forces are extracted from their pickles without executing them. The
    pickle of any other Python function is rejected. TorchScript graphs are loaded, and plugins of
    OpenMM read their own forces; use :func:`load_system` for files from untrusted sources.
    ``openmm.XmlSerializer.deserialize`` unpickles everything.

    This function also reads TorchForces. openmm-torch 1.5 crashes the process when OpenMM 8.6 reads
    or copies a System with a TorchForce.

    Parameters
    ----------
    xml : str
        Output of ``openmm.XmlSerializer.serialize``.

    Raises
    ------
    InputError
        If this is no such XML, or it contains the pickle of another function.
    BackendError
        If openmm-torch is needed and not installed.
    """
    return _built(_parsed(xml), Path.cwd(), plain=False)


# ------------------------------------------------------------------------------------- writing


def _make_plain(
    element: ElementTree.Element,
    settings: ComputationSettings,
    backend: str,
    observable: dict[str, Any] | None = None,
) -> None:
    """Replace the callable of a force by plain settings."""
    kept = {name: element.get(name, "0") for name in ("forceGroup", "usesPeriodic")}
    kept["name"] = element.get("name", FORCE_NAME)
    tag, tail = element.tag, element.tail
    element.clear()
    element.tag, element.tail = tag, tail
    element.attrib.update(type=_PLAIN_TYPE, version="1", backend=backend, **kept)
    model = settings.model
    child = ElementTree.SubElement(element, "Model")
    if isinstance(model, ModelFile):
        child.attrib.update(source=model.source, digest=model.digest)
    else:
        child.text = base64.b64encode(model).decode("ascii")
    plain = {"format": FORMAT_VERSION, "version": __version__, "settings": settings.plain()}
    if observable is not None:
        plain["observable"] = observable
    ElementTree.SubElement(element, "Settings").text = json.dumps(plain)


# ------------------------------------------------------------------------------------- reading


def _parsed(text: str) -> ElementTree.Element:
    expected = "the XML of a System"
    if not isinstance(text, str):
        raise InputError(describe("system", type(text).__name__, expected))
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(describe("system", "XML with entities of its own", expected))
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(describe("system", f"no XML ({error})", expected)) from error
    if root.tag != "System" or root.get("type") != "System":
        raise InputError(describe("system", f"XML of a {root.tag}", expected))
    return root


def _built(root: ElementTree.Element, folder: Path, plain: bool) -> openmm.System:
    """The System of an XML tree, with its forces in their original order."""
    forces = root.find("Forces")
    elements = [] if forces is None else list(forces)
    known: dict[Any, Computation] = {}
    for element in elements:
        forces.remove(element)  # type: ignore[union-attr]
    system = _by_openmm(root)
    if not isinstance(system, openmm.System):
        raise InputError(describe("system", type(system).__name__, "the XML of a System"))
    for element in elements:
        kind = element.get("type")
        if kind == "TorchForce" and not plain:
            force = restored_graph(element)
        elif kind == _PLAIN_TYPE or (kind in _CALLS_PYTHON and not plain):
            force = _own_force(element, folder, known)
        else:
            for inner in element.iter():
                if inner.get("type") == _PLAIN_TYPE or inner.get("type") in _CALLS_PYTHON:
                    if plain or inner.get("type") == _PLAIN_TYPE:
                        _pickled_again(inner, folder, known)
                    else:
                        read_pickled(_function(inner))  # raises if another package wrote it
                elif plain:
                    _refuse_foreign(inner)
            force = _by_openmm(element)
        system.addForce(force)
    return system


def _by_openmm(element: ElementTree.Element) -> Any:
    try:
        return openmm.XmlSerializer.deserialize(ElementTree.tostring(element, encoding="unicode"))
    except Exception as error:  # OpenMM and its wrappers raise errors of several types
        got = f"a {element.tag} that OpenMM cannot read ({error})"
        raise InputError(describe("system", got, "the XML of a System")) from error


def _refuse_foreign(element: ElementTree.Element) -> None:
    """Reject forces that OpenMM does not define, as they may contain code."""
    kind = element.get("type")
    if element.tag != "Force" and "type" not in element.attrib:
        return
    known = getattr(openmm, str(kind), None)
    if kind == _PLAIN_TYPE or element.tag == "System":
        return
    harmless = isinstance(known, type) and issubclass(known, openmm.Force)
    if element.tag == "Force" and (not harmless or kind in (*_CALLS_PYTHON, "TorchForce")):
        expected = (
            "forces of OpenMM and NequIP-LR forces in plain form (save_system); others, and those "
            "that XmlSerializer wrote with a pickle, may execute what their author wrote"
        )
        raise InputError(describe("system", f"a {kind}", expected))


def _function(element: ElementTree.Element) -> bytes:
    try:
        return bytes.fromhex(element.get("function", ""))
    except ValueError as error:
        expected = "the function of a PythonForce in hexadecimal digits"
        raise InputError(describe("system", "other text", expected)) from error


def _own_force(
    element: ElementTree.Element, folder: Path, known: dict[Any, Computation]
) -> openmm.Force:
    """The NequIP-LR force of an element, in plain or pickled form."""
    if element.get("type") == _PLAIN_TYPE:
        force = _plain_force(element, folder, known)
    else:
        payload = read_pickled(_function(element))
        backend = "python_torch" if "graph" in payload else "python"
        computation = restore(payload)
        if isinstance(computation, Variable):
            force = variable_force(computation)
        elif isinstance(computation, Computation):
            force = python_force(computation, backend)
        else:  # raises an error that states the reason when it is called
            force = openmm.PythonForce(computation)
            force.setName(FORCE_NAME)
    force.setForceGroup(_group(element))
    if element.get("name") == INNER_NAME:  # not the force of the System's model
        force.setName(INNER_NAME)
    return force


def _group(element: ElementTree.Element) -> int:
    text = element.get("forceGroup", "0")
    if not text.isdecimal() or int(text) > 31:
        raise InputError(describe("system: forceGroup", text, "a whole number from 0 to 31"))
    return int(text)


def _plain_force(
    element: ElementTree.Element, folder: Path, known: dict[Any, Computation]
) -> openmm.Force:
    """The force of a plain element; forces with equal settings share a computation."""
    backend, settings, values = _read_plain(element, folder)
    backend = resolve_backend(backend, settings.device)
    if backend != "python":
        return make_force(settings, backend)
    key = settings.model, json.dumps(settings.plain())
    computation = known.setdefault(key, Computation(settings))
    if values is None:
        return python_force(computation)
    return variable_force(Variable(computation, observable_of(values, settings)))


def _pickled_again(
    element: ElementTree.Element, folder: Path, known: dict[Any, Computation]
) -> None:
    """Replace plain settings of a force inside another force by a new pickle that OpenMM reads."""
    _refuse_foreign(element)
    kept = {name: element.get(name, "0") for name in ("forceGroup", "usesPeriodic")}
    tag, tail = element.tag, element.tail
    force = openmm.XmlSerializer.serialize(_plain_force(element, folder, known))
    made = ElementTree.fromstring(force)
    element.clear()
    element.tag, element.tail = tag, tail
    element.attrib.update(made.attrib, **kept)
    element.extend(made)


def _read_plain(element: ElementTree.Element, folder: Path) -> tuple[str, ComputationSettings, Any]:
    """Backend, settings, and the observable of a collective variable or ``None``."""
    backend = element.get("backend", "")
    if backend not in BACKENDS:
        raise InputError(describe("system: backend", backend, " or ".join(map(repr, BACKENDS))))
    try:
        payload = json.loads(element.findtext("Settings") or "")
    except (ValueError, RecursionError) as error:
        raise InputError(describe("system: Settings", str(error), "JSON")) from error
    if not isinstance(payload, dict) or not isinstance(payload.get("settings"), dict):
        raise InputError(describe("system: Settings", payload, "names and values"))
    payload = {"format": 1, "version": "of an unknown version", **payload}
    payload["settings"]["model"] = _read_model(element.find("Model"), folder)
    settings = checked_settings(unpack(payload, ComputationSettings))
    return backend, settings, payload.get("observable")


def _read_model(element: ElementTree.Element | None, folder: Path) -> bytes | ModelFile:
    if element is None:
        raise InputError(describe("system: Model", None, "a model, or its path and digest"))
    if element.get("source") is None:
        try:
            return base64.b64decode(element.text or "", validate=True)
        except (binascii.Error, ValueError) as error:
            raise InputError(describe("system: Model", str(error), "base64")) from error
    reference = ModelFile(str(element.get("source")), str(element.get("digest")))
    reference.read(folder)  # read now, for a clear error
    beside = folder / Path(reference.source).name
    if not Path(reference.source).is_file() and beside.is_file():
        return ModelFile(str(beside), reference.digest)
    return reference
