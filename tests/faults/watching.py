"""Watchers that follow a job during faults: threads in this process, and a client process that can be killed."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import gradwire as gw

_ATTEMPTS = 20


class Watcher(threading.Thread):
    """Follows the events of a job with the SDK until the job ends."""

    def __init__(self, address: str, name: str) -> None:
        super().__init__(daemon=True)
        self.sequences: list[int] = []
        self.epochs: list[int] = []
        self.error = ""
        self.ended = threading.Event()
        self._address, self._name = address, name

    def run(self) -> None:
        try:
            with gw.Client(self._address) as client:
                for event in _events(client, self._name, 0):
                    self.sequences.append(event.sequence)
                    if event.epoch is not None:
                        self.epochs.append(event.epoch.epoch)
        except gw.GradwireError as error:
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self.ended.set()


class Client:
    """A process that writes the number of each event to a file. After a kill, a new process continues from the file."""

    def __init__(self, address: str, name: str, notes: Path) -> None:
        self._command = [sys.executable, __file__, address, name, str(notes)]
        self._notes = notes
        self.start()

    def start(self) -> None:
        """Start the process."""
        self._process = subprocess.Popen(self._command)

    def kill(self) -> None:
        """Kill the process, and start a new one."""
        self._process.kill()
        self._process.wait()
        self.start()

    def sequences(self) -> list[int]:
        """Wait for the job to end, and return all event numbers in the file."""
        self._process.wait(120)
        return _read(self._notes)


def _read(notes: Path) -> list[int]:
    return [int(line) for line in notes.read_text().splitlines()] if notes.exists() else []


def _follow(address: str, name: str, notes: Path) -> None:
    seen = _read(notes)
    with gw.Client(address) as client, notes.open("a", buffering=1) as file:
        for event in _events(client, name, seen[-1] if seen else 0):
            file.write(f"{event.sequence}\n")


def _events(client: gw.Client, name: str, after: int) -> Iterator[gw.JobEvent]:
    """Yield the events of a job after a sequence number.

    The SDK gives up if a server does not answer for a minute, which can happen on a busy machine. Then try again.
    """
    for remaining in reversed(range(_ATTEMPTS)):
        try:
            for event in client.jobs.get(name).events(after=after):
                after = event.sequence
                yield event
            return
        except gw.UnavailableError:
            if not remaining:
                raise


if __name__ == "__main__":
    _follow(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
