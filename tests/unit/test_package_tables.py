"""The table of contents in the docstring of each package."""

import ast
import re
from pathlib import Path

import pytest
from support.paths import PROJECT

FOLDERS = sorted(path.parent for path in (PROJECT / "bundler").rglob("__init__.py"))
ROW = re.compile(r"([\w.-]+/?) {2,}\S.*")

tables = pytest.mark.parametrize(
    "folder", FOLDERS, ids=lambda folder: str(folder.relative_to(PROJECT))
)


def read_docstring(folder: Path) -> str:
    source = (folder / "__init__.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def list_rows(folder: Path) -> list[str]:
    """The names in the first column of the table."""
    return [row[1] for line in read_docstring(folder).splitlines() if (row := ROW.fullmatch(line))]


def list_contents(folder: Path) -> list[str]:
    """The files in the folder, and the folders with a trailing slash."""
    return [
        f"{path.name}/" if path.is_dir() else path.name
        for path in folder.iterdir()
        if path.name not in {"__init__.py", "__pycache__"}
    ]


@tables
def test_a_package_describes_each_of_its_files_once(folder: Path) -> None:
    assert sorted(list_rows(folder)) == sorted(list_contents(folder))


@tables
def test_a_package_starts_with_one_sentence(folder: Path) -> None:
    assert read_docstring(folder).split("\n", 1)[0].endswith(".")
