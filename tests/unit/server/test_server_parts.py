"""The server's parts without gRPC or Ray: policy, lists, settings, database, jobs, blobs, uploads, checkpoints."""

import asyncio
import contextlib
import hashlib
import os
import sqlite3

import pytest
from sqlalchemy import func, insert, select

from gradwire_proto.v1.spec_pb2 import JobSpec
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_proto.v1.training_service_pb2 import (
    Checkpoint,
    Epoch,
    Event,
    JobState,
    ListJobsRequest,
    Metrics,
    StateChange,
)
from gradwire_server.blobs import BlobStore
from gradwire_server.changes import Changes
from gradwire_server.checkpoints import Checkpoints
from gradwire_server.errors import ServiceError
from gradwire_server.jobs import AttemptOverError, Jobs
from gradwire_server.lease import Lease
from gradwire_server.listing import parse_page
from gradwire_server.room import Room, refusing_when_full
from gradwire_server.scheduler import next_jobs
from gradwire_server.settings import Settings, SettingsError, read_token
from gradwire_server.store.database import Database
from gradwire_server.store.news import Change
from gradwire_server.store.tables import summaries
from gradwire_server.uploads import Uploads

# --- policy ----------------------------------------------------------------------------------------------------------


def test_jobs_start_in_order_of_arrival_as_far_as_there_is_room():
    queued = [("a", "cpu"), ("b", "cpu"), ("c", "gpu"), ("d", "cpu"), ("e", "gpu")]
    assert next_jobs(queued, {"cpu": 2, "gpu": 1}) == [("a", "cpu"), ("b", "cpu"), ("c", "gpu")]
    assert next_jobs(queued, {"cpu": 0, "gpu": 2}) == [("c", "gpu"), ("e", "gpu")]
    assert next_jobs([], {"cpu": 9, "gpu": 9}) == []


# --- lists -----------------------------------------------------------------------------------------------------------

STATES = {"RUNNING": 3, "FAILED": 6}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_size": 1001}, "page_size"),
        ({"page_token": "what?"}, "page_token"),
        ({"page_token": "MTI6YWJj"}, "page_token"),
        ({"order_by": "name"}, "order_by"),
        ({"filter": "state"}, "filter"),
        ({"filter": "state = ASLEEP"}, "filter"),
        ({"filter": "state : RUNNING"}, "filter"),
        ({"filter": "color = red"}, "filter"),
        ({"filter": "state = RUNNING OR state = FAILED"}, "filter"),
    ],
)
def test_list_requests_that_make_no_sense_name_the_field(changes, field):
    with pytest.raises(ServiceError) as caught:
        parse_page(ListJobsRequest(**changes), STATES)
    assert caught.value.details[1].field_violations[0].field == field


def test_a_filter_is_understood_and_its_page_token_belongs_to_it():
    request = ListJobsRequest(filter='state != FAILED AND name : "dig its"', order_by="create_time")
    page = parse_page(request, STATES)
    assert [(c.field, c.operator, c.value) for c in page.clauses] == [("state", "!=", 6), ("name", ":", "dig its")]
    request.page_token = page.token_after(12)
    assert parse_page(request, STATES).after == 12
    request.filter = ""
    with pytest.raises(ServiceError):
        parse_page(request, STATES)


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.9"])
def test_loopback_needs_no_token(host):
    Settings(host=host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_elsewhere_a_token_or_insecure_is_needed(host):
    with pytest.raises(SettingsError, match="refusing to listen"):
        Settings(host=host)
    Settings(host=host, token="secret")
    Settings(host=host, insecure=True)


@pytest.mark.parametrize("changes", [{"port": -1}, {"port": 70000}, {"cpus_per_job": 0}, {"token": "tab\there"}])
def test_settings_that_cannot_work_are_refused(changes):
    with pytest.raises(SettingsError):
        Settings(**changes)


def test_a_token_is_made_where_there_is_none_and_then_stays(tmp_path):
    file = tmp_path / "folder" / "token"
    made = read_token(None, file, make=True)
    assert made == read_token(None, file, make=True) == file.read_text().strip()
    assert read_token("given", file, make=True) == "given"


def test_a_token_comes_from_one_place(tmp_path):
    file = tmp_path / "token"
    file.write_text("secret\n")
    assert read_token(None, file) == "secret"
    assert read_token("given", None) == "given"
    assert read_token("", None) is None
    file.write_text("")
    for token, path in (("given", file), (None, file), (None, tmp_path / "absent")):
        with pytest.raises(SettingsError):
            read_token(token, path)


# --- database --------------------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path):
    opened = Database(tmp_path / "gradwire.db")
    yield opened
    opened.close()


def add(key):
    def work(connection):
        connection.execute(insert(summaries).values(tensor=key, summary=""))
        return key

    return work


def count(connection):
    return connection.scalar(select(func.count()).select_from(summaries))


def test_a_result_comes_back_after_its_commit(database, tmp_path):
    async def scenario():
        for number in range(20):
            await database.write(add(f"key-{number}"))
            with contextlib.closing(sqlite3.connect(tmp_path / "gradwire.db")) as other:
                assert other.execute("SELECT count(*) FROM summaries").fetchone() == (number + 1,)

    asyncio.run(scenario())


def test_one_bad_write_in_a_group_leaves_the_others_alone(database):
    async def scenario():
        return await asyncio.gather(*(database.write(add(key)) for key in ("a", "b", "a", "c")), return_exceptions=True)

    results = asyncio.run(scenario())
    assert [result if isinstance(result, str) else type(result).__name__ for result in results] == [
        "a",
        "b",
        "IntegrityError",
        "c",
    ]
    assert asyncio.run(database.read(count)) == 3


def test_what_was_written_is_there_after_the_file_is_opened_again(tmp_path):
    first = Database(tmp_path / "x.db")
    asyncio.run(first.write(add("kept")))
    first.close()
    second = Database(tmp_path / "x.db")
    assert asyncio.run(second.read(count)) == 1
    second.close()


# --- the life of a job -----------------------------------------------------------------------------------------------


@pytest.fixture
def lease(database):
    held = Lease(database)
    assert asyncio.run(held.try_take())
    return held


@pytest.fixture
def jobs(database, lease):
    return Jobs(database, Changes(), lease, clock=lambda: 1_700_000_000 * 10**9)


SPEC = JobSpec(epochs=3)


def epoch_event(number, loss=0.5, seconds=1.0):
    return Event(epoch=Epoch(epoch=number, running_loss=loss, train=Metrics(loss=loss), train_seconds=seconds))


def state_event(state):
    return Event(state_change=StateChange(state=state))


CHECKPOINT = Event(checkpoint=Checkpoint(epoch=3, weights=TensorRef(dtype=1, shape=[2], sha256="0" * 64)))


async def started(jobs, name="a"):
    await jobs.create(SPEC, True, name, "")
    return await jobs.start_attempt((await jobs.find(f"jobs/{name}")).id)


async def log(jobs, number):
    events = await jobs.events_after(number, 0, 1000)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return [
        f"{event.WhichOneof('kind')} {event.epoch.epoch or event.warning.reason or event.state_change.state}"
        for event in events
    ]


def test_a_job_goes_from_queued_to_succeeded_with_a_model(jobs):
    async def scenario():
        row = await started(jobs)
        await jobs.record(row.id, 1, [state_event(JobState.JOB_STATE_RUNNING), epoch_event(1)], 2)
        done = await jobs.record(
            row.id, 1, [epoch_event(2), epoch_event(3), CHECKPOINT, state_event(JobState.JOB_STATE_SUCCEEDED)], 6
        )
        assert done.ended
        assert (done.message.model, done.message.last_epoch.epoch, done.message.last_sequence) == ("models/a", 3, 8)
        assert done.message.end_time.seconds == 1_700_000_000

    asyncio.run(scenario())


def test_the_same_request_makes_one_job_and_a_taken_name_is_refused(jobs):
    async def scenario():
        first = await jobs.create(SPEC, True, "a", "request-1")
        assert await jobs.create(SPEC, True, "a", "request-1") == first
        assert await jobs.find_request("request-1") == first
        with pytest.raises(ServiceError, match="'jobs/a' already"):
            await jobs.create(SPEC, True, "a", "request-2")
        names = {(await jobs.create(SPEC, True, "", "")).name for _ in range(20)}
        assert len(names) == 20

    asyncio.run(scenario())


def test_an_old_attempt_is_refused_and_stores_nothing(jobs):
    async def scenario():
        row = await started(jobs)
        await jobs.worker_lost(row.id, 1, "gone", "")
        await jobs.start_attempt(row.id)
        with pytest.raises(AttemptOverError):
            await jobs.record(row.id, 1, [epoch_event(1)], 1)
        await jobs.record(row.id, 2, [epoch_event(1)], 1)
        assert await log(jobs, row.id) == [
            "state_change 1",
            "state_change 2",
            "warning WORKER_LOST",
            "state_change 1",
            "state_change 2",
            "epoch 1",
        ]

    asyncio.run(scenario())


def test_an_epoch_that_is_run_again_is_stored_once_and_a_different_outcome_is_reported(jobs):
    async def scenario():
        row = await started(jobs)
        await jobs.record(row.id, 1, [epoch_event(1), epoch_event(2)], 2)
        await jobs.record(row.id, 1, [epoch_event(1, seconds=9.0), epoch_event(2, loss=0.25), epoch_event(3)], 5)
        assert (await log(jobs, row.id))[2:] == ["epoch 1", "epoch 2", "warning NOT_DETERMINISTIC", "epoch 3"]

    asyncio.run(scenario())


def test_reports_that_are_stored_already_are_not_stored_again(jobs):
    async def scenario():
        row = await started(jobs)
        for _ in range(2):  # As after a crash between the commit and the acknowledgement.
            await jobs.record(row.id, 1, [state_event(JobState.JOB_STATE_RUNNING), CHECKPOINT], 2)
        assert (await log(jobs, row.id))[2:] == ["state_change 3", "checkpoint 0"]

    asyncio.run(scenario())


def test_cancelling_ends_a_job_once_and_refuses_its_worker(jobs):
    async def scenario():
        row = await started(jobs)
        first = await jobs.cancel("jobs/a")
        again = await jobs.cancel("jobs/a")
        assert first.message == again.message
        assert first.message.state == JobState.JOB_STATE_CANCELLED
        with pytest.raises(AttemptOverError):
            await jobs.record(row.id, 1, [epoch_event(1)], 1)

    asyncio.run(scenario())


def test_a_job_that_kills_its_workers_is_given_up(jobs):
    async def scenario():
        row = await started(jobs)
        for attempt in (1, 2, 3):
            row = await jobs.worker_lost(row.id, attempt, "killed", "last words")
            if not row.ended:
                await jobs.start_attempt(row.id)
        assert row.message.state == JobState.JOB_STATE_FAILED
        assert row.message.error.reason == "WORKER_LOST"
        assert "its log ends with:\nlast words" in row.message.error.message

    asyncio.run(scenario())


def test_a_job_that_gets_on_between_deaths_is_not_given_up(jobs):
    async def scenario():
        row = await started(jobs)
        for attempt in range(1, 7):
            if attempt % 2:
                await jobs.record(row.id, attempt, [epoch_event(attempt)], 1)
            row = await jobs.worker_lost(row.id, attempt, "killed", "")
            assert not row.ended
            await jobs.start_attempt(row.id)

    asyncio.run(scenario())


def test_what_a_job_takes_of_the_disk_is_counted_and_bounded(jobs):
    async def scenario():
        row = await started(jobs)
        before = (await jobs.find("jobs/a")).message.disk_usage.log_bytes
        sizes = []
        for epoch in (1, 2, 3):
            point = Event(checkpoint=Checkpoint(epoch=epoch, weights=CHECKPOINT.checkpoint.weights))
            row = await jobs.record(row.id, 1, [epoch_event(epoch), point], 2 * epoch)
            sizes.append(row.message.disk_usage.checkpoint_bytes)
        assert sizes == [8, 16, 16]  # Two float32 in each, and two checkpoints at most.
        assert row.message.disk_usage.log_bytes > before
        row = await jobs.record(row.id, 1, [state_event(JobState.JOB_STATE_SUCCEEDED)], 7)
        assert row.message.disk_usage.checkpoint_bytes == 0

    asyncio.run(scenario())


def test_a_server_that_starts_puts_unfinished_jobs_back_into_the_queue_in_order(jobs):
    async def scenario():
        for name in ("a", "b", "c"):
            await started(jobs, name)
        await jobs.cancel("jobs/b")
        await jobs.requeue_unfinished(but=[])
        assert [row.job_id for row in await jobs.queued(10)] == ["a", "c"]

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["jobs/none", "none", "models/a", ""])
def test_unknown_names_are_not_found(jobs, name):
    with pytest.raises(ServiceError, match="there is no"):
        asyncio.run(jobs.find(name))


def test_a_sequence_number_from_the_future_is_refused(jobs):
    async def scenario():
        await jobs.create(SPEC, True, "a", "")
        await jobs.check_sequence("jobs/a", 1)
        for after in (2, -1):
            with pytest.raises(ServiceError, match=r"must be 0\.\.1"):
                await jobs.check_sequence("jobs/a", after)

    asyncio.run(scenario())


def test_a_watcher_that_takes_the_signal_first_misses_nothing():
    async def scenario():
        watchers = Changes()
        signal = watchers.signal(1)
        watchers.hear(Change(1))
        await asyncio.wait_for(signal.wait(), 1)
        assert not watchers.signal(1).is_set()
        assert not watchers.signal(2).is_set()

    asyncio.run(scenario())


# --- blobs, uploads, checkpoints -------------------------------------------------------------------------------------

DATA = bytes(range(256)) * 40
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["file", "memory"])
def blobs(request, tmp_path):
    url = (tmp_path / "blobs").as_uri() if request.param == "file" else f"memory://{tmp_path.name}"
    return BlobStore(url, tmp_path / "staging")


def send(uploads, data, offset=0):
    async def scenario():
        async with uploads.receive(SHA, len(DATA), offset) as upload:
            if upload is None:
                return "there already"
            for start in range(0, len(data), 1000):
                await upload.write(data[start : start + 1000])
            return await upload.finish()

    return asyncio.run(scenario())


def test_an_upload_becomes_a_blob_when_it_is_whole(blobs, tmp_path):
    uploads = Uploads(blobs, tmp_path / "uploads", Room(tmp_path))
    assert send(uploads, DATA) is True
    assert blobs.size(SHA) == len(DATA)
    assert send(uploads, DATA) == "there already"
    assert not list((tmp_path / "uploads").iterdir())


def test_an_upload_goes_on_where_it_broke_off(blobs, tmp_path):
    uploads = Uploads(blobs, tmp_path / "uploads", Room(tmp_path))
    assert send(uploads, DATA[:3000]) is False
    assert uploads.received_bytes(SHA) == 3000
    with pytest.raises(ServiceError, match="3000 bytes have arrived"):
        send(uploads, DATA[2000:], offset=2000)
    assert send(uploads, DATA[3000:], offset=3000) is True
    assert blobs.has(SHA)


def test_an_upload_may_start_again_from_nothing(blobs, tmp_path):
    uploads = Uploads(blobs, tmp_path / "uploads", Room(tmp_path))
    send(uploads, DATA[:3000])
    assert send(uploads, DATA, offset=0) is True


def test_an_upload_with_another_digest_is_thrown_away(blobs, tmp_path):
    uploads = Uploads(blobs, tmp_path / "uploads", Room(tmp_path))
    with pytest.raises(ServiceError, match="have the digest") as caught:
        send(uploads, DATA[::-1])
    assert caught.value.reason == "DIGEST_MISMATCH"
    assert uploads.received_bytes(SHA) == 0
    assert not blobs.has(SHA)


def test_an_upload_that_is_too_long_is_refused(blobs, tmp_path):
    with pytest.raises(ServiceError, match="brings more than"):
        send(Uploads(blobs, tmp_path / "uploads", Room(tmp_path)), DATA + b"!")
    assert not blobs.has(SHA)


def test_two_uploads_of_the_same_tensor_take_turns(blobs, tmp_path):
    uploads = Uploads(blobs, tmp_path / "uploads", Room(tmp_path))

    async def one():
        async with uploads.receive(SHA, len(DATA), 0) as upload:
            if upload is None:
                return "there already"
            await upload.write(DATA)
            return await upload.finish()

    async def scenario():
        return await asyncio.gather(one(), one())

    assert asyncio.run(scenario()) == [True, "there already"]


def test_a_full_disk_is_resource_exhausted():
    with pytest.raises(ServiceError, match="disk is full"), refusing_when_full():
        raise OSError(28, os.strerror(28))


def checkpoint(epoch, data):
    return Checkpoint(epoch=epoch, weights=TensorRef(sha256=hashlib.sha256(data).hexdigest()))


def test_the_newest_sound_checkpoint_is_used_and_old_ones_go(blobs):
    checkpoints = Checkpoints(blobs)
    assert checkpoints.newest(1) is None
    for epoch in (1, 5, 12):
        data = b"weights %d" % epoch
        checkpoints.save(1, checkpoint(epoch, data), data)
    files = sorted(blobs.fs.ls(f"{blobs.root}/checkpoints/1", detail=False))
    assert len(files) == 2
    assert checkpoints.newest(1).epoch == 12
    blobs.fs.pipe_file(files[-1], b"damaged")
    assert checkpoints.newest(1).weights == b"weights 5"
    checkpoints.drop(1)
    assert checkpoints.newest(1) is None
