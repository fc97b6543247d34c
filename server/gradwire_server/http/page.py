"""The files of the web page, which are kept in memory in plain and compressed form."""

import gzip
import hashlib
import mimetypes
import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response

from gradwire_server.http.errors import CallError

_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class _File:
    content: bytes
    compressed: bytes
    media_type: str
    tag: str

    @classmethod
    def new(cls, content: bytes, media_type: str) -> "_File":
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        return cls(content, gzip.compress(content, 9, mtime=0), media_type, tag)


class Page:
    """Serves index.html at "/", and the other files at "/static/".

    Args:
        grpc_port: The gRPC port, which the page shows to new users.
    """

    def __init__(self, grpc_port: int) -> None:
        self._files = dict(_read(resources.files("gradwire_server.http") / "static", ""))
        index = self._files["index.html"].content
        port = f'name="grpc-port" content="{grpc_port}"'.encode()
        self._files["index.html"] = _File.new(re.sub(rb'name="grpc-port" content="\d+"', port, index), "text/html")

    @property
    def compressed_bytes(self) -> int:
        """The size of all files, compressed."""
        return sum(len(file.compressed) for file in self._files.values())

    async def serve(self, request: Request) -> Response:
        """Return a file."""
        file = self._files.get(request.path_params.get("path", "index.html"))
        if file is None:
            raise CallError("not_found", "there is no such file")
        # The browser asks each time whether a file has changed, so that it never mixes files of two versions.
        headers = {"etag": file.tag, "cache-control": "no-cache", "vary": "accept-encoding"}
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(
                file.compressed, headers={**headers, "content-encoding": "gzip"}, media_type=file.media_type
            )
        return Response(file.content, headers=headers, media_type=file.media_type)


def _read(folder: Traversable, path: str) -> list[tuple[str, _File]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _read(entry, f"{path}{entry.name}/")
            continue
        content = entry.read_bytes()
        suffix = f".{entry.name.rpartition('.')[2]}"
        media_type = _TYPES.get(suffix) or mimetypes.guess_type(entry.name)[0] or "text/plain"
        found.append((path + entry.name, _File.new(content, media_type)))
    return found
