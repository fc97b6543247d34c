"""fit: one call from a model and data to trained weights, in this process or on a server."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gradwire._access import resolve_address
from gradwire._client import Client
from gradwire._exceptions import GradwireError, InvalidArgumentError
from gradwire._history import History
from gradwire._info import JobInfo, ModelInfo
from gradwire._job import AsyncJob, Job
from gradwire._options import TrainingOptions
from gradwire._types import Dataset, Device, DType
from gradwire_engine.losses import Loss
from gradwire_engine.module import Module
from gradwire_engine.optim import SGD

if TYPE_CHECKING:
    from gradwire._display import Display


def fit(  # noqa: PLR0913  (the keywords are the documentation)
    model: Module,
    train: Dataset,
    *,
    loss: Loss,
    optimizer: SGD,
    test: Dataset | None = None,
    validation_split: float | None = None,
    epochs: int = 10,
    batch_size: int = 64,
    shuffle: bool = True,
    seed: int | None = 0,
    dtype: DType | None = None,
    device: Device = "auto",
    evaluate_every: int = 1,
    at: str | None = None,
    token: str | None = None,
    tls: bool | str | Path | None = None,
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    resume_from: str | Job | AsyncJob | JobInfo | None = None,
    initial_model: str | ModelInfo | None = None,
    progress: bool | None = None,
) -> History:
    """Train a model and return the history of its epochs. The trained weights are put into the model.

    Args:
        model: A stack of Linear and ReLU layers. Training starts from its weights; layers without weights are drawn
            from `seed`.
        train: A pair (inputs, targets) of arrays, lists, pandas objects or torch CPU tensors. Inputs have shape
            (rows, features). Targets are class indices (rows,), one-hot rows or regression targets (rows, outputs), or
            numbers (rows,) for a model with one output.
        loss: MSE() or CrossEntropy().
        optimizer: An SGD optimizer of the model.
        test: A pair like `train`, evaluated along with it after an epoch. Keras calls it validation data.
        validation_split: Use this fraction of the rows, between 0 and 1, as `test` instead of training on them. As with
            Keras's validation_split, these are the last rows, taken before shuffling.
        epochs: The number of passes over the training set. With resume_from, the total including that job's.
        batch_size: The number of rows in a step. A shorter last batch is trained on too.
        shuffle: Whether to draw a new row order for every epoch.
        seed: Orders the rows and draws the weights of deferred layers; None draws a seed, which the history reports.
        dtype: "float32" or "float64". Default: the dtype of the model's weights.
        device: "auto", "cpu" or "gpu".
        evaluate_every: Evaluate after every n-th epoch and after the last one.
        at: The "host:port" of a server, or "local" for this process. Default: GRADWIRE_ADDRESS, or "local".
        token: The server's token, as for `Client`.
        tls: Whether and how to use TLS, as for `Client`.
        name: The job's name on the server. By default the server chooses one.
        labels: Key-value pairs for finding the job on the server, for example {"team": "vision"}.
        resume_from: A job on the server that has ended, or its name: continue after its last epoch, up to `epochs` in
            total. The weights of `model` are ignored.
        initial_model: A trained model on the server, or its name: start at epoch 1 from its weights. The weights of
            `model` are ignored.
        progress: Whether to show the epochs. Default: only in a terminal or a notebook.

    Returns:
        The history. `history.job` is the job's name on the server.

    Raises:
        InvalidArgumentError: An argument is invalid.
        TraceError: forward() does something that a stack of Linear and ReLU layers cannot express.
        JobFailedError: The loss became infinite or NaN, or the job failed for another reason.
        JobCancelledError: The job was cancelled.
        UnavailableError: No server answers.
        KeyboardInterrupt: Ctrl-C. A job on a server continues; in this process, the model has the weights of the last
            complete epoch.
    """
    try:
        options = TrainingOptions(
            loss=loss,
            optimizer=optimizer,
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            dtype=dtype,
            device=device,
            evaluate_every=evaluate_every,
            validation_split=validation_split,
        )
        address = resolve_address(at)
        if address is None or address == "local":
            _check_local(name, labels, resume_from, initial_model)
            return _fit_here(model, train, test, options, progress)
        with Client(address, token=token, tls=tls) as client, _display(progress) as display:
            job = client.jobs._submit(
                model,
                train,
                test,
                options,
                name=name,
                labels=labels,
                resume_from=resume_from,
                initial_model=initial_model,
                on_upload_progress=display.uploaded,
            )
            return _follow(job, address, display)
    except GradwireError as error:
        # The frames below this call say nothing about the user's mistake.
        raise error.with_traceback(None) from None


def _fit_here(
    model: Module, train: Dataset, test: Dataset | None, options: TrainingOptions, progress: bool | None
) -> History:
    from gradwire._in_process import run_locally  # noqa: PLC0415  (imports the plans, which a client does not need)
    from gradwire._job_request import make_job_request  # noqa: PLC0415

    request = make_job_request(model, train, test, options)
    with _display(progress) as display:
        display.begin(None, options.epochs)
        return run_locally(request, display.epoch)


def _follow(job: Job, address: str, display: Display) -> History:
    """Show a job's epochs until it ends, and return its history. The log is read once."""
    display.begin(job.name, job.info.epochs)
    epochs = []
    try:
        for epoch in job.epochs():
            epochs.append(epoch)
            display.epoch(epoch)
        return job._finish(epochs)
    except KeyboardInterrupt:
        print(
            f"\nThe job {job.name} continues at {address}."
            f"\nTo watch it:  gradwire jobs watch {job.name} --at {address}"
            f"\nTo cancel it: gradwire jobs cancel {job.name} --at {address}",
            file=sys.stderr,
        )
        raise


def _display(progress: bool | None) -> Display:
    from gradwire._display import Display  # noqa: PLC0415  (rich is slow to import)

    return Display(progress)


def _check_local(
    name: str | None,
    labels: Mapping[str, str] | None,
    resume_from: str | Job | AsyncJob | JobInfo | None,
    initial_model: str | ModelInfo | None,
) -> None:
    """Refuse what only a server can do, and warn about what has no effect without one."""
    for argument, value in (("resume_from", resume_from), ("initial_model", initial_model)):
        if value is not None:
            raise InvalidArgumentError(f'{argument}: needs a server. Pass at="host:port" too, or set GRADWIRE_ADDRESS.')
    for argument, given in (("name", name), ("labels", labels)):
        if given:
            warnings.warn(f"fit() trains in this process, so {argument}= has no effect", stacklevel=3)
