"""Maps request fields to the argument names of the Python call."""

import re
from collections.abc import Mapping, Sequence

from gradwire._exceptions import FieldViolation, InvalidArgumentError

SPEC = "job.spec."

# The arguments whose names differ from the last part of the field's path.
_ARGUMENTS = {
    "job.spec.train.inputs": "train inputs",
    "job.spec.train.targets": "train targets",
    "job.spec.test.inputs": "test inputs",
    "job.spec.test.targets": "test targets",
    "job.spec.model": "model",
    "job.spec.model.layers": "model",
    "job.spec.model.class_names": "classes",
    "job.spec.initial_weights": "weights of the model",
    "job.spec.optimizer.sgd": "optimizer",
    "job.spec.optimizer.sgd.learning_rate": "lr",
    "job.spec.loss.cross_entropy": "loss",
    "job.spec.loss.mean_squared_error": "loss",
    "job.spec.keep.every": "keep",
    "job.continue_job": "resume_from",
    "job_id": "name",
    "inputs": "X",
    "page_size": "limit",
    "after_sequence": "after",
}
_LAYER = re.compile(r"job\.spec\.model\.layers\[(\d+)\](?:\.linear|\.relu)?(?:\.(\w+))?")
_SPEC_PATH = re.compile(r"\bjob\.(?:spec|labels|continue_job|initial_model|start_epoch)\b(?:\.\w+|\[\w+\])*")
_SET_PATH = re.compile(r"(?<![\w.])(train|test)\.(inputs|targets)\b")
# The names that the service uses for jobs, models, fields and values, and what users write instead.
_WIRE_NAMES = [
    (re.compile(r"'(?:jobs|models)/([^'/]+)'"), lambda found: f"'{found[1]}'"),
    (re.compile(r"\bDEVICE_(AUTO|CPU|GPU)\b"), lambda found: f'"{found[1].lower()}"'),
    (re.compile(r"\bDATA_TYPE_(FLOAT32|FLOAT64)\b"), lambda found: found[1].lower()),
    (re.compile(r"\bcontinue_job\b"), lambda _: "resume_from="),
    (re.compile(r"\bafter_sequence\b"), lambda _: "after"),
]


def argument_of(field: str, layer_names: Sequence[str] = ()) -> str:
    """Return the name of the argument that sets a request field.

    Args:
        field: The path in the request, for example "job.spec.optimizer.sgd.learning_rate".
        layer_names: The names of the model's layers, in order, if they are known.

    Returns:
        The name, for example "lr", "train targets" or "in_features of layer 'fc1'". If there is no matching argument,
        this is the path.
    """
    if field in _ARGUMENTS:
        return _ARGUMENTS[field]
    layer = _LAYER.fullmatch(field)
    if layer:
        position = int(layer[1])
        name = f"layer {layer_names[position]!r}" if position < len(layer_names) else f"layer {position}"
        return f"{layer[2]} of {name}" if layer[2] else name
    return field.removeprefix(SPEC).removeprefix("job.")


def in_terms_of_the_call(text: str, layer_names: Sequence[str] = ()) -> str:
    """Replace the protocol's names in a message from the engine or the service with those that users write."""
    text = _SPEC_PATH.sub(lambda match: argument_of(match[0], layer_names), text)
    text = _SET_PATH.sub(r"\1 \2", text)
    for pattern, replacement in _WIRE_NAMES:
        text = pattern.sub(replacement, text)
    return text


def invalid(
    violations: Sequence[FieldViolation], layer_names: Sequence[str] = (), metadata: Mapping[str, str] | None = None
) -> InvalidArgumentError:
    """Return the error for invalid fields, whether the SDK or the service found them."""
    message = "; ".join(
        f"{argument_of(each.field, layer_names)}: {in_terms_of_the_call(each.description, layer_names)}"
        for each in violations
    )
    return InvalidArgumentError(message, violations, reason="INVALID_FIELDS", metadata=metadata)


def invalid_argument(name: str, description: str, prefix: str = SPEC) -> InvalidArgumentError:
    """Return the error for one invalid argument of `fit` or `jobs.submit`."""
    return invalid([FieldViolation(prefix + name, description)])
