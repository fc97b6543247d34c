"""`gradwire train`, which trains a stack of Linear and ReLU layers on a data file."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from gradwire._access import resolve_address
from gradwire._exceptions import InvalidArgumentError
from gradwire._fit import fit
from gradwire._history import History
from gradwire._model_files import checked_model_path, save
from gradwire._stopping import EarlyStopping
from gradwire._types import Dataset, Device
from gradwire.cli.data_files import read_data, scaled
from gradwire.cli.output import AsJson, Scale, Tls, Token, print_json
from gradwire_engine import MSE, SGD, CrossEntropy, Linear, ReLU, Sequential
from gradwire_engine.losses import Loss
from gradwire_engine.module import Module
from gradwire_engine.randomness import seed as set_seed

LOSSES: dict[str, type[Loss]] = {"cross-entropy": CrossEntropy, "mse": MSE}


def train(  # noqa: PLR0913, PLR0917  (each is an option of the command)
    data: Annotated[
        Path,
        typer.Option(
            help="A .npz or .safetensors file with x_train and y_train (and x_test and y_test), or a .csv file."
        ),
    ],
    layers: Annotated[
        str, typer.Option(help="The layer widths, for example 784,128,32,10, with a ReLU between layers.")
    ],
    loss: Annotated[str, typer.Option(help="The loss: cross-entropy or mse.")] = "cross-entropy",
    lr: Annotated[float, typer.Option(help="The learning rate.")] = 0.1,
    epochs: Annotated[int, typer.Option(help="The number of passes over the training set.")] = 10,
    batch_size: Annotated[int, typer.Option(help="The number of rows per step.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="The seed for the initial weights and the row order.")] = 0,
    shuffle: Annotated[bool, typer.Option(help="Shuffle the rows before every epoch.")] = True,
    validation_split: Annotated[
        float | None, typer.Option(help="Use this fraction of the rows, taken from the end, as the test set.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The target column of a .csv file.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="The class names, for example cat,dog. Default: the names in the targets.")
    ] = None,
    scale: Scale = 1.0,
    device: Annotated[Device, typer.Option(help="The device to train on.")] = "auto",
    patience: Annotated[
        int | None, typer.Option(help="Stop after this many epochs in a row in which --monitor does not improve.")
    ] = None,
    monitor: Annotated[
        str | None, typer.Option(help="The metric for --patience, for example train.accuracy. Default: test.loss.")
    ] = None,
    min_delta: Annotated[float | None, typer.Option(help="With --patience, ignore smaller improvements.")] = None,
    restore_best: Annotated[
        bool, typer.Option(help="With --patience, use the weights of the best epoch instead of the last one.")
    ] = True,
    max_seconds: Annotated[float | None, typer.Option(help="Stop when training has taken this many seconds.")] = None,
    keep: Annotated[str, typer.Option(help="The epochs to keep on the server: last, best or every:N.")] = "last",
    name: Annotated[str | None, typer.Option(help="The name of the job. By default, the server chooses one.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A label for the job. Can be repeated.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the model to this .safetensors file.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="The server's host:port, or local. Default: GRADWIRE_ADDRESS, or local.")
    ] = None,
    token: Token = None,
    tls: Tls = None,
    as_json: AsJson = False,
) -> None:
    """Train a stack of Linear and ReLU layers on a data file."""
    stopping = early_stopping(patience, monitor, min_delta, restore_best)
    if output is not None:
        checked_model_path(output)
    labels = _labels(label or [])
    is_local = resolve_address(at) in (None, "local")
    if is_local and (name or labels):
        typer.echo("--name and --label have no effect without a server", err=True)
    arguments = training_arguments(data, layers, loss, lr, seed, target=target, scale=scale)
    if is_local and output is None:
        typer.echo("without a server, the model is not kept. To keep it, use -o FILE", err=True)
    fit_and_save = _saved_if_interrupted(arguments["model"], output if is_local else None)(fit)
    history = fit_and_save(
        **arguments,
        validation_split=validation_split,
        classes=classes.split(",") if classes is not None else None,
        epochs=epochs,
        batch_size=batch_size,
        shuffle=shuffle,
        device=device,
        early_stopping=stopping,
        max_seconds=max_seconds,
        keep=keep,
        at=at,
        token=token,
        tls=tls,
        name=None if is_local else name,
        labels=None if is_local else labels,
        progress=not as_json,
    )
    _report(history, save(arguments["model"], output) if output is not None else None, scale, as_json)


@contextmanager
def _saved_if_interrupted(model: Module, output: Path | None) -> Iterator[None]:
    """On Ctrl-C, write the weights after the last complete epoch, if there is one."""
    before = [parameter.data.copy() for parameter in model.parameters()]
    try:
        yield
    except KeyboardInterrupt:
        after = [parameter.data for parameter in model.parameters()]
        if output is not None and not all(map(np.array_equal, before, after)):
            typer.echo(f"wrote {save(model, output)}", err=True)
        raise


def _report(history: History, output: Path | None, scale: float, as_json: bool) -> None:
    if as_json:
        print_json(history)
    elif history.job:
        typer.echo(f"trained model {history.job}. To download it: gradwire models download {history.job}")
        if scale != 1.0:
            typer.echo(f"To predict with it: gradwire models predict {history.job} --data FILE --scale {scale!r}")
    if output is not None:
        typer.echo(f"wrote {output}", err=as_json)


def training_arguments(
    data: Path, layers: str, loss: str, lr: float, seed: int, *, target: str | None, scale: float
) -> dict[str, Any]:
    """Return arguments for `fit` or `jobs.submit`: the model, the data sets, the loss, the optimizer and the seed.

    Args:
        data: --data.
        layers: --layers.
        loss: --loss.
        lr: --lr.
        seed: --seed.
        target: --target.
        scale: --scale.

    Raises:
        InvalidArgumentError: An option is invalid.
        FileError: The file cannot be used.
    """
    if loss not in LOSSES:
        raise InvalidArgumentError(f"--loss must be one of {', '.join(LOSSES)}, got {loss!r}")
    if not 0 < lr < math.inf:
        raise InvalidArgumentError(f"--lr must be finite and greater than 0, got {lr}")
    train_set, test_set = _read_sets(data, target, scale)
    model = _stack(layers, seed)
    return {
        "model": model,
        "train": train_set,
        "test": test_set,
        "loss": LOSSES[loss](),
        "optimizer": SGD(model, lr=lr),
        "seed": seed,
    }


def _read_sets(path: Path, target: str | None, scale: float) -> tuple[Dataset, Dataset | None]:
    """Return the training set of a data file and its test set, if it has one, with the inputs multiplied by --scale."""
    file = read_data(path, target)
    train_set = scaled(file.train[0], scale), file.train[1]
    test_set = None if file.test is None else (scaled(file.test[0], scale), file.test[1])
    return train_set, test_set


def early_stopping(
    patience: int | None, monitor: str | None = None, min_delta: float | None = None, restore_best: bool = True
) -> EarlyStopping | None:
    """Return the value of early_stopping= for these options.

    Raises:
        InvalidArgumentError: An option is invalid, or there is one without --patience.
    """
    if patience is None:
        for option, value in (("--monitor", monitor), ("--min-delta", min_delta)):
            if value is not None:
                raise InvalidArgumentError(f"{option} needs --patience")
        return None
    given = {name: value for name, value in (("monitor", monitor), ("min_delta", min_delta)) if value is not None}
    return EarlyStopping(patience=patience, restore_best=restore_best, **given)  # type: ignore[arg-type]


def _labels(pairs: list[str]) -> dict[str, str]:
    labels = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise InvalidArgumentError(f"--label must be key=value, got {pair!r}")
        labels[key] = value
    return labels


def _stack(layers: str, seed: int) -> Module:
    """Return Linear layers with these widths, and a ReLU between each pair."""
    try:
        widths = [int(width) for width in layers.split(",")]
    except ValueError:
        raise InvalidArgumentError(f"--layers must be whole numbers separated by commas, got {layers!r}") from None
    if len(widths) < 2 or min(widths) < 1:
        raise InvalidArgumentError(f"--layers must be two or more positive widths, input first, got {layers!r}")
    set_seed(seed)
    stack: dict[str, Module] = {}
    for index, (in_features, out_features) in enumerate(pairwise(widths), start=1):
        stack[f"fc{index}"] = Linear(in_features, out_features)
        if index < len(widths) - 1:
            stack[f"relu{index}"] = ReLU()
    return Sequential(**stack)
