"""Reads as many epochs of a job as a plot or a summary shows, instead of all of them."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from gradwire._exceptions import InternalError
from gradwire._status import UNIMPLEMENTED
from gradwire._watch import first_sequence_before, watch
from gradwire_engine.spec.messages import epoch_of
from gradwire_engine.training import Epoch
from gradwire_proto.v1.training_service_pb2 import Job, SampleEpochsRequest

if TYPE_CHECKING:
    from gradwire._transport import Transport

# More than a plot of the usual width shows.
DEFAULT_SAMPLE = 500
# The limits of the server.
MIN_SAMPLE, MAX_SAMPLE = 3, 2000


async def sample_epochs(
    transport: Transport, job: Job, max_epochs: int = DEFAULT_SAMPLE, first: int = 0, last: int = 0
) -> tuple[list[Epoch], bool]:
    """Return evenly spaced stored epochs of a job, with the first and the last one, and whether these are all epochs.

    A server without the method SampleEpochs sends all epochs.

    Args:
        transport: The connection.
        job: The job, as of now.
        max_epochs: The maximum number of epochs.
        first: The first epoch of the range, or 0.
        last: The last epoch of the range, or 0 for the last stored epoch.
    """
    if not job.HasField("last_epoch"):
        return [], True
    request = SampleEpochsRequest(name=job.name, first_epoch=first, last_epoch=last, max_epochs=max_epochs)
    try:
        response = await transport.call(transport.training.SampleEpochs, request)
    except InternalError as error:
        if error.reason != UNIMPLEMENTED:
            raise
        stored = job.last_epoch.epoch
        return await _all_epochs(transport, job, max(first, 1), min(last or stored, stored)), True
    return [epoch_of(epoch) for epoch in response.epochs], response.complete


async def _all_epochs(transport: Transport, job: Job, first: int, last: int) -> list[Epoch]:
    epochs: list[Epoch] = []
    if first > last:  # The watch of a paused job would wait.
        return epochs
    async with aclosing(watch(transport, job.name, first_sequence_before(first - 1, job))) as batches:
        async for batch in batches:
            epochs += [epoch_of(event.epoch) for event in batch if first <= event.epoch.epoch <= last]
            if any(event.epoch.epoch >= last for event in batch):
                break
    return epochs
