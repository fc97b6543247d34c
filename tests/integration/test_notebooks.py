"""Runs the notebooks of the examples in a real Jupyter kernel, and checks what their cells show."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"


@pytest.fixture(scope="module")
def executed(server, tmp_path_factory):
    """Return a function that runs a notebook, or a list of cells, and returns its code cells."""

    def execute(book):
        folder = tmp_path_factory.mktemp("notebook")
        notebook = NotebookClient(book, timeout=120, resources={"metadata": {"path": str(folder)}})
        notebook.execute(env={**os.environ, "GRADWIRE_ADDRESS": server.address, "IPYTHONDIR": str(folder)})
        return [cell for cell in book.cells if cell.cell_type == "code"]

    return execute


def read(name):
    return nbformat.read(FOLDER / name, as_version=4)


def html_of(cell):
    return [output.data["text/html"] for output in cell.outputs if "text/html" in output.get("data", {})]


def images_of(cell):
    return [output for output in cell.outputs if "image/png" in output.get("data", {})]


def text_of(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def test_the_notebooks_are_stored_without_outputs():
    for path in FOLDER.glob("*.ipynb"):
        book = read(path.name)
        nbformat.validate(book)
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in book.cells), path


# A plot at the end of a cell, in the middle of a cell, and in a later cell.
PLOTS = ["history.plot()", "figure = history.plot()\nprint('later')", "figure", "history"]


# The kernel's own event loop runs while a blocking client uses another one.
ASYNC = """async with gw.AsyncClient(address) as client:
    job = await client.jobs.get(history.job)
    epochs = [epoch.epoch async for epoch in job.epochs()]
with gw.Client(address) as other:
    print(job.status, len(epochs), other.jobs.get(history.job).status)"""


@pytest.fixture(scope="module")
def chapter(executed):
    """The cells of the chapter's notebook, and of ASYNC and PLOTS after them."""
    book = read("chapter.ipynb")
    book.cells += map(nbformat.v4.new_code_cell, [ASYNC, *PLOTS])
    return executed(book)


def test_fit_shows_one_growing_block_and_a_plot_appears_in_its_cell(chapter):
    fitted, plotted, described, _ = chapter[-len(PLOTS) - 4 : -len(PLOTS)]
    (block,) = html_of(fitted)
    assert len(fitted.outputs) == 1
    assert "epoch 60/60" in block
    assert block.count("<svg") == 2
    assert "Best epoch: " in block
    (image,) = images_of(plotted)
    assert image.metadata["image/png"]["width"] == 720
    assert "<b>TwoLayers</b>" in html_of(described)[0]
    assert "[]" in text_of(described)  # no hint


def test_an_async_client_works_in_the_event_loop_of_the_kernel(chapter):
    assert text_of(chapter[-len(PLOTS) - 1]) == "SUCCEEDED 60 SUCCEEDED\n"


def test_a_plot_is_shown_once_wherever_it_is_in_a_cell(chapter):
    last, middle, later, described = chapter[-len(PLOTS) :]
    assert [len(images_of(cell)) for cell in (last, middle, later)] == [1, 1, 1]
    assert [len(last.outputs), len(later.outputs)] == [1, 1]
    assert "<svg" in html_of(described)[0]


def test_digits_are_classified_and_the_model_leaves(executed):
    cells = executed(read("digits.ipynb"))
    report = next(html for cell in cells for html in html_of(cell) if "<th>precision</th>" in html)
    assert report.count("<tr>") == 11
    assert "['digits.npz', 'digits.onnx']" in text_of(cells[-2])


def test_a_csv_file_with_class_names_gives_a_model_with_a_card(executed):
    cells = executed(read("csv.ipynb"))
    assert "('cat', 'dog', 'horse')" in cells[2].outputs[-1].data["text/plain"]
    assert "## Layers" in cells[-1].outputs[-1].data["text/markdown"]


def test_several_jobs_are_watched_together_and_compared(executed):
    _, watched, compared, _, listed, job, _ = executed(read("compare.ipynb"))
    (block,) = html_of(watched)
    assert block.count("epoch 25/25") == 3
    assert len(images_of(compared)) == 1
    assert html_of(listed)[0].count("SUCCEEDED") == 3
    assert ">SUCCEEDED</td>" in html_of(job)[0]
