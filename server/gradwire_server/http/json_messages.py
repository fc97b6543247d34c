"""Converts protobuf messages from and to the JSON format of proto3."""

import json
from collections.abc import Iterable
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from gradwire_server.http.errors import invalid_request
from gradwire_server.limits import MAX_REQUEST_FIELDS


def from_json(data: bytes, kind: type[Message]) -> bytes:
    """Return the encoded message for a JSON object.

    Args:
        data: The JSON text.
        kind: The type of the message.

    Raises:
        CallError: The text is not JSON, has too many values, or does not fit the type.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise invalid_request("is not valid JSON") from None
    if not isinstance(content, dict):
        raise invalid_request("must be a JSON object")
    _check_count(content)
    return _encoded(content, kind)


def from_query(parameters: Iterable[tuple[str, str]], kind: type[Message]) -> bytes:
    """Return the encoded message for query parameters, which set fields that are not messages.

    Args:
        parameters: The names of the fields and their values. A repeated field occurs once for each value.
        kind: The type of the message.

    Raises:
        CallError: The parameters do not fit the type.
    """
    fields = {name: field for field in kind.DESCRIPTOR.fields for name in (field.name, field.json_name)}
    content: dict[str, Any] = {}
    for name, text in parameters:
        field = fields.get(name)
        if field is None or field.message_type is not None:
            raise invalid_request("is not a parameter of this call", field=name[:80])
        value: Any = text
        if field.type == FieldDescriptor.TYPE_BOOL and text in ("true", "false"):
            value = text == "true"
        if field.is_repeated:
            content.setdefault(name, []).append(value)
        else:
            content[name] = value
    _check_count(content)
    return _encoded(content, kind)


def to_json(data: bytes, kind: type[Message]) -> bytes:
    """Return an encoded message as JSON."""
    return as_json(kind.FromString(data))


def as_json(message: Message) -> bytes:
    """Return a message as JSON on one line."""
    return json.dumps(json_format.MessageToDict(message), separators=(",", ":")).encode()


def _encoded(content: dict[str, Any], kind: type[Message]) -> bytes:
    try:
        return json_format.ParseDict(content, kind()).SerializeToString()
    except (json_format.Error, ValueError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error)[:300].split())
        raise invalid_request(f"does not fit {kind.DESCRIPTOR.full_name}: {reason}") from None


def _check_count(content: object) -> None:
    """Reject JSON with more values than a message can have, before they are converted."""
    pending, count = [content], 0
    while pending:
        value = pending.pop()
        count += 1
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        if count + len(pending) > MAX_REQUEST_FIELDS:
            raise invalid_request(f"must have at most {MAX_REQUEST_FIELDS} fields and numbers")
