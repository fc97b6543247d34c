"""The service as seen by a client that knows only the .proto files: raw calls over a real socket, and reflection."""

import hashlib

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.empty_pb2 import Empty
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from gradwire_engine.spec.tensors import tensor_ref, to_tensor, wire_bytes
from gradwire_proto.v1.model_service_pb2 import (
    DownloadModelRequest,
    GetModelRequest,
    ListModelsRequest,
    PredictRequest,
)
from gradwire_proto.v1.model_service_pb2_grpc import ModelServiceStub
from gradwire_proto.v1.spec_pb2 import Dataset, JobSpec, Layer
from gradwire_proto.v1.tensor_pb2 import DataType, Tensor, TensorRef
from gradwire_proto.v1.tensor_service_pb2 import (
    DeleteTensorRequest,
    FindMissingTensorsRequest,
    ListTensorsRequest,
    UploadHeader,
    UploadTensorRequest,
)
from gradwire_proto.v1.tensor_service_pb2_grpc import TensorServiceStub
from gradwire_proto.v1.training_service_pb2 import (
    CancelJobRequest,
    CreateJobRequest,
    DeleteJobRequest,
    DownloadCheckpointRequest,
    GetJobRequest,
    Job,
    JobView,
    ListJobsRequest,
    WatchJobRequest,
)
from gradwire_proto.v1.training_service_pb2_grpc import TrainingServiceStub

RNG = np.random.default_rng(42)
X = RNG.random((40, 5)).astype(np.float32)
Y = (np.arange(40) % 3).astype(np.int64)


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.address) as opened:
        yield opened


@pytest.fixture(scope="module")
def training(channel):
    return TrainingServiceStub(channel)


@pytest.fixture(scope="module")
def tensors(channel):
    return TensorServiceStub(channel)


@pytest.fixture(scope="module")
def models(channel):
    return ModelServiceStub(channel)


def chunks(array, offset=0, reference=None, stop=None):
    data = bytes(wire_bytes(array))
    yield UploadTensorRequest(header=UploadHeader(tensor=reference or tensor_ref(array), offset=offset))
    for start in range(offset, stop or len(data), 100):
        yield UploadTensorRequest(chunk=data[start : min(start + 100, stop or len(data))])


def put(tensors, array):
    tensors.UploadTensor(chunks(array))
    return tensor_ref(array)


@pytest.fixture
def spec(tensors):
    made = JobSpec(train=Dataset(inputs=put(tensors, X), targets=put(tensors, Y)), epochs=2, batch_size=8, shuffle=True)
    made.model.layers.extend([Layer(linear={"out_features": 6}), Layer(relu={}), Layer(linear={"out_features": 3})])
    made.loss.cross_entropy.SetInParent()
    made.optimizer.sgd.learning_rate = 0.1
    return made


def failure(call, *arguments):
    """Return the status code, the invalid fields and the reason of the error that a call raises."""
    with pytest.raises(grpc.RpcError) as caught:
        list(call(*arguments))  # A stream raises its error when it is read.
    status = rpc_status.from_call(caught.value)
    bad_request, info = BadRequest(), ErrorInfo()
    for detail in status.details:
        detail.Unpack(bad_request)
        detail.Unpack(info)
    assert info.domain == "gradwire.dev"
    assert status.message
    return caught.value.code().name, [v.field for v in bad_request.field_violations], info.reason


def create(spec, **more):
    return CreateJobRequest(job=Job(spec=spec), **more)


def test_a_request_sent_twice_creates_one_job(training, spec):
    first = training.CreateJob(create(spec, request_id="twice"))
    again = training.CreateJob(create(spec, request_id="twice"))
    assert first.name == again.name


def test_a_request_id_cannot_be_used_for_another_request(training, spec):
    first = training.CreateJob(create(spec, request_id="used once"))
    spec.epochs = 3
    other = CreateJobRequest(job=Job(spec=spec, labels={"team": "vision"}), job_id="other", request_id="used once")
    with pytest.raises(grpc.RpcError) as caught:
        training.CreateJob(other)
    info = ErrorInfo()
    assert rpc_status.from_call(caught.value).details[0].Unpack(info)
    assert (caught.value.code().name, info.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    assert dict(info.metadata) == {"job": first.name, "fields": "job_id,job.labels,job.spec.epochs"}


def test_a_repeated_request_that_continues_a_job_returns_the_new_job(training, spec):
    source = training.CreateJob(create(spec)).name
    list(training.WatchJob(WatchJobRequest(name=source)))
    spec.epochs = 4
    request = CreateJobRequest(job=Job(spec=spec, continue_job=source), request_id="continued")
    assert training.CreateJob(request).name == training.CreateJob(request).name
    request.job.initial_model = source.replace("jobs", "models")
    assert failure(training.CreateJob, request) == ("ALREADY_EXISTS", [], "REQUEST_ID_REUSED")


def test_a_damaged_tensor_can_be_uploaded_again(server, training, tensors, spec):
    damaged = X * 7 + 3
    spec.train.inputs.CopyFrom(put(tensors, damaged))
    sha256 = spec.train.inputs.sha256
    blob = server.data / "blobs" / sha256[:2] / sha256
    blob.write_bytes(bytes(blob.stat().st_size))
    assert failure(training.CreateJob, create(spec)) == ("FAILED_PRECONDITION", [], "TENSOR_DAMAGED")
    assert tensors.FindMissingTensors(FindMissingTensorsRequest(tensors=[spec.train.inputs])).missing
    put(tensors, damaged)
    assert training.CreateJob(create(spec)).name


def test_validation_refuses_a_name_that_is_taken(training, spec):
    training.CreateJob(create(spec, job_id="taken-name"))
    request = create(spec, job_id="taken-name", validate_only=True)
    assert failure(training.CreateJob, request) == ("ALREADY_EXISTS", [], "JOB_ALREADY_EXISTS")
    training.CreateJob(create(spec, job_id="free-name", validate_only=True))
    assert failure(training.GetJob, GetJobRequest(name="jobs/free-name")) == ("NOT_FOUND", [], "JOB_NOT_FOUND")


def test_the_defaults_of_a_created_job_are_explicit(training, spec):
    job = training.CreateJob(create(spec))
    assert [layer.name for layer in job.spec.model.layers] == ["0", "1", "2"]
    assert job.spec.model.layers[0].linear.in_features == 5


@pytest.mark.parametrize(
    ("mutate", "field"),
    [
        (lambda s: setattr(s, "epochs", 0), "epochs"),
        (lambda s: setattr(s, "batch_size", -1), "batch_size"),
        (lambda s: setattr(s.optimizer.sgd, "learning_rate", float("nan")), "optimizer.sgd.learning_rate"),
        (lambda s: setattr(s.model.layers[0].linear, "in_features", 4), "model.layers[0].linear.in_features"),
        (lambda s: setattr(s.model.layers[2].linear, "out_features", 2), "train.targets"),
        (lambda s: s.model.layers.add(), "model.layers[3]"),
        (lambda s: s.train.inputs.shape.append(2), "train.inputs"),
        (lambda s: s.train.targets.shape.__setitem__(0, 20), "train.targets"),
    ],
)
def test_every_invalid_field_is_named_by_its_path(training, spec, mutate, field):
    mutate(spec)
    before = len(training.ListJobs(ListJobsRequest(page_size=1000)).jobs)
    assert failure(training.CreateJob, create(spec)) == ("INVALID_ARGUMENT", [f"job.spec.{field}"], "INVALID_FIELDS")
    assert len(training.ListJobs(ListJobsRequest(page_size=1000)).jobs) == before


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_inputs_that_are_not_finite_are_refused_on_the_server_too(training, tensors, spec, bad):
    broken = X.copy()
    broken[3, 1] = bad
    spec.train.inputs.CopyFrom(put(tensors, broken))
    assert failure(training.CreateJob, create(spec))[1] == ["job.spec.train.inputs"]


@pytest.mark.parametrize("labels", [Y + 1, Y - 1])
def test_labels_out_of_range_are_refused_on_the_server_too(training, tensors, spec, labels):
    spec.train.targets.CopyFrom(put(tensors, labels))
    assert failure(training.CreateJob, create(spec))[1] == ["job.spec.train.targets"]


def test_a_reference_with_a_different_size_is_refused(training, spec):
    spec.train.inputs.shape[:] = [40, 4]
    assert failure(training.CreateJob, create(spec))[:2] == ("INVALID_ARGUMENT", ["job.spec.train.inputs"])


def test_a_tensor_that_is_not_fully_uploaded_is_a_failed_precondition(training, tensors, spec):
    half = RNG.random((40, 5)).astype(np.float32)
    with pytest.raises(grpc.RpcError):
        tensors.UploadTensor(chunks(half, stop=300))
    spec.train.inputs.CopyFrom(tensor_ref(half))
    assert failure(training.CreateJob, create(spec)) == ("FAILED_PRECONDITION", [], "TENSOR_MISSING")
    (missing,) = tensors.FindMissingTensors(FindMissingTensorsRequest(tensors=[tensor_ref(half)])).missing
    assert missing.received_bytes == 300
    tensors.UploadTensor(chunks(half, offset=300))
    assert training.CreateJob(create(spec)).name


@pytest.mark.parametrize(
    ("requests", "code", "fields"),
    [
        ([], "INVALID_ARGUMENT", ["header"]),
        ([UploadTensorRequest(chunk=b"x")], "INVALID_ARGUMENT", ["header"]),
        (chunks(X, reference=TensorRef(dtype=1, shape=[2], sha256="../../x")), "INVALID_ARGUMENT", ["header.tensor"]),
        (chunks(X + 1, offset=10**9), "OUT_OF_RANGE", ["header.offset"]),
        (chunks(X + 1, offset=100), "OUT_OF_RANGE", ["header.offset"]),
        ([*chunks(X + 2), UploadTensorRequest(chunk=b"more")], "INVALID_ARGUMENT", ["chunk"]),
    ],
)
def test_invalid_uploads_are_refused(tensors, requests, code, fields):
    assert failure(tensors.UploadTensor, iter(list(requests)))[:2] == (code, fields)


def test_bytes_with_a_different_digest_are_reported_as_data_loss(tensors):
    wrong = tensor_ref(X + 3)
    assert failure(tensors.UploadTensor, chunks(X, reference=wrong))[0] == "DATA_LOSS"
    assert len(tensors.FindMissingTensors(FindMissingTensorsRequest(tensors=[wrong])).missing) == 1


def test_a_watch_continues_from_any_sequence_number(training, spec):
    name = training.CreateJob(create(spec)).name
    whole = [event for message in training.WatchJob(WatchJobRequest(name=name)) for event in message.events]
    for after in (0, 3, whole[-1].sequence):
        rest = training.WatchJob(WatchJobRequest(name=name, after_sequence=after))
        assert [event for message in rest for event in message.events] == whole[after:]
    *others, last = training.WatchJob(WatchJobRequest(name=name))
    assert last.job == training.GetJob(GetJobRequest(name=name))
    assert not any(message.HasField("job") for message in others)
    beyond = WatchJobRequest(name=name, after_sequence=whole[-1].sequence + 1)
    assert failure(training.WatchJob, beyond) == ("OUT_OF_RANGE", ["after_sequence"], "SEQUENCE_OUT_OF_RANGE")


@pytest.mark.parametrize("name", ["jobs/none", "none", "", "models/x"])
def test_unknown_names_are_not_found(training, models, name):
    assert failure(training.GetJob, GetJobRequest(name=name))[0] == "NOT_FOUND"
    assert failure(training.WatchJob, WatchJobRequest(name=name))[0] == "NOT_FOUND"
    assert failure(models.DownloadModel, DownloadModelRequest(name=name))[0] == "NOT_FOUND"


def test_lists_come_in_pages(training, spec):
    made = [training.CreateJob(create(spec, job_id=f"page-{number}")).name for number in range(5)]
    found, token = [], ""
    while True:
        page = training.ListJobs(ListJobsRequest(page_size=2, page_token=token, filter='name : "page-"'))
        found += [job.name for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
    assert found == made[::-1]


def test_invalid_list_requests_are_refused(training, models):
    assert failure(training.ListJobs, ListJobsRequest(page_size=-1))[1] == ["page_size"]
    assert failure(training.ListJobs, ListJobsRequest(view=9))[1] == ["view"]
    assert failure(models.ListModels, ListModelsRequest(filter="state = RUNNING"))[1] == ["filter"]


def test_a_page_size_above_the_maximum_is_reduced(training, spec):
    training.CreateJob(create(spec))
    assert training.ListJobs(ListJobsRequest(page_size=100_000)).jobs


def test_a_list_has_specs_only_in_the_full_view(training, spec):
    training.CreateJob(create(spec, job_id="viewed"))
    request = ListJobsRequest(filter='name = "jobs/viewed"')
    (basic,) = training.ListJobs(request).jobs
    assert not basic.HasField("spec")
    assert (basic.architecture, basic.epochs) == ("5-6-3", 2)
    request.view = JobView.JOB_VIEW_FULL
    assert training.ListJobs(request).jobs[0].spec.epochs == 2


def test_a_job_that_is_only_validated_is_not_created(training, spec):
    job = training.CreateJob(create(spec, job_id="only-validated", validate_only=True))
    assert (job.name, job.spec.model.layers[0].linear.in_features) == ("", 5)
    assert failure(training.GetJob, GetJobRequest(name="jobs/only-validated"))[0] == "NOT_FOUND"
    spec.epochs = 0
    assert failure(training.CreateJob, create(spec, validate_only=True))[1] == ["job.spec.epochs"]


def test_deleting_twice_is_an_error_unless_missing_is_allowed(training, spec):
    name = training.CreateJob(create(spec)).name
    list(training.WatchJob(WatchJobRequest(name=name)))
    assert training.DeleteJob(DeleteJobRequest(name=name)) == Empty()
    assert failure(training.DeleteJob, DeleteJobRequest(name=name))[::2] == ("NOT_FOUND", "JOB_NOT_FOUND")
    assert training.DeleteJob(DeleteJobRequest(name=name, allow_missing=True)) == Empty()


def test_a_download_can_start_at_any_offset(training, models, spec):
    job = training.CreateJob(create(spec)).name
    list(training.WatchJob(WatchJobRequest(name=job)))
    model = job.replace("jobs/", "models/")
    header, *chunks = models.DownloadModel(DownloadModelRequest(name=model))
    whole = b"".join(part.chunk for part in chunks)
    for offset in (1, len(whole) // 2, len(whole)):
        again, *rest = models.DownloadModel(DownloadModelRequest(name=model, offset=offset))
        assert again == header
        assert b"".join(part.chunk for part in rest) == whole[offset:]
    beyond = DownloadModelRequest(name=model, offset=len(whole) + 1)
    assert failure(models.DownloadModel, beyond)[::2] == ("OUT_OF_RANGE", "OFFSET_OUT_OF_RANGE")


def test_invalid_list_and_delete_requests_for_tensors_are_refused(tensors):
    reference = put(tensors, X + 5)
    page = tensors.ListTensors(ListTensorsRequest(page_size=1))
    assert page.next_page_token == page.tensors[0].name
    more = tensors.ListTensors(ListTensorsRequest(page_token=page.next_page_token))
    assert page.tensors[0] not in more.tensors
    assert f"tensors/{reference.sha256}" in [each.name for each in (*page.tensors, *more.tensors)]
    for request in (ListTensorsRequest(page_size=-1), ListTensorsRequest(page_token="2")):
        assert failure(tensors.ListTensors, request)[0] == "INVALID_ARGUMENT"
    request = DeleteTensorRequest(name=f"tensors/{reference.sha256}")
    tensors.DeleteTensor(request)
    assert failure(tensors.DeleteTensor, request)[::2] == ("NOT_FOUND", "TENSOR_NOT_FOUND")
    request.allow_missing = True
    tensors.DeleteTensor(request)


def test_a_job_whose_events_would_fill_the_store_is_refused_with_the_number_of_epochs_that_fits(training, spec):
    def attempt(epochs):
        spec.epochs = epochs
        return create(spec, validate_only=True)

    with pytest.raises(grpc.RpcError, match=r"would take .* GiB in the store") as caught:
        training.CreateJob(attempt(2**31 - 1))
    status = rpc_status.from_call(caught.value)
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    fits = int(info.metadata["max_epochs"])
    assert failure(training.CreateJob, attempt(fits + 1))[:2] == ("INVALID_ARGUMENT", ["job.spec.epochs"])
    training.CreateJob(attempt(fits))


def test_invalid_predict_and_download_requests_are_refused(training, models, spec):
    job = training.CreateJob(create(spec)).name
    list(training.WatchJob(WatchJobRequest(name=job)))
    model = job.replace("jobs/", "models/")
    nan = np.full((1, 5), np.nan)
    deep = Tensor(dtype=DataType.DATA_TYPE_UINT8, shape=[1] * 65, data=b"1")
    for inputs in (to_tensor(X[:, :2]), to_tensor(nan), to_tensor(X[0]), deep):
        assert failure(models.Predict, PredictRequest(name=model, inputs=inputs))[:2] == (
            "INVALID_ARGUMENT",
            ["inputs"],
        )
    assert failure(models.DownloadModel, DownloadModelRequest(name=model, format=9))[1] == ["format"]
    for wrong in ({"format": 9}, {"offset": -1}):
        request = DownloadCheckpointRequest(name=job, **wrong)
        assert failure(training.DownloadCheckpoint, request)[1] == list(wrong)
    request = DownloadCheckpointRequest(name=job)
    assert failure(training.DownloadCheckpoint, request)[::2] == ("FAILED_PRECONDITION", "NO_CHECKPOINT")


def test_the_checkpoint_of_a_job_can_be_downloaded_only_after_its_end(training, spec):
    spec.epochs = 10**6
    job = training.CreateJob(create(spec)).name
    request = DownloadCheckpointRequest(name=job)
    assert failure(training.DownloadCheckpoint, request)[::2] == ("FAILED_PRECONDITION", "JOB_NOT_ENDED")
    watch = training.WatchJob(WatchJobRequest(name=job))
    next(event for response in watch for event in response.events if event.HasField("checkpoint"))
    watch.cancel()
    training.CancelJob(CancelJobRequest(name=job))
    header, *chunks = training.DownloadCheckpoint(request)
    whole = b"".join(part.chunk for part in chunks)
    assert hashlib.sha256(whole).hexdigest() == header.header.sha256
    assert header.epoch >= 1
    again, *rest = training.DownloadCheckpoint(DownloadCheckpointRequest(name=job, offset=100))
    assert again == header
    assert b"".join(part.chunk for part in rest) == whole[100:]


def test_a_job_that_starts_from_another_has_its_class_names(training, models, spec):
    spec.model.class_names.extend(["bird", "cat", "dog"])
    first = training.CreateJob(create(spec)).name
    list(training.WatchJob(WatchJobRequest(name=first)))
    assert list(models.GetModel(GetModelRequest(name=first.replace("jobs/", "models/"))).spec.class_names) == [
        "bird",
        "cat",
        "dog",
    ]
    names = spec.model.class_names[:]
    spec.epochs += 1
    request = CreateJobRequest(job=Job(spec=spec, continue_job=first), request_id="with-names")
    request.job.spec.model.ClearField("class_names")
    following = training.CreateJob(request)
    assert list(following.spec.model.class_names) == names
    assert training.CreateJob(request).name == following.name
    request.request_id = ""
    request.job.spec.model.class_names.extend(reversed(names))
    assert failure(training.CreateJob, request)[1] == ["job.spec.model.class_names"]
    spec.model.class_names.pop()
    assert failure(training.CreateJob, create(spec))[1] == ["job.spec.model.class_names"]


def test_the_health_service_reports_serving(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "gradwire.v1.TrainingService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


class Reflected:
    """A client without stubs. It asks the server for its services and messages."""

    def __init__(self, channel):
        self.channel = channel
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def message(self, kind, /, **values):
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(f"gradwire.v1.{kind}"))(**values)

    def call(self, service, method, request):
        found = self.pool.FindServiceByName(f"gradwire.v1.{service}").FindMethodByName(method)
        kind = ("stream" if found.client_streaming else "unary", "stream" if found.server_streaming else "unary")
        return getattr(self.channel, "_".join(kind))(
            f"/gradwire.v1.{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(found.output_type).FromString,
        )(request)


def test_a_client_that_has_only_reflection_uploads_trains_watches_and_downloads(channel):
    client = Reflected(channel)
    assert {"gradwire.v1.TrainingService", "gradwire.v1.TensorService", "gradwire.v1.ModelService"} <= set(
        client.database.get_services()
    )
    references = []
    for array, dtype in ((X * 2, 1), (Y, 9)):
        data = array.tobytes()
        reference = {"dtype": dtype, "shape": array.shape, "sha256": hashlib.sha256(data).hexdigest()}
        messages = [
            client.message("UploadTensorRequest", header={"tensor": reference}),
            client.message("UploadTensorRequest", chunk=data),
        ]
        client.call("TensorService", "UploadTensor", iter(messages))
        references.append(reference)
    layers = [{"linear": {"out_features": 6}}, {"relu": {}}, {"linear": {"out_features": 3}}]
    spec = {
        "model": {"layers": layers},
        "loss": {"cross_entropy": {}},
        "optimizer": {"sgd": {"learning_rate": 0.1}},
        "train": {"inputs": references[0], "targets": references[1]},
        "epochs": 3,
        "batch_size": 8,
    }
    job = client.call("TrainingService", "CreateJob", client.message("CreateJobRequest", job={"spec": spec}))
    watch = client.call("TrainingService", "WatchJob", client.message("WatchJobRequest", name=job.name))
    events = [event for message in watch for event in message.events]
    assert [event.epoch.epoch for event in events if event.WhichOneof("kind") == "epoch"] == [1, 2, 3]
    model = events[-1].state_change.model
    download = list(client.call("ModelService", "DownloadModel", client.message("DownloadModelRequest", name=model)))
    data = b"".join(part.chunk for part in download[1:])
    assert hashlib.sha256(data).hexdigest() == download[0].header.sha256
