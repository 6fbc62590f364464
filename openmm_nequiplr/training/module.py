"""Lightning module: training step, validation with averaged weights, order of the data."""

from __future__ import annotations

import time
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from ..data.dataset import GraphDataset, LabelledGraph
from ..model.potential import NequIPLRPotential, PotentialOutput
from .config import TrainingConfig
from .loss import (
    Errors,
    ErrorSums,
    balance_species,
    label_counts,
    residuals,
    weigh_structures,
    weighted_loss,
)
from .sampling import EpochBatches
from .schedule import LearningRate

#: Name of the validation loss in the metrics of Lightning.
VALIDATION_LOSS = "validation_loss"
_NO_DECAY = ("hardness", "charge_offset", "bessel")


class TrainingModule(pl.LightningModule):
    """Lightning module that trains a potential.

    Parameters
    ----------
    model : NequIPLRPotential
        Model whose energy shifts and scales are already set.
    config : TrainingConfig
    train_data, validation_data : GraphDataset, optional
        Graphs with labels.
    """

    def __init__(
        self,
        model: NequIPLRPotential,
        config: TrainingConfig,
        train_data: GraphDataset,
        validation_data: GraphDataset,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.train_data = train_data
        self.validation_data = validation_data
        #: Model with averaged weights; None without averaging.
        self.average = averaged(model, config.ema_decay) if config.ema_decay > 0 else None
        self.learning_rate: LearningRate | None = None
        #: Number of processes in the training, each with a share of the batches.
        self.processes = 1
        self._saved: dict[str, Any] = {}
        self.train_errors: dict[str, Errors] = {}
        self.validation_errors: dict[str, Errors] = {}
        self.train_loss = float("nan")
        self.validation_loss: float | None = None
        self.minutes_before = self.minutes = 0.0
        self._started = time.monotonic()
        self._sums = ErrorSums()
        self._validation_sums = ErrorSums()
        self._loss, self._final_loss = config.loss.at(0.0), config.loss.at(1.0)
        weights = config.loss.weights()
        self._forces = weights["forces"] > 0
        self._stress = weights["stress"] > 0
        self._response = weights["born_charges"] > 0 or weights["polarizability"] > 0

    @property
    def best_model(self) -> NequIPLRPotential:
        """Model to validate and export: with averaged weights, if they are averaged."""
        if self.average is None:
            return self.model
        return cast(NequIPLRPotential, self.average.module)

    # ------------------------------------------------------------------------------- training

    def setup(self, stage: str) -> None:
        """Prepare the schedule once the number of steps is known."""
        self.processes = self.trainer.world_size
        steps = self.trainer.estimated_stepping_batches / self.config.max_epochs
        self.learning_rate = LearningRate(
            self.config.schedule, steps, self.config.max_epochs, self.config.max_time
        )
        if "learning_rate" in self._saved:
            self.learning_rate.load_state_dict(self._saved["learning_rate"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam or AdamW, with groups with and without weight decay, without frozen parameters."""
        decayed: list[torch.nn.Parameter] = []
        free: list[torch.nn.Parameter] = []
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            plain = parameter.ndim > 1 and not any(word in name for word in _NO_DECAY)
            (decayed if plain else free).append(parameter)
        settings = self.config.optimizer
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": free, "weight_decay": 0.0},
        ]
        kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
        return kind(
            [g for g in groups if g["params"]],
            lr=settings.lr,
            betas=(settings.betas[0], settings.betas[1]),
            amsgrad=settings.amsgrad,
            fused=True,  # one loop over all weights instead of ten operations per weight tensor
        )

    def on_train_start(self) -> None:
        """Start the clock, and stop the training if its time has already elapsed."""
        if self.config.max_time is not None and self.minutes_before >= self.config.max_time:
            self.trainer.should_stop = True
        self._started = time.monotonic()
        self._sums = ErrorSums(self.device)

    def on_train_epoch_start(self) -> None:
        """Set the weights of the loss for this epoch."""
        assert self.learning_rate is not None
        progress = self.learning_rate.progress(self.trainer.global_step)
        self._loss = self.config.loss.at(progress)

    def training_step(self, batch: LabelledGraph, batch_index: int) -> torch.Tensor:
        """Weighted loss of one batch."""
        counts, pending = None, None
        if self.processes > 1:
            # the mean over processes, which is minimised, is then the mean over all their values
            counts = label_counts(batch.labels).to(self.device) / self.processes
            pending = torch.distributed.all_reduce(counts, async_op=True)
        output = self._output(self.model, batch)
        errors = residuals(output, batch.labels)
        reference = batch.labels.of_reference()
        self._sums.add(errors if reference is batch.labels else residuals(output, reference))
        if self.config.loss.per_species:
            names = self.config.loss.per_species
            errors = balance_species(errors, batch.labels, batch.graph.types, names)
        errors = weigh_structures(errors, batch.labels)
        if pending is None:
            return weighted_loss(errors, self._loss)
        pending.wait()
        nothing = 0.0 * output.energy.sum()
        known = any(self._loss.weights()[name] > 0 for name in errors)
        return nothing + weighted_loss(errors, self._loss, counts) if known else nothing

    def _output(self, model: NequIPLRPotential, batch: LabelledGraph) -> PotentialOutput:
        """Quantities with a weight in the loss; stress and response only if there are labels."""
        stress = self._stress and batch.labels.stress is not None
        response = self._response and batch.labels.has_response
        return cast(PotentialOutput, model(batch.graph, self._forces, stress, response))

    def backward(self, loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute gradients of the weights only; those of the positions would cost more."""
        loss.backward(inputs=[p for p in self.model.parameters() if p.requires_grad])

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any = None):  # type: ignore[override]
        """Take one step at the scheduled learning rate, then update the averaged weights."""
        assert self.learning_rate is not None
        lr = self.config.optimizer.lr * self.learning_rate.factor(self.trainer.global_step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step(closure=closure)
        if self.average is not None:
            self.average.update_parameters(self.model)

    def _elapsed(self) -> float:
        """Training time in minutes, including the time before a resumption."""
        return self.minutes_before + (time.monotonic() - self._started) / 60.0

    def end_epoch(self) -> None:
        """Collect the errors of the epoch and update the schedule; called by the recorder."""
        sums = self._reduced(self._sums)
        self.train_errors, self.train_loss = sums.errors(), sums.loss(self._loss)
        self._sums = ErrorSums(self.device)
        assert self.learning_rate is not None
        self.minutes = self._elapsed()
        if self.trainer.world_size > 1:  # use the clock of the first process
            self.minutes = float(self.trainer.strategy.broadcast(self.minutes))
        self.learning_rate.end_epoch(self.validation_loss, self.minutes)
        if self.config.max_time is not None and self.minutes >= self.config.max_time:
            self.trainer.should_stop = True

    def _reduced(self, sums: ErrorSums) -> ErrorSums:
        """Total of the sums of all processes."""
        if self.trainer.world_size > 1:
            sums.sums = self.trainer.strategy.reduce(sums.sums, reduce_op="sum")
        return sums

    # ----------------------------------------------------------------------------- validation

    def on_validation_epoch_start(self) -> None:
        """Reset the sums of the validation errors."""
        self._validation_sums = ErrorSums(self.device)

    def validation_step(self, batch: LabelledGraph, batch_index: int) -> None:
        """Add the errors of one batch, with gradients enabled, which the forces require."""
        with torch.enable_grad():
            output = self._output(self.best_model, batch)
            self._validation_sums.add(residuals(output, batch.labels))

    def on_validation_epoch_end(self) -> None:
        """Compute the validation errors."""
        sums = self._reduced(self._validation_sums)
        self.validation_errors = sums.errors()
        self.validation_loss = sums.loss(self._final_loss)
        self.log(VALIDATION_LOSS, self.validation_loss)

    # ----------------------------------------------------------------------------------- data

    def train_dataloader(self) -> DataLoader:
        """Training batches, in an order that depends only on seed and epoch."""
        batches = EpochBatches(
            self.train_data.sizes,
            self.config.seed,
            self.config.batch_size,
            self.config.batch_atoms,
            self.global_rank,
            self.trainer.world_size,
        )
        return DataLoader(self.train_data, batch_sampler=batches, collate_fn=LabelledGraph.collate)

    def val_dataloader(self) -> DataLoader:
        """Validation batches of this process, padded with unlabelled batches."""
        batches = self.validation_data.batches(self.config.validation_batch_size)
        share = batches.share(self.global_rank, self.trainer.world_size)
        return DataLoader(share, batch_size=None, collate_fn=_itself)  # type: ignore[arg-type]

    def transfer_batch_to_device(
        self, batch: LabelledGraph, device: torch.device, dataloader_idx: int
    ) -> LabelledGraph:
        """Move graph and labels to the device."""
        return batch if device.type == "cpu" else batch.to(device)

    # ---------------------------------------------------------------------------- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state that Lightning does not save to a checkpoint."""
        assert self.learning_rate is not None
        checkpoint["nequiplr"] = {
            "learning_rate": self.learning_rate.state_dict(),
            "minutes": self._elapsed(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state that :meth:`on_save_checkpoint` added."""
        self._saved = checkpoint["nequiplr"]
        self.minutes_before = self._saved["minutes"]
        if self.learning_rate is not None:
            self.learning_rate.load_state_dict(self._saved["learning_rate"])


def averaged(model: NequIPLRPotential, decay: float) -> AveragedModel:
    """Copy of a model that holds the exponential moving average of its weights.

    The decay of update n is min(decay, (1 + n) / (10 + n)), so that the influence of the random
    initial weights vanishes quickly.

    Parameters
    ----------
    model : NequIPLRPotential
    decay : float
        Between 0 and 1, exclusive.
    """

    def update(averages: Any, weights: Any, number: Any) -> None:
        n = float(number)
        torch._foreach_lerp_(averages, weights, 1.0 - min(decay, (1.0 + n) / (10.0 + n)))

    average = AveragedModel(model, multi_avg_fn=torch.no_grad()(update))
    average.n_averaged.fill_(1)  # the initial weights count as the first update
    return average.requires_grad_(False)


def _itself(item: LabelledGraph) -> LabelledGraph:
    return item
