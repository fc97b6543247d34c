"""Answers gRPC clients that connect to the HTTP port: each call fails with a message that names the right port.

The gateway speaks HTTP/1.1 only. A few HTTP/2 frames (RFC 9113) are enough for this response: the client's headers are
not decoded, and the response is the same for every call.
"""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_MAX_FRAME_BYTES = 16_384
_FRAME_HEADER_BYTES = 9
_HEADERS, _SETTINGS, _PING = 0x1, 0x4, 0x6
_ACK = _END_STREAM = 0x1
_END_HEADERS = 0x4
# The static table of HPACK (RFC 7541) has ":status: 200" at index 8.
_STATUS_200 = b"\x88"
# FAILED_PRECONDITION, so that clients do not retry the call.
_GRPC_STATUS = b"9"


class GrpcRefusal:
    """The server's side of one connection.

    Args:
        message: The error message for the client.
    """

    def __init__(self, message: str) -> None:
        self._answer = _STATUS_200 + b"".join(
            _literal(name, value)
            for name, value in (
                (b"content-type", b"application/grpc"),
                (b"grpc-status", _GRPC_STATUS),
                (b"grpc-message", message.replace("%", "%25").encode()),
            )
        )
        self._received = b""
        self._started = False

    def receive(self, data: bytes) -> bytes | None:
        """Return the bytes to send in response to these bytes from the client, or None to close the connection."""
        self._received += data
        reply = b""
        if not self._started:
            if len(self._received) < len(PREFACE):
                return reply
            if not self._received.startswith(PREFACE):
                return None
            self._received = self._received[len(PREFACE) :]
            self._started = True
            reply = _frame(_SETTINGS, 0, 0, b"")
        while len(self._received) >= _FRAME_HEADER_BYTES:
            length = int.from_bytes(self._received[:3])
            if length > _MAX_FRAME_BYTES:
                return None
            end = _FRAME_HEADER_BYTES + length
            if len(self._received) < end:
                break
            reply += self._reply_to(self._received[:end])
            self._received = self._received[end:]
        return reply

    def _reply_to(self, frame: bytes) -> bytes:
        kind, flags, stream = frame[3], frame[4], int.from_bytes(frame[5:9]) & 0x7FFFFFFF
        if kind == _SETTINGS and not flags & _ACK:
            return _frame(_SETTINGS, _ACK, 0, b"")
        if kind == _PING and not flags & _ACK:
            return _frame(_PING, _ACK, 0, frame[_FRAME_HEADER_BYTES:])
        if kind == _HEADERS:
            return _frame(_HEADERS, _END_STREAM | _END_HEADERS, stream, self._answer)
        return b""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """Encode a header without compression."""
    return b"\x00" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    """Encode a length as an integer with a 7-bit prefix."""
    if len(text) < 127:
        return bytes([len(text)])
    rest, encoded = len(text) - 127, b"\x7f"
    while rest >= 128:
        encoded += bytes([rest % 128 + 128])
        rest //= 128
    return encoded + bytes([rest])
