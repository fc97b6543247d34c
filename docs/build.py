"""Builds the documentation site in site/ (`python docs/build.py`), and treats warnings as errors.

The Markdown files are written for the repository, where a link can lead to any file. The site is built from a copy in
build/docs: README.md is the home page, CONTRIBUTING.md, CHANGELOG.md and SECURITY.md are pages, and a link to a file
that is not part of the site becomes the path of the file.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAGE = ROOT / "build" / "docs"
# Pages outside docs/, and their names in the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "report-a-vulnerability.md",
}
SUFFIXES = {".md", ".png", ".svg"}
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
HTML = re.compile(r'(?P<attribute>src|href)="(?P<target>[^"]+)"')


class LinkError(Exception):
    """The target of a link does not exist."""


def main() -> None:
    """Build the site, and exit with an error if a link is broken or the generator warns."""
    shutil.rmtree(STAGE, ignore_errors=True)
    try:
        stage(STAGE)
    except LinkError as error:
        sys.exit(str(error))
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", "mkdocs.yml"]
    build = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    # Zensical does not count warnings about docstrings, which start with "griffe:".
    if build.returncode or "griffe:" in build.stdout:
        sys.exit(f"{build.stdout}\nThe documentation has warnings. Correct them and build again.")
    print(f"The site is in {ROOT / 'site'}.")


def stage(folder: Path) -> None:
    """Copy every page and image into `folder`, with links that work there.

    Raises:
        LinkError: A page links to a file that does not exist.
    """
    sources = [ROOT / page for page in PAGES]
    sources += [path for path in sorted((ROOT / "docs").rglob("*")) if path.suffix in SUFFIXES]
    for source in sources:
        target = folder / site_path(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            target.write_text(relink(source.read_text(), source))
        else:
            shutil.copyfile(source, target)


def site_path(source: Path) -> str | None:
    """Return the site path of a repository file, or None if the site does not contain it."""
    path = source.relative_to(ROOT).as_posix()
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/") and source.suffix in SUFFIXES:
        return path.removeprefix("docs/")
    return None


def relink(text: str, source: Path) -> str:
    """Convert the links of a page for the site. Code blocks are not changed.

    Args:
        text: The Markdown text.
        source: The file of the page.

    Raises:
        LinkError: The target of a link does not exist.
    """

    def link(match: re.Match[str]) -> str:
        target = _resolve(match["target"], source)
        if target is None:
            path = _linked_file(match["target"], source).relative_to(ROOT).as_posix()
            return match["text"] if path in match["text"] else f"{match['text']} (`{path}`)"
        return f"{match['image']}[{match['text']}]({target})"

    def attribute(match: re.Match[str]) -> str:
        target = _resolve(match["target"], source)
        return match[0] if target is None else f'{match["attribute"]}="{target}"'

    parts, end = [], 0
    for fence in [*FENCE.finditer(text), None]:
        prose = text[end : fence.start() if fence else None]
        parts.append(HTML.sub(attribute, LINK.sub(link, prose)))
        if fence:
            parts.append(fence[0])
            end = fence.end()
    return "".join(parts)


def _resolve(target: str, source: Path) -> str | None:
    """Return the target of a link as a link within the site, or None if the site does not contain the file."""
    if re.match(r"[a-z]+:|#", target):
        return target
    path = site_path(_linked_file(target, source))
    if path is None:
        return None
    folder = Path(site_path(source) or "").parent
    _, mark, anchor = target.partition("#")
    return os.path.relpath(path, folder) + mark + anchor


def _linked_file(target: str, source: Path) -> Path:
    path = Path(os.path.normpath(source.parent / target.partition("#")[0]))
    if not path.exists() or not path.is_relative_to(ROOT):
        raise LinkError(f"{source.relative_to(ROOT)} links to {target}, which does not exist.")
    return path


if __name__ == "__main__":
    main()
