"""A Postgres server that tests can start."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


class Postgres:
    """A Postgres server in a folder. Postgres refuses to run as root, so root runs it as user postgres."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.data = PROGRAMS[-1].parent, folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.prefix: list[str] = []
        if os.getuid() == 0:
            # A separate program changes the user, because forking a process that has gRPC threads is not safe.
            self.prefix = ["runuser", "-u", "postgres", "--"]
            shutil.chown(folder, "postgres", "postgres")
        self.folder = folder
        self.run("initdb", "-D", self.data, "-U", "gradwire", "-A", "trust", "-N")

    @property
    def url(self) -> str:
        return self.database("postgres")

    def database(self, name: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://gradwire:pg-password@127.0.0.1:{self.port}/{name}"

    @property
    def pid(self) -> int:
        """The process id of the main process."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def create(self, name: str) -> str:
        """Create a database, and return its URL."""
        self.run("createdb", "-h", "127.0.0.1", "-p", self.port, "-U", "gradwire", name)
        return self.database(name)

    def run(self, program: str, *arguments: object) -> None:
        command = [*self.prefix, str(self.bin / program), *map(str, arguments)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder)

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        self.run("pg_ctl", "-D", self.data, "-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self) -> None:
        """Stop the server immediately, as in a crash."""
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")
