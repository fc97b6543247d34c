"""The names of jobs, models and tensors, which consist of a collection, a slash and an ID."""

import re

_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_SHA256 = re.compile("[0-9a-f]{64}")
# The rule for IDs, for use in messages.
ID_RULE = "must have 1 to 63 of a-z, 0-9 and '-', start with a letter and not end with '-'"


def is_valid_id(text: str) -> bool:
    """Return whether a job or a model can have this ID."""
    return _ID.fullmatch(text) is not None


def id_in(collection: str, name: str) -> str | None:
    """Return the ID in a resource name such as "jobs/digits", or None if the name is not in the collection."""
    prefix, slash, resource_id = name.partition("/")
    return resource_id if (prefix, slash) == (collection, "/") and is_valid_id(resource_id) else None


def digest_in(name: str) -> str | None:
    """Return the digest in the resource name of a tensor, "tensors/{sha256}", or None if it has another form."""
    prefix, slash, sha256 = name.partition("/")
    return sha256 if (prefix, slash) == ("tensors", "/") and _SHA256.fullmatch(sha256) else None
