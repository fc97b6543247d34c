"""`import gradwire` is fast, because it does not load servers, displays or compilers."""

import subprocess
import sys

HEAVY = ("ray", "numba", "rich", "typer", "pandas", "matplotlib", "safetensors", "google.rpc", "grpc_status")


def test_import_gradwire_loads_only_what_a_client_needs():
    script = f"import gradwire, sys; print([name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=280, check=True)
    assert run.stdout == "[]\n"


def test_the_version_matches_the_distribution():
    from importlib.metadata import version

    import gradwire

    assert gradwire.__version__ == version("gradwire")
