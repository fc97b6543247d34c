"""Compares the estimate of a job's memory with the memory that processes actually use."""

import subprocess
import sys

import pytest

from gradwire_engine.spec.memory import job_memory
from gradwire_engine.spec.resolve import resolve
from gradwire_proto.v1.spec_pb2 import Dataset, JobSpec, Layer, Linear, ModelSpec
from gradwire_proto.v1.tensor_pb2 import DataType, TensorRef


def spec_of(widths, rows, batch_size, dtype=DataType.DATA_TYPE_FLOAT32):
    spec = JobSpec(
        model=ModelSpec(layers=[Layer(linear=Linear(out_features=width)) for width in widths[1:]]),
        train=Dataset(
            inputs=TensorRef(dtype=DataType.DATA_TYPE_UINT8, shape=[rows, widths[0]]),
            targets=TensorRef(dtype=DataType.DATA_TYPE_INT64, shape=[rows]),
        ),
        batch_size=batch_size,
        epochs=1,
        dtype=dtype,
    )
    spec.loss.cross_entropy.SetInParent()
    spec.optimizer.sgd.learning_rate = 0.001
    return resolve(spec)


# Trains an epoch and makes a checkpoint, as a worker does, and prints the growth of its peak memory.
_TRAIN = """
import sys
import numpy as np
from gradwire_engine.plans import warm_up
from gradwire_engine.spec.prepare import JobData, prepare
from gradwire_engine.spec.tensors import wire_bytes
from gradwire_engine.training import train
from gradwire_proto.v1.spec_pb2 import JobSpec

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024

def run(spec):
    rows, features = spec.train.inputs.shape
    inputs = np.zeros((rows, features), np.uint8)
    job = prepare(spec, JobData((inputs, np.zeros(rows, np.int64)), None, None), True)
    list(train(job.chosen.plan, job.config, job.train_set, None, initial_epoch=0))
    weights = job.chosen.plan.weights()
    return bytes(wire_bytes(weights))

warm_up()
before = status("VmRSS")
run(JobSpec.FromString(bytes.fromhex(sys.argv[1])))
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("plan", "spec"),
    [
        ("compiled", spec_of([1000, 3000, 3000, 10], rows=64, batch_size=32)),  # Mostly parameters.
        ("compiled", spec_of([500, 500, 500, 10], rows=8000, batch_size=8000)),  # Mostly values.
        ("reference", spec_of([300, 4000, 1], rows=500, batch_size=200, dtype=DataType.DATA_TYPE_FLOAT64)),
    ],
    ids=["parameters", "values", "reference"],
)
def test_the_estimate_covers_the_memory_that_a_job_uses_but_not_many_times_more(spec, plan, monkeypatch):
    monkeypatch.setenv("GRADWIRE_PLAN", plan)
    script = [sys.executable, "-c", _TRAIN, spec.SerializeToString().hex()]
    used = int(subprocess.run(script, capture_output=True, check=True, timeout=120, text=True).stdout)
    assert used > 20 << 20
    assert used < job_memory(spec) + (16 << 20)
    assert job_memory(spec) < 5 * used


def test_a_layer_is_padded_to_whole_lines():
    narrow, wide = job_memory(spec_of([1_000_000, 1], 8, 8)), job_memory(spec_of([1_000_000, 16], 8, 8))
    assert narrow > 64_000_000
    assert wide > narrow
    assert job_memory(spec_of([30_000, 30_000], 8, 8, DataType.DATA_TYPE_FLOAT64)) > 5 * 7_200_000_000
