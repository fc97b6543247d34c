"""The data folder of a server. Only one server at a time can use it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradwire_server.private_files import make_private
from gradwire_server.settings import SettingsError


@contextmanager
def lock_data_folder(data: Path) -> Iterator[None]:
    """Create the data folder if it does not exist, make it private, and hold its lock within the context.

    Raises:
        SettingsError: Another server uses the folder, or the folder is not writable.
    """
    try:
        make_private(data)
    except OSError as error:
        raise SettingsError(
            f"cannot create the data folder {data} (--data, GRADWIRE_DATA): {error.strerror}"
        ) from error
    try:
        lock = (data / "lock").open("a+")
    except OSError as error:
        owner = data.stat().st_uid
        raise SettingsError(
            f"cannot write to the data folder {data}, which belongs to user {owner}, as user {os.getuid()}: {error}"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise SettingsError(
                f"the data folder {data} is in use by another server, process {holder}. Choose another --data"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
