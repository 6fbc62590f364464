"""Lightning trainer for a training configuration."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ..errors import InputError
from .checkpoints import CheckpointFiles
from .config import TrainingConfig
from .module import VALIDATION_LOSS
from .recorder import Recorder


def one_process(options: Mapping[str, Any]) -> bool:
    """Whether a training with these trainer options runs in a single process.

    Parameters
    ----------
    options : mapping
        Entries of ``trainer``.
    """
    devices, nodes = options.get("devices", 1), options.get("num_nodes", 1)
    several = isinstance(devices, Sequence) and not isinstance(devices, str)
    one = devices in (1, "1") or (several and len(devices) == 1)
    return one and nodes == 1


def writes(config: TrainingConfig) -> bool:
    """Whether this process writes the results; only the first of several does."""
    return one_process(config.trainer) or getattr(rank_zero_only, "rank", 0) in (0, None)


class _Alone(LightningEnvironment):
    """Single-process environment that ignores variables of SLURM, MPI, LSF and torchrun."""

    @property
    def creates_processes_externally(self) -> bool:
        return False

    def global_rank(self) -> int:
        return 0

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return 0

    def world_size(self) -> int:
        return 1


class _Patience(EarlyStopping):
    """Early stopping with the current patience, also in a resumed training."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop a resumed training at once if early stopping had already ended it."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


def make_trainer(config: TrainingConfig, recorder: Recorder) -> pl.Trainer:
    """Lightning trainer without Lightning's own output.

    Raises
    ------
    InputError
        If Lightning refuses the options under ``trainer``.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    options: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1_000_000,
        **config.trainer,
    }
    given = options.pop("plugins", None) or []
    plugins = [*(given if isinstance(given, list) else [given]), CheckpointFiles()]
    if one_process(config.trainer):
        plugins.append(_Alone())
    if options.get("strategy") == "ddp":
        # buffers are constant; broadcasting them in every step would add a synchronisation
        options["strategy"] = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
    callbacks: list[pl.Callback] = [recorder]
    if config.early_stopping is not None:
        callbacks.append(_Patience(VALIDATION_LOSS, patience=config.early_stopping))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            return pl.Trainer(
                max_epochs=config.max_epochs,
                callbacks=callbacks,
                logger=False,
                inference_mode=False,
                gradient_clip_val=config.gradient_clip,
                check_val_every_n_epoch=config.validation_interval,
                use_distributed_sampler=False,
                precision="32-true",
                default_root_dir=str(recorder.output),
                plugins=plugins,
                **options,
            )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"trainer: expected options that Lightning takes, got {error}") from error
