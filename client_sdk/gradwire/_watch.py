"""Follows a job's log until the job ends, and reconnects if the connection breaks."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from gradwire._exceptions import UnavailableError
from gradwire._retry import retry_delay
from gradwire._transport import Transport
from gradwire_proto.v1.training_service_pb2 import Event, Job, JobState, WatchJobRequest

ENDED = {JobState.JOB_STATE_SUCCEEDED, JobState.JOB_STATE_FAILED, JobState.JOB_STATE_CANCELLED}

# A broken watch tries to reconnect until the server has been unavailable for this long.
_RECONNECT_SECONDS = 60.0
# A connection that lasted this long is assumed to have reached the server.
_CONNECTED_SECONDS = 5.0
# The maximum delay between attempts to reconnect, unless the server requests a longer delay. It is short, so that
# epochs arrive soon after the server is available again.
_MAX_WAIT_SECONDS = 2.0


async def watch(
    transport: Transport, name: str, after: int, on_end: Callable[[Job], None] | None = None
) -> AsyncGenerator[Sequence[Event], None]:
    """Yield the events of a job after a sequence number, in batches as they arrive, until the job ends.

    Args:
        transport: The connection.
        name: "jobs/{job_id}".
        after: The sequence number of the last received event, or 0.
        on_end: A function that is called with the job as it ended, before the last batch, if the server sends it.

    Raises:
        UnavailableError: The server was unavailable for more than a minute.
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
                if on_end is not None and response.HasField("job"):
                    on_end(response.job)
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
    """Return a sequence number after which a job's log contains all epochs after `epoch`, and few earlier epochs.

    Each epoch is one event, so the first n events contain at most n epochs. The result is only an estimate, because
    the log also contains other events. It does not exceed the sequence number of the last known event, because a watch
    cannot start after that.
    """
    return max(0, min(epoch - job.initial_epoch, job.last_sequence))
