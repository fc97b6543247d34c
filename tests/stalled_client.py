"""A client that sends requests but does not receive the responses.

It speaks HTTP/2 itself: it grants no flow-control window, so that the responses stay in the server.
"""

import asyncio
import struct
from collections.abc import Mapping
from typing import Self

from google.protobuf.message import Message

# The types of HTTP/2 frames.
DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
END_HEADERS, END_STREAM = 4, 1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers_of(path: str, metadata: Mapping[str, str]) -> bytes:
    pairs = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc",
        **metadata,
    }
    # Literal fields without Huffman coding, whose lengths fit into 7 bits.
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in pairs.items()
    )


class StalledClient:
    """A connection whose calls receive no response."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, metadata: Mapping[str, str]) -> None:
        self._reader, self._writer = reader, writer
        self._metadata = metadata
        self._stream = -1

    @classmethod
    async def connect(cls, address: str, metadata: Mapping[str, str] | None = None) -> Self:
        """Connect to "host:port". All calls send the metadata, whose names and values have at most 127 characters."""
        host, port = address.split(":")
        client = cls(*await asyncio.open_connection(host, int(port)), metadata or {})
        no_window = struct.pack(">HI", 4, 0)
        client._writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, no_window))
        client._writer.write(frame(SETTINGS, 1, 0))
        return client

    def call(self, path: str, request: Message | None = None) -> int:
        """Start a call, and return the number of its stream. If `request` is missing, the request never arrives."""
        self._stream += 2
        self._writer.write(frame(HEADERS, END_HEADERS, self._stream, headers_of(path, self._metadata)))
        if request is not None:
            data = request.SerializeToString()
            message = b"\0" + struct.pack(">I", len(data)) + data
            self._writer.write(frame(DATA, END_STREAM, self._stream, message))
        return self._stream

    async def received(self, kind: int, stream: int) -> None:
        """Wait for a frame."""
        found = None
        while found != (kind, stream):
            head = await self._reader.readexactly(9)
            await self._reader.readexactly(int.from_bytes(head[:3], "big"))
            found = head[3], int.from_bytes(head[5:], "big")

    def close(self) -> None:
        self._writer.close()
