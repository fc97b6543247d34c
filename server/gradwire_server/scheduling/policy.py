"""The scheduling policy, a pure function that decides which queued jobs start next."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

JobT = TypeVar("JobT")
DeviceT = TypeVar("DeviceT")


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
