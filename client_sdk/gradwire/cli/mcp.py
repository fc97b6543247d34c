"""`gradwire mcp`, which lets an agent use a server through the Model Context Protocol."""

import asyncio
import signal
from importlib.util import find_spec

from gradwire._client import AsyncClient
from gradwire._exceptions import GradwireError
from gradwire.cli.output import At, Tls, Token


def mcp(at: At = None, token: Token = None, tls: Tls = None) -> None:
    """Let an agent train, watch, stop, compare and predict: an MCP server on stdin and stdout.

    The agent starts this command. Its tools read only data files that the user of the command can read.
    """
    if find_spec("mcp") is None:
        raise GradwireError("gradwire mcp needs the package mcp. Install it with: pip install 'gradwire[mcp]'")
    # Ctrl-C ends the process at once, because the MCP SDK waits for the next line on stdin before it ends.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(_serve(AsyncClient(at, token=token, tls=tls)))


async def _serve(client: AsyncClient) -> None:
    from gradwire.cli.mcp_tools import mcp_server  # noqa: PLC0415  (slow to import, and needs the extra)

    async with client:
        await mcp_server(client).run_stdio_async()
