"""Random requests: messages with random fields, mutated messages, and random bytes."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from gradwire_proto.v1 import model_service_pb2, tensor_service_pb2, training_service_pb2

_FILES = (training_service_pb2, tensor_service_pb2, model_service_pb2, health_pb2, reflection_pb2)
METHODS: list[MethodDescriptor] = [
    method for file in _FILES for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods
]
_INTEGERS = [0, 1, -1, 2, 3, 7, 64, 1000, 2**31 - 1, -(2**31), 2**32, 2**53 + 1, 2**62, 2**63 - 1, -(2**63)]
_NUMBERS = [0.0, -0.0, 1.0, 0.1, -1.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan")]
_WORDS = [
    "", "a", "jobs/innocent", "jobs/nobody", "models/innocent", "jobs/", "models/../x", "\0", "é" * 40, "a" * 5000,
    "a\0b", "state = RUNNING", 'name : "a" AND labels.team = "x"', "labels : team", "test.loss < 0.1",
    "running_loss >= 1e400", " " * 4000, "create_time desc",
    "AND " * 900, '"' * 99, "MTpmZmZmZmZmZg==", "0" * 64, "f" * 64, "%s%n", "\N{GRINNING FACE}", "../../etc/passwd",
]  # fmt: skip


@dataclass(frozen=True)
class Call:
    """A call with its encoded requests.

    Attributes:
        method: The method.
        requests: The encoded requests, usually one.
        kind: How the requests were generated, for the report.
    """

    method: MethodDescriptor
    requests: list[bytes]
    kind: str

    @property
    def path(self) -> str:
        return f"/{self.method.containing_service.full_name}/{self.method.name}"


class Requests:
    """Random calls.

    Args:
        rng: The random number generator.
        valid: Valid requests to mutate, keyed by the full name of their type.
        words: Additional strings, for example the names and digests of existing objects.
    """

    def __init__(self, rng: random.Random, valid: dict[str, list[Message]], words: list[str]) -> None:
        self._rng = rng
        self._valid = valid
        self._words = [*_WORDS, *words]

    def call(self) -> Call:
        """Return a random call."""
        method = self._rng.choice(METHODS)
        kinds: list[Callable[[Descriptor], bytes]] = [self.random, self.mutated, self.mutated, self.raw, self.large]
        make = self._rng.choices(kinds, [6, 4, 4, 3, 0.3])[0]
        count = self._rng.choice([0, 1, 2, 3, 20]) if method.client_streaming else 1
        requests = [make(method.input_type) for _ in range(count)]
        if method.client_streaming and self._rng.random() < 0.5:
            # Start with a valid request, so that the server checks the chunks.
            requests[:0] = [self._sample(method.input_type).SerializeToString()]
        return Call(method, requests, make.__name__)

    def message(self, kind: Descriptor) -> Message:
        """Return a message with random fields, or a valid message with some of its fields changed."""
        message = self._sample(kind) if self._rng.random() < 0.7 else self._message(kind, depth=0)
        for _ in range(self._rng.randrange(3)):
            self._change(message)
        return message

    def random(self, kind: Descriptor) -> bytes:
        """Return a message with random fields."""
        return self._message(kind, depth=0).SerializeToString()

    def mutated(self, kind: Descriptor) -> bytes:
        """Return a valid message with some fields or bytes changed."""
        message = self._sample(kind)
        for _ in range(self._rng.randrange(3)):
            self._change(message)
        data = bytearray(message.SerializeToString())
        if self._rng.random() < 0.5:
            for _ in range(self._rng.randrange(1, 6)):
                self.damage(data)
        return bytes(data)

    def raw(self, _kind: Descriptor) -> bytes:
        """Return random bytes, usually only a few."""
        return self._rng.randbytes(self._rng.choice([0, 1, 1, 2, 3, 10, 100, 3000]))

    def large(self, kind: Descriptor) -> bytes:
        """Return a large message: repeated fields, unknown fields, a long string, or zeros."""
        size = self._rng.choice([10_000, 60_000, 70_000, 300_000, 1_100_000, 5_000_000])
        pattern = self._rng.choice([b"\x0a\x00", b"\xa0\x06\x01", b"\x00", b"\x10\x01", b"\x0a\x04\x10\x01\x10\x01"])
        if self._rng.random() < 0.3:
            field = self._rng.choice([b"\x0a", b"\x12", b"\x1a", b"\x22"])
            return field + _varint(size) + self._rng.choice([b"a", b"\x01"]) * size
        return self._sample(kind).SerializeToString() + pattern * (size // len(pattern))

    def _sample(self, kind: Descriptor) -> Message:
        message = message_factory.GetMessageClass(kind)()
        known = self._valid.get(kind.full_name)
        if known:
            message.CopyFrom(self._rng.choice(known))
        else:
            message.CopyFrom(self._message(kind, depth=0))
        return message

    def _message(self, kind: Descriptor, depth: int) -> Message:
        message = message_factory.GetMessageClass(kind)()
        for field in kind.fields:
            if self._rng.random() < 0.55 and depth < 8:
                self._set(message, field, depth)
        return message

    def _set(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        rng = self._rng
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for _ in range(rng.choice([1, 2, 70])):
                getattr(message, field.name)[self._text()] = self._text()
        elif field.message_type is not None and field.is_repeated:
            for _ in range(rng.choice([1, 1, 2, 3, 1100 if depth == 0 else 2])):
                getattr(message, field.name).append(self._message(field.message_type, depth + 1))
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(self._message(field.message_type, depth + 1))
        elif field.is_repeated:
            getattr(message, field.name).extend(
                self._value(field) for _ in range(rng.choices([1, 2, 3, 70, 3000], [3, 6, 2, 0.3, 0.01])[0])
            )
        else:
            setattr(message, field.name, self._value(field))

    def _value(self, field: FieldDescriptor) -> object:
        rng = self._rng
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._text()
        if field.type == FieldDescriptor.TYPE_BYTES:
            return rng.randbytes(rng.choice([0, 1, 4, 160, 1000, 100_000]))
        if field.type == FieldDescriptor.TYPE_BOOL:
            return rng.random() < 0.5
        if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
            return rng.choice(_NUMBERS)
        if field.enum_type is not None:
            return rng.choice([*(value.number for value in field.enum_type.values), 99, -1])
        low, high = {
            FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
            FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
            FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
        }.get(field.type, (-(2**31), 2**31 - 1))
        return max(low, min(high, rng.choice(_INTEGERS)))

    def _text(self) -> str:
        return self._rng.choice(self._words)

    def _change(self, message: Message) -> None:
        """Change a random field somewhere in the message."""
        inner = [value for field, value in message.ListFields() if field.message_type and not field.is_repeated]
        if inner and self._rng.random() < 0.7:
            self._change(self._rng.choice(inner))
        elif message.DESCRIPTOR.fields:
            field = self._rng.choice(message.DESCRIPTOR.fields)
            if self._rng.random() < 0.5:
                message.ClearField(field.name)
            self._set(message, field, depth=6)

    def damage(self, data: bytearray) -> None:
        """Change, cut, extend or repeat a random part of the data."""
        rng = self._rng
        position = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[position : position + 1] = rng.randbytes(1)
            case 1:
                del data[position:]
            case 2:
                data[position:position] = rng.randbytes(rng.randrange(1, 4))
            case 3:
                start = rng.randrange(len(data) + 1)
                data[position:position] = data[start : start + rng.randrange(1, 30)] * rng.choice([1, 2, 50])


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
