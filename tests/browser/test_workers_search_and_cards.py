"""The workers and the queue, the search by metric, and model cards, in a real browser."""

from pathlib import Path

import numpy as np
import pytest

import gradwire as gw

HOSTILE = '<img src=x onerror="window.hacked=1">'


def submit(client, name, *, epochs=2, **options):
    """Submit a job on random rows."""
    gw.seed(0)
    rng = np.random.default_rng(0)
    data = rng.random((40, 3), dtype=np.float32), rng.integers(0, 2, 40)
    model = gw.Sequential(gw.Linear(3, 8), gw.ReLU(), gw.Linear(8, 2))
    arguments = {"loss": gw.CrossEntropy(), "optimizer": gw.SGD(model, lr=0.05), "epochs": epochs, "name": name}
    return client.jobs.submit(model, data, test=data, **(arguments | options))


def has_rows(page, names):
    page.wait_for_function(
        "names => [...document.querySelectorAll('.rows .row a')].map((each) => each.textContent).join() === names",
        arg=",".join(names),
    )


def test_jobs_are_found_by_the_metrics_of_their_last_epochs(open_page):
    page = open_page()
    search, note = page.get_by_label("Search jobs"), page.locator("#search-note")
    search.fill("train.loss < 0.0005 team=vision")
    has_rows(page, ["run-00004", "run-00002", "run-00000"])
    assert note.is_hidden()
    search.fill("run-000 train.loss>=0.0001 train.loss<=0.0002")
    has_rows(page, ["run-00002", "run-00001"])
    search.fill("accuracy > 0.5 long")
    has_rows(page, ["long"])
    assert note.inner_text() == "accuracy is that of the test set. For the training set, write train.accuracy."
    search.fill(f"long{' ' * 40_000}loss < 1e9")
    has_rows(page, ["long"])
    page.reload()
    has_rows(page, ["long"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("los < 0.1", "The search compares 'test.los' with <. Metrics are running_loss, and train. or test."),
        ("loss < small", "The search compares test.loss with 'small', which is not a finite number such as 0.25."),
        ("loss < nan", "The search compares test.loss with 'nan', which is not a finite number such as 0.25."),
        ("loss < 1e400", "The search compares test.loss with '1e400', which is not a finite number such as 0.25."),
        ("name < 3 AND", "The search compares 'test.name' with <."),
        (f"{HOSTILE}<1", "The search has a condition on 'onerror' with =. Fields are name, state, metrics such as"),
        ("loss < 1 " * 21, "The search must have at most 20 conditions."),
    ],
)
def test_a_wrong_search_says_what_is_wrong_and_shows_no_jobs(open_page, text, problem):
    page = open_page()
    page.locator(".rows .row").first.wait_for()
    page.get_by_label("Search jobs").fill(text)
    page.locator("#search-note.error").wait_for()
    assert page.locator("#search-note").inner_text().startswith(problem)
    assert page.locator(".rows .row").count() == 0
    assert page.evaluate("window.hacked") is None
    page.get_by_label("Search jobs").fill("run-00001")
    has_rows(page, ["run-00001"])
    assert page.locator("#search-note").is_hidden()


def test_a_search_that_is_not_complete_asks_for_the_rest(open_page):
    page = open_page()
    page.get_by_label("Search jobs").fill("run-00001 loss <")
    page.get_by_text("Write a number after loss <.").wait_for()
    has_rows(page, ["run-00001"])
    page.get_by_label("Search jobs").fill("run-00002 < 1")
    page.get_by_text("The search compares").wait_for()
    page.get_by_label("Search jobs").fill("> 1 run-00001")
    page.get_by_text("Write a metric before >, for example loss > 0.1.").wait_for()
    page.get_by_label("Search jobs").fill("constructor")
    page.get_by_text("No job matches").wait_for()


def test_a_wrong_search_of_models_says_what_is_wrong(open_page):
    page = open_page("models")
    page.get_by_label("Search models").fill("loss < 1")
    page.get_by_role("alert").get_by_text("This list has no numbers to compare").wait_for()


def test_a_job_that_changes_is_compared_as_the_server_compares_it(open_page):
    """Protobuf omits a loss of 0, and writes NaN and infinities as strings."""
    page = open_page()
    found = page.evaluate(
        """async () => {
          const { parseSearch } = await import("/static/search.js");
          const epochs = [
            undefined, {}, { train: { loss: 0.1 } }, { test: {} }, { test: { loss: "NaN" } },
            { test: { loss: "Infinity" } }, { test: { loss: 0.5, meanAbsoluteError: 2 } },
          ];
          const searches = ["loss < 0.2", "loss > 0.2", "train.loss <= 0.1", "running_loss < 1",
            "test.mean_absolute_error >= 2", "accuracy < 1", "loss <", "toString < 1"];
          const jobs = epochs.map((lastEpoch, place) => ({ name: "jobs/a", lastEpoch, place }));
          return Object.fromEntries(searches.map((search) => {
            const { matches } = parseSearch(search, "");
            return [search, jobs.filter(matches).map(({ place }) => place)];
          }));
        }"""
    )
    assert found == {
        "loss < 0.2": [3],
        "loss > 0.2": [5, 6],
        "train.loss <= 0.1": [2],
        "running_loss < 1": [1, 2, 3, 4, 5, 6],
        "test.mean_absolute_error >= 2": [6],
        "accuracy < 1": [],
        "loss <": [0, 1, 2, 3, 4, 5, 6],
        "toString < 1": [],
    }


def test_the_workers_and_the_queue_change_with_the_jobs(open_page, client):
    page = open_page("workers")
    workers, queue = (page.get_by_role("region", name=name) for name in ("Workers", "Queue"))
    workers.get_by_text("Idle").wait_for()
    queue.get_by_text("No job waits").wait_for()
    for name in ("occupies", "waits-first", "waits-second"):
        submit(client, name, epochs=10**6)
    workers.get_by_role("link", name="occupies").wait_for()
    queue.get_by_text("all CPU workers are busy, 1 job before it").wait_for()
    assert queue.locator("tbody a").all_inner_texts() == ["waits-first", "waits-second"]
    assert [int(text) for text in page.locator(".figure dd").all_inner_texts()] == [1, 0, 0, 2]
    queue.get_by_role("link", name="waits-second").focus()
    client.jobs.get("waits-first").cancel()
    page.wait_for_function("document.querySelectorAll('.queue tbody tr').length === 1")
    assert page.evaluate("document.activeElement.textContent") == "waits-second"
    page.keyboard.press("Enter")
    page.get_by_text("Waiting: all CPU workers are busy.").wait_for()
    page.get_by_role("link", name="Workers").click()
    client.jobs.get("waits-second").cancel()
    client.jobs.get("occupies").cancel()
    workers.get_by_text("Idle").wait_for()
    queue.get_by_text("No job waits").wait_for()


def test_a_server_that_does_not_schedule_says_what_it_does_not_know(open_page):
    answer = {
        "workers": [{"job": f"jobs/{HOSTILE}", "attempt": 2}, {"device": "gpu", "host": HOSTILE}],
        "busyWorkers": 1500,
        "queueLength": 3,
        "queuedJobs": [{"name": "jobs/a", "createTime": "2026-01-01T00:00:00Z", "reason": HOSTILE}],
    }
    page = open_page()
    page.route("**/ListWorkers", lambda route: route.fulfill(json=answer))
    page.get_by_role("link", name="Workers").click()
    page.get_by_text("Another server schedules the jobs.").wait_for()
    assert page.locator(".figure dd").all_inner_texts() == ["1,500", "–", "–", "3"]
    page.get_by_text("and 1,498 more workers").wait_for()
    page.get_by_text("and 2 more jobs").wait_for()
    assert page.locator("main").inner_text().count(HOSTILE) == 3
    assert page.evaluate("document.querySelectorAll('main img').length") == 0


def test_a_model_card_is_shown_copied_and_saved(open_page, client):
    submit(client, "carded", classes=["no", "<b>|\\ # x"]).result()
    expected = client.models.card("carded")
    page = open_page("models/carded", permissions=["clipboard-read", "clipboard-write"])
    panel = page.locator(".card-panel")
    with page.expect_download() as download:
        panel.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "carded.md"
    assert Path(download.value.path()).read_text() == expected
    panel.get_by_role("button", name="Copy as Markdown").click()
    page.get_by_text("Copied.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == expected
    sections = ["Layers", "Classes", "Data", "Training", "Metrics", "Metrics of each class", "Curves"]
    assert panel.locator("h3").all_inner_texts() == sections
    panel.get_by_text("no, <b>|\\ # x", exact=True).wait_for()
    rows = [row.split("\t") for row in panel.locator("tr").all_inner_texts()]
    assert ["1", "0", "Linear(3, 8)", "32"] in rows
    assert ["Optimizer", "SGD, learning rate 0.05"] in rows
    assert all(line in panel.inner_text() for line in expected.split("```")[1].strip().split("\n"))
