"""The address, token and TLS settings of a connection, from arguments or environment variables."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import grpc

from gradwire._exceptions import InvalidArgumentError

# "host:port", "[::1]:port", or an address with a gRPC scheme.
_ADDRESS = re.compile(r"(?:[^:/\s]+|\[[0-9a-fA-F:.%]+\]):\d{1,5}|(?:unix|unix-abstract|dns|ipv4|ipv6):.+")

_MAX_PORT = 65535


def resolve_address(at: str | None) -> str | None:
    """Return the given address, or GRADWIRE_ADDRESS if it is None, or None if neither is set."""
    return at or os.environ.get("GRADWIRE_ADDRESS") or None


@dataclass(frozen=True)
class Access:
    """The token and TLS settings of a connection. If a value is None, it comes from the environment.

    Attributes:
        token: The server's token. Default: GRADWIRE_TOKEN, or the contents of the file GRADWIRE_TOKEN_FILE.
        tls: True to trust the system's certificate authorities, or the path of a PEM file of trusted certificates.
            Default: GRADWIRE_TLS, which is "1" or the path of a file.
        insecure: Whether to allow sending the token to another machine without TLS. Default: GRADWIRE_INSECURE.
    """

    token: str | None = None
    tls: bool | str | Path | None = None
    insecure: bool | None = None

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return the TLS credentials for a channel, or None if TLS is not used."""
        name, on = ("GRADWIRE_TLS", "1") if self.tls is None else ("tls", "True")
        tls = os.environ.get("GRADWIRE_TLS", "") if self.tls is None else self.tls
        if isinstance(tls, bool) or tls in ("", "0", "1"):
            return grpc.ssl_channel_credentials() if tls in (True, "1") else None
        try:
            return grpc.ssl_channel_credentials(_certificates(Path(tls)))
        except OSError as error:
            trouble = f"cannot read {tls}: {error.strerror}"
        except ValueError:
            trouble = f"{tls} contains no certificate"
        raise InvalidArgumentError(f"{name}: {trouble}. Use {on} or the path of a PEM file.")

    def metadata(self, address: str, encrypted: bool) -> tuple[tuple[str, str], ...]:
        """Return the metadata for calls, which contains the token if there is one.

        Raises:
            InvalidArgumentError: The token would be sent to another machine without TLS.
        """
        token = self.token or _token_from_environment()
        if not token:
            return ()
        if not (isinstance(token, str) and token.isascii() and token.isprintable()):
            raise InvalidArgumentError("token: must be text of printable ASCII characters. Copy it from the server.")
        insecure = _is_on(os.environ.get("GRADWIRE_INSECURE", "")) if self.insecure is None else self.insecure
        if not (encrypted or insecure or _is_this_machine(address)):
            raise InvalidArgumentError(
                f"refusing to send the token to {address} without TLS. Use tls=True or tls=CA_FILE (GRADWIRE_TLS), "
                "or insecure=True (GRADWIRE_INSECURE=1) if you trust the network."
            )
        return (("authorization", f"Bearer {token}"),)


def checked_address(address: str | None) -> str:
    """Return the address to use, as `resolve_address` does.

    Raises:
        InvalidArgumentError: There is no address, or it does not have the form host:port.
    """
    resolved = resolve_address(address)
    if resolved is not None and not isinstance(resolved, str):
        raise InvalidArgumentError(f"the address must be text, for example 'localhost:50051', got {resolved!r}")
    if resolved == "local":
        raise InvalidArgumentError(
            "the address 'local' stands for training without a server, but this needs one. Use its host:port, for "
            "example 'localhost:50051'."
        )
    if resolved is None:
        raise InvalidArgumentError(
            'no server address. Pass one, for example Client("localhost:50051"), or set GRADWIRE_ADDRESS.'
        )
    if not _ADDRESS.fullmatch(resolved):
        host = re.sub(r"^\w+://", "", resolved).partition("/")[0]
        example = host if _ADDRESS.fullmatch(host) else f"{host.partition(':')[0] or 'localhost'}:50051"
        raise InvalidArgumentError(
            f"the address {resolved!r} does not have the form host:port. Use, for example, {example!r}."
        )
    host, _, port = resolved.rpartition(":")
    if port.isdecimal() and (":" not in host or host[0] == "[") and int(port) > _MAX_PORT:
        raise InvalidArgumentError(f"the address {resolved!r} has a port above {_MAX_PORT}. Use, for example, 50051.")
    return resolved


def _certificates(file: Path) -> bytes:
    """Return the bytes of a PEM file. Raises ValueError if it contains no certificate."""
    import ssl  # noqa: PLC0415  (needed only with a file)

    content = file.read_bytes()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        raise ValueError from None
    return content


def _token_from_environment() -> str:
    token, file = os.environ.get("GRADWIRE_TOKEN", ""), os.environ.get("GRADWIRE_TOKEN_FILE", "")
    if token or not file:
        return token
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise InvalidArgumentError(f"cannot read GRADWIRE_TOKEN_FILE {file}: {error.strerror}") from None


def _is_on(variable: str) -> bool:
    return variable.lower() in ("1", "true", "yes", "on")


def _is_this_machine(address: str) -> bool:
    from ipaddress import ip_address  # noqa: PLC0415  (needed only with a token)

    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]") or address
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
