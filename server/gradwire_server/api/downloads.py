"""Downloads: a file as a stream that can start at any offset."""

from collections.abc import AsyncIterator

from gradwire_proto.v1.model_service_pb2 import FileHeader
from gradwire_server.errors import OffsetOutOfRangeError, invalid_field
from gradwire_server.models.digests import Digests
from gradwire_server.models.export import ModelFile
from gradwire_server.threads import in_thread


def check_offset(offset: int) -> None:
    """Raise InvalidFieldsError if the offset is negative."""
    if offset < 0:
        raise invalid_field("offset", f"must be at least 0, got {offset}")


async def header_of(file: ModelFile, offset: int, digests: Digests) -> FileHeader:
    """Return the header of a file, or raise OffsetOutOfRangeError."""
    size = file.size
    if offset > size:
        text = f"offset is {offset}, but the file has {size} bytes"
        raise OffsetOutOfRangeError("offset", text, offset=offset, size_bytes=size)
    return FileHeader(file_name=file.name, size_bytes=size, sha256=await digests.of(file))


async def chunks_of(file: ModelFile, offset: int) -> AsyncIterator[bytes]:
    """Yield the contents of a file, starting at an offset."""
    blocks = file.blocks(offset)
    while (block := await in_thread(next, blocks, None)) is not None:
        yield block
