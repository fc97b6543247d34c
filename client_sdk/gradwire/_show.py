"""The function watch, which shows jobs until they end."""

from gradwire._exceptions import InvalidArgumentError
from gradwire._job import Job


def watch(*jobs: Job) -> None:
    """Show one or more jobs on a server until all of them have ended.

    A terminal or a notebook shows a live view: curves, the last epochs, the speed, the time left, and why a job is
    waiting. Elsewhere, each epoch is printed on a line. If you interrupt the function, the jobs continue.

    Args:
        jobs: The jobs.

    Raises:
        InvalidArgumentError: There is no job, or an argument is not a Job.
        NotFoundError: A job was deleted.

    Example:
        gw.watch(*client.jobs.list("state = RUNNING"))
    """
    from gradwire._display import Display  # noqa: PLC0415  (rich is slow to import)

    if not jobs or not all(isinstance(job, Job) for job in jobs):
        raise InvalidArgumentError("watch takes one or more jobs, for example gw.watch(client.jobs.get('digits'))")
    with Display(shown=True) as display:
        for _ in display.follow(*jobs):
            pass
