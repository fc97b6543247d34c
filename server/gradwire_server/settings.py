"""What the server is told at its start, and the rules on it."""

import os
import secrets
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from gradwire_engine.plans import PLANS


class SettingsError(ValueError):
    """The server cannot be started like this; the message says what to change."""


@dataclass(frozen=True)
class Settings:
    """How to run a server. The command line and GRADWIRE_* variables fill it."""

    host: str = "127.0.0.1"
    # 0: any free port.
    port: int = 50051
    data: Path = Path("gradwire-data")
    # The database: a postgresql:// URL; None: a SQLite file in `data`.
    store: str | None = None
    # The blob store, as fsspec spells it; None: a folder in `data`.
    blobs: str | None = None
    # "local": Ray inside this server; "auto" or an address: a cluster that is there.
    ray: str = "local"
    token: str | None = None
    insecure: bool = False
    # A certificate chain and its key, PEM: the server then speaks TLS.
    tls_cert: Path | None = None
    tls_key: Path | None = None
    # A socket on this machine that is listened on as well, without TLS; "" for none.
    socket: str = ""
    # Where others reach the server if that is not `host`: what a container's port is published on.
    publish: str = ""
    # What one job, and so one worker, takes of the cluster.
    cpus_per_job: float = 1
    gpus_per_job: float = 1

    # The plan that workers must use; "" for the fastest that runs there.
    plan: str = ""
    # Let GPUs round the factors of float32 products to 10 bits, which is faster.
    tf32: bool = False

    def __post_init__(self) -> None:
        if self.plan and self.plan not in PLANS:
            raise SettingsError(f"--plan (GRADWIRE_PLAN) must be one of {', '.join(PLANS)}, got {self.plan!r}")
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"--port (GRADWIRE_PORT) must be 0 to 65535, got {self.port}")
        if self.cpus_per_job <= 0 or self.gpus_per_job <= 0:
            raise SettingsError(
                "--cpus-per-job and --gpus-per-job (GRADWIRE_CPUS_PER_JOB, GRADWIRE_GPUS_PER_JOB) must be above 0"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise SettingsError("--tls-cert and --tls-key (GRADWIRE_TLS_CERT, GRADWIRE_TLS_KEY) go together")
        _ = self.key_and_chain  # Wrong files are named before anything is started.
        if self.token is not None and (
            not self.token.isascii() or not self.token.isprintable() or not self.token.strip()
        ):
            raise SettingsError("the token must be printable ASCII characters")
        if self.insecure:
            return
        reached_at = self.publish or self.host
        if self.token is None and not _is_loopback(reached_at):
            raise SettingsError(
                f"refusing to listen on {reached_at} without a token: other machines could use this server. "
                "Set GRADWIRE_TOKEN or --token-file, or say --insecure"
            )
        if self.publish and not _is_loopback(self.publish) and self.tls_cert is None:
            raise SettingsError(
                f"refusing to be published on {self.publish} (GRADWIRE_PUBLISH) without TLS: the token would travel in "
                "the clear. Give --tls-cert and --tls-key, or set GRADWIRE_INSECURE=1"
            )

    @property
    def key_and_chain(self) -> tuple[bytes, bytes] | None:
        """The private key and the certificate chain, or None without TLS; SettingsError if they cannot be read."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self.tls_cert, self.tls_key)
            return self.tls_key.read_bytes(), self.tls_cert.read_bytes()
        except OSError as error:  # An SSLError is one.
            raise SettingsError(f"--tls-cert {self.tls_cert} with --tls-key {self.tls_key}: {error}") from error

    @property
    def blobs_url(self) -> str:
        """Where tensors, checkpoints and models are kept."""
        return self.blobs or (self.data.resolve() / "blobs").as_uri()


def read_token(token: str | None, token_file: Path | None, *, make: bool = False) -> str | None:
    """Return the token from its variable or its file; both at once, or an empty file, is an error.

    make: where there is neither, draw a token and write it into the file, readable by this user alone.
    """
    if token_file is None:
        return token or None
    if token and not make:
        raise SettingsError("give the token as GRADWIRE_TOKEN or as --token-file, not as both")
    if token:
        return token
    try:
        if make and not token_file.exists():
            token_file.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(24) + "\n")
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
