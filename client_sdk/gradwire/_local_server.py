"""A server for scripts and tests, which runs as a process and stops when the context ends."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from gradwire._exceptions import GradwireError, UnavailableError

_READY = re.compile(r"gradwire is ready on (\S+)")
_STOP_SECONDS = 20


def server_command() -> list[str]:
    """Return the command that runs a server.

    Raises:
        GradwireError: The server is not installed.
    """
    if find_spec("ray") is None or find_spec("sqlalchemy") is None:
        raise GradwireError("the server is not installed. Install it with: pip install 'gradwire[server]'")
    return [sys.executable, "-m", "gradwire_server"]


class LocalServer:
    """A gradwire server on a free port of this machine.

    Args:
        options: Options of `gradwire serve`, for example "--cpus-per-job=2".
        data: The folder for the server's database and files. Default: a temporary folder, which is deleted at the end.
        env: Environment variables to add.

    Attributes:
        address: The server's "host:port", or an empty string before the server has started.
        data: The server's data folder.
        log: The file that contains the server's output.
        process: The server's process, or None while the server is not running.

    Raises:
        GradwireError: The server is not installed.
        UnavailableError: The server did not start. The message contains its log.

    Example:
        with gw.LocalServer() as server:
            gw.fit(model, (X, y), loss=gw.CrossEntropy(), optimizer=gw.SGD(model), at=server.address)
    """

    def __init__(self, *options: str, data: str | Path | None = None, env: dict[str, str] | None = None) -> None:
        import tempfile  # noqa: PLC0415  (slow to import, and most programs start no server)

        self._options = options
        self._env = {**os.environ, **(env or {})}
        self._temporary = tempfile.TemporaryDirectory(prefix="gradwire-") if data is None else None
        self.data = Path(self._temporary.name if self._temporary else str(data))
        self.log = self.data / "server.log"
        self.address = ""
        self.process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def __repr__(self) -> str:
        state = f"running at {self.address}" if self.process is not None else "stopped"
        return f"LocalServer({state}, data={str(self.data)!r})"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.stop()
        if self._temporary is not None:
            self._temporary.cleanup()

    def start(self) -> None:
        """Start the server and wait until it accepts jobs."""
        self.address = ""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)  # The server would use the same mode.
        command = [*server_command(), "--port=0", f"--data={self.data}", *self._options]
        # The server runs in its own session. Ctrl-C then reaches only the script, which stops the server properly.
        self.process = subprocess.Popen(
            command, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(ready,), daemon=True)
        self._reader.start()
        ready.wait()
        if not self.address:
            self.process.wait()
            self.process = None
            raise UnavailableError(f"the server did not start:\n{self.log.read_text().strip()}")

    def stop(self) -> None:
        """Stop the server with SIGTERM or, if that takes too long, with SIGKILL."""
        if self.process is None or self._reader is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(_STOP_SECONDS)
        self.process = None

    def _read(self, ready: threading.Event) -> None:
        """Copy the server's output to the log and set `ready` when the server accepts jobs or has ended."""
        assert self.process is not None
        assert self.process.stdout is not None
        with self.log.open("a") as log, self.process.stdout as lines:
            for line in lines:
                with contextlib.suppress(OSError):  # Even if the disk is full, read on, or the server blocks.
                    log.write(line)
                    log.flush()
                match = _READY.search(line)
                if match:
                    self.address = match[1]
                    ready.set()
        ready.set()
