"""Random HTTP requests: calls in JSON, damaged JSON, and odd paths, methods, headers and event IDs."""

import contextlib
import json
import random
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from fuzz.random_calls import METHODS, Requests
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import MessageToDict, SerializeToJsonError

_PATHS = [
    "/", "//", "/static/", "/static/app.js", "/static/../../etc/passwd", "/static/%2e%2e/%2e%2e/etc/passwd", "/%00",
    "/gradwire.v1.TrainingService/", "/gradwire.v1.TrainingService/GetJob/", "/gradwire.v1.Nothing/GetJob", "*",
    "/grpc.health.v1.Health/Check", "http://evil.example/", "/\N{LATIN SMALL LETTER E WITH ACUTE}", "/" + "a" * 9000,
    "/?a=b&a=c&%ff=%00", "",
]  # fmt: skip
_VERBS = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "CONNECT", "BREW", "get", "A" * 500]
_BODIES = [
    b"", b"null", b"[]", b"{", b"0", b'"a"', b"{}", b"{}{}", b"[" * 100_000, b'{"name":' * 3000, b'{"name": 1e999}',
    b'{"name": "\\ud800"}', b'{"name": "a", "name": "b"}', b"\xff\xfe{\0}\0", b'{"pageSize": ' + b"9" * 5000 + b"}",
    b'{"job": {"spec": {"epochs": NaN}}}', b"\0" * 5000, b'{"@type": "type.googleapis.com/google.protobuf.Any"}',
]  # fmt: skip
_CONTENT_TYPES = [
    "", "text/plain", "application/json; charset=utf-16", "application/JSON", "application/proto", "a" * 5000, "/",
    "multipart/form-data; boundary=a", "application/x-www-form-urlencoded", "application/grpc",
]  # fmt: skip
_EVENT_IDS = ["0", "1", "3", "-1", "", " ", "abc", "1.5", "9" * 19, "9" * 5000, "\N{SUPERSCRIPT TWO}", "1\t2"]
_ODD_HEADERS = [
    "Content-Encoding: gzip", "Expect: 100-continue", "Connect-Timeout-Ms: 1", "Connect-Timeout-Ms: -1",
    "Connect-Timeout-Ms: 99999999999", "Origin: https://evil.example", "Upgrade: websocket\r\nConnection: upgrade",
    "Range: bytes=5-", "If-None-Match: *", "Accept-Encoding: br;q=nan", "Cookie: " + "a=b;" * 900, "X: " + "a" * 70_000,
    "Sec-Fetch-Site: cross-site", " folded", "No colon", "Transfer-Encoding: gzip", "Content-Length: 3",
]  # fmt: skip


@dataclass(frozen=True)
class HttpRequest:
    """A request as the bytes that are sent.

    Attributes:
        data: The bytes.
        complete: Whether the server has everything that it needs for a response.
    """

    data: bytes
    complete: bool


class HttpRequests:
    """Random requests.

    Args:
        rng: The random number generator.
        messages: The source of messages.
        host: The server's "host:port".
        token: The server's token, if it has one.
    """

    def __init__(self, rng: random.Random, messages: Requests, host: str, token: str | None) -> None:
        self._rng = rng
        self._messages = messages
        self.host = host
        self._token = token

    def request(self) -> HttpRequest:
        """Return a random request. Most of them are calls of methods that exist, with a few odd parts."""
        rng = self._rng
        method = rng.choice(METHODS)
        verb = "GET" if method.server_streaming else "POST"
        path = f"/{method.containing_service.full_name}/{method.name}"
        headers = self._usual_headers()
        body = b""
        if method.server_streaming:
            path += f"?{self._query(method)}"
            if rng.random() < 0.5:
                headers.append(f"Last-Event-ID: {rng.choice(_EVENT_IDS)}")
        else:
            content_type, body = self._body(method)
            headers.append(f"Content-Type: {content_type}")
        if rng.random() < 0.1:
            verb = rng.choice(_VERBS)
        if rng.random() < 0.1:
            path = rng.choice(_PATHS)
        headers += rng.sample(_ODD_HEADERS, rng.choices([0, 1, 2], [8, 2, 1])[0])
        complete = rng.random() > 0.05
        length = len(body) if complete else rng.choice([len(body) + 5, max(0, len(body) - 5), -1, "x", 10**30])
        if rng.random() < 0.1:
            headers.append("Transfer-Encoding: chunked")
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if complete and body else b"5\r\n"
            complete = False  # Together with other headers, the server can wait for more.
        else:
            headers.append(f"Content-Length: {length}")
        head = "\r\n".join([f"{verb} {path} HTTP/1.1", *headers, "", ""])
        usual = len(headers) == len({header.partition(":")[0].lower() for header in headers})
        return HttpRequest(head.encode() + body, complete and usual)

    def _usual_headers(self) -> list[str]:
        rng = self._rng
        hosts = [[self.host], ["evil.example"], [], [self.host, "localhost"], ["[::1"], [""]]
        tokens = [[self._token or ""], [], ["wrong"], [self._token or ""] * 2, ["\N{LATIN SMALL LETTER E WITH ACUTE}"]]
        headers = [f"Host: {host}" for host in rng.choices(hosts, [40, 1, 1, 1, 1, 1])[0]]
        return headers + [f"Authorization: Bearer {token}" for token in rng.choices(tokens, [40, 1, 1, 1, 1])[0]]

    def _body(self, method: MethodDescriptor) -> tuple[str, bytes]:
        """Return a content type and a body."""
        rng = self._rng
        kind = rng.choices(["json", "damaged", "odd", "encoded", "mistyped"], [5, 4, 2, 2, 1])[0]
        if kind == "odd":
            return "application/json", rng.choice(_BODIES)
        if kind == "encoded":
            return "application/proto", self._messages.mutated(method.input_type)
        text = bytearray(json.dumps(self._fields(method)).encode())
        if kind == "damaged":
            for _ in range(rng.randrange(1, 6)):
                self._messages.damage(text)
        return rng.choice(_CONTENT_TYPES) if kind == "mistyped" else "application/json", bytes(text)

    def _fields(self, method: MethodDescriptor) -> dict[str, Any]:
        """Return the fields of a request, as in its JSON form."""
        while True:
            with contextlib.suppress(SerializeToJsonError):  # A random time can have no JSON form.
                message = self._messages.message(method.input_type)
                return MessageToDict(message, preserving_proto_field_name=self._rng.random() < 0.5)

    def _query(self, method: MethodDescriptor) -> str:
        """Return the parameters of a stream: fields of its request, and odd ones."""
        rng = self._rng
        pairs = [(name, str(value)[:1000]) for name, value in self._fields(method).items()]
        odd = [("after_sequence", rng.choice(_EVENT_IDS)), ("name", "jobs/innocent"), ("nothing", "1"), ("name", "")]
        pairs += rng.sample(odd, rng.choices([0, 1, 2], [4, 2, 1])[0])
        return urlencode(pairs) if rng.random() < 0.9 else quote("".join(rng.choice(_EVENT_IDS)), safe="&=%")
