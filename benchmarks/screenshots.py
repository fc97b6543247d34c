"""Takes the screenshots of the web page in docs/images, with jobs that train on the digits."""

import itertools
import math
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import gradwire as gw
from benchmarks.page import chromium, page_url

IMAGES = Path(__file__).parents[1] / "docs" / "images"
DESKTOP, PHONE = {"width": 1240, "height": 860}, {"width": 390, "height": 844}
DIGIT = [(0.33, 0.27), (0.45, 0.2), (0.6, 0.22), (0.66, 0.35), (0.6, 0.5), (0.45, 0.65), (0.33, 0.8), (0.7, 0.8)]


def main() -> None:
    """Train some models, and take the screenshots while another one is being trained."""
    with gw.LocalServer("--cpus-per-job=1") as server, gw.Client(server.address) as client, chromium() as browser:
        _train(client)
        url = page_url(server)
        for name, path, scheme, viewport in (
            ("job-light", "jobs/digits-deep", "light", DESKTOP),
            ("job-dark", "jobs/digits-deep", "dark", DESKTOP),
            ("jobs-light", "jobs", "light", DESKTOP),
            ("jobs-dark", "jobs", "dark", DESKTOP),
            ("compare-light", "jobs/rate-1,rate-01,rate-001", "light", DESKTOP),
            ("model-light", "models/digits", "light", DESKTOP),
            ("model-dark", "models/digits", "dark", DESKTOP),
            ("workers-light", "workers", "light", DESKTOP),
            ("phone-jobs", "jobs", "light", PHONE),
            ("phone-job", "jobs/digits-deep", "dark", PHONE),
            ("phone-model", "models/digits", "light", PHONE),
        ):
            context = browser.new_context(viewport=viewport, color_scheme=scheme)
            page = context.new_page()
            page.goto(f"{url}/#/{path}")
            page.wait_for_timeout(1500)
            if "model" in name:
                _draw(page)
            page.screenshot(path=IMAGES / f"page-{name}.png")
            context.close()
        client.jobs.get("digits-deep").cancel()


def _train(client: gw.Client) -> None:
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    X, y = (X[order] / 16).astype(np.float32), y[order]
    train, test = (X[:1437], y[:1437]), (X[1437:], y[1437:])
    many = np.tile(train[0], (30, 1)), np.tile(train[1], 30)
    vision, sweep = {"team": "vision"}, {"team": "vision", "sweep": "rate"}
    _submit(client, "rate-1", train, test, (64, 32, 10), lr=1.0, labels=sweep).result()
    _submit(client, "rate-01", train, test, (64, 32, 10), lr=0.1, labels=sweep).result()
    _submit(client, "rate-001", train, test, (64, 32, 10), lr=0.01, labels=sweep).result()
    _submit(client, "digits", train, test, (64, 96, 10), lr=0.1, labels=vision).result()
    paused = _submit(client, "overnight", many, test, (64, 128, 10), lr=0.01, epochs=5000, labels=vision)
    _wait(paused, 12)
    paused.pause()
    cancelled = _submit(client, "too-slow", many, test, (64, 256, 256, 10), lr=1e-4, epochs=900)
    _wait(cancelled, 3)
    cancelled.cancel()
    running = _submit(client, "digits-deep", many, test, (64, 128, 64, 10), lr=0.0005, epochs=400, labels=vision)
    _wait(running, 40)


def _submit(client, name, train, test, widths, *, lr, epochs=60, labels=None):
    gw.seed(0)
    layers = [gw.Linear(a, b) for a, b in itertools.pairwise(widths)]
    model = gw.Sequential(*[module for layer in layers for module in (layer, gw.ReLU())][:-1])
    return client.jobs.submit(
        model, train, test=test, loss=gw.CrossEntropy(), optimizer=gw.SGD(model, lr=lr), epochs=epochs, batch_size=32,
        name=name, labels=labels or {},
    )  # fmt: skip


def _wait(job: gw.Job, epoch: int) -> None:
    deadline = time.monotonic() + 120
    for each in job.epochs():
        if each.epoch >= epoch or time.monotonic() > deadline:
            return


def _draw(page) -> None:
    """Draw a two."""
    box = page.locator(".board").bounding_box()
    place = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in DIGIT]
    page.mouse.move(*place[0])
    page.mouse.down()
    for x, y in place[1:]:
        page.mouse.move(x, y, steps=max(1, int(4 * math.dist((x, y), place[0]) / 100)))
    page.mouse.up()
    page.wait_for_timeout(600)


main()
