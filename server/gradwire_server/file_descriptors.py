"""File descriptors: each connection and each open file needs one, and a server that has none left does not work."""

import resource

from gradwire_server.limits import MAX_CONNECTIONS, MAX_DESCRIPTORS, MIN_DESCRIPTORS, RESERVED_DESCRIPTORS
from gradwire_server.settings import SettingsError


def raise_limit() -> None:
    """Raise this process's soft limit on file descriptors as far as is useful and permitted.

    Raises:
        SettingsError: The hard limit is too low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if wanted < MIN_DESCRIPTORS:
        raise SettingsError(
            f"this process may open only {hard} files and connections, but a server needs {MIN_DESCRIPTORS}. "
            "Raise the hard limit: ulimit -Hn, or LimitNOFILE in systemd"
        )
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def max_connections() -> int:
    """Return the number of connections that clients may open, which leaves enough descriptors for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    available = MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    return min(available - RESERVED_DESCRIPTORS, MAX_CONNECTIONS)
