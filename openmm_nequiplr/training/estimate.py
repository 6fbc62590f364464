"""Estimates of the time and memory of a training, from timed optimiser steps."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from ..data.dataset import GraphDataset, LabelledGraph, stored_bytes
from ..describe import counted, describe_threads
from ..model import NequIPLRPotential
from .config import TrainingConfig
from .module import TrainingModule
from .preparation import Parts, batch_structures, prepare
from .sampling import EpochBatches
from .start import learn_charges_first

#: Default limit of the timing, s.
SECONDS = 20.0
_MOST_STEPS, _BATCHES = 20, 4
_MOST_SAMPLED, _TIMED_GRAPHS = 64, 3
#: Number of optimiser steps below which a training is reported as short.
_FEW_STEPS = 5000


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Estimated time and memory of a training on this machine.

    Parameters
    ----------
    weights : int
        Number of weights of the model.
    elements : tuple of str
    receptive_field : float, Å
    neighbors : float
        Mean number of neighbours of an atom.
    num_train, num_validation, num_test : int
        Number of structures; `num_train` includes harmonic copies.
    batches : int
        Optimiser steps in an epoch.
    steps_timed : int
    step, epoch : float, s
        Time of an optimiser step, and of an epoch with its validation.
    preparation : float, s
        Time of statistics, graphs, lattice sums, Coulomb matrices and epochs of charges only,
        which are computed once.
    memory : float, GB
        Memory of the process, or of the device on a GPU.
    """

    weights: int
    elements: tuple[str, ...]
    receptive_field: float
    neighbors: float
    num_train: int
    num_validation: int
    num_test: int
    batches: int
    steps_timed: int
    step: float
    epoch: float
    preparation: float
    memory: float

    def lines(self, config: TrainingConfig) -> list[str]:
        """Lines of text that report the estimate.

        Parameters
        ----------
        config : TrainingConfig
        """
        return [
            f"structures: {self.num_train} for training, {self.num_validation} for validation, "
            f"{self.num_test} for the test",
            f"model: {self.weights} weights, elements {' '.join(self.elements)}, receptive field "
            f"{self.receptive_field:g} Å, {self.neighbors:.3g} neighbours",
            *self.durations(config),
        ]

    def durations(self, config: TrainingConfig) -> list[str]:
        """Lines of text that report time and memory only."""
        total = config.max_epochs * self.epoch
        done, line = config.max_epochs, f"{config.max_epochs} epochs take {duration(total)}"
        limit, longer = None if config.max_time is None else 60.0 * config.max_time, "max_epochs"
        if limit is not None and total > limit:
            longer, done = "max_time", max(1, round(limit / self.epoch))
            line = f"max_time ends it after {duration(limit)}, about {done} epochs"
        timed = f"steps timed: {self.steps_timed}; {describe_threads(torch.get_num_threads())}"
        steps = f"{counted(self.batches, 'step')} of {duration(self.step)}"
        lines = [
            f"epoch: {duration(self.epoch)}, {steps} and the validation ({timed})",
            f"training: {line}; before it {duration(self.preparation)} of preparation",
            f"memory: about {self.memory:.1f} GB",
        ]
        if done * self.batches < _FEW_STEPS:
            advice = f"more {longer}, or a smaller model (num_features, l_max, r_max)"
            lines.append(f"few steps, {done * self.batches} in all: try {advice}")
        return lines


def estimate(
    config: TrainingConfig, parts: Parts, config_path: str | Path, seconds: float = SECONDS
) -> Estimate:
    """Time optimiser steps of a training on a sample of its structures.

    Nothing is written, and the weights do not change.

    Parameters
    ----------
    config : TrainingConfig
    parts : Parts
    config_path : path
    seconds : float
        Time after which no further step is started; at least one step is timed.

    Raises
    ------
    InputError
        If the training could not start.
    """
    in_batch = batch_structures(config, parts.train)
    sample = min(max(_BATCHES * in_batch, config.validation_batch_size), _MOST_SAMPLED)
    sample = max(sample - sample % in_batch, in_batch)
    begin = time.perf_counter()
    model, train, validation = prepare(config, parts, config_path, sample)
    sampled = len([*train, *validation])  # builds the graphs before the steps are timed
    prepared = time.perf_counter() - begin
    for_charges = _time_charges(model, config, train)
    module = TrainingModule(model, config, train, validation).to(_device(config))
    step, timed = _time_steps(module, seconds)
    validated = _time_validation(module, min(seconds, 5.0))
    num_train = len(parts.train) + _num_copies(config, len(parts.train))
    batches = -(-num_train // in_batch)
    batches_validated = -(-len(parts.validation) // config.validation_batch_size)
    missing = num_train + len(parts.validation) - sampled
    graphs = parts.train[:_TIMED_GRAPHS]
    of_graph = _mean_time(lambda: list(GraphDataset(graphs, model, memory=0)), 0.0, 1)[0]
    of_graph /= len(graphs)
    return Estimate(
        weights=sum(parameter.numel() for parameter in model.parameters()),
        elements=model.config.type_names,
        receptive_field=model.config.receptive_field,
        neighbors=model.config.avg_num_neighbors,
        num_train=num_train,
        num_validation=len(parts.validation),
        num_test=len(parts.test),
        batches=batches,
        steps_timed=timed,
        step=step,
        epoch=batches * step + batches_validated * validated,
        preparation=prepared + missing * of_graph + num_train * for_charges,
        memory=_memory(module, missing),
    )


def _num_copies(config: TrainingConfig, structures: int) -> int:
    return round(config.harmonic.copies * structures)


def _time_charges(model: NequIPLRPotential, config: TrainingConfig, data: GraphDataset) -> float:
    """Time per structure in the epochs of charges only, s."""
    epochs = config.equilibration.charge_epochs
    if not epochs:
        return 0.0
    one = dataclasses.replace(config.equilibration, charge_epochs=1)
    settings = dataclasses.replace(config, equilibration=one)
    epoch = _mean_time(lambda: learn_charges_first(model, settings, data, False), 0.0, 1)[0]
    return epochs * epoch / len(data)


def _device(config: TrainingConfig) -> str:
    """Device on which Lightning places the model."""
    gpu = config.trainer.get("accelerator", "cpu") in ("gpu", "cuda", "auto")
    return "cuda" if gpu and torch.cuda.is_available() else "cpu"


def _time_steps(module: TrainingModule, seconds: float) -> tuple[float, int]:
    """Time of an optimiser step, s, and the number of timed steps, without the first one."""
    module.on_train_start()
    optimizer = module.configure_optimizers()
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # the weights stay the same

    def make(batch: LabelledGraph) -> None:
        loss = module.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        if module.config.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(module.parameters(), module.config.gradient_clip)
        optimizer.step()
        if module.average is not None:
            module.average.update_parameters(module.model)

    batches = _batches(module.train_data, module.config)
    return _mean_time(lambda: make(next(batches).to(module.device)), seconds, _MOST_STEPS)


def _time_validation(module: TrainingModule, seconds: float) -> float:
    """Time per batch of the validation, s."""
    module.on_validation_epoch_start()
    batch = module.validation_data.batches(module.config.validation_batch_size)[0]
    batch = batch.to(module.device)
    return _mean_time(lambda: module.validation_step(batch, 0), seconds, 2)[0]


def _mean_time(work: Callable[[], object], seconds: float, most: int) -> tuple[float, int]:
    """Mean time of repeated work, s, without the first repetition, which may compile kernels."""
    begin = time.perf_counter()
    work()
    _synchronize()
    count, first = 0, time.perf_counter()
    while count == 0 or (count < most and time.perf_counter() - begin < seconds):
        work()
        _synchronize()
        count += 1
    return (time.perf_counter() - first) / count, count


def _synchronize() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _batches(data: GraphDataset, config: TrainingConfig) -> Iterator[LabelledGraph]:
    """Infinite sequence of training batches."""
    batches = EpochBatches(data.sizes, config.seed, config.batch_size, config.batch_atoms)
    for epoch in itertools.count():
        batches.set_epoch(epoch)
        for batch in batches:
            yield LabelledGraph.collate([data[index] for index in batch])


def _memory(module: TrainingModule, missing: int) -> float:
    """Memory of the training, GB: that of this process, plus the graphs not built yet."""
    graphs = [*module.train_data, *module.validation_data]
    more = missing * sum(map(stored_bytes, graphs)) / len(graphs)
    more = min(more, module.train_data.memory + module.validation_data.memory)
    if module.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return (_peak() + more) / 1e9


def _peak() -> float:
    """Peak memory of this process, bytes; 0 if the system does not report it."""
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else 1024 * peak)


def duration(seconds: float) -> str:
    """Time as text in a suitable unit, such as ``3.2 min``."""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= (1.5 if unit != "s" else 1.0) * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{1000.0 * seconds:.3g} ms"
