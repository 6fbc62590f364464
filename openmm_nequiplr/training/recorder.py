"""Output of a training: log, learning curve, models, checkpoint, progress line."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint

from ..console import duration, say
from ..errors import ConvergenceError
from ..model import save_model
from ..writing import append_text, replace_file
from .checkpoints import CHECKPOINT
from .loss import QUANTITIES, Errors
from .module import TrainingModule
from .report import REPORTED, scaled

BEST_MODEL = "model.safetensors"
LAST_MODEL = "model_last.safetensors"
LOG = "metrics.csv"
#: File to which a damaged log is copied.
DAMAGED_LOG = "metrics_damaged.csv"
PICTURE = "learning_curve.png"

_PICTURE_SECONDS = 60.0
_LINE_SECONDS = 10.0


class Recorder(Checkpoint):
    """Callback that writes all output at the end of each epoch, the checkpoint last.

    It is a Lightning ``Checkpoint``, so it is called after all other callbacks.

    Parameters
    ----------
    output : path
        Output directory.
    metadata : dict of str to str
        Metadata of the model files.
    progress : bool
        Show a progress line.
    record : mapping, optional
        Record of data and settings for the checkpoint, see `continuation.record_of`.
    """

    def __init__(
        self,
        output: Path,
        metadata: dict[str, str],
        progress: bool = True,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.output = output
        self.metadata = metadata
        self.record = dict(record or {})
        self.progress = progress
        self.best_loss = math.inf
        self.best_epoch = -1
        self._rows: list[dict[str, Any]] = []
        self._bar: Any = None
        self._last_line = -math.inf
        self._began, self._first_epoch = time.monotonic(), 0
        self._last_picture = time.monotonic()

    # ------------------------------------------------------------------------ Lightning hooks

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Continue the log of a resumed training, and start the progress line."""
        if not trainer.is_global_zero:
            return
        self._began, self._first_epoch = time.monotonic(), trainer.current_epoch
        self._rows = [] if trainer.current_epoch == 0 else self._read_log(trainer.current_epoch)
        self._write_log()
        if self.progress and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=trainer.max_epochs, initial=trainer.current_epoch, unit="epoch",
                dynamic_ncols=True, leave=True,
            )  # fmt: skip

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the output of the epoch.

        Raises
        ------
        ConvergenceError
            If the loss is not finite.
        """
        assert isinstance(pl_module, TrainingModule)
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        pl_module.end_epoch()
        if not math.isfinite(pl_module.train_loss):
            raise ConvergenceError(
                f"training loss: expected a finite number, got {pl_module.train_loss} in epoch "
                f"{trainer.current_epoch}; lower optimizer.lr or set gradient_clip"
            )
        loss = pl_module.validation_loss
        if loss is not None and loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, trainer.current_epoch
            if trainer.is_global_zero:
                self._export(pl_module, BEST_MODEL, trainer.current_epoch)
        if trainer.is_global_zero:
            self._record(trainer, pl_module, lr)
        pl_module.validation_loss = None
        trainer.save_checkpoint(self.output / CHECKPOINT)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the last model and the last learning curve, and close the progress line."""
        assert isinstance(pl_module, TrainingModule)
        if trainer.is_global_zero:
            # a resumed training that had already ended trains no epoch
            if pl_module.train_errors or not (self.output / LAST_MODEL).is_file():
                self._export(pl_module, LAST_MODEL, trainer.current_epoch - 1)
            self._draw()
        self._close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Close the progress line."""
        self._close()

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint."""
        return {
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "record": self.record,
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Reset the best validation losses of all callbacks if losses are no longer comparable."""
        states = checkpoint["callbacks"]
        before = states.get("Recorder", {}).get("record", self.record)
        if _judged_by(before) == _judged_by(self.record):
            return
        anew: dict[str, Any] = {"best_loss": math.inf, "best_epoch": -1}
        anew |= {"best": math.inf, "bad_validations": 0}  # state of the learning rate
        anew |= {"best_score": torch.tensor(math.inf), "wait_count": 0}  # state of early stopping
        for state in (*states.values(), checkpoint["nequiplr"]["learning_rate"]):
            state.update({name: anew[name] for name in state.keys() & anew.keys()})
        pl_module.on_load_checkpoint(checkpoint)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state."""
        self.best_loss = state_dict["best_loss"]
        self.best_epoch = state_dict["best_epoch"]

    # -------------------------------------------------------------------------------- outputs

    def _export(self, module: TrainingModule, name: str, epoch: int) -> None:
        metadata = dict(self.metadata)
        metadata["epoch"] = str(epoch)
        metadata["validation"] = json.dumps(_figures(module.validation_errors))
        save_model(module.best_model, self.output / name, metadata)

    def _record(self, trainer: pl.Trainer, module: TrainingModule, lr: float) -> None:
        row: dict[str, Any] = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "minutes": round(module.minutes, 3),
            "lr": f"{lr:.4g}",
            "train_loss": f"{module.train_loss:.6g}",
            "validation_loss": "",
        }
        groups = {"train": module.train_errors}
        if module.validation_loss is not None:
            row["validation_loss"] = f"{module.validation_loss:.6g}"
            groups["validation"] = module.validation_errors
        for group, errors in groups.items():
            for name, figures in errors.items():
                row[f"{group}_{name}_rmse"] = f"{scaled(figures.rmse):.5g}"
                row[f"{group}_{name}_mae"] = f"{scaled(figures.mae):.5g}"
        self._rows.append(row)
        self._write_log(append=True)
        now = time.monotonic()
        if now - self._last_picture > _PICTURE_SECONDS:
            self._draw()
        self._show(trainer, module, now)

    def _show(self, trainer: pl.Trainer, module: TrainingModule, now: float) -> None:
        if not self.progress:
            return
        text = summary(module.validation_errors or module.train_errors)
        if self._bar is not None:
            self._bar.update(1)
            self._bar.set_postfix_str(text)
        elif now - self._last_line > _LINE_SECONDS or self._is_last(trainer):
            self._last_line = now
            done = trainer.current_epoch + 1
            each = (now - self._began) / (done - self._first_epoch)
            left = each * ((trainer.max_epochs or done) - done)
            count = f"{done}/{trainer.max_epochs}"
            if module.config.max_time is not None:
                limit = 60.0 * max(module.config.max_time - module.minutes, 0.0)
                if limit < left:  # max_epochs will not be reached
                    count, left = f"{done}", limit
            say(
                f"epoch {count}  loss {module.train_loss:.3g}  {text}  "
                f"{each:.2g} s/epoch  {duration(0.0 if self._is_last(trainer) else left)} left"
            )

    @staticmethod
    def _is_last(trainer: pl.Trainer) -> bool:
        return trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs

    def _draw(self) -> None:
        from ..analysis.plots import plot_learning_curve

        self._last_picture = time.monotonic()
        if self._rows:
            plot_learning_curve(self.output / LOG, self.output / PICTURE)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    # ------------------------------------------------------------------------------------ log

    def _read_log(self, epochs: int) -> list[dict[str, Any]]:
        """Rows of the epochs before the checkpoint; a damaged log is copied to another file."""
        path = self.output / LOG
        text = path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""
        rows = [row for row in complete_rows(text) if int(row["epoch"]) < epochs]
        missing = epochs - len(rows)
        if missing and self.progress:
            kept = f"; what was there is in {DAMAGED_LOG}" if text else ""
            print(f"{path}: {missing} of {epochs} epochs are not in it{kept}", flush=True)
        if missing and text:
            shutil.copyfile(path, self.output / DAMAGED_LOG)
        return rows

    def _write_log(self, append: bool = False) -> None:
        """Append the last row, or write all rows if the columns have changed."""
        columns = _columns(self._rows)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        path = self.output / LOG
        if append and len(self._rows) > 1 and columns == _columns(self._rows[:-1]):
            writer.writerow(self._rows[-1])
            append_text(path, text.getvalue())
            return
        writer.writeheader()
        writer.writerows(self._rows)
        replace_file(path, text.getvalue())


def complete_rows(text: str) -> list[dict[str, str]]:
    """Complete rows of a log in order, one for each epoch.

    Parameters
    ----------
    text : str
        Content of the log, which may be truncated or damaged.
    """
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    rows: list[dict[str, str]] = []
    last = -1
    for row in csv.DictReader(line.replace("\0", "\ufffd") for line in lines):
        epoch = str(row.get("epoch") or "")
        whole = None not in row and None not in row.values() and epoch.isdecimal()
        if whole and int(epoch) > last and not any("\ufffd" in value for value in row.values()):
            rows.append(row)
            last = int(epoch)
    return rows


def _judged_by(record: Mapping[str, Any]) -> tuple[Any, Any]:
    """Settings and data, apart from the model, on which the validation loss depends."""
    loss = {name: value for name, value in record.get("loss", {}).items() if value}
    return loss, record.get("data", {}).get("validation")


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _figures(errors: dict[str, Errors]) -> dict[str, dict[str, float]]:
    """Errors in the units in which they are reported."""
    return {
        name: {"rmse": scaled(e.rmse), "mae": scaled(e.mae), "unit": REPORTED[name].unit}  # type: ignore[dict-item]
        for name, e in errors.items()
    }


def summary(errors: dict[str, Errors]) -> str:
    """One line of text with the rms errors."""
    return "  ".join(
        f"{REPORTED[name].symbol} {scaled(errors[name].rmse):.3g} {REPORTED[name].unit}"
        for name in QUANTITIES
        if name in errors
    )
