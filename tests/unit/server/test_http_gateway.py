"""The HTTP gateway on a real socket: calls, streams, errors, and rejected requests."""

import asyncio
import base64
import json
import os
import queue
import socket
import ssl
import time
from contextlib import ExitStack, closing
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from http_server import http_server
from safetensors.numpy import load

import gradwire as gw
from gradwire_proto.v1.training_service_pb2 import GetJobRequest, Job
from gradwire_server import limits
from gradwire_server.http import connections, streams
from gradwire_server.http.gateway import _listen
from gradwire_server.jobs.queries import JobQueries
from gradwire_server.settings import Settings, SettingsError

TRAINING, MODELS = "/gradwire.v1.TrainingService", "/gradwire.v1.ModelService"
TOKEN = "open-sesame"
AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module", autouse=True)
def _reference_plan():
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GRADWIRE_PLAN", "reference")
        yield


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with http_server(tmp_path_factory.mktemp("http")) as started:
        yield started


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server with a token."""
    with http_server(tmp_path_factory.mktemp("guarded"), token=TOKEN, http_hosts=("lab.example",)) as started:
        yield started


@pytest.fixture
def http(running):
    with httpx.Client(base_url=running.server.http.url) as client:
        yield client


@pytest.fixture
def guarded_http(guarded):
    with httpx.Client(base_url=guarded.server.http.url) as client:
        yield client


@pytest.fixture(scope="module")
def xor(running):
    """A job that has succeeded, with 20 epochs."""
    gw.seed(0)
    model = gw.Sequential(gw.Linear(2, 4), gw.ReLU(), gw.Linear(4, 2))
    X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([0, 1, 1, 0])
    with gw.Client(running.address) as client:
        job = client.jobs.submit(
            model, (X, y), loss=gw.CrossEntropy(), optimizer=gw.SGD(model), epochs=20, batch_size=4, name="xor"
        )
        job.result()
    return "jobs/xor"


def events(response):
    """The events of a response with server-sent events: their fields."""
    found = {}
    for line in response.iter_lines():
        if not line:
            if found and list(found) != ["retry"]:
                yield found
            found = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            found[name] = value


def test_a_unary_call_takes_and_returns_json(http, xor):
    response = http.post(f"{TRAINING}/GetJob", json={"name": xor})
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    job = response.json()
    assert (job["state"], job["epochs"], job["lastEpoch"]["epoch"]) == ("JOB_STATE_SUCCEEDED", 20, 20)


def test_a_unary_call_takes_and_returns_protobuf(http, xor):
    headers = {"content-type": "application/proto"}
    response = http.post(f"{TRAINING}/GetJob", content=GetJobRequest(name=xor).SerializeToString(), headers=headers)
    assert Job.FromString(response.content).name == xor


def test_names_of_fields_can_have_underscores(http, xor):
    assert len(http.post(f"{TRAINING}/ListJobs", json={"page_size": 1}).json()["jobs"]) == 1


def test_the_model_predicts_over_http(http, xor):
    inputs = np.array([[0, 0], [0, 1]], np.float32)
    tensor = {"dtype": "DATA_TYPE_FLOAT32", "shape": [2, 2], "data": base64.b64encode(inputs.tobytes()).decode()}
    outputs = http.post(f"{MODELS}/Predict", json={"name": "models/xor", "inputs": tensor}).json()["outputs"]
    assert outputs["shape"] == ["2", "2"]
    assert len(base64.b64decode(outputs["data"])) == 16


def test_a_model_is_downloaded_as_a_file(http, xor):
    response = http.get(f"{MODELS}/DownloadModel", params={"name": "models/xor"})
    assert response.headers["content-disposition"] == 'attachment; filename="xor.safetensors"'
    assert set(load(response.content)) == {"0.W", "0.b", "2.W", "2.b"}
    rest = http.get(f"{MODELS}/DownloadModel", params={"name": "models/xor", "offset": "100"})
    assert rest.content == response.content[100:]
    onnx = http.get(f"{MODELS}/DownloadModel", params={"name": "models/xor", "format": "MODEL_FORMAT_ONNX"})
    assert onnx.headers["content-disposition"] == 'attachment; filename="xor.onnx"'


def test_a_watch_is_a_stream_of_events_that_resumes_after_the_last_one(http, xor):
    with http.stream("GET", f"{TRAINING}/WatchJob", params={"name": xor}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        found = list(events(response))
    assert found[-1]["event"] == "end"
    numbers = [int(event["id"]) for event in found[:-1]]
    assert numbers == list(range(1, len(numbers) + 1))
    resumed = {"last-event-id": str(numbers[-2])}
    with http.stream("GET", f"{TRAINING}/WatchJob", params={"name": xor}, headers=resumed) as response:
        (last, _end) = events(response)
    assert last == found[-2]
    assert json.loads(last["data"])["stateChange"]["state"] == "JOB_STATE_SUCCEEDED"


def test_a_watch_that_has_nothing_more_to_send_is_not_repeated(http, xor):
    last = http.post(f"{TRAINING}/GetJob", json={"name": xor}).json()["lastSequence"]
    response = http.get(f"{TRAINING}/WatchJob", params={"name": xor}, headers={"last-event-id": last})
    assert response.status_code == 204


def test_a_watch_of_jobs_sends_their_state_and_new_jobs(http, xor, running):
    with http.stream("GET", f"{TRAINING}/WatchJobs?names={xor}&names=jobs/nobody&include_new=true") as response:
        stream = events(response)
        first = json.loads(next(stream)["data"])
        assert [job["name"] for job in first["jobs"]] == [xor]
        assert "spec" not in first["jobs"][0]
        assert first["deletedJobs"] == ["jobs/nobody"]
        model = gw.Sequential(gw.Linear(2, 2))
        X, y = np.eye(2, dtype=np.float32), np.arange(2)
        with gw.Client(running.address) as client:
            client.jobs.submit(model, (X, y), loss=gw.CrossEntropy(), optimizer=gw.SGD(model), epochs=2, name="new")
            state = ""
            while state != "JOB_STATE_SUCCEEDED":
                (job,) = json.loads(next(stream)["data"])["jobs"]
                assert job["name"] == "jobs/new"
                state = job["state"]
            client.jobs.get("new").delete()
        assert json.loads(next(stream)["data"]) == {"deletedJobs": ["jobs/new"]}


def test_a_watch_of_jobs_checks_its_names(http):
    for names, field in ((["models/xor"], "names[0]"), (101 * ["jobs/xor"], "names"), ([], "names")):
        response = http.get(f"{TRAINING}/WatchJobs", params={"names": names})
        assert response.status_code == 400
        assert response.json()["details"][1]["debug"]["fieldViolations"][0]["field"] == field


def test_epochs_are_sampled_evenly(http, xor):
    every = http.post(f"{TRAINING}/SampleEpochs", json={"name": xor}).json()
    assert ([each["epoch"] for each in every["epochs"]], every["complete"]) == ([*range(1, 21)], True)
    some = http.post(f"{TRAINING}/SampleEpochs", json={"name": xor, "maxEpochs": 6}).json()
    assert [each["epoch"] for each in some["epochs"]] == [1, 5, 10, 15, 20]
    assert "complete" not in some
    part = http.post(f"{TRAINING}/SampleEpochs", json={"name": xor, "firstEpoch": 3, "lastEpoch": 5}).json()
    assert [each["epoch"] for each in part["epochs"]] == [3, 4, 5]
    assert http.post(f"{TRAINING}/SampleEpochs", json={"name": xor, "firstEpoch": -1}).status_code == 400


def test_the_python_client_samples_epochs_as_the_page_does(running, xor):
    with gw.Client(running.address) as client:
        job = client.jobs.get(xor)
        assert [each.epoch for each in job.history(6)] == [1, 5, 10, 15, 20]
        whole = job.history()
        assert (len(whole), whole.complete, whole.stop_reason) == (20, True, "ALL_EPOCHS")
        assert whole.epochs == job.result().epochs


def test_the_events_of_a_job_are_listed_without_its_epochs(http, xor):
    found = http.post(f"{TRAINING}/ListJobEvents", json={"name": xor}).json()["events"]
    states = [event["stateChange"]["state"].removeprefix("JOB_STATE_") for event in found]
    assert states == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]


def test_an_error_has_the_code_the_message_and_the_details_of_the_grpc_status(http):
    response = http.post(f"{TRAINING}/GetJob", json={"name": "jobs/nobody"})
    assert response.status_code == 404
    error = response.json()
    assert error["code"] == "not_found"
    assert "nobody" in error["message"]
    (detail,) = error["details"]
    assert detail["type"] == "google.rpc.ErrorInfo"
    info = ErrorInfo.FromString(base64.b64decode(detail["value"] + "=="))
    assert (info.reason, info.domain, dict(info.metadata)) == ("JOB_NOT_FOUND", "gradwire.dev", {"job": "jobs/nobody"})
    assert detail["debug"]["reason"] == "JOB_NOT_FOUND"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"[]", "JSON object"),
        (b"\xff", "JSON"),
        (b"[" * 60_000, "JSON"),
        (b'{"name": 3}', "GetJobRequest"),
        (b'{"nmae": "jobs/xor"}', "nmae"),
        (b'{"name": ["jobs/xor"]}', "GetJobRequest"),
        (b'{"name": "' + b"a" * 700_000 + b'"}', "bytes"),
        (b'{"a": [' + b"0," * 9000 + b"0]}", "8000"),
    ],
)
def test_a_body_that_is_no_request_is_refused_in_one_line(http, body, says):
    response = http.post(f"{TRAINING}/GetJob", content=body, headers=JSON)
    error = response.json()
    assert (response.status_code, error["code"]) == (400, "invalid_argument")
    assert says in error["message"]
    assert "\n" not in error["message"]
    reasons = [each["debug"].get("reason") for each in error["details"]]
    assert reasons == ["INVALID_FIELDS", None]


def test_the_limits_of_a_method_hold_over_http(http):
    response = http.post(f"{TRAINING}/GetJob", json={"name": "a" * 100_000})
    assert response.status_code == 400
    assert response.json()["details"][1]["debug"]["fieldViolations"][0]["field"] == "(request)"


@pytest.mark.parametrize(
    ("verb", "path", "status", "says"),
    [
        ("POST", f"{TRAINING}/Nothing", 404, "no such method"),
        ("POST", "/grpc.reflection.v1.ServerReflection/Info", 404, "no such method"),
        ("GET", "/nothing", 404, "nothing here"),
        ("GET", "/static/../gateway.py", 404, "nothing here"),
        ("GET", "/static/%2e%2e/gateway.py", 404, "no such file"),
        ("PUT", f"{TRAINING}/GetJob", 405, "nothing here"),
        ("OPTIONS", f"{TRAINING}/GetJob", 405, "nothing here"),
        ("GET", f"{TRAINING}/GetJob", 405, "POST"),
        ("POST", f"{TRAINING}/WatchJob", 501, "GET"),
        ("POST", "/gradwire.v1.TensorService/UploadTensor", 501, "gRPC"),
        ("GET", f"{TRAINING}/WatchJob?nmae=x", 400, "nmae"),
        ("GET", f"{TRAINING}/WatchJob?name=jobs/nobody", 404, "nobody"),
        ("GET", f"{TRAINING}/WatchJob?name=jobs/nobody&after_sequence=x", 400, "after"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(http, verb, path, status, says):
    response = http.request(verb, path, json={} if verb == "POST" else None)
    assert response.status_code == status
    assert says in response.json()["message"]


def test_health_is_public(guarded_http):
    assert guarded_http.post("/grpc.health.v1.Health/Check", json={}).json() == {"status": "SERVING"}


def test_the_token_is_checked_by_the_server(guarded_http):
    call = f"{TRAINING}/ListJobs"
    assert guarded_http.post(call, json={}, headers=AUTHORIZED).status_code == 200
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer é".encode("latin-1")}):
        response = guarded_http.post(call, json={}, headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")
    twice = [("authorization", AUTHORIZED["authorization"])] * 2
    assert guarded_http.post(call, json={}, headers=twice).status_code == 401
    assert guarded_http.get(f"{TRAINING}/WatchJob?name=jobs/a").status_code == 401


def test_without_the_token_a_request_is_refused_before_it_has_arrived(guarded):
    host, port = guarded.server.http.url.removeprefix("http://").split(":")
    with closing(socket.create_connection((host, int(port)), timeout=20)) as connection:
        connection.sendall(
            f"POST {MODELS}/Predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/proto\r\n"
            "Content-Length: 40000000\r\n\r\n".encode()
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1:50052", 200),
        ("[::1]:50052", 200),
        ("192.168.1.7", 200),
        ("lab.example", 200),
        (socket.gethostname(), 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("lab.example.evil.example", 421),
        ("", 421),
        ("[", 421),
    ],
)
def test_only_known_host_names_are_answered(guarded_http, host, status):
    response = guarded_http.get("/", headers={"host": host})
    assert response.status_code == status
    if status == 421:
        assert "--http-hosts" in response.json()["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://localhost:8080", "host": "localhost:8080"}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:9999", "host": "localhost:8080"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_pages_of_other_sites_cannot_make_calls(http, headers, status):
    response = http.post(f"{TRAINING}/ListJobs", content=b"{}", headers={**JSON, **headers})
    assert response.status_code == status
    stream = http.get("/grpc.health.v1.Health/Check", headers=headers)
    assert stream.status_code == (403 if status == 403 else 405)


def test_links_on_other_sites_can_open_the_page(http):
    assert http.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_every_response_forbids_scripts_and_frames_of_others(http):
    for path in ("/", f"{TRAINING}/Nothing", "/nothing"):
        headers = http.get(path).headers
        assert "script-src 'self';" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


def test_files_are_compressed_and_not_sent_again(http, running):
    first = http.get("/")
    assert first.headers["content-encoding"] == "gzip"
    assert first.text.startswith("<!doctype html>")
    assert f'name="grpc-port" content="{running.address.rpartition(":")[2]}"' in first.text
    assert http.get("/", headers={"if-none-match": first.headers["etag"]}).status_code == 304
    assert "content-encoding" not in http.get("/", headers={"accept-encoding": "identity"}).headers


def test_a_grpc_client_on_the_http_port_is_told_the_right_port(running):
    address = running.server.http.url.removeprefix("http://")
    with gw.Client(address) as client, pytest.raises(gw.GradwireError, match="is the HTTP port") as caught:
        client.jobs.list()
    assert running.address.rpartition(":")[2] in str(caught.value)
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_stream("/any/Method")(5000 * b"a").next()
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_the_grpc_port_closes_the_connection_of_an_http_client(running):
    address = running.address.replace("localhost", "127.0.0.1")
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"http://{address}/", timeout=20)
    assert not raw(running, b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", address=address).startswith(b"HTTP/")


def raw(running, data, timeout=20, address=None):
    """Return what the server answers to these bytes until it closes the connection."""
    host, port = (address or running.server.http.url.removeprefix("http://")).split(":")
    received = b""
    with closing(socket.create_connection((host, int(port)), timeout=timeout)) as connection:
        connection.sendall(data)
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
    return received


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def received_after_reset(connection):
    """Return how many streams arrive completely before the connection ends."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionError:
        pass
    return received.count(b"event: end")


def test_a_head_that_does_not_arrive_or_is_too_large_ends_the_connection(running, monkeypatch):
    monkeypatch.setattr(connections, "MAX_HANDSHAKE_SECONDS", 0.2)
    assert raw(running, b"") == b""
    assert raw(running, b"GET / HTTP/1.1\r\nHost: loc") == b""
    assert raw(running, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n12345678") == b""
    assert raw(running, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000).startswith(b"HTTP/1.1 400")
    answered = b"POST /a/b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    assert raw(running, answered).startswith(b"HTTP/1.1 404")


def test_a_client_that_accepts_nothing_is_disconnected(running, monkeypatch, xor):
    monkeypatch.setattr(connections, "MAX_HTTP_WRITE_SECONDS", 0.2)
    served = running.server.http._server
    host, port = running.server.http.url.removeprefix("http://").split(":")
    with closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        request = f"GET {TRAINING}/WatchJob?name={xor} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        connection.settimeout(20)
        connection.sendall(400 * request)
        wait_until(lambda: any(each._write_timer for each in served._state.connections))
        wait_until(lambda: not any(each._write_timer for each in served._state.connections))
        assert received_after_reset(connection) < 400


def test_a_client_that_was_slow_once_is_not_disconnected_later(http, running):
    http.get("/")  # The connection stays open.
    (protocol,) = list(running.server.http._server._state.connections)[-1:]
    timers = queue.SimpleQueue()

    def be_slow_once():
        protocol.pause_writing()
        timers.put(protocol._write_timer)
        protocol.resume_writing()
        timers.put(protocol._write_timer)

    protocol.loop.call_soon_threadsafe(be_slow_once)
    assert timers.get(timeout=20).cancelled()
    assert timers.get(timeout=20) is None


def test_a_call_ends_after_the_milliseconds_that_the_client_gives(http, xor, monkeypatch):
    async def hang(*_):
        await asyncio.Future()

    monkeypatch.setattr(JobQueries, "get", hang)
    response = http.post(f"{TRAINING}/GetJob", json={"name": xor}, headers={"connect-timeout-ms": "200"})
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")


def test_a_stream_that_ends_frees_its_call(running, xor, monkeypatch):
    monkeypatch.setattr(streams, "_FIRST_RESPONSE_SECONDS", 0.05)
    streaming = running.server.http._client._streams
    with httpx.Client(base_url=running.server.http.url) as client:
        for _ in range(3):
            with client.stream("GET", f"{TRAINING}/WatchJobs?include_new=true") as response:
                stream = events(response)
                next(stream)
                assert streaming._used >= 1
    wait_until(lambda: streaming._used == 0)


def test_more_streams_than_allowed_are_refused(running, xor, monkeypatch):
    client = running.server.http._client
    monkeypatch.setattr(client._streams, "_maximum", 0)
    monkeypatch.setattr(client._calls, "_maximum", 0)
    with httpx.Client(base_url=running.server.http.url) as http:
        for response in (http.get(f"{TRAINING}/WatchJobs"), http.post(f"{TRAINING}/ListJobs", json={})):
            assert (response.status_code, response.json()["code"]) == (503, "unavailable")
            assert response.headers["retry-after"] == "1"


def test_requests_together_hold_limited_memory(running, monkeypatch):
    monkeypatch.setattr("gradwire_server.http.calls.MAX_HTTP_BUFFERED_BYTES", 1000)
    with httpx.Client(base_url=running.server.http.url) as http:
        assert http.post(f"{TRAINING}/ListJobs", json={"filter": 2000 * " "}).status_code == 503
        assert http.post(f"{TRAINING}/ListJobs", json={}).status_code == 200
    assert running.server.http._buffer._bytes == 0


def test_connections_beyond_the_maximum_are_closed(running, monkeypatch):
    monkeypatch.setattr(running.server.http._server, "_max_connections", 0)
    assert raw(running, b"") == b""


def test_the_socket_of_the_gateway_is_private(running):
    path = Path(running.server.http.socket)
    assert path.is_socket()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.parent.stat().st_uid == os.getuid()


def test_the_socket_is_elsewhere_if_its_path_would_be_too_long(tmp_path):
    folder = tmp_path / ("long" * 30)
    with http_server(folder.parent / folder.name) as running:
        path = Path(running.server.http.socket)
        assert not path.is_relative_to(tmp_path)
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert httpx.post(f"{running.server.http.url}{TRAINING}/ListJobs", json={}).json() == {}
    assert not path.parent.exists()


def test_a_stream_ends_with_a_failure_when_the_server_stops(tmp_path):
    with ExitStack() as stack:
        running_until_closed = stack.enter_context(ExitStack())
        url = running_until_closed.enter_context(http_server(tmp_path)).server.http.url
        client = stack.enter_context(httpx.Client(base_url=url))
        stream = events(stack.enter_context(client.stream("GET", f"{TRAINING}/WatchJobs?include_new=true")))
        assert json.loads(next(stream)["data"]) == {}
        running_until_closed.close()
        failure = next(stream)
    assert failure["event"] == "failure"
    assert json.loads(failure["data"])["code"] == "unavailable"


def test_https_uses_the_certificate_of_the_server(tmp_path, certificate):
    cert, key = certificate
    with http_server(tmp_path, tls_cert=cert, tls_key=key) as running:
        url = running.server.http.url
        assert url.startswith("https://")
        trust = ssl.create_default_context(cafile=cert)
        assert httpx.post(f"{url}{TRAINING}/ListJobs", json={}, verify=trust).json() == {}
        host, port = url.removeprefix("https://").split(":")
        with socket.create_connection((host, int(port))) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert not plain.recv(100).startswith(b"HTTP")


def test_a_port_that_was_chosen_must_be_free_and_the_default_one_need_not(tmp_path, running):
    taken = int(running.server.http.url.rpartition(":")[2])
    with pytest.raises(SettingsError, match=rf"{taken} for HTTP.*--http-port"):
        _listen(Settings(data=tmp_path, http_port=taken), 1)
    with closing(_listen(Settings(data=tmp_path, http_port=None), taken - 1)) as listener:
        assert listener.getsockname()[1] not in (0, taken)
    with pytest.raises(SettingsError, match="--http-port"):
        Settings(data=tmp_path, http_port=70_000)
    with pytest.raises(SettingsError, match="differ"):
        Settings(data=tmp_path, http_port=50_051)


def test_calls_and_streams_fit_on_one_connection():
    assert limits.MAX_HTTP_CALLS + limits.MAX_HTTP_STREAMS < limits.MAX_CALLS_PER_CONNECTION
