"""The function fit, which trains a model in this process or on a server."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradwire._access import resolve_address
from gradwire._callbacks import Callbacks, EpochCallback
from gradwire._client import Client
from gradwire._exceptions import GradwireError, InvalidArgumentError
from gradwire._history import History
from gradwire._info import JobInfo, ModelInfo
from gradwire._job import AsyncJob, Job
from gradwire._options import TrainingOptions
from gradwire._stopping import EarlyStopping
from gradwire._types import Dataset, Device, DType
from gradwire_engine.losses import Loss
from gradwire_engine.module import Module
from gradwire_engine.optim import SGD
from gradwire_engine.training import Epoch

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
    classes: Sequence[str] | None = None,
    early_stopping: EarlyStopping | None = None,
    max_seconds: float | None = None,
    keep: str = "last",
    at: str | None = None,
    token: str | None = None,
    tls: bool | str | Path | None = None,
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    resume_from: str | Job | AsyncJob | JobInfo | None = None,
    initial_model: str | ModelInfo | None = None,
    start_epoch: int | None = None,
    on_epoch: EpochCallback | Sequence[EpochCallback] | None = None,
    progress: bool | None = None,
) -> History:
    """Train a model, store the trained weights in it, and return the history of the epochs.

    Args:
        model: A stack of Linear and ReLU layers. Training starts from its weights. The weights of deferred layers are
            drawn with `seed`.
        train: A pair (inputs, targets) of arrays, lists, pandas objects or torch CPU tensors. Inputs have shape
            (rows, features). Targets are class indices (rows,), one-hot rows or regression targets (rows, outputs),
            numbers (rows,) for a model with one output, or class names (rows,) as text.
        loss: MSE() or CrossEntropy().
        optimizer: An SGD optimizer of the model.
        test: A pair like `train`, used for evaluation after epochs but not for training. Keras calls it validation
            data.
        validation_split: Use this fraction of the rows, between 0 and 1, as `test` instead of training on them. As with
            Keras's validation_split, these are the last rows, taken before shuffling.
        epochs: The number of passes over the training set. With resume_from, this includes the epochs of that job.
        batch_size: The number of rows per step. The last batch of an epoch can have fewer rows.
        shuffle: Whether to shuffle the rows before every epoch.
        seed: The seed for the row order and the weights of deferred layers. None draws a random seed, which is recorded
            in the history.
        dtype: "float32" or "float64". Default: the dtype of the model's weights.
        device: "auto", "cpu" or "gpu".
        evaluate_every: Evaluate after every n-th epoch and after the last epoch.
        classes: The names of the classes, in the order of the outputs. They are stored with the model, as
            `model.class_names`. Default: the class names of the model or, for text targets, the names in `train` in
            alphabetical order.
        early_stopping: Ends training when a metric no longer improves, for example
            gw.EarlyStopping(monitor="test.loss", patience=5). By default, the model then gets the weights of the best
            epoch.
        max_seconds: Ends training after the epoch in which the training time reaches this limit, in seconds. The
            training time is the time spent on training and evaluating epochs, including by several workers in turn. It
            does not include the time in the queue or in pauses, or the time to load the data.
        keep: The epochs whose weights the server keeps until the job is deleted: "last", "best" (the last one and the
            best one, according to early_stopping or, without it, the loss), or "every:N" (the last one and the
            multiples of N). The epoch of the trained model is always kept. `job.model(epoch=...)` returns the model
            after a kept epoch.
        at: The "host:port" of a server, or "local" for this process. Default: GRADWIRE_ADDRESS, or "local".
        token: The server's token, as for `Client`.
        tls: Whether and how to use TLS, as for `Client`.
        name: The job's name on the server. By default, the server chooses a name.
        labels: Key-value pairs for finding the job on the server, for example {"team": "vision"}.
        resume_from: A job on the server that has ended, or its name. Training continues after its last epoch, up to
            `epochs` in total. The weights of `model` are ignored.
        initial_model: A trained model on the server, or its name. Training starts at epoch 1 from its weights. The
            weights of `model` are ignored.
        start_epoch: Start from the weights after this epoch of resume_from or initial_model. It must be one of the
            `kept_epochs` of that job.
        on_epoch: A function that `fit` calls with each `Epoch`, or a list of such functions. If a function returns
            False, training stops, and the model is kept. If it raises an exception, `fit` raises it too, but a job on a
            server continues. `gradwire.callbacks` contains functions that write logs.
        progress: Whether to show the epochs. Default: only in a terminal or a notebook.

    Returns:
        The history. `history.job` is the job's name on the server.

    Raises:
        InvalidArgumentError: An argument is invalid.
        TraceError: forward() does something that cannot be expressed as a stack of Linear and ReLU layers.
        JobFailedError: The loss became infinite or NaN, or the job failed for another reason.
        JobCancelledError: The job was cancelled.
        UnavailableError: No server answers.
        KeyboardInterrupt: The user pressed Ctrl-C. A job on a server continues. If the job runs in this process, the
            model contains the weights after the last complete epoch.
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
            classes=classes,
            early_stopping=early_stopping,
            max_seconds=max_seconds,
            keep=keep,
        )
        callbacks = Callbacks.of(on_epoch)
        address = resolve_address(at)
        if address is None or address == "local":
            _check_local(name, labels, resume_from, initial_model, start_epoch, keep)
            with callbacks:
                return _fit_here(model, train, test, options, progress, callbacks)
        with Client(address, token=token, tls=tls) as client, _display(progress) as display, callbacks:
            job = client.jobs._submit(
                model,
                train,
                test,
                options,
                name=name,
                labels=labels,
                resume_from=resume_from,
                initial_model=initial_model,
                start_epoch=start_epoch,
                on_upload_progress=display.uploaded,
            )
            return _follow(job, address, display, callbacks)
    except GradwireError as error:
        # The frames below this call do not help the user find the mistake.
        raise error.with_traceback(None) from None


def _fit_here(
    model: Module,
    train: Dataset,
    test: Dataset | None,
    options: TrainingOptions,
    progress: bool | None,
    callbacks: Callbacks,
) -> History:
    from gradwire._in_process import run_locally  # noqa: PLC0415  (imports the plans, which a client does not need)
    from gradwire._job_request import make_job_request  # noqa: PLC0415

    request = make_job_request(model, train, test, options)
    with _display(progress) as display:
        monitor = request.spec.early_stopping.monitor
        display.begin(None, options.epochs, request.spec.train.inputs.shape[0], monitor)

        def on_epoch(epoch: Epoch) -> bool:
            display.epoch(epoch)
            return callbacks(epoch)

        history = run_locally(request, on_epoch)
        display.end(history.stop_reason)
        return history


def _follow(job: Job, address: str, display: Display, callbacks: Callbacks) -> History:
    """Show a job's epochs until it ends, and return its history. This reads the log only once."""
    epochs = []
    try:
        for _, epoch in display.follow(job):
            epochs.append(epoch)
            if not callbacks(epoch) and job.info.stop_requested is None:
                job.stop()
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
    start_epoch: int | None,
    keep: str,
) -> None:
    """Raise an error for options that need a server, and warn about options that have no effect without a server."""
    sources = (("resume_from", resume_from), ("initial_model", initial_model), ("start_epoch", start_epoch))
    for argument, value in sources:
        if value is not None:
            raise InvalidArgumentError(f'{argument}: needs a server. Pass at="host:port" too, or set GRADWIRE_ADDRESS.')
    for argument, given in (("name", name), ("labels", labels), ("keep", keep != "last")):
        if given:
            warnings.warn(f"fit() trains in this process, so {argument}= has no effect", stacklevel=3)
