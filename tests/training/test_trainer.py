"""A training of one process is one process, whatever the launcher of a cluster left behind."""

from __future__ import annotations

import pytest

from openmm_nequiplr.errors import InputError
from openmm_nequiplr.training.config import load_config
from openmm_nequiplr.training.run import train
from openmm_nequiplr.training.trainer import one_process, writes

from .log import epochs

LAUNCHERS = {
    "slurm": {
        "SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "job", "SLURM_NTASKS": "8", "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_NTASKS_PER_NODE": "4",
        "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NODELIST": "node[1-2]", "SLURM_STEP_GPUS": "0,1",
    },
    "torchrun": {
        "TORCHELASTIC_RUN_ID": "none", "RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1",
        "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1",
    },
    "mpi": {
        "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "2",
        "PMI_RANK": "2", "PMI_SIZE": "4",
    },
    "lsf": {
        "LSB_JOBID": "9", "LSB_DJOB_RANKFILE": "/nowhere", "JSM_NAMESPACE_RANK": "1",
        "JSM_NAMESPACE_SIZE": "4", "JSM_NAMESPACE_LOCAL_RANK": "1",
    },
    "kubeflow": {
        "KUBERNETES_PORT": "tcp://nowhere", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1",
        "WORLD_SIZE": "4", "RANK": "2",
    },
    "lightning": {"NODE_RANK": "2", "LOCAL_RANK": "3"},
}  # fmt: skip


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_one_process_under_any_launcher(config_file, tmp_path, monkeypatch, launcher):
    for name, value in LAUNCHERS[launcher].items():
        monkeypatch.setenv(name, value)
    result = train(config_file, overrides={"max_epochs": 1}, progress=False)
    assert result.model_path.is_file()
    assert len(epochs(tmp_path / "out")) == 1
    assert (tmp_path / "out/last.ckpt").is_file()


@pytest.mark.parametrize(
    ("options", "one"),
    [
        ({}, True),
        ({"devices": "1"}, True),
        ({"devices": [3]}, True),
        ({"devices": 2}, False),
        ({"devices": "auto"}, False),
        ({"num_nodes": 2}, False),
    ],
)
def test_what_is_one_process(config_file, options, one):
    assert one_process(options) is one
    if one:
        assert writes(load_config(config_file, {"trainer": options})[0])


@pytest.mark.parametrize(
    "options",
    [{"devices": 0}, {"accelerator": "abacus"}, {"colour": "red"}, {"strategy": "no"}],
)
def test_options_that_lightning_refuses(config_file, options):
    with pytest.raises(InputError, match=r"^trainer: expected options that Lightning takes"):
        train(config_file, overrides={"trainer": options}, progress=False)
