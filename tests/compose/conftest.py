"""Configuration for the deployment tests. They run only on request, because they build images and start containers."""

import pytest


def pytest_addoption(parser):
    parser.addoption("--run-compose", action="store_true", help="run the deployment tests (make compose-test)")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--run-compose"):
        for item in items:
            if item.path.parent.name == "compose":
                item.add_marker(pytest.mark.skip(reason="it builds images and starts containers: make compose-test"))
