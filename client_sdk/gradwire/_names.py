"""Converts the names of jobs and models from the form that users write to the form that the service expects."""

from gradwire._exceptions import InvalidArgumentError


def job_resource(name: str) -> str:
    """Return "jobs/{job_id}" for "digits" or "jobs/digits"."""
    return _resource("jobs", name)


def model_resource(name: str) -> str:
    """Return "models/{model_id}" for "digits" or "models/digits"."""
    return _resource("models", name)


def _resource(collection: str, name: str) -> str:
    if not isinstance(name, str):
        raise InvalidArgumentError(f"name: must be a string, got {name!r}")
    if name.removeprefix(f"{collection}/") == "":
        raise InvalidArgumentError(f"name: must be the name of a {collection.removesuffix('s')}, got {name!r}")
    return name if name.startswith(f"{collection}/") else f"{collection}/{name}"
