"""job.history, which reads as many epochs as a plot shows."""

import pytest
from grpc import StatusCode
from scripted_server import status

import gradwire as gw
from gradwire_proto.v1.training_service_pb2 import Event, Job, SampleEpochsResponse, WatchJobResponse


def epoch(number):
    return {"epoch": number, "running_loss": 1.0, "train": {"loss": 1 / number}}


@pytest.fixture
def job(scripted):
    """A running job of 100,000 epochs, on a server that samples them."""
    message = Job(name="jobs/x", state=3, epochs=100_000, last_sequence=60_000, last_epoch=epoch(60_000))
    message.spec.seed = 7
    scripted.answer("GetJob", lambda request: message)
    sample = SampleEpochsResponse(epochs=[epoch(number) for number in (1, 30_000, 60_000)])
    scripted.answer("SampleEpochs", lambda request: sample)
    with gw.Client(scripted.address) as client:
        yield client.jobs.get("x")


def test_a_history_of_a_long_job_is_a_sample_of_its_epochs(scripted, job):
    history = job.history(3)
    assert [each.epoch for each in history] == [1, 30_000, 60_000]
    assert (history.complete, history.job, history.seed, history.stop_reason) == (False, "x", 7, None)
    assert repr(history) == "History(3 epochs, a sample up to epoch 60000, train loss 1.667e-05)"
    assert [type(request).__name__ for request in scripted.requests[1:]] == ["GetJobRequest", "SampleEpochsRequest"]
    assert scripted.requests[-1].max_epochs == 3
    assert history.plot().axes[0].lines[0].get_xdata().tolist() == [1, 30_000, 60_000]


def test_a_history_can_be_a_part_of_the_epochs(scripted, job):
    job.history(first_epoch=100, last_epoch=200)
    request = scripted.requests[-1]
    assert (request.max_epochs, request.first_epoch, request.last_epoch) == (500, 100, 200)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_epochs": 2}, "max_epochs: must be at least 3, got 2"),
        ({"max_epochs": 2001}, "max_epochs: must be at most 2000"),
        ({"max_epochs": 9.5}, "max_epochs: must be a whole number"),
        ({"first_epoch": 0}, "first_epoch: must be the number of an epoch"),
        ({"first_epoch": 3, "last_epoch": 2}, "first_epoch: must be at most last_epoch, which is 2, got 3"),
    ],
)
def test_invalid_arguments_are_refused(job, arguments, message):
    with pytest.raises(gw.InvalidArgumentError, match=message):
        job.history(**arguments)


def test_a_job_without_epochs_has_an_empty_history(scripted):
    scripted.answer("GetJob", lambda request: Job(name="jobs/x", state=1, epochs=5))
    with gw.Client(scripted.address) as client:
        history = client.jobs.get("x").history()
    assert (len(history), history.complete) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "numbers", "start"),
    [({}, [1, 2, 3, 4], 0), ({"first_epoch": 3}, [3, 4], 2), ({"last_epoch": 2}, [1, 2], 0)],
)
def test_a_server_without_samples_sends_all_epochs_that_are_stored(scripted, arguments, numbers, start):
    log = [Event(sequence=number, epoch=epoch(number)) for number in range(1, 5)]
    message = Job(name="jobs/x", state=3, epochs=9, last_sequence=4, last_epoch=epoch(4))
    scripted.answer("GetJob", lambda request: message)

    def watch(request):
        yield WatchJobResponse(events=log[request.after_sequence :])
        yield WatchJobResponse(events=[Event(sequence=5, epoch=epoch(5))])  # It is stored during the call.
        yield status(StatusCode.INTERNAL, "the client reads more than it needs")

    scripted.answer("WatchJob", watch)
    with gw.Client(scripted.address) as client:
        history = client.jobs.get("x").history(**arguments)
    assert ([each.epoch for each in history], history.complete) == (numbers, True)
    assert scripted.requests[-1].after_sequence == start


def test_a_server_without_samples_has_no_epochs_after_the_last_one(scripted):
    message = Job(name="jobs/x", state=4, epochs=9, last_sequence=4, last_epoch=epoch(4))
    scripted.answer("GetJob", lambda request: message)
    with gw.Client(scripted.address) as client:
        assert client.jobs.get("x").history(first_epoch=5).epochs == []
    assert not [request for request in scripted.requests if hasattr(request, "after_sequence")]


def test_other_errors_are_raised(scripted, job):
    scripted.answer("SampleEpochs", lambda request: status(StatusCode.INTERNAL, "a defect"))
    with pytest.raises(gw.InternalError, match="a defect"):
        job.history()
