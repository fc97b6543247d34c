"""gradwire train: a data file and a stack of widths in, epochs and a model file out."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from gradwire._exceptions import InvalidArgumentError
from gradwire._fit import fit
from gradwire._model_files import save
from gradwire.cli.data_files import read_data
from gradwire.cli.output import AsJson, Token, print_json_line
from gradwire_engine import MSE, SGD, CrossEntropy, Linear, ReLU, Sequential
from gradwire_engine.losses import Loss
from gradwire_engine.module import Module
from gradwire_engine.randomness import seed as set_seed

_LOSSES: dict[str, type[Loss]] = {"cross-entropy": CrossEntropy, "mse": MSE}


def train(
    data: Annotated[Path, typer.Option(help=".npz or .safetensors with x_train, y_train (x_test, y_test), or .csv.")],
    layers: Annotated[str, typer.Option(help="Widths, as 784,128,32,10; a ReLU stands between the layers.")],
    loss: Annotated[str, typer.Option(help="cross-entropy or mse.")] = "cross-entropy",
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 0.1,
    epochs: Annotated[int, typer.Option(help="Passes over the training set.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Rows in a step.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the first weights and the order of the rows.")] = 0,
    shuffle: Annotated[bool, typer.Option(help="A new order of the rows for every epoch.")] = True,
    target: Annotated[str | None, typer.Option(help="The column with the targets, for .csv.")] = None,
    scale: Annotated[float, typer.Option(help="Multiply the inputs with this, 0.00392157 for bytes.")] = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    name: Annotated[str, typer.Option(help="The job's name on the server; it chooses one without.")] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the model to this .safetensors file.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="The server, host:port, or local. Default: GRADWIRE_ADDRESS, local.")
    ] = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Train a stack of Linear and ReLU layers on a data file."""
    if loss not in _LOSSES:
        raise InvalidArgumentError(f"--loss must be one of {', '.join(_LOSSES)}, got {loss!r}")
    file = read_data(data, target)
    train_set, test_set = file.train, file.test
    if scale != 1.0:
        train_set = (train_set[0] * scale, train_set[1])
        test_set = test_set and (test_set[0] * scale, test_set[1])
    model = _stack(layers, seed)
    if lr <= 0:
        raise InvalidArgumentError(f"--lr must be above 0, got {lr}")
    history = fit(
        model,
        train_set,
        test=test_set,
        loss=_LOSSES[loss](),
        optimizer=SGD(model, lr=lr),
        epochs=epochs,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        device=device,
        at=at,
        token=token,
        name=name,
        progress=not as_json,
    )
    if as_json:
        for epoch in history.epochs:
            print_json_line(epoch)
    elif history.job:
        typer.echo(f"job and model {history.job}")
    if output is not None:
        typer.echo(f"wrote {save(model, output)}", err=as_json)


def _stack(layers: str, seed: int) -> Module:
    """Return Linear layers between the widths, with a ReLU after each but the last."""
    try:
        widths = [int(width) for width in layers.split(",")]
    except ValueError as error:
        raise InvalidArgumentError(f"--layers must be whole numbers with commas between, got {layers!r}") from error
    if len(widths) < 2 or min(widths) < 1:
        raise InvalidArgumentError(f"--layers must be two or more positive widths, input first, got {layers!r}")
    set_seed(seed)
    stack: dict[str, Module] = {}
    for index, (in_features, out_features) in enumerate(pairwise(widths), start=1):
        stack[f"fc{index}"] = Linear(in_features, out_features)
        if index < len(widths) - 1:
            stack[f"relu{index}"] = ReLU()
    return Sequential(**stack)
