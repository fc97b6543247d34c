"""The settings of a server and their validation."""

import secrets
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from gradwire_engine.plans import PLANS
from gradwire_server.private_files import create_private

GIB = 1 << 30


class SettingsError(ValueError):
    """The server cannot start with these settings. The message states what to change."""


@dataclass(frozen=True)
class Settings:
    """The settings of a server, which come from the command line and GRADWIRE_* environment variables."""

    host: str = "127.0.0.1"
    # The port to listen on. 0 selects a free port.
    port: int = 50051
    # The port of the HTTP gateway. 0: none. None: the next port after the gRPC port or, if it is in use, any free port.
    http_port: int | None = 0
    # Additional host names that browsers use for the HTTP port.
    http_hosts: tuple[str, ...] = ()
    data: Path = Path("gradwire-data")
    # The postgresql:// URL of the database. None selects a SQLite file in `data`.
    store: str | None = None
    # The fsspec URL of the blob store. None selects a folder in `data`.
    blobs: str | None = None
    # "local" starts Ray on this machine. "auto" or an address joins an existing cluster.
    ray: str = "local"
    token: str | None = None
    insecure: bool = False
    # The files with the certificate chain and its key (PEM). If both are set, the server uses TLS.
    tls_cert: Path | None = None
    tls_key: Path | None = None
    # The path of an additional Unix socket to listen on, without TLS. If it is empty, there is no such socket.
    socket: str = ""
    # The address that clients use, if it differs from `host`, for example the published address of a container.
    publish: str = ""
    # The resources of each worker. A worker runs one job at a time.
    cpus_per_job: float = 1
    gpus_per_job: float = 1
    # In GiB. 0 selects an equal share of the memory of a node.
    memory_per_job: float = 0
    # The maximum size of the events of one job, in GiB.
    max_log: float = 10
    # The maximum total size of tensors, checkpoints and weights, in GiB. With 0, only the disk limits it.
    max_tensors: float = 0

    # The plan that workers must use. If it is empty, they use the fastest available plan.
    plan: str = ""
    # Whether GPUs may round the operands of float32 matrix products to 10 mantissa bits, which is faster.
    tf32: bool = False

    def __post_init__(self) -> None:
        if self.plan and self.plan not in PLANS:
            raise SettingsError(f"--plan (GRADWIRE_PLAN) must be one of {', '.join(PLANS)}, got {self.plan!r}")
        if "::" in str(self.data.resolve()):
            raise SettingsError(f"--data (GRADWIRE_DATA) must not contain '::', got {self.data}. Choose another folder")
        self._check_ports()
        if self.cpus_per_job <= 0 or self.gpus_per_job <= 0:
            raise SettingsError(
                "--cpus-per-job and --gpus-per-job (GRADWIRE_CPUS_PER_JOB, GRADWIRE_GPUS_PER_JOB) must be above 0"
            )
        if self.memory_per_job < 0 or self.max_tensors < 0 or self.max_log <= 0:
            raise SettingsError(
                "--memory-per-job and --max-tensors (GRADWIRE_MEMORY_PER_JOB, GRADWIRE_MAX_TENSORS) must be at least "
                "0, and --max-log (GRADWIRE_MAX_LOG) above 0"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise SettingsError("--tls-cert and --tls-key (GRADWIRE_TLS_CERT, GRADWIRE_TLS_KEY) must be set together")
        _ = self.key_and_chain  # Report unreadable files before the server starts anything.
        if self.token is not None and (
            not self.token.isascii() or not self.token.isprintable() or not self.token.strip()
        ):
            raise SettingsError("the token must consist of printable ASCII characters")
        if self.insecure:
            return
        reached_at = self.publish or self.host
        if self.token is None and not _is_loopback(reached_at):
            raise SettingsError(
                f"refusing to listen on {reached_at} without a token, because other machines could use this server. "
                "Set GRADWIRE_TOKEN, --token-file or --make-token, or use --insecure"
            )
        if self.publish and not _is_loopback(self.publish) and self.tls_cert is None:
            raise SettingsError(
                f"refusing to publish {self.publish} (GRADWIRE_PUBLISH) without TLS, because the token would "
                "be sent unencrypted. Set --tls-cert and --tls-key, or GRADWIRE_INSECURE=1"
            )

    def _check_ports(self) -> None:
        for option, port in (
            ("--port (GRADWIRE_PORT)", self.port),
            ("--http-port (GRADWIRE_HTTP_PORT)", self.http_port),
        ):
            if not 0 <= (port or 0) <= 65535:
                raise SettingsError(f"{option} must be 0 to 65535, got {port}")
        if self.http_port and self.http_port == self.port:
            raise SettingsError(f"--http-port and --port must differ, but both are {self.port}")

    @property
    def key_and_chain(self) -> tuple[bytes, bytes] | None:
        """Return the private key and the certificate chain, or None without TLS. Raises SettingsError."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self.tls_cert, self.tls_key)
            return self.tls_key.read_bytes(), self.tls_cert.read_bytes()
        except OSError as error:  # SSLError is a subclass of OSError.
            raise SettingsError(f"--tls-cert {self.tls_cert} with --tls-key {self.tls_key}: {error}") from error

    @property
    def blobs_url(self) -> str:
        """The URL of the store for tensors, checkpoints and the weights of models."""
        # Do not use as_uri, because it encodes characters such as spaces, and fsspec does not decode them.
        return self.blobs or f"file://{self.data.resolve() / 'blobs'}"


def read_token(token: str | None, token_file: Path | None, *, make: bool = False) -> str | None:
    """Return the token of the server, or None if there is no token.

    Args:
        token: The value of GRADWIRE_TOKEN.
        token_file: The file that contains the token.
        make: Whether to create a random token if the file does not exist. Only this user can read the file.

    Raises:
        SettingsError: Both a token and a file are given, or the file is empty or cannot be read.
    """
    if token_file is None:
        return token or None
    if token and not make:
        raise SettingsError("both GRADWIRE_TOKEN and --token-file are set. Set only one of them")
    if token:
        return token
    try:
        if make and not token_file.exists():
            token_file.parent.mkdir(parents=True, exist_ok=True)
            create_private(token_file, secrets.token_urlsafe(24) + "\n")
        content = token_file.read_text().strip()
    except OSError as error:
        raise SettingsError(f"cannot read --token-file: {error}") from error
    if not content:
        raise SettingsError(f"--token-file {token_file} is empty")
    return content


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
