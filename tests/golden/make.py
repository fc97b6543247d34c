"""Writes golden messages for a version of the protocol. They show what clients of that version send and receive.

Run this script once when a version adds to the protocol, and commit the new file. It never changes existing files.

    python tests/golden/make.py v2
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import Message

from gradwire_proto.v1 import (
    errors_pb2,
    metrics_pb2,
    model_service_pb2,
    spec_pb2,
    tensor_pb2,
    tensor_service_pb2,
    training_service_pb2,
)

FOLDER = Path(__file__).parent
FILES: list[FileDescriptor] = [
    module.DESCRIPTOR
    for module in (
        errors_pb2,
        metrics_pb2,
        model_service_pb2,
        spec_pb2,
        tensor_pb2,
        tensor_service_pb2,
        training_service_pb2,
    )
]

# Realistic messages that a client and a server could exchange.
EXAMPLES: dict[str, dict[str, Any]] = {
    "CreateJobRequest": {
        "jobId": "golden",
        "requestId": "golden-1",
        "job": {
            "spec": {
                "model": {
                    "layers": [
                        {"name": "fc1", "linear": {"inFeatures": "3", "outFeatures": "8"}},
                        {"name": "relu1", "relu": {}},
                        {"name": "fc2", "linear": {"outFeatures": "2", "initialization": "INITIALIZATION_SIMPLE"}},
                    ],
                    "classNames": ["no", "yes"],
                },
                "loss": {"crossEntropy": {}},
                "optimizer": {"sgd": {"learningRate": 0.25}},
                "train": {
                    "inputs": {"dtype": "DATA_TYPE_FLOAT32", "shape": ["4", "3"], "sha256": "a" * 64},
                    "targets": {"dtype": "DATA_TYPE_INT64", "shape": ["4"], "sha256": "b" * 64},
                },
                "epochs": 7,
                "batchSize": 2,
                "shuffle": True,
                "seed": "18446744073709551615",
                "dtype": "DATA_TYPE_FLOAT32",
                "device": "DEVICE_CPU",
                "evaluateEvery": 2,
                "earlyStopping": {"monitor": "train.accuracy", "patience": 3, "minDelta": 0.125, "restoreBest": True},
                "maxSeconds": 600.0,
                "keep": {"every": 2},
            },
            "labels": {"team": "vision"},
            "continueJob": "jobs/earlier",
            "startEpoch": 3,
        },
    },
    "WatchJobResponse": {
        "events": [
            {"sequence": "1", "time": "2026-11-24T08:00:00Z", "stateChange": {"state": "JOB_STATE_QUEUED"}},
            {
                "sequence": "9007199254740993",
                "time": "2026-11-24T08:00:01Z",
                "attempt": 1,
                "epoch": {
                    "epoch": 1,
                    "runningLoss": "NaN",
                    "train": {"loss": 0.5, "accuracy": 0.75},
                    "trainSeconds": 0.125,
                },
            },
        ]
    },
}


def descriptors() -> Iterator[Descriptor]:
    """Yield every message of the protocol."""
    for file in FILES:
        yield from file.message_types_by_name.values()


def message_class(name: str) -> type[Message]:
    """Return the class of a protocol message, given its name, for example "Job"."""
    (found,) = (descriptor for descriptor in descriptors() if descriptor.name == name)
    return message_factory.GetMessageClass(found)


def enums() -> dict[str, dict[str, int]]:
    """Return the names and numbers of every enum."""
    return {
        enum.name: {value.name: value.number for value in enum.values}
        for file in FILES
        for enum in file.enum_types_by_name.values()
    }


def methods() -> dict[str, dict[str, Any]]:
    """Return the input and output types of every method, keyed by method path."""
    return {
        f"/{service.full_name}/{method.name}": {
            "input": method.input_type.full_name,
            "inputStream": method.client_streaming,
            "output": method.output_type.full_name,
            "outputStream": method.server_streaming,
        }
        for file in FILES
        for service in file.services_by_name.values()
        for method in service.methods
    }


def filled_messages(descriptor: Descriptor) -> Iterator[Message]:
    """Yield messages that together set every field. There is one message for each alternative of a oneof."""
    oneofs = [oneof for oneof in descriptor.oneofs if len(oneof.fields) > 1]
    for variant in range(max([len(oneof.fields) for oneof in oneofs], default=1)):
        message = message_factory.GetMessageClass(descriptor)()
        for field in descriptor.fields:
            oneof = field.containing_oneof
            if oneof not in oneofs or oneof.fields.index(field) == variant:
                _fill(message, field)
        yield message


def _fill(message: Message, field: FieldDescriptor) -> None:
    """Set a field to a value that differs from the values of the other fields."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        getattr(message, field.name)[field.name] = "value"
    elif field.message_type is not None and field.is_repeated:
        _fill_inner(getattr(message, field.name).add())
    elif field.message_type is not None:
        _fill_inner(getattr(message, field.name))
    elif field.is_repeated:
        getattr(message, field.name).append(_value(field))
    else:
        setattr(message, field.name, _value(field))


def _fill_inner(message: Message) -> None:
    """Set the fields of a nested message. Messages from other packages, such as timestamps, stay empty."""
    message.SetInParent()
    if message.DESCRIPTOR.file in FILES:
        for field in message.DESCRIPTOR.fields:
            _fill(message, field)


def _value(field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    return {
        FieldDescriptor.TYPE_BOOL: True,
        FieldDescriptor.TYPE_BYTES: field.name.encode(),
        FieldDescriptor.TYPE_DOUBLE: field.number + 0.5,
        FieldDescriptor.TYPE_INT32: 2**30 + field.number,
        FieldDescriptor.TYPE_INT64: 2**62 + field.number,
        FieldDescriptor.TYPE_STRING: field.name,
        FieldDescriptor.TYPE_UINT64: 2**63 + field.number,
    }[field.type]


def golden_files() -> list[dict[str, Any]]:
    """Return the contents of the golden files, oldest first."""
    return [json.loads(path.read_text()) for path in sorted(FOLDER.glob("protocol.*.json"))]


def fields_in(entries: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Return the pairs of message type and JSON field name that occur in golden messages."""
    return {(entry["type"], field) for entry in entries for field in entry["json"]}


def new_entries() -> list[dict[str, Any]]:
    """Return golden messages for the parts of the protocol that the existing files do not cover."""
    golden = golden_files()
    known = set().union(*(fields_in(file["messages"]) for file in golden))
    types = {entry["type"] for file in golden for entry in file["messages"]}
    entries = []
    for descriptor in descriptors():
        for message in filled_messages(descriptor):
            entry = {
                "type": descriptor.name,
                "json": json_format.MessageToDict(message),
                "bytes": message.SerializeToString(deterministic=True).hex(),
            }
            if descriptor.name not in types or not fields_in([entry]) <= known:
                entries.append(entry)
    return entries


def main() -> None:
    version = sys.argv[1]
    protocol = {"messages": new_entries(), "enums": enums(), "methods": methods()}
    with FOLDER.joinpath(f"protocol.{version}.json").open("x") as file:
        json.dump(protocol, file, indent=1)
        file.write("\n")
    for name, content in EXAMPLES.items():
        message = json_format.ParseDict(content, message_class(name)())
        with FOLDER.joinpath(f"{name}.{version}.binpb").open("xb") as file:
            file.write(message.SerializeToString(deterministic=True))
        FOLDER.joinpath(f"{name}.{version}.json").write_text(json_format.MessageToJson(message) + "\n")


if __name__ == "__main__":
    main()
