"""Converts names and epochs that users write to the form that the service expects."""

from gradwire._exceptions import InvalidArgumentError
from gradwire._numbers import whole_number_problem


def job_resource(name: str) -> str:
    """Return "jobs/{job_id}" for "digits" or "jobs/digits"."""
    return _resource("jobs", name)


def model_resource(name: str) -> str:
    """Return "models/{model_id}" for "digits" or "models/digits"."""
    return _resource("models", name)


def epoch_number(epoch: int | None, argument: str = "epoch") -> int:
    """Return the number of an epoch for a request, or 0 for None."""
    if epoch is None:
        return 0
    if whole_number_problem(epoch, 1) is not None:
        raise InvalidArgumentError(f"{argument}: must be the number of an epoch, at least 1, got {epoch!r}")
    return int(epoch)


def _resource(collection: str, name: str) -> str:
    if not isinstance(name, str):
        raise InvalidArgumentError(f"name: must be a string, got {name!r}")
    if name.removeprefix(f"{collection}/") == "":
        raise InvalidArgumentError(f"name: must be the name of a {collection.removesuffix('s')}, got {name!r}")
    return name if name.startswith(f"{collection}/") else f"{collection}/{name}"
