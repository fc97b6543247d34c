"""docker-compose.yml and .env.example agree, and the images contain what they need."""

import re
from pathlib import Path

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


def test_every_service_gives_up_its_rights_and_is_watched():
    services = yaml.safe_load(COMPOSE)["services"]
    for name in ("server", "ray-head", "ray-worker", "ray-worker-gpu", "demo"):
        service = services[name]
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
    assert all("ports" not in service for name, service in services.items() if name != "server")
    assert all("healthcheck" in services[name] for name in ("server", "ray-head", "postgres"))


def test_every_image_that_is_built_has_its_target():
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    built = {s["build"]["target"] for s in yaml.safe_load(COMPOSE)["services"].values() if "build" in s}
    assert built == {"server", "worker", "worker-cuda", "demo"}
    assert built <= targets
