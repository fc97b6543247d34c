"""The scheduling policy, a pure function that decides which queued jobs start next."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

JobT = TypeVar("JobT")
DeviceT = TypeVar("DeviceT")


def without_further_suspects(
    queued: Sequence[tuple[JobT, DeviceT]], is_suspect: Callable[[JobT], bool], *, suspect_runs: bool
) -> list[tuple[JobT, DeviceT]]:
    """Return the queued jobs with only the first of the suspects, or with none if a suspect is already running.

    Args:
        queued: Jobs in order of arrival, each with the kind of worker that it needs.
        is_suspect: Whether a job may have crashed the server. Such jobs run one at a time, so that the next crash shows
            which job causes the crashes.
        suspect_runs: Whether a suspect is running.
    """
    left = []
    for job, device in queued:
        if is_suspect(job):
            if suspect_runs:
                continue
            suspect_runs = True
        left.append((job, device))
    return left


def next_jobs(
    queued: Sequence[tuple[JobT, DeviceT]], free_workers: Mapping[DeviceT, int]
) -> list[tuple[JobT, DeviceT]]:
    """Choose the jobs to start, in order of arrival. Each job needs a free worker of the right kind.

    Args:
        queued: The queued jobs in order of arrival, each with the kind of worker that it needs.
        free_workers: The number of free workers of each kind.
    """
    left = dict(free_workers)
    chosen = []
    for job, device in queued:
        if left[device] > 0:
            left[device] -= 1
            chosen.append((job, device))
    return chosen
