"""Fields of a request that this version does not know: a newer client means something by them, so they are refused."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from gradwire_server.errors import invalid_argument


def refuse_unknown_fields(request: Message) -> None:
    """Raise INVALID_ARGUMENT that names where a request, or a message in it, has fields that are not in its .proto."""
    found = [
        (
            path or "(request)",
            f"has the field number {number}, which this server does not know: it is older than the client",
        )
        for path, number in _unknown(request, "")
    ]
    if found:
        raise invalid_argument(found)


def _unknown(message: Message, path: str) -> Iterator[tuple[str, int]]:
    unknown: Any = UnknownFieldSet(message)  # Its stubs lack the iterator.
    for field in unknown:
        yield path, field.field_number
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        name = f"{path}.{descriptor.name}" if path else descriptor.name
        if descriptor.is_repeated:
            for position, each in enumerate(value):
                yield from _unknown(each, f"{name}[{position}]")
        else:
            yield from _unknown(value, name)
