"""Checkpoints of a run: State, state of the random numbers, and marks of the output files.

A checkpoint file is OpenMM's XML of a State, followed by a comment that contains the other data and
a digest of both. A new checkpoint replaces the old one once it is completely written; the old
one is kept as ``checkpoint.previous.xml``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm

from ..errors import InputError, describe
from .marks import FileMark

# The beginning of OpenMM's XML of a State; OpenMM is asked to read nothing else.
_STATE = re.compile(r'<\?xml version="1\.0" \?>\s*<State(?P<attributes>(?:\s+\w+="[^"<>&]*")*)\s*>')
_TYPE = re.compile(r'\stype="([^"]*)"')
_COMMENT = re.compile(r"\n?<!-- nequiplr ([0-9a-f]{64}) (\{[^\n]*\}) -->\s*\Z")
_BYTES_OF_A_STATE, _BYTES_OF_AN_ATOM = 1 << 24, 1 << 10


@dataclass(frozen=True)
class RandomState:
    """State of OpenMM's random number generators, as a binary checkpoint of a Context.

    Parameters
    ----------
    place : str
        OpenMM version, platform and threads, integrator and number of particles; the state can be
        restored only where these are equal.
    content : bytes
        The value of ``Context.createCheckpoint``.
    """

    place: str
    content: bytes

    @classmethod
    def of(cls, context: openmm.Context) -> RandomState:
        """The state of a Context."""
        return cls(_place(context), context.createCheckpoint())

    def restore(self, context: openmm.Context, state: openmm.State) -> str | None:
        """Restore the random numbers in a Context with this State; returns the reason on failure.

        Parameters of the Context and global variables of its integrator keep their present values:
        OpenMM's checkpoint contains those of the earlier run, such as pressure and temperature.
        """
        place = _place(context)
        if place != self.place:
            return f"they are those of {self.place}, this is {place}"
        parameters, variables = dict(context.getParameters()), _variables(context)
        try:
            context.loadCheckpoint(self.content)
            if not _same(context.getState(positions=True, velocities=True), state):
                context.setState(state)
                return "they belong to another state"
        except openmm.OpenMMException as error:
            context.setState(state)
            return str(error)
        finally:
            for name, value in parameters.items():
                context.setParameter(name, value)
            for name, value in variables.items():
                context.getIntegrator().setGlobalVariableByName(name, value)
        return None


@dataclass(frozen=True)
class Checkpoint:
    """The state from which a run continues.

    Parameters
    ----------
    state : openmm.State
        Positions, velocities, box, time and step.
    marks : dict of str to FileMark
        Sizes and checksums of the other files, by name.
    random : RandomState or None
    """

    state: openmm.State
    marks: dict[str, FileMark]
    random: RandomState | None

    def dumps(self) -> str:
        """The text of a checkpoint file."""
        text = openmm.XmlSerializer.serialize(self.state).rstrip("\n")
        more: dict[str, Any] = {"marks": {k: asdict(v) for k, v in self.marks.items()}}
        if self.random is not None:
            packed = base64.b64encode(zlib.compress(self.random.content)).decode("ascii")
            more["random"] = {"place": self.random.place, "content": packed}
        tail = json.dumps(more)
        return f"{text}\n<!-- nequiplr {_digest(text, tail)} {tail} -->\n"


def load_checkpoint(path: Path, num_atoms: int, periodic: bool) -> Checkpoint:
    """Read a checkpoint file without executing any code in it.

    Raises
    ------
    InputError
        If the file is damaged, belongs to another system, or is not a checkpoint.
    """
    most = _BYTES_OF_A_STATE + _BYTES_OF_AN_ATOM * num_atoms
    if path.stat().st_size > most:
        got = f"{path} with {path.stat().st_size} bytes"
        raise InputError(describe("checkpoint", got, f"at most {most} bytes for {num_atoms} atoms"))
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(path, str(error)) from error
    _check_root(path, content)
    comment = _COMMENT.search(content)
    if comment is None:
        raise _damaged(path, "cut off, or written before checkpoints named the files beside them")
    text, tail = content[: comment.start()], comment.group(2)
    if _digest(text, tail) != comment.group(1):
        raise _damaged(path, "changed since it was written")
    try:
        state = openmm.XmlSerializer.deserialize(text)
        more = json.loads(tail)
        marks = {
            str(name): FileMark(int(mark["size"]), int(mark["checksum"]))
            for name, mark in more["marks"].items()
        }
        random = _random(more.get("random"), most)
        _check_state(state, num_atoms, periodic)
    except InputError:
        raise
    except Exception as error:  # from OpenMM or JSON; the digest shows that we wrote the file
        raise _damaged(path, str(error)) from error
    return Checkpoint(state, marks, random)


def _check_root(path: Path, content: str) -> None:
    """Check that the file is a State before OpenMM reads it: a System may contain code."""
    root = _STATE.match(content)
    types = [] if root is None else _TYPE.findall(root.group("attributes"))
    if types != ["State"]:
        raise _damaged(path, "the file holds something else" if content else "the file is empty")


def _check_state(state: openmm.State, num_atoms: int, periodic: bool) -> None:
    positions, velocities = state.getPositions(asNumpy=True), state.getVelocities(asNumpy=True)
    if len(positions) != num_atoms or len(velocities) != num_atoms:
        expected = f"a state of {num_atoms} atoms"
        raise InputError(describe("checkpoint", f"{len(positions)} atoms", expected))
    finite = np.isfinite(positions._value).all() and np.isfinite(velocities._value).all()
    if not finite or state.getStepCount() < 0:
        raise InputError(describe("checkpoint", "numbers that are not finite", "a sound state"))
    if periodic and np.linalg.det(state.getPeriodicBoxVectors(asNumpy=True)._value) <= 0:
        raise InputError(describe("checkpoint", "a box without volume", "a sound state"))


def _random(entry: dict[str, str] | None, most: int) -> RandomState | None:
    if entry is None:
        return None
    packed = zlib.decompressobj()
    content = packed.decompress(base64.b64decode(entry["content"]), most)
    if packed.unconsumed_tail:
        raise ValueError(f"more than {most} bytes of random numbers")
    return RandomState(str(entry["place"]), content)


def _digest(text: str, tail: str) -> str:
    return hashlib.sha256(f"{text}\n{tail}".encode()).hexdigest()


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(describe("checkpoint", f"{path} ({reason})", "an OpenMM State as XML"))


def _place(context: openmm.Context) -> str:
    platform = context.getPlatform()
    place = f"OpenMM {openmm.version.version} on platform {platform.getName()}"
    if "Threads" in platform.getPropertyNames():
        place += f" with {platform.getPropertyValue(context, 'Threads')} threads"
    system, integrator = context.getSystem(), type(context.getIntegrator()).__name__
    movers = [integrator, *(f.getName() for f in system.getForces() if "Barostat" in f.getName())]
    return f"{place}: {' and '.join(movers)} of {system.getNumParticles()} particles"


def _variables(context: openmm.Context) -> dict[str, float]:
    """Global variables of a CustomIntegrator; other integrators have none."""
    integrator = context.getIntegrator()
    count = getattr(integrator, "getNumGlobalVariables", lambda: 0)()
    return {
        integrator.getGlobalVariableName(k): integrator.getGlobalVariable(k) for k in range(count)
    }


def _same(state: openmm.State, other: openmm.State) -> bool:
    pairs = (
        (state.getPositions(asNumpy=True), other.getPositions(asNumpy=True)),
        (state.getVelocities(asNumpy=True), other.getVelocities(asNumpy=True)),
    )
    close = all(np.allclose(a._value, b._value, rtol=1e-5, atol=1e-6) for a, b in pairs)
    return close and state.getStepCount() == other.getStepCount()
