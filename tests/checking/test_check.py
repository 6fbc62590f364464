"""The check as a whole: who is fit, what is written, what the command line says."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from ase.io import write

import openmm_nequiplr
from openmm_nequiplr import NequIPLRPotential, cli, load_model, save_model, shipped_structure
from openmm_nequiplr.analysis.minimisation import to_ase
from openmm_nequiplr.checking import (
    CheckOptions,
    check,
    check_model,
    record_check,
    write_report,
)
from openmm_nequiplr.checking.check import recorded_range
from openmm_nequiplr.errors import InputError, ModelFileError, UnknownElementError
from openmm_nequiplr.model.info import describe_model

FEW = {"frames": 4, "minimisations": 2, "runs": 1, "ps": 0.1, "fs": 1.0}


def test_a_harmless_model_is_fit(harmless, structures, tmp_path):
    lines: list[str] = []
    report = check_model(harmless, structures, progress=lines.append, **FEW)
    assert report.problems == ()
    assert report.fit
    assert report.verdict == "fit for dynamics"
    assert list(report.minimisations) == [0.15, 0.3]
    assert list(report.dynamics) == [300.0, 600.0]
    assert all(len(ends) == 2 for ends in report.minimisations.values())
    assert all(len(run.times) == 2 for runs in report.dynamics.values() for run in runs)
    assert len(report.scans) == 6
    assert any("minimisation 2 of 2" in line for line in lines)

    write_report(report, tmp_path / "new")
    content = json.loads((tmp_path / "new" / "check.json").read_text(encoding="utf-8"))
    assert content["fit"] is True
    assert content["dynamics"][1]["survived"] == 1
    assert content["options"]["seed"] == 0
    assert set(content["charges"]["elements"]) == {"O", "Na", "Cl"}
    assert (tmp_path / "new" / "check.png").stat().st_size > 10_000

    path = tmp_path / "model.safetensors"
    save_model(harmless, path, {"title": "kept"})
    record_check(report, path)
    model = load_model(path)
    assert model.metadata["title"] == "kept"
    assert json.loads(model.metadata["check"])["minimisations"] == {"0.15": [0, 2], "0.3": [0, 2]}
    card = " ".join(describe_model(model).split())
    assert "check: fit for dynamics (check, structures): forces within" in card
    assert "0 of 2 from 0.15 Å" in card
    assert "1 of 1 at 600 K; 6 of 6 pair scans sound" in card
    record_check(report, path)  # once more replaces the entry
    assert load_model(path).metadata.keys() == {"title", "check"}


def test_a_model_full_of_holes_is_not_fit_and_a_seed_finds_the_same_again(
    full_of_holes, structures
):
    few = {**FEW, "temperatures": [300]}
    report, again = (check_model(full_of_holes, structures, **few) for _ in range(2))
    assert not report.fit
    assert report.verdict.startswith("not fit for dynamics: ")
    assert any(end.fallen for ends in report.minimisations.values() for end in ends)
    assert any(scan.problem for scan in report.scans)
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert content["problems"] == list(report.problems)
    assert content["minimisations"][0]["fallen"] == len(content["minimisations"][0]["falls"])
    assert report.to_dict() == again.to_dict()
    np.testing.assert_array_equal(
        report.dynamics[300.0][0].temperatures, again.dynamics[300.0][0].temperatures
    )
    other = check._Check(full_of_holes, structures, CheckOptions(seed=5), print)
    assert list(report.structures) != other.indices


def test_charges_come_from_the_card_where_it_has_them(harmless, structures):
    model = copy.deepcopy(harmless)
    model.metadata = {"charge_range": '{"Na": [5.0, 5.5], "X": [0, 1]}'}
    report = check_model(model, structures, temperatures=[300], **FEW)
    assert report.reference["Na"] == (5.0, 5.5)
    assert report.allowed["Na"] == pytest.approx((4.55, 5.95))
    assert not report.fit
    assert "charges leave their range" in report.verdict
    assert "Na" in report.charges_outside[0]
    model.metadata = {"charge_range": "[1, 2]"}
    with pytest.raises(ModelFileError, match="charge_range"):
        recorded_range(model)


def test_wrong_arguments_are_named(harmless, structures):
    stranger = openmm_nequiplr.data.Structure(("Xe",), np.zeros((1, 3)))
    with pytest.raises(UnknownElementError, match="Xe"):
        check_model(harmless, [*structures, stranger])
    with pytest.raises(InputError, match="at least one structure"):
        check_model(harmless, [])
    for name, value in {
        "frames": 0,
        "runs": -1,
        "ps": 1e-4,
        "fs": 21.0,
        "temperatures": (-3.0,),
    }.items():
        with pytest.raises(InputError, match=name):
            CheckOptions(**{name: value})


def test_the_command_says_why_a_model_is_not_fit(tmp_path, capsys):
    """The shipped model without its repulsion and shortest distances."""
    from dataclasses import replace

    from ase.io import read

    shipped = load_model("carbon-chain")
    bare = NequIPLRPotential(replace(shipped.config, zbl=False, shortest_distances=None))
    bare.to(shipped.dtype).load_state_dict(shipped.state_dict())
    data, model = tmp_path / "data.extxyz", tmp_path / "bare.safetensors"
    write(data, read(shipped_structure("carbon-chain")))
    save_model(bare, model)
    arguments = ["check", str(model), str(data), "-o", str(tmp_path), "--temperature", "300"]
    few = ["--minimisations", "1", "--steps", "3", "--runs", "1", "--ps", "0.01", "--frames", "1"]
    assert cli.main([*arguments, *few]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("not fit for dynamics: ")
    assert captured.out.count("\n") == 1
    assert "pair scan" in captured.out
    assert "check: minimisation 1 of 1 from 0.15 Å: stable, 3 steps" in captured.err
    assert (tmp_path / "check.json").is_file()
    assert (tmp_path / "check.png").is_file()
    assert cli.main(["check", "carbon-chain", str(data), "--record"]) == 2
    assert "record: expected a model file" in capsys.readouterr().err


def test_the_command_says_that_a_model_is_fit(harmless, structures, tmp_path, capsys):
    model, data = tmp_path / "m.safetensors", tmp_path / "d.extxyz"
    save_model(harmless, model)
    write(data, [to_ase(structure) for structure in structures[:2]], format="extxyz")
    few = ["--minimisations", "1", "--runs", "1", "--ps", "0.05", "--temperature", "300"]
    assert cli.main(["check", str(model), str(data), "--record", *few]) == 0
    assert capsys.readouterr().out == "fit for dynamics\n"
    assert json.loads(load_model(model).metadata["check"])["fit"] is True


def test_options_of_the_command_are_those_of_the_library():
    from dataclasses import fields
    from inspect import signature

    from openmm_nequiplr.checking import check_file

    commands = next(a for a in cli.build_parser()._actions if a.dest == "command").choices
    actions = {a.dest: a for a in commands["check"]._actions}
    known = {field.name: field.default for field in fields(CheckOptions)}
    own = set(signature(check_file).parameters) - {"options", "progress"}
    assert set(actions) - {"help", "json", "traceback"} == own | set(known)
    for name, default in known.items():
        if "(default: " in (actions[name].help or ""):
            assert actions[name].help.endswith(f"(default: {default:g})"), name
