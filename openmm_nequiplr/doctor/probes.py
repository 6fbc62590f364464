"""Checks of the installation; :mod:`.examination` runs each in a separate process."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..pretrained import models_directory, shipped_structure
from ..units import EV_TO_KJ_PER_MOL
from .examination import doing
from .findings import Finding
from .machine import gpus, loops_directory, platform_names, unmet_requirements, version_of

if TYPE_CHECKING:
    import openmm

#: Shipped models for the checks: one for periodic cells, one without a cell.
PERIODIC, FREE = "au2-mgo", "carbon-chain"
# Largest allowed force differences, eV/Å, due to single-precision positions and rounding of sums.
_PLATFORM_TOLERANCE, _KERNEL_TOLERANCE, _DEVICE_TOLERANCE = 5e-3, 1e-4, 5e-3


def probe(name: str) -> Finding:
    """Run a check in this process; an exception becomes a finding.

    Parameters
    ----------
    name : str
        One of :data:`.examination.CHECKS`, or ``"platform NAME"``.
    """
    kind, _, argument = name.partition(" ") if name.startswith("platform ") else (name, "", "")
    try:
        state, message, advice = _PROBES[kind](argument) if argument else _PROBES[kind]()
    except Exception as error:
        text = " ".join(str(error).split())
        return Finding(name, "fail", f"{type(error).__name__}: {text}", _ADVICE.get(kind, ""))
    return Finding(name, state, message, advice)


_ADVICE = {
    "platform": "choose another platform, or set OPENMM_DEFAULT_PLATFORM=CPU",
    "kernels": "pip install --upgrade numba; without numba everything works, but slowly",
    "import order": "install torch and OpenMM from the same source (pip or conda)",
    "torchforce": 'pip install "openmm-nequiplr[torchforce]", or uninstall openmmtorch',
    "training": 'pip install --upgrade "openmm-nequiplr[train]"',
}
Result = tuple[str, str, str]


def _requirements() -> Result:
    unmet = unmet_requirements()
    if unmet:
        return "fail", ", ".join(unmet), f"pip install {' '.join(u.split()[0] for u in unmet)}"
    named = ("torch", "OpenMM", "numba", "ase", "e3nn")
    return "ok", ", ".join(f"{each} {version_of(each)}" for each in named), ""


def _command() -> Result:
    found, folder = shutil.which("nequiplr"), Path(sys.executable).parent
    if found is None:
        there = shutil.which("nequiplr", path=str(folder))
        advice = f"add {folder} to PATH" if there else "pip install openmm-nequiplr"
        return (
            "note",
            "nequiplr is not on PATH",
            f"{advice}; python -m openmm_nequiplr always works",
        )
    if Path(found).parent.resolve() != folder.resolve():
        advice = f"activate the environment of {sys.executable}, or put {folder} first in PATH"
        return "note", f"the nequiplr on PATH belongs to another installation: {found}", advice
    return "ok", found, ""


def _cache() -> Result:
    models, loops = models_directory(), loops_directory()
    troubles, advice = [], []
    try:
        models.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=models):
            pass
    except OSError as error:
        troubles.append(f"models cannot be downloaded to {models} ({error.strerror})")
        advice.append("set NEQUIPLR_CACHE to a writable directory")
    if loops is None:
        troubles.append("compiled loops cannot be cached: every start compiles them")
        advice.append("set NUMBA_CACHE_DIR to a writable directory")
    if troubles:
        return "note", "; ".join(troubles), "; ".join(advice)
    return "ok", f"models in {models}, compiled loops in {loops}", ""


def _one_particle(platform: str, *forces: openmm.Force) -> openmm.Context:
    """Context of one particle at x = 0.5 nm."""
    import openmm

    system = openmm.System()
    system.addParticle(1.0)
    for force in forces:
        system.addForce(force)
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform(platform))
    context.setPositions([[0.5, 0.0, 0.0]])
    return context


def _import_order() -> Result:
    doing("importing openmm before torch")
    import openmm  # noqa: F401
    import torch

    doing("computing with both")
    torch.linalg.solve(torch.eye(50, dtype=torch.float64), torch.ones(50, dtype=torch.float64))
    context = _one_particle("Reference")
    context.getIntegrator().step(1)
    return "ok", "openmm and torch can be imported in either order", ""


def _forces(name: str, device: str | None = None) -> object:
    from ase import Atoms
    from ase.io import read

    from ..calculator import NequIPLRCalculator

    atoms = read(shipped_structure(name), index=0)
    assert isinstance(atoms, Atoms)
    atoms.info.setdefault("total_charge", 0.0)
    atoms.rattle(0.05, seed=1)
    return NequIPLRCalculator(name, device).get_property("forces", atoms)


def _difference(first: object, second: object) -> float:
    import numpy as np

    return float(np.abs(np.asarray(first) - np.asarray(second)).max())


def _kernels() -> Result:
    version = version_of("numba")
    if version is None:
        advice = "pip install numba: steps are several times faster with it"
        return "note", "numba is not installed: loops run in torch", advice
    import torch

    from ..ops import compiled, references

    if not compiled(torch.zeros(1)):
        advice = "pip install --upgrade numba (or an older NumPy)"
        return "note", f"numba {version} cannot be imported: loops run in torch", advice
    doing("running compiled loops")
    for name in (PERIODIC, FREE):
        fast = _forces(name)
        with references():
            difference = _difference(fast, _forces(name))
        if not difference < _KERNEL_TOLERANCE:
            message = f"forces of {name} differ by {difference:.2g} eV/Å from those of torch"
            return "fail", message, _ADVICE["kernels"]
    return "ok", f"numba {version}: forces agree with torch ({difference:.1g} eV/Å)", ""


def _platforms() -> Result:
    import openmm

    names = platform_names()
    failures = [line.strip() for line in openmm.Platform.getPluginLoadFailures()]
    speeds = {name: openmm.Platform.getPlatform(name).getSpeed() for name in names}
    chosen = os.environ.get("OPENMM_DEFAULT_PLATFORM") or max(speeds, key=lambda name: speeds[name])
    message = f"{', '.join(names)}; {chosen} is the default in scripts"
    if chosen not in names:
        advice = f"set OPENMM_DEFAULT_PLATFORM to one of {', '.join(names)}"
        return "fail", f"OPENMM_DEFAULT_PLATFORM is {chosen}, which is not available", advice
    if chosen == "OpenCL" and (device := _opencl_device()) and _is_processor(device):
        message += f", running on {device}, a CPU: it is slow, and its minimiser may crash"
        return "note", message, "set OPENMM_DEFAULT_PLATFORM=CPU (nequiplr md does so itself)"
    if failures:
        advice = "such plugins are mostly for hardware or software that is not installed"
        return "note", f"{message}; {len(failures)} plugins do not load: {failures[0]}", advice
    return "ok", message, ""


def _opencl_device() -> str:
    """Name of the device of OpenMM's OpenCL platform; empty if it cannot be determined."""
    try:
        context = _one_particle("OpenCL")
        return context.getPlatform().getPropertyValue(context, "DeviceName")
    except Exception:
        return ""


def _is_processor(device: str) -> bool:
    words = ("pthread", "cpu", "pocl", "basic-", "epyc", "xeon", "core(tm)", "ryzen")
    return any(word in device.lower() for word in words)


def _platform(name: str) -> Result:
    import numpy as np
    import openmm
    from openmm import unit

    from ..simulation import create_system, read_structure

    start = read_structure(shipped_structure(PERIODIC))
    system = create_system(start.topology, PERIODIC, total_charge=0.0)
    own = openmm.NonbondedForce()  # computed by the platform itself
    own.setNonbondedMethod(openmm.NonbondedForce.PME)
    own.setCutoffDistance(0.4)
    for index in range(system.getNumParticles()):
        own.addParticle(0.2 * (-1) ** index, 0.15, 0.1)
    system.addForce(own)
    rng = np.random.default_rng(1)
    positions = start.positions + rng.normal(0.0, 0.004, start.positions.shape)

    def context_on(platform_name: str) -> openmm.Context:
        platform = openmm.Platform.getPlatform(platform_name)
        integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.0005)
        context = openmm.Context(system, integrator, platform)
        context.setPositions(positions)
        return context

    def forces_of(context: openmm.Context) -> np.ndarray:
        forces = context.getState(forces=True).getForces(asNumpy=True)
        return forces.value_in_unit(unit.kilojoule_per_mole / unit.angstrom) / EV_TO_KJ_PER_MOL

    doing("computing on platform Reference")
    expected = forces_of(context_on("Reference"))
    doing("creating a Context")
    try:
        context = context_on(name)
    except openmm.OpenMMException as error:  # OpenMM skips it in scripts that name no platform
        return "note", f"no Context can be created ({error})", _ADVICE["platform"]
    doing("computing forces")
    difference = _difference(forces_of(context), expected)
    if not difference < _PLATFORM_TOLERANCE:
        message = f"forces differ by {difference:.2g} eV/Å from those of platform Reference"
        return "fail", message, _ADVICE["platform"]
    doing("doing steps")
    context.getIntegrator().step(2)
    doing("minimising")
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=2)
    return "ok", f"forces agree with Reference ({difference:.1g} eV/Å), MD and minimiser work", ""


def _gpu() -> Result:
    devices, names = gpus(), platform_names()
    import torch

    usable = torch.cuda.is_available()
    if not devices and not usable:
        return "ok", "no NVIDIA GPU found: everything runs on the CPU", ""
    shown = ", ".join(f"{name} (driver {driver})" for name, driver in devices) or "a GPU"
    if not usable:
        advice = "install a torch built for a CUDA version that the driver supports: pytorch.org"
        return "note", f"{shown}, but torch {torch.__version__} does not detect it", advice
    doing("computing on the GPU")
    difference = _difference(_forces(PERIODIC, "cuda"), _forces(PERIODIC, "cpu"))
    if not difference < _DEVICE_TOLERANCE:
        message = f"{shown}: forces differ by {difference:.2g} eV/Å from those of the CPU"
        return "fail", message, "choose device='cpu', and update driver and torch"
    if "CUDA" not in names:
        extra = "cuda13" if (torch.version.cuda or "").startswith("13") else "cuda12"
        advice = f'pip install "openmm-nequiplr[{extra}]"'
        return "note", f"{shown}: torch uses it, but OpenMM has no CUDA platform", advice
    return "ok", f"{shown}: forces agree with the CPU ({difference:.1g} eV/Å)", ""


def _torchforce() -> Result:
    version = version_of("openmmtorch")
    if version is None:
        advice = 'pip install "openmm-nequiplr[torchforce]", for backend="torch" and exported files'
        return "note", "openmm-torch is not installed", advice
    doing("importing openmm-torch")
    import torch

    from ..simulation.torchforce import load_openmmtorch

    module = load_openmmtorch()
    doing("computing by a TorchForce")
    folder = tempfile.mkdtemp()

    class HarmonicWell(torch.nn.Module):
        def forward(self, positions):
            return (positions**2).sum()

    path = str(Path(folder) / "well.pt")
    torch.jit.save(torch.jit.script(HarmonicWell()), path)
    context = _one_particle("Reference", module.TorchForce(path))
    force = context.getState(forces=True).getForces(asNumpy=True)._value[0, 0]
    shutil.rmtree(folder, ignore_errors=True)
    if abs(force + 1.0) > 1e-5:
        return "fail", f"a TorchForce gives {force:.4g} instead of -1", _ADVICE["torchforce"]
    return "ok", f"openmm-torch {version} works with torch {torch.__version__}", ""


def _training() -> Result:
    version = version_of("lightning")
    if version is None:
        advice = 'for nequiplr train: pip install "openmm-nequiplr[train]"'
        return "note", "Lightning is not installed", advice
    doing("importing Lightning")
    import lightning  # noqa: F401

    from ..training import run  # noqa: F401

    return "ok", f"Lightning {version}", ""


_PROBES: dict[str, Callable[..., Result]] = {
    "requirements": _requirements,
    "command": _command,
    "cache": _cache,
    "import order": _import_order,
    "kernels": _kernels,
    "platforms": _platforms,
    "platform": _platform,
    "gpu": _gpu,
    "torchforce": _torchforce,
    "training": _training,
}
