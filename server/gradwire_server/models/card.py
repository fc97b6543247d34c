"""Describes a trained model as Markdown: a model card."""

import re
from collections.abc import Sequence
from dataclasses import fields

from gradwire_engine.classification import ClassificationReport, evaluation_text
from gradwire_engine.formatting import metrics_text, number_text, seconds_text, size_text, sparkline
from gradwire_engine.metrics import Metrics
from gradwire_engine.spec.messages import epoch_of
from gradwire_engine.spec.resolve import network
from gradwire_engine.spec.tensors import numpy_dtype
from gradwire_engine.training import Epoch
from gradwire_proto.v1.model_service_pb2 import Model
from gradwire_proto.v1.spec_pb2 import Dataset, JobSpec, Layer
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_proto.v1.training_service_pb2 import Job

_SETS = ("train", "test")
_SPARK_WIDTH = 40
_SHOWN_CLASSES = 100


def card(
    model: Model, job: Job | None, epochs: Sequence[Epoch], version: str, report: ClassificationReport | None = None
) -> str:
    """Return the card of a model.

    Args:
        model: The model.
        job: The job that trained it, or None if it was deleted.
        epochs: Epochs of the job for the curves, in order.
        version: The version of gradwire.
        report: The metrics of each class, or None if there are none.
    """
    name = model.name.removeprefix("models/")
    epoch = epoch_of(model.epoch)
    net = network(model.spec)
    itemsize = numpy_dtype(model.weights.dtype).itemsize
    facts = [
        ("Architecture", model.architecture),
        ("Parameters", f"{net.size:,} ({numpy_dtype(model.weights.dtype)}, {size_text(net.size * itemsize)})"),
        ("Quality", f"{metrics_text(epoch)} after epoch {epoch.epoch}"),
        ("Created", f"{model.create_time.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"),
        ("Job", model.job.removeprefix("jobs/") if job else f"{model.job.removeprefix('jobs/')} (deleted)"),
        ("Labels", ", ".join(f"{key}={value}" for key, value in sorted(model.labels.items()))),
        ("Weights", f"sha256 {model.weights.sha256}"),
    ]
    layers = [(str(index), layer.name, *_layer_text(layer)) for index, layer in enumerate(model.spec.layers, start=1)]
    sections = [
        f"# {_escaped(name)}",
        _table(("Property", "Value"), [fact for fact in facts if fact[1]]),
        "## Layers",
        _table(("#", "Name", "Layer", "Parameters"), layers),
        *_classes(list(model.spec.class_names)),
        "## Data",
        _table(("Set", "Rows", "Inputs", "Targets"), _data(model)),
        *(_training(job) if job else []),
        "## Metrics",
        _metrics(model),
        *(_class_metrics(report) if report else []),
        *_curves(epochs),
        f"Written by gradwire {version}.",
    ]
    return "\n\n".join(sections) + "\n"


def _layer_text(layer: Layer) -> tuple[str, str]:
    if layer.HasField("relu"):
        return "ReLU", "0"
    inputs, outputs = layer.linear.in_features, layer.linear.out_features
    return f"Linear({inputs}, {outputs})", f"{(inputs + 1) * outputs:,}"


def _classes(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = [f"and {len(names) - _SHOWN_CLASSES:,} more"] if len(names) > _SHOWN_CLASSES else []
    return ["## Classes", ", ".join([*map(_escaped, names[:_SHOWN_CLASSES]), *more])]


def _data(model: Model) -> list[Sequence[str]]:
    def row(name: str, data: Dataset) -> Sequence[str]:
        return name, f"{data.inputs.shape[0]:,}", _tensor(data.inputs), _tensor(data.targets)

    return [row("train", model.train), *([row("test", model.test)] if model.HasField("test") else [])]


def _tensor(tensor: TensorRef) -> str:
    return f"{' × '.join(map(str, tensor.shape))} {numpy_dtype(tensor.dtype)}, sha256 {tensor.sha256}"


def _training(job: Job) -> list[str]:
    spec = job.spec
    rows = [
        ("Loss", _loss_text(spec)),
        ("Optimizer", f"SGD, learning rate {spec.optimizer.sgd.learning_rate:g}"),
        ("Epochs", str(job.epochs)),
        ("Batch size", f"{spec.batch_size}{', shuffled' if spec.shuffle else ''}"),
        ("Seed", str(spec.seed)),
        ("Plan", f"{job.execution.plan} on {job.execution.host}" if job.HasField("execution") else ""),
        ("Time", seconds_text(job.training_seconds)),
        ("Continues job", job.continue_job.removeprefix("jobs/")),
        ("Starts from model", job.initial_model.removeprefix("models/")),
    ]
    return ["## Training", _table(("Setting", "Value"), [row for row in rows if row[1]])]


def _loss_text(spec: JobSpec) -> str:
    if not spec.loss.HasField("cross_entropy"):
        return "mean squared error"
    return f"cross-entropy of {'probabilities' if spec.loss.cross_entropy.from_probabilities else 'logits'}"


def _metrics(model: Model) -> str:
    epoch = epoch_of(model.epoch)
    rows = []
    for field in fields(Metrics):
        values = [_metric_of(epoch, which, field.name) for which in _SETS]
        if any(value is not None for value in values):
            rows.append((field.name.replace("_", " "), *map(number_text, values)))
    return _table(("Metric", "Train", "Test"), rows)


def _class_metrics(report: ClassificationReport) -> list[str]:
    rows = [each.cells() for each in report[:_SHOWN_CLASSES]]
    more = [f"{len(report) - len(rows):,} other classes are not shown."] if len(report) > len(rows) else []
    headings = ("Class", "Precision", "Recall", "F1", "Rows")
    text = evaluation_text(report.evaluated_on, report.epoch)
    return ["## Metrics of each class", _table(headings, rows), *more, text]


def _curves(epochs: Sequence[Epoch]) -> list[str]:
    lines = []
    for metric in ("loss", "accuracy", "r2"):
        for which in _SETS:
            found = [value for epoch in epochs if (value := _metric_of(epoch, which, metric)) is not None]
            if not found and (which, metric) == ("train", "loss"):
                found = [epoch.running_loss for epoch in epochs]
            if found:
                ends = f"{number_text(found[0])} to {number_text(found[-1])}"
                lines.append(f"{which:<5} {metric:<8} {sparkline(found, _SPARK_WIDTH)} {ends}")
    return ["## Curves", "\n".join(["```", *lines, "```"])] if lines else []


def _metric_of(epoch: Epoch, which: str, name: str) -> float | None:
    """Return a metric on "train" or "test", or None if the epoch does not have it."""
    return getattr(getattr(epoch, which), name, None)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *([_escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is: no markup, no HTML, no links and no line breaks."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~&])", r"\\\1", " ".join(text.split()))
