"""Computes the digests of exported files, and remembers them."""

import asyncio
import hashlib
import itertools
from collections import OrderedDict

from gradwire_server.models.export import ModelFile
from gradwire_server.threads import in_thread

# The number of files whose digests are remembered.
_MAX_FILES = 1000
# The number of blocks that are hashed at a time. After a call is cancelled, no further blocks are hashed.
_BLOCKS = 8


class Digests:
    """The digests of the files that clients download. A file is hashed once, even if several calls need its digest."""

    def __init__(self) -> None:
        self._known: OrderedDict[object, str] = OrderedDict()
        self._hashing = asyncio.Lock()

    async def of(self, file: ModelFile) -> str:
        """Return the SHA-256 digest of a file as hexadecimal digits."""
        key = file.identity
        if key not in self._known:
            async with self._hashing:
                found = self._known.get(key) or await _digest(file)
                self._known[key] = found
                if len(self._known) > _MAX_FILES:
                    self._known.popitem(last=False)
                return found
        self._known.move_to_end(key)
        return self._known[key]


async def _digest(file: ModelFile) -> str:
    digest = hashlib.sha256()
    blocks = file.blocks()

    def update() -> int:
        some = list(itertools.islice(blocks, _BLOCKS))
        for block in some:
            digest.update(block)
        return len(some)

    while await in_thread(update):
        pass
    return digest.hexdigest()
