"""The files of the web page: what they load, what they call, and how large they are."""

import itertools
import re
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool

from gradwire_proto.v1 import model_service_pb2, training_service_pb2  # noqa: F401
from gradwire_server.http.page import Page
from gradwire_server.jobs.samples import sample

STATIC = Path(__file__).parents[3] / "server" / "gradwire_server" / "http" / "static"
MODULES = sorted(STATIC.glob("*.js"))
METHOD = re.compile(r'^  (\w+): \["(\w+)", \[(.*?)\]\],$', re.MULTILINE)


def test_every_call_of_the_page_is_in_the_protocol():
    methods = METHOD.findall((STATIC / "api.js").read_text())
    assert len(methods) > 10
    for name, service, fields in methods:
        request = descriptor_pool.Default().FindMethodByName(f"gradwire.v1.{service}.{name}").input_type
        known = {field.json_name for field in request.fields}
        assert set(re.findall(r'"(\w+)"', fields)) <= known, name


def test_every_call_is_in_the_list_of_methods():
    known = {name for name, _, _ in METHOD.findall((STATIC / "api.js").read_text())}
    for module in MODULES:
        used = re.findall(r'\b(?:call|stream|download|change)\("(\w+)"', module.read_text())
        assert set(used) <= known, module.name


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_a_module_imports_what_exists_and_makes_no_html_from_text(module):
    text = module.read_text()
    for path in re.findall(r'from "([^"]+)"', text):
        assert (module.parent / path).is_file(), path
        exported = (module.parent / path).read_text()
        for names in re.findall(r'import \{([^}]*)\} from "' + re.escape(path), text):
            for name in filter(None, (each.strip() for each in names.split(","))):
                assert re.search(rf"export (async )?(function\*?|class|const) {name}\b", exported), f"{path}: {name}"
                assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} is imported and not used"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)


def test_nothing_is_loaded_from_elsewhere():
    for path in (*MODULES, STATIC / "index.html", STATIC / "style.css"):
        found = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", path.read_text())
        assert set(found) <= {"http://www.w3.org"}, path.name
    index = (STATIC / "index.html").read_text()
    assert "<style" not in index
    assert not re.search(r"<script(?![^>]*\bsrc=)", index)
    assert not re.search(r'\s(?:style|on\w+)="', index)
    for path in re.findall(r'(?:href|src)="/static/([^"]+)"', index):
        assert (STATIC / path).is_file(), path


def test_the_page_is_light():
    assert Page(50051).compressed_bytes < 150_000


def test_the_chart_library_has_its_version_and_licence():
    assert "uPlot 1.6.32" in (STATIC / "vendor" / "uplot.js").read_text()[:200]
    assert "MIT" in (STATIC / "vendor" / "uplot-LICENSE.txt").read_text()


@pytest.mark.parametrize(
    ("first", "last", "most", "evaluate_every", "expected"),
    [
        (1, 0, 5, 1, []),
        (1, 1, 5, 1, [1]),
        (1, 5, 5, 1, [1, 2, 3, 4, 5]),
        (1, 6, 5, 1, [1, 2, 4, 6]),
        (3, 103, 5, 1, [3, 34, 68, 102, 103]),
        (1, 100, 12, 7, [1, 14, 28, 42, 56, 70, 84, 98, 100]),
        (1, 100, 12, 50, [1, 50, 100]),
        (1, 1000, 3, 1, [1, 1000]),
    ],
)
def test_a_sample_has_the_ends_and_evaluated_epochs(first, last, most, evaluate_every, expected):
    assert sample(first, last, most, evaluate_every) == expected


@pytest.mark.parametrize("most", [3, 4, 10, 500])
@pytest.mark.parametrize("number", [1, 9, 500, 501, 999, 100_000])
def test_a_sample_is_never_larger_than_asked(most, number):
    for first in (1, 2, 77):
        found = sample(first, first + number - 1, most, 1)
        assert len(found) <= most
        assert (found[0], found[-1]) == (first, first + number - 1)
        assert len(set(distances(found))) <= 3


def distances(numbers):
    return [b - a for a, b in itertools.pairwise(numbers)]
