"""Turns the streams of gRPC calls into HTTP responses: server-sent events, or a file.

Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gradwire_proto.v1.training_service_pb2 import Event
from gradwire_server.http.calls import GrpcClient, Metadata, Method
from gradwire_server.http.errors import CallError, invalid_request
from gradwire_server.http.json_messages import as_json, from_query
from gradwire_server.threads import in_thread

# If a stream fails within this time, the failure is the status of the response.
_FIRST_RESPONSE_SECONDS = 0.5
# An idle stream sends a comment this often, so that both sides notice a lost connection.
_HEARTBEAT_SECONDS = 10.0
_HEARTBEAT = b": still here\n\n"
# Messages above this size are converted in a thread, so that the event loop stays responsive.
MAX_INLINE_BYTES = 32_768


async def stream_response(client: GrpcClient, method: Method, metadata: Metadata, request: Request) -> Response:
    """Make a call that returns a stream, and return the stream as the response.

    If the responses of a method are a header and chunks, the HTTP response is a file. Otherwise, it consists of
    server-sent events.

    Raises:
        CallError: The parameters are invalid, or the call failed at once.
    """
    is_file = "chunk" in method.response.DESCRIPTOR.fields_by_name
    encoded = from_query(_parameters(request, method, is_file), method.request)
    stack = AsyncExitStack()
    try:
        responses = await stack.enter_async_context(client.stream(method, metadata, encoded))
        first = asyncio.ensure_future(_next(responses))
        stack.callback(first.cancel)
        await asyncio.wait((first,), timeout=None if is_file else _FIRST_RESPONSE_SECONDS)
        if is_file:
            return _file(method, stack, await first, responses)
        if first.done() and first.result() is None:
            await stack.aclose()
            return Response(status_code=204)  # The stream has ended. This status tells EventSource not to reconnect.
        return _Stream(stack, _events(method, first, responses), media_type="text/event-stream")
    except BaseException:
        await stack.aclose()
        raise


class _Stream(StreamingResponse):
    """A response that ends the call when it ends, even if the client disconnects before the first byte."""

    def __init__(self, stack: AsyncExitStack, content: AsyncIterator[bytes], **options: Any) -> None:
        super().__init__(content, **options)
        self._stack = stack

    async def __call__(self, *arguments: Any) -> None:
        async with self._stack:
            await super().__call__(*arguments)


def _parameters(request: Request, method: Method, is_file: bool) -> list[tuple[str, str]]:
    parameters = request.query_params.multi_items()
    last_event_id = request.headers.get("last-event-id")
    if is_file or not last_event_id or "after_sequence" not in method.request.DESCRIPTOR.fields_by_name:
        return parameters
    if not last_event_id.isdecimal():
        raise invalid_request("must be a sequence number", field="Last-Event-ID")
    rest = [(name, value) for name, value in parameters if name not in ("after_sequence", "afterSequence")]
    return [*rest, ("after_sequence", last_event_id)]


async def _next(responses: AsyncIterator[bytes]) -> bytes | None:
    return await anext(responses, None)


async def _events(
    method: Method, first: Awaitable[bytes | None], responses: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    following = asyncio.ensure_future(first)
    try:
        yield b"retry: 1000\n\n"
        while True:
            await asyncio.wait((following,), timeout=_HEARTBEAT_SECONDS)
            if not following.done():
                yield _HEARTBEAT
                continue
            response = following.result()
            if response is None:
                yield b"event: end\ndata: {}\n\n"
                return
            inline = len(response) <= MAX_INLINE_BYTES
            yield _event(method, response) if inline else await in_thread(_event, method, response)
            following = asyncio.ensure_future(_next(responses))
    except CallError as error:
        yield b"event: failure\ndata: " + error.to_json() + b"\n\n"
    finally:
        following.cancel()


def _event(method: Method, response: bytes) -> bytes:
    """Return a response as one event or, if it contains numbered events, each of them with its number as the ID."""
    message: Any = method.response.FromString(response)
    events = method.response.DESCRIPTOR.fields_by_name.get("events")
    if events is None or events.message_type is not Event.DESCRIPTOR:
        return b"data: " + as_json(message) + b"\n\n"
    return b"".join(b"id: %d\ndata: %s\n\n" % (each.sequence, as_json(each)) for each in message.events)


def _file(
    method: Method, stack: AsyncExitStack, first: bytes | None, responses: AsyncIterator[bytes]
) -> StreamingResponse:
    header: Any = method.response.FromString(first or b"").header  # type: ignore[attr-defined]

    async def chunks() -> AsyncIterator[bytes]:
        async for response in responses:
            message: Any = method.response.FromString(response)
            yield message.chunk

    name = header.file_name.replace("\\", "_").replace('"', "_")
    headers = {"content-disposition": f'attachment; filename="{name}"', "x-sha256": header.sha256}
    return _Stream(stack, chunks(), headers=headers, media_type="application/octet-stream")
