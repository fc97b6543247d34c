"""Runs the code blocks of the documentation, in order, against a real server."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gradwire as gw

ROOT = Path(__file__).parents[2]
BUF = ROOT / ".npm" / "node_modules" / ".bin" / "buf"


def blocks(file, language):
    found = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / file).read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return "\n".join(found)


@pytest.fixture(scope="module")
def own_server():
    """A new server, because the pages assume a server without jobs."""
    with gw.LocalServer() as running:
        yield running


@pytest.mark.skipif(not BUF.exists(), reason="buf is not installed: make lint installs it where npm is available")
def test_every_command_of_the_protocol_page_works(own_server, tmp_path):
    http = re.search(r"the web page is at (\S+)", own_server.log.read_text())[1]
    env = {
        **os.environ,
        "SERVER": f"http://{own_server.address}",
        "HTTP": http,
        "PATH": f"{BUF.parent}:{os.environ['PATH']}",
    }
    script = "set -e -o pipefail\n" + blocks("docs/protocol.md", "sh")
    run = subprocess.run(
        ["bash", "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert '"status": "SERVING"' in run.stdout
    assert '"state": "JOB_STATE_SUCCEEDED"' in run.stdout
    assert '"sequence": "191"' in run.stdout
    assert '"accuracy": 1' in run.stdout
    assert '"code": "not_found"' in run.stderr
    assert '"code": "not_found"' in run.stdout
    assert "id: 191\ndata: {" in run.stdout
    assert "event: end\n" in run.stdout
    assert (tmp_path / "xor.onnx").stat().st_size > 100


@pytest.mark.parametrize("file", ["README.md", "docs/quickstart.md"])
def test_the_python_code_in_the_guides_runs(own_server, tmp_path, file):
    env = {**os.environ, "GRADWIRE_ADDRESS": own_server.address, "MPLBACKEND": "Agg"}
    script = blocks(file, "python").replace("localhost:50051", own_server.address)
    run = subprocess.run(
        [sys.executable, "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
