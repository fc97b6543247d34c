"""What the server is told at its start, and the rules on it."""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path


class SettingsError(ValueError):
    """The server cannot be started like this; the message says what to change."""


@dataclass(frozen=True)
class Settings:
    """How to run a server. The command line and GRADWIRE_* variables fill it."""

    host: str = "127.0.0.1"
    # 0: any free port.
    port: int = 50051
    data: Path = Path("gradwire-data")
    # The blob store, as fsspec spells it; None: a folder in `data`.
    blobs: str | None = None
    # "local": Ray inside this server; "auto" or an address: a cluster that is there.
    ray: str = "local"
    token: str | None = None
    insecure: bool = False
    # What one job, and so one worker, takes of the cluster.
    cpus_per_job: float = 1
    gpus_per_job: float = 1

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"--port must be 0 to 65535, got {self.port}")
        if self.cpus_per_job <= 0 or self.gpus_per_job <= 0:
            raise SettingsError("--cpus-per-job and --gpus-per-job must be above 0")
        if self.token is not None and (
            not self.token.isascii() or not self.token.isprintable() or not self.token.strip()
        ):
            raise SettingsError("the token must be printable ASCII characters")
        if self.token is None and not self.insecure and not self._loopback():
            raise SettingsError(
                f"refusing to listen on {self.host} without a token: other machines could use this server. "
                "Set GRADWIRE_TOKEN or --token-file, or say --insecure"
            )

    def _loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def blobs_url(self) -> str:
        """Where tensors, checkpoints and models are kept."""
        return self.blobs or (self.data.resolve() / "blobs").as_uri()


def read_token(token: str | None, token_file: Path | None) -> str | None:
    """Return the token from its variable or its file; both at once, or an empty file, is an error."""
    if token_file is None:
        return token or None
    if token:
        raise SettingsError("give the token as GRADWIRE_TOKEN or as --token-file, not as both")
    try:
        content = token_file.read_text().strip()
    except OSError as error:
        raise SettingsError(f"cannot read --token-file: {error}") from error
    if not content:
        raise SettingsError(f"--token-file {token_file} is empty")
    return content
