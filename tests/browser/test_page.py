"""The web page in a real browser, on a server with 10,000 jobs and a job of 100,000 epochs."""

import math
import re
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from http_server import http_server

import gradwire as gw
from gradwire_proto.v1.training_service_pb2 import Job, JobState
from gradwire_server.store import job_queries
from gradwire_server.store.job_queries import JobRecord

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks.page import write  # noqa: E402

PHONE = {"width": 390, "height": 844}
HOSTILE = '<img src=x onerror="window.hacked=1">'
# The browser reports failed requests as errors.
OFFLINE = "ERR_CONNECTION|ERR_INCOMPLETE|Failed to load resource"


def submit(client, name, *, epochs=20, rows=1000, widths=(64, 32, 10), lr=0.05, **options):
    """Submit a job on random rows."""
    gw.seed(0)
    rng = np.random.default_rng(0)
    data = rng.random((rows, widths[0]), dtype=np.float32), rng.integers(0, widths[-1], rows)
    model = gw.Sequential(gw.Linear(widths[0], widths[1]), gw.ReLU(), gw.Linear(widths[1], widths[2]))
    arguments = {"loss": gw.CrossEntropy(), "optimizer": gw.SGD(model, lr=lr), "batch_size": 32, "epochs": epochs}
    return client.jobs.submit(model, data, **(arguments | options), name=name)


def epoch_shown(page):
    text = page.locator(".figure", has_text="Epoch").first.locator("dd").inner_text()
    return int(re.match(r"[\d,]+", text)[0].replace(",", ""))


def wait_for_epoch(page, after):
    page.wait_for_function(
        "after => Number(document.querySelector('.figure dd')?.firstChild.data.replaceAll(',', '')) > after", arg=after
    )


def collect_drawn(page):
    """Collect the last epoch of each drawing of a curve."""
    page.add_init_script(
        "window.drawn = []; addEventListener('gradwire-drawn', ({ detail }) => window.drawn.push(detail.epoch))"
    )


def test_a_job_from_the_sdk_appears_and_its_curve_grows_without_reload(open_page, client):
    page = open_page()
    collect_drawn(page)
    page.reload()
    page.locator(".row", has_text="long").first.wait_for()
    submit(client, "from-the-sdk", epochs=100_000, labels={"team": "vision"})
    row = page.locator(".row", has_text="from-the-sdk")
    row.wait_for()
    row.get_by_text("Running").wait_for()
    row.get_by_role("link").click()
    page.locator(".plot canvas").first.wait_for()
    page.wait_for_function("new Set(window.drawn).size > 5")
    first = epoch_shown(page)
    wait_for_epoch(page, first)
    page.wait_for_function("first => window.drawn.at(-1) > first", arg=first)
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Pause").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel the job").click()
    page.get_by_role("button", name="Delete").wait_for()
    page.locator(".events").get_by_text("Cancelled").wait_for()
    events = page.locator(".events strong").all_inner_texts()
    assert events[:4] == ["Queued", "Starting", "Running", "Paused"]
    assert events[-1] == "Cancelled"
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("heading", name="Jobs").wait_for()
    assert row.count() == 0


def test_a_clone_has_the_changed_settings(open_page, client):
    submit(client, "original", epochs=3).result()
    page = open_page("jobs/original")
    page.get_by_role("button", name="Clone").click()
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_label("Learning rate").input_value() == "0.05"
    dialog.get_by_label("Name").fill("the-clone")
    dialog.get_by_label("Epochs").fill("0")
    dialog.get_by_role("button", name="Create job").click()
    dialog.get_by_role("alert").get_by_text("epochs").wait_for()
    dialog.get_by_label("Epochs").fill("4")
    dialog.get_by_label("Learning rate").fill("0.25")
    dialog.get_by_label("Batch size").fill("16")
    dialog.get_by_role("button", name="Create job").click()
    page.get_by_role("heading", name="the-clone").wait_for()
    page.locator(".pill", has_text="Succeeded").wait_for()
    assert epoch_shown(page) == 4
    table = page.locator(".settings").inner_text()
    assert re.search(r"Learning rate\s+0.25\s+Batch size\s+16\s+Epochs\s+4", table)


def test_the_page_survives_a_restart_of_the_server(open_page, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADWIRE_PLAN", "reference")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with http_server(tmp_path, http_port=port) as running, gw.Client(running.address) as client:
        submit(client, "survivor", epochs=200_000)
        page = open_page("jobs/survivor", base=running.server.http.url, allowed=OFFLINE)
        wait_for_epoch(page, 10)
    banner = page.locator("#connection")
    banner.get_by_text("Reconnecting").wait_for()
    before = epoch_shown(page)
    with http_server(tmp_path, http_port=port) as running, gw.Client(running.address) as client:
        banner.wait_for(state="hidden")
        wait_for_epoch(page, before)
        assert page.locator(".events", has_text="Queued").count() == 1
        client.jobs.get("survivor").cancel()


@pytest.fixture(scope="module")
def digits_model(running, digits):
    gw.seed(0)
    model = gw.Sequential(gw.Linear(64, 64), gw.ReLU(), gw.Linear(64, 10))
    with gw.Client(running.address) as client:
        client.jobs.submit(
            model, digits.train, test=digits.test, loss=gw.CrossEntropy(), optimizer=gw.SGD(model, lr=0.1), epochs=60,
            batch_size=32, name="digits",
        ).result()  # fmt: skip
    return "models/digits"


def draw(page, points):
    """Draw a line through points with coordinates from 0 to 1."""
    box = page.locator(".board").bounding_box()
    place = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*place[0])
    page.mouse.down()
    for x, y in place[1:]:
        page.mouse.move(x, y, steps=4)
    page.mouse.up()


ZERO = [(0.5 + 0.17 * math.cos(t / 10), 0.5 + 0.3 * math.sin(t / 10)) for t in range(64)]
ONE = [(0.5, 0.2), (0.5, 0.8)]
TWO = [(0.33, 0.27), (0.45, 0.2), (0.6, 0.22), (0.66, 0.35), (0.6, 0.5), (0.45, 0.65), (0.33, 0.8), (0.7, 0.8)]
SEVEN = [(0.3, 0.25), (0.7, 0.25), (0.45, 0.8)]


@pytest.mark.parametrize(("digit", "points"), [("0", ZERO), ("1", ONE), ("2", TWO), ("7", SEVEN)])
def test_the_canvas_answers_a_drawn_digit(open_page, digits_model, digit, points):
    page = open_page(digits_model)
    draw(page, points)
    page.wait_for_function("digit => document.querySelector('.answer').textContent === digit", arg=digit)
    assert page.locator(".answer-bars .best").count() == 1
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("Draw to ask the model").wait_for()


def test_the_canvas_answers_while_one_draws(open_page, digits_model):
    page = open_page(digits_model)
    box = page.locator(".board").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 200, steps=5)
    page.get_by_text("sure").wait_for()  # The button is still down.


def test_the_keyboard_draws(open_page, digits_model):
    page = open_page(digits_model)
    page.locator(".board").focus()
    for _ in range(14):
        page.keyboard.press("Shift+ArrowDown")
    page.wait_for_function("document.querySelector('.answer').textContent === '1'")


def test_real_digits_are_answered_as_the_model_does(open_page, digits_model, digits, client):
    """The page sends the same request as the SDK, decodes the outputs, and names the same class."""
    page = open_page(digits_model)
    rows = digits.test[0][:5]
    expected = client.models.predict("digits", rows.astype(np.float32)).argmax(axis=1)
    answers = page.evaluate(
        """async (rows) => {
          const { predict } = await import("/static/predict.js");
          const model = await (await import("/static/api.js")).call("GetModel", { name: "models/digits" });
          return (await predict(model, rows)).map((row) => row.indexOf(Math.max(...row)));
        }""",
        rows.tolist(),
    )
    assert answers == expected.tolist()


def test_rows_of_numbers_are_predicted(open_page, client):
    submit(client, "three", widths=(3, 8, 2), epochs=2, classes=["no", HOSTILE[:40]]).result()
    page = open_page("models/three")
    area = page.get_by_label("Rows of numbers")
    area.fill("1, 2")
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("Row 1 must have 3 numbers, and has 2.").wait_for()
    area.fill("1, 2, 3\n0.5 0.5 0.5")
    page.get_by_role("button", name="Predict").click()
    page.locator(".predict tbody tr").nth(1).wait_for()
    assert HOSTILE[:40] in page.locator(".predict thead").inner_text()
    assert page.evaluate("document.querySelectorAll('main img').length") == 0


def test_a_model_is_downloaded(open_page, digits_model):
    page = open_page(digits_model)
    with page.expect_download() as download:
        page.get_by_role("button", name="safetensors").click()
    assert download.value.suggested_filename == "digits.safetensors"
    assert Path(download.value.path()).stat().st_size > 64 * 64 * 4


def test_a_hostile_name_is_shown_as_text(open_page, tmp_path, monkeypatch):
    """The server does not accept such names. If one gets into the database, the page still shows it as text."""
    job = Job(name=f"jobs/{HOSTILE}", state=JobState.JOB_STATE_FAILED, epochs=1, architecture=HOSTILE)
    job.create_time.GetCurrentTime()
    job.labels["team"] = HOSTILE
    job.error.message = HOSTILE
    job.spec.model.layers.add(name=HOSTILE).linear.out_features = 3
    record = JobRecord(0, "hostile", classification=False, workers_lost=0, crashes=0, last_report=0, job=job)
    write(tmp_path, lambda connection: job_queries.insert_job(connection, record, ""))
    with http_server(tmp_path) as running:
        page = open_page(base=running.server.http.url)
        link = page.locator(".row a").first
        link.wait_for()
        assert link.inner_text() == HOSTILE
        assert HOSTILE in page.locator(".row .label").first.inner_text()
        assert page.evaluate("document.querySelectorAll('main img').length") == 0
        assert page.evaluate("window.hacked") is None


def test_the_content_security_policy_stops_inline_scripts(open_page):
    page = open_page(allowed="Content Security Policy|violates|Failed to load", bypass_csp=False)
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.hacked = 1'}))")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked = 1\">')")
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None


def test_everything_is_reached_with_the_keyboard(open_page, client):
    submit(client, "by-keyboard", epochs=2).result()
    page = open_page()
    page.locator(".row").nth(1).wait_for()
    page.keyboard.press("/")
    page.keyboard.type("by-keyboard")
    page.wait_for_function("document.querySelectorAll('.rows .row').length === 1")
    names = []
    for _ in range(14):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.textContent || document.activeElement.ariaLabel"))
        if names[-1] == "by-keyboard":
            break
    assert names[:3] == ["All", "Queued", "Starting"]
    assert names[-2:] == ["Compare by-keyboard", "by-keyboard"]
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="by-keyboard").wait_for()
    page.get_by_role("button", name="Clone").focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    assert page.evaluate("document.activeElement.textContent") == "Clone"


@pytest.mark.parametrize("path", ["jobs", "jobs/long", "jobs/long,run-00001", "models", "models/digits"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(open_page, digits_model, path, scheme):
    page = open_page(path, viewport=PHONE, color_scheme=scheme, bypass_csp=False)
    page.locator(".card").first.wait_for()
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.documentElement.dataset.theme") == scheme


def test_ten_thousand_jobs_are_listed_in_pages_and_searched(open_page):
    page = open_page()
    page.locator(".rows .row").nth(49).wait_for()
    assert page.locator(".rows .row").count() == 50
    page.get_by_role("button", name="Load more").click()
    page.locator(".rows .row").nth(99).wait_for()
    page.get_by_label("Search jobs").fill("run-01234")
    page.wait_for_function("document.querySelectorAll('.rows .row').length === 1")
    assert page.locator(".rows .row a").inner_text() == "run-01234"
    page.get_by_label("Search jobs").fill("team=prices run-0123")
    page.wait_for_function("document.querySelectorAll('.rows .row').length === 5")
    page.get_by_label("Search jobs").fill("team=prices")
    page.get_by_role("button", name="Failed").click()
    page.wait_for_function(
        "[...document.querySelectorAll('.rows .pill')].every((each) => each.textContent === 'Failed')"
    )
    assert "state=FAILED" in page.url
    page.get_by_label("Search jobs").fill("nothing-has-this-name")
    page.get_by_text("No job matches").wait_for()


def test_a_job_of_100000_epochs_sends_what_a_screen_shows(open_page):
    page = open_page("about")
    samples = []
    page.on("response", lambda response: samples.append(response) if "SampleEpochs" in response.url else None)
    collect_drawn(page)
    page.goto(page.url.replace("about", "jobs/long"))
    page.reload()
    page.wait_for_function("window.drawn.at(-1) === 100000")
    assert len(samples[-1].body()) < 120_000
    over = page.locator(".u-over").first.bounding_box()
    page.mouse.move(over["x"] + 0.5 * over["width"], over["y"] + 50)
    page.mouse.down()
    page.mouse.move(over["x"] + 0.6 * over["width"], over["y"] + 50, steps=4)
    page.mouse.up()
    page.wait_for_function("window.drawn.at(-1) > 55000 && window.drawn.at(-1) < 65000")
    page.get_by_role("button", name="Show all epochs").click()
    page.wait_for_function("window.drawn.at(-1) === 100000")


def test_jobs_are_compared(open_page, client):
    for name, lr in (("slow", 0.01), ("fast", 0.5)):
        submit(client, name, lr=lr, epochs=5).result()
    page = open_page()
    for name in ("slow", "fast"):
        page.get_by_label(f"Compare {name}").check()
    page.get_by_role("link", name="Compare 2 jobs").click()
    page.get_by_role("heading", name="2 jobs").wait_for()
    page.wait_for_function("document.querySelectorAll('.legend li').length === 4")
    assert page.locator(".settings .differs th").all_inner_texts() == ["Learning rate"]


def test_a_server_with_a_token_asks_for_it(open_page, tmp_path):
    with http_server(tmp_path, token="open-sesame") as running:
        page = open_page(base=running.server.http.url)
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("This is not the token of this server.").wait_for()
        page.get_by_label("Token").fill("open-sesame")
        page.keyboard.press("Enter")
        page.get_by_text("No jobs yet").wait_for()
        assert page.context.cookies() == []
        page.reload()
        page.get_by_text("No jobs yet").wait_for()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("Token").wait_for()


def test_the_event_source_of_the_protocol_page_works(open_page, client):
    submit(client, "xor", widths=(2, 4, 2), epochs=3).result()
    (example,) = re.findall(r"^```js\n(.*?)^```$", (ROOT / "docs/protocol.md").read_text(), re.MULTILINE | re.DOTALL)
    page = open_page()
    said = []
    page.on("console", lambda message: said.append(message.text.split()[0]))
    page.evaluate(f"{{ {example}; window.events = events; }}")
    page.wait_for_function("window.events.readyState === EventSource.CLOSED")
    assert said == ["1", "2", "3"]


def test_what_does_not_exist_is_said(open_page):
    page = open_page("jobs/nobody")
    page.get_by_text("Not found").wait_for()
    page.get_by_text("nobody").first.wait_for()
