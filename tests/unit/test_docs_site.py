"""The documentation site: the API reference is complete, and the links work."""

import importlib.util
import re
from pathlib import Path

import pytest

import gradwire as gw

ROOT = Path(__file__).parents[2]
REFERENCE = re.compile(r"^(?:::: |## )gradwire\.([\w\\]+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build_docs", ROOT / "docs" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_public_name_once():
    pages = "\n".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    names = [name.replace("\\", "") for name in REFERENCE.findall(pages)]
    assert sorted(names) == sorted(gw.__all__)


@pytest.mark.parametrize(
    ("page", "link", "in_the_site"),
    [
        ("README.md", "[start](docs/quickstart.md)", "[start](quickstart.md)"),
        ("docs/clients/go.md", "[help](../../CONTRIBUTING.md#tests)", "[help](../contributing.md#tests)"),
        ("docs/engine.md", "![a chart](images/engine.png)", "![a chart](images/engine.png)"),
        ("README.md", '<img src="docs/images/engine.png">', '<img src="images/engine.png">'),
        ("README.md", "[buf](https://buf.build)", "[buf](https://buf.build)"),
        ("docs/protocol.md", "[the files](../proto/gradwire/v1)", "the files (`proto/gradwire/v1`)"),
        ("docs/protocol.md", "[`proto/gradwire/v1`](../proto/gradwire/v1)", "`proto/gradwire/v1`"),
        ("README.md", "```sh\n[x](nothing.md)\n```", "```sh\n[x](nothing.md)\n```"),
    ],
)
def test_a_repository_link_works_on_the_site(build, page, link, in_the_site):
    assert build.relink(link, ROOT / page) == in_the_site


def test_a_link_to_a_file_that_does_not_exist_is_an_error(build):
    with pytest.raises(build.LinkError, match=re.escape("README.md links to docs/nothing.md")):
        build.relink("[nothing](docs/nothing.md)", ROOT / "README.md")


def test_every_link_of_every_page_leads_to_a_file(build, tmp_path):
    build.stage(tmp_path)
    assert (tmp_path / "index.md").exists()
