"""The confusion matrix and the metrics of each class of a job, in a real browser."""

import numpy as np
import pytest

import gradwire as gw

PHONE = {"width": 390, "height": 844}
HOSTILE = '<img src=x onerror="window.hacked=1">'
# The best epoch is always the first, because no later epoch is this much better.
FIRST_IS_BEST = gw.EarlyStopping(patience=1000, min_delta=100.0)


def submit(client, name, outputs, *, epochs=4, rows=300, **options):
    """Submit a job on rows whose classes depend on their inputs."""
    gw.seed(0)
    rng = np.random.default_rng(0)
    inputs = rng.random((rows, 3), dtype=np.float32)
    data = inputs, (inputs[:, 0] * outputs).astype(int)
    model = gw.Sequential(gw.Linear(3, 16), gw.ReLU(), gw.Linear(16, outputs))
    arguments = {"loss": gw.CrossEntropy(), "optimizer": gw.SGD(model, lr=0.5), "epochs": epochs, "name": name}
    return client.jobs.submit(model, data, test=data, **(arguments | options))


def shown(page):
    """Return the matrix that the page shows."""
    rows = page.get_by_role("region", name="Confusion matrix").locator("tbody tr").all()
    return [[int(text.replace(",", "")) for text in row.locator("td").all_inner_texts()] for row in rows]


def is_wider_than_the_screen(page):
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


def test_the_classes_of_the_final_and_the_best_epoch_appear_when_the_job_ends(open_page, client):
    job = submit(client, "two-epochs", 3, epochs=100_000, early_stopping=FIRST_IS_BEST)
    page = open_page("jobs/two-epochs")
    page.locator(".pill", has_text="Running").wait_for()
    card = page.locator(".confusion")
    assert not card.is_visible()
    next(epoch for epoch in job.epochs() if epoch.epoch > 50)
    job.stop()
    card.get_by_text("The rows of the test set, with the weights after epoch 1.").wait_for()
    job.wait()
    assert shown(page) == job.confusion_matrix("best").counts.tolist()
    card.get_by_role("button", name="Final epoch").click()
    card.get_by_text(f"after epoch {job.refresh().epochs_done:,}.").wait_for()
    assert card.locator("[aria-pressed=true]").inner_text() == "Final epoch"
    matrix = job.confusion_matrix("last")
    assert shown(page) == matrix.counts.tolist() != job.confusion_matrix("best").counts.tolist()
    table = page.get_by_role("region", name="Metrics of each class").locator("tbody tr")
    expected = [
        [each.name, f"{each.precision:.3f}", f"{each.recall:.3f}", f"{each.f1:.3f}", str(each.rows)]
        for each in job.classification_report("last")
    ]
    assert [row.locator("th, td").all_inner_texts() for row in table.all()] == expected


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_large_matrix_scrolls_on_a_phone_and_names_are_text(open_page, client, scheme):
    names = [HOSTILE, *(f"class {number}" for number in range(1, 100))]
    submit(client, f"hundred-{scheme}", 100, rows=2000, classes=names).wait()
    page = open_page(f"jobs/hundred-{scheme}", viewport=PHONE, color_scheme=scheme)
    region = page.get_by_role("region", name="Confusion matrix")
    region.wait_for()
    assert len(shown(page)) == 100
    assert region.evaluate("region => region.scrollWidth > region.clientWidth")
    assert not is_wider_than_the_screen(page)
    assert region.locator("tbody th").first.inner_text() == HOSTILE
    assert page.evaluate("window.hacked") is None


def test_a_job_that_predicts_numbers_has_no_matrix(open_page, client):
    rng = np.random.default_rng(0)
    model = gw.Sequential(gw.Linear(3, 1))
    data = rng.random((40, 3), dtype=np.float32), rng.random(40, dtype=np.float32)
    options = {"loss": gw.MSE(), "optimizer": gw.SGD(model, lr=0.1), "epochs": 2, "name": "numbers"}
    client.jobs.submit(model, data, **options).wait()
    page = open_page("jobs/numbers")
    with page.expect_response(lambda response: "GetClassCounts" in response.url) as answer:
        page.reload()
    assert answer.value.status == 400
    page.locator(".pill", has_text="Succeeded").wait_for()
    assert not page.locator(".confusion").is_visible()
