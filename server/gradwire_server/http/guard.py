"""Protects users' browsers: rejects requests that other websites make, and sets headers on all responses."""

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gradwire_server.http.errors import CallError

# https://developer.mozilla.org/en-US/docs/Web/HTTP/Guides/CSP. The page has no inline scripts or styles, and loads
# nothing from other servers. `blob:` is for files that the page creates itself, such as a downloaded model.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
# Other sites can link to these paths, which contain no data.
PAGE_PATHS = ("/", "/static/")


class Guard:
    """An ASGI application that guards another one.

    Host names: another site could make its own name resolve to the address of this server, and its pages could then
    make requests as if they came from this server. Therefore, only known names are allowed. IP addresses are allowed,
    because they do not resolve.

    Origins: the page sends its token in a header, so requests from another site do not have the token. Without a token,
    the server listens on the loopback interface and relies on the origin check.

    Args:
        app: The application.
        hosts: The allowed host names.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        headers = Headers(scope=scope)
        try:
            self._check_host(headers.getlist("host"))
            if not _is_page(scope["path"]):
                _check_origin(headers)
        except CallError as error:
            await error.response()(scope, receive, _with_headers(send))
            return
        await self._app(scope, receive, _with_headers(send))

    def _check_host(self, hosts: list[str]) -> None:
        name = _host_name(hosts[0]) if len(hosts) == 1 else ""
        if name.lower() in self._hosts or _is_address(name):
            return
        raise CallError(
            "permission_denied",
            f"this server does not answer to the host name {name[:80]!r}. Allow it with --http-hosts",
            status=421,
        )


def _is_page(path: str) -> bool:
    return path == PAGE_PATHS[0] or path.startswith(PAGE_PATHS[1])


def _check_origin(headers: Headers) -> None:
    """Reject requests from other sites. Only browsers send these headers."""
    origin = headers.get("origin")
    is_foreign = origin is not None and urlsplit(origin).netloc.lower() != headers["host"].lower()
    if is_foreign or headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise CallError("permission_denied", "web pages of other sites cannot use this server")


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return send_with_headers
