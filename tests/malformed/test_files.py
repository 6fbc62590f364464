"""Damaged and hostile configurations, Systems and arguments: a typed error, nothing executed.

The damage is seeded. To extend the suite, add a line to one of the lists.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import pickle
import random
import re
from pathlib import Path
from typing import Any

import pytest

from openmm_nequiplr.errors import InputError

from .refusal import Attack, refused

# --------------------------------------------------------------------------------- YAML of a user

_BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n"
    for old, new in zip("abcdefg", "bcdefgh", strict=True)
)
TEXTS = ["", "5", "- a", "a: [", "\t", "!!python/object/apply:os.system ['true']", _BOMB,
         "model: *x",
         "[" * 5000, "data: 5", "data: {train: }", "data: []", "model: {}\ndata: {}"]  # fmt: skip
ENTRIES: list[tuple[str, Any]] = [
    *((name, value) for name in ("batch_size", "max_epochs", "validation_interval", "seed",
                                 "ema_decay", "gradient_clip", "max_time", "num_threads",
                                 "optimizer.lr", "schedule.factor", "precision")
      for value in ("text", [], {}, -1, float("nan")) if (name, value) != ("seed", -1)),
    ("unheard_of", 1), ("optimizer.name", "sgd"), ("schedule.name", 5), ("optimizer", 5),
    ("optimizer.betas", [1]), ("trainer", {"max_epochs": 5}), ("trainer", 5), ("model", 5),
    ("num_threads", 0), ("num_threads", 1_000_000), ("batch_size", 0), ("batch_size", 1e30),
    ("batch_size", 2.5), ("validation_batch_size", -1), ("max_epochs", 1e30), ("seed", 2**40),
    ("data.split_seed", 2**40), ("optimizer.lr", float("inf")), ("optimizer.lr", [0.1]),
    ("loss.forces", -1.0), ("loss.forces", float("nan")), ("harmonic.copies", 1e9),
    ("model.r_max", 1e30), ("model.r_max", -3.0), ("model.num_features", 1e6),
    ("model.num_layers", 2000), ("gradient_clip", 0), ("ema_decay", 1.0), ("schedule.factor", 2.0),
    ("precision", "half"), ("data.units.length", "furlong"), ("data.units", "bohr"),
    ("optimiser", {}),
]  # fmt: skip


def test_training_yaml(tmp_path):
    from openmm_nequiplr.training.config import load_config

    path = tmp_path / "t.yaml"
    for text in TEXTS:
        path.write_text(text)
        refused(lambda: load_config(path), text[:40], InputError)
    path.write_text("data: {train: a.xyz}\nmodel: {r_max: 4.0}\n")
    for name, value in ENTRIES:
        last = name.rpartition(".")[2]  # it names the entry, in one line
        refused(
            lambda n=name, v=value: load_config(path, {n: v}), f"{name}={value}", InputError,
            rf"\A.*{last}.*\Z",
        )  # fmt: skip


# --------------------------------------------------------------------------------- XML of Systems


@pytest.fixture(scope="module")
def systems(make_model, tmp_path_factory) -> dict[str, str]:
    """XML of one System, as OpenMM writes it and in plain form."""
    import openmm
    from ase import Atoms

    from openmm_nequiplr import create_system
    from openmm_nequiplr.simulation import from_atoms, save_system

    model = make_model(num_layers=1, num_features=2, invariant_neurons=4)
    system = create_system(from_atoms(Atoms("NaCl", [[0, 0, 0], [2.5, 0, 0]])).topology, model)
    path = tmp_path_factory.mktemp("systems") / "plain.xml"
    save_system(system, path)
    return {"openmm": openmm.XmlSerializer.serialize(system), "plain": path.read_text()}


def _call(function: Any, *arguments: Any) -> bytes:
    class Call:
        def __reduce__(self) -> Any:
            return function, arguments

    return pickle.dumps(Call())


def test_pickles_in_systems_are_not_executed(systems, tmp_path):
    from openmm_nequiplr.simulation import deserialize_system, load_system

    mark, path = tmp_path / "executed", tmp_path / "s.xml"
    pickles = [
        _call(Path.touch, mark), _call(exec, f"open({str(mark)!r}, 'w')"), _call(eval, "1"),
        pickle.dumps(Attack(mark), 0), pickle.dumps({"settings": 1}), b"", b"\x80",
        b"cos\nsystem\n.",
    ]  # fmt: skip
    for data in pickles:
        text = re.sub(r'function="[0-9a-f]*"', f'function="{data.hex()}"', systems["openmm"])
        refused(lambda: deserialize_system(text), repr(data), InputError, "system")  # noqa: B023
        path.write_text(text)
        refused(lambda: load_system(path), repr(data), InputError, "system")
    path.write_text(systems["openmm"])
    refused(lambda: load_system(path), "a pickle of ours", InputError, "PythonForce")
    assert not mark.exists()


def test_damaged_systems(systems, tmp_path):
    from openmm_nequiplr.simulation import deserialize_system, load_system

    draw, path = random.Random(4), tmp_path / "s.xml"
    for kind, read in (("openmm", deserialize_system), ("plain", None)):
        text = systems[kind]
        for _ in range(20):
            cut = text[: draw.randrange(len(text) - 20)]
            path.write_text(cut)
            call = functools.partial(read or (lambda _: load_system(path)), cut)
            refused(call, f"{kind}, {len(cut)} characters", InputError, "system")
    for text in ("", "text", "<a/>", "<System/>", '<System type="System" version="99"/>', 5,
                 '<!DOCTYPE a [<!ENTITY b "c">]><System type="System"/>'):  # fmt: skip
        refused(lambda: deserialize_system(text), repr(text), InputError, "system")  # noqa: B023


PLAIN: list[tuple[str, Any]] = [
    ("symbols", []), ("symbols", ["Na", "Xx"]), ("symbols", 5), ("symbols", ["Na", 5]),
    ("periodic", "yes"), ("total_charge", "1"), ("total_charge", None), ("long_range", "auto"),
    ("precision", "half"), ("device", 5), ("tolerance", []), ("skin", -1),
    ("skin", 1e9), ("solver", "magic"), ("charge_tolerance", 0), ("max_iterations", 0),
    ("atoms", [0]),
    ("electric_field", [0.0, 0.0]), ("electric_field", 5), ("electric_field", [0.0, 0.0, None]),
    ("whole", [[1.0, 0.0, 0.0]]), ("whole", [[0.0] * 3] * 3), ("whole", "box"),
    ("charge_groups", [0]), ("charge_groups", "molecules"), ("group_charges", [0.5, -0.5]),
    ("electrodes", [[0]]), ("electrodes", [[0], [0]]), ("electrodes", 5),
    ("electrode_voltage", 1.0),
    ("atoms", [0, 0]), ("atoms", [-1, 0]), ("atoms", "01"), ("unheard_of", 1),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(PLAIN)))
def test_settings_of_plain_systems(systems, tmp_path, case):
    from openmm_nequiplr.simulation import load_system

    name, value = PLAIN[case]
    found = re.search(r"<Settings>(.*)</Settings>", systems["plain"])
    payload = json.loads(found.group(1))
    payload["settings"][name] = value
    path = tmp_path / "s.xml"
    path.write_text(systems["plain"].replace(found.group(1), json.dumps(payload)))
    refused(lambda: load_system(path), f"{name}={value!r}", InputError, name)


def test_forces_of_others_in_plain_systems(systems, tmp_path):
    from openmm_nequiplr.simulation import load_system

    path = tmp_path / "s.xml"
    for kind in ("PythonForce", "TorchForce", "PlumedForce", "System", "XmlSerializer", "", "Vec3"):
        path.write_text(systems["plain"].replace('type="CMMotionRemover"', f'type="{kind}"'))
        refused(lambda: load_system(path), kind, InputError, "system")


# ------------------------------------------------------------------------------------ command line


def _command_lines(folder: Path) -> list[list[str]]:
    junk = {
        name: folder / name for name in ("junk.xyz", "junk.pdb", "junk.yaml", "junk.safetensors")
    }
    for path in junk.values():
        path.write_text("nothing of the kind\n")
    xyz, model, config = (str(junk[f"junk.{e}"]) for e in ("xyz", "safetensors", "yaml"))
    out, taken = str(folder / "out"), folder / "taken"
    taken.write_text("a file")
    return [
        [], ["unheard-of"], ["info", "absent"], ["info", model], ["info", str(folder)],
        ["md"], ["md", "absent"], ["md", model], ["md", "au2-mgo", str(folder / "absent.xyz")],
        ["md", "au2-mgo", "--steps", "many"], ["md", "au2-mgo", "--steps", "-5", "--output", out],
        ["md", "au2-mgo", "--timestep", "0", "--output", out],
        ["md", "au2-mgo", "--temperature", "nan", "--output", out],
        ["md", "au2-mgo", "--ensemble", "nvu"],
        ["md", "au2-mgo", "--threads", "0", "--output", out],
        ["md", "au2-mgo", "--barostat-axes", "abc", "--output", out],
        ["md", "au2-mgo", "--spread-threshold", "1", "--output", out],
        ["md", "au2-mgo", "--temperature", "1e30", "--output", out],
        ["md", "au2-mgo", "--pressure", "nan", "--ensemble", "npt", "--output", out],
        ["md", "au2-mgo", "--total-charge", "1e6", "--output", out],
        ["md", "au2-mgo", "--output", "/dev/null/run"], ["md", "au2-mgo", "--output", str(taken)],
        ["md", "au2-mgo", "--steps", "0", "--device", "abacus", "--output", out],
        ["evaluate", "absent", xyz], ["evaluate", model, xyz], ["evaluate", "au2-mgo"],
        ["evaluate", "au2-mgo", str(folder / "absent.xyz")],
        ["evaluate", "au2-mgo", xyz, "--batch-size", "x"],
        ["evaluate", "au2-mgo", xyz, "--precision", "half"],
        ["analyze", "au2-mgo"], ["analyze", "absent", xyz],
        ["analyze", "au2-mgo", str(folder / "absent.dcd")],
        ["export", "au2-mgo", str(folder / "absent.xyz"), "-o", out],
        ["export", "absent", xyz, "-o", out], ["convert", xyz], ["train"], ["train", config],
        ["train", str(folder / "absent.yaml")], ["train", config, "--set", "a"],
        ["train", config, "--seeds", "x"], ["convert", model, "--config", config, "-o", out],
        ["convert", model, "--config", str(folder / "absent.yaml"), "-o", out],
    ]  # fmt: skip


def test_command_lines(tmp_path, monkeypatch):
    """One line on standard error and status 2."""
    from openmm_nequiplr import cli

    monkeypatch.chdir(tmp_path)
    wrong = []
    for words in _command_lines(tmp_path):
        errors = io.StringIO()
        try:
            with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
                status: Any = cli.main(words)
        except SystemExit as stop:  # argparse, after its usage
            status = stop.code
        except Exception as error:
            status = f"{type(error).__name__}: {error}"
        lines = errors.getvalue().strip().splitlines()
        if status != 2 or not lines or "error" not in lines[-1]:
            wrong.append(f"{' '.join(words)}: {status}, {lines[-1:]}")
    assert not wrong, "\n".join(wrong)
