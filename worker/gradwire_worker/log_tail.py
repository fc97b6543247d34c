"""Reads the end of a worker's log, even after the worker has died."""

from pathlib import Path

import ray

_TAIL_BYTES = 1 << 16
_TAIL_LINES = 40
# Prefixes of lines to omit: Ray's markers, and the long list of modules that Python prints after a crash.
_IGNORED_PREFIXES = (":", "Extension modules:")


def own_log() -> tuple[str, str]:
    """Return the ID of this worker's node, and the path of the worker's standard error file on that node."""
    return ray.get_runtime_context().get_node_id(), str(Path("/proc/self/fd/2").readlink())


def last_lines(path: str) -> str:
    """Return the last lines of a log file on this node, or "" if the file does not exist."""
    file = Path(path)
    if not file.is_file():
        return ""
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - _TAIL_BYTES))
        text = log.read().decode(errors="replace")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(_IGNORED_PREFIXES)]
    return "\n".join(lines[-_TAIL_LINES:])
