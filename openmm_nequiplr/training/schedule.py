"""Learning-rate schedule: a function of the progress and of a small saved state."""

from __future__ import annotations

import math
from typing import Any

from .config import ScheduleConfig


class LearningRate:
    """Learning rate of each optimiser step, relative to the largest learning rate.

    It does not use the schedulers of torch: its state is saved and restored in one place, at the
    end of an epoch, so that a resumed training continues exactly.

    Parameters
    ----------
    config : ScheduleConfig
    steps_per_epoch : float
        Optimiser steps in an epoch.
    max_epochs : int
    max_time : float, optional
        Minutes. If given, the progress is the larger of the progress in time and in epochs.
    """

    def __init__(
        self,
        config: ScheduleConfig,
        steps_per_epoch: float,
        max_epochs: int,
        max_time: float | None = None,
    ) -> None:
        self.config = config
        self.warmup_steps = config.warmup_epochs * steps_per_epoch
        self.total_steps = max(1.0, steps_per_epoch * max_epochs)
        self.max_time = max_time
        self.time_progress = 0.0
        self.best = math.inf
        self.bad_validations = 0
        self.plateau_factor = 1.0

    def progress(self, step: int) -> float:
        """Fraction of the training before optimiser step `step`, counted from 0."""
        return min(1.0, max(step / self.total_steps, self.time_progress))

    def factor(self, step: int) -> float:
        """Factor for optimiser step `step`, counted from 0."""
        config = self.config
        progress = self.progress(step)
        if config.name == "cosine":
            half_wave = 0.5 * (1.0 + math.cos(math.pi * progress))
            value = config.final_factor + (1.0 - config.final_factor) * half_wave
        elif config.name == "exponential":
            value = config.final_factor**progress
        elif config.name == "plateau":
            value = self.plateau_factor
        else:
            value = 1.0
        if step < self.warmup_steps:
            value *= (step + 1) / (self.warmup_steps + 1)
        return value

    def end_epoch(self, validation_loss: float | None, minutes: float) -> None:
        """Update the state at the end of an epoch.

        Parameters
        ----------
        validation_loss : float, optional
            None if there was no validation after this epoch.
        minutes : float
            Training time so far.
        """
        if self.max_time is not None:
            self.time_progress = min(1.0, minutes / self.max_time)
        if validation_loss is None:
            return
        if validation_loss < self.best:
            self.best, self.bad_validations = validation_loss, 0
            return
        self.bad_validations += 1
        if self.bad_validations > self.config.patience:
            self.bad_validations = 0
            self.plateau_factor = max(
                self.plateau_factor * self.config.factor, self.config.final_factor
            )

    def state_dict(self) -> dict[str, Any]:
        """State for an exact continuation."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a result of `state_dict`."""
        for name in _STATE:
            setattr(self, name, state[name])


_STATE = ("time_progress", "best", "bad_validations", "plateau_factor")
