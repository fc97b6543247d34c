"""What a worker has written to its log, for the time when it cannot be asked any more."""

from pathlib import Path

import ray

_TAIL_BYTES = 1 << 16
_TAIL_LINES = 40
# Ray's own marks, and the modules that Python lists after a crash, all in one line.
_UNTOLD = (":", "Extension modules:")


def own_log() -> tuple[str, str]:
    """Return the node that this worker is on, and the file there that its standard error goes to."""
    return ray.get_runtime_context().get_node_id(), str(Path("/proc/self/fd/2").readlink())


def last_lines(path: str) -> str:
    """Return the end of a log file on this node, or "" where there is none."""
    file = Path(path)
    if not file.is_file():
        return ""
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - _TAIL_BYTES))
        text = log.read().decode(errors="replace")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(_UNTOLD)]
    return "\n".join(lines[-_TAIL_LINES:])
