"""Exported files equal those that the libraries write, and the weights are never in memory all at once."""

import asyncio
import hashlib
import itertools
import tracemalloc

import numpy as np
import onnx
import pytest
from google.protobuf.json_format import MessageToJson
from onnx import helper, numpy_helper
from safetensors.numpy import save

from gradwire_engine.spec.resolve import network
from gradwire_engine.spec.tensors import tensor_ref
from gradwire_engine.spec.tracing import unpacked_weights
from gradwire_proto.v1.model_service_pb2 import Model
from gradwire_proto.v1.spec_pb2 import Layer
from gradwire_server.models.digests import Digests
from gradwire_server.models.export import ModelFile, onnx_file, safetensors_file


def model_of(widths, dtype, folder):
    model = Model(name="models/test")
    for position, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        if position:
            model.spec.layers.append(Layer(name=f"relu{position}", relu={}))
        linear = {"in_features": inputs, "out_features": outputs}
        model.spec.layers.append(Layer(name=f"fc{position + 1}", linear=linear))
    size = sum((inputs + 1) * outputs for inputs, outputs in itertools.pairwise(widths))
    weights = np.random.default_rng(0).random(size).astype(dtype)
    model.weights.CopyFrom(tensor_ref(weights))
    file = folder / "weights"
    weights.tofile(file)
    return model, weights, file


def written_by_onnx(model, weights):
    net = network(model.spec)
    element = helper.np_dtype_to_tensor_dtype(weights.dtype)
    nodes, current = [], "inputs"
    for position, layer in enumerate(model.spec.layers):
        result = "outputs" if position == len(model.spec.layers) - 1 else f"{layer.name}.output"
        if layer.HasField("linear"):
            arguments = [current, f"{layer.name}.W", f"{layer.name}.b"]
            nodes.append(helper.make_node("Gemm", arguments, [result], name=layer.name, transB=1))
        else:
            nodes.append(helper.make_node("Relu", [current], [result], name=layer.name))
        current = result
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("inputs", element, ["rows", net.in_features])],
        [helper.make_tensor_value_info("outputs", element, ["rows", net.out_features])],
        [numpy_helper.from_array(part, name) for name, part in unpacked_weights(weights, model.spec, net).items()],
    )
    file = helper.make_model(graph, producer_name="gradwire", opset_imports=[helper.make_opsetid("", 17)])
    file.ir_version = 8
    return file.SerializeToString()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("widths", [(3, 2), (5, 6, 3), tuple(range(2, 15)), (700, 500, 3)])
def test_the_files_have_the_bytes_that_the_libraries_write(tmp_path, widths, dtype):
    model, weights, file = model_of(widths, dtype, tmp_path)
    spec = MessageToJson(model.spec, indent=None, preserving_proto_field_name=True)
    tensors = unpacked_weights(weights, model.spec, network(model.spec))
    for exported, expected in (
        (safetensors_file(model, file), save(tensors, metadata={"gradwire.model_spec": spec})),
        (onnx_file(model, file), written_by_onnx(model, weights)),
    ):
        assert b"".join(exported.blocks()) == expected
        assert exported.size == len(expected)
        assert asyncio.run(Digests().of(exported)) == hashlib.sha256(expected).hexdigest()
        for offset in (1, 100, len(expected) // 2, len(expected) - 1, len(expected)):
            assert b"".join(exported.blocks(offset)) == expected[offset:]
        if exported.name.endswith(".onnx"):
            onnx.checker.check_model(onnx.load_from_string(expected))


def test_a_large_file_needs_little_memory(tmp_path):
    model, _, file = model_of((2000, 2000, 3), "float32", tmp_path)
    for exported in (safetensors_file(model, file), onnx_file(model, file)):
        assert exported.size > 16e6
        tracemalloc.start()
        try:
            assert {len(block) for block in exported.blocks()} <= {1 << 20, exported.size % (1 << 20)}
            assert tracemalloc.get_traced_memory()[1] < 5e6
        finally:
            tracemalloc.stop()


def test_a_file_is_hashed_once(tmp_path, monkeypatch):
    model, _, file = model_of([7, 3], np.float32, tmp_path)
    reads = []
    blocks = ModelFile.blocks
    monkeypatch.setattr(ModelFile, "blocks", lambda exported: reads.append(exported) or blocks(exported))

    async def scenario():
        digests = Digests()
        first, second = await asyncio.gather(*(digests.of(safetensors_file(model, file)) for _ in range(2)))
        assert first == second == await digests.of(safetensors_file(model, file))
        assert len(reads) == 1
        assert await digests.of(onnx_file(model, file)) != first
        assert len(reads) == 2
        await digests.of(safetensors_file(Model(name="models/other", spec=model.spec, weights=model.weights), file))
        model.spec.layers[0].name = "renamed"
        await digests.of(safetensors_file(model, file))
        assert len(reads) == 3

    asyncio.run(scenario())


def test_a_cancelled_call_hashes_no_further_blocks(tmp_path, monkeypatch):
    model, _, file = model_of([1 << 18, 30], np.float32, tmp_path)
    monkeypatch.setattr("gradwire_server.models.digests._BLOCKS", 1)
    read = []
    blocks = ModelFile.blocks

    def counted(exported):
        for block in blocks(exported):
            read.append(len(block))
            yield block

    monkeypatch.setattr(ModelFile, "blocks", counted)

    async def scenario():
        call = asyncio.create_task(Digests().of(safetensors_file(model, file)))
        while not read:
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()

    asyncio.run(scenario())
    assert len(read) < 20
