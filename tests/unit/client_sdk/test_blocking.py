"""The blocking classes: signatures, help, streams, and closing."""

import asyncio
import inspect
import pydoc
import subprocess
import sys
import typing

import pytest

import gradwire as gw
from gradwire import _fit, _jobs, _models, _tensors
from gradwire._blocking import Portal, Stream

PAIRS = [
    (gw.Client, gw.AsyncClient),
    (gw.Job, gw.AsyncJob),
    (_jobs.Jobs, _jobs.AsyncJobs),
    (_models.Models, _models.AsyncModels),
    (_tensors.Tensors, _tensors.AsyncTensors),
]


def public(kind):
    return {name for name in vars(kind) if not name.startswith("_")}


@pytest.mark.parametrize(("blocking", "asynchronous"), PAIRS)
def test_a_blocking_class_has_the_same_methods_as_its_async_class(blocking, asynchronous):
    assert public(blocking) == public(asynchronous)


@pytest.mark.parametrize(("blocking", "asynchronous"), PAIRS)
def test_no_blocking_method_looks_like_a_coroutine_or_returns_an_async_object(blocking, asynchronous):
    for name in public(blocking):
        method = vars(blocking)[name]
        if isinstance(method, property):
            continue
        assert not inspect.iscoroutinefunction(method)
        assert inspect.getdoc(method)
        returned = inspect.signature(method).return_annotation
        assert "Async" not in returned, name
        assert "Any" not in str(inspect.signature(method)), name
        assert typing.get_type_hints(method)["return"] is not None
        parameters = inspect.signature(getattr(asynchronous, name)).parameters
        assert inspect.signature(method).parameters == parameters


def test_submit_and_get_return_a_job_and_list_returns_jobs():
    client = gw.Client("127.0.0.1:9")
    for method, returned in ((client.jobs.submit, gw.Job), (client.jobs.get, gw.Job), (client.jobs.list, list[gw.Job])):
        assert typing.get_type_hints(method)["return"] == returned
    assert next(iter(inspect.signature(client.jobs.submit).parameters)) == "model"
    client.close()


def test_help_on_the_client_names_its_arguments_namespaces_and_an_example():
    text = pydoc.render_doc(gw.Client, renderer=pydoc.plaintext)
    namespace = "jobs\n |      Training jobs"
    for expected in ("max_retries: ", "Example:", "client.jobs.submit(", namespace, "health(self) -> 'str'"):
        assert expected in text
    assert "Async" not in text


def test_training_options_are_the_same_everywhere():
    """`fit` and `submit` list the options for help() and editors. TrainingOptions contains the defaults."""
    options = inspect.signature(gw.TrainingOptions).parameters
    for function in (_fit.fit, _jobs.AsyncJobs.submit):
        parameters = inspect.signature(function).parameters
        for name, option in options.items():
            assert (parameters[name].default, parameters[name].annotation) == (option.default, option.annotation), name


def test_a_stream_works_with_for_and_async_for():
    async def numbers():
        for batch in ([0, 1], [], [2]):
            yield batch

    portal = Portal()
    assert list(Stream(numbers(), portal)) == [0, 1, 2]

    async def collect():
        return [number async for number in Stream(numbers(), portal)]

    assert asyncio.run(collect()) == [0, 1, 2]
    portal.close()
    portal.close()


def test_opening_and_closing_clients_prints_nothing():
    script = """
import contextlib, threading
import gradwire as gw

def come_and_go():
    with contextlib.suppress(gw.UnavailableError), gw.Client("127.0.0.1:9") as client:
        client.jobs.list()

threads = [threading.Thread(target=come_and_go) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
come_and_go()
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=280, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_using_a_closed_client_is_a_clear_error():
    client = gw.Client("127.0.0.1:9")
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.jobs.list()


def test_a_forked_process_is_told_how_to_start_instead():
    script = """
import multiprocessing
import gradwire as gw

client = gw.Client("127.0.0.1:9", max_retries=0)
try:
    client.jobs.list()
except gw.UnavailableError:
    pass

def child():
    for use in (client, gw.Client("127.0.0.1:9")):
        try:
            use.jobs.list()
        except gw.GradwireError as error:
            print(error, flush=True)
    client.close()

process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(20)
print(process.exitcode)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=280, check=False)
    lines = run.stdout.splitlines()
    assert lines[-1] == "0", run.stdout + run.stderr
    assert len(lines) == 3
    assert all('get_context("spawn")' in line for line in lines[:2])


def test_reprs_say_what_an_object_is():
    client = gw.Client("127.0.0.1:9")
    assert repr(client) == "Client('127.0.0.1:9')"
    assert repr(gw.AsyncClient("127.0.0.1:9")) == "AsyncClient('127.0.0.1:9')"
    client.close()
    server = gw.LocalServer(data="/tmp/somewhere")
    assert repr(server) == "LocalServer(stopped, data='/tmp/somewhere')"
