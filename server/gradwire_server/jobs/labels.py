"""The rules for labels."""

import re
from collections.abc import Mapping

from gradwire_server.errors import FieldViolation, InvalidFieldsError, invalid_field

MAX_LABELS = 64
_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_VALUE = re.compile(r"[a-zA-Z0-9_.-]{0,63}")


def check_labels(labels: Mapping[str, str]) -> None:
    """Raise InvalidFieldsError unless all keys and values of the labels are valid."""
    if len(labels) > MAX_LABELS:
        raise invalid_field("job.labels", f"must have at most {MAX_LABELS} entries, got {len(labels)}")
    violations = []
    for key, value in labels.items():
        if not _KEY.fullmatch(key):
            description = "has the key {!r}. Keys have 1 to 63 characters: a letter, then a-z, 0-9, '-' and '_'"
            violations.append(FieldViolation("job.labels", description.format(key[:80])))
        elif not _VALUE.fullmatch(value):
            description = "has the value {!r}. Values have at most 63 characters of a-z, A-Z, 0-9, '-', '_' and '.'"
            violations.append(FieldViolation(f"job.labels.{key}", description.format(value[:80])))
    if violations:
        raise InvalidFieldsError(violations)
