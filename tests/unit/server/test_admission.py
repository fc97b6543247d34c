"""The checks of a job's data before the job is created."""

import asyncio

import numpy as np

from gradwire_engine.spec.tensors import tensor_ref, wire_bytes
from gradwire_proto.v1.spec_pb2 import Dataset, JobSpec
from gradwire_server.jobs.admission import Admission
from gradwire_server.storage.blob_store import BlobStore


def test_bytes_that_were_used_before_are_judged_by_their_shape(database, tmp_path):
    blobs = BlobStore((tmp_path / "blobs").as_uri(), tmp_path / "scratch")
    admission = Admission(
        database=database,
        blobs=blobs,
        disk_space=None,
        warm_start=None,
        cluster_has_gpu=lambda: False,
        limits=None,
        worker_memory=lambda: 0,
    )

    def spec_of(targets):
        inputs = np.ones((len(targets), 3), np.float32)
        spec = JobSpec(train=Dataset(inputs=tensor_ref(inputs), targets=tensor_ref(targets)))
        spec.model.layers.add().linear.out_features = targets.shape[1]
        spec.loss.mean_squared_error.SetInParent()
        for array in (inputs, targets):
            blobs.put(tensor_ref(array).sha256, wire_bytes(array))
        return spec

    async def scenario():
        one_hot = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]
        for targets, classification in ((one_hot, True), (one_hot.reshape(2, 4), False), (one_hot, True)):
            assert await admission._check_tensors(spec_of(targets)) == classification

    asyncio.run(scenario())
