"""Attacks over real sockets on a server with a token and few file descriptors, which must keep serving others."""

import concurrent.futures
import socket
import time
from collections import Counter
from contextlib import ExitStack

import grpc
import long_job
import numpy as np
import psutil
import pytest
from attacks.grpc_attacks import GRPC_ATTACKS
from attacks.http_attacks import HTTP_ATTACKS
from attacks.measuring import innocent_client, measure
from fuzz.fuzzer import fuzz
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from guarded_server import DESCRIPTORS, TOKEN, guarded_server
from process_memory import PeakMemory

import gradwire as gw
from gradwire_engine.spec.tensors import tensor_ref
from gradwire_proto.v1.model_service_pb2 import DownloadModelRequest
from gradwire_proto.v1.model_service_pb2_grpc import ModelServiceStub
from gradwire_proto.v1.tensor_service_pb2 import UploadHeader, UploadTensorRequest
from gradwire_proto.v1.tensor_service_pb2_grpc import TensorServiceStub
from gradwire_proto.v1.training_service_pb2 import GetJobRequest
from gradwire_server.limits import MAX_CONCURRENT_HEALTH_WATCHES, MAX_UPLOADS

WITH_TOKEN = (("authorization", f"Bearer {TOKEN}"),)
TRAINING = "/gradwire.v1.TrainingService/"
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
NOBODY = GetJobRequest(name="jobs/nobody").SerializeToString()


@pytest.fixture(scope="module")
def guarded():
    with guarded_server() as running:
        yield running


@pytest.fixture
def channel(guarded):
    with grpc.insecure_channel(guarded.address, OPTIONS) as opened:
        yield opened


def outcome(call, request, metadata=WITH_TOKEN, **options):
    """Return the status code, reason and first invalid field of a call. The code is OK if the call succeeds."""
    try:
        response = call(request, metadata=metadata, timeout=30, **options)
        if hasattr(response, "__next__"):
            next(response)
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        info, bad_request = ErrorInfo(), BadRequest()
        for detail in status.details if status else ():
            detail.Unpack(info)
            detail.Unpack(bad_request)
        return error.code().name, info.reason, *(each.field for each in bad_request.field_violations[:1])
    return "OK", ""


def test_a_server_with_a_thousand_silent_connections_still_answers_others(guarded, channel):
    call = channel.unary_unary(f"{TRAINING}GetJob")
    assert outcome(call, NOBODY)[0] == "NOT_FOUND"
    host, port = guarded.address.split(":")
    process = psutil.Process(guarded.process.pid)
    with ExitStack() as silent:
        for _ in range(1000):
            silent.enter_context(socket.create_connection((host, int(port))))
        assert outcome(call, NOBODY)[0] == "NOT_FOUND"
        assert process.num_fds() < DESCRIPTORS - 256
    with grpc.insecure_channel(guarded.address, OPTIONS) as new:
        grpc.channel_ready_future(new).result(20)
        assert outcome(new.unary_unary(f"{TRAINING}GetJob"), NOBODY)[0] == "NOT_FOUND"
    assert "does not answer" not in guarded.log.read_text()


def test_without_a_token_no_request_is_received_whatever_its_size(guarded, channel):
    layers = (17 << 20) * b"\x0a\x00"
    with PeakMemory(guarded.process.pid) as memory:
        for metadata in (None, (("authorization", "Bearer wrong"),)):
            found = outcome(channel.unary_unary(f"{TRAINING}CreateJob"), layers, metadata)
            assert found == ("UNAUTHENTICATED", "INVALID_TOKEN")
    assert memory.growth < 20


@pytest.mark.parametrize(
    "metadata", [2 * WITH_TOKEN, (*WITH_TOKEN, ("authorization", "Bearer x")), (("authorization", "x"), *WITH_TOKEN)]
)
def test_two_authorization_headers_are_refused(channel, metadata):
    call = channel.unary_unary(f"{TRAINING}GetJob")
    assert outcome(call, NOBODY, metadata) == ("UNAUTHENTICATED", "INVALID_TOKEN")


@pytest.mark.parametrize(("method", "size"), [("GetJob", 100_000), ("WatchJob", 100_000), ("CreateJob", 300_000)])
def test_each_method_limits_the_size_of_its_request(channel, method, size):
    call = (channel.unary_stream if method == "WatchJob" else channel.unary_unary)(f"{TRAINING}{method}")
    assert outcome(call, bytes(size)) == ("INVALID_ARGUMENT", "INVALID_FIELDS", "(request)")


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_compressed_request_is_refused_and_not_logged(guarded, channel, compression):
    before = guarded.log.read_text()
    for path in (f"{TRAINING}GetJob", "/grpc.health.v1.Health/Check"):
        assert outcome(channel.unary_unary(path), bytes(9 << 20), compression=compression)[0] == "UNIMPLEMENTED"
    assert guarded.log.read_text() == before


def test_health_watches_use_little_memory_and_are_limited(guarded):
    with ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(guarded.address, OPTIONS)) for _ in range(8)]
        calls = [health_pb2_grpc.HealthStub(each).Watch for each in channels]
        with PeakMemory(guarded.process.pid) as memory:
            long = health_pb2.HealthCheckRequest(service="a" * (1 << 20))
            found = Counter(outcome(calls[number % 8], long, None)[0] for number in range(50))
            watches = [calls[number % 8](health_pb2.HealthCheckRequest()) for number in range(250)]
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                accepted = Counter(pool.map(first_code, watches))
        assert found == {"INVALID_ARGUMENT": 50}
        assert accepted == {"OK": MAX_CONCURRENT_HEALTH_WATCHES, "UNAVAILABLE": 250 - MAX_CONCURRENT_HEALTH_WATCHES}
        assert memory.growth < 100
        assert outcome(channels[0].unary_unary(f"{TRAINING}GetJob"), NOBODY)[0] == "NOT_FOUND"
        assert outcome(health_pb2_grpc.HealthStub(channels[0]).Check, health_pb2.HealthCheckRequest(), None)[0] == "OK"


def first_code(watch):
    try:
        next(watch)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


@pytest.mark.parametrize(
    "path",
    [
        f"{TRAINING}CreateJob",
        f"{TRAINING}WatchJob",
        "/gradwire.v1.TensorService/UploadTensor",
        "/gradwire.v1.ModelService/Predict",
        "/grpc.health.v1.Health/Check",
    ],
)
def test_an_invalid_body_is_the_clients_fault_and_is_not_logged(guarded, channel, path):
    before = guarded.log.read_text()
    for body in (b"\xff", b"\x0a", 999 * b"\x08"):
        assert outcome(channel.unary_unary(path), body)[:2] == ("INVALID_ARGUMENT", "INVALID_FIELDS")
    assert guarded.log.read_text() == before


def test_a_shape_with_a_million_sizes_is_refused_at_once(channel):
    shape = b"\x12\xc0\x84\x3d" + 1_000_000 * b"\x01"
    requests = {
        "TensorService/FindMissingTensors": b"\x0a\xc4\x84\x3d" + shape,
        "ModelService/Predict": b"\x12\xc4\x84\x3d" + shape,
    }
    for method, request in requests.items():
        found = outcome(channel.unary_unary(f"/gradwire.v1.{method}"), request)
        assert found == ("INVALID_ARGUMENT", "INVALID_FIELDS", "(request)")


def test_more_than_64_dimensions_are_refused(channel):
    dimensions = b"\x12\x41" + 65 * b"\x01"
    requests = {
        "TensorService/FindMissingTensors": (b"\x0a\x43" + dimensions, "tensors[0]"),
        "TensorService/UploadTensor": (b"\x0a\x45\x0a\x43" + dimensions, "header.tensor"),
    }
    for method, (request, field) in requests.items():
        found = outcome(channel.unary_unary(f"/gradwire.v1.{method}"), request)
        assert found == ("INVALID_ARGUMENT", "INVALID_FIELDS", field)


def test_a_stalled_upload_does_not_delay_others_and_empty_chunks_are_refused(channel):
    upload = TensorServiceStub(channel).UploadTensor
    array = np.random.default_rng(11).random(1000)
    header = UploadTensorRequest(header=UploadHeader(tensor=tensor_ref(array)))
    half = UploadTensorRequest(chunk=array.tobytes()[:4000])
    release = concurrent.futures.Future()

    def held():
        yield header
        yield half
        release.result(60)

    holding = upload.future(held(), metadata=WITH_TOKEN)
    whole = [header, UploadTensorRequest(chunk=array.tobytes())]
    assert upload(iter(whole), metadata=WITH_TOKEN, timeout=20).size_bytes == array.nbytes
    release.set_result(None)
    assert holding.exception(20) is None

    other = UploadTensorRequest(header=UploadHeader(tensor=tensor_ref(array + 1)))
    requests = [other, UploadTensorRequest(chunk=b"")]
    assert outcome(upload, iter(requests)) == ("INVALID_ARGUMENT", "INVALID_FIELDS", "chunk")


def test_stalled_uploads_use_few_descriptors(guarded, channel):
    process = psutil.Process(guarded.process.pid)
    before = process.num_fds()
    release = concurrent.futures.Future()

    def held(number):
        reference = tensor_ref(np.full(10, float(number)))
        yield UploadTensorRequest(header=UploadHeader(tensor=reference))
        release.result(60)

    uploads = [TensorServiceStub(channel).UploadTensor.future(held(n), metadata=WITH_TOKEN) for n in range(100)]
    deadline = time.monotonic() + 20
    while process.num_fds() < before + MAX_UPLOADS and time.monotonic() < deadline:
        time.sleep(0.01)
    assert outcome(channel.unary_unary(f"{TRAINING}GetJob"), NOBODY)[0] == "NOT_FOUND"
    assert before + MAX_UPLOADS <= process.num_fds() < before + MAX_UPLOADS + 16
    for upload in uploads:
        upload.cancel()
    release.set_result(None)


def test_downloads_of_which_only_the_header_is_read_use_little_memory(guarded):
    with gw.Client(guarded.address, token=TOKEN) as client:
        model = gw.Sequential(gw.Linear(3000, 2000), gw.ReLU(), gw.Linear(2000, 3))
        data = (np.ones((4, 3000), np.float32), np.arange(4) % 3)
        options = {"loss": gw.CrossEntropy(), "optimizer": gw.SGD(model, lr=0.1), "epochs": 1}
        client.jobs.submit(model, data, **options, name="large").result()
    with ExitStack() as stack, PeakMemory(guarded.process.pid) as memory:
        for format_ in (1, 2):
            for _ in range(8):
                opened = stack.enter_context(grpc.insecure_channel(guarded.address, OPTIONS))
                request = DownloadModelRequest(name="models/large", format=format_)
                download = ModelServiceStub(opened).DownloadModel(request, metadata=WITH_TOKEN)
                assert next(download).header.size_bytes > 24e6
    assert memory.growth < 100


def test_random_calls_find_no_defect(guarded):
    began = time.monotonic()
    report = fuzz(guarded.address, TOKEN, guarded.process.pid, calls=300, seed=0)
    assert report.problems() == []
    assert "Traceback" not in guarded.log.read_text()
    assert time.monotonic() - began < 120


def test_attacks_delay_neither_calls_nor_jobs(guarded):
    chosen = [each for each in [*GRPC_ATTACKS, *HTTP_ATTACKS] if each.name.startswith(("18", "HTTP: slow"))]
    with gw.Client(guarded.address, token=TOKEN) as client:
        job = long_job.submit(client, "running", epochs=1_000_000)
        next(job.epochs())
        with innocent_client(guarded) as innocent:
            found = [measure(attack, guarded, innocent, seconds=0.5) for attack in chosen]
        job.cancel()
    assert [figures.problems() for figures in found] == [[], []]
    assert set(found[0].statuses) == {"UNAUTHENTICATED"}
