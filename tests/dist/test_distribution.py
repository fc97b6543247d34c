"""The wheel is complete, has few dependencies, and can run the demo. Each test that runs it uses a new environment."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "gradwire_proto": "proto",
    "gradwire_engine": "engine",
    "gradwire_worker": "worker",
    "gradwire_server": "server",
    "gradwire": "client_sdk",
}
FIT = """
import numpy as np
import gradwire as gw

model = gw.Sequential(gw.Linear(2, 8), gw.ReLU(), gw.Linear(8, 1))
X = np.random.default_rng(0).random((64, 2))
history = gw.fit(model, (X, X.sum(axis=1)), loss=gw.MSE(), optimizer=gw.SGD(model, lr=0.1), epochs=20, at="local")
assert history.epochs[-1].train.loss < history.epochs[0].train.loss
print(gw.__file__, gw.__version__)
"""
FIND = f"from importlib.util import find_spec; print(*(find_spec(package).origin for package in {[*PACKAGES]}))"


class Environment:
    """A virtual environment, and a folder in which its commands run.

    Args:
        folder: The folder in which to create both.
    """

    def __init__(self, folder: Path) -> None:
        self.venv = folder / "venv"
        self.work = folder / "work"
        self.work.mkdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.venv], check=True)
        self.python = self.venv / "bin" / "python"
        self.site_packages = next(self.venv.glob("lib/python*/site-packages"))

    def pip(self, *arguments: str | Path) -> str:
        """Run this process's pip on the environment, and return the output."""
        return self._run([sys.executable, "-m", "pip", "--python", self.python, *arguments])

    def run(self, command: str, *arguments: str | Path) -> str:
        """Run a command in the environment, and return the output."""
        return self._run([self.venv / "bin" / command, *arguments])

    def _run(self, command: list[str | Path]) -> str:
        # Prevent imports from the repository, except in an environment where it is installed.
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        env["MPLBACKEND"] = "Agg"
        run = subprocess.run(command, cwd=self.work, env=env, capture_output=True, text=True, timeout=150, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel as `make dist` builds it, that is, from the source distribution and not from the repository."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    build = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert build.returncode == 0, build.stdout + build.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def package_index():
    """Skip the test if pip cannot reach a package index."""
    install = ["install", "--dry-run", "--quiet", "--no-deps", "--ignore-installed", "--no-cache-dir", "typer"]
    command = [sys.executable, "-m", "pip", "--retries=1", "--timeout=20", *install]
    probe = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if probe.returncode:
        pytest.skip(f"pip cannot reach a package index: {probe.stderr.strip().splitlines()[-1]}")


def test_the_wheel_has_every_file_of_the_packages_and_no_other(wheel):
    in_the_wheel = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    in_the_repository = {
        path.relative_to(ROOT / folder).as_posix()
        for package, folder in PACKAGES.items()
        for path in (ROOT / folder / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert in_the_wheel == in_the_repository
    kinds = {Path(name).suffix or Path(name).name for name in in_the_wheel}
    assert {".cu", ".mako", ".py", ".pyi", ".typed"} <= kinds


@pytest.mark.usefixtures("package_index")
def test_the_client_install_is_light_and_trains_in_this_process(wheel, tmp_path):
    environment = Environment(tmp_path)
    environment.pip("install", "--quiet", "--no-compile", "--constraint", ROOT / "constraints.txt", wheel)
    installed = {package["name"].lower() for package in json.loads(environment.pip("list", "--format=json"))}
    assert "grpcio" in installed
    assert not installed & {"ray", "numba", "llvmlite", "sqlalchemy", "alembic", "onnx", "matplotlib", "scikit-learn"}
    assert "Usage: gradwire" in environment.run("gradwire", "--help")
    file, version = environment.run("python", "-c", FIT).split()
    assert Path(file).is_relative_to(environment.site_packages)
    assert f"-{version}-" in wheel.name


def test_the_demo_runs_from_the_wheel_with_the_extras(wheel, tmp_path):
    environment = Environment(tmp_path)
    environment.pip("install", "--quiet", "--no-deps", wheel)
    # The new environment uses the extras that are installed in the test environment. If a .pth file names a folder,
    # Python ignores the .pth files in that folder, so the editable installation of gradwire is not found there.
    (environment.site_packages / "extras.pth").write_text(sysconfig.get_path("purelib"))
    for file in environment.run("python", "-c", FIND).split():
        assert Path(file).is_relative_to(environment.site_packages)
    shutil.copy(ROOT / "examples" / "digits.py", environment.work)
    assert "Test accuracy 0.9" in environment.run("python", "digits.py")
    assert {path.name for path in (environment.work / "demo-output").iterdir()} == {"digits.png", "digits.safetensors"}
