"""The tools of `gradwire mcp`. Each result is one line of JSON of bounded size."""

import asyncio
import json
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from mcp.server.fastmcp import FastMCP
from mcp.types import ToolAnnotations
from pydantic import Field

from gradwire._arrays import to_array
from gradwire._client import AsyncClient
from gradwire._exceptions import DeadlineExceededError, GradwireError, InvalidArgumentError
from gradwire._history import History
from gradwire._info import ENDED, JobInfo
from gradwire._types import Device
from gradwire.cli.data_files import read_inputs, scaled
from gradwire.cli.output import in_terms_of_the_command
from gradwire.cli.training import early_stopping, training_arguments
from gradwire_engine.training import Epoch

_INSTRUCTIONS = (
    "Trains small neural networks (Linear and ReLU layers) on a gradwire server. Start a job with train, wait for it "
    "with watch, then look at get_job or compare. The model of a job has the job's name: pass it to predict. "
    "Data files are paths on the machine of this tool, relative to its folder."
)
# The bounds of a result: most clients pass all of it to a language model.
_MAX_ROWS = 100
_MAX_NUMBERS = 1000
_MAX_EPOCHS = 20
_SUMMARY_EPOCHS = 10
_MAX_MESSAGE = 1000  # The columns of a .csv file can be many.
# Clients give up on a call after a minute.
_MAX_WAIT_SECONDS = 50

_READ = ToolAnnotations(readOnlyHint=True)
_ADD = ToolAnnotations(destructiveHint=False)
# The options of the command itself. All other options in a message are arguments of a tool.
_TOOL_OPTION = re.compile(r"--(?!at\b|tls\b|token\b)([a-z]+(?:-[a-z]+)*)")

Name = Annotated[str, Field(description="The name of the job or model.")]
Filter = Annotated[str | None, Field(description="Conditions, for example 'state = RUNNING' or 'name : \"digits\"'.")]
Limit = Annotated[int, Field(ge=1, le=50, description="The maximum number of results, newest first.")]
Scale = Annotated[float, Field(description="Multiply the inputs by this, for example 0.00392157 for bytes.")]

Tool = Callable[..., Awaitable[object]]


def mcp_server(client: AsyncClient) -> FastMCP:
    """Return an MCP server whose tools call a gradwire server."""
    server = FastMCP("gradwire", instructions=_INSTRUCTIONS, log_level="WARNING")
    tools = _Tools(client)
    for tool in (tools.list_jobs, tools.get_job, tools.watch, tools.compare, tools.list_models, tools.predict):
        server.add_tool(_as_text(tool), annotations=_READ, structured_output=False)
    server.add_tool(_as_text(tools.train), annotations=_ADD, structured_output=False)
    server.add_tool(_as_text(tools.stop), structured_output=False)
    return server


def _as_text(tool: Tool) -> Callable[..., Awaitable[str]]:
    """Return a tool with its result as JSON and its errors in terms of its arguments."""

    @wraps(tool)
    async def call(*args: Any, **kwargs: Any) -> str:
        try:
            return json.dumps(await tool(*args, **kwargs), ensure_ascii=False)
        except GradwireError as error:
            text = _TOOL_OPTION.sub(lambda found: found[1].replace("-", "_"), in_terms_of_the_command(str(error)))
            raise ValueError(text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]} ...") from error

    call.__annotations__ = {**tool.__annotations__, "return": str}
    return call


class _Tools:
    """The tools. Their docstrings are what an agent reads."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def list_jobs(self, filter: Filter = None, limit: Limit = 20) -> object:  # noqa: A002
        """List jobs, newest first."""
        return [_summary(job.info) for job in await self._client.jobs.list(filter, limit)]

    async def get_job(self, name: Name) -> object:
        """Show a job: its state, its best and last epoch, some epochs from first to last, and hints.

        For a job of more than 500 epochs, best_of_sample is the best epoch of an evenly spaced sample.
        """
        job = await self._client.jobs.get(name)
        history = await job.history()
        epochs = history.epochs
        shown = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), _SUMMARY_EPOCHS)).round().astype(int))
        plan = job.info.plan
        more = {
            "plan": f"{plan.name} on {plan.host}" if plan else None,
            "training_seconds": _rounded(job.info.training_seconds),
            "epochs_from_first_to_last": [_epoch(epochs[index]) for index in shown],
            "hints": history.hints() if epochs else None,
        }
        return _summary(job.info) | _ends(job.info, history) | _given(more)

    async def train(
        self,
        data: Annotated[
            str,
            Field(
                description="A .npz or .safetensors file with x_train and y_train (and x_test, y_test), or a .csv file."
            ),
        ],
        layers: Annotated[str, Field(description="Layer widths, input first, for example 784,128,10.")],
        target: Annotated[str | None, Field(description="The target column of a .csv file.")] = None,
        loss: Annotated[str, Field(description="cross-entropy or mse.")] = "cross-entropy",
        lr: Annotated[float, Field(description="The learning rate.")] = 0.1,
        epochs: int = 10,
        batch_size: int = 64,
        shuffle: Annotated[bool, Field(description="Shuffle the rows before every epoch.")] = True,
        validation_split: Annotated[float | None, Field(description="The fraction of rows for the test set.")] = None,
        classes: Annotated[list[str] | None, Field(description="Class names. Default: those in the targets.")] = None,
        scale: Scale = 1.0,
        device: Device = "auto",
        patience: Annotated[int | None, Field(description="Stop after this many epochs without improvement.")] = None,
        monitor: Annotated[str | None, Field(description="The metric for patience. Default: test.loss.")] = None,
        min_delta: Annotated[float | None, Field(description="With patience: ignore smaller improvements.")] = None,
        restore_best: Annotated[bool, Field(description="With patience: keep the best epoch, not the last.")] = True,
        max_seconds: Annotated[float | None, Field(description="Stop after this many seconds of training.")] = None,
        keep: Annotated[str, Field(description="Epochs whose weights are kept: last, best or every:N.")] = "last",
        seed: Annotated[int, Field(ge=0)] = 0,
        name: Annotated[str | None, Field(description="A name for the job and its model: a-z, 0-9 and -.")] = None,
        labels: Annotated[dict[str, str] | None, Field(description="Labels of the job.")] = None,
    ) -> object:
        """Start a job that trains on a data file, and return at once. To wait for epochs, use watch."""
        stopping = early_stopping(patience, monitor, min_delta, restore_best)
        arguments = await asyncio.to_thread(
            training_arguments, Path(data), layers, loss, lr, seed, target=target, scale=scale
        )
        job = await self._client.jobs.submit(
            **arguments,
            validation_split=validation_split,
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            classes=classes,
            device=device,
            early_stopping=stopping,
            max_seconds=max_seconds,
            keep=keep,
            name=name,
            labels=labels,
        )
        return _summary(job.info)

    async def watch(
        self,
        name: Name,
        seconds: Annotated[float, Field(ge=0, le=_MAX_WAIT_SECONDS, description="The longest time to wait.")] = 20,
        after: Annotated[int, Field(ge=0, description="The number of the last epoch that you have seen.")] = 0,
    ) -> object:
        """Wait until a job ends, at most for some seconds, and return its state and its latest epochs."""
        job = await self._client.jobs.get(name)
        if job.status not in (*ENDED, "PAUSED"):
            with suppress(DeadlineExceededError):
                await job.wait(seconds)
            await job.refresh()
        done = job.info.last_epoch.epoch if job.info.last_epoch else 0
        latest: list[Epoch] = []
        if done > after:
            first = max(after, done - _MAX_EPOCHS) + 1
            latest = (await job.history(first_epoch=first, last_epoch=done)).epochs
        return _summary(job.info) | {"latest_epochs": [_epoch(epoch) for epoch in latest]}

    async def stop(self, name: Name) -> object:
        """End a job after the epoch that it is training, and keep its model."""
        job = await self._client.jobs.get(name)
        return _summary(await job.stop())

    async def compare(self, names: Annotated[list[str], Field(min_length=1, max_length=20)]) -> object:
        """Compare jobs: the best and the last epoch of each. For best_of_sample, see get_job."""
        jobs = [await self._client.jobs.get(name) for name in names]
        histories = [await job.history() for job in jobs]
        return [_summary(job.info) | _ends(job.info, each) for job, each in zip(jobs, histories, strict=True)]

    async def list_models(self, filter: Filter = None, limit: Limit = 20) -> object:  # noqa: A002
        """List trained models, newest first."""
        return [
            {"name": each.name, "layers": each.architecture, "parameters": each.parameters, **_epoch(each.epoch)}
            for each in await self._client.models.list(filter, limit)
        ]

    async def predict(
        self,
        name: Name,
        rows: Annotated[list[list[float]] | None, Field(max_length=_MAX_ROWS, description="The inputs.")] = None,
        data: Annotated[
            str | None, Field(description="Instead of rows: a .npy or .csv file, or a .npz file with x or x_test.")
        ] = None,
        drop: Annotated[list[str] | None, Field(description="Columns of a .csv file to leave out.")] = None,
        classes: Annotated[bool, Field(description="Return the class of each row, not the outputs.")] = False,
        probabilities: Annotated[bool, Field(description="Return the probability of each class.")] = False,
        scale: Scale = 1.0,
    ) -> object:
        """Run a trained model on rows of numbers, or on the first 100 rows of a file."""
        if rows is not None and data is None:
            inputs = to_array(rows, "rows")
        elif data is not None and rows is None:
            inputs = await asyncio.to_thread(read_inputs, Path(data), drop or [])
        else:
            raise InvalidArgumentError("pass either rows or data")
        first = scaled(inputs[:_MAX_ROWS], scale)
        result = await self._client.models.predict(name, first, classes=classes, probabilities=probabilities)
        what = "classes" if classes else "probabilities" if probabilities else "outputs"
        width = 1 if classes else result.shape[1]
        if width > _MAX_NUMBERS:
            raise InvalidArgumentError(f"a row has {width} outputs, which is too much to return. Use classes=true.")
        shown = result[: _MAX_NUMBERS // width]
        values = shown.tolist() if classes else [[_rounded(value) for value in row] for row in shown]
        return {"rows": len(inputs), "rows_returned": len(shown), what: values}


def _summary(info: JobInfo) -> dict[str, object]:
    fields = {
        "name": info.name,
        "state": info.state,
        "layers": info.architecture,
        "epochs": f"{info.epochs_done}/{info.epochs}",
        "labels": info.labels or None,
        "stop_reason": info.stop_reason,
        "error": info.error,
        "model": info.model,
    }
    return _given(fields)


def _ends(info: JobInfo, history: History) -> dict[str, object]:
    """Return the best and the last epoch. What is best is what the server monitors, or else the test loss."""
    best = info.best_epoch or history.best
    name = "best" if history.complete or info.best_epoch else "best_of_sample"
    return _given({name: best and _epoch(best), "last": info.last_epoch and _epoch(info.last_epoch)})


def _epoch(epoch: Epoch) -> dict[str, object]:
    metrics: dict[str, object] = {"epoch": epoch.epoch, "running_loss": _rounded(epoch.running_loss)}
    for which, values in (("train", epoch.train), ("test", epoch.test)):
        for name in ("loss", "accuracy", "r2"):
            value = getattr(values, name, None)
            if value is not None:
                metrics[f"{which}_{name}"] = _rounded(value)
    return metrics


def _given(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value not in (None, [])}


def _rounded(value: float) -> float | str:
    """Return a number with 6 digits, or as text if JSON has no form for it."""
    return float(f"{value:.6g}") if math.isfinite(value) else str(float(value))
