"""Reads lists that the service returns in pages."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import grpc

from gradwire._argument_names import invalid_argument
from gradwire._transport import Transport

# The largest page that the service returns.
_PAGE_SIZE = 1000


class _Request(Protocol):
    page_size: int
    page_token: str


class _Response(Protocol):
    next_page_token: str


Request = TypeVar("Request", bound=_Request)
Response = TypeVar("Response", bound=_Response)
Item = TypeVar("Item")


async def collect(
    transport: Transport,
    method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
    request: Request,
    items: Callable[[Response], Iterable[Item]],
    limit: int | None,
) -> list[Item]:
    """Return the items of all pages, or the first `limit` items.

    Args:
        transport: The connection.
        method: The List method to call.
        request: The request. This function sets page_size and page_token.
        items: A function that returns the items in a response.
        limit: The maximum number of items, or None for all items.
    """
    if limit is not None and limit < 1:
        raise invalid_argument("limit", f"must be at least 1, or None for no limit, got {limit}", "")
    found: list[Item] = []
    while limit is None or len(found) < limit:
        request.page_size = _PAGE_SIZE if limit is None else min(_PAGE_SIZE, limit - len(found))
        response = await transport.call(method, request)
        found.extend(items(response))
        request.page_token = response.next_page_token
        if not response.next_page_token:
            break
    return found
