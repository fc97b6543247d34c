"""What the faults come over: Ray, servers behind a proxy, and the store. Each can be ended, and comes back."""

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

_MOST_SECONDS_TO_END = 20
# How long a server may take to see that its cluster is lost, and to end for that.
_MOST_SECONDS_TO_MISS = 90


class Deployment:
    """Servers on one store and one cluster. Clients come through the proxy, whose address stays."""

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
        """A server that is there, without the proxy."""
        return self.servers[0].address

    def end_server(self, number: signal.Signals) -> None:
        """Send one of the servers a signal that ends it, send its clients elsewhere, and start it again."""
        server = self._chance.choice(self.servers)
        _end(server, number)
        others = [other for other in self.servers if other is not server]
        if others:
            self._point_to(others[0])
        server.start()
        if not others:
            self._point_to(server)

    def stop_server(self) -> None:
        """Let one of the servers stand still for a while; now and then until another one takes over."""
        server = self._chance.choice(self.servers)
        assert server.process is not None
        seconds = self._chance.choice([0.5, 1, 2, 9]) if len(self.servers) > 1 else self._chance.uniform(0.1, 2)
        stand_still([psutil.Process(server.process.pid)], seconds)

    def tear_last_write(self) -> None:
        """Kill the server and its worker, and leave what a machine that loses power in the middle of writing may leave.

        Half a frame at the end of the database's log, half a file in the staging area, and, worse than that, the newest
        checkpoint cut in half.
        """
        server = self.servers[0]
        _end(server, signal.SIGKILL)
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
        """Leave nothing free on the disk for a while."""
        assert self.disk is not None
        self.disk.fill()
        time.sleep(self._chance.uniform(0.5, 3))
        self.disk.make_room()

    def kill_worker(self) -> None:
        """Kill whatever trains."""
        kill(self.cluster.workers())

    def stop_worker(self) -> None:
        """Let whatever trains stand still for a while."""
        stand_still(self.cluster.workers(), self._chance.uniform(0.1, 1))

    def kill_node(self) -> None:
        """Kill the node that runs jobs, Ray's processes and workers, and start it again."""
        self.cluster.kill_node()
        self.cluster.start_node()

    def kill_cluster(self) -> None:
        """Kill all of Ray, its head too; the servers end then, and are started again as a supervisor would do it."""
        self.cluster.kill()
        for server in self.servers:
            assert server.process is not None
            server.process.wait(_MOST_SECONDS_TO_MISS)
        self.cluster.start()
        for server in self.servers:
            server.start()
        self._point_to(self.servers[0])

    def crash_postgres(self) -> None:
        """Let Postgres crash, and start it again."""
        assert self.postgres is not None
        self.postgres.stop()
        time.sleep(self._chance.uniform(0, 2))
        self.postgres.start()

    def stop_postgres(self) -> None:
        """Let all of Postgres stand still for a while."""
        assert self.postgres is not None
        main = psutil.Process(self.postgres.pid)
        stand_still([main, *main.children(recursive=True)], self._chance.uniform(0.1, 2))

    def swallow(self) -> None:
        """Let nothing through to the clients for a while, without a word."""
        self.proxy.swallow(True)
        time.sleep(self._chance.uniform(0.1, 1))
        self.proxy.swallow(False)
        self.proxy.cut()  # What was swallowed is missing: the connection is of no use any more.

    def fallen(self) -> list[str]:
        """The logs of servers that have ended by themselves; they are started again."""
        logs = []
        for server in self.servers:
            assert server.process is not None
            if server.process.poll() is not None:
                logs.append(f"exit code {server.process.returncode}\n{server.log.read_text()[-6000:]}")
                server.start()
        return logs

    def close(self) -> None:
        """End all servers."""
        for server in self.servers:
            server.stop()
        self.proxy.close()

    def _point_to(self, server: gw.LocalServer) -> None:
        self.proxy.point_to(server.address)
        self.proxy.cut()


@contextlib.contextmanager
def one_server(folder: Path, chance: random.Random) -> Iterator[Deployment]:
    """A server with its store in a file, on a disk that can run full where one can be mounted."""
    folder.mkdir()
    with small_disk(folder / "disk") as disk, _cluster(folder) as cluster:
        data = folder / "disk" / "data"
        server = gw.LocalServer(f"--ray={cluster.address}", data=data, env=cluster.environment)
        with contextlib.closing(Deployment(cluster, [server], chance, disk=disk)) as deployment:
            yield deployment


@contextlib.contextmanager
def two_servers(folder: Path, chance: random.Random) -> Iterator[Deployment]:
    """Two servers on a Postgres: one schedules, the other takes over."""
    (folder / "postgres").mkdir(parents=True)
    postgres = Postgres(folder / "postgres")
    postgres.start()
    try:
        with _cluster(folder) as cluster:
            shared = (f"--ray={cluster.address}", f"--store={postgres.url}", f"--blobs=file://{folder / 'blobs'}")
            servers = [gw.LocalServer(*shared, data=folder / name, env=cluster.environment) for name in ("a", "b")]
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
    """SIGKILL."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def stand_still(processes: list[psutil.Process], seconds: float) -> None:
    """SIGSTOP, and SIGCONT after a while."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.suspend()
    time.sleep(seconds)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.resume()


def _end(server: gw.LocalServer, number: signal.Signals) -> None:
    process = server.process
    assert process is not None
    process.send_signal(number)
    try:
        process.wait(_MOST_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # It then prints where its threads are.
        process.wait()
        log = server.log.read_text()[-6000:]
        raise AssertionError(f"{number.name}: the server was not out after {_MOST_SECONDS_TO_END} s\n{log}") from None
