"""Statistics of the code: packages and their dependencies, long functions, typed signatures, and the import time."""

import ast
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "gradwire_engine": ROOT / "engine",
    "gradwire_worker": ROOT / "worker",
    "gradwire_server": ROOT / "server",
    "gradwire": ROOT / "client_sdk",
}
IMPORT_RUNS = 11

Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> None:
    """Print all statistics."""
    _print_dependencies()
    functions = [(path, node) for path in _files() for node in _functions(path)]
    path, longest = max(functions, key=lambda item: _lines(item[1]))
    print(f"\nlongest function: {longest.name}, {_lines(longest)} lines without docstring ({path.relative_to(ROOT)})")
    # A command's arguments are its command-line options.
    others = [(path, node) for path, node in functions if not {"cli", "__main__.py"} & set(path.parts)]
    path, widest = max(others, key=lambda item: _positional(item[1]))
    print(f"longest positional list: {widest.name}, {_positional(widest)} arguments ({path.relative_to(ROOT)})")
    public = [node for _, node in functions if not _is_private(node) and not _is_compiled(node)]
    typed = sum(map(_is_typed, public))
    share = 100 * typed / len(public)
    print(f"public functions with typed signatures without Any: {typed} of {len(public)}, {share:.0f} %")
    base, extra = _import_milliseconds()
    print(f"import numpy, grpc: {base:.0f} ms. import gradwire after them: {extra:.0f} ms more (aim: at most 50)")


def _print_dependencies() -> None:
    """Print the server's subpackages, the subpackages that each of them imports, and the longest import chain."""
    server = PACKAGES["gradwire_server"] / "gradwire_server"
    graph = {
        folder.name: _server_imports(folder) - {folder.name}
        for folder in sorted(server.iterdir())
        if (folder / "__init__.py").exists()
    }
    print(f"\nsubpackages of the server: {len(graph)}, with {len(list(server.rglob('*.py')))} modules")
    for name, imported in sorted(graph.items(), key=lambda item: _depth(graph, item[0])):
        print(f"  {name:<12} imports {', '.join(sorted(imported)) or 'none of them'}")
    dependencies = sum(map(len, graph.values()))
    print(f"dependencies between them: {dependencies}; longest chain: {max(_depth(graph, name) for name in graph)}")


def _server_imports(folder: Path) -> set[str]:
    """Return the server's subpackages that a folder's modules import."""
    found = set()
    subpackages = {path.parent.name for path in folder.parent.glob("*/__init__.py")}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gradwire_server."):
                found.add(str(node.module).split(".")[1])
    return found & subpackages


def _depth(graph: dict[str, set[str]], name: str) -> int:
    return 1 + max((_depth(graph, imported) for imported in graph[name]), default=0)


def _files() -> Iterator[Path]:
    for package, folder in PACKAGES.items():
        yield from sorted((folder / package).rglob("*.py"))


def _functions(path: Path) -> list[Function]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, Function)]


def _lines(function: Function) -> int:
    """Return the number of lines of a function, without its docstring."""
    assert function.end_lineno is not None
    first = function.body[0]
    has_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = first.end_lineno - first.lineno + 1 if has_docstring and first.end_lineno else 0
    return function.end_lineno - function.lineno + 1 - docstring


def _positional(function: Function) -> int:
    return len(function.args.posonlyargs) + len(function.args.args)


def _is_private(function: Function) -> bool:
    return function.name.startswith("_") and not function.name.startswith("__")


def _is_compiled(function: Function) -> bool:
    """Return whether Numba compiles a function and infers its types."""
    return any(
        "njit" in ast.dump(decorator) or "intrinsic" in ast.dump(decorator) for decorator in function.decorator_list
    )


def _is_typed(function: Function) -> bool:
    """Return whether all arguments and the result have annotations, and no annotation is Any."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    annotations = [argument.annotation for argument in arguments if argument.arg not in ("self", "cls")]
    return all(
        annotation is not None and "'Any'" not in ast.dump(annotation)
        for annotation in [*annotations, function.returns]
    )


def _import_milliseconds() -> tuple[float, float]:
    """Return the median processor time of importing numpy and grpc, and of importing gradwire after them."""
    program = (
        "from time import process_time as now\nstart = now()\nimport numpy, grpc\nmiddle = now()\nimport gradwire\n"
        "print(middle - start, now() - middle)"
    )
    with tempfile.TemporaryDirectory() as folder:
        # An installed package has bytecode. A source tree has none if Python is not allowed to write it there.
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder}
        command = [sys.executable, "-c", program]
        subprocess.run(command, env=environment, capture_output=True, check=True)
        runs = [
            subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
            for _ in range(IMPORT_RUNS)
        ]
    base, extra = zip(*runs, strict=True)
    return 1000 * statistics.median(map(float, base)), 1000 * statistics.median(map(float, extra))


if __name__ == "__main__":
    main()
