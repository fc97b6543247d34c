"""docker-compose.yml and .env.example agree, and the images contain what they need."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
KNOB = re.compile(r"\$\{(GRADWIRE_\w+)(?::([-+?])([^}]*))?\}")


def documented():
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_variable_is_documented_with_its_default():
    knobs = {}
    for name, kind, default in KNOB.findall(COMPOSE):
        if kind == "-" and default != "/dev/null":
            assert knobs.setdefault(name, default) == default, f"{name} has two defaults"
    assert knobs.items() <= documented().items()
    assert set(documented()) == {name for name, _, _ in KNOB.findall(COMPOSE)}


def test_services_drop_their_privileges_and_have_health_checks():
    services = yaml.safe_load(COMPOSE)["services"]
    for name in ("server", "ray-head", "ray-worker", "ray-worker-gpu", "demo"):
        service = services[name]
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
    assert all("ports" not in service for name, service in services.items() if name != "server")
    assert all("healthcheck" in services[name] for name in ("server", "ray-head", "postgres"))


def test_ray_requires_a_token_that_only_the_containers_of_the_deployment_share():
    (variables,) = re.findall(r"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=(\S+)", (ROOT / "Dockerfile").read_text())
    folder = str(Path(variables).parent)
    services = yaml.safe_load(COMPOSE)["services"]
    for name in ("server", "ray-head", "ray-worker", "ray-worker-gpu"):
        assert not any(key.startswith("RAY_AUTH") for key in services[name].get("environment", {})), name
        shared = [volume for volume in services[name]["volumes"] if volume.split(":")[1] == folder]
        # The head creates the token.
        assert shared == [f"ray:{folder}" if name == "ray-head" else f"ray:{folder}:ro"], name
    for name in ("postgres", "demo"):
        assert not any(volume.startswith("ray:") for volume in services[name].get("volumes", [])), name


def test_the_http_port_is_published_on_the_loopback_interface_only():
    ports = yaml.safe_load(COMPOSE)["services"]["server"]["ports"]
    assert [port for port in ports if port.endswith(":50052")] == ["127.0.0.1:${GRADWIRE_HTTP_PORT:-50052}:50052"]
    assert "--http-port 50052" in (ROOT / "docker" / "start").read_text()


def test_every_image_that_is_built_has_its_target():
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    built = {s["build"]["target"] for s in yaml.safe_load(COMPOSE)["services"].values() if "build" in s}
    assert built == {"server", "worker", "worker-cuda", "demo"}
    assert built <= targets


def test_every_container_has_limits():
    for name, service in yaml.safe_load(COMPOSE)["services"].items():
        assert service["pids_limit"], name
        assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"]), name
        assert {"max-size", "max-file"} <= set(service["logging"]["options"]), name
        assert all("size=" in mount for mount in service.get("tmpfs", [])), name
        assert "no-new-privileges:true" in service["security_opt"], name


def test_base_images_can_be_pinned_by_digest():
    services = yaml.safe_load(COMPOSE)["services"]
    base = re.search(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1]
    for service in services.values():
        if "build" in service:
            assert service["build"]["args"] == {"BASE": f"${{GRADWIRE_BASE_IMAGE:-{base}}}"}
    assert re.search(r"\$\{GRADWIRE_POSTGRES_VERSION:-", services["postgres"]["image"])


def test_there_is_no_default_password():
    assert "PASSWORD" in COMPOSE
    for name, value in documented().items():
        assert value == "" or not re.search("PASSWORD|TOKEN", name), name
    postgres = yaml.safe_load(COMPOSE)["services"]["postgres"]
    assert "POSTGRES_PASSWORD" not in postgres["environment"]


@pytest.fixture
def start_postgres(tmp_path):
    """Runs the container's entry point. A script that prints the password replaces the image's own entry point."""
    entrypoint = tmp_path / "docker-entrypoint.sh"
    entrypoint.write_text('#!/bin/sh\necho "$@ $POSTGRES_PASSWORD"\n')
    entrypoint.chmod(0o755)
    passfile = tmp_path / "volume" / "pgpass"
    passfile.parent.mkdir()

    def run(password=""):
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "GRADWIRE_POSTGRES_PASSFILE": str(passfile),
            "GRADWIRE_POSTGRES_PASSWORD": password,
            "GRADWIRE_UID": str(os.getuid()),
        }
        command = [ROOT / "docker" / "start-postgres", "postgres"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    return run, passfile


def test_postgres_gets_a_password_at_its_first_start_and_keeps_it(start_postgres):
    run, passfile = start_postgres
    program, password = run()
    assert program == "postgres"
    assert re.fullmatch("[0-9a-f]{48}", password)
    assert passfile.read_text() == f"*:*:*:gradwire:{password}\n"
    assert passfile.stat().st_mode & 0o777 == 0o600
    assert run() == ["postgres", password]


def test_a_password_for_postgres_can_be_given(start_postgres):
    run, passfile = start_postgres
    assert run("chosen") == ["postgres", "chosen"]
    assert not passfile.exists()
