"""Runs the clients in other languages against one server, and compares them with the Python SDK (`make conformance`).

This script builds each client in examples/clients with its `build` script, and runs it as `run FOLDER JOB`. Each client
performs all checks in CHECKS, and those in MORE_CHECKS for its language, over a network that cuts connections. It
prints the digest of the weights that it trained, which must equal the SDK's digest. Then the script describes and calls
a method with grpcurl and ghz, which use reflection.

The exit code is 1 if a client fails, or if fewer than five of the six clients can be built.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from google.rpc import error_details_pb2
from network import BreakingNetwork
from sklearn.datasets import load_digits

import gradwire as gw

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "examples" / "clients"
CHECKS = (
    "connect",
    "unauthenticated",
    "not-found",
    "bad-request",
    "error-metadata",
    "upload",
    "validate-only",
    "create",
    "labels-filter",
    "watch",
    "download",
    "download-from-offset",
    "predict",
    "delete",
)
# What only some of the clients show.
MORE_CHECKS = {"shell": ("early-stopping",), "go": ("early-stopping",)}
MIN_BUILT = 5
# A client that sends all its data through the network must have at least this many connections cut.
MIN_CUTS = 3
_BUILD_SECONDS, _RUN_SECONDS = 900, 180


@dataclass(frozen=True)
class Requirement:
    """A requirement of a client: a program, or a C++ header of a library.

    Attributes:
        name: The name of the program or header, for example "cargo" or "grpcpp/grpcpp.h".
        package: The Debian package to install, or an empty string if `make` installs the program.
    """

    name: str
    package: str = ""

    def is_met(self) -> bool:
        """Return whether the program or header is installed."""
        if not self.name.endswith(".h"):
            return shutil.which(self.name) is not None
        compiler = shutil.which("g++")
        command = [compiler or "false", "-fsyntax-only", "-x", "c++", "-"]
        source = f"#include <{self.name}>\n"
        return subprocess.run(command, input=source, capture_output=True, text=True, check=False).returncode == 0

    def __str__(self) -> str:
        return f"{self.name} (apt-get install {self.package})" if self.package else f"{self.name} (make lint-proto)"


REQUIREMENTS = {
    "shell": (Requirement("buf"), Requirement("jq", "jq")),
    "typescript": (Requirement("npm", "npm"),),
    "go": (Requirement("go", "golang"), Requirement("buf")),
    "java": (Requirement("java", "openjdk-17-jdk-headless"), Requirement("mvn", "maven")),
    "rust": (Requirement("cargo", "cargo"),),
    "cpp": (
        Requirement("cmake", "cmake"),
        Requirement("g++", "g++"),
        Requirement("protoc", "protobuf-compiler"),
        Requirement("grpc_cpp_plugin", "protobuf-compiler-grpc"),
        Requirement("google/protobuf/message.h", "libprotobuf-dev"),
        Requirement("grpcpp/grpcpp.h", "libgrpc++-dev"),
        Requirement("openssl/sha.h", "libssl-dev"),
    ),
}

# A command-line argument, like the language names. It runs the clients that read the protocol through reflection.
REFLECTION = "reflection"
# Go programs, each with the module from which `go install` builds it.
GO_PROGRAMS = {
    "grpcurl": "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4",
    "ghz": "github.com/bojand/ghz/cmd/ghz@v0.121.0",
}
_GO_FOLDER = ROOT / ".cache" / "go-programs"
_GHZ_CALLS = 50


@dataclass
class Outcome:
    """The result of a client.

    Attributes:
        language: The name of the client's folder.
        checks: The names of the checks that passed.
        weights: The digest of the weights that it trained.
        trouble: The reason why the client was not built, or how it failed.
        seconds: How long the client ran, in seconds.
        built: Whether the client was built.
        cuts: The number of its connections that were cut.
    """

    language: str
    checks: set[str] = field(default_factory=set)
    weights: str = ""
    trouble: str = ""
    seconds: float = 0.0
    built: bool = False
    cuts: int = 0

    def passed(self, expected_weights: str) -> bool:
        """Return whether the client passed every check and trained the expected weights."""
        complete = self.checks == {*CHECKS, *MORE_CHECKS.get(self.language, ())} and self.cuts >= MIN_CUTS
        return not self.trouble and complete and self.weights == expected_weights


def install(languages: list[str]) -> None:
    """Install the missing Debian packages if this process runs as root."""
    missing = [each for language in languages for each in REQUIREMENTS[language] if not each.is_met()]
    packages = sorted({requirement.package for requirement in missing} - {""})
    if packages and os.getuid() == 0 and shutil.which("apt-get"):
        print(f"installing {' '.join(packages)} ...", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", *arguments], env=environment, capture_output=True, check=False)


def build(language: str) -> Outcome:
    """Build a client. Its `build` script fetches libraries with the language's package manager."""
    outcome = Outcome(language)
    missing = [str(requirement) for requirement in REQUIREMENTS[language] if not requirement.is_met()]
    if missing:
        outcome.trouble = f"not built: this machine does not have {', '.join(missing)}"
        return outcome
    # The folder that contains google/rpc/*.proto. It belongs to a dependency of the SDK.
    environment = {**os.environ, "GOOGLEAPIS_DIR": str(Path(error_details_pb2.__file__).parents[2])}
    try:
        completed = _run(["./build"], language, environment, _BUILD_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        outcome.trouble = f"not built: {error}"
        return outcome
    outcome.built = completed.returncode == 0
    if not outcome.built:
        outcome.trouble = f"not built: {_last_lines(completed.stderr + completed.stdout)}"
    return outcome


def run(outcome: Outcome, folder: Path, environment: dict[str, str]) -> None:
    """Run a client that was built."""
    started = time.perf_counter()
    command = ["./run", str(folder), f"{outcome.language}-digits"]
    try:
        completed = _run(command, outcome.language, environment, _RUN_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        outcome.trouble = str(error)
        return
    outcome.seconds = time.perf_counter() - started
    for line in completed.stdout.splitlines():
        word, _, rest = line.partition(" ")
        if word == "ok":
            outcome.checks.add(rest)
        elif word == "weights":
            outcome.weights = rest
    if completed.returncode:
        outcome.trouble = f"exit code {completed.returncode}: {_last_lines(completed.stderr)}"


def _run(
    command: list[str], language: str, environment: dict[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=CLIENTS / language, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def _last_lines(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-6:])


def train_with_the_sdk(address: str, token: str, certificate: Path, folder: Path) -> str:
    """Write the data for the clients, train on it with the SDK, and return the digest of the weights."""
    X, y = load_digits(return_X_y=True)
    X, y = X.astype("uint8"), y.astype("uint8")
    (folder / "inputs.bin").write_bytes(X.tobytes())
    (folder / "targets.bin").write_bytes(y.tobytes())
    model = gw.Sequential(gw.Linear(32), gw.ReLU(), gw.Linear(10))
    with gw.Client(address, token=token, tls=certificate) as client:
        job = client.jobs.submit(
            model,
            (X, y),
            loss=gw.CrossEntropy(),
            optimizer=gw.SGD(model, lr=0.005),
            epochs=20,
            batch_size=16,
            seed=7,
            device="cpu",
            name="python-digits",
        )
        job.result()
        return client.models.get("python-digits").weights_sha256


def install_go_program(name: str) -> tuple[str, str]:
    """Return the path of a Go program, or the reason why it is missing. Installs the program if this machine has Go."""
    path = shutil.which(name) or str(_GO_FOLDER / name)
    if Path(path).exists():
        return path, ""
    if shutil.which("go") is None:
        return "", f"not run: this machine does not have go (apt-get install golang) to install {name}"
    print(f"installing {name} ...", flush=True)
    environment = {**os.environ, "GOBIN": str(_GO_FOLDER)}
    try:
        completed = subprocess.run(
            ["go", "install", GO_PROGRAMS[name]],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return "", f"not run: {error}"
    return (path, "") if completed.returncode == 0 else ("", f"not run: {_last_lines(completed.stderr)}")


def check_reflection(address: str, token: str, certificate: Path) -> dict[str, str]:
    """Describe GetJob with grpcurl and call it with ghz, both through reflection.

    Returns:
        For each program: "ok", the reason why it could not run ("not run: ..."), or how it failed.
    """
    method = "gradwire.v1.TrainingService.GetJob"
    commands = {
        "grpcurl": ["-cacert", certificate, address, "describe", method],
        "ghz": [
            *(
                "--cacert",
                certificate,
                "--call",
                method,
                "--metadata",
                json.dumps({"authorization": f"Bearer {token}"}),
            ),
            *("--data", json.dumps({"name": "jobs/python-digits"})),
            *("--total", str(_GHZ_CALLS), "--concurrency", "2", "--format", "json", address),
        ],
    }
    results = {}
    for name, arguments in commands.items():
        path, results[name] = install_go_program(name)
        if not path:
            continue
        try:
            completed = subprocess.run(
                [path, *arguments], capture_output=True, text=True, timeout=_RUN_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            results[name] = str(error)
            continue
        is_ok = _describes if name == "grpcurl" else _answered
        results[name] = "ok" if is_ok(completed.stdout) else _last_lines(completed.stdout + completed.stderr)
    return results


def _describes(output: str) -> bool:
    return "rpc GetJob ( .gradwire.v1.GetJobRequest ) returns ( .gradwire.v1.Job )" in output


def _answered(report: str) -> bool:
    try:
        return bool(json.loads(report)["statusCodeDistribution"] == {"OK": _GHZ_CALLS})
    except (ValueError, KeyError):
        return False


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Create a self-signed certificate for this machine, and a key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", certificate,
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-addext", "basicConstraints=critical,CA:FALSE"],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def compare(outcomes: list[Outcome], *, with_reflection: bool) -> tuple[str, dict[str, str]]:
    """Run the built clients against one server.

    Returns:
        The expected digest of the weights, and the result of each program that uses reflection.
    """
    with tempfile.TemporaryDirectory(prefix="conformance-") as scratch:
        folder = Path(scratch)
        certificate, key = make_certificate(folder)
        options = (f"--tls-cert={certificate}", f"--tls-key={key}", "--make-token")
        with gw.LocalServer(*options, data=folder / "server") as server:
            token = (server.data / "token").read_text().strip()
            address = server.address.replace("127.0.0.1", "localhost")
            expected = train_with_the_sdk(address, token, certificate, folder)
            for outcome in outcomes:
                if outcome.built:
                    print(f"running {outcome.language} ...", flush=True)
                    with BreakingNetwork(server.address) as network:
                        access = {
                            "GRADWIRE_ADDRESS": network.address,
                            "GRADWIRE_TOKEN": token,
                            "GRADWIRE_CA": str(certificate),
                        }
                        run(outcome, folder, {**os.environ, **access})
                        outcome.cuts = network.cuts
            reflection = check_reflection(address, token, certificate) if with_reflection else {}
    return expected, reflection


def show(outcomes: list[Outcome], expected: str) -> None:
    """Print a table with a row for each check and a column for each client."""
    rows = [("", [outcome.language for outcome in outcomes])]
    checks = dict.fromkeys([*CHECKS, *(check for more in MORE_CHECKS.values() for check in more)])
    rows += [(check, ["ok" if check in outcome.checks else "-" for outcome in outcomes]) for check in checks]
    same = {expected: "the same", "": "-"}
    rows.append(("weights", [same.get(outcome.weights, "different") for outcome in outcomes]))
    rows.append(("connections cut", [str(outcome.cuts) for outcome in outcomes]))
    rows.append(("seconds", [f"{outcome.seconds:.1f}" for outcome in outcomes]))
    for title, cells in rows:
        print(f"{title:<22}" + "".join(f"{cell:<12}" for cell in cells))
    print(f"weights of the Python SDK: {expected}")
    for outcome in outcomes:
        if outcome.trouble:
            print(f"{outcome.language}: {outcome.trouble}")


def main() -> int:
    """Build, run and compare the clients."""
    parser = argparse.ArgumentParser()
    choices = [*REQUIREMENTS, REFLECTION]
    parser.add_argument("clients", nargs="*", default=choices, help=f"default: {' '.join(choices)}")
    clients = parser.parse_args().clients
    unknown = set(clients) - set(choices)
    if unknown:
        parser.error(f"there is no client {', '.join(sorted(unknown))}; choose from {', '.join(choices)}")
    languages = [client for client in clients if client != REFLECTION]
    os.environ["PATH"] = f"{ROOT / '.npm/node_modules/.bin'}:{os.environ['PATH']}"
    install(languages)
    outcomes = []
    for language in languages:
        print(f"building {language} ...", flush=True)
        outcomes.append(build(language))
    expected, reflection = compare(outcomes, with_reflection=REFLECTION in clients)
    if outcomes:
        show(outcomes, expected)
    for name, result in reflection.items():
        print(f"{name} by reflection: {result}")
    built = [outcome for outcome in outcomes if outcome.built]
    failed = [outcome for outcome in built if not outcome.passed(expected)]
    print(f"{len(built) - len(failed)} passed, {len(failed)} failed, {len(outcomes) - len(built)} not built")
    broken = [result for result in reflection.values() if result != "ok" and not result.startswith("not run")]
    return 1 if failed or broken or len(built) < min(MIN_BUILT, len(outcomes)) else 0


if __name__ == "__main__":
    sys.exit(main())
