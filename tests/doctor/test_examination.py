"""Each check runs apart: what it finds, what it raises and what it dies of is a finding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from openmm_nequiplr import cli
from openmm_nequiplr.doctor import CHECKS, Finding, examination, examine, machine, probes, report


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Function: let a module that a check imports do something else."""

    def install(module: str, code: str) -> None:
        (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return install


def test_every_check_has_a_probe():
    assert set(CHECKS) | {"platform"} == set(probes._PROBES)
    names = list(examination._all_names())
    assert names.index("platform Reference") == names.index("platforms") + 1


def test_this_installation(monkeypatch):
    found = examine(["requirements", "import order", "cache", "platform Reference"])
    assert [each.state for each in found if each.name != "cache"] == ["ok"] * 3, report(found)
    assert "forces agree with Reference" in found[-1].message


@pytest.mark.slow
def test_kernels_agree_with_torch():
    (found,) = examine(["kernels"])
    assert found.state == "ok", found
    assert "forces agree with torch" in found.message


def test_wrong_kernels_are_found(monkeypatch):
    forces = iter([1.0, 1.0 + 1e-3, 2.0, 2.0])
    monkeypatch.setattr(probes, "_forces", lambda name: [next(forces)])
    found = probes.probe("kernels")
    assert found.state == "fail"
    assert "differ by 0.001 eV/Å" in found.message
    assert found.advice


def test_a_library_that_kills_the_process_is_a_finding(broken):
    broken("openmm", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    found = examination.run_apart("import order")
    assert found.state == "fail"
    assert found.message == "the process died of SIGSEGV while importing openmm before torch"
    assert "torch before openmm" in found.advice


def test_a_library_that_raises_is_a_finding(broken):
    broken("lightning", "raise RuntimeError('damaged\\nindeed')")
    found = examination.run_apart("training")
    assert (found.state, found.message) == ("fail", "RuntimeError: damaged indeed")
    assert "pip install" in found.advice


def test_a_library_that_ends_the_process_is_a_finding(broken):
    broken(
        "openmm",
        "import sys; print('gone', file=sys.stderr); sys.stderr.flush(); import os; os._exit(3)",
    )
    found = examination.run_apart("import order")
    assert found.message.startswith("the process ended with status 3: gone while importing")


def test_a_check_that_hangs_is_a_finding(broken, monkeypatch):
    monkeypatch.setattr(examination, "_TIMEOUT", 3.0)
    broken("openmm", "import time; time.sleep(60)")
    assert examination.run_apart("import order").message == "no answer within 3 s"


def test_a_platform_that_nothing_takes_may_fail(monkeypatch):
    failed = Finding("platform OpenCL", "fail", "dead")
    monkeypatch.setattr(examination, "run_apart", lambda name: failed)
    monkeypatch.delenv("OPENMM_DEFAULT_PLATFORM", raising=False)
    assert examine(["platform OpenCL"])[0].state == "fail"
    monkeypatch.setenv("OPENMM_DEFAULT_PLATFORM", "CPU")
    assert examine(["platform OpenCL"])[0].state == "note"
    monkeypatch.setenv("OPENMM_DEFAULT_PLATFORM", "OpenCL")
    assert examine(["platform OpenCL"])[0].state == "fail"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pthread-skylake-avx512-Intel(R) Xeon(R) Processor", True),
        ("cpu-haswell-AMD EPYC 7763", True),
        ("NVIDIA H100 80GB HBM3", False),
        ("gfx90a:sramecc+:xnack-", False),
        ("Intel(R) Arc(TM) A770 Graphics", False),
    ],
)
def test_devices_of_opencl_that_are_processors(name, kind):
    assert probes._is_processor(name) is kind


def test_a_platform_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("OPENMM_DEFAULT_PLATFORM", "Abacus")
    found = probes.probe("platforms")
    assert found.state == "fail"
    assert "Abacus" in found.message


def test_a_cache_that_cannot_be_written_is_noted(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("NEQUIPLR_CACHE", str(blocked))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(blocked / "loops"))
    found = probes.probe("cache")
    assert found.state == "note"
    assert "NEQUIPLR_CACHE" in found.advice
    assert "NUMBA_CACHE_DIR" in found.advice


def test_the_command_of_another_installation_is_noted(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not on PATH" in probes.probe("command").message
    other = tmp_path / "nequiplr"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    found = probes.probe("command")
    assert (found.state, str(other) in found.message) == ("note", True)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    monkeypatch.setattr(
        probes.shutil, "which", lambda name: f"{Path(sys.executable).parent}/{name}"
    )
    assert probes.probe("command").state == "ok"


def test_unmet_requirements_are_named(monkeypatch):
    lines = ["numpy>=1.24", "torch>=99", "no-such-package>=1", 'openmm>=99; extra == "x"']
    monkeypatch.setattr(machine.importlib.metadata, "requires", lambda name: lines)
    found = probes.probe("requirements")
    assert found.state == "fail"
    assert "torch>=99 (" in found.message
    assert "no-such-package>=1 (not installed)" in found.message
    assert "openmm" not in found.message
    assert found.advice == "pip install torch>=99 no-such-package>=1"


def test_gpus_are_what_the_driver_tells(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert machine.gpus() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100, 80GB, 550.1'\n")
    program.chmod(0o755)
    monkeypatch.setattr(machine.shutil, "which", lambda name: str(program))
    assert machine.gpus() == [("NVIDIA H100, 80GB", "550.1")]
    program.write_text("#!/bin/sh\necho broken; exit 9\n")
    assert machine.gpus() == []


# -------------------------------------------------------------------------------- the commands


def test_the_command_tells_the_verdict(monkeypatch, capsys):
    found = [Finding("a", "ok", "fine"), Finding("b", "note", "missing", "pip install it")]
    monkeypatch.setattr("openmm_nequiplr.doctor.examine", lambda progress: found)
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ok", "a", "fine"]
    assert lines[2].split() == ["->", "pip", "install", "it"]
    assert lines[-1] == "fit (2 checks)"
    found.append(Finding("c", "fail", "dead"))
    assert cli.main(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["fit"] is False
    assert told["findings"][2] == {"name": "c", "state": "fail", "message": "dead", "advice": ""}


def test_info_tells_of_the_installation_without_torch():
    program = (
        "import sys; from openmm_nequiplr.cli import main; main(['info']); "
        "print('torch' in sys.modules, 'numba' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, encoding="utf-8", check=True, env=dict(os.environ),
    )  # fmt: skip
    for piece in ("torch 2", "OpenMM 8", "Reference", "threads", "numba", "au2-mgo"):
        assert piece in done.stdout, piece
    assert done.stdout.splitlines()[-1] == "False False"
