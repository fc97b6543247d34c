"""Refuses requests with unknown fields, because a newer client that sets such a field expects an effect."""

from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from grpc.aio import ServicerContext

from gradwire_server.api.interceptor import Interceptor, StreamBehavior, UnaryBehavior
from gradwire_server.errors import FieldViolation, InvalidFieldsError

# The maximum number of fields in the error.
_MAX_NAMED_FIELDS = 10


def refuse_unknown_fields(request: Message) -> None:
    """Raise InvalidFieldsError, which lists the fields, if the request or a nested message contains unknown fields."""
    found = [
        FieldViolation(
            path or "(request)",
            f"has field number {number}, which this server does not know. Use a client of the same version",
        )
        for path, number in islice(_unknown_fields(request, ""), _MAX_NAMED_FIELDS)
    ]
    if found:
        raise InvalidFieldsError(found)


class UnknownFieldsInterceptor(Interceptor):
    """Checks every request message, including those of client streams."""

    def wrap_unary(self, behavior: UnaryBehavior) -> UnaryBehavior:
        """Return a behavior that first checks the request."""

        async def checked(request: Any, context: ServicerContext[Any, Any]) -> Any:
            return await behavior(_checked(request), context)

        return checked

    def wrap_stream(self, behavior: StreamBehavior) -> StreamBehavior:
        """Return a behavior that first checks the request."""

        async def checked(request: Any, context: ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            async for response in behavior(_checked(request), context):
                yield response

        return checked


def _checked(request: Any) -> Any:
    """Check the request and return it. For a request stream, return a stream that checks each request."""
    if isinstance(request, Message):
        refuse_unknown_fields(request)
        return request
    return _checked_requests(request)


async def _checked_requests(requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
    async for request in requests:
        refuse_unknown_fields(request)
        yield request


def _unknown_fields(parent: Message, path: str) -> Iterator[tuple[str, int]]:
    unknown: Any = UnknownFieldSet(parent)  # The type stubs lack the iterator.
    for field in unknown:
        yield path, field.field_number
    for descriptor, value in parent.ListFields():
        if descriptor.message_type is None or descriptor.message_type.GetOptions().map_entry:
            continue
        name = f"{path}.{descriptor.name}" if path else descriptor.name
        if descriptor.is_repeated:
            for position, each in enumerate(value):
                yield from _unknown_fields(each, f"{name}[{position}]")
        else:
            yield from _unknown_fields(value, name)
