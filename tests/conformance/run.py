"""Runs the clients in other languages against one server, and holds them against the Python SDK; `make conformance`.

Each client under examples/clients is built with its own `build`, and then run as `run FOLDER JOB`: it makes every check
of CHECKS, trains the same spec on the same data, and prints the digest of its weights, which must be the SDK's.
Exits with 1 if a client fails, or if fewer than five of the six could be run.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from google.rpc import error_details_pb2
from sklearn.datasets import load_digits

import gradwire as gw
from gradwire import SGD, CrossEntropy, Linear, Module, ReLU

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "examples" / "clients"
LANGUAGES = ("shell", "typescript", "go", "java", "rust", "cpp")
CHECKS = (
    "connect", "unauthenticated", "not-found", "bad-request", "upload", "create", "watch", "download", "predict",
)  # fmt: skip
LEAST_RUN = 5
_BUILD_SECONDS, _RUN_SECONDS = 900, 180

# The programs that each language needs, and the Debian packages that bring them.
_NEEDS = {
    "shell": {"buf": "", "jq": "jq"},
    "typescript": {"npm": "npm"},
    "go": {"go": "golang", "buf": ""},
    "java": {"java": "openjdk-17-jdk-headless", "mvn": "maven"},
    "rust": {"cargo": "cargo"},
    "cpp": {"cmake": "cmake", "g++": "g++", "grpc_cpp_plugin": "protobuf-compiler-grpc libgrpc++-dev libssl-dev"},
}


class DigitsModel(Module):
    """What the clients spell as messages."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = Linear(32)
        self.relu1 = ReLU()
        self.fc2 = Linear(10)

    def forward(self, x):
        return self.fc2(self.relu1(self.fc1(x)))


@dataclass
class Outcome:
    """How a client did. `trouble` is why it could not be built or run to its end."""

    language: str
    checks: set[str] = field(default_factory=set)
    weights: str = ""
    trouble: str = ""
    seconds: float = 0.0
    built: bool = False

    def passed(self, expected_weights: str) -> bool:
        return not self.trouble and self.checks == set(CHECKS) and self.weights == expected_weights


def missing_programs(language: str) -> dict[str, str]:
    """Return what a client needs and this machine lacks, with the packages that bring it."""
    return {program: packages for program, packages in _NEEDS[language].items() if shutil.which(program) is None}


def install(language: str) -> None:
    """Install what is missing by Debian's packages, where this process may."""
    packages = " ".join(missing_programs(language).values()).split()
    if packages and os.getuid() == 0 and shutil.which("apt-get"):
        for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", *arguments], capture_output=True, check=False)


def build(language: str) -> Outcome:
    """Build a client; its `build` fetches libraries by its language's own package manager."""
    outcome = Outcome(language)
    missing = missing_programs(language)
    if missing:
        wanted = ", ".join(
            f"{program} (apt-get install {packages or program})" for program, packages in missing.items()
        )
        outcome.trouble = f"not built: this machine lacks {wanted}"
        return outcome
    # Where google/rpc/*.proto are: they come with the SDK's own dependency.
    environment = {**os.environ, "GOOGLEAPIS_DIR": str(Path(error_details_pb2.__file__).parents[2])}
    try:
        done = subprocess.run(
            ["./build"], cwd=CLIENTS / language, env=environment, capture_output=True, text=True,
            timeout=_BUILD_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        outcome.trouble = f"not built: {error}"
        return outcome
    outcome.built = done.returncode == 0
    if not outcome.built:
        outcome.trouble = f"not built: {_last_lines(done.stderr + done.stdout)}"
    return outcome


def run(outcome: Outcome, folder: Path, environment: dict[str, str]) -> None:
    """Run a client that was built."""
    started = time.perf_counter()
    try:
        done = subprocess.run(
            ["./run", str(folder), f"{outcome.language}-digits"],
            cwd=CLIENTS / outcome.language, env=environment, capture_output=True, text=True, timeout=_RUN_SECONDS,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        outcome.trouble = str(error)
        return
    outcome.seconds = time.perf_counter() - started
    for line in done.stdout.splitlines():
        word, _, rest = line.partition(" ")
        if word == "ok":
            outcome.checks.add(rest)
        elif word == "weights":
            outcome.weights = rest
    if done.returncode:
        outcome.trouble = f"exit code {done.returncode}: {_last_lines(done.stderr)}"


def train_with_the_sdk(address: str, token: str, certificate: Path, folder: Path) -> str:
    """Write the data for the clients, train on it through the SDK, and return the weights' digest."""
    X, y = load_digits(return_X_y=True)
    X, y = X.astype("uint8"), y.astype("uint8")
    (folder / "inputs.bin").write_bytes(X.tobytes())
    (folder / "targets.bin").write_bytes(y.tobytes())
    model = DigitsModel()
    with gw.Client(address, token=token, tls=certificate) as client:
        job = client.submit(
            model, (X, y), loss=CrossEntropy(), optimizer=SGD(model, lr=0.005), epochs=20, batch_size=16, seed=7,
            device="cpu", name="python-digits",
        )  # fmt: skip
        job.result()
        return client.model_info("python-digits").weights_sha256


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for this machine that vouches for itself, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", certificate,
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-addext", "basicConstraints=critical,CA:FALSE"],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def show(outcomes: list[Outcome], expected: str) -> None:
    """Print the table of languages and checks, and the digests."""
    print(f"\n{'':<12}" + "".join(f"{check:<17}" for check in CHECKS) + "weights")
    for outcome in outcomes:
        marks = "".join(f"{'ok' if check in outcome.checks else '-':<17}" for check in CHECKS)
        same = "the same" if outcome.weights == expected else outcome.weights or "-"
        print(f"{outcome.language:<12}{marks}{same}  ({outcome.seconds:.1f} s)")
        if outcome.trouble:
            print(f"{'':<12}{outcome.trouble}")
    print(f"{'Python SDK':<12}{'':<{17 * len(CHECKS)}}{expected}")


def _last_lines(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-6:])


def main() -> int:
    """Build, run, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("languages", nargs="*", default=LANGUAGES, help=f"of {', '.join(LANGUAGES)}; default: all")
    languages = parser.parse_args().languages
    unknown = set(languages) - set(LANGUAGES)
    if unknown:
        parser.error(f"no client for {', '.join(sorted(unknown))}; there are {', '.join(LANGUAGES)}")
    os.environ["PATH"] = f"{ROOT / '.npm/node_modules/.bin'}:{os.environ['PATH']}"
    outcomes = []
    for language in languages:
        print(f"building {language} ...", flush=True)
        install(language)
        outcomes.append(build(language))
    with tempfile.TemporaryDirectory(prefix="conformance-") as scratch:
        folder = Path(scratch)
        certificate, key = make_certificate(folder)
        options = (f"--tls-cert={certificate}", f"--tls-key={key}", "--make-token")
        with gw.LocalServer(*options, data=folder / "server") as server:
            address = server.address.replace("127.0.0.1", "localhost")
            token = (server.data / "token").read_text().strip()
            expected = train_with_the_sdk(address, token, certificate, folder)
            access = {"GRADWIRE_ADDRESS": address, "GRADWIRE_TOKEN": token, "GRADWIRE_CA": str(certificate)}
            for outcome in outcomes:
                if outcome.built:
                    print(f"running {outcome.language} ...", flush=True)
                    run(outcome, folder, {**os.environ, **access})
    show(outcomes, expected)
    could_run = [outcome for outcome in outcomes if outcome.built]
    failed = [outcome.language for outcome in could_run if not outcome.passed(expected)]
    print(f"{len(could_run) - len(failed)} passed, {len(failed)} failed, {len(outcomes) - len(could_run)} skipped")
    return 1 if failed or len(could_run) < min(LEAST_RUN, len(outcomes)) else 0


if __name__ == "__main__":
    sys.exit(main())
