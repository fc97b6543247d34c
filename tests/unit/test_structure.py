"""What holds for the tree as a whole: the arrows between the packages, and stubs that match the .proto files."""

import ast
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
ARROWS = {
    "gradwire_proto": set(),
    "gradwire_engine": {"gradwire_proto"},
    "gradwire_worker": {"gradwire_engine", "gradwire_proto"},
    "gradwire_server": {"gradwire_worker", "gradwire_engine", "gradwire_proto"},
    "gradwire": {"gradwire_engine", "gradwire_proto"},
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
        assert ours <= ARROWS[package], f"{path} imports {ours - ARROWS[package]}"


def test_the_engine_knows_neither_network_nor_ray():
    for path in (ROOT / "engine").rglob("*.py"):
        assert not top_level(imports_of(path)) & {"grpc", "ray"}, path


def test_only_the_spec_rooms_of_the_engine_know_the_messages():
    for path in (ROOT / "engine" / "gradwire_engine").rglob("*.py"):
        if "spec" not in path.parts:
            assert "gradwire_proto" not in top_level(imports_of(path)), path


def test_only_the_runner_speaks_to_ray():
    for path in (ROOT / "server").rglob("*.py"):
        if path.name != "ray_cluster.py":
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
