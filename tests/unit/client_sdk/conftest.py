"""Fixtures for the tests of the SDK."""

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from scripted_server import ScriptedServer


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.stop()


@pytest.fixture
def notebook(monkeypatch):
    """A list of the outputs in a cell: each is "new" or "update", and its HTML."""
    outputs = []

    class Handle:
        def update(self, html):
            outputs.append(("update", html))

    def display(html, display_id):
        outputs.append(("new", html))
        return Handle()

    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str, display=display))
    return outputs
