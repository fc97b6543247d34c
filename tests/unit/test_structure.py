"""The dependencies between packages, the vocabulary of the code, and the generated stubs."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "gradwire_proto": "proto",
    "gradwire_engine": "engine",
    "gradwire_worker": "worker",
    "gradwire_server": "server",
    "gradwire": "client_sdk",
}
# The packages that each package may import.
DEPENDENCIES = {
    "gradwire_proto": set(),
    "gradwire_engine": {"gradwire_proto"},
    "gradwire_worker": {"gradwire_engine", "gradwire_proto"},
    "gradwire_server": {"gradwire_worker", "gradwire_engine", "gradwire_proto"},
    "gradwire": {"gradwire_engine", "gradwire_proto"},
}
SERVER = ROOT / "server" / "gradwire_server"
# The subpackages that each server subpackage may import. All of them may also import the root modules except `app`.
SERVER_DEPENDENCIES = {
    "store": set(),
    "storage": {"store"},
    "models": {"storage", "store"},
    "jobs": {"models", "storage", "store"},
    "workers": {"storage"},
    "scheduling": {"jobs", "workers", "storage", "store"},
    "api": {"jobs", "models", "storage", "store"},
    # Everything that it does goes through gRPC.
    "http": set(),
}
SERVER_ROOT_MODULES = {
    "budget",
    "data_folder",
    "errors",
    "file_descriptors",
    "limits",
    "log_limit",
    "principal",
    "private_files",
    "resource_names",
    "settings",
    "threads",
}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
    return found


def top_level(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("package", FOLDERS)
def test_a_package_imports_only_what_the_design_allows(package):
    for path in (ROOT / FOLDERS[package] / package).rglob("*.py"):
        ours = top_level(imports_of(path)) & set(FOLDERS) - {package}
        assert ours <= DEPENDENCIES[package], f"{path} imports {ours - DEPENDENCIES[package]}"


def test_calls_of_clients_do_not_use_the_threads_of_the_servers_own_work():
    for subpackage in ("api", "http", "models", "jobs", "storage"):
        for path in (SERVER / subpackage).rglob("*.py"):
            if path.name != "garbage_collector.py":
                found = re.search(r"to_thread|run_in_executor", path.read_text())
                assert found is None, f"{path} uses {found[0]}: use gradwire_server.threads.in_thread"


def server_parts_of(path: Path) -> set[str]:
    """Return the server subpackages and server root modules that a file imports."""
    names = {name for name in imports_of(path) if name.startswith("gradwire_server.")}
    return {name.split(".")[1] for name in names}


@pytest.mark.parametrize("subpackage", SERVER_DEPENDENCIES)
def test_a_subpackage_of_the_server_imports_only_what_the_design_allows(subpackage):
    allowed = SERVER_DEPENDENCIES[subpackage] | SERVER_ROOT_MODULES | {subpackage}
    for path in (SERVER / subpackage).rglob("*.py"):
        assert server_parts_of(path) <= allowed, f"{path} imports {server_parts_of(path) - allowed}"


@pytest.mark.parametrize("subpackage", ["api", "http"])
def test_only_the_app_imports_the_subpackages_that_serve_clients(subpackage):
    for path in SERVER.rglob("*.py"):
        if path.name != "app.py" and path.parent != SERVER / subpackage:
            assert subpackage not in server_parts_of(path), path


def test_the_server_has_no_other_subpackages_and_its_root_modules_import_none():
    assert {path.parent.name for path in SERVER.glob("*/__init__.py")} == set(SERVER_DEPENDENCIES)
    for module in SERVER_ROOT_MODULES:
        assert server_parts_of(SERVER / f"{module}.py") <= SERVER_ROOT_MODULES


def test_only_the_status_module_knows_grpc_status_codes():
    for path in SERVER.rglob("*.py"):
        if path.name != "status.py":
            assert "StatusCode" not in path.read_text(), path


def test_no_retired_identifier_occurs():
    retired = [line for line in (Path(__file__).parent / "retired_identifiers.txt").read_text().split("\n") if line]
    pattern = re.compile(r"\b(" + "|".join(line for line in retired if not line.startswith("#")) + r")\b")
    for folder in [*FOLDERS.values(), "tests", "benchmarks", "examples"]:
        for path in (ROOT / folder).rglob("*.py"):
            if "gradwire_proto" in path.parts or "node_modules" in path.parts:
                continue
            found = pattern.search(path.read_text())
            assert found is None, f"{path} contains {found and found[0]!r}"


def test_the_engine_imports_neither_grpc_nor_ray():
    for path in (ROOT / "engine").rglob("*.py"):
        assert not top_level(imports_of(path)) & {"grpc", "ray"}, path


def test_only_the_spec_package_of_the_engine_knows_the_protocol():
    for path in (ROOT / "engine" / "gradwire_engine").rglob("*.py"):
        if "spec" not in path.parts:
            assert "gradwire_proto" not in top_level(imports_of(path)), path


def test_only_the_workers_package_of_the_server_uses_ray():
    for path in SERVER.rglob("*.py"):
        if path.parent.name != "workers":
            assert "ray" not in top_level(imports_of(path)), path


def test_nothing_can_unpickle_or_execute():
    forbidden = {"pickle", "cloudpickle", "marshal", "shelve", "dill"}
    for folder in FOLDERS.values():
        for path in (ROOT / folder).rglob("*.py"):
            assert not top_level(imports_of(path)) & forbidden, path
            calls = {
                node.func.id
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            }
            assert not calls & {"eval", "exec"}, path


def test_generated_stubs_match_the_proto_files(tmp_path, monkeypatch):
    pytest.importorskip("grpc_tools")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    monkeypatch.syspath_prepend(str(ROOT / "proto"))
    from generate import generate

    generate(tmp_path)
    generated = {path.name: path.read_text() for path in (tmp_path / "gradwire_proto" / "v1").iterdir()}
    checked_in = {path.name: path.read_text() for path in (ROOT / "proto" / "gradwire_proto" / "v1").glob("*_pb2*.py*")}
    assert generated == checked_in, "run `make proto` and commit what it writes"
