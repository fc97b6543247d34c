"""Chromium, and a server with 10,000 jobs."""

import contextlib
import re
import shutil
import sys
from pathlib import Path

import pytest
from http_server import http_server

import gradwire as gw

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks.page import store_jobs  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
JOBS = 10_000
LONG_EPOCHS = 100_000


@pytest.fixture(scope="package")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: make test-browser")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: make test-browser, or apt-get install chromium")
    with playwright.sync_playwright() as started:
        # The tests run as root in containers, where Chromium's own sandbox does not work.
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def running(chromium, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    store_jobs(folder, JOBS, LONG_EPOCHS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GRADWIRE_PLAN", "reference")
        with http_server(folder) as started:
            yield started


@pytest.fixture(scope="package")
def url(running):
    return running.server.http.url


@pytest.fixture
def client(running):
    with gw.Client(running.address) as connected:
        yield connected


@pytest.fixture
def open_page(chromium, url):
    """Opens a page. An error in it fails the test.

    Playwright waits for conditions with eval, which the policy of the page forbids. Tests that do not wait in this way
    leave the policy in force.
    """
    with contextlib.ExitStack() as stack:
        problems = []

        def opened(
            path="jobs", viewport=DESKTOP, base=url, allowed="Failed to load resource", bypass_csp=True, **options
        ):
            context = chromium.new_context(viewport=viewport, bypass_csp=bypass_csp, **options)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(20_000)

            def on_console(message):
                if message.type == "error" and not re.search(allowed, message.text):
                    problems.append(message.text)

            page.on("console", on_console)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.goto(f"{base}/#/{path}")
            return page

        yield opened
    assert problems == []
