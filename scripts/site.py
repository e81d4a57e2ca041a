"""Build the documentation as static HTML with search: site.py [DIRECTORY], by default build/site.

The result needs no network and works from file://. Sphinx reads a copy of the pages, because some
are at the top of the repository. In the copy

- README.md is the first page, and docs/navigation.yaml is the sidebar;
- a link to any other file of the repository leads to a copy of it;
- `[name.tsv](name.tsv)` alone in a paragraph is a table.

A broken link or anchor is an error. Exit code: that of Sphinx.
"""

import csv
import posixpath
import re
import shutil
import sys
import tempfile
from pathlib import Path

import yaml
from sphinx.cmd.build import build_main

from bundler import __version__

PROJECT = Path(__file__).parents[1]
FIRST_PAGE = "README.md"
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)")
TABLE = re.compile(r"^\[[^]]+\]\(([^)]+\.tsv)\)$", re.MULTILINE)
CONFIGURATION = {
    "project": "bundler",
    "release": __version__,
    "html_title": f"bundler {__version__}",
    "extensions": ["myst_parser"],
    "html_theme": "furo",
    "html_copy_source": False,
    "html_show_copyright": False,
    "html_show_search_summary": False,  # a page cannot read other pages from file://
    "myst_heading_anchors": 4,
    "myst_links_external_new_tab": True,
    "suppress_warnings": ["misc.highlighting_failure"],  # … in YAML
}


def main(target: Path) -> int:
    navigation = yaml.safe_load((PROJECT / "docs" / "navigation.yaml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        source = Path(name)
        lines = [f"{key} = {value!r}\n" for key, value in CONFIGURATION.items()]
        (source / "conf.py").write_text("".join(lines), encoding="utf-8")
        for page in [FIRST_PAGE, *(page for pages in navigation.values() for page in pages)]:
            text = make_page(page, (PROJECT / page).read_text(encoding="utf-8"), source)
            if page == FIRST_PAGE:
                text += make_sidebar(navigation)
            place = source / place_of(page)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        return build_main(["-q", "-W", "--keep-going", "-b", "html", str(source), str(target)])


def place_of(page: str) -> str:
    """Where the copy of a page is."""
    return "index.md" if page == FIRST_PAGE else page.removeprefix("docs/")


def make_sidebar(navigation: dict[str, list[str]]) -> str:
    return "".join(
        f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n"
        + "".join(f"{place_of(page)}\n" for page in pages)
        + "```\n"
        for title, pages in navigation.items()
    )


def make_page(page: str, text: str, source: Path) -> str:
    """A page's text with links as they are in the copy."""
    text = TABLE.sub(lambda match: make_table(PROJECT / page, match[1]), text)
    return LINK.sub(lambda match: make_link(page, match[1], source), text)


def make_link(page: str, link: str, source: Path) -> str:
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    place = place_of(path) if path.endswith(".md") else copy_file(path, source)
    return posixpath.relpath(place, posixpath.dirname(place_of(page)) or ".")


def copy_file(path: str, source: Path) -> str:
    """The copy of a file of the repository; of a folder, the list of its files."""
    original = PROJECT / path
    place = f"source/{path}" if original.is_file() else f"source/{path}/files.txt"
    (source / place).parent.mkdir(parents=True, exist_ok=True)
    if original.is_file():
        shutil.copy(original, source / place)
    else:
        names = sorted(str(p.relative_to(PROJECT)) for p in original.rglob("*") if p.is_file())
        (source / place).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return place


def make_table(page: Path, link: str) -> str:
    """The first two columns of a file of values set apart by tabs."""
    rows = csv.reader((page.parent / link).read_text(encoding="utf-8").splitlines(), delimiter="\t")
    head, *rest = [row[:2] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---", "---"], *rest))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else PROJECT / "build" / "site")))
