"""The data folder of a server. Only one server at a time can use it."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradwire_server.private_files import make_private
from gradwire_server.settings import SettingsError


@contextmanager
def lock_data_folder(data: Path) -> Iterator[None]:
    """Create the data folder if it does not exist, make it private, and hold its lock within the context.

    Raises:
        SettingsError: Another server uses the folder, or the folder is not writable or belongs to another user.
    """
    try:
        data.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
        _check_owner(data)
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


def _check_owner(data: Path) -> None:
    """Raise SettingsError if the folder belongs to another user, who could replace its files and read all data.

    The folder can belong to root, as a volume of a container often does.
    """
    owner, user = data.stat().st_uid, os.getuid()
    if owner not in (0, user):
        raise SettingsError(
            f"the data folder {data} (--data, GRADWIRE_DATA) belongs to user {owner}, who could read and change all "
            f"data of this server, which runs as user {user}. Choose another folder, or change its owner: "
            f"chown {user} {data}"
        )
