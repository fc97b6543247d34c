"""A server with a token and few file descriptors, for attacks."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import gradwire as gw

TOKEN = "open-sesame"
DESCRIPTORS = 1024


@contextmanager
def guarded_server(*options: str) -> Iterator[gw.LocalServer]:
    """Run a server with a token that can open only a few files and cannot raise that limit."""
    command = ["bash", "-c", f'ulimit -n {DESCRIPTORS}; exec "$0" "$@"', sys.executable, "-m", "gradwire_server"]
    with (
        mock.patch("gradwire._local_server.server_command", return_value=command),
        gw.LocalServer(*options, env={"GRADWIRE_TOKEN": TOKEN}) as running,
    ):
        yield running
