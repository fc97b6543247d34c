"""An agent that starts `gradwire mcp` and calls its tools over stdin and stdout, with the client of the MCP SDK."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

GRADWIRE = str(Path(sys.executable).parent / "gradwire")


def test_an_agent_trains_watches_compares_predicts_and_stops(server, digits, tmp_path):
    (x_train, y_train), (x_test, y_test) = digits
    np.savez(tmp_path / "digits.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)

    async def agent():
        parameters = StdioServerParameters(
            command=GRADWIRE, args=["mcp", "--at", server.address], cwd=tmp_path, env=dict(os.environ)
        )
        async with stdio_client(parameters) as streams, ClientSession(*streams) as session:

            async def call(tool, **arguments):
                result = await session.call_tool(tool, arguments)
                return result.content[0].text if result.isError else json.loads(result.content[0].text)

            async def ended(name):
                while (job := await call("watch", name=name))["state"] in ("QUEUED", "STARTING", "RUNNING"):
                    pass
                return job

            await session.initialize()
            tools = [tool.name for tool in (await session.list_tools()).tools]
            assert " ".join(tools) == "list_jobs get_job watch compare list_models predict train stop"
            settings = {"data": "digits.npz", "layers": "64,16,10", "batch_size": 32}
            await call("train", **settings, epochs=3, lr=0.2, name="by-an-agent")
            job = await ended("by-an-agent")
            assert (job["state"], job["epochs"], job["model"]) == ("SUCCEEDED", "3/3", "by-an-agent")
            assert [epoch["epoch"] for epoch in job["latest_epochs"]] == [1, 2, 3]
            rows = x_test[:50].tolist()
            predicted = (await call("predict", name="by-an-agent", rows=rows, classes=True))["classes"]
            assert np.mean(np.array(predicted) == y_test[:50]) > 0.7
            assert "by-an-agent" in [model["name"] for model in await call("list_models")]

            await call("train", **settings, epochs=10**6, name="stopped-by-an-agent")
            await call("stop", name="stopped-by-an-agent")
            job = await ended("stopped-by-an-agent")
            assert (job["state"], job["stop_reason"]) == ("SUCCEEDED", "REQUESTED")
            names = ["by-an-agent", "stopped-by-an-agent"]
            assert {job["name"] for job in await call("list_jobs")} >= set(names)
            first, _ = await call("compare", names=names)
            assert (first["name"], first["last"]["epoch"]) == ("by-an-agent", 3)
            assert first["best"]["test_accuracy"] > 0.7
            assert "job 'nobody' does not exist" in await call("get_job", name="nobody")

    asyncio.run(agent())


def test_ctrl_c_ends_the_command_while_it_waits_for_the_agent():
    command = [GRADWIRE, "mcp", "--at", "localhost:1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == -signal.SIGINT
