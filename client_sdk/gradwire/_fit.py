"""fit: one call from a model and data to trained weights, here or on a server."""

import sys
from pathlib import Path
from typing import Any

from gradwire._client import Client
from gradwire._display import Display
from gradwire._exceptions import InvalidArgumentError
from gradwire._history import History
from gradwire._in_process import run_locally
from gradwire._job_request import make_submission
from gradwire._transport import resolve_address
from gradwire_engine.losses import Loss
from gradwire_engine.module import Module
from gradwire_engine.optim import SGD


def fit(
    model: Module,
    train: tuple[Any, Any],
    *,
    test: tuple[Any, Any] | None = None,
    loss: Loss,
    optimizer: SGD,
    epochs: int = 10,
    batch_size: int = 64,
    shuffle: bool = True,
    seed: int = 0,
    dtype: Any = None,
    device: str = "auto",
    evaluate_every: int = 1,
    at: str | None = None,
    token: str | None = None,
    tls: bool | str | Path | None = None,
    name: str = "",
    resume_from: Any = None,
    progress: bool | None = None,
) -> History:
    """Train a model and return the history of its epochs. The weights land in the model, in place.

    train and test are pairs (inputs, targets): inputs of shape (rows, features); targets class indices (rows,),
    one-hot rows or regression targets (rows, outputs), or floats (rows,) for a model with one output. They may be
    arrays, lists, pandas or torch CPU tensors. `optimizer` is an SGD of this model.

    The job starts from the weights that the model has; deferred layers are drawn from `seed`, which also orders the
    rows where `shuffle` is on. dtype is "float32" or "float64", by default the model's own. device is "auto", "cpu"
    or "gpu". evaluate_every=n evaluates after every n-th epoch and after the last.

    resume_from: a job on the server, or its name, that has ended: go on after its last epoch, up to `epochs` in total;
    or a ModelInfo, or "models/NAME": begin with that model's weights. What `model` has now is then not looked at.

    at: "host:port" of a server, or "local" for this process. By default GRADWIRE_ADDRESS, and "local" without it. For
    token and tls see Client.
    progress: show the epochs; by default where there is a terminal.

    Raises InvalidArgumentError or TraceError for what cannot be trained, JobFailedError if the loss does not stay
    finite, UnavailableError if there is no server. Ctrl-C leaves a remote job running.
    """
    job_arguments: dict[str, Any] = {
        "test": test,
        "loss": loss,
        "optimizer": optimizer,
        "epochs": epochs,
        "batch_size": batch_size,
        "shuffle": shuffle,
        "seed": seed,
        "dtype": dtype,
        "device": device,
        "evaluate_every": evaluate_every,
    }
    address = resolve_address(at)
    with Display(progress) as display:
        if address in (None, "local"):
            if resume_from is not None:
                raise InvalidArgumentError('resume_from names a job or a model on a server: say at="host:port" too')
            return run_locally(make_submission(model, train, **job_arguments), display.epoch)
        with Client(address, token=token, tls=tls) as client:
            job = client.submit(
                model, train, **job_arguments, name=name, resume_from=resume_from, upload_progress=display.uploaded
            )
            try:
                for epoch in job.epochs():
                    display.epoch(epoch)
                return job.result()
            except KeyboardInterrupt:
                print(
                    f"\nThe job {job.name} goes on at {address}."
                    f"\nTo watch it: gradwire jobs watch {job.name} --at {address}"
                    f"\nTo end it:   gradwire jobs cancel {job.name} --at {address}",
                    file=sys.stderr,
                )
                raise
