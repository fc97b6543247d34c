"""Decides whether to retry a failed call, and how long to wait before the retry."""

from gradwire._exceptions import GradwireError, ResourceExhaustedError, UnavailableError

_FIRST_WAIT_SECONDS = 0.1
_WAIT_FACTOR = 2.5
_MAX_WAIT_SECONDS = 8.0
# If a server requests a longer delay, the call fails, and the caller can decide what to do.
_MAX_RETRY_AFTER_SECONDS = 60.0


def retry_delay(error: GradwireError, attempt: int) -> float | None:
    """Return the seconds to wait before retrying a call, or None if a retry would not help.

    Args:
        error: The error of the call.
        attempt: The number of retries so far: 0 after the first failure.

    Returns:
        The delay in RetryInfo, if there is one. Otherwise, for UNAVAILABLE, a delay that increases with each attempt.
    """
    if not isinstance(error, UnavailableError | ResourceExhaustedError):
        return None
    if error.retry_after is not None:
        return error.retry_after if error.retry_after <= _MAX_RETRY_AFTER_SECONDS else None
    if isinstance(error, ResourceExhaustedError):
        return None
    return float(min(_FIRST_WAIT_SECONDS * _WAIT_FACTOR**attempt, _MAX_WAIT_SECONDS))
