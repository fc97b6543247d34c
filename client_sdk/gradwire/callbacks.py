"""Functions for the argument `on_epoch` of `fit`, which log each epoch to a file or to an experiment tracker.

Example:
    gw.fit(model, (X, y), ..., on_epoch=[gw.callbacks.CSVLogger("log.csv"), gw.callbacks.TensorBoard("runs/1")])

The trackers need packages that gradwire does not install by itself. Each object logs one training run.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, TextIO

from gradwire._exceptions import FileError
from gradwire._metrics import named_metrics
from gradwire_engine.optional import required
from gradwire_engine.training import Epoch

__all__ = ["CSVLogger", "MLflow", "TensorBoard", "Trackio", "WandB"]


class CSVLogger:
    """Writes each epoch as a row of a .csv file, with the columns of `History.to_dict`.

    The file has a column for each metric of the first evaluated epoch, and is complete after each epoch from then on.

    Args:
        path: The file, which is overwritten.

    Raises:
        FileError: The file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: TextIO | None = None
        self._columns: list[str] = []
        self._waiting: list[Epoch] = []
        self._open()

    def __call__(self, epoch: Epoch) -> None:
        """Write an epoch."""
        self._waiting.append(epoch)
        if self._columns or epoch.train is not None:
            self._write()

    def close(self) -> None:
        """Write the remaining epochs, and close the file."""
        if self._file is not None:
            self._write()
            self._file.close()
            self._file = None

    def _open(self) -> None:
        try:
            self._file = self.path.open("w", newline="")
        except OSError as error:
            raise FileError(f"cannot write {self.path}: {error.strerror}") from None

    def _write(self) -> None:
        if self._file is None:
            raise FileError(f"cannot write {self.path}: the logger is closed. Use a new one for each run.")
        writer = csv.writer(self._file)
        if self._waiting and not self._columns:
            metrics = named_metrics(self._waiting[-1])
            self._columns = ["epoch", "running_loss", *metrics, "train_seconds", "evaluate_seconds"]
            writer.writerow(self._columns)
        for epoch in self._waiting:
            values = {**vars(epoch), **named_metrics(epoch)}
            writer.writerow([values.get(column, "") for column in self._columns])
        self._waiting.clear()
        self._file.flush()


class TensorBoard:
    """Writes each epoch to log files for TensorBoard. Requires tensorboardX: pip install 'gradwire[tensorboard]'.

    Args:
        folder: The folder of the run, for example "runs/1". To view it, run tensorboard --logdir runs.

    Raises:
        ImportError: tensorboardX is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        module = required("tensorboardX", "gradwire.callbacks.TensorBoard", "'gradwire[tensorboard]'")
        self._writer = module.SummaryWriter(str(folder))

    def __call__(self, epoch: Epoch) -> None:
        """Write an epoch."""
        for name, value in _values(epoch).items():
            self._writer.add_scalar(name, value, epoch.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the files of the run."""
        self._writer.close()


class MLflow:
    """Logs each epoch to the active MLflow run, or to a new one. Requires mlflow: pip install 'gradwire[mlflow]'.

    Args:
        **run: Arguments for mlflow.start_run, for example run_name="digits". They are ignored if a run is active.

    Raises:
        ImportError: mlflow is not installed.
    """

    def __init__(self, **run: Any) -> None:
        self._mlflow = required("mlflow", "gradwire.callbacks.MLflow", "'gradwire[mlflow]'")
        self._owns_run = self._mlflow.active_run() is None
        if self._owns_run:
            self._mlflow.start_run(**run)

    def __call__(self, epoch: Epoch) -> None:
        """Log an epoch."""
        self._mlflow.log_metrics(_values(epoch), step=epoch.epoch)

    def close(self) -> None:
        """End the run if this object started it."""
        if self._owns_run:
            self._mlflow.end_run()


class WandB:
    """Logs each epoch to Weights & Biases. Requires wandb: pip install 'gradwire[wandb]'.

    Args:
        **run: Arguments for wandb.init, for example project="digits".

    Raises:
        ImportError: wandb is not installed.
    """

    def __init__(self, **run: Any) -> None:
        self._run = required("wandb", "gradwire.callbacks.WandB", "'gradwire[wandb]'").init(**run)

    def __call__(self, epoch: Epoch) -> None:
        """Log an epoch."""
        self._run.log(_values(epoch), step=epoch.epoch)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class Trackio:
    """Logs each epoch to Trackio. Requires trackio: pip install 'gradwire[trackio]'.

    Args:
        **run: Arguments for trackio.init, for example project="digits".

    Raises:
        ImportError: trackio is not installed.
    """

    def __init__(self, **run: Any) -> None:
        self._trackio = required("trackio", "gradwire.callbacks.Trackio", "'gradwire[trackio]'")
        self._trackio.init(**run)

    def __call__(self, epoch: Epoch) -> None:
        """Log an epoch."""
        self._trackio.log(_values(epoch), step=epoch.epoch)

    def close(self) -> None:
        """End the run."""
        self._trackio.finish()


def _values(epoch: Epoch) -> dict[str, float]:
    """Return the values of an epoch's curves, keyed by names that trackers group: "train/loss"."""
    return {"running_loss": epoch.running_loss, **named_metrics(epoch, "/"), "seconds": epoch.seconds}
