"""The names of jobs, models and tensors, which consist of a collection, a slash and an ID."""

import re

_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_SHA256 = re.compile("[0-9a-f]{64}")
# The rule for IDs, for use in messages.
ID_RULE = "must have 1 to 63 characters of a-z, 0-9 and '-', start with a letter, and not end with '-'"


def is_valid_id(text: str) -> bool:
    """Return whether a job or a model can have this ID."""
    return _ID.fullmatch(text) is not None


def id_in(collection: str, name: str) -> str | None:
    """Return the ID in a resource name such as "jobs/digits", or None if the name is not in the collection."""
    resource_id = _after(collection, name)
    return resource_id if is_valid_id(resource_id) else None


def digest_in(name: str) -> str | None:
    """Return the digest in the resource name of a tensor, "tensors/{sha256}", or None if it has another form."""
    sha256 = _after("tensors", name)
    return sha256 if _SHA256.fullmatch(sha256) else None


def _after(collection: str, name: str) -> str:
    """Return the part of a resource name after its collection, or "" if the name is not in the collection."""
    prefix, _, rest = name.partition("/")
    return rest if prefix == collection else ""
