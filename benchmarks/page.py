"""Benchmarks of the web page: its size, the time until it is shown, and the delay until an epoch is painted."""

import asyncio
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
from sqlalchemy import Connection

import gradwire as gw
from benchmarks.printing import line
from gradwire import SGD, CrossEntropy, Linear, ReLU, Sequential
from gradwire_engine.backend import processor_model
from gradwire_proto.v1.training_service_pb2 import Event, Job, JobState, WatchJobRequest
from gradwire_proto.v1.training_service_pb2_grpc import TrainingServiceStub
from gradwire_server.http.page import Page
from gradwire_server.store import job_queries
from gradwire_server.store.database import Database
from gradwire_server.store.job_queries import JobRecord

JOBS = 10_000
LONG_EPOCHS = 100_000
LIVE_EPOCHS = 150
OPENINGS = 7
# Runs in the page and records when each epoch is painted. A frame is painted right after its animation callbacks.
_COLLECT = """
window.painted = {};
addEventListener("gradwire-drawn", ({ detail }) => requestAnimationFrame(() => setTimeout(() => {
  window.painted[detail.epoch] ??= performance.timeOrigin + performance.now();
})));
"""


def main() -> None:
    """Run the benchmarks, and print each result with its target value."""
    print(f"\nweb page in Chromium, on {processor_model()}, {os.cpu_count()} cores\n")
    line("weight of all files, compressed", f"{Page(50051).compressed_bytes / 1000:.1f} kB", "aim: under 150 kB")
    with tempfile.TemporaryDirectory(prefix="gradwire-bench-") as folder:
        store_jobs(Path(folder), JOBS, LONG_EPOCHS)
        with gw.LocalServer(data=folder) as server, chromium() as browser:
            url = page_url(server)
            _openings(browser, url)
            _live(browser, url, server)


def page_url(server: gw.LocalServer) -> str:
    """Return the address of the web page of a server."""
    text = server.log.read_text()
    return text.rpartition("the web page is at ")[2].split()[0]


class chromium:  # noqa: N801  (a context manager that is used like a function)
    """Runs Chromium within a context."""

    def __enter__(self):
        from playwright.sync_api import sync_playwright

        path = shutil.which("chromium") or shutil.which("chromium-browser")
        if path is None:
            raise SystemExit("Chromium is not installed: apt-get install chromium")
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        return self._browser

    def __exit__(self, *_error: object) -> None:
        self._browser.close()
        self._playwright.stop()


def store_jobs(folder: Path, number: int, long_epochs: int) -> None:
    """Write ended jobs to the database of a server that is not running. One of the jobs has many epochs."""
    write(folder, lambda connection: _insert(connection, number, long_epochs))


def write(folder: Path, work: Callable[[Connection], object]) -> None:
    """Run `work` on the database in a folder, in a thread, because Playwright's event loop may run in this one."""

    def run() -> None:
        database = Database(folder / "gradwire.db")
        asyncio.run(database.write(work))
        database.close()

    with ThreadPoolExecutor(1) as threads:
        threads.submit(run).result()


def _insert(connection: Connection, number: int, long_epochs: int) -> None:
    now = time.time_ns()
    for place in range(number):
        job = _job(f"run-{place:05}", now - (number - place) * 10**9)
        job.labels["team"] = ("vision", "prices")[place % 2]
        job.state = (JobState.JOB_STATE_SUCCEEDED, JobState.JOB_STATE_CANCELLED, JobState.JOB_STATE_FAILED)[place % 3]
        job_queries.insert_job(connection, _record(job), "")
    long = _job("long", now)
    record = _record(long)
    job_queries.insert_job(connection, record, "")
    events = [Event(sequence=1, state_change={"state": JobState.JOB_STATE_QUEUED})]
    losses = 2 * np.exp(-np.arange(long_epochs) / 20_000) + 0.1 * np.random.default_rng(0).random(long_epochs)
    for epoch, loss in enumerate(losses.tolist(), 1):
        metrics = {"loss": loss, "accuracy": 1 - loss / 3}
        events.append(
            Event(sequence=epoch + 1, epoch={"epoch": epoch, "running_loss": loss, "train": metrics, "test": metrics})
        )
    for event in events:
        event.time.FromNanoseconds(now)
    long.last_epoch.CopyFrom(events[-1].epoch)
    long.last_sequence, long.epochs, long.state = len(events), long_epochs, JobState.JOB_STATE_SUCCEEDED
    job_queries.insert_events(connection, record.job_key, events)
    job_queries.save_job(connection, record)


def _record(job: Job) -> JobRecord:
    job_id = job.name.removeprefix("jobs/")
    return JobRecord(0, job_id, classification=True, workers_lost=0, crashes=0, last_report=0, job=job)


def _job(job_id: str, created: int) -> Job:
    job = Job(name=f"jobs/{job_id}", architecture="64-32-10", epochs=20, attempt=1, last_sequence=4)
    job.spec.epochs, job.spec.batch_size = 20, 32
    job.spec.loss.cross_entropy.SetInParent()
    job.spec.optimizer.sgd.learning_rate = 0.1
    for place, width in enumerate((32, 10)):
        linear = job.spec.model.layers.add(name=str(place)).linear
        linear.in_features, linear.out_features = (64, 32)[place], width
    job.last_epoch.epoch = 20
    job.last_epoch.train.loss, job.last_epoch.train.accuracy = 0.1, 0.97
    job.create_time.FromNanoseconds(created)
    job.start_time.FromNanoseconds(created)
    job.end_time.FromNanoseconds(created + 5 * 10**9)
    return job


def _openings(browser, url: str) -> None:
    """Measure the time from requesting the page until its first rows, or its curve, are on the screen."""
    page = browser.new_page(bypass_csp=True)  # The CSP forbids the conditions that Playwright waits for.
    seen = {
        "jobs": "document.querySelectorAll('.rows .row').length >= 50",
        "jobs/long": "document.querySelector('.plot canvas')",
    }
    for path, condition in seen.items():
        times = []
        for _ in range(OPENINGS):
            page.goto("about:blank")
            page.goto(f"{url}/#/{path}", wait_until="commit")
            page.wait_for_function(f"!!({condition})", polling="raf")
            times.append(page.evaluate("performance.now()"))
        what = f"the list of {JOBS:,} jobs" if path == "jobs" else f"a job of {LONG_EPOCHS:,} epochs"
        line(
            f"open {what}: median until it is shown",
            f"{statistics.median(times):.0f} ms",
            "from the request of the page",
        )
    page.close()


def _live(browser, url: str, server: gw.LocalServer) -> None:
    """Measure the delay until a stored epoch is painted, for a job whose epochs take some tens of milliseconds."""
    gw.seed(0)
    model = Sequential(Linear(64, 256), ReLU(), Linear(256, 10))
    rng = np.random.default_rng(0)
    rows = rng.random((40_000, 64), dtype=np.float32), rng.integers(0, 10, 40_000)
    page = browser.new_page(bypass_csp=True)  # The CSP forbids the conditions that Playwright waits for.
    page.add_init_script(_COLLECT)
    with gw.Client(server.address) as client:
        job = client.jobs.submit(
            model,
            rows,
            loss=CrossEntropy(),
            optimizer=SGD(model, lr=0.01),
            epochs=LIVE_EPOCHS,
            batch_size=64,
            name="live",
        )
        page.goto(f"{url}/#/jobs/live")
        job.result()
        page.wait_for_function(f"window.painted[{LIVE_EPOCHS}] !== undefined")
    painted = {int(epoch): when for epoch, when in page.evaluate("window.painted").items()}
    page.close()
    stored = {}
    with grpc.insecure_channel(server.address) as channel:
        for response in TrainingServiceStub(channel).WatchJob(WatchJobRequest(name="jobs/live")):
            stored |= {
                each.epoch.epoch: each.time.ToNanoseconds() / 1e6 for each in response.events if each.epoch.epoch
            }
    # The first epochs of the page were stored before it was opened.
    delays = [painted[epoch] - stored[epoch] for epoch in sorted(painted)[5:] if epoch in stored]
    cuts = statistics.quantiles(delays, n=100)
    gap = statistics.median(np.diff(list(stored.values())))
    line(
        f"from a stored epoch to its pixels, {len(delays)} epochs: p50",
        f"{cuts[49]:.0f} ms",
        f"an epoch each {gap:.0f} ms",
    )
    line("                                                 p99", f"{cuts[98]:.0f} ms", "")
