"""The peak memory of a process, as Linux measures it."""

from pathlib import Path


def peak_mb(pid: int) -> float:
    """Return the peak resident memory of a process, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))


def reset_peak(pid: int) -> None:
    """Make the current resident memory of a process its peak."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


class PeakMemory:
    """Measures the growth of a process's peak memory within a context, in MB."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.growth = 0.0

    def __enter__(self) -> "PeakMemory":
        reset_peak(self._pid)
        self._before = peak_mb(self._pid)
        return self

    def __exit__(self, *_: object) -> None:
        self.growth = peak_mb(self._pid) - self._before
