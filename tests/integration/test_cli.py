"""The `gradwire` command as a user runs it: plain output, JSON and exit codes.

Most commands run in this process, because a separate process spends a second on imports.
"""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import long_job
import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import gradwire as gw
from gradwire.cli.main import app

GRADWIRE = str(Path(sys.executable).parent / "gradwire")


def run(*arguments, code=0):
    """Run a command in this process, and return its stdout, or its stderr if it fails."""
    return checked(code, *invoke(*arguments))


def run_process(*arguments, code=0):
    """Run a command in a separate process, and return its stdout, or its stderr if it fails."""
    result = subprocess.run([GRADWIRE, *map(str, arguments)], capture_output=True, text=True, timeout=280, check=False)
    return checked(code, result.returncode, result.stdout, result.stderr)


def invoke(*arguments):
    """Run a command in this process, and return its exit code, stdout and stderr."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        patch.setattr(sys, "argv", ["gradwire", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            app()
    return caught.value.code or 0, output.getvalue(), errors.getvalue()


def checked(expected_code, code, output, errors):
    assert code == expected_code, output + errors
    assert "Traceback" not in errors
    return output if code == 0 else errors


@pytest.fixture(scope="module")
def data_file(digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, x_train=digits.train[0], y_train=digits.train[1], x_test=digits.test[0], y_test=digits.test[1])
    return path


@pytest.fixture(scope="module")
def trained(server, data_file):
    output = run_process(
        *("train", "--data", data_file, "--layers", "64,32,10", "--lr", "0.2", "--epochs", "3", "--batch-size", "32"),
        *("--name", "from-the-shell", "--label", "team=vision", "--label", "year=2026", "--at", server.address),
    )
    assert output.count("epoch ") == 3
    assert "gradwire models download from-the-shell" in output
    return "from-the-shell"


def test_train_gives_the_same_epochs_on_a_server_and_in_this_process(server, data_file, tmp_path):
    arguments = ("train", "--data", data_file, "--layers", "64,16,10", "--epochs", "2", "--json")
    remote, local = (
        json.loads(run(*arguments, "--at", at, "-o", tmp_path / "model.safetensors"))
        for at in (server.address, "local")
    )
    assert [epoch["test"] for epoch in remote["epochs"]] == [epoch["test"] for epoch in local["epochs"]]
    assert remote["job"].startswith("job-")
    assert (local["job"], local["seed"], len(local["epochs"])) == (None, 0, 2)
    assert gw.load_model(tmp_path / "model.safetensors")(np.zeros((1, 64))).shape == (1, 10)


def test_train_sets_rows_aside_with_a_validation_split(digits, tmp_path):
    np.savez(tmp_path / "d.npz", x_train=digits.train[0], y_train=digits.train[1])
    arguments = ("train", "--data", tmp_path / "d.npz", "--layers", "64,10", "--epochs", "1", "--at", "local")
    assert "test loss" not in run(*arguments)
    assert "test loss" in run(*arguments, "--validation-split", "0.2")


def test_train_says_that_a_name_has_no_effect_without_a_server(data_file):
    arguments = ("--data", data_file, "--layers", "64,10", "--epochs", "1", "--at", "local", "--name", "x")
    code, _, errors = invoke("train", *arguments)
    assert code == 0
    assert errors.splitlines() == [
        "--name and --label have no effect without a server",
        "without a server, the model is not kept. To keep it, use -o FILE",
    ]


def test_train_checks_the_output_before_it_trains(data_file, tmp_path):
    arguments = ("train", "--data", data_file, "--layers", "64,10", "--at", "local", "-o")
    assert "does not exist. Create it first" in run(*arguments, tmp_path / "nowhere" / "m.safetensors", code=1)
    assert "a model is saved as .safetensors" in run(*arguments, tmp_path / "m.pt", code=1)


def test_jobs_are_listed_shown_and_watched(server, trained):
    at = ("--at", server.address)
    assert trained in run("jobs", "list", *at)
    listed = json.loads(run("jobs", "list", "--filter", f'name : "{trained}"', "--json", *at))
    assert [job["state"] for job in listed] == ["SUCCEEDED"]
    assert "SUCCEEDED" in run("jobs", "show", trained, *at)
    assert "team=vision, year=2026" in run("jobs", "show", trained, *at)
    assert json.loads(run("jobs", "show", trained, "--json", *at))["architecture"] == "64-32-10"
    assert run("jobs", "watch", trained, *at).count("epoch ") == 3
    assert len(run("jobs", "watch", trained, "--json", *at).splitlines()) == 3
    assert "SUCCEEDED" in run("jobs", "watch", trained, "--events", *at)
    assert "is SUCCEEDED" in run("jobs", "cancel", trained, *at)


def test_watching_a_paused_job_says_that_it_is_paused(server, client):
    job = long_job.submit(client, "paused-while-watched", epochs=10**6)
    next(job.epochs())
    job.pause()
    command = [GRADWIRE, "jobs", "watch", job.name, "--at", server.address]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as watching:
        assert "is paused. To resume it: gradwire jobs resume paused-while-watched" in watching.stderr.readline()
        job.cancel()
        assert watching.wait(60) == 1


def test_jobs_and_models_are_found_by_their_labels(server, trained):
    for collection in ("jobs", "models"):
        for condition, found in (('labels.team = "vision"', True), ('labels.team = "sound"', False)):
            output = run(collection, "list", "--filter", condition, "--at", server.address)
            assert (trained in output) == found, condition


def test_one_command_deletes_several_jobs_and_can_be_repeated(server, data_file):
    for name in ("gone-1", "gone-2"):
        run(
            *("train", "--data", data_file, "--layers", "64,10", "--epochs", "1"),
            *("--name", name, "--at", server.address),
        )
    at = ("--at", server.address)
    for kind in ("job", "model"):
        assert run(f"{kind}s", "delete", "gone-1", "gone-2", *at) == "deleted gone-1\ndeleted gone-2\n"
        missing = f"gradwire: {kind} 'gone-1' does not exist\ngradwire: {kind} 'gone-2' does not exist\n"
        assert invoke(f"{kind}s", "delete", "gone-1", "gone-2", *at) == (0, "", missing)
        assert "gone-" not in run(f"{kind}s", "list", *at)


def test_models_are_listed_shown_downloaded_and_run(server, trained, data_file, tmp_path):
    at = ("--at", server.address)
    assert trained in run("models", "list", *at)
    assert "sha256" in run("models", "show", trained, *at)
    assert json.loads(run("models", "list", "--json", *at))
    assert "wrote" in run("models", "download", trained, "-o", tmp_path, *at)
    assert (tmp_path / f"{trained}.safetensors").exists()
    run("models", "download", trained, "-o", tmp_path / "x.onnx", *at)
    assert b"Gemm" in (tmp_path / "x.onnx").read_bytes()
    run("models", "download", trained, "-o", tmp_path / "x.npz", *at)
    inputs = np.load(data_file)["x_test"][:5].astype(np.float32)
    outputs = gw.load_model(tmp_path / "x.npz")(inputs)
    run("models", "download", trained, "-o", tmp_path / "p.onnx", "--probabilities", *at)
    onnx.checker.check_model(str(tmp_path / "p.onnx"), full_check=True)
    computed, probabilities = ReferenceEvaluator(str(tmp_path / "p.onnx")).run(None, {"inputs": inputs})
    assert np.allclose(computed, outputs, atol=1e-5)
    assert np.allclose(probabilities, np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True), atol=1e-5)
    assert "## Training" in run("models", "card", trained, *at)
    predicted = json.loads(run("models", "predict", trained, "--data", data_file, "--probabilities", "--json", *at))
    assert np.allclose(predicted["probabilities"][:5], probabilities, atol=1e-5)
    classes = run("models", "predict", trained, "--data", data_file, "--classes", *at).split()
    assert len(classes) == 360
    assert len(json.loads(run("models", "predict", trained, "--data", data_file, "--json", *at))["outputs"]) == 360


def test_class_names_in_a_csv_file_are_stored_and_predicted(server, tmp_path):
    data, model = tmp_path / "animals.csv", tmp_path / "m.safetensors"
    lines = [f"{weight},{weight / 9},{'cat' if weight < 5 else 'dog'}" for weight in range(10)]
    data.write_text("\n".join(["weight,height,animal", *lines]))
    at = ("--at", server.address)
    arguments = ("--data", data, "--target", "animal", "--layers", "2,2", "--epochs", "2", "--name", "animals")
    run("train", *arguments, "-o", model, *at)
    assert gw.load_model(model).class_names == ("cat", "dog")
    predict = ("models", "predict", "animals", "--data", data, "--drop", "animal", "--classes", *at)
    assert set(run(*predict).split()) <= {"cat", "dog"}
    assert len(json.loads(run(*predict, "--json"))["classes"]) == 10
    assert "cat, dog" in run("models", "show", "animals", *at)
    assert "wrote" in run("jobs", "download", "animals", "-o", tmp_path / "x.onnx", *at)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("jobs", "list", "--at", "127.0.0.1:1"), "no gradwire server answers at 127.0.0.1:1"),
        (("jobs", "list"), "no server address"),
        (("jobs", "list", "--at", "localhost"), "does not have the form host:port"),
        (("jobs", "list", "--at", "localhost:1", "--tls", "/nowhere/ca.pem"), "tls: cannot read /nowhere/ca.pem"),
        (("train", "--data", "absent.npz", "--layers", "4,2"), "cannot read absent.npz"),
        (
            ("train", "--data", "absent.npz", "--layers", "4,2", "--label", "team"),
            "--label must be key=value, got 'team'",
        ),
        (("token", "show", "--data", "/nowhere"), "cannot read the token in /nowhere/token"),
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
        (("--layers", "64,10", "--lr", "-1"), "--lr must be finite and greater than 0"),
        (("--layers", "64,10", "--epochs", "0"), "epochs: must be at least 1"),
        (("--layers", "64,10", "--validation-split", "2"), "validation_split: must be a number between 0 and 1"),
        (("--layers", "64,9"), "train targets: "),
    ],
)
def test_invalid_training_options_are_refused(data_file, options, message):
    assert message in run("train", "--data", data_file, *options, "--at", "local", code=1)


def test_an_unknown_job_is_named(server):
    assert "nobody" in run_process("jobs", "show", "nobody", "--at", server.address, code=1)


def test_serve_shows_the_servers_help():
    assert "--cpus-per-job" in run_process("serve", "--help")


def test_version_prints_the_version():
    assert gw.__version__ in run_process("--version")


@pytest.mark.parametrize("command", [("jobs", "list"), ("models", "predict"), ("health",), ("train",)])
def test_the_help_of_a_command_that_calls_a_server_names_its_settings(command):
    text = run(*command, "--help")
    for expected in ("--at", "GRADWIRE_ADDRESS", "--token", "GRADWIRE_TOKEN", "--tls", "GRADWIRE_TLS"):
        assert expected in text


def test_the_help_of_list_explains_filters_on_labels():
    assert "labels.team" in run("jobs", "list", "--help")


def test_the_command_offers_shell_completion():
    assert "--install-completion" in run("--help")
