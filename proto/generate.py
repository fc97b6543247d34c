"""Generates the Python stubs of gradwire_proto from the .proto files. `make proto` runs this script."""

import re
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTO_ROOT = Path(__file__).parent


def generate(target: Path) -> None:
    """Write the stubs and their type stubs to `target`/gradwire_proto/v1."""
    package = target / "gradwire_proto" / "v1"
    package.mkdir(parents=True, exist_ok=True)
    sources = sorted(str(path.relative_to(PROTO_ROOT)) for path in PROTO_ROOT.glob("gradwire/v1/*.proto"))
    services = [source for source in sources if source.endswith("_service.proto")]
    with tempfile.TemporaryDirectory() as scratch:
        _protoc(["python", "pyi"], sources, scratch)
        _protoc(["grpc_python", "mypy_grpc"], services, scratch)
        # protoc names the package `gradwire`, after the .proto folders. That is the SDK's name, so rename the package.
        for path in Path(scratch, "gradwire", "v1").iterdir():
            text = re.sub(r"\bgradwire\.v1(?=\.\w+_pb2| import \w+_pb2)", "gradwire_proto.v1", path.read_text())
            text = re.sub(r"gradwire/v1/(\w+_pb2)", r"gradwire_proto/v1/\1", text)
            (package / path.name).write_text(text)


def _protoc(plugins: list[str], sources: list[str], target: str) -> None:
    well_known = str(resources.files("grpc_tools") / "_proto")
    outputs = [f"--{plugin}_out={target}" for plugin in plugins]
    if protoc.main(["protoc", f"-I{PROTO_ROOT}", f"-I{well_known}", *outputs, *sources]) != 0:
        raise SystemExit("protoc failed; its message is above")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTO_ROOT)
