"""What other users and other machines can access on a server that starts its own Ray."""

import ipaddress
from pathlib import Path

import grpc
import psutil
import pytest

import gradwire as gw


def processes_of(server: gw.LocalServer) -> list[psutil.Process]:
    process = psutil.Process(server.process.pid)
    return [process, *process.children(recursive=True)]


@pytest.fixture(scope="module")
def raylet(server):
    """The Ray process that starts the workers."""
    (found,) = [each for each in processes_of(server) if each.name() == "raylet"]
    return found


def option(process: psutil.Process, name: str) -> str:
    (value,) = {part.partition("=")[2] for part in process.cmdline() if part.startswith(f"--{name}=")}
    return value


def test_the_server_its_workers_and_ray_listen_on_the_loopback_interface_only(server, client):
    client.health()
    ports = {}
    for process in processes_of(server):
        for connection in process.net_connections("inet"):
            if connection.status in ("LISTEN", "NONE"):  # UDP sockets have no status.
                ports.setdefault(process.name(), []).append(connection.laddr.ip)
    assert {"gcs_server", "raylet", "ray::Trainer"} <= set(ports)
    for name, addresses in ports.items():
        for address in addresses:
            ip = ipaddress.ip_address(address)
            assert (getattr(ip, "ipv4_mapped", None) or ip).is_loopback, f"{name} listens on {address}"


def test_only_processes_with_the_token_of_this_server_can_use_its_ray(server, raylet):
    file = server.data / "ray-token"
    for process in processes_of(server):
        if process.name() in ("raylet", "gcs_server", "ray::Trainer"):
            environment = process.environ()
            assert environment["RAY_AUTH_MODE"] == "token"
            assert Path(environment["RAY_AUTH_TOKEN_PATH"]).samefile(file)
            assert "RAY_AUTH_TOKEN" not in environment
    assert file.stat().st_mode & 0o777 == 0o600
    with grpc.insecure_channel(option(raylet, "gcs-address")) as channel:
        nodes = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")
        assert nodes(b"", metadata=[("authorization", f"Bearer {file.read_text()}")], timeout=10)
        for metadata in ([], [("authorization", f"Bearer {'0' * 64}")]):
            with pytest.raises(grpc.RpcError) as caught:
                nodes(b"", metadata=metadata, timeout=10)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_the_files_of_ray_are_in_a_private_folder(server, raylet):
    session = Path(option(raylet, "session_dir"))
    assert session.is_relative_to(server.data)
    # Ray itself gives all users access to its folder, session.parent.
    for path in session.parents[1:3]:
        assert path.stat().st_mode & 0o777 == 0o700


def test_only_the_user_of_the_server_can_read_its_files(server, client):
    client.jobs.list()
    inside = [path for path in server.data.rglob("*") if not path.is_relative_to(server.data / "ray")]
    assert {"gradwire.db", "gradwire.db-wal", "mark"} <= {path.name for path in inside}
    for path in (server.data, *inside):
        if path != server.log:  # The client writes the log.
            expected = 0o700 if path.is_dir() else 0o600
            assert path.stat().st_mode & 0o777 == expected, path
