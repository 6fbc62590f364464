"""Resuming: only what is the same goes on, and damaged files lose as little as can be."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import signal

import pytest
import torch
from ase.io import read, write

from openmm_nequiplr.data import store
from openmm_nequiplr.errors import DirectoryInUseError, InputError, Interrupted
from openmm_nequiplr.locking import directory_lock
from openmm_nequiplr.training import recorder, run
from openmm_nequiplr.training.continuation import changes, record_of
from openmm_nequiplr.training.recorder import complete_rows
from openmm_nequiplr.training.run import train

from .log import epochs

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def stash(tmp_path_factory):
    """Where the training that all tests begin with is kept."""
    return tmp_path_factory.mktemp("stash") / "out"


@pytest.fixture
def begun(config_file, stash, tmp_path):
    """A training of two epochs that may be resumed up to four; its output directory."""
    output = tmp_path / "out"
    if not stash.exists():
        train(config_file, overrides={"max_epochs": 2}, progress=False)
        shutil.copytree(output, stash)
    else:
        shutil.copytree(stash, output)
    return output


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"seed": 1}, r"seed 1 \(was 0\)"),
        ({"batch_size": 1}, r"batch_size 1 \(was 2\)"),
        ({"optimizer.lr": 0.01}, r"optimizer\.lr 0\.01 \(was 0\.02\)"),
        ({"loss.charges": 1.0}, r"loss\.charges 1\.0 \(was 10\.0\)"),
        ({"data.num_validation": 3}, r"data\.train \(other structures.*data\.validation"),
        ({"data.split_seed": 3}, r"data\.train \(other structures"),
        ({"ema_decay": 0.5, "gradient_clip": None}, r"gradient_clip None \(was 5\.0\).*ema_decay"),
    ],
)
def test_other_settings_are_refused_by_name(config_file, begun, overrides, message):
    before = (begun / "last.ckpt").read_bytes()
    for key in overrides:
        with pytest.raises(InputError, match=r"resume: expected data and settings") as caught:
            train(config_file, resume=True, overrides=overrides, progress=False)
        assert key.split(".")[0] in str(caught.value)
    assert (begun / "last.ckpt").read_bytes() == before
    assert len(epochs(begun)) == 2


def test_changes_that_are_accepted(config_file, begun, capsys):
    changed = {"optimizer.lr": 0.01}
    train(config_file, resume=True, overrides=changed, accept_changes=True)
    assert "resume: going on with optimizer.lr 0.01 (was 0.02)" in capsys.readouterr().out
    assert len(epochs(begun)) == 4
    train(config_file, resume=True, overrides=changed | {"max_epochs": 5}, progress=False)


@pytest.mark.parametrize("accept", [False, True])
def test_another_model_is_never_accepted(config_file, begun, accept):
    with pytest.raises(InputError, match=r"model\.num_features 3 \(was 2\)"):
        train(config_file, True, {"model.num_features": 3}, False, accept)


def test_labels_that_changed_are_refused(config_file, data_file, tmp_path, monkeypatch):
    """Wherever the file is; a copy of it is the same data, and the one that is kept on disk."""
    monkeypatch.setattr(store, "IN_MEMORY", 500.0)
    frames = read(data_file, ":")
    for name in ("first.extxyz", "moved.extxyz", "changed.extxyz"):
        if name == "changed.extxyz":
            frames[4].arrays["REF_forces"][0, 0] += 0.01
        write(tmp_path / name, frames, format="extxyz")
    first, moved, changed = (
        {"data.train": str(tmp_path / f"{name}.extxyz")} for name in ("first", "moved", "changed")
    )
    train(config_file, overrides=first | {"max_epochs": 1}, progress=False)
    with pytest.raises(InputError, match=r"data\.(train|validation) \(other structures"):
        train(config_file, resume=True, overrides=changed, progress=False)
    train(config_file, resume=True, overrides=moved | {"max_epochs": 2}, progress=False)
    (kept,) = (tmp_path / "out" / "structures").iterdir()
    assert kept.name.startswith("moved-")


def test_fewer_epochs_than_are_done(config_file, begun):
    with pytest.raises(InputError, match=r"max_epochs: expected at least 2, the epochs"):
        train(config_file, resume=True, overrides={"max_epochs": 1}, progress=False)


@pytest.mark.parametrize("size", [0, 0.98])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(config_file, begun, capsys, size):
    whole = (begun / "last.ckpt").read_bytes()
    (begun / "last.ckpt").write_bytes(whole[: size if size > 1 else int(size * len(whole))])
    train(config_file, resume=True)
    assert "last.ckpt is damaged or no checkpoint" in capsys.readouterr().out
    for name in ("last.ckpt", "previous.ckpt"):
        assert torch.load(begun / name, weights_only=True)["nequiplr"]
    assert [int(row["epoch"]) for row in epochs(begun)] == [0, 1, 2, 3]


def test_no_checkpoint_that_can_be_read(config_file, begun):
    kept = (begun / "model.safetensors").read_bytes()
    for name in ("last.ckpt", "previous.ckpt"):
        (begun / name).write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match=r"resume: expected a checkpoint .*last\.ckpt is damaged"):
        train(config_file, resume=True, progress=False)
    assert (begun / "model.safetensors").read_bytes() == kept
    assert len(epochs(begun)) == 2


class _Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_checkpoints_execute_nothing(config_file, begun, tmp_path, how):
    contents = torch.load(begun / "last.ckpt", weights_only=True)
    contents["nequiplr"]["more"] = _Payload(tmp_path / "executed")
    (begun / "previous.ckpt").unlink()
    if how == "torch":
        torch.save(contents, begun / "last.ckpt")
    else:
        (begun / "last.ckpt").write_bytes(pickle.dumps(_Payload(tmp_path / "executed")))
    with pytest.raises(InputError, match="damaged or no checkpoint"):
        train(config_file, resume=True, progress=False)
    assert not (tmp_path / "executed").exists()


def test_a_damaged_log_is_kept_and_told_of(config_file, begun, capsys):
    text = (begun / "metrics.csv").read_text()
    (begun / "metrics.csv").write_text(text[: text.index("\n1,") + 9])
    train(config_file, resume=True)
    assert "1 of 2 epochs are not in it" in capsys.readouterr().out
    assert [int(row["epoch"]) for row in epochs(begun)] == [0, 2, 3]
    assert (begun / "metrics_damaged.csv").read_text() == text[: text.index("\n1,") + 9]


def test_rows_cut_anywhere_are_never_taken_for_others():
    text = "epoch,step,lr\n" + "".join(f"{n},{5 * n},0.01\n" for n in range(13))
    for length in range(len(text)):
        rows = complete_rows(text[:length])
        assert [int(row["epoch"]) for row in rows] == list(range(len(rows)))
        assert len(rows) == max(text[:length].count("\n") - 1, 0)
    assert len(complete_rows(text + "3,15,0.01\n")) == 13
    assert len(complete_rows(text.replace("7,35", "7,\0"))) == 12


@pytest.mark.parametrize("name", ["config.yaml.part", "metrics.csv", "last.ckpt.part"])
def test_a_full_disk_leaves_what_was_there(config_file, begun, monkeypatch, name):
    before = {n: (begun / n).read_bytes() for n in ("last.ckpt", "previous.ckpt", "config.yaml")}
    sync = os.fsync

    def full(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(begun / name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=f"No space left .*{name.removesuffix('.part')}'"):
            train(config_file, resume=True, overrides={"num_threads": 1}, progress=False)
    same = [n for n, content in before.items() if (begun / n).read_bytes() == content]
    assert {"last.ckpt", "previous.ckpt"} <= set(same)
    assert not list(begun.glob("*.part"))
    train(config_file, resume=True, progress=False)
    assert [int(row["epoch"]) for row in epochs(begun)] == [0, 1, 2, 3]


def test_a_second_training_in_the_directory_is_refused(config_file, begun):
    with directory_lock(begun), pytest.raises(DirectoryInUseError, match=str(os.getpid())):
        train(config_file, resume=True, progress=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_say_how_to_go_on(config_file, tmp_path, monkeypatch, number):
    record = recorder.Recorder._record

    def stop(self, trainer, module, lr):
        record(self, trainer, module, lr)
        if trainer.current_epoch == 2:
            os.kill(os.getpid(), number)

    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patch:
        patch.setattr(recorder.Recorder, "_record", stop)
        with pytest.raises(Interrupted, match=r"the same command with --resume continues") as stop:
            train(config_file, progress=False)
    assert stop.value.number == number
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
    train(config_file, resume=True, progress=False)
    assert [int(row["epoch"]) for row in epochs(tmp_path / "out")] == [0, 1, 2, 3]


def test_a_checkpoint_without_a_record_goes_on(config_file, begun, capsys):
    """As earlier versions wrote them."""
    contents = torch.load(begun / "last.ckpt", weights_only=True)
    del contents["callbacks"]["Recorder"]["record"]
    torch.save(contents, begun / "last.ckpt")
    train(config_file, resume=True, overrides={"seed": 4})
    assert "not compared" in capsys.readouterr().out


def test_settings_of_other_versions_are_passed_over(config_file):
    config, _ = run.load_config(config_file)
    now = record_of(config, [], [])
    before = {k: v for k, v in now.items() if k != "seed"}
    before["loss"] = {k: v for k, v in now["loss"].items() if k != "per_species"}
    assert changes(before, now) == []
    before["model"] = {**now["model"], "l_max": 2}
    assert changes(before, now) == ["model.l_max 1 (was 2)"]


def test_the_previous_checkpoint_alone_is_a_training(config_file, begun):
    """A process may end between the two steps that replace a checkpoint."""
    shutil.move(begun / "last.ckpt", begun / "previous.ckpt")
    with pytest.raises(InputError, match="which holds a training"):
        train(config_file, progress=False)
    train(config_file, resume=True, progress=False)
    assert len(epochs(begun)) == 4
