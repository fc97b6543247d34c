"""The `gradwire` command as a user types it: real processes, plain lines, JSON, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gradwire as gw

GRADWIRE = str(Path(sys.executable).parent / "gradwire")


def run(*arguments, code=0):
    result = subprocess.run([GRADWIRE, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout if code == 0 else result.stderr


@pytest.fixture(scope="module")
def data_file(digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, x_train=digits.train[0], y_train=digits.train[1], x_test=digits.test[0], y_test=digits.test[1])
    return path


@pytest.fixture(scope="module")
def trained(server, data_file):
    output = run(
        *("train", "--data", data_file, "--layers", "64,32,10", "--lr", "0.2", "--epochs", "3"),
        *("--batch-size", "32", "--name", "from-the-shell", "--at", server.address),
    )
    assert output.count("epoch ") == 3
    assert "job and model from-the-shell" in output
    return "from-the-shell"


def test_train_here_and_there_prints_the_same_epochs(server, data_file, tmp_path):
    arguments = ("train", "--data", data_file, "--layers", "64,16,10", "--epochs", "2", "--json")
    outputs = [
        [json.loads(line) for line in run(*arguments, "--at", at, "-o", tmp_path / "model.safetensors").splitlines()]
        for at in (server.address, "local")
    ]
    assert outputs[0][1]["test"] == outputs[1][1]["test"]
    assert gw.load_model(tmp_path / "model.safetensors")(np.zeros((1, 64))).shape == (1, 10)


def test_jobs_are_listed_shown_and_watched(server, trained):
    at = ("--at", server.address)
    assert trained in run("jobs", "list", *at)
    listed = json.loads(run("jobs", "list", "--filter", f'name : "{trained}"', "--json", *at))
    assert [job["state"] for job in listed] == ["SUCCEEDED"]
    assert "SUCCEEDED" in run("jobs", "show", trained, *at)
    assert json.loads(run("jobs", "show", trained, "--json", *at))["layers"] == "64-32-10"
    assert run("jobs", "watch", trained, *at).count("epoch ") == 3
    assert len(run("jobs", "watch", trained, "--json", *at).splitlines()) == 3
    assert "SUCCEEDED" in run("jobs", "watch", trained, "--events", *at)
    assert "is SUCCEEDED" in run("jobs", "cancel", trained, *at)


def test_models_are_listed_shown_downloaded_and_asked(server, trained, data_file, tmp_path):
    at = ("--at", server.address)
    assert trained in run("models", "list", *at)
    assert "sha256" in run("models", "show", trained, *at)
    assert json.loads(run("models", "list", "--json", *at))
    assert "wrote" in run("models", "download", trained, "-o", tmp_path, *at)
    assert (tmp_path / f"{trained}.safetensors").exists()
    run("models", "download", trained, "-o", tmp_path / "x.onnx", "--format", "onnx", *at)
    classes = run("models", "predict", trained, "--data", data_file, "--classes", *at).split()
    assert len(classes) == 360
    assert len(json.loads(run("models", "predict", trained, "--data", data_file, "--json", *at))["outputs"]) == 360


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("jobs", "list", "--at", "127.0.0.1:1"), "no gradwire server answers at 127.0.0.1:1"),
        (("jobs", "list"), "no address"),
        (("train", "--data", "absent.npz", "--layers", "4,2"), "cannot read absent.npz"),
        (("train", "--data", "absent.npz", "--layers", "4,x", "--at", "local"), "cannot read"),
    ],
)
def test_errors_are_one_line_with_exit_code_1(arguments, message):
    errors = run(*arguments, code=1)
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layers", "64,x"), "--layers must be whole numbers"),
        (("--layers", "64"), "two or more"),
        (("--layers", "63,10"), "in_features"),
        (("--layers", "64,10", "--loss", "hinge"), "--loss must be one of"),
        (("--layers", "64,10", "--lr", "-1"), "--lr must be above 0"),
        (("--layers", "64,10", "--epochs", "0"), "epochs"),
        (("--layers", "64,9"), "class indices 0..8"),
    ],
)
def test_training_options_that_make_no_sense_are_said(data_file, options, message):
    assert message in run("train", "--data", data_file, *options, "--at", "local", code=1)


def test_unknown_jobs_are_said(server):
    assert "there is no 'jobs/nobody'" in run("jobs", "show", "nobody", "--at", server.address, code=1)


def test_serve_shows_the_servers_own_help_and_version_is_printed():
    assert "--cpus-per-job" in run("serve", "--help")
    assert gw.__version__ in run("--version")
