"""When a call is repeated: how long to wait after an error, if waiting helps."""

from gradwire._exceptions import GradwireError, ResourceExhaustedError, UnavailableError

_FIRST_WAIT_SECONDS = 0.1
_WAIT_FACTOR = 2.5
_MAX_WAIT_SECONDS = 8.0
# A server that asks for a longer wait than this is not waited for: the caller decides.
_MAX_RETRY_AFTER_SECONDS = 60.0


def retry_delay(error: GradwireError, attempt: int) -> float | None:
    """Return the seconds to wait before a call is repeated, or None if repeating it does not help.

    Args:
        error: How the call failed.
        attempt: How often the call was repeated before: 0 after the first failure.

    Returns:
        What the server asks for in RetryInfo; without that, after UNAVAILABLE, a wait that grows with each attempt.
    """
    if not isinstance(error, UnavailableError | ResourceExhaustedError):
        return None
    if error.retry_after is not None:
        return error.retry_after if error.retry_after <= _MAX_RETRY_AFTER_SECONDS else None
    if isinstance(error, ResourceExhaustedError):
        return None
    return float(min(_FIRST_WAIT_SECONDS * _WAIT_FACTOR**attempt, _MAX_WAIT_SECONDS))
