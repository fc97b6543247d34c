"""The system under test: Ray, servers behind a proxy, and the store. Each part can be stopped and restarted."""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from cluster import Cluster
from disk import Disk, small_disk
from postgres import Postgres
from proxy import Proxy

import gradwire as gw

_MAX_STOP_SECONDS = 20
# The maximum time for a server to notice that its cluster is lost and to exit.
_MAX_NOTICE_SECONDS = 90


class Deployment:
    """Servers that share a store and a cluster. Clients connect to the proxy, because its address does not change."""

    def __init__(
        self,
        cluster: Cluster,
        servers: list[gw.LocalServer],
        chance: random.Random,
        *,
        disk: Disk | None = None,
        postgres: Postgres | None = None,
    ) -> None:
        self.cluster, self.servers, self.disk, self.postgres = cluster, servers, disk, postgres
        self._chance = chance
        self.proxy = Proxy()
        for server in servers:
            server.start()
        self.proxy.point_to(servers[0].address)

    @property
    def address(self) -> str:
        """The address of a server, which bypasses the proxy."""
        return self.servers[0].address

    def stop_server(self, number: signal.Signals) -> None:
        """Stop one of the servers with a signal, direct its clients to another server, and restart it."""
        server = self._chance.choice(self.servers)
        _stop(server, number)
        others = [other for other in self.servers if other is not server]
        if others:
            self._point_to(others[0])
        server.start()
        if not others:
            self._point_to(server)

    def freeze_server(self) -> None:
        """Freeze one of the servers for a while, sometimes until another server takes over."""
        server = self._chance.choice(self.servers)
        assert server.process is not None
        seconds = self._chance.choice([0.5, 1, 2, 9]) if len(self.servers) > 1 else self._chance.uniform(0.1, 2)
        freeze([psutil.Process(server.process.pid)], seconds)

    def tear_last_write(self) -> None:
        """Kill the server and its worker, and damage files in the same way as a power failure during a write.

        The database log then ends with half a frame, the staging area contains half a file, and the newest checkpoint
        is truncated.
        """
        server = self.servers[0]
        _stop(server, signal.SIGKILL)
        kill(self.cluster.workers())
        blobs = server.data / "blobs"
        with (server.data / "gradwire.db-wal").open("ab") as log:
            log.write(self._chance.randbytes(2000))
        for folder in (blobs / "staging").iterdir():
            (folder / "tmp-torn").write_bytes(self._chance.randbytes(1000))
        for folder in (blobs / "checkpoints").glob("*"):
            newest = max(folder.iterdir(), default=None)
            if newest is not None:
                os.truncate(newest, newest.stat().st_size // 2)
        server.start()
        self._point_to(server)

    def fill_disk(self) -> None:
        """Fill the disk for a while."""
        assert self.disk is not None
        self.disk.fill()
        time.sleep(self._chance.uniform(0.5, 3))
        self.disk.free()

    def kill_worker(self) -> None:
        """Kill the workers."""
        kill(self.cluster.workers())

    def freeze_worker(self) -> None:
        """Freeze the workers for a while."""
        freeze(self.cluster.workers(), self._chance.uniform(0.1, 1))

    def kill_node(self) -> None:
        """Kill the node that runs jobs, including its Ray processes and workers, and restart it."""
        self.cluster.kill_node()
        self.cluster.start_node()

    def kill_cluster(self) -> None:
        """Kill all Ray processes, including the head. The servers exit and are restarted, as by a supervisor."""
        self.cluster.kill()
        for server in self.servers:
            assert server.process is not None
            server.process.wait(_MAX_NOTICE_SECONDS)
        self.cluster.start()
        for server in self.servers:
            server.start()
        self._point_to(self.servers[0])

    def crash_postgres(self) -> None:
        """Crash Postgres, and restart it."""
        assert self.postgres is not None
        self.postgres.stop()
        time.sleep(self._chance.uniform(0, 2))
        self.postgres.start()

    def freeze_postgres(self) -> None:
        """Freeze all processes of Postgres for a while."""
        assert self.postgres is not None
        main = psutil.Process(self.postgres.pid)
        freeze([main, *main.children(recursive=True)], self._chance.uniform(0.1, 2))

    def swallow(self) -> None:
        """Silently drop all traffic between clients and servers for a while."""
        self.proxy.swallow(True)
        time.sleep(self._chance.uniform(0.1, 1))
        self.proxy.swallow(False)
        self.proxy.cut()  # Bytes were lost, so the connections cannot continue.

    def crashed(self) -> list[str]:
        """Return the logs of servers that exited unexpectedly, and restart these servers."""
        logs = []
        for server in self.servers:
            assert server.process is not None
            if server.process.poll() is not None:
                logs.append(f"exit code {server.process.returncode}\n{server.log.read_text()[-6000:]}")
                server.start()
        return logs

    def close(self) -> None:
        """Stop all servers."""
        for server in self.servers:
            server.stop()
        self.proxy.close()

    def _point_to(self, server: gw.LocalServer) -> None:
        self.proxy.point_to(server.address)
        self.proxy.cut()


@contextlib.contextmanager
def one_server(folder: Path, chance: random.Random) -> Iterator[Deployment]:
    """One server with a SQLite store, on a small disk if a disk can be mounted."""
    folder.mkdir()
    with small_disk(folder / "disk") as disk, _cluster(folder) as cluster:
        data = folder / "disk" / "data"
        server = gw.LocalServer(f"--ray={cluster.address}", data=data, env=cluster.environment)
        with contextlib.closing(Deployment(cluster, [server], chance, disk=disk)) as deployment:
            yield deployment


@contextlib.contextmanager
def two_servers(folder: Path, chance: random.Random) -> Iterator[Deployment]:
    """Two servers that share a Postgres store. One schedules jobs, and the other can take over."""
    (folder / "postgres").mkdir(parents=True)
    postgres = Postgres(folder / "postgres")
    postgres.start()
    try:
        with _cluster(folder) as cluster:
            shared = (f"--ray={cluster.address}", f"--blobs=file://{folder / 'blobs'}")
            environment = {**cluster.environment, "GRADWIRE_STORE": postgres.url}
            servers = [gw.LocalServer(*shared, data=folder / name, env=environment) for name in ("a", "b")]
            with contextlib.closing(Deployment(cluster, servers, chance, postgres=postgres)) as deployment:
                yield deployment
    finally:
        postgres.stop()


@contextlib.contextmanager
def _cluster(folder: Path) -> Iterator[Cluster]:
    cluster = Cluster(folder / "ray")
    try:
        yield cluster
    finally:
        cluster.kill()


def kill(processes: list[psutil.Process]) -> None:
    """Send SIGKILL to each process."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def freeze(processes: list[psutil.Process], seconds: float) -> None:
    """Send SIGSTOP to each process, wait, and send SIGCONT."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.suspend()
    time.sleep(seconds)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.resume()


def _stop(server: gw.LocalServer, number: signal.Signals) -> None:
    process = server.process
    assert process is not None
    process.send_signal(number)
    try:
        process.wait(_MAX_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # On SIGABRT, the server prints the stacks of its threads.
        process.wait()
        log = server.log.read_text()[-6000:]
        raise AssertionError(f"{number.name}: the server did not exit within {_MAX_STOP_SECONDS} s\n{log}") from None
