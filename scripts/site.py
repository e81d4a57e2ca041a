"""Hooks of mkdocs.yml: what the documentation's site takes from outside of docs/.

- README.md is the site's first page; ARCHITECTURE.md and the others of TOP_PAGES are pages too.
- A link to any other file of the repository leads to a copy in the site, so that it works offline.
- `[name.tsv](name.tsv)` alone in a paragraph is shown as a table.
"""

import csv
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).parents[1]
TOP_PAGES = {
    "README.md": "index.md",
    **{
        f"{name}.md": f"{name}.md"
        for name in ("ARCHITECTURE", "CHANGELOG", "CONTRIBUTING", "SECURITY")
    },
}
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)")
TABLE = re.compile(r"^\[[^]]+\]\(([^)]+\.tsv)\)$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages at the repository's top."""
    for source, target in TOP_PAGES.items():
        text = (PROJECT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, target, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead each link to where its target is in the site."""
    target = page.file.src_uri
    own = next((name for name, uri in TOP_PAGES.items() if uri == target), f"docs/{target}")
    markdown = TABLE.sub(lambda match: _make_table(own, match[1]), markdown)
    return LINK.sub(lambda match: _find(own, target, match[1], config, files), markdown)


def _find(own: str, target: str, link: str, config: MkDocsConfig, files: Files) -> str:
    path = posixpath.normpath(posixpath.join(posixpath.dirname(own), link))
    uri = TOP_PAGES.get(path, path.removeprefix("docs/"))
    if not path.startswith("docs/") and path not in TOP_PAGES:
        uri = _copy(path, config, files)
    return posixpath.relpath(uri, posixpath.dirname(target) or ".")


def _copy(path: str, config: MkDocsConfig, files: Files) -> str:
    """The copy of a file of the repository; of a folder, the list of its files."""
    source = PROJECT / path
    uri = f"source/{path}" if source.is_file() else f"source/{path}/index.txt"
    if uri not in files.src_uris:
        text = source.read_bytes() if source.is_file() else _list(source).encode()
        files.append(File.generated(config, uri, content=text))
    return uri


def _list(folder: Path) -> str:
    return "".join(
        f"{name.relative_to(PROJECT)}\n" for name in sorted(folder.rglob("*")) if name.is_file()
    )


def _make_table(own: str, link: str) -> str:
    text = (PROJECT / posixpath.dirname(own) / link).read_text(encoding="utf-8")
    head, *rows = csv.reader(text.splitlines(), delimiter="\t")
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def on_post_build(config: MkDocsConfig, **_: Any) -> None:
    """Remove the site map: it names a server that there is not."""
    for name in ("sitemap.xml", "sitemap.xml.gz", "404.html"):
        (Path(config.site_dir) / name).unlink(missing_ok=True)
