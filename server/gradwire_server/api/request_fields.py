"""Checks the fields of a request before it is parsed: there are not too many, and this server knows all of them.

A newer client that sets a field expects an effect, so the server rejects a field that it does not know.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gradwire_server.errors import FieldViolation, InvalidFieldsError, invalid_field
from gradwire_server.limits import MAX_NAMED_FIELDS, MAX_REQUEST_FIELDS

# Wire types: https://protobuf.dev/programming-guides/encoding/#structure
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIRE_TYPES = {
    FieldDescriptor.TYPE_DOUBLE: _FIXED64,
    FieldDescriptor.TYPE_FIXED64: _FIXED64,
    FieldDescriptor.TYPE_SFIXED64: _FIXED64,
    FieldDescriptor.TYPE_FLOAT: _FIXED32,
    FieldDescriptor.TYPE_FIXED32: _FIXED32,
    FieldDescriptor.TYPE_SFIXED32: _FIXED32,
    FieldDescriptor.TYPE_BYTES: _BYTES,
    FieldDescriptor.TYPE_STRING: _BYTES,
    FieldDescriptor.TYPE_MESSAGE: _BYTES,
}
# All bytes of a varint except the last: each number in a packed field has exactly one byte that is not among these.
_CONTINUED = bytes(range(0x80, 0x100))
_MAX_VARINT_BYTES = 10
# The name of the whole request in an error.
REQUEST = "(request)"


def malformed_request() -> InvalidFieldsError:
    """Return the error for bytes that are not a request message."""
    return invalid_field(REQUEST, "is not a valid message. Use the .proto files of this server")


def check_fields(data: bytes, descriptor: Descriptor) -> None:
    """Check the encoded request, in time proportional to the number of its fields.

    Args:
        data: The encoded message.
        descriptor: Its type.

    Raises:
        InvalidFieldsError: The bytes are not a message, have too many fields, or have unknown fields, which the error
            names.
    """
    scan = _Scan(data)
    try:
        scan.message(0, len(data), descriptor, "")
    except IndexError:
        raise malformed_request() from None
    scan.refuse_unknown()


@dataclass(frozen=True)
class _Field:
    """A field: its name, its wire type, its message type if it has one, and whether it is repeated or packed."""

    name: str
    wire_type: int
    message: Descriptor | None
    repeated: bool
    packed: bool


@cache
def _fields(descriptor: Descriptor) -> Mapping[int, _Field]:
    return {
        field.number: _Field(
            name=field.name,
            wire_type=(wire_type := _WIRE_TYPES.get(field.type, _VARINT)),
            message=field.message_type,
            repeated=field.is_repeated,
            packed=field.is_repeated and wire_type != _BYTES,
        )
        for field in descriptor.fields
    }


class _Scan:
    """One pass over an encoded message. An IndexError means that the bytes are malformed."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = MAX_REQUEST_FIELDS
        self._unknown: list[FieldViolation] = []

    def message(self, start: int, end: int, descriptor: Descriptor, path: str) -> None:
        """Scan the fields of a message between two positions."""
        fields = _fields(descriptor)
        seen: dict[int, int] = {}
        while start < end:
            self._count(1)
            tag, start = self._varint(start, end)
            number, wire_type = tag >> 3, tag & 7
            field = fields.get(number)
            packed = field is not None and field.packed and wire_type == _BYTES
            if field is None or (wire_type != field.wire_type and not packed):
                self._add_unknown(path, number)
            start, stop = self._value(wire_type, start, end)
            if packed:
                if stop - start > _MAX_VARINT_BYTES * self._left:
                    self._count(self._left + 1)
                self._count(len(self._data[start:stop].translate(None, _CONTINUED)))
            elif field is not None and field.message is not None and wire_type == _BYTES:
                name = f"{path}.{field.name}" if path else field.name
                if field.repeated:
                    position = seen[number] = seen.get(number, -1) + 1
                    name = f"{name}[{position}]"
                if stop > start:
                    self.message(start, stop, field.message, name)
            start = stop

    def refuse_unknown(self) -> None:
        """Raise InvalidFieldsError if there are unknown fields."""
        if self._unknown:
            raise InvalidFieldsError(self._unknown)

    def _add_unknown(self, path: str, number: int) -> None:
        text = f"has field number {number}, which this server does not know. Use a client of the same version"
        self._unknown.append(FieldViolation(path or REQUEST, text))
        if len(self._unknown) == MAX_NAMED_FIELDS:
            self.refuse_unknown()

    def _count(self, fields: int) -> None:
        self._left -= fields
        if self._left < 0:
            raise invalid_field(REQUEST, f"must have at most {MAX_REQUEST_FIELDS} fields and numbers")

    def _value(self, wire_type: int, start: int, end: int) -> tuple[int, int]:
        """Return the start and end of a field's value."""
        if wire_type == _VARINT:
            _, stop = self._varint(start, end)
        elif wire_type == _BYTES:
            length, start = self._varint(start, end)
            stop = start + length
        else:
            # A group, or a wire type that does not exist: no field of this protocol has such a type.
            stop = start + {_FIXED64: 8, _FIXED32: 4}.get(wire_type, end + 1)
        if stop > end:
            self.refuse_unknown()
            raise IndexError
        return start, stop

    def _varint(self, start: int, end: int) -> tuple[int, int]:
        """Return the number at a position, and the position after it."""
        byte = self._data[start]
        if byte < 0x80 and start < end:
            return byte, start + 1
        value = shift = 0
        for position in range(start, min(end, start + _MAX_VARINT_BYTES)):
            byte = self._data[position]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position + 1
            shift += 7
        raise IndexError
