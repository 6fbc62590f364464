"""Description of the installation and the machine, without importing torch or numba."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

from .. import __version__
from ..costs import costs_file
from ..jit import numba_available
from ..pretrained import cache_directory
from ..pretrained.cache import home_directory

#: Packages whose versions are reported, by their names on the package index.
PACKAGES = (
    *("torch", "OpenMM", "numba", "lightning", "openmmml", "openmmtorch"),
    *("ase", "e3nn", "vesin", "mdtraj", "numpy"),
)
_ASK_DRIVER = ("--query-gpu=name,driver_version", "--format=csv,noheader")


def version_of(package: str) -> str | None:
    """Installed version of a package; ``None`` if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def unmet_requirements() -> list[str]:
    """Requirements of the package that are not met, such as ``vesin>=0.6 (0.5 is installed)``."""
    from packaging.requirements import Requirement

    try:
        lines = importlib.metadata.requires("openmm-nequiplr") or []
    except importlib.metadata.PackageNotFoundError:  # run from the source tree
        return []
    unmet = []
    for requirement in map(Requirement, lines):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = version_of(requirement.name)
        plain = f"{requirement.name}{requirement.specifier}"
        if found is None:
            unmet.append(f"{plain} (not installed)")
        elif not requirement.specifier.contains(found, prereleases=True):
            unmet.append(f"{plain} ({found} is installed)")
    return unmet


def gpus() -> list[tuple[str, str]]:
    """Name and driver version of each NVIDIA GPU, from ``nvidia-smi``; empty if there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, *_ASK_DRIVER], capture_output=True, encoding="utf-8", timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    if done.returncode != 0:
        return []
    rows = [line.rsplit(",", 1) for line in done.stdout.splitlines() if "," in line]
    return [(name.strip(), driver.strip()) for name, driver in rows]


def usable_cores() -> int:
    """Number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # another operating system
        return os.cpu_count() or 1


def loops_directory() -> Path | None:
    """Directory in which numba caches the compiled loops; ``None`` if none is writable.

    It is ``NUMBA_CACHE_DIR``, a directory in the package, or numba's directory in the user cache.
    """
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    beside = Path(__file__).parents[1] / "ops" / "__pycache__"
    if os.name == "nt":
        own = Path(os.environ.get("LOCALAPPDATA", home_directory())) / "numba" / "numba" / "Cache"
    elif platform.system() == "Darwin":
        own = home_directory() / "Library" / "Caches" / "numba"
    else:
        own = Path(os.environ.get("XDG_CACHE_HOME") or home_directory() / ".cache") / "numba"
    for place in (Path(chosen),) if chosen else (beside, own):
        if writable(place):
            return place
    return None


def writable(directory: Path) -> bool:
    """Whether files can be created in a directory, or the directory itself can be created."""
    for place in (directory, *directory.parents):
        if place.exists():
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False


def platform_names() -> list[str]:
    """Names of OpenMM's platforms, or one entry with the error if OpenMM cannot be imported."""
    try:
        import openmm
    except Exception as error:  # a damaged library raises many types
        return [f"none ({type(error).__name__}: {error})"]
    count = openmm.Platform.getNumPlatforms()
    return [openmm.Platform.getPlatform(index).getName() for index in range(count)]


def describe_installation() -> str:
    """Versions, platforms, devices, kernels, threads and caches, one per line."""
    found = {name: version_of(name) for name in PACKAGES}
    there = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    missing = ", ".join(name for name, version in found.items() if version is None)
    devices = ", ".join(f"{name} (driver {driver})" for name, driver in gpus())
    set_by = "OMP_NUM_THREADS"
    limit = f", {set_by}={os.environ[set_by]}" if os.environ.get(set_by) else ""
    loops = loops_directory()
    rows = {
        "version": f"openmm-nequiplr {__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}",
        "packages": there + (f"; not installed: {missing}" if missing else ""),
        "platforms": ", ".join(platform_names()),
        "GPU": devices or "none found",
        "kernels": f"numba {found['numba']}, cached in {loops or 'memory only'}"
        if numba_available()
        else "torch only, as numba is not installed",
        "threads": f"{usable_cores()} cores{limit}",
        "costs": f"measured, in {costs_file()}" if costs_file().exists() else "defaults",
        "models": f"downloaded to {cache_directory() / 'models'}",
    }
    return "\n".join(f"{name:<11}{text}" for name, text in rows.items())
