"""Writes the golden messages: what a client of a version sends and gets. Run once for each version, never again.

python tests/golden/make.py v1
"""

import sys
from pathlib import Path

from google.protobuf import json_format

from gradwire_proto.v1.training_service_pb2 import CreateJobRequest, WatchJobResponse

FOLDER = Path(__file__).parent

CREATE = {
    "jobId": "golden",
    "requestId": "golden-1",
    "job": {
        "spec": {
            "model": {
                "layers": [
                    {"name": "fc1", "linear": {"inFeatures": "3", "outFeatures": "8"}},
                    {"name": "relu1", "relu": {}},
                    {"name": "fc2", "linear": {"outFeatures": "2", "initialization": "INITIALIZATION_SIMPLE"}},
                ]
            },
            "loss": {"crossEntropy": {}},
            "optimizer": {"sgd": {"learningRate": 0.25}},
            "train": {
                "inputs": {"dtype": "DATA_TYPE_FLOAT32", "shape": ["4", "3"], "sha256": "a" * 64},
                "targets": {"dtype": "DATA_TYPE_INT64", "shape": ["4"], "sha256": "b" * 64},
            },
            "epochs": 7,
            "batchSize": 2,
            "shuffle": True,
            "seed": "18446744073709551615",
            "dtype": "DATA_TYPE_FLOAT32",
            "device": "DEVICE_CPU",
            "evaluateEvery": 2,
        }
    },
}
WATCHED = {
    "events": [
        {"sequence": "1", "time": "2026-11-24T08:00:00Z", "stateChange": {"state": "JOB_STATE_QUEUED"}},
        {
            "sequence": "9007199254740993",
            "time": "2026-11-24T08:00:01Z",
            "attempt": 1,
            "epoch": {
                "epoch": 1,
                "runningLoss": "NaN",
                "train": {"loss": 0.5, "accuracy": 0.75},
                "trainSeconds": 0.125,
            },
        },
    ]
}
MESSAGES = {"create_job_request": (CreateJobRequest, CREATE), "watch_job_response": (WatchJobResponse, WATCHED)}


def main() -> None:
    for name, (kind, content) in MESSAGES.items():
        message = json_format.ParseDict(content, kind())
        FOLDER.joinpath(f"{name}.{sys.argv[1]}.binpb").write_bytes(message.SerializeToString(deterministic=True))
        FOLDER.joinpath(f"{name}.{sys.argv[1]}.json").write_text(json_format.MessageToJson(message) + "\n")


if __name__ == "__main__":
    main()
