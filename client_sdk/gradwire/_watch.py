"""Follows the log of a job to its end, and reconnects where a connection breaks."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from gradwire._exceptions import UnavailableError
from gradwire._retry import retry_delay
from gradwire._transport import Transport
from gradwire_proto.v1.training_service_pb2 import Event, Job, JobState, WatchJobRequest

ENDED = {JobState.JOB_STATE_SUCCEEDED, JobState.JOB_STATE_FAILED, JobState.JOB_STATE_CANCELLED}

# A watch that breaks reconnects until the server has been away for this long.
_RECONNECT_SECONDS = 60.0
# A connection that held for this long had reached the server.
_CONNECTED_SECONDS = 5.0
# Between two attempts to reconnect, unless the server asks for more: soon after its return, the epochs continue.
_MAX_WAIT_SECONDS = 2.0


async def watch(transport: Transport, name: str, after: int) -> AsyncGenerator[Sequence[Event], None]:
    """Yield the events of a job after a sequence number, as many at a time as have arrived together, until it ends.

    Args:
        transport: The connection.
        name: "jobs/{job_id}".
        after: The sequence number of the last event that is already known, or 0.

    Raises:
        UnavailableError: The server was away for more than a minute.
    """
    clock = asyncio.get_running_loop().time
    away_since: float | None = None
    attempt = 0
    while True:
        began = clock()
        try:
            request = WatchJobRequest(name=name, after_sequence=after)
            async for response in transport.receive(transport.training.WatchJob, request):
                away_since, attempt = None, 0
                after = response.events[-1].sequence
                yield response.events
                if response.events[-1].state_change.state in ENDED:
                    return
            return
        except UnavailableError as error:
            now = clock()
            if away_since is None or now - began > _CONNECTED_SECONDS:
                away_since, attempt = now, 0
            if now - away_since > _RECONNECT_SECONDS:
                raise
            delay = retry_delay(error, attempt)
            if delay is None:
                raise
            await transport.sleep(delay if error.retry_after is not None else min(delay, _MAX_WAIT_SECONDS))
            attempt += 1


def first_sequence_before(epoch: int, job: Job) -> int:
    """Return a sequence number after which the log of a job has every epoch after `epoch`, and few others.

    Each epoch is one event, in order, so that the events up to number n have at most n epochs. Only the events that are
    not epochs make this an estimate, and the job's last known event bounds it, because a watch cannot start beyond it.
    """
    return max(0, min(epoch - job.initial_epoch, job.last_sequence))
